"""Pixel response of a flat: pixels that stand out from their neighbours, and the PRNU of the others."""

from dataclasses import dataclass

import numpy as np

from utils.kernels.flat_bins import block_medians, spread_over_pixels, to_blocks
from utils.kernels.medians import median, row_medians

BLOCK = 6
"""Side of the blocks of the local median [pixels]; it looks at 3 x 3 blocks."""
HOLLOW = 0.5
"""Where the local median is below this part of that over a wider window, a large cluster of dead pixels has set it."""
PRNU_BLOCK = 16
"""Side of the blocks inside which the PRNU is measured [pixels]."""
PART, PATCH_LIMIT = 4, 3.5
"""Side of the parts of a block whose means show dust [pixels], and how many sigma their scatter may exceed the usual."""
OUTLIER = 5.0
"""Pixels so many sigma from their block are no ordinary pixels, and blocks so scattered are no ordinary blocks."""


@dataclass(frozen=True)
class DefectLimits:
    """Limits of the response relative to the local median; significance in sigma of the pixel's noise."""

    dead: float = 0.5
    low_qe: float = 0.9
    high: float = 1.1
    significance: float = 5.0


@dataclass(frozen=True, eq=False)
class Defects:
    """Boolean maps (ny, nx).  dead and low_qe do not overlap.  high : outliers above the limit.

    ordinary : neither, nor so far below as `high` is above: where pixels scatter much, low_qe is the foot of what they do.
    ratio : response / local median, float32, NaN where unusable.  high_limit : the limit applied to `high`, which is
    wider than asked for where ordinary pixels scatter so far.
    """

    dead: np.ndarray
    low_qe: np.ndarray
    high: np.ndarray
    ordinary: np.ndarray
    ratio: np.ndarray
    high_limit: float


@dataclass(frozen=True)
class Prnu:
    """value : relative standard deviation of the response of good pixels, noise subtracted; error : its 1 sigma.

    scatter : the same before the noise is subtracted.  noise : rms relative noise of the pixels.  pixels : how many took
    part.  value is 0 where the noise explains the scatter; then error is the value that could be hidden.
    """

    value: float
    error: float
    scatter: float
    noise: float
    pixels: int


def local_median(response, usable=None):
    """Level of the neighbourhood of every pixel: (ny, nx) float32.

    response : (ny, nx), NaN = unusable.  usable : bool, None = all.  Medians of blocks of BLOCK pixels a side, of these the
    median over 3 x 3 blocks, between them linear.  Lines, clusters and dust edges do not pull it, and slopes are followed.
    A cluster larger than the window is seen by a window five times as wide.  NaN where nothing around is usable.
    """
    response = np.asarray(response, dtype=np.float32)
    if usable is not None:
        response = np.where(usable, response, np.float32(np.nan))
    blocks = block_medians(to_blocks(response, BLOCK)).astype(np.float32, copy=False)
    near, wide = _window_median(blocks, 1), _window_median(blocks, 5)
    with np.errstate(invalid="ignore"):
        near = np.where(np.isnan(near) | (near < HOLLOW * wide), wide, near)
    return spread_over_pixels(near, BLOCK, response.shape)


def _window_median(grid, reach):
    """Median of the finite values within ``reach`` of every element; at most 5 x 5 of them are looked at."""
    steps = np.unique(np.linspace(-reach, reach, min(2 * reach + 1, 5)).round().astype(int))
    padded = np.pad(grid, reach, constant_values=np.nan)
    ny, nx = grid.shape
    around = [padded[reach + i : reach + i + ny, reach + j : reach + j + nx] for i in steps for j in steps]
    return block_medians(np.stack(around, axis=-1))


