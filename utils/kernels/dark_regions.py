"""Places where the dark current grows otherwise than elsewhere: glow of an amplifier, which no temperature changes.

The law of the sensor holds for none of these pixels: they must not speak for it, and lean on the growth of their own
neighbourhood instead.  Medians of tiles tell that growth far better than single pixels.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from utils.kernels.dark_fit import BiasError, fit_pixels

TILES, TILE = 32, 12
"""At most so many tiles a side, of so many sampled pixels a side."""
FEWEST_TILES, MOST = 16, 0.4
"""So many tiles tell what is ordinary; this part of them at most is odd."""
SIGNIFICANT, MATTERS = 5.0, 0.3
"""A tile is odd whose growth is so many sigma off, and further than this part of the scatter over pixels."""
ROUNDS = 3
UNEVEN = 1.5
"""Error of a tile's growth, of pixels with rates of their own, over that of pixels all alike."""
SLOPE_OF_GLOW = 0.5
"""Scatter of B inside an odd tile over how far B is off: a pixel's own dark current decides its share of the glow."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Tiles of a frame of ``shape``: every ``step``-th pixel in y and x is sampled, ``size`` of them make a tile."""

    shape: tuple
    step: tuple
    size: tuple

    @classmethod
    def of(cls, shape):
        """Grid for frames of a shape, or None where it has too few tiles to tell one from the others."""
        step = tuple(-(-side // (TILES * TILE)) for side in shape)
        sampled = tuple(side // one for side, one in zip(shape, step, strict=True))
        count = tuple(max(1, side // TILE) for side in sampled)
        if count[0] * count[1] < FEWEST_TILES:
            return None
        return cls(tuple(shape), step, tuple(side // n for side, n in zip(sampled, count, strict=True)))

    @property
    def tiles(self):
        """Number of tiles in y and x."""
        return tuple(side // (one * n) for side, one, n in zip(self.shape, self.step, self.size, strict=True))

    @property
    def cut(self):
        """Slices of the sampled pixels of a frame."""
        return tuple(slice(0, n * s * k, k) for n, s, k in zip(self.tiles, self.size, self.step, strict=True))

    def means(self, plane, usable):
        """Mean of the usable pixels of each tile, (ny, nx) of tiles, and their number; NaN where there is none.

        plane, usable : of the sampled pixels, ``frame[grid.cut]``.
        A mean is linear: pixels that each grow a little otherwise do not move it as they move a median.
        """
        (ny, nx), (h, w) = self.tiles, self.size
        total, count = (
            np.asarray(one, np.float64).reshape(ny, h, nx, w).sum(axis=(1, 3))
            for one in (np.where(usable, plane, 0.0), usable)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return total / count, count

    def alike(self, planes, fitted, steady):
        """Means of the same pixels in all planes, (n, ny, nx) of tiles; NaN where a tenth of a tile is not fitted.

        planes : (n,) of the sampled pixels; fitted (n,), steady : bool, which of them to use.  Without its saturated pixels
        alone, the map of the longest dark would be that of fainter ones.
        """
        most, known, common = self.means(steady, steady)[1], [], steady.copy()
        for one in fitted:
            known.append(self.means(one, steady & one)[1] > 0.9 * most)
            common &= one | ~known[-1].repeat(self.size[0], axis=0).repeat(self.size[1], axis=1)
        pairs = zip(planes, known, strict=True)
        return np.stack([np.where(there, self.means(plane, common)[0], np.nan) for plane, there in pairs])

    @property
    def axes(self):
        """Tile coordinates of all rows and of all columns, 0 at the centre of the first tile."""
        lengths = zip(self.shape, self.tiles, self.size, self.step, strict=True)
        return [np.clip((np.arange(side) + 0.5) / (s * k) - 0.5, 0.0, n - 1.0) for side, n, s, k in lengths]


@dataclass(frozen=True, eq=False)
class Regions:
    """Odd tiles: grid, odd bool, off: B of each tile less that of the sensor [1/degC], 0 in ordinary ones."""

    grid: Grid
    odd: np.ndarray
    off: np.ndarray

    @property
    def part(self):
        """Part of the frame in odd tiles."""
        return float(self.odd.mean())

    @property
    def box(self):
        """First and last row, first and last column that odd tiles reach."""
        found = []
        for axis, size, step in zip((1, 0), self.grid.size, self.grid.step, strict=True):
            where = np.flatnonzero(self.odd.any(axis=axis))
            found += [int(where[0]) * size * step, (int(where[-1]) + 1) * size * step - 1]
        return tuple(found)

    @cached_property
    def _tiles(self):
        """Number of the tile of every pixel of the frame, flat, -1 in ordinary ones."""
        ny, nx = self.grid.tiles
        numbers = np.where(self.odd, np.arange(ny * nx).reshape(ny, nx), -1).astype(np.int16)
        rows, columns = (np.rint(one).astype(int) for one in self.grid.axes)
        return numbers[rows][:, columns].reshape(-1)

    @cached_property
    def _growth(self):
        """``off`` at every pixel of the frame, flat float32, between the centres of tiles."""
        (rows, v), (columns, u) = ((np.floor(one).astype(int), one % 1.0) for one in self.grid.axes)
        last = np.array(self.grid.tiles) - 1
        off = self.off[:, columns] * (1.0 - u) + self.off[:, np.minimum(columns + 1, last[1])] * u
        off = off.astype(np.float32)
        below = off[np.minimum(rows + 1, last[0])]
        below *= v[:, None].astype(np.float32)
        off = off[rows]
        off *= (1.0 - v)[:, None].astype(np.float32)
        off += below
        return off.reshape(-1)

    def tile(self, pixels):
        """Number of the tile of flat pixels (indices or a slice), (m,), -1 in ordinary ones."""
        return self._tiles[pixels]

    def holds(self, pixels):
        """Whether flat pixels lie in odd tiles, (m,) bool."""
        return self.tile(pixels) >= 0

    def mean_of(self, values, pixels):
        """Mean over their odd tile of the finite values of flat pixels, (m,); NaN in ordinary tiles."""
        tile = self.tile(pixels)
        told = (tile >= 0) & np.isfinite(values)
        count = np.bincount(tile[told], minlength=self.odd.size)
        total = np.bincount(tile[told], values[told], minlength=self.odd.size)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(tile >= 0, (total / count)[tile], np.nan)

    def prior(self, ordinary, pixels, bright):
        """Prior of flat pixels: ``ordinary`` outside of odd tiles, the growth of the neighbourhood inside.

        bright (m,) bool : hot and warm pixels, whose own dark current is far above what makes a tile odd.
        """
        odd = self.holds(pixels) & ~bright
        if not odd.any():
            return ordinary
        off = np.where(odd, self._growth[pixels], np.float32(0.0))
        return replace(ordinary, b=ordinary.b + off, b_sigma=np.hypot(ordinary.b_sigma, SLOPE_OF_GLOW * off))


def find_regions(grid, levels, law, read_variance, bias_variance):
    """Odd tiles of a sensor.

    levels (n, ny, nx) [ADU] above bias and offset, of each map.  law : `SensorLaw`.  read_variance, bias_variance : of
    one pixel in a single sample, and of its bias [ADU^2].  Returns `Regions`, or None where no tile is odd.
    """
    pixels = grid.size[0] * grid.size[1]
    design = replace(law.design, frames=law.design.frames * pixels, common_variance=np.zeros(len(levels)))
    flat = levels.reshape(len(levels), -1).astype(np.float32)
    prior = replace(law.wide, gamma=law.gamma.mean, gamma_sigma=law.gamma.spread)
    size = flat.shape[1]
    fit = fit_pixels(
        flat,
        np.full(size, read_variance),
        design,
        prior,
        bias=BiasError(np.full(size, max(bias_variance / pixels, 1e-9))),
    )
    with np.errstate(invalid="ignore"):
        told = (fit.p > SIGNIFICANT * np.sqrt(fit.cov[0])) & np.isfinite(fit.b) & (fit.n_used > 2)
    if np.count_nonzero(told) < FEWEST_TILES:
        return None
    error = np.hypot(np.sqrt(fit.cov[3]), UNEVEN * law.b.sigma / math.sqrt(pixels))
    odd = np.zeros(size, bool)
    for _ in range(ROUNDS):
        off = np.abs(fit.b - np.median(fit.b[told & ~odd]))
        limit = np.maximum(SIGNIFICANT * error, MATTERS * law.b.sigma)
        odd = told & (off > np.maximum(limit, np.quantile(off[told], 1.0 - MOST)))
    if not odd.any():
        return None
    off = fit.b - np.median(fit.b[told & ~odd])
    shape = grid.tiles
    odd, off = odd.reshape(shape), np.where(told, off, 0.0).reshape(shape)
    odd = _with_neighbours(odd)
    return Regions(grid, odd, np.where(odd, off, 0.0))


def _with_neighbours(odd):
    """Tiles that touch an odd one are odd: its glow reaches into them."""
    padded = np.pad(odd, 1)
    ny, nx = odd.shape
    return np.logical_or.reduce([padded[i : i + ny, j : j + nx] for i in range(3) for j in range(3)])
