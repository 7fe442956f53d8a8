"""What is smooth in a change: a film on the window, or the lamp; apart from pixels and small structures."""

import math
from dataclasses import dataclass

import numpy as np

SHORTEST_WAVE = 64.0
"""Shortest wave of the smooth part [pixels]; structures that are looked for are smaller than half of it."""
MOST_WAVES = 10
"""Half waves along a side, at most."""
KEPT = 4.5
"""A wave belongs to the smooth part where its height is so many sigma."""
CLIPPED = 4.0
"""A cell so many sigma from the smooth part holds something else."""
UNDISTURBED_SIGMA = 2.5


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
    """Sum of cosines over a frame.  waves : (k, 2) int, half waves along y and x.  heights : (k,).  shape : (ny, nx)."""

    waves: np.ndarray
    heights: np.ndarray
    shape: tuple

    def rows(self, start, stop):
        """Values in rows start to stop, (stop - start, nx) float32."""
        ny, nx = self.shape
        y, x = (np.arange(start, stop) + 0.5) / ny, (np.arange(nx) + 0.5) / nx
        along_y = np.cos(math.pi * np.outer(y, self.waves[:, 0])) * self.heights
        return (along_y @ np.cos(math.pi * np.outer(self.waves[:, 1], x))).astype(np.float32)


def smooth_part(means, information, shape, size):
    """Fit the smooth part of a change: its level, and those waves that are significant.

    means, information : (cy, cx) from `cell_means`, information = 1 / variance of a cell.  shape, size : of the frame and
    the cells.  Cells that hold something else are left out in turns.
    Returns a `Surface`.
    """
    ny, nx = shape
    y = (np.arange(means.shape[0]) + 0.5) * size / ny
    x = (np.arange(means.shape[1]) + 0.5) * size / nx
    # The last cells may be cut: their centre is the middle of what they hold.
    y[-1], x[-1] = 0.5 * ((y.size - 1) * size / ny + 1.0), 0.5 * ((x.size - 1) * size / nx + 1.0)
    most = [min(MOST_WAVES, int(2 * length / SHORTEST_WAVE), cells - 1) for length, cells in ((ny, y.size), (nx, x.size))]
    waves = np.array(
        [
            (j, i)
            for j in range(most[0] + 1)
            for i in range(most[1] + 1)
            if math.hypot(j / max(most[0], 1), i / max(most[1], 1)) <= 1.0
        ]
    )
    basis = np.cos(math.pi * np.outer(y, waves[:, 0]))[:, None, :] * np.cos(math.pi * np.outer(x, waves[:, 1]))[None]
    basis, value, weight = basis.reshape(-1, len(waves)), means.reshape(-1), information.reshape(-1)
    good = weight > 0
    if good.sum() <= len(waves):
        level = float(np.average(value[good], weights=weight[good])) if good.any() else 0.0
        return Surface(np.zeros((1, 2), int), np.array([level]), tuple(shape))
    for _ in range(8):
        heights, cov = _solve(basis[good], value[good], weight[good])
        clipped = (weight > 0) & (np.abs(value - basis @ heights) * np.sqrt(weight) < _limit(value, basis @ heights, weight))
        if clipped.sum() <= 2 * len(waves) or (clipped == good).all():
            break
        good = clipped
    kept = np.abs(heights) > KEPT * np.sqrt(np.diag(cov))
    kept[0] = True
    heights, _ = _solve(basis[good][:, kept], value[good], weight[good])
    return Surface(waves[kept], heights, tuple(shape))


def _limit(value, model, weight):
    """Limit of clipping in sigma: wider where the waves do not describe what is there."""
    pull = np.abs(value - model) * np.sqrt(weight)
    return CLIPPED * max(1.0, 1.4826 * float(np.median(pull[weight > 0])))


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


def film_map(means, information, undisturbed=None):
    """Measure the loss of light in cells.

    means, information : (cy, cx), relative change and 1 / variance (the reference's noise included).
    undisturbed : cells that are the zero, or None to find them: those that agree with the least loss.
    """
    known = information > 0
    value, weight = means[known], information[known]
    if undisturbed is None:
        undisturbed = np.zeros(means.shape, bool)
        undisturbed[known] = _least_disturbed(value, weight)
    zero = undisturbed & known
    base_weight = information[zero].sum()
    base = float((means[zero] * information[zero]).sum() / base_weight)
    loss, sigma = np.full(means.shape, np.nan), np.full(means.shape, np.nan)
    loss[known] = base - value
    variance = 1.0 / weight + 1.0 / base_weight
    # A cell of the zero shares its own noise with it.
    variance = np.where(zero[known], variance - 2.0 / base_weight, variance)
    sigma[known] = np.sqrt(np.maximum(variance, 0.0))
    y, x = np.nonzero(known)
    plane = np.column_stack([np.ones(y.size), (y + 0.5) / means.shape[0] - 0.5, (x + 0.5) / means.shape[1] - 0.5])
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


def _least_disturbed(value, weight):
    """Cells that lost least: all where they agree, else those that agree with the highest plateau that a tenth of them share."""
    sigma = 1.0 / np.sqrt(weight)
    level = float(np.average(value, weights=weight))
    if _excess(value - level, weight, 1) < 5.0:
        return np.ones(value.size, bool)
    order = np.sort(value)[::-1]
    typical = float(np.median(sigma))
    near = np.array([(np.abs(value - one) < UNDISTURBED_SIGMA * typical).sum() for one in order])
    enough = np.flatnonzero(near >= max(3, 0.1 * value.size))
    level = order[enough[0]] if enough.size else float(np.quantile(value, 0.95))
    for _ in range(20):
        inside = np.abs(value - level) < UNDISTURBED_SIGMA * sigma
        if not inside.any():
            inside = value >= np.quantile(value, 0.9)
            break
        updated = float(np.average(value[inside], weights=weight[inside]))
        if abs(updated - level) < 0.01 * typical:
            break
        level = updated
    return inside
