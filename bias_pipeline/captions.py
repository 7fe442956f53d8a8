"""What to look for in each picture of the bias pipeline."""

CAPTIONS = {
    "master_map": "Master bias. Rows and columns are the amplifiers' fixed pattern; a gradient at one edge is glow. The"
    " histogram should be one narrow peak.",
    "read_noise_map": "Read noise of every pixel, pooled over all temperatures. Single bright pixels are noisy or switch"
    " between levels; stripes mean noise that belongs to a row or column.",
    "read_noise_against_temperature": "Read noise of the median pixel at each temperature. It should be flat, or rise"
    " slowly with temperature.",
    "level_against_frame": "Level of each frame about its group, and its noise, in the order of time. A trend is warm-up; a"
    " step is a jump of the zero level.",
    "intercept_map": "Bias of each pixel at 0 °C.",
    "slope_map": "Change of each pixel's bias with temperature. Structure here is dark signal of the shortest exposure or"
    " an amplifier that drifts.",
    "chi2_map": "Reduced chi-square of each pixel's line. The histogram should follow the expected curve; structure in the"
    " map is bias that temperature alone does not explain.",
    "pixel_fits": "Masters and fitted lines of single pixels: low, middle and high slope, and one that a line does not"
    " describe where there is one.",
    "level_against_temperature": "Mean level of the masters, session shifts taken out, and what a line leaves. Residuals"
    " should agree with zero within their errors.",
    "real_bias": "Master bias as measured.",
    "synthetic_bias": "Bias of the model at the same temperature, on the same colour scale.",
    "mae": "Absolute difference of the two. It should look like noise, without rows, columns or gradients.",
    "mape": "The same in percent of the level (of 3 sigma where the level is lower).",
    "evaluation_summary": "Errors of the model at each temperature, for masters that were fitted and for masters left out"
    " of the fit. Left out at the ends is extrapolation.",
    "pulls": "Prediction of each master by a fit without it, minus that master, in units of the expected sigma. It should"
    " follow the Gaussian: a wider curve means errors too small, wings are pixels that a line does not describe.",
}

KINDS = {
    "MASTER_BIAS": "combined bias of one temperature, with error, mask, quality bits and the table of its frames",
    "READ_NOISE": "read noise of every pixel",
    "FRAME_LEVELS": "level and noise of every frame used",
    "BIAS_A": "bias at 0 °C, a",
    "BIAS_B": "slope with temperature, b",
    "BIAS_COVARIANCE": "cov(a, b), reduced chi-square and number of masters of each pixel",
    "BIAS_MODEL": "the model in numbers",
    "SYNTHETIC_BIAS": "bias of the model at one temperature",
    "EVALUATION_SUMMARY": "errors of the model at each temperature",
    "REJECTED_FRAMES": "frames left out, with the reason",
    "SUMMARY": "the numbers of this report",
    "REPORT": "this page",
}
"""What each kind of product is, for the list in the report."""