def find_defects(response, sigma, usable=None, limits=None):
    """Pixels whose response stands out from their neighbours.

    response : (ny, nx) flat with or without its illumination, any level.  sigma : 1 sigma of its pixels, (ny, nx) or a
    number.  usable : bool, None = all; a pixel that is not usable, or NaN, is not judged.
    DEAD: ratio to the local median below ``limits.dead``; LOW_QE: below ``limits.low_qe`` and not dead; high: above
    ``limits.high`` and beyond what ordinary pixels scatter.  Each must also differ from its neighbourhood by
    ``limits.significance`` sigma of its own noise.
    Returns `Defects`.
    """
    limits = limits or DefectLimits()
    response = np.asarray(response, dtype=np.float32)
    known = np.isfinite(response) if usable is None else usable & np.isfinite(response)
    local = local_median(response, known)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(known & (local > 0), response / local, np.float32(np.nan))
        reach = np.float32(limits.significance) * np.asarray(sigma, dtype=np.float32) / local
        low = 1 - ratio > reach
        dead = low & (ratio < limits.dead)
        low_qe = low & (ratio < limits.low_qe) & ~dead
        ordinary = 1.4826 * float(median(np.abs(_sample(ratio) - 1)))
        high_limit = max(limits.high, 1 + limits.significance * ordinary)
        high = (ratio > high_limit) & (ratio - 1 > reach)
        foot = low_qe & (ratio >= 2.0 - high_limit)
    return Defects(dead, low_qe, high, ~(dead | low_qe | high) | foot, ratio, high_limit)


