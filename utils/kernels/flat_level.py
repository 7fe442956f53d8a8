"""Level of one flat frame, by which it is normalised before frames are combined."""

import numpy as np

METHODS = ("median", "mean", "max")
BLOCK = (8, 32)
"""Sampled rows and neighbouring columns of a block whose median stands for its place on the sensor ('max')."""
TOP = 0.99
"""Share of blocks below the level 'max': single blocks of a hot cluster do not set it."""
MEAN_CLIP = 4.0
"""Samples beyond so many robust sigma of the median take no part in 'mean'."""


def frame_level(samples, method="median"):
    """Level of one flat frame.

    samples : (r, nx) rows of the frame, the pedestal subtracted [ADU]; NaN = pixel that takes no part (defects, saturated).
    method : 'median'; 'mean' without samples beyond MEAN_CLIP robust sigma; 'max', the level of the brightest part: the
    TOP quantile of the medians of blocks, so that no hot pixel, hot row or noise peak sets it.
    Returns the level [ADU]; NaN where no sample is finite.  Raises ValueError for another method.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if method not in METHODS:
        raise ValueError(f"level method {method!r}, expected one of {', '.join(METHODS)}")
    good = samples[np.isfinite(samples)]
    if good.size == 0:
        return float("nan")
    if method == "median":
        return _median(good)
    if method == "mean":
        return _clipped_mean(good)
    return float(np.quantile(_block_medians(np.atleast_2d(samples)), TOP))


def frame_levels(samples, method="median"):
    """Levels of several frames, (n, r, nx) samples -> (n,) [ADU]; see `frame_level`."""
    return np.array([frame_level(one, method) for one in samples])


def _median(values):
    """Median; where many samples share it, as integers do, it is resolved inside their step.

    The samples on one step count as spread evenly over it, as for grouped data.
    """
    middle = float(np.median(values))
    same = np.count_nonzero(values == middle)
    below = np.count_nonzero(values < middle)
    above = values.size - same - below
    if same < 2 or (below == 0 and above == 0):
        return middle
    gaps = []
    if below:
        gaps.append(middle - values[values < middle].max())
    if above:
        gaps.append(values[values > middle].min() - middle)
    return middle + min(gaps) * ((above - below) / (2.0 * same))


def _clipped_mean(values):
    centre = np.median(values)
    reach = MEAN_CLIP * 1.4826 * np.median(np.abs(values - centre))
    if reach == 0:
        return float(values.mean())
    return float(values[np.abs(values - centre) <= reach].mean())


def _block_medians(samples):
    """Medians of blocks of the sample, those that are more than half usable; all samples as one block where none is."""
    height, width = (min(size, extent) for size, extent in zip(BLOCK, samples.shape, strict=True))
    bands, columns = samples.shape[0] // height, samples.shape[1] // width
    inner = samples[: bands * height, : columns * width].reshape(bands, height, columns, width)
    blocks = inner.swapaxes(1, 2).reshape(bands * columns, -1)
    usable = np.isfinite(blocks).sum(axis=1) * 2 > blocks.shape[1]
    return np.nanmedian(blocks[usable] if usable.any() else samples.reshape(1, -1), axis=1)
