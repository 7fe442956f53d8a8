"""What pixels share, by marginal likelihood: distributions of B and gamma over pixels, and an offset of their levels.

Each pixel's own parameters are integrated out, with its posterior taken as normal.
Reference: Efron & Morris (1973), JASA 68, 117; Patterson & Thompson (1971), Biometrika 58, 545.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from utils.kernels.dark_algebra import inverse, product
from utils.kernels.dark_fit import Prior

LARGEST_STEP = (50.0, 0.05, 0.3)
"""Of an offset [ADU], and of a mean of B and gamma, in one round."""
WEAK = (50.0, 0.05, 0.5)
"""1 sigma of what is known of them beforehand: keeps the equations regular where the data tell nothing."""
LEAST_SCATTER = (1e-3, 2e-4)
"""Of B relative to its mean, and of gamma: less is no scatter for any purpose."""


@dataclass(frozen=True)
class Population:
    """Distribution of a parameter over pixels: mean, its error, 1 sigma over pixels, pixels behind it."""

    mean: float
    error: float
    sigma: float
    pixels: int

    @property
    def spread(self):
        """1 sigma of what is known of one pixel's value: the scatter, and the error of the mean."""
        return math.hypot(self.sigma, self.error) if math.isfinite(self.error) else self.sigma


@dataclass(frozen=True, eq=False)
class Shared:
    """What all pixels share.

    offset (S,) [ADU] of each session.  mean, sigma (2, 2): of B and gamma (rows), ordinary and bright pixels (columns).
    own_mean, own_sigma (2,) bool: bright pixels have a mean, a scatter of their own.  free: which of offset, B, gamma
    are estimated.
    """

    offset: np.ndarray
    mean: np.ndarray
    sigma: np.ndarray
    own_mean: np.ndarray
    own_sigma: np.ndarray
    free: tuple

    @classmethod
    def start(cls, sessions, b, gamma, b_sigma, gamma_sigma, *, offset_free, gamma_free):
        """All pixels alike, without offset."""
        mean, sigma = np.array([[b, b], [gamma, gamma]]), np.array([[b_sigma] * 2, [gamma_sigma] * 2])
        if not gamma_free:
            mean[1] = sigma[1] = 0.0
        nowhere = np.zeros(2, bool)
        return cls(
            np.zeros(sessions), mean, sigma, nowhere, nowhere, (bool(offset_free), True, bool(gamma_free))
        )

    def prior(self, bright):
        """Prior of each pixel; bright (m,) bool."""
        values = [plane[i] for i in range(2) for plane in (self.mean, self.sigma)]
        return Prior(*(one[0] if one[0] == one[1] else np.where(bright, one[1], one[0]) for one in values))

    @property
    def columns(self):
        """Shared numbers in the order of the equations: ('offset', session), (parameter, class), class -1 = all."""
        found = [("offset", s) for s in range(self.offset.size)] if self.free[0] else []
        for i in self.parameters:
            found += [(i, 0), (i, 1)] if self.own_mean[i] else [(i, -1)]
        return found

    @property
    def parameters(self):
        """Those of B (0) and gamma (1) that are estimated."""
        return [i for i in range(2) if self.free[1 + i]]

    def moved(self, step):
        """Return the same with its numbers moved by ``step``, in the order of `columns`."""
        offset, mean = self.offset.copy(), self.mean.copy()
        for (kind, place), change in zip(self.columns, step, strict=True):
            limit = LARGEST_STEP[0 if kind == "offset" else 1 + kind]
            change = float(np.clip(change, -limit, limit))
            if kind == "offset":
                offset[place] += change
            elif place < 0:
                mean[kind] += change
            else:
                mean[kind, place] += change
        return replace(self, offset=offset, mean=mean)


def scatter(off, variances):
    """Variance of a population beyond known errors, by maximum likelihood, and its error; 0 where there is none.

    off (k,) : values less their mean.  variances (k,) : squares of their errors.  Unlike a chi-square of all values it
    is decided by those that are known well.
    """
    square = off * off

    def score(extra):
        weight = 1.0 / (variances + extra)
        return float(np.sum(weight * (weight * square - 1.0)))

    found = 0.0
    if score(0.0) > 0:
        low, high = 0.0, float(np.mean(square))
        while score(high) > 0:
            low, high = high, 4.0 * high
        for _ in range(40):
            found = 0.5 * (low + high)
            low, high = (found, high) if score(found) > 0 else (low, found)
    return found, math.sqrt(2.0 / np.sum(1.0 / np.square(variances + found)))


