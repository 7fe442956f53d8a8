"""Significance of changes over all places, shapes and windows of time, and how often chance alone reaches it."""

import math

import numpy as np
from scipy import special

COLUMNS = 1 << 15
"""Pixels whose contrasts are looked at together."""
SHAPES_AMPLITUDE, SHAPES_POWER = 0.165, 3.0
"""Independent shapes a pixel, ``amplitude u^power``: peaks of white noise under the whole bank (docs/validation.md)."""
SAMPLES = 4000


def best_scores(planes, weight, unit, filters, excess=None):
    """Largest significance of every pixel over all templates and contrasts.

    planes : (p, ny, nx) float32, relative change of each group and epoch.  weight : (ny, nx) float32, inverse variance of
    a pixel where the typical one has 1; 0 = bad.  unit : (m, p) from `Contrasts.scores`.  filters : `FilterBank` of that
    shape.  excess : (templates,), noise of each template over the expected, or None for 1.
    Returns score (ny, nx) float32 (without sign) and template (ny, nx) int8.
    """
    p, ny, nx = planes.shape
    transformed = filters.transform(planes * weight)
    of_weight = filters.transform(weight)
    score, template = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.int8)
    handicap = handicaps(filters.bank)
    flat, chosen = score.reshape(-1), template.reshape(-1)
    unit = unit.astype(np.float32)
    for number in range(len(filters.bank)):
        scale = 1.0 if excess is None else float(excess[number])
        inverse = _inverse_norm(filters.apply(of_weight, number, squared=True), weight) / np.float32(scale)
        filtered = filters.apply(transformed, number)
        filtered = np.ascontiguousarray(filtered * inverse).reshape(p, -1)
        for start in range(0, ny * nx, COLUMNS):
            part = slice(start, start + COLUMNS)
            z = unit @ filtered[:, part]
            best = np.maximum(z.max(axis=0), -z.min(axis=0))
            best = best * best + np.float32(handicap[number])
            better = best > flat[part]
            flat[part][better] = best[better]
            chosen[part][better] = number
    score[weight <= 0] = 0.0
    return np.sqrt(score, out=score), template


def handicaps(bank):
    """What is added to the square of a significance for each template: the larger, the fewer places it has in a frame.

    White noise has about ``area^-0.4`` independent spots a pixel and 2.3 times as many rings (measured), so that with
    ``2 ln`` of their inverse every shape makes false regions at the rate of single pixels.
    Reference: Duembgen & Spokoiny (2001), Ann. Stat. 29, 124.
    """
    area = np.array([float(np.square(template.kernel).sum()) for template in bank])
    more = np.array([2.3 if template.kind == "ring" else 1.0 for template in bank])
    return np.maximum(0.8 * np.log(area) - 2.0 * np.log(more), 0.0)


def _inverse_norm(squares, weight):
    """1 / sqrt of the filtered weights, 0 where next to nothing lies under the template."""
    least = 1e-3 * float(weight.max(initial=0.0)) + 1e-30
    return np.where(squares > least, 1.0 / np.sqrt(np.maximum(squares, least)), 0.0).astype(np.float32)


def excess_noise(plane, variance, weight, filters):
    """Noise of every template over what white noise of the expected size gives: 1 where that is within the error.

    plane : (ny, nx), a difference of frames that holds no change.  variance : of its typical pixel.
    """
    transformed = filters.transform((plane * weight)[None])
    of_weight = filters.transform(weight)
    found = np.ones(len(filters.bank))
    for number, template in enumerate(filters.bank):
        inverse = _inverse_norm(filters.apply(of_weight, number, squared=True), weight)
        step = max(1, int(template.radius))
        z = (filters.apply(transformed, number)[0] * inverse)[::step, ::step]
        z = z[inverse[::step, ::step] > 0] / math.sqrt(variance)
        if z.size < 20:
            continue
        scatter = 1.4826 * float(np.median(np.abs(z)))
        independent = z.size / max(1.0, math.pi * template.radius**2 / step**2)
        if scatter > 1.0 + 3.0 * 1.17 / math.sqrt(max(independent, 4.0)):
            found[number] = scatter
    return np.maximum.accumulate(found)


def window_trials(unit, information, score, samples=SAMPLES, seed=1):
    """Contrasts that count as independent at a score: P(any beyond ``score``) / P(one lasting beyond).

    unit : (m, p) from `Contrasts.scores`.  information : (p,) of the planes.
    One contrast is drawn beyond the limit and the others given it; the mean of 1 / (number beyond) is the union of all.
    Reference: Naiman & Priebe (2001), J. Comput. Graph. Stat. 10, 296.
    """
    rng = np.random.default_rng(seed)
    loadings = unit / np.sqrt(information)
    spread = np.sqrt(np.square(loadings).sum(axis=1))
    alone = special.log_ndtr(-score / spread)
    relative = np.exp(alone - special.log_ndtr(-score))
    chosen = rng.choice(spread.size, size=samples, p=relative / relative.sum())
    noise = rng.standard_normal((samples, loadings.shape[1]))
    # The chosen one, in its own sigma, beyond its limit as Gaussian tails are.
    value = -special.ndtri_exp(alone[chosen] + np.log(rng.uniform(size=samples)))
    own = loadings[chosen] / spread[chosen, None]
    noise += own * (value - (own * noise).sum(axis=1))[:, None]
    beyond = np.abs(noise @ loadings.T) > score * (1 - 1e-12)
    return float(relative.sum() * np.mean(1.0 / np.maximum(beyond.sum(axis=1), 1)))


def expected_false(score, pixels, unit, information):
    """Regions that noise alone makes beyond a significance, over ``pixels`` good pixels and all contrasts."""
    shapes = SHAPES_AMPLITUDE * score**SHAPES_POWER
    return pixels * shapes * 2.0 * float(special.ndtr(-score)) * window_trials(unit, information, score)


def threshold_for(expected, pixels, unit, information):
    """Significance beyond which noise alone makes ``expected`` regions."""
    low, high = 3.0, 12.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        if expected_false(middle, pixels, unit, information) > expected:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
