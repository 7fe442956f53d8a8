"""What differs between two maps of one kind: level, scatter, pixels, rows, columns and large scales, in sigma."""

import math
from dataclasses import dataclass

import numpy as np

from utils.kernels.pieces import in_pieces, median_of_some

BLOCK = 16
"""Side of the blocks that tell large scales [pixels]."""


@dataclass(frozen=True, eq=False)
class Difference:
    """Difference new - old over the pixels that both can use.

    level : of the median pixel, level_error its 1 sigma [unit of the maps].  sigma : median error of a pixel's
    difference [unit].  scatter : robust standard deviation of the differences by their errors, 1 where nothing changed.
    changed : pixels beyond ``k`` of their errors, expected : those by chance.  pixels : compared.
    rows, columns, blocks : (rms in sigma, its error) of patterns, the noise taken out; negative below it.
    z : (ny, nx) float32, difference less level by its error, NaN where not compared.
    assumed : the maps tell no errors, their difference's own scatter serves.
    """

    level: float
    level_error: float
    sigma: float
    scatter: float
    changed: int
    expected: float
    pixels: int
    rows: tuple
    columns: tuple
    blocks: tuple
    z: np.ndarray
    assumed: bool


def compare(new, old, new_sigma, old_sigma, usable, k=5.0):
    """Compare two maps.

    new, old : (ny, nx) float32.  new_sigma, old_sigma : (ny, nx) 1 sigma or None.  usable : (ny, nx) bool.
    k : limit of a changed pixel [sigma].  Errors are taken as independent: frames that both share make them too large.
    Returns a `Difference`.  Raises ValueError where no pixel can be compared.
    """
    z, sigma = np.empty(new.shape, np.float32), np.zeros(new.shape, np.float32)
    for target, a, b, good in in_pieces(z, new, old, np.ascontiguousarray(usable)):
        np.subtract(a, b, out=target)
        target[~good] = np.nan
    for one in (new_sigma, old_sigma):
        if one is not None:
            np.hypot(sigma, one, out=sigma)
    level = median_of_some(z)
    if level is None:
        raise ValueError("no pixel that both maps can use")
    assumed = new_sigma is None and old_sigma is None
    z -= np.float32(level)
    spread = 1.4826 * (median_of_some(np.abs(z)) or 0.0)
    if assumed:
        sigma[:] = spread
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(z, sigma, out=z)
    # A pixel that is known without error in both maps differs or does not.
    z[np.isnan(z) & usable & (sigma == 0)] = 0.0
    pixels = int(np.count_nonzero(~np.isnan(z)))
    scatter = 1.4826 * (median_of_some(np.abs(z)) or 0.0)
    outside = np.abs(z) > k
    quiet = np.where(outside | np.isnan(z), np.float32(0.0), z)
    count = (~(outside | np.isnan(z))).astype(np.float32)
    typical = median_of_some(np.where(usable, sigma, np.float32(np.nan))) or 0.0
    return Difference(
        level,
        1.2533 * spread / math.sqrt(pixels),
        typical,
        scatter,
        int(np.count_nonzero(outside)),
        pixels * math.erfc(k / math.sqrt(2.0)),
        pixels,
        _pattern(quiet.sum(axis=1, dtype=np.float64), count.sum(axis=1, dtype=np.float64), scatter),
        _pattern(quiet.sum(axis=0, dtype=np.float64), count.sum(axis=0, dtype=np.float64), scatter),
        _pattern(_blocks(quiet).ravel(), _blocks(count).ravel(), scatter),
        z,
        assumed,
    )


def _blocks(image):
    """Sums over blocks of BLOCK x BLOCK pixels, those cut by the edges included."""
    rows = np.add.reduceat(image, np.arange(0, image.shape[0], BLOCK), axis=0, dtype=np.float64)
    return np.add.reduceat(rows, np.arange(0, image.shape[1], BLOCK), axis=1)


def _pattern(total, count, scatter):
    """Signed rms of the means beyond what pixels of this scatter give, and its 1 sigma where there is no pattern."""
    kept = count > 0.5 * count.max(initial=0.0)
    n = int(kept.sum())
    if n < 3:
        return 0.0, math.inf
    mean, of = total[kept] / count[kept], count[kept]
    by_chance = scatter * scatter * float(np.mean(1.0 / of))
    excess = float(np.var(mean, ddof=1)) - by_chance
    error = by_chance * math.sqrt(2.0 / (n - 1))
    return math.copysign(math.sqrt(abs(excess)), excess), math.sqrt(error)