class Posterior:
    """Fits of pixels that the shared numbers support, linearised where they stand, in float64.

    fit : `PixelFit`, problem : its `Problem`.  state (3, m): p, B, gamma.  cov (6, m): 00 01 02 11 12 22.
    """

    def __init__(self, fit, problem):
        self.problem = problem
        self.state = np.stack([fit.p, fit.b, fit.gamma])
        self.state[:, ~np.isfinite(fit.p)] = 0.0
        h, self.gradient, *_ = problem.objective(self.state, weigh=True)
        self.cov = inverse(h)

    def own(self, index):
        """What the data alone say of B (0) or gamma (1), given the prior of the other: value and variance, each (m,).

        The variance is infinite where they say nothing.
        """
        post, mean = self.cov[(3, 5)[index]], self.problem.prior_mean[index]
        kept = 1.0 - post * self.problem.prior_weight[index]
        told = kept > 1e-9
        with np.errstate(divide="ignore", invalid="ignore"):
            value = mean + (self.state[1 + index] - mean) / kept
            return np.where(told, value, mean), np.where(told, post / kept, np.inf)

    def shared_equations(self, shared, session, bright):
        """Score (k, m) and information (k, k, m) of the shared numbers, each pixel's own parameters integrated out.

        Newton's step on the marginal likelihood of chosen pixels solves the sums over them.
        """
        columns, m = shared.columns, self.state.shape[1]
        score, coupling = np.zeros((len(columns), m)), np.zeros((len(columns), 3, m))
        own = np.zeros((len(columns), len(columns), m))
        if shared.free[0]:
            s = slice(0, shared.offset.size)
            terms = _offset_terms(self.problem, self.state, session, shared.offset.size)
            score[s], coupling[s], own[s, s] = terms
        for row, (kind, place) in enumerate(columns):
            if kind != "offset":
                weight = self.problem.prior_weight[kind] * (1.0 if place < 0 else bright == bool(place))
                score[row] = weight * (self.state[1 + kind] - self.problem.prior_mean[kind])
                coupling[row, 1 + kind] = -weight
                own[row, row] = weight
        cov = self.cov[[[0, 1, 2], [1, 3, 4], [2, 4, 5]]]
        shift = np.einsum("ijm,gjm->gim", cov, coupling)
        score -= np.einsum("gim,im->gm", shift, self.gradient)
        return score, own - np.einsum("gim,him->ghm", shift, coupling)


def _offset_terms(problem, state, session, count):
    """Score (S, m), coupling to the pixel's parameters (S, 3, m), information (S, S, m) of the sessions' offsets.

    The error of each pixel's bias is eliminated.
    """
    unit = problem.unit(state)
    weighted = problem.w * (problem.y - unit * state[0].astype(np.float32))
    scale = np.stack([np.ones_like(state[0]), state[0], state[0]])
    k, c = problem.nuisances, problem.columns
    masks = [(session == s)[:, None].astype(np.float32) for s in range(count)]
    score = np.array([(weighted * mask).sum(axis=0, dtype=np.float64) for mask in masks])
    coupling = np.array([product(c["gradient"], problem.w * mask * unit) * scale for mask in masks])
    own = np.zeros((count, count, state.shape[1]))
    for s, mask in enumerate(masks):
        own[s, s] = (problem.w * mask).sum(axis=0, dtype=np.float64)
    if k:
        inner = product(c["nuisance"][: 2 * k - 1], problem.w) + problem.precision
        cross = product(c["cross"][: 3 * k], problem.w * unit).reshape(k, 3, -1) * scale
        right = product(c["nuisance"][:k], weighted)
        nuisance = np.array([product(c["nuisance"][:k], problem.w * mask) for mask in masks])
        solved = np.array([_solve(inner, one) for one in nuisance])
        score -= np.einsum("skm,km->sm", solved, right)
        coupling -= np.einsum("skm,kim->sim", solved, cross)
        own -= np.einsum("skm,qkm->sqm", solved, nuisance)
    return score, coupling, own


def _solve(inner, vector):
    """Solve symmetric k x k equations (2k - 1, m) for (k, m)."""
    if len(vector) == 1:
        return vector / inner
    det = inner[0] * inner[2] - inner[1] ** 2
    first, second = inner[2] * vector[0] - inner[1] * vector[1], inner[0] * vector[1] - inner[1] * vector[0]
    return np.stack([first, second]) / det
