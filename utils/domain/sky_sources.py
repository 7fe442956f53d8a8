"""Stars and galaxies in one sky flat: a mask of everything that is not sky."""

import math

import numpy as np

SMOOTHING = 2.0
"""1 sigma of the Gaussian by which the sky is smoothed before sources are looked for [pixels]."""
PEAK, EDGE = 5.5, 5.0
"""A source rises so many sigma of the smoothed sky, and reaches out to where it falls to the second."""
LEAST_PIXELS = 5
BOXES = 8
"""The sky is followed over 1 / BOXES of the frame."""
LEAST_BOX = 24
GROWN = 1
"""A mask is widened by so many pixels."""


def source_mask(image):
    """Pixels of one frame that sources light up.

    image : (ny, nx) sky without bias, dark and the sensor's response, any unit, NaN = no value.
    The sky is a smooth background (photutils); sources stand out of the smoothed rest, and reach as far as they can be
    seen there, so that bright ones are masked with their wings.
    Returns (ny, nx) bool.
    """
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, MedianBackground
    from photutils.segmentation import detect_sources
    from scipy import ndimage

    bad = ~np.isfinite(image)
    if bad.all():
        return np.zeros(image.shape, bool)
    mask = bad.copy()
    for _ in range(2):
        box = [min(extent, max(LEAST_BOX, math.ceil(extent / BOXES))) for extent in image.shape]
        sky = Background2D(
            np.where(bad, 0.0, image),
            box,
            mask=mask if not mask.all() else bad,
            exclude_percentile=90.0,
            sigma_clip=SigmaClip(3.0, maxiters=10),
            bkg_estimator=MedianBackground(),
        )
        rest = np.where(bad, np.float32(0.0), image - sky.background).astype(np.float32)
        smooth = ndimage.gaussian_filter(rest, SMOOTHING, mode="nearest")
        sigma = _scatter(smooth[~mask] if not mask.all() else smooth)
        if not sigma > 0:
            return np.zeros(image.shape, bool)
        found = detect_sources_quietly(detect_sources, smooth, EDGE * sigma)
        mask = bad.copy()
        if found is not None:
            tops = ndimage.maximum(smooth, found.data, np.arange(found.max_label + 1))
            real = np.asarray(tops) >= PEAK * sigma
            real[0] = False
            mask |= ndimage.binary_dilation(real[found.data], iterations=GROWN)
    return mask & ~bad


def detect_sources_quietly(function, image, threshold):
    """Segments of an image above a threshold, or None without one, which is no reason to warn."""
    import warnings

    from photutils.utils.exceptions import NoDetectionsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        return function(image, threshold, LEAST_PIXELS)


def _scatter(values):
    """Robust scatter from the lower half of the values: sources only add light."""
    step = max(1, values.size // 200_000)
    some = values.reshape(-1)[::step]
    middle = float(np.median(some))
    below = some[some < middle]
    return 1.4826 * float(np.median(middle - below)) if below.size else 0.0
