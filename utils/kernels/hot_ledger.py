"""Hot pixels over the epochs of a mission, at one temperature: which are born, which stay, which anneal."""

import math
from dataclasses import dataclass

import numpy as np

HOT_SIGMA = 8.0
"""A pixel is hot so many robust standard deviations above the median of all, and significantly so."""
CHANGED_SIGMA, CHANGED_PART = 6.0, 0.3
"""A rate has changed by so many sigma, and by so large a part of the higher rate: telegraph noise moves them too."""
BORN, ANNEALED, PASSED, PERSISTENT, HOTTER, COOLER = (
    "born",
    "annealed",
    "born, annealed",
    "persistent",
    "hotter",
    "cooler",
)
FEWEST_PAIRS = 20
"""Pixels that tell the growth with temperature."""
TYPICAL_SPREAD = 0.02
"""Spread of the growth from pixel to pixel where nothing tells it [1/K]."""


@dataclass(frozen=True)
class Growth:
    """Growth of dark current with temperature, rate ~ exp(value T).  spread : 1 sigma from pixel to pixel [1/K]."""

    value: float
    spread: float
    pixels: int


def growth_of(cold, cold_sigma, hot, hot_sigma, difference):
    """Growth from the rates of the same pixels at two temperatures, or None where too few pixels tell.

    cold, hot : (m,) [ADU/s] with their errors; difference : temperatures' difference [degC], above 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        good = (cold > 10.0 * cold_sigma) & (hot > 10.0 * hot_sigma) & np.isfinite(cold + hot)
        if good.sum() < FEWEST_PAIRS:
            return None
        own = np.log(hot[good] / cold[good]) / difference
        noise = np.hypot(cold_sigma[good] / cold[good], hot_sigma[good] / hot[good]) / difference
    value = float(np.median(own))
    spread = 1.4826 * float(np.median(np.abs(own - value)))
    return Growth(value, math.sqrt(max(spread**2 - float(np.median(noise)) ** 2, 0.0025**2)), int(good.sum()))


def at_temperature(rate, sigma, growth, spread, difference):
    """Rates at a common temperature.

    rate, sigma : (...) [ADU/s].  growth : [1/K], a number or an array.  spread : its 1 sigma.  difference : common less
    own temperature [degC].  Returns rate and sigma, which holds what is not known of the pixel's growth.
    """
    factor = np.exp(np.asarray(growth) * difference)
    moved = rate * factor
    return moved, np.hypot(sigma * factor, moved * spread * difference)


def hot_limit(rates):
    """Rate above which a pixel is hot, from all pixels of one epoch (m,), their median being 0."""
    known = rates[np.isfinite(rates)]
    return HOT_SIGMA * 1.4826 * float(np.median(np.abs(known - np.median(known))))


@dataclass(frozen=True, eq=False)
class Ledger:
    """History of k hot pixels.  status : (k,) str.  born, annealed : (k,) int, first epoch of the new state, -1 = none.

    before, during, after : (k,) mean rate [ADU/s] before it was born, while it was hot, after it annealed (NaN: no such
    epoch).  errors : (3, k).  significance : (k,) of the change, 0 for persistent ones.  hot : (epochs, k) bool.
    """

    status: np.ndarray
    born: np.ndarray
    annealed: np.ndarray
    before: np.ndarray
    during: np.ndarray
    after: np.ndarray
    errors: np.ndarray
    significance: np.ndarray
    hot: np.ndarray


def keep_ledger(rates, sigmas, limit):
    """Write the history of pixels that are hot in some epoch.

    rates, sigmas : (epochs, k) [ADU/s] at one temperature above the sensor's median, NaN = unknown.  limit : [ADU/s].
    For each pixel the stretch of epochs is sought that stands out most above the others; where that is significant the
    pixel changed when the stretch began or ended.  Returns `Ledger`.
    """
    count, k = rates.shape
    known = np.isfinite(rates) & (sigmas > 0)
    weight = np.where(known, 1.0 / np.where(known, sigmas, 1.0) ** 2, 0.0)
    value = np.where(known, rates, 0.0)
    best, begin, end = np.zeros(k), np.zeros(k, int), np.full(k, count)
    for first in range(count):
        for last in range(first + 1, count + 1):
            if last - first == count:
                continue
            inside = np.zeros(count, bool)
            inside[first:last] = True
            step, information = _step(value, weight, inside)
            gain = np.where(step > 0, step * np.sqrt(information), 0.0)
            better = gain > best
            best[better], begin[better], end[better] = gain[better], first, last
    epoch = np.arange(count)[:, None]
    parts = (epoch < begin, (epoch >= begin) & (epoch < end), epoch >= end)
    means, errors = zip(*(_mean(value, weight, part) for part in parts), strict=True)
    before, during, after = means
    low = np.fmax(before, after)
    changed = (best > CHANGED_SIGMA) & (during - low > CHANGED_PART * during)
    whole, whole_error = _mean(value, weight, np.ones((count, k), bool))
    rose, fell = changed & np.isfinite(before), changed & np.isfinite(after)
    newly, healed = rose & (before < limit), fell & (after < limit)
    status = np.full(k, PERSISTENT, dtype="<U14")
    status[fell & ~healed] = COOLER
    status[rose & ~newly] = HOTTER
    status[healed & ~newly] = ANNEALED
    status[newly & ~healed] = BORN
    status[newly & healed] = PASSED
    during = np.where(changed, during, whole)
    errors = np.array([errors[0], np.where(changed, errors[1], whole_error), errors[2]])
    hot = np.where(known, (rates > limit) & (rates > HOT_SIGMA * sigmas), False)
    return Ledger(
        status,
        np.where(newly, begin, -1),
        np.where(healed, end, -1),
        np.where(rose, before, np.nan),
        during,
        np.where(fell, after, np.nan),
        errors,
        np.where(changed, best, 0.0),
        hot,
    )


def _mean(value, weight, part):
    total = (weight * part).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (value * weight * part).sum(axis=0) / total
        return np.where(total > 0, mean, np.nan), np.where(total > 0, 1.0 / np.sqrt(total), np.nan)


def _step(value, weight, inside):
    a, b = weight[inside].sum(axis=0), weight[~inside].sum(axis=0)
    usable = (a > 0) & (b > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (value[inside] * weight[inside]).sum(axis=0) / a - (value[~inside] * weight[~inside]).sum(
            axis=0
        ) / b
        information = a * b / (a + b)
    return np.where(usable, step, 0.0), np.where(usable, information, 0.0)
