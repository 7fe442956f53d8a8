"""Errors that a campaign allows: Cramer-Rao bounds of bias, dark current and flats from the information of its frames.

The noise of one sample is ``var = read_variance + signal / gain`` [ADU^2].  The unknowns of a pixel are those of the
fits: a, b of the bias ``a + b T`` and, for darks, A, B, gamma of ``rate = A t^gamma exp(B (T - T0))``; the bias is a
nuisance of the darks.  No pixel is helped by others: shrinkage makes faint pixels better than this.

Arrays of several pixels have shape (m,) and give (m, ...); one pixel is m = 1.
Reference: Kay, Fundamentals of Statistical Signal Processing I, ch. 3; Atkinson & Donev, Optimum Experimental Designs.
"""

from dataclasses import dataclass

import numpy as np

_SINGULAR = 1e-12
"""Ratio of the eigenvalues of a scaled information below which it is singular."""


@dataclass(frozen=True, eq=False)
class DarkLaw:
    """Dark current of pixels: ``A t^gamma exp(B (T - t_ref))``; a (m,) [ADU/s], b (m,) [1/degC], gamma (m,)."""

    a: np.ndarray
    b: np.ndarray
    gamma: np.ndarray
    t_ref: float

    def rate(self, temperature, exposure):
        """Rate (m,) [ADU/s] at a temperature [degC] and exposure [s]."""
        return self.a * np.exp(self.b * (temperature - self.t_ref) + self.gamma * np.log(exposure))

    def slopes(self, temperature, exposure):
        """Derivatives of the rate by ln A, B and gamma, (m, 3)."""
        rate = self.rate(temperature, exposure)
        return np.stack([rate, rate * (temperature - self.t_ref), rate * np.log(exposure)], axis=-1)


def bias_terms(temperatures, variance):
    """Fisher information of ONE bias frame at each temperature, (n, m, 2, 2), of a and b.

    temperatures : (n,) [degC].  variance : (n, m) of one sample [ADU^2].
    """
    temperatures = np.asarray(temperatures, float)
    j = np.stack([np.ones_like(temperatures), temperatures], axis=-1)
    return j[:, None, :, None] * j[:, None, None, :] / np.asarray(variance, float)[..., None, None]


def dark_terms(law, temperatures, exposures, variance):
    """Fisher information of ONE dark frame of each group, (n, m, 5, 5), of ln A, B, gamma, a, b.

    temperatures, exposures : (n,) [degC], [s].  variance : (n, m) of one sample [ADU^2]; infinite where it is saturated.
    """
    terms = []
    for temperature, exposure, var in zip(temperatures, exposures, variance, strict=True):
        charge = exposure * law.slopes(temperature, exposure)
        one = np.ones(charge.shape[:-1])
        j = np.concatenate([charge, one[..., None], temperature * one[..., None]], axis=-1)
        terms.append(j[..., :, None] * j[..., None, :] / np.asarray(var, float)[..., None, None])
    return np.array(terms)


def with_bias(dark, bias):
    """Add the information on a and b that bias frames carry (m, 2, 2) to that of darks (m, 5, 5)."""
    total = np.array(dark)
    total[..., 3:, 3:] += bias
    return total


