"""A flat in square bins with robust values and errors, and the bins that dust or defects spoil."""

from dataclasses import dataclass

import numpy as np

from utils.kernels.medians import median, nan_median, row_medians
from utils.kernels.pieces import PIECE

BINS = 64
"""Bins along the longer side of the frame."""
ENOUGH = 256
"""Pixels of a bin that its first median looks at."""
PIXEL_CLIP = 5.0
"""A pixel so many sigma from its bin takes no part in it."""
LOCAL_CLIP = (4.5, 4.0, 4.0)
"""Limits of the local residual of bins, in sigma, of single bins and of means of 3 x 3 and 5 x 5."""
WIDE = 3
"""The large-scale part of a residual is its median over a window of 1 / WIDE of the bins along the longer side."""


@dataclass(frozen=True, eq=False)
class Bins:
    """Flat in bins, arrays (nby, nbx) float64.

    x, y : centres [pixels, the first pixel's centre is 0].  value : flat at the centre; NaN where no pixel is usable.
    sigma : 1 sigma of the value, from the noise and the PRNU of its pixels.  n : pixels used.  size : [pixels].
    prnu : scatter of the pixels beyond their noise, relative.
    """

    x: np.ndarray
    y: np.ndarray
    value: np.ndarray
    sigma: np.ndarray
    n: np.ndarray
    size: int
    prnu: float


