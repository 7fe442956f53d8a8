"""Level of one flat frame, by which it is normalised before frames are combined."""

import numpy as np

from utils.kernels.medians import median, nan_median

METHODS = ("median", "mean", "max")
BLOCK = (8, 32)
"""Sampled rows and neighbouring columns of a block whose median stands for its place on the sensor ('max')."""
TOP = 0.99
"""Share of blocks below the level 'max': single blocks of a hot cluster do not set it."""
MEAN_CLIP = 4.0
"""Samples beyond so many robust sigma of the median take no part in 'mean'."""
TAPER, TAPER_ROUNDS = (4.0, 6.0), 2
"""Samples count in full up to the first number of robust sigma, and no more from the second on."""
FAINTEST = 0.05
"""Pixels of less light in the reference take no part."""
LEAST_FIELD, FEWEST_FIELDS = 64, 3
"""Samples of even and of odd rows, and frames, from which their ratio is judged."""
FIELD_SIGMA, LEAST_SCATTER = 3.0, 5e-4
"""Even and odd rows are fields of their own where their ratio scatters by so many errors, and by this."""
LEAST_ROWS, LASTING_SIGMA = 16, 5.0
"""Rows that tell the ratio of even to odd ones in a mean flat; it lasts where it differs from 1 by so many errors."""
SCALE_VALUES = 1 << 13
"""Samples that tell the robust scatter."""


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


def level_against(samples, reference, weights=None):
    """Level of a flat frame in units of a reference flat of the same light.

    samples : (r, nx) of the frame, the pedestal subtracted [ADU].  reference : (r, nx), about 1.  weights : (r, nx) 0 to 1,
    None = all 1.  NaN in either = pixel that takes no part.
    The ratio of the sums: linear in the samples, so that neither the shape of the light nor the amount of noise moves it.
    Samples beyond TAPER[0] robust sigma of the reference count less, beyond TAPER[1] not at all: hits, stars, defects.
    Returns the level [ADU]; NaN where no pixel takes part.
    """
    with np.errstate(invalid="ignore"):
        good = np.isfinite(samples) & (reference > FAINTEST)
    if weights is not None:
        good &= weights > 0
    if not good.any():
        return float("nan")
    value, light = samples[good].astype(np.float32), reference[good].astype(np.float32)
    own = np.float32(1.0) if weights is None else weights[good].astype(np.float32)
    step = max(1, value.size // SCALE_VALUES)
    level = float(median(value[::step] / light[::step]))
    root = np.sqrt(light)
    for _ in range(TAPER_ROUNDS):
        if not level > 0:
            break
        pull = (value / np.float32(level) - light) / root
        scale = 1.4826 * float(median(np.abs(pull[::step])))
        if scale > 0:
            weight = (
                np.clip((TAPER[1] - np.abs(pull) / np.float32(scale)) / (TAPER[1] - TAPER[0]), 0, 1) * own
            )
        else:
            weight = np.broadcast_to(own, value.shape)
        total = float((weight * light).sum(dtype=np.float64))
        if not total > 0:
            break
        level = float((weight * value).sum(dtype=np.float64)) / total
    return level


def field_ratio(samples, reference, odd):
    """Ratio of the levels of even and odd rows of a frame against a reference, and its 1-sigma error.

    samples, reference : (r, nx), NaN = takes no part.  odd : (r,) bool.  Returns (ratio, error), NaN where not known.
    """
    step = max(1, samples.size // SCALE_VALUES)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(reference > FAINTEST, samples / reference, np.nan)[:, ::step]
    fields = [relative[odd == parity] for parity in (False, True)]
    fields = [one[np.isfinite(one)] for one in fields]
    if min(one.size for one in fields) < LEAST_FIELD:
        return float("nan"), float("nan")
    levels = [float(median(one)) for one in fields]
    errors = [
        1.2533 * 1.4826 * float(median(np.abs(one - level))) / (abs(level) * np.sqrt(one.size))
        for one, level in zip(fields, levels, strict=True)
    ]
    return levels[0] / levels[1], float(np.hypot(*errors))


def lasting_ratio(reference, rows, ratios):
    """Ratio of even to odd rows that a mean flat keeps, and its 1-sigma error.

    reference : (r, nx) mean flat at the rows, NaN = no value.  rows : (r,) their numbers.  ratios : (n,) of the frames
    behind it, whose scatter is most of the error.
    Light that changes smoothly over the rows (a cubic) is no part of it.  Returns (ratio, error), NaN where not known.
    """
    rows = np.asarray(rows)
    good = np.isfinite(reference).any(axis=1)
    if good.sum() < LEAST_ROWS:
        return float("nan"), float("nan")
    middle = np.nanmedian(reference[good], axis=1)
    at = (rows[good] - rows[good].mean()) / max(float(np.ptp(rows[good])), 1.0)
    design = np.stack([np.ones_like(at), at, at**2, at**3, 0.5 - (rows[good] % 2)], axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1] or not (middle > 0).all():
        return float("nan"), float("nan")
    terms, *_ = np.linalg.lstsq(design, np.log(middle), rcond=None)
    rest = np.log(middle) - design @ terms
    own = np.linalg.inv(design.T @ design)[-1, -1] * float(rest @ rest) / (rest.size - terms.size)
    known = np.asarray(ratios)[np.isfinite(ratios)]
    return float(np.exp(terms[-1])), float(np.sqrt(own + np.var(known, ddof=1) / known.size))


def fields_differ(ratios, errors):
    """Scatter of the ratio of even to odd rows between frames, 0 where it is no more than their errors; (n,) each."""
    good = np.isfinite(ratios) & np.isfinite(errors)
    if good.sum() < FEWEST_FIELDS:
        return 0.0
    scatter = float(np.std(np.asarray(ratios)[good], ddof=1))
    expected = float(np.sqrt(np.mean(np.square(np.asarray(errors)[good]))))
    return scatter if scatter > FIELD_SIGMA * expected and scatter > LEAST_SCATTER else 0.0


def trust(flat, reference):
    """Weight of each pixel where a mean flat follows the reference: 1 where it does, 0 where it stands out.

    flat, reference : (r, nx), NaN = no value.  Returns (r, nx) float32.
    """
    level = level_against(flat, reference)
    if not level > 0:
        return np.ones(reference.shape, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = np.abs(flat / level - reference) / np.sqrt(reference)
        scale = 1.4826 * float(nan_median(pull)) if np.isfinite(pull).any() else 0.0
        if not scale > 1e-7:
            return np.ones(reference.shape, np.float32)
        weight = np.clip((TAPER[1] - pull / scale) / (TAPER[1] - TAPER[0]), 0, 1)
    return np.nan_to_num(weight).astype(np.float32)


def _median(values):
    """Median; where many samples share it, as integers do, it is resolved inside their step.

    The samples on one step count as spread evenly over it, as for grouped data.
    """
    middle = float(median(values))
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
    centre = median(values)
    reach = MEAN_CLIP * 1.4826 * median(np.abs(values - centre))
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
