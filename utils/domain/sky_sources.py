"""Stars and galaxies in one sky flat: a mask of everything that is not sky, and the smooth sky itself."""

import math

import numpy as np

from utils.kernels.star_light import robust_scatter

SMOOTHING = 1.5
"""1 sigma of the Gaussian by which the sky is smoothed before sources are looked for [pixels]."""
LIMIT = 3.5
"""A source rises so many sigma of the smoothed sky, and reaches out to where it falls to that."""
LEAST_PIXELS = 5
BOXES = 8
"""The sky is followed over 1 / BOXES of the frame."""
LEAST_BOX = 24
GROWN = 1
"""A mask is widened by so many pixels."""


def sky_mesh(image, mask):
    """Medians of the sky in boxes, (m, k); mask : pixels that do not count, (ny, nx) bool, also those without a value."""
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, MedianBackground

    return Background2D(
        np.nan_to_num(image),
        _box(image.shape),
        mask=mask,
        exclude_percentile=90.0,
        filter_size=1,  # a median of boxes would flatten a slope in the corners
        sigma_clip=SigmaClip(3.0, maxiters=10),
        bkg_estimator=MedianBackground(),
    ).background_mesh


def sky_surface(mesh, shape):
    """Smooth sky through the medians of its boxes, (ny, nx) float32; the mean of meshes gives the mean of skies."""
    from scipy import ndimage

    # One more box around, in a straight line: the sky has a slope at the edge of the frame too.
    width = [(1, 1) if number > 1 else (0, 0) for number in mesh.shape]
    grid = np.pad(mesh, width, mode="reflect", reflect_type="odd")
    rows, columns = (
        _place_among_boxes(extent, box, number)
        for extent, box, number in zip(shape, _box(shape), mesh.shape, strict=True)
    )
    at = np.broadcast_arrays(rows[:, None], columns)
    return ndimage.map_coordinates(grid, at, order=3, mode="nearest", output=np.float32)


def _box(shape):
    """Rows and columns of a box, so that the last one along each axis is nearly as large as the others."""
    return [math.ceil(extent / min(BOXES, max(1, extent // LEAST_BOX))) for extent in shape]


def _place_among_boxes(extent, box, number):
    """Place of each row or column among the boxes and one more on each side, (extent,); the last box may be smaller."""
    if number == 1:
        return np.zeros(extent)
    start = box * np.arange(number)
    middle = 0.5 * (start + np.minimum(start + box, extent) - 1)
    steps = np.diff(middle)
    around = np.concatenate([middle[:1] - steps[0], middle, middle[-1:] + steps[-1]])
    return np.interp(np.arange(extent), around, np.arange(number + 2))


def source_mask(image, response):
    """Pixels of one frame that sources light up, and the sky around them.

    image : (ny, nx) sky without bias, dark and the sensor's response, any unit, NaN = no value.  response : (ny, nx),
    about 1: where it is low the sky is noisier.
    Sources stand out of the smoothed rest of a smooth sky, and reach as far as they can be seen there, so that bright
    ones are masked with their wings.
    Returns (ny, nx) bool and the mesh of the sky (`sky_surface`), None where no pixel has a value.
    """
    from photutils.segmentation import detect_sources
    from scipy import ndimage

    bad = ~np.isfinite(image)
    if bad.all():
        return np.zeros(image.shape, bool), None
    steady = np.sqrt(np.clip(np.nan_to_num(response), 0.01, None)).astype(np.float32)
    mask = bad
    for _ in range(2):
        mesh = sky_mesh(image, mask if not mask.all() else bad)
        rest = np.where(bad, np.float32(0.0), image - sky_surface(mesh, image.shape)).astype(np.float32)
        smooth = ndimage.gaussian_filter(rest * steady, SMOOTHING, mode="nearest")
        sigma = robust_scatter(smooth[~mask] if not mask.all() else smooth)
        if not sigma > 0:
            return np.zeros(image.shape, bool), mesh
        found = detect_sources_quietly(detect_sources, smooth, LIMIT * sigma)
        mask = bad
        if found is not None:
            mask = bad | ndimage.binary_dilation(found.data > 0, iterations=GROWN)
    return mask & ~bad, mesh


def detect_sources_quietly(function, image, threshold):
    """Segments of an image above a threshold, or None without one, which is no reason to warn."""
    import warnings

    from photutils.utils.exceptions import NoDetectionsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        return function(image, threshold, LEAST_PIXELS)