def bin_size(shape, bins=BINS):
    """Side of a bin [pixels] that makes about ``bins`` of them along the longer side; small frames have fewer."""
    return max(1, -(-max(shape) // bins), min(4, min(shape) // 8))


def centres(shape, size):
    """Centres of the bins, x (nbx,) and y (nby,) [pixels]; the last bin of a side may be narrower."""
    axes = []
    for extent in (shape[1], shape[0]):
        first = np.arange(0, extent, size)
        axes.append(0.5 * (first + np.minimum(first + size, extent) - 1))
    return axes[0], axes[1]


def to_blocks(image, size):
    """Pixels of every bin: (nby, nbx, size * size) in the dtype of the image, NaN beyond the frame."""
    ny, nx = image.shape
    bands, columns = -(-ny // size), -(-nx // size)
    if (bands * size, columns * size) != image.shape:
        padded = np.full((bands * size, columns * size), np.nan, image.dtype)
        padded[:ny, :nx] = image
        image = padded
    blocks = image.reshape(bands, size, columns, size).swapaxes(1, 2)
    return blocks.reshape(bands, columns, size * size)


def block_medians(blocks):
    """Median of the finite values along the last axis, NaN where there is none; much faster than nanmedian."""
    if np.isfinite(blocks).all():
        return row_medians(blocks)
    ordered = np.sort(blocks, axis=-1)  # NaN last
    n = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(n - 1, 0) // 2, -1)
    high = np.take_along_axis(ordered, np.minimum(n // 2, blocks.shape[-1] - 1), -1)
    return np.where(n > 0, 0.5 * (low + high), np.nan)[..., 0]


def spread_over_pixels(grid, size, shape, rows=None):
    """Linear interpolation of values at the bins' centres to all pixels: (nby, nbx) -> (ny, nx), dtype of the grid.

    Beyond the outermost centres the last slope goes on.  rows : slice of the rows that are wanted, None = all.
    """
    x, y = centres(shape, size)
    wanted = np.arange(shape[0])[rows or slice(None)]
    if y.size > 1:
        # Only the rows of bins around these pixels.
        low = np.clip(np.searchsorted(y, wanted[[0, -1]], side="right") - 1, 0, y.size - 2)
        near = slice(low[0], low[1] + 2)
        grid, y = grid[near], y[near]
    for axis, positions, pixel in ((1, x, np.arange(shape[1])), (0, y, wanted)):
        if positions.size == 1:
            grid = np.repeat(grid, pixel.size, axis=axis)
            continue
        low = np.clip(np.searchsorted(positions, pixel, side="right") - 1, 0, positions.size - 2)
        part = ((pixel - positions[low]) / (positions[low + 1] - positions[low])).astype(grid.dtype)
        spread = np.take(np.diff(grid, axis=axis), low, axis=axis)
        spread *= part[:, None] if axis == 0 else part
        spread += np.take(grid, low, axis=axis)
        grid = spread
    return grid


def bin_flat(flat, sigma, model=None, size=None, noise=None):
    """Clipped means of a flat in bins.

    flat : (ny, nx), NaN = unusable.  sigma : 1 sigma of the pixels, (ny, nx), a number, or None = not known.
    model : (ny, nx) illumination x level that the flat roughly follows; with it, the slope inside a bin and missing
    pixels move no value.  None: the first look, by medians.  size : [pixels], None = `bin_size`.
    noise : `noise_of_bins` of sigma, where it is known already.
    Returns `Bins`.
    """
    size = size or bin_size(flat.shape)
    x, y = centres(flat.shape, size)
    noise = noise_of_bins(sigma, flat.shape, size) if noise is None else noise
    centre, rough = np.empty(noise.shape, np.float32), np.empty(noise.shape, np.float32)
    step = max(1, size * size // ENOUGH)
    for row, blocks in _bands(flat, model, size):
        some = blocks[..., ::step]
        centre[row] = block_medians(some)
        rough[row] = 1.4826 * block_medians(np.abs(some - centre[row][..., None]))
    known = np.isfinite(centre)
    level = _level_of_bins(centre, model, size)
    n, offset, squares = (np.empty(noise.shape) for _ in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = ((rough**2 - noise) / level**2)[known]
        excess = median(excess[np.isfinite(excess)]) if np.isfinite(excess).any() else 0.0
        limit = PIXEL_CLIP * np.sqrt(noise + max(excess, 0.0) * level**2)
        # Where coarse steps hide the scatter from the median there is nothing to clip by.
        limit = np.where((limit > 0) & (size > 2), np.maximum(limit, 2.0 * rough), np.inf).astype(np.float32)
        for row, blocks in _bands(flat, model, size):
            blocks = blocks - centre[row][..., None]
            kept = np.abs(blocks) <= limit[row][..., None]
            n[row] = np.count_nonzero(kept, axis=-1)
            blocks[~kept] = 0.0
            offset[row] = blocks.sum(axis=-1, dtype=np.float64)
            squares[row] = np.einsum("ijk,ijk->ij", blocks, blocks, dtype=np.float64)
        offset /= n
        spread = (squares - n * offset**2) / (n - 1)
    if model is None and size > 2:
        # The slope inside a bin makes the mean of a clipped bin lopsided; the median is not.
        offset = np.zeros_like(offset)
    prnu2 = _excess_variance(spread, noise, level, n)
    value = offset + centre
    if model is not None:
        value = value + _at_centres(model, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Rounding of float32 is the least error there is.
        error = np.sqrt((noise + prnu2 * level**2) / n) + 1e-7 * np.abs(level)
    value[~known | (n == 0)] = np.nan
    error[~known | (n == 0)] = np.nan
    x, y = np.meshgrid(x, y)
    return Bins(x, y, value, error, n, size, float(np.sqrt(prnu2)))


def _bands(flat, model, size):
    """Yield (slice of rows of bins, pixels of their bins, less the model), float32, a cacheful at a time."""
    rows = max(1, PIECE // (size * flat.shape[1]))
    for first in range(0, -(-flat.shape[0] // size), rows):
        part = slice(first * size, (first + rows) * size)
        band = flat[part] if model is None else flat[part] - model[part]
        yield slice(first, first + rows), to_blocks(band, size).astype(np.float32, copy=False)


def _level_of_bins(centre, model, size):
    return centre if model is None else centre + _at_centres(model, size)


def _at_centres(model, size):
    """A smooth map at the centres of the bins: mean of the (up to) four pixels around each."""
    x, y = centres(model.shape, size)
    rows, columns = (
        np.stack([np.floor(y), np.ceil(y)]).astype(int),
        np.stack([np.floor(x), np.ceil(x)]).astype(int),
    )
    total = sum(model[np.ix_(r, c)].astype(np.float64) for r in rows for c in columns)
    return total / 4.0


def noise_of_bins(sigma, shape, size):
    """Variance of the pixels of each bin from their noise; 0 where it is not known."""
    grid = -(-shape[0] // size), -(-shape[1] // size)
    if np.ndim(sigma) == 0:
        return np.full(grid, 0.0 if sigma is None else float(sigma) ** 2)
    medians = np.empty(grid)
    for row, blocks in _bands(np.asarray(sigma), None, size):
        # The median: a few pixels of large error must not speak for the bin.
        medians[row] = block_medians(blocks)
    return np.nan_to_num(medians**2)


def _excess_variance(spread, noise, level, n, keep=5.0):
    """Variance of the pixels beyond their noise relative to the level squared, from ordinary bins, at least 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        good = np.isfinite(spread) & (n > 1) & (level > 0)
        ratio = np.where(good, (spread - noise) / level**2, np.nan)
        dof = np.maximum(n - 1, 1)
        room = 1.0 + keep * np.sqrt(2.0 / dof) + keep * keep / dof
        used = good
        excess = float(nan_median(ratio)) if good.any() else 0.0
        for _ in range(5):
            total = noise / level**2 + max(excess, 0.0)
            used = good & (spread <= room * total * level**2)
            if not used.any():
                return 0.0
            weight = np.where(used, dof / np.maximum(total, 1e-30) ** 2, 0.0)
            excess = float((weight * np.where(used, ratio, 0.0)).sum() / weight.sum())
    return max(excess, 0.0)


def spoiled(bins, model_values):
    """Bins (nby, nbx) bool whose residual stands out from its surroundings: dust, clusters of defects, scratches.

    bins : `Bins`.  model_values : (nby, nbx) the fit at their centres.  What varies slowly over the frame is not
    judged: it is the model's own misfit.
    """
    from scipy import ndimage

    with np.errstate(divide="ignore", invalid="ignore"):
        pull = (bins.value - model_values) / bins.sigma
    known = np.isfinite(pull)
    if not known.any():
        return ~known
    pull = np.where(known, pull, median(pull[known]))
    window = max(3, max(pull.shape) // WIDE) | 1
    # Medians along one side, then along the other: 20 times faster than of squares.
    slow = ndimage.median_filter(pull, size=(window, 1), mode="nearest")
    slow = ndimage.median_filter(slow, size=(1, window), mode="nearest")
    pull = np.where(known, pull - slow, 0.0)
    out = np.zeros(pull.shape, bool)
    for width, limit in zip((1, 3, 5), LOCAL_CLIP, strict=True):
        weight = ndimage.uniform_filter(known.astype(float), width, mode="constant")
        mean = (
            ndimage.uniform_filter(pull, width, mode="constant") / np.sqrt(np.maximum(weight, 1e-9)) * width
        )
        scale = max(1.0, 1.4826 * float(median(np.abs(mean[known]))))
        out |= known & (np.abs(mean) > limit * scale)
    return ndimage.binary_dilation(out, iterations=1) & known
