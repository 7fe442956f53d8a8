"""What to look for in each picture of the flat pipeline."""

CAPTIONS = {
    "master_map": "Master flat with the colours at robust limits. Rings are dust, single dark points dead pixels.",
    "response_histogram": "Response of the good pixels. Its width, noise taken out, is the PRNU.",
    "radial_profile": "Flat against the distance from the centre of the illumination, with the model; below, the residual."
    " It should scatter about zero without a trend.",
    "illumination_map": "Illumination, 1 at its centre: what the optics do, smooth over the whole frame.",
    "profiles": "Middle row and column of the flat, with the illumination. Steps and spikes are the sensor's.",
    "levels": "Level of each frame above its dark. Steps and drifts are the lamp's; each frame is normalised by its own.",
    "a_map": "A: the flat at the reference temperature and exposure.",
    "b_map": "B: change with temperature. Pixels should scatter about 0 within their errors; structure is real.",
    "c_map": "C: change with exposure. Structure is a shutter, a dark that does not fit, or a sensor that is not linear.",
    "chi2_map": "Reduced chi-square of each pixel. Structure is what the model does not describe.",
    "diff": "Master less model. Only noise should be left.",
    "mae": "Absolute value of the same.",
    "mape": "The same in percent of the master.",
    "evaluation_mae": "Mean absolute error of the model over temperature and exposure.",
    "evaluation_summary": "Errors of each master against the model: in-sample, and with the master left out of the fit.",
}

KINDS = {
    "DARK_SOURCES": "what was subtracted from each group of flats",
    "AUTO_DARK_FILES": "the darks chosen, as --dark-files-json takes them",
    "PEDESTAL": "bias and dark subtracted from the single frames of a group",
    "FLAT_REDUCED": "one flat less bias and dark",
    "FLAT_NORMALIZED": "one flat divided by its level",
    "FLAT_VIGNCORR": "one normalised flat divided by the illumination",
    "VIGNETTING": "illumination of one filter, 1 at its centre",
    "VIGNETTING_MODEL": "the illumination in numbers",
    "MASTER_FLAT": "flat of one filter, temperature and exposure, with error, quality bits and its frames",
    "SKY_MEDIAN": "median of the sky flats",
    "FLAT_A": "model: the flat at T_REF and E_REF",
    "FLAT_B": "model: change with temperature",
    "FLAT_C": "model: change with exposure",
    "FLAT_COVARIANCE": "model: covariances, reduced chi-square",
    "EVALUATION_SUMMARY": "errors of the model for each master",
    "EVALUATION_DIFF": "master less model",
    "EVALUATION_MAE": "absolute difference",
    "EVALUATION_MAPE": "absolute difference in percent",
    "EVALUATION_SYNTHETIC": "flat of the model",
    "REJECTED_FRAMES": "frames left out, with the reason",
    "SUMMARY": "the numbers of this report",
    "REPORT": "this page",
}
"""What each kind of product is, for the list in the report."""
