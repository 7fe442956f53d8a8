"""The dark law of the median pixel: where the fit of all pixels begins, and maps that do not belong."""

import math

import numpy as np

from utils.kernels.dark_fit import BiasError, Design, Prior, fit_pixels

B_START = math.log(2.0) / 7.0
"""Dark current of silicon doubles about every 7 degC: where the search begins."""
WIDE_B, WIDE_GAMMA = 0.05, 0.5
"""1 sigma of the priors that only keep faint pixels from running away [1/degC, none]."""


def wide_prior(b, gamma, gamma_free):
    """Prior that only keeps faint pixels from running away."""
    return Prior(b, WIDE_B, gamma if gamma_free else 0.0, WIDE_GAMMA if gamma_free else 0.0)


def level_fit(levels, variance, temperature, exposure, frames, *, offset_sigma=3.0, gamma_free=True):
    """Fit the law to one level per map (the median pixel), and again without each map.

    levels (n,) [ADU] above bias.  variance (n,) of a pixel in each map [ADU^2].  offset_sigma : level of all darks
    that is free within this [ADU].
    Returns b, gamma, p at the pivot, design, predicted (n,): each level from the other maps.
    """
    levels, variance = np.asarray(levels, np.float64), np.asarray(variance, np.float64)
    n = levels.size
    strength = np.maximum(levels, 0.0) ** 2 / variance + 1e-6
    design = Design.of(temperature, exposure, frames, strength, common_variance=variance)
    table = np.repeat(levels[:, None], n + 1, axis=1).astype(np.float32)
    table[np.arange(n), np.arange(n)] = np.nan
    some_gamma = gamma_free and np.ptp(design.log_exposure) > 0.1
    prior = Prior(B_START, 0.1, 0.0, 0.3 if some_gamma else 0.0)
    bias = BiasError(np.full(n + 1, offset_sigma**2))
    fit = fit_pixels(table, np.full(n + 1, 1e-6), design, prior, bias=bias)
    unit = design.exposure * np.exp(fit.b[:n] * design.x + fit.gamma[:n] * design.log_exposure)
    predicted = fit.p[:n] * unit
    return float(fit.b[n]), float(fit.gamma[n]), float(fit.p[n]), design, predicted


def misfits(levels, variance, temperature, exposure, frames):
    """Maps whose level the law of the others does not explain, worst first: bool (n,).

    A map is left out when its level misses the prediction of the others by more than half of it, by more than three
    sigma of a pixel, and by more than eight times what the other maps miss theirs by.  At most a fifth of the maps,
    and none among fewer than six.
    """
    levels = np.asarray(levels, np.float64)
    out = np.zeros(levels.size, bool)
    if levels.size < 6 or np.unique(temperature).size < 2:
        return out
    columns = [np.asarray(a, np.float64) for a in (levels, variance, temperature, exposure, frames)]
    for _ in range(max(1, levels.size // 5)):
        keep = np.flatnonzero(~out)
        *_, predicted = level_fit(*(column[keep] for column in columns))
        miss = np.abs(levels[keep] - predicted)
        sigma = np.sqrt(columns[1][keep])
        usual = 1.4826 * np.median(miss / sigma)
        score = miss / sigma
        bad = (score > np.maximum(3.0, 8.0 * usual)) & (miss > 0.5 * np.abs(predicted))
        if not bad.any():
            break
        out[keep[np.argmax(np.where(bad, score, 0.0))]] = True
    return out
