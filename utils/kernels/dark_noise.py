"""What the scatter of dark frames tells: gain and full well from noise against signal, levels of unstable pixels."""

import math
from dataclasses import dataclass

import numpy as np

BIN_WIDTH = 0.02
"""Relative width of a bin of signal."""
FEWEST_IN_BIN = 20
STRUCK = 10.0
"""A bin whose noise is so many times that of a first line through all bins does not start the fit."""
COLLAPSED, FEWEST_FULL = 0.2, 3
"""A full well scatters by less than this part of the noise model; so many pixels show it."""
LINEAR_RANGE = 0.7
"""Part of the full well up to which signals count as linear: above, response and scatter bend."""
LEAST_SHOT = 0.1
"""Shot noise over read noise (variances) of the brightest group from which levels of groups tell a gain."""
CLEAR_STEP = 5.0
"""A jump of so many sigma of a sample."""
MOST_SPLIT = 24
"""Frames of a group whose levels are searched."""


STANDS_OUT = 2.0
"""A pixel so many sigma from the level of its map counts half by its own signal."""


@dataclass(frozen=True)
class Transfer:
    """Noise against signal: ``variance = read_variance + inverse_gain * signal``.

    inverse_gain, its error [ADU/e-]: NaN where the frames do not tell.  read_variance [ADU^2].  full_well [ADU] :
    signal at which the scatter collapses, infinite where none is seen.
    """

    inverse_gain: float
    error: float
    read_variance: float
    full_well: float


def shot_signal(signal, level, variance):
    """Signal by which shot noise is told: of the map where a pixel does not stand out, else of the pixel, float32.

    signal (m,), level of the map's median pixel [ADU], variance (m,) of a pixel at that level [ADU^2].  The noise of a
    signal must not set its own error: cut at 0 it would count as signal, and low values would weigh too much.
    """
    level = np.float32(max(level, 0.0))
    away = signal - level
    weight = np.square(away)
    weight /= weight + np.float32(STANDS_OUT**2) * variance
    away *= weight
    away += level
    return away