def _sample(image, most=1 << 20):
    """Finite values of evenly spaced rows, about ``most`` of them; a single 1 where there is none."""
    step = max(1, image.size // most)
    values = image[::step]
    values = values[np.isfinite(values)]
    return values if values.size else np.ones(1, image.dtype)


def prnu(response, sigma, usable=None):
    """Photo-response non-uniformity: scatter of good pixels, without dust, large scales and noise.

    response : (ny, nx), the illumination divided out or not.  sigma : 1 sigma of its pixels, (ny, nx) or a number.
    usable : bool, pixels that are good (no defects); NaN is never used.
    Inside blocks of PRNU_BLOCK pixels a quadratic surface is taken out, with its degrees of freedom; pixels and blocks
    that stand out (defects, edges of dust) take no part.  Blocks are weighted by how well they tell the PRNU.
    Returns `Prnu`; value and error NaN where no block can be used.
    """
    response = np.asarray(response, dtype=np.float32)
    if usable is not None:
        response = np.where(usable, response, np.float32(np.nan))
    size = min(PRNU_BLOCK, *response.shape)
    blocks = to_blocks(response, size)
    noise = to_blocks(np.broadcast_to(np.asarray(sigma, dtype=np.float32), response.shape), size)
    basis = _quadratic(size)
    # Half empty blocks, at the edge or on dead lines, do not carry the surface.
    full = np.isfinite(blocks).sum(axis=2) >= max(0.75 * size * size, 2 * len(basis))
    if not full.any():
        return _pooled(*[np.empty(0)] * 4)
    blocks, noise = blocks[full], noise[full]
    level, residual, used = _flattened(blocks, basis)
    n = used.sum(axis=1)
    dof = np.maximum(n - len(basis), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.einsum("bp,bp->b", residual, residual, dtype=np.float64) / dof
        total = (total + _lines_lost(residual, total, size, len(basis))) / level**2
        noise2 = np.where(used, noise, 0.0)
        noise2 = np.einsum("bp,bp->b", noise2, noise2, dtype=np.float64) / n / level**2
    good = np.isfinite(total) & np.isfinite(noise2) & (level > 0) & (n > 2 * len(basis))
    if size % PART == 0:
        good &= ~_patchy(residual, total * level**2, good, full)
    return _pooled(total[good], noise2[good], dof[good], n[good])


def _lines_lost(residual, variance, size, terms):
    """Variance of rows and columns that the surface took out of each block beyond its share of single pixels, (b,).

    residual : (b, size^2).  variance : (b,) of its pixels.  terms : of the surface, three of them along each side.
    """
    if terms < 6:
        return 0.0
    square = residual.reshape(-1, size, size)
    lines = sum(np.square(square.mean(axis=side, dtype=np.float64)).sum(axis=1) for side in (1, 2))
    kept = size * (size - 3) / (size * size - terms)
    # Means of lines hold the variance of the lines, and that of single pixels over size.
    of_lines = (lines * size / (size - 3) - 2.0 * variance) / (size - 2.0 * kept)
    return (1.0 - kept) * of_lines


def _patchy(residual, variance, good, full):
    """Blocks with dust and their neighbours, (b,) bool: means over their parts vary more than single pixels account for.

    residual : (b, size^2).  variance : (b,) of its pixels.  full : (nby, nbx) bool, where the b blocks lie.
    """
    from scipy.ndimage import binary_dilation

    size = int(np.sqrt(residual.shape[1]))
    parts = residual.reshape(-1, size // PART, PART, size // PART, PART).mean(axis=(2, 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = PART**2 * np.square(parts).sum(axis=(1, 2)) / variance
    # Rows or columns of their own gain raise it everywhere: only what exceeds the usual is dust.
    dof = parts[0].size - 6
    usual = max(float(median(excess[good])), dof) if good.any() else dof
    dusty = np.zeros(full.shape, bool)
    dusty[full] = good & (excess > usual * (1.0 + PATCH_LIMIT * np.sqrt(2.0 / dof)))
    wide = binary_dilation(dusty, np.ones((3, 3)))
    return wide[full] if wide[full].sum() < 0.5 * good.sum() else dusty[full]


def _pooled(total, noise2, dof, n):
    """PRNU of blocks from their relative variance, noise variance and degrees of freedom."""
    if not total.size:
        return Prnu(float("nan"), float("nan"), float("nan"), float("nan"), 0)
    excess = float(median(total - noise2))
    room = 1.0 + OUTLIER * np.sqrt(2.0 / dof)
    for _ in range(10):
        expected = noise2 + max(excess, 0.0)
        used = total <= room * expected
        if not used.any():
            used = np.ones(total.size, bool)
        weight = np.where(used, dof / np.maximum(expected, 1e-30) ** 2, 0.0)
        updated = float((weight * (total - noise2)).sum() / weight.sum())
        if abs(updated - excess) <= 1e-9 * abs(excess):
            break
        excess = updated
    # var(s^2) = 2 s^4 / dof, and the weights are dof / s^4.
    error2 = np.sqrt(2.0 / weight.sum())
    value = np.sqrt(max(excess, 0.0))
    share = weight / weight.sum()
    return Prnu(
        value=float(value),
        error=float(error2 / (2 * value) if value**2 > error2 else np.sqrt(error2)),
        scatter=float(np.sqrt((share * total).sum())),
        noise=float(np.sqrt((share * noise2).sum())),
        pixels=int(n[used].sum()),
    )


def _quadratic(size):
    """Orthonormal quadratic surfaces over a block: (6, size^2) float32, fewer for tiny blocks."""
    x = np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
    x, y = np.meshgrid(x, x)
    terms = [np.ones_like(x), x, y, x * x, x * y, y * y][: 6 if size > 4 else 1]
    return np.linalg.qr(np.stack([t.ravel() for t in terms], axis=1))[0].T.astype(np.float32)


def _flattened(blocks, basis):
    """Level of every block, residual of its pixels from a quadratic surface (0 where not used), and which were used.

    Missing and outlying pixels are filled with the surface itself, which converges to the fit without them.
    """
    centre = block_medians(blocks)[:, None]
    with np.errstate(invalid="ignore"):
        filled = np.where(np.isfinite(blocks), blocks, centre) - centre
        rough = 1.4826 * row_medians(np.abs(filled))[:, None]
        # Pooled: of ordinary blocks all scatter alike, relative to their level.
        lit = centre[:, 0] > 0
        usual = median(rough[lit] / centre[lit]) if lit.any() else np.float32(0.0)
        rough = np.maximum(rough, np.abs(centre) * usual)
        used = np.isfinite(blocks) & (np.abs(filled) <= OUTLIER * 1.5 * rough)
    values = np.where(used, filled, np.float32(0.0))
    surface = np.zeros_like(filled)
    for last in (False, False, True):
        for _ in range(3):
            surface = (np.where(used, values, surface) @ basis.T) @ basis
        residual = values - surface
        if not last:
            spread = np.einsum("bp,bp->b", np.where(used, residual, 0), residual) / used.sum(axis=1)
            limit = OUTLIER * np.sqrt(spread)[:, None]
            used = used & (np.abs(residual) <= limit)
    return centre[:, 0].astype(np.float64), np.where(used, residual, np.float32(0.0)), used
