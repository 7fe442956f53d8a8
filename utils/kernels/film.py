"""What is smooth in a change: a film on the window, or the lamp; apart from pixels and small structures."""

import math
from dataclasses import dataclass

import numpy as np

SHORTEST_WAVE = 48.0
"""Shortest wave of the smooth part [pixels]; structures that are looked for are smaller than half of it."""
MOST_WAVES = 10
"""Half waves along a side, at most."""
KEPT = 4.5
"""A term belongs to the smooth part where its height is so many sigma."""
CLIPPED = 4.0
"""A cell so many sigma from the smooth part holds something else."""
UNDISTURBED = 0.1
"""Cells whose smooth loss is below this part of the deepest one are the zero."""


def cell_size(shape):
    """Side of the cells for the smooth part [pixels]: 8, more in large frames."""
    return max(8, int(2 ** round(math.log2(max(1.0, min(shape) / 64.0))) // 1))


def cell_means(change, weight, size):
    """Weighted means over square cells.

    change, weight : (ny, nx), weight 0 = left out.   size : side [pixels]; cells at the far edges are smaller.
    Returns means (cy, cx), 0 where nothing is known, and sums of weights (cy, cx), float64.
    """
    starts = [np.arange(0, length, size) for length in change.shape]

    def sums(image):
        return np.add.reduceat(np.add.reduceat(image, starts[0], axis=0), starts[1], axis=1)

    total = sums(weight.astype(np.float64))
    value = sums(np.where(weight > 0, change, 0.0) * weight.astype(np.float64))
    return np.where(total > 0, value / np.where(total > 0, total, 1.0), 0.0), total


@dataclass(frozen=True, eq=False)
class Surface:
    """Sum of smooth terms over a frame, each a function along y times one along x.

    terms : (k, 2) int, along y and x: n >= 0 is a cosine of n half waves, -n the power n.  heights : (k,).
    shape : (ny, nx).
    """

    terms: np.ndarray
    heights: np.ndarray
    shape: tuple

    def rows(self, start, stop):
        """Values in rows start to stop, (stop - start, nx) float32."""
        ny, nx = self.shape
        return self._at((np.arange(start, stop) + 0.5) / ny, (np.arange(nx) + 0.5) / nx).astype(np.float32)

    def at_cells(self, cells, size):
        """Values at the middles of cells, (cy, cx)."""
        return self._at(*_middles(cells, size, self.shape))

    def _at(self, y, x):
        along_y = np.stack([_along(n, y) for n in self.terms[:, 0]], axis=1)
        along_x = np.stack([_along(n, x) for n in self.terms[:, 1]])
        return (along_y * self.heights) @ along_x


def _along(term, place):
    """Term along one side; place from 0 to 1."""
    return np.cos(math.pi * term * place) if term >= 0 else (2.0 * place - 1.0) ** -int(term)


def _middles(cells, size, shape):
    """Middles of cells as parts of the frame's sides; the last cells may be cut."""
    found = []
    for count, length in zip(cells, shape, strict=True):
        edges = np.minimum(np.arange(count + 1) * size, length)
        found.append(0.5 * (edges[1:] + edges[:-1]) / length)
    return found


def _terms(cells, shape):
    """All terms that a smooth part may have: the level, powers up to the third, waves not shorter than SHORTEST_WAVE."""
    powers = [(-j, -i) for j in range(4) for i in range(4) if j + i <= 3]
    most = [
        min(MOST_WAVES, int(2 * length / SHORTEST_WAVE), count - 1)
        for length, count in zip(shape, cells, strict=True)
    ]
    waves = [
        (j, i)
        for j in range(most[0] + 1)
        for i in range(most[1] + 1)
        if 0 < math.hypot(j / max(most[0], 1), i / max(most[1], 1)) <= 1.0
    ]
    return np.array(powers + waves)


def smooth_part(means, information, shape, size):
    """Fit the smooth part of a change: its level, and those terms that are significant.

    means, information : (cy, cx) from `cell_means`, information = 1 / variance of a cell.  shape, size : of the frame and
    the cells.  Terms are taken in turn, the most significant first; cells that hold something else are left out.
    Returns a `Surface`.
    """
    terms = _terms(means.shape, shape)
    y, x = _middles(means.shape, size, shape)
    basis = np.stack([np.outer(_along(j, y), _along(i, x)).reshape(-1) for j, i in terms], axis=1)
    value, weight = means.reshape(-1), information.reshape(-1)
    known = weight > 0
    if known.sum() <= 6:
        level = float(np.average(value[known], weights=weight[known])) if known.any() else 0.0
        return Surface(terms[:1], np.array([level]), tuple(shape))
    good = known
    for _ in range(8):
        chosen, heights = _pursue(basis[good], value[good], weight[good])
        pull = np.abs(value - basis[:, chosen] @ heights) * np.sqrt(weight)
        # Where the terms do not describe what is there, all cells are off: only the odd ones among them are left out.
        limit = CLIPPED * max(1.0, 1.4826 * float(np.median(pull[known])))
        kept = known & (pull < limit)
        if kept.sum() <= 6 or (kept == good).all():
            break
        good = kept
    return Surface(terms[chosen], heights, tuple(shape))


def _pursue(basis, value, weight):
    """Take terms while one is significant in what the others leave; the first one (the level) always."""
    weighted = basis * weight[:, None]
    gram, right = basis.T @ weighted, weighted.T @ value
    chosen = [0]
    while True:
        inside = gram[np.ix_(chosen, chosen)]
        inverse = np.linalg.pinv(inside, hermitian=True)
        heights = inverse @ right[chosen]
        if len(chosen) == min(len(right), value.size // 2):
            break
        # What each term explains beyond the chosen ones, in sigma.
        across = gram[:, chosen]
        left = right - across @ heights
        free = np.diag(gram) - np.einsum("ij,jk,ik->i", across, inverse, across)
        usable = free > 1e-6 * np.diag(gram)
        score = np.where(usable, np.abs(left) / np.sqrt(np.where(usable, free, 1.0)), 0.0)
        score[chosen] = 0.0
        best = int(np.argmax(score))
        if score[best] < KEPT:
            break
        chosen.append(best)
    return np.array(chosen), heights


def _solve(basis, value, weight):
    root = np.sqrt(weight)[:, None]
    design = basis * root
    inverse = np.linalg.pinv(design.T @ design, hermitian=True)
    return inverse @ (design.T @ (value * root[:, 0])), inverse


@dataclass(frozen=True, eq=False)
class FilmMap:
    """Light lost to what is smooth, in cells, counted from the part of the frame that lost least.

    loss, sigma : (cy, cx), NaN where nothing is known.  undisturbed : (cy, cx) bool, the cells that are the zero.
    uneven : significance of the loss beyond a level; beyond_tilt : beyond a level and a tilt, which a lamp that moved
    makes too.  tilt : (2,) change across the frame along y and x, with errors tilt_error.
    """

    loss: np.ndarray
    sigma: np.ndarray
    undisturbed: np.ndarray
    uneven: float
    beyond_tilt: float
    tilt: np.ndarray
    tilt_error: np.ndarray

    @property
    def deepest(self):
        """Largest loss and its error (of the mean of the deepest tenth of the cells)."""
        known = np.flatnonzero(np.isfinite(self.loss))
        order = known[np.argsort(-self.loss.reshape(-1)[known])]
        top = order[: max(1, order.size // 10)]
        sigma = self.sigma.reshape(-1)[top]
        return float(self.loss.reshape(-1)[top].mean()), float(np.sqrt(np.square(sigma).sum()) / top.size)


def film_map(means, information, surface, size):
    """Measure the loss of light in cells.

    means, information : (cy, cx), relative change and 1 / variance (the reference's noise included).  surface : `Surface`
    of the same change, which tells where the zero is: chosen by the cells' own values, noise would choose.  size : side of
    the cells [pixels].
    """
    known = information > 0
    value, weight = means[known], information[known]
    smooth = surface.at_cells(means.shape, size)
    top, bottom = np.quantile(smooth[known], (0.98, 0.02))
    zero = known & (smooth >= top - UNDISTURBED * (top - bottom))
    base_weight = information[zero].sum()
    base = float((means[zero] * information[zero]).sum() / base_weight)
    loss, sigma = np.full(means.shape, np.nan), np.full(means.shape, np.nan)
    loss[known] = base - value
    variance = 1.0 / weight + 1.0 / base_weight
    # A cell of the zero shares its own noise with it.
    variance = np.where(zero[known], variance - 2.0 / base_weight, variance)
    sigma[known] = np.sqrt(np.maximum(variance, 0.0))
    y, x = np.nonzero(known)
    plane = np.column_stack(
        [np.ones(y.size), (y + 0.5) / means.shape[0] - 0.5, (x + 0.5) / means.shape[1] - 0.5]
    )
    level, _ = _solve(plane[:, :1], value, weight)
    heights, cov = _solve(plane, value, weight)
    return FilmMap(
        loss,
        sigma,
        zero,
        _excess(value - plane[:, :1] @ level, weight, 1),
        _excess(value - plane @ heights, weight, 3),
        -heights[1:],
        np.sqrt(np.diag(cov)[1:]),
    )


def _excess(residual, weight, parameters):
    """Chi-square beyond its expectation, in sigma (Wilson & Hilferty)."""
    degrees = residual.size - parameters
    if degrees < 1:
        return 0.0
    reduced = float((residual**2 * weight).sum()) / degrees
    return (reduced ** (1 / 3) - 1.0 + 2.0 / (9.0 * degrees)) / math.sqrt(2.0 / (9.0 * degrees))