def covariance_root(information):
    """W with covariance = W W^T, from a Fisher information (..., p, p); infinite where it is singular."""
    scale = np.sqrt(np.einsum("...ii->...i", information))
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = information / (scale[..., :, None] * scale[..., None, :])
    told = np.isfinite(unit).all(axis=(-1, -2))
    values, vectors = np.linalg.eigh(np.where(told[..., None, None], unit, np.eye(unit.shape[-1])))
    told &= values[..., 0] > _SINGULAR * values[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        root = vectors / np.sqrt(values)[..., None, :] / scale[..., :, None]
    return np.where(told[..., None, None], root, np.inf)


def known_root(information, prior):
    """Root of the covariance where something is known beside the frames, as `covariance_root`.

    prior : (p, p) information on what the frames tell of all pixels together, so that it counts only where they tell it.
    """
    free = covariance_root(information)
    return np.where(np.isfinite(free), covariance_root(information + prior), np.inf)


def error_along(root, direction):
    """1 sigma of ``direction . parameters``; direction (m, p) or (p,); infinite where the data do not tell."""
    told = np.isfinite(root).all(axis=(-1, -2))
    parts = np.einsum("...i,...ij->...j", direction, np.where(told[..., None, None], root, 0.0))
    return np.where(told, np.sqrt((parts * parts).sum(axis=-1)), np.inf)


def bias_direction(temperature):
    """What a bias at a temperature is of a and b."""
    return np.array([1.0, float(temperature)])


def dark_direction(law, temperature, exposure):
    """What a dark rate is of (ln A, B, gamma, a, b), (m, 5)."""
    slopes = law.slopes(temperature, exposure)
    return np.concatenate([slopes, np.zeros((*slopes.shape[:-1], 2))], axis=-1)


def flat_error(level, frames, read_variance, inverse_gain):
    """Relative 1 sigma of a master flat: ``sqrt(RN^2 + S / g) / (S sqrt(n))``; level S [ADU]."""
    return np.sqrt((read_variance + inverse_gain * level) / frames) / level


def flat_frames(level, wanted, read_variance, inverse_gain):
    """Frames at a level that give a wanted relative error, rounded up."""
    return int(np.ceil((read_variance + inverse_gain * level) / (level * wanted) ** 2 - 1e-9))


def cheapest_counts(terms, cost, targets, least=3, prior=None):
    """Numbers of frames of each group, at the least cost that meets every target.

    terms : (n, p, p) information of one frame of each group.  cost : (n,) of one frame [s].
    targets : list of (direction (p,), wanted sigma).  least : frames of a group that is taken at all.
    prior : as for `known_root`, None for nothing.
    The problem in real numbers is convex; groups that want fewer than ``least`` frames are left out where that costs
    next to nothing, the others are rounded up, and frames that rounding made superfluous are taken away again.
    Returns counts (n,) int, or None where not even unlimited frames of all groups meet the targets.
    """
    terms, cost = np.asarray(terms, float), np.asarray(cost, float)
    directions = np.array([direction for direction, _ in targets], float)
    wanted = np.array([sigma for _, sigma in targets], float)
    prior = 0.0 if prior is None else prior
    problem = (terms, cost, directions, wanted, prior)
    counts = _to_meet(np.ones(len(terms)), *problem)
    if counts is None:
        return None
    counts = _relaxed(counts, *problem)
    for index in np.argsort(counts):
        if 0 < counts[index] < least:
            rest = _to_meet(np.where(np.arange(len(counts)) == index, 0.0, counts), *problem)
            if rest is not None:
                rest = _relaxed(rest, *problem, rounds=300)
                counts = rest if cost @ rest <= cost @ counts + 0.5 * least * cost[index] else counts
    whole = np.where(counts > 0, np.maximum(np.ceil(counts - 1e-6), least), 0).astype(int)
    for index in np.argsort(-cost):
        while whole[index] > least:
            whole[index] -= 1
            if not (_ratios(whole, *problem) <= 1.0).all():
                whole[index] += 1
                break
    return whole


def _ratios(counts, terms, _cost, directions, wanted, prior=0.0):
    """Error of each target over what is wanted."""
    return error_along(known_root(np.tensordot(counts, terms, 1), prior), directions) / wanted


def _to_meet(counts, *problem):
    """Counts times the factor that just meets all targets, or None."""
    for _ in range(200):
        worst = float(_ratios(counts, *problem).max())
        if not np.isfinite(worst):
            return None
        # What is known beside the frames does not grow with them: one step is not enough then.
        counts = counts * worst * worst
        if abs(worst - 1.0) < 1e-9:
            return counts
    return counts if worst <= 1.0 + 1e-6 else None


def _relaxed(counts, terms, cost, directions, wanted, prior=0.0, rounds=2000):
    """Real numbers of frames near the least cost: multiplicative updates of counts and of the targets' prices.

    At the optimum a frame of every group that is taken earns its cost: ``sum_k price_k d(var_k / wanted_k^2) / dn = cost``.
    Reference: Yu, Annals of Statistics 38 (2010) 1593, for one target.
    """
    problem = (terms, cost, directions, wanted, prior)
    price = np.full(len(wanted), (cost @ counts) / len(wanted))
    best = counts
    for _ in range(rounds):
        root = known_root(np.tensordot(counts, terms, 1), prior)
        if not np.isfinite(root).all():
            break
        reach = (directions @ root) @ root.T / wanted[:, None]
        ratio = np.einsum("ki,ki->k", reach, directions) / wanted
        price *= ratio
        earned = np.einsum("k,ki,nij,kj->n", price, reach, terms, reach, optimize=True)
        counts = counts * np.sqrt(earned / cost)
        counts[cost * counts < 1e-7 * (cost @ counts)] = 0.0
        now = _to_meet(counts, *problem)
        if now is not None and cost @ now < cost @ best:
            best = now
    return best
