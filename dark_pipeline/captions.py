"""What to look for in each picture of the dark pipeline."""

CAPTIONS = {
    "cold_map": "Dark current of the coldest group, longest exposure. What does not fall with temperature stands out here:"
    " a bright corner or edge is glow of the amplifier.",
    "hot_map": "Dark current of the hottest group, longest exposure. Single bright pixels are hot ones.",
    "hot_spectrum": "Number of pixels above each dark current, with the limits of warm and hot pixels.",
    "against_temperature": "Median pixel less the offset of its session, with the 2-D model; at most six exposures,"
    " those with the widest range of temperatures. Residuals should agree with zero.",
    "arrhenius": "The same in logarithm, rates above 3 sigma, against 1/kT. A straight line is one activation"
    " energy; a bend to a flat end is glow, or an offset that the fit does not know.",
    "against_exposure": "Rate of the median pixel against exposure. A linear dark is flat; the same fall at short exposures"
    " at all temperatures, in ADU, is an offset between dark and bias level.",
    "a_map": "A: dark current at the lowest temperature and 1 s.",
    "b_map": "B: growth with temperature. Pixels should scatter about one value; structure is glow, which grows less.",
    "gamma_map": "GAMMA: power of the exposure, 0 for a linear dark.",
    "doubling_map": "Temperature that doubles the dark current of each pixel.",
    "chi2_map": "Reduced chi-square of each pixel. Structure is dark signal that the law does not describe.",
    "dark_current_vs_temperature": "Median pixel of one exposure against temperature with the 1-D model.",
    "masks_all": "Error of the 1-D model in percent at the hottest temperature, all pixels.",
    "masks_mape_less_100": "The same for pixels below 100 percent.",
    "masks_mape_100_200": "The same for pixels from 100 to 200 percent: faint ones.",
    "masks_mape_over_200": "The same for pixels above 200 percent: no measurable dark current, or a pixel that was"
    " struck or jumps.",
    "mae": "Mean absolute error of the 2-D model over temperature and exposure.",
    "mape": "Mean absolute error in percent (of 3 sigma where the rate is lower).",
    "dark_real": "Median dark current of the maps.",
    "dark_synthetic": "Median dark current of the model.",
    "scatter": "Model against map for single pixels: along the line within the noise.",
    "line_compare": "Sorted values of map and model. The map is wider at the faint end by its noise.",
}

KINDS = {
    "BIAS_A": "bias used: level at 0 °C",
    "BIAS_B": "bias used: slope",
    "BIAS_COVARIANCE": "bias used: covariance",
    "READ_NOISE": "read noise used",
    "DARK_CURRENT": "dark current of one temperature and exposure, with error, quality bits and its frames",
    "DARK_CORRECTED": "one dark less its bias",
    "HOT_PIXELS": "hot pixels, 0 or 1",
    "DARK_A": "1-D model: dark current at T_MIN",
    "DARK_B": "1-D model: growth with temperature",
    "DARK_COVARIANCE": "1-D model: cov(A, B), reduced chi-square",
    "DARK_A_2D": "2-D model: A",
    "DARK_B_2D": "2-D model: B",
    "DARK_GAMMA_2D": "2-D model: gamma",
    "DARK_COVARIANCE_2D": "2-D model: covariances, reduced chi-square",
    "GLOBAL_PARAMS": "parameters of the sensor",
    "DARK_MODEL_2D": "the 2-D model in numbers",
    "SYNTHETIC_DARK": "dark of the model at one temperature and exposure",
    "EVALUATION_SUMMARY": "errors of the model for each map",
    "REJECTED_FRAMES": "frames left out, with the reason",
    "SUMMARY": "the numbers of this report",
    "REPORT": "this page",
}
"""What each kind of product is, for the list in the report."""