def photon_transfer(signal, variance, dof, read_variance=None):
    """Noise against signal from many pixels at many levels.

    signal (k,) above bias [ADU], variance (k,) of a sample [ADU^2], dof (k,) degrees of freedom of each.
    read_variance : variance without signal where it is known, for the full well of frames that do not tell a gain.
    Medians in narrow bins of signal: telegraph and struck pixels do not count.  Returns `Transfer`.
    Reference: Janesick (2007), Photon Transfer.
    """
    signal, variance, dof = (np.asarray(a, np.float64).ravel() for a in (signal, variance, dof))
    good = np.isfinite(signal) & np.isfinite(variance) & (dof >= 1)
    signal, variance, dof = signal[good], variance[good], dof[good]
    if signal.size < 2 * FEWEST_IN_BIN:
        return Transfer(math.nan, math.nan, math.nan, math.inf)
    variance = variance / _median_of_chi_square(dof)
    order = np.argsort(signal, kind="stable")
    edges = np.flatnonzero(np.diff(np.floor(np.arcsinh(signal[order]) / BIN_WIDTH))) + 1
    bins = _filled(order, edges)
    if len(bins) < 3:
        return Transfer(math.nan, math.nan, math.nan, math.inf)
    x = np.array([np.mean(signal[b]) for b in bins])
    y = np.array([np.median(variance[b]) for b in bins])
    count = np.array([b.size for b in bins])
    relative = np.array([math.sqrt(2.0 / np.mean(dof[b])) for b in bins]) * 1.2533 / np.sqrt(count)
    # A start that bins of full wells, without scatter, cannot pull down.
    lowest = np.arange(x.size) < max(1, x.size // 10)
    # Medians: a bin full of cosmic hits, which a mean of frames keeps, is far off.
    base, centre = _weighted_median(y[lowest], count[lowest]), _weighted_median(x[lowest], count[lowest])
    slopes = ((y - base) / np.maximum(x - centre, 1e-6))[~lowest]
    slope = max(0.0, _weighted_median(slopes, (count * np.abs(x - centre))[~lowest]))
    full_well = math.inf
    if read_variance is not None and centre > 0:
        shot = (y[lowest] - read_variance) / np.maximum(x[lowest], 1e-6)
        ordinary = max(0.0, _weighted_median(shot, count[lowest]))
        full_well = _full_well(signal[order], variance[order], read_variance, ordinary)
    floor = 0.05 * float(np.median(y)) + 1e-9
    model = np.maximum(base + slope * (x - centre), floor)
    linear = x < LINEAR_RANGE * full_well
    keep = linear & (y < STRUCK * model)
    for _ in range(8):
        # The share of a bin that a smooth curve may miss keeps crowded bins from deciding alone.
        sigma = model * np.hypot(relative, 0.01)
        w = np.where(keep, 1.0 / sigma**2, 0.0)
        total = w.sum()
        centre = (w * x).sum() / total
        sxx = (w * (x - centre) ** 2).sum()
        if not sxx > 0:
            return Transfer(math.nan, math.nan, math.nan, full_well)
        slope = (w * (x - centre) * y).sum() / sxx
        base = (w * y).sum() / total - slope * centre
        model = np.maximum(base + slope * x, floor)
        keep = linear & (np.abs(y - model) < np.maximum(6.0 * sigma, 0.1 * model))
        if keep.sum() < 3:
            return Transfer(math.nan, math.nan, math.nan, full_well)
    error = 1.0 / math.sqrt(sxx)
    if not slope > 5.0 * error:
        return Transfer(math.nan, math.nan, float(max(base, 0.0)), full_well)
    full_well = min(full_well, _full_well(signal[order], variance[order], base, slope))
    return Transfer(float(slope), error, float(max(base, 0.0)), full_well)


def _median_of_chi_square(dof):
    """Median of chi-square over its mean, for degrees of freedom (k,)."""
    from scipy.special import gammaincinv

    known, place = np.unique(dof, return_inverse=True)
    return (2.0 * gammaincinv(0.5 * known, 0.5) / known)[place]


def gain_of_levels(signal, variance, read_variance):
    """ADU per electron from the ordinary pixels of groups at several levels, or None where their shot noise is small.

    signal (n,) level above bias [ADU], variance (n,) of a sample [ADU^2], read_variance [ADU^2].
    """
    signal, variance = np.asarray(signal, np.float64), np.asarray(variance, np.float64)
    use = np.isfinite(variance) & (variance > 0) & (signal > 0)
    if not np.any(variance[use] > (1.0 + LEAST_SHOT) * read_variance):
        return None
    s, v = signal[use], variance[use]
    slope = float(np.sum((v - read_variance) * s / v**2) / np.sum(s * s / v**2))
    return slope if slope > 0 else None


def _filled(order, edges):
    """Cut sorted indices at the edges, narrow bins joined until each holds enough."""
    bins, start = [], 0
    for end in (*edges, order.size):
        if end - start >= FEWEST_IN_BIN:
            bins.append(order[start:end])
            start = end
    return bins


def _full_well(signal, variance, base, slope):
    """Lowest of the highest signals (sorted) whose scatter is far below the noise model; infinite where none is.

    base : may be negative, of signals that hold a pedestal.
    """
    expected = base + slope * signal
    collapsed = (variance < COLLAPSED * expected) & (signal > 20.0 * math.sqrt(max(base, 0.0)) + 20.0)
    top = collapsed[::-1]
    share = np.cumsum(top) / np.arange(1.0, top.size + 1.0)
    wells = np.flatnonzero(top & (share >= 0.8))
    if wells.size == 0 or wells[-1] + 1 < FEWEST_FULL:
        return math.inf
    found = signal[::-1][wells]
    # A single quiet pixel further down is chance.
    return float(found[found > 0.93 * np.median(found)].min())


def _weighted_median(values, weights):
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def count_levels(groups, sigmas):
    """Count the levels between which pixels jump: 1 (or not told), 2 or 3.

    groups : list of (n, c) samples of c pixels, one array a group of frames.  sigmas : list of (c,), the noise model.
    A pixel has k levels when the scatter about its best k levels, pooled over groups, agrees with the noise model and
    is far below what k cuts through Gaussian noise leave (0.36 of the variance for 2, 0.19 for 3).
    In one group a level seen once may be a cosmic hit; where a third of the groups, and three, show two levels it is none.
    Returns levels (c,) int8 and the step between lowest and highest (c,) in units of the samples.
    """
    c = groups[0].shape[1]
    left, lone = np.zeros((3, c)), np.zeros(c)
    free = np.zeros(3)
    step, weight, shows = np.zeros(c), 0, np.zeros(c)
    for samples, sigma in zip(groups, sigmas, strict=True):
        if len(samples) < 4:
            continue
        ordered = np.sort(np.asarray(samples[:MOST_SPLIT], np.float64), axis=0)
        n = len(ordered)
        total = np.concatenate([np.zeros((1, c)), np.cumsum(ordered - ordered.mean(axis=0), axis=0)])
        squares = np.sum((ordered - ordered.mean(axis=0)) ** 2, axis=0)
        two, three, gap = _best_splits(total, squares, n)
        any_two, any_gap = _best_cut(total, squares, n, 1)
        lone += any_two / sigma**2
        shows += any_gap > CLEAR_STEP * sigma
        for k, value in enumerate((squares, two, three)):
            left[k] += value / sigma**2
            free[k] += n - 1 - k
        step += gap
        weight += 1
    if weight == 0:
        return np.ones(c, np.int8), np.zeros(c)
    spread, lone = left / free[:, None], lone / free[1]
    levels = np.ones(c, np.int8)
    # Few samples a group leave little beside any cut.
    part = 0.2 if free[0] >= 7 * weight else 0.15
    often = (shows >= 3) & (shows >= weight / 3.0)
    levels[often & (lone < 1.5) & (lone < part * spread[0])] = 2
    levels[(spread[2] < 1.5) & (spread[2] < 0.1 * spread[0])] = 3
    levels[(spread[1] < 1.5) & (spread[1] < 0.2 * spread[0])] = 2
    return levels, step / weight


def _best_splits(total, squares, n):
    """Smallest sum of squares about two and three levels of sorted samples, and the gap between the two."""
    best_three = squares.copy()
    # A level seen once is a cosmic hit.
    for j in range(2, n - 1):
        for k in range(j + 2, n - 1):
            inside = total[j] ** 2 / j + (total[k] - total[j]) ** 2 / (k - j) + total[k] ** 2 / (n - k)
            best_three = np.minimum(best_three, squares - inside)
    best_two, gap = _best_cut(total, squares, n, 2)
    return best_two, np.maximum(best_three, 0.0), gap


def _best_cut(total, squares, n, fewest):
    """Smallest sum of squares about two levels, each seen ``fewest`` times or more, and the gap between them."""
    best, gap = squares.copy(), np.zeros_like(squares)
    for j in range(fewest, n - fewest + 1):
        between = total[j] ** 2 / j + total[j] ** 2 / (n - j)
        better = squares - between < best
        best = np.where(better, squares - between, best)
        gap = np.where(better, -total[j] / (n - j) - total[j] / j, gap)
    return np.maximum(best, 0.0), np.abs(gap)
