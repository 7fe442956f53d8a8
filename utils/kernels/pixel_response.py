"""Pixel response of a flat: pixels that stand out from their neighbours, and the PRNU of the others."""

from dataclasses import dataclass

import numpy as np

from utils.kernels.flat_bins import block_medians, spread_over_pixels, to_blocks
from utils.kernels.medians import median, row_medians
from utils.kernels.pieces import PIECE

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
    return spread_over_pixels(_local_grid(response, usable), BLOCK, response.shape)


def _local_grid(response, usable):
    """Level of the neighbourhood at the centres of blocks of BLOCK pixels a side, (nby, nbx) float32."""
    blocks = np.empty([-(-extent // BLOCK) for extent in response.shape], np.float32)
    for rows in _bands(response.shape, BLOCK):
        one = response[rows]
        if usable is not None:
            one = np.where(usable[rows], one, np.float32(np.nan))
        blocks[rows.start // BLOCK : -(-rows.stop // BLOCK)] = block_medians(to_blocks(one, BLOCK))
    near, wide = _window_median(blocks, 1), _window_median(blocks, 5)
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(near) | (near < HOLLOW * wide), wide, near)


def _bands(shape, size):
    """Slices of whole rows of blocks of ``size`` pixels a side, which stay in a processor's cache."""
    step = size * max(1, PIECE // (size * shape[1]))
    return [slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step)]


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
    sigma = np.broadcast_to(np.asarray(sigma, dtype=np.float32), response.shape)
    grid = _local_grid(response, usable)
    ratio = np.empty(response.shape, np.float32)
    # Before the limit is known: pixels that are significantly below, and above, their neighbours.
    low, high = np.empty(response.shape, bool), np.empty(response.shape, bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        for rows in _bands(response.shape, 1):
            local = spread_over_pixels(grid, BLOCK, response.shape, rows)
            part = np.divide(response[rows], local, out=ratio[rows])
            known = local > 0
            known &= np.isfinite(response[rows])
            if usable is not None:
                known &= usable[rows]
            if not known.all():
                part[~known] = np.nan
            reach = np.float32(limits.significance) * sigma[rows]
            reach /= local
            np.less(reach, 1 - part, out=low[rows])
            np.less(reach, part - 1, out=high[rows])
        ordinary = 1.4826 * float(median(np.abs(_sample(ratio) - 1)))
        high_limit = max(limits.high, 1 + limits.significance * ordinary)
        dead, low_qe = np.empty_like(low), low
        plain = np.empty_like(low)
        for rows in _bands(response.shape, 1):
            part = ratio[rows]
            np.logical_and(low[rows], part < limits.dead, out=dead[rows])
            low_qe[rows] &= part < limits.low_qe
            low_qe[rows] &= ~dead[rows]
            high[rows] &= part > high_limit
            # The foot of what ordinary pixels do is ordinary too.
            plain[rows] = ~(dead[rows] | high[rows])
            plain[rows] &= ~low_qe[rows] | (part >= 2.0 - high_limit)
    return Defects(dead, low_qe, high, plain, ratio, high_limit)


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
    sigma = np.broadcast_to(np.asarray(sigma, dtype=np.float32), response.shape)
    size = min(PRNU_BLOCK, *response.shape)
    basis = _quadratic(size)
    terms = len(basis)
    grid = [-(-extent // size) for extent in response.shape]
    centre, rough = np.empty(grid, np.float32), np.empty(grid, np.float32)
    full = np.empty(grid, bool)
    bands = _bands(response.shape, size)
    for rows in bands:
        band, blocks = _blocks_of(response, usable, rows, size)
        # Half empty blocks, at the edge or on dead lines, do not carry the surface.
        finite = np.isfinite(blocks)
        full[band] = np.count_nonzero(finite, axis=2) >= max(0.75 * size * size, 2 * terms)
        centre[band] = block_medians(blocks)
        away = np.abs(blocks - centre[band][..., None])
        away[~finite] = 0.0
        rough[band] = 1.4826 * row_medians(away)
    if not full.any():
        return _pooled(*[np.empty(0)] * 4)
    # Pooled: of ordinary blocks all scatter alike, relative to their level.
    lit = full & (centre > 0)
    usual = median(rough[lit] / centre[lit]) if lit.any() else np.float32(0.0)
    rough = np.maximum(rough, np.abs(centre) * usual)
    sums = [
        _sums_of_blocks(blocks[own], centre[band][own], rough[band][own], noise[own], basis, size)
        for band, blocks, noise in (
            (*_blocks_of(response, usable, rows, size), _blocks_of(sigma, None, rows, size)[1])
            for rows in bands
        )
        if (own := full[band]).any()
    ]
    n, squares, noise2, lines, patches = (np.concatenate(one) for one in zip(*sums, strict=True))
    level = centre[full].astype(np.float64)
    dof = np.maximum(n - terms, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = squares / dof
        total = (total + _lines_lost(lines, total, size, terms)) / level**2
        noise2 = noise2 / n / level**2
    good = np.isfinite(total) & np.isfinite(noise2) & (level > 0) & (n > 2 * terms)
    if size % PART == 0:
        good &= ~_patchy(patches, (size // PART) ** 2, total * level**2, good, full)
    return _pooled(total[good], noise2[good], dof[good], n[good])


def _blocks_of(image, usable, rows, size):
    """Slice of the rows of blocks that some rows of pixels make, and their pixels as `to_blocks`, NaN = not usable."""
    part = image[rows] if usable is None else np.where(usable[rows], image[rows], np.float32(np.nan))
    blocks = to_blocks(part, size)
    return slice(rows.start // size, rows.start // size + len(blocks)), blocks


def _sums_of_blocks(blocks, centre, rough, noise, basis, size):
    """What some blocks tell of the PRNU, each (b,).

    Pixels used, and sums of squares over the block: of residuals from the quadratic surface, of noise, of means of its rows
    and columns, of means of its parts.
    blocks, noise : (b, size^2).  centre, rough : (b,) median and scatter of their pixels.
    """
    residual, used = _flattened(blocks, centre[:, None], rough[:, None], basis)
    if not used.all():
        noise = np.where(used, noise, np.float32(0.0))
    squares, noise2 = (np.einsum("bp,bp->b", one, one, dtype=np.float64) for one in (residual, noise))
    square = residual.reshape(-1, size, size)
    lines = sum(np.square(np.einsum(how, square) / size).sum(axis=1) for how in ("bij->bi", "bij->bj"))
    patches = np.zeros(len(blocks))
    if size % PART == 0:
        strips = np.einsum("biup->bip", residual.reshape(-1, size // PART, PART, size))
        parts = sum(strips[..., column::PART] for column in range(PART)) / PART**2
        patches = np.square(parts).sum(axis=(1, 2))
    return used.sum(axis=1), squares, noise2, lines, patches


def _lines_lost(lines, variance, size, terms):
    """Variance of rows and columns that the surface took out of each block beyond its share of single pixels, (b,).

    lines : (b,) squares of the means of rows and columns.  variance : (b,) of pixels.  terms : of the surface, three of
    them along each side.
    """
    if terms < 6:
        return 0.0
    kept = size * (size - 3) / (size * size - terms)
    # Means of lines hold the variance of the lines, and that of single pixels over size.
    of_lines = (lines * size / (size - 3) - 2.0 * variance) / (size - 2.0 * kept)
    return (1.0 - kept) * of_lines


def _patchy(patches, parts, variance, good, full):
    """Blocks with dust and their neighbours, (b,) bool: means over their parts vary more than single pixels account for.

    patches : (b,) squares of the means of the ``parts`` of a block.  variance : (b,) of its pixels.
    full : (nby, nbx) bool, where the b blocks lie.
    """
    from scipy.ndimage import binary_dilation

    with np.errstate(divide="ignore", invalid="ignore"):
        excess = PART**2 * patches / variance
    # Rows or columns of their own gain raise it everywhere: only what exceeds the usual is dust.
    dof = parts - 6
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


def _flattened(blocks, centre, rough, basis):
    """Residual of the pixels of blocks from a quadratic surface (0 where not used), and which were used, (b, p).

    centre, rough : (b, 1) median of each block, and scatter of its pixels.
    Missing and outlying pixels are filled with the surface itself, which converges to the fit without them.
    """
    values = blocks - centre
    with np.errstate(invalid="ignore"):
        used = np.abs(values) <= OUTLIER * 1.5 * rough
    holes = ~used.all(axis=1)
    values[~used] = 0.0
    residual = values - (values @ basis.T) @ basis
    for step in range(3):
        # With all pixels there, the first surface is the fit.
        some, there = values[holes], used[holes]
        surface = some - residual[holes]
        for _ in range(3):
            surface = (np.where(there, some, surface) @ basis.T) @ basis
        residual[holes] = some - surface
        if step < 2:
            kept = np.where(used, residual, np.float32(0.0))
            spread = np.einsum("bp,bp->b", kept, kept) / used.sum(axis=1)
            used &= np.abs(residual) <= OUTLIER * np.sqrt(spread)[:, None]
            holes = ~used.all(axis=1)
    return np.where(used, residual, np.float32(0.0)), used
