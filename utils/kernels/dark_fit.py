"""Dark current of every pixel against temperature and exposure: ``rate = A t^gamma exp(B (T - T_min))``.

The fit works on signals (level above bias) in linear space, on many pixels at a time.  Inside it the law stands at a
pivot where the data are strong: ``signal_k = t_k p exp(B x_k + gamma l_k)``, x = T - T_p, l = ln(t / t_p); p [ADU/s]
may be zero or negative.  The error of a pixel's bias is common to all its darks: a level and a slope in T enter as
nuisances with the covariance of the bias model and are eliminated from the normal equations, which is generalised
least squares.  Every sum over the maps is a matrix product, so a block of pixels costs little more than its
exponentials.
References: Nocedal & Wright (2006), Numerical Optimization, ch. 10; Bos (2007), Parameter Estimation, ch. 5.
"""

from dataclasses import dataclass

import numpy as np

from utils.kernels.dark_algebra import Nuisances, inverse, line_precision, product, solve_step

MORE_STEPS = 12
"""Steps for the pixels that the first two leave short of their solution."""
CONVERGED = 1e-3
"""A step below this many standard errors ends the iteration."""
B_RANGE, GAMMA_RANGE = (-0.1, 0.5), (-0.95, 2.0)


@dataclass(frozen=True, eq=False)
class Design:
    """What is the same for all pixels.

    temperature (n,) [degC], exposure (n,) [s], frames (n,): frames behind each map (less for a median).
    pivot_t [degC], pivot_e [s].  x (n,): the temperature term, T - T_p unless another law is given.
    common_variance (n,) [ADU^2]: error that all pixels of a map share.
    """

    temperature: np.ndarray
    exposure: np.ndarray
    frames: np.ndarray
    pivot_t: float
    pivot_e: float
    x: np.ndarray
    common_variance: np.ndarray

    @classmethod
    def of(cls, temperature, exposure, frames, strength=None, x=None, common_variance=0.0):
        """Design with its pivot at the mean of the maps, weighted by ``strength`` (n,), signal over noise squared."""
        temperature, exposure, frames = (np.asarray(a, np.float64) for a in (temperature, exposure, frames))
        weight = np.ones(temperature.size) if strength is None else np.asarray(strength, np.float64)
        weight = np.maximum(weight / max(weight.max(), 1e-30), 1e-6)
        pivot_t = float(np.average(temperature, weights=weight))
        pivot_e = float(np.exp(np.average(np.log(exposure), weights=weight)))
        common = np.broadcast_to(np.asarray(common_variance, np.float64), temperature.shape)
        return cls(
            temperature, exposure, frames, pivot_t, pivot_e, temperature - pivot_t if x is None else x, common
        )

    @property
    def log_exposure(self):
        """ln(t / t_p) of each map, (n,)."""
        return np.log(self.exposure / self.pivot_e)


@dataclass(frozen=True, eq=False)
class Prior:
    """What the sensor tells of B [1/degC] and gamma of one pixel: mean and 1 sigma, scalars or (m,).

    A sigma of 0 holds the parameter at its mean.
    """

    b: object
    b_sigma: object
    gamma: object = 0.0
    gamma_sigma: object = 0.0

    def at(self, part):
        """Return the same for some pixels."""
        values = (self.b, self.b_sigma, self.gamma, self.gamma_sigma)
        return Prior(*(one if np.ndim(one) == 0 else one[part] for one in values))


@dataclass(eq=False)
class PixelFit:
    """Result for m pixels, float64.

    p, b, gamma (m,) at the pivot.  cov (6, m): pp, pb, pg, bb, bg, gg.  chi2 (m,): of all data, with the bias free
    within its error.  n_used (m,).  reach (m,): prior pull of B and gamma, the larger, in sigma of that pull.
    parameters (m,): 1 for p and the share of B and gamma that the data decide and not the prior.
    """

    p: np.ndarray
    b: np.ndarray
    gamma: np.ndarray
    cov: np.ndarray
    chi2: np.ndarray
    n_used: np.ndarray
    reach: np.ndarray
    parameters: np.ndarray

    def part(self, where):
        """Return the fit of some pixels."""
        names = ("n_used", "reach", "parameters")
        return PixelFit(
            self.p[where],
            self.b[where],
            self.gamma[where],
            self.cov[:, where],
            self.chi2[where],
            *(getattr(self, name)[where] for name in names),
        )

    def put(self, where, other):
        """Replace the pixels ``where`` by another fit of just those."""
        for name in ("p", "b", "gamma", "chi2", "n_used", "reach", "parameters"):
            getattr(self, name)[where] = getattr(other, name)
        self.cov[:, where] = other.cov


@dataclass(frozen=True, eq=False)
class BiasError:
    """Covariance of each pixel's bias ``a + b T``: var_a, var_b, cov_ab (m,); var_b None: a level only."""

    var_a: np.ndarray
    var_b: np.ndarray | None = None
    cov_ab: np.ndarray | None = None

    def at(self, part):
        """Return the same for some pixels."""
        if self.var_b is None:
            return BiasError(self.var_a[part])
        return BiasError(self.var_a[part], self.var_b[part], self.cov_ab[part])


def fit_pixels(signal, read_variance, design, prior, *, inverse_gain=0.0, bias=None, start=None):
    """Fit the law to m pixels.

    signal : (n, m) float32 level above bias [ADU], NaN = unusable.  read_variance : (m,) variance of one sample
    without signal [ADU^2].  design : `Design`.  prior : `Prior`.  inverse_gain : [ADU/e-], shot noise from the model.
    bias : `BiasError` or None for an exact bias.  start : (b, gamma), default the prior's.
    Returns `PixelFit`; pixels with no usable sample have NaN.
    """
    work = Problem(signal, read_variance, design, prior, inverse_gain, bias, fast=True)
    b, gamma = (float(np.mean(v)) for v in ((prior.b, prior.gamma) if start is None else start))
    state = work.steps(work.begin(b, gamma), 1, weigh=False)[0]
    state, moving, solution = work.steps(state, 1)
    moving = np.flatnonzero(moving)
    if moving.size:
        some = work.part(moving)
        found = state[:, moving]
        for _ in range(2):
            found, _, last = some.steps(found, MORE_STEPS)
        state[:, moving] = found
        for whole, piece in zip(solution, last, strict=True):
            whole[..., moving] = piece
    return work.finish(state, *solution)


class Problem:
    """Arrays of one block: float32 (n, m) data and weights, normal equations of m pixels.

    fast : equations in float32, as accurate as the data in them, and without gamma where the prior holds it in all
    pixels; else in float64 and with all three parameters.
    """

    def __init__(self, signal, read_variance, design, prior, inverse_gain, bias, fast=False):
        self.design, self.prior, self.inverse_gain, self.bias = design, prior, inverse_gain, bias
        self.fast, self.kind = fast, np.float32 if fast else np.float64
        self.free = 2 if fast and not np.any(prior.gamma_sigma) else 3
        usable = np.isfinite(signal)
        self.complete = bool(usable.all())
        self.usable = usable
        self.y = signal if self.complete else np.where(usable, signal, np.float32(0))
        self.read_variance = np.asarray(read_variance, np.float32)
        self.w = np.empty(signal.shape, np.float32)
        x, ln, t = design.x, design.log_exposure, design.temperature - design.pivot_t
        one = np.ones_like(x)
        self.x32, self.l32 = x.astype(np.float32), ln.astype(np.float32)
        self.t32 = design.exposure.astype(np.float32)
        terms = (one, x, ln)[: self.free]
        columns = {
            "theta": [p * q for i, p in enumerate(terms) for q in terms[i:]],
            "cross": [*terms, *(t * p for p in terms)],
            "nuisance": [one, t, t * t],
            "gradient": terms,
        }
        self.columns = {name: np.array(rows, np.float32) for name, rows in columns.items()}
        self.nuisances = 0 if bias is None else 1 if bias.var_b is None else 2
        self.precision = self._bias_precision()
        self.prior_mean, self.prior_weight = _prior_arrays(prior, signal.shape[1])
        self._inner = None

    def part(self, where):
        """Return the work of some pixels, without weights."""
        prior = self.prior
        one = Prior(
            *(_take(value, where) for value in (prior.b, prior.b_sigma, prior.gamma, prior.gamma_sigma))
        )
        data = np.where(self.usable[:, where], self.y[:, where], np.float32(np.nan))
        bias = None if self.bias is None else self.bias.at(where)
        return Problem(data, self.read_variance[where], self.design, one, self.inverse_gain, bias, self.fast)

    def _bias_precision(self):
        """Inverse covariance of the bias's level at the pivot and its slope: rows aa, ab, bb."""
        if self.bias is None:
            return None
        var_a = np.asarray(self.bias.var_a, np.float64)
        if self.nuisances == 1:
            return (1.0 / np.maximum(var_a, 1e-12))[None]
        return line_precision(var_a, self.bias.var_b, self.bias.cov_ab, self.design.pivot_t)

    def _unit(self, state):
        """Signal of p = 1, (n, m) float32."""
        u = np.multiply.outer(self.x32, state[1].astype(np.float32))
        if np.any(self.l32):
            u += np.multiply.outer(self.l32, state[2].astype(np.float32))
        np.exp(u, out=u)
        u *= self.t32[:, None]
        return u

    def begin(self, b, gamma):
        """Best p for one B and gamma in all pixels, a linear problem; leaves the weights at its model."""
        d = self.design
        u = d.exposure * np.exp(b * d.x + gamma * d.log_exposure)
        t = self.columns["nuisance"][1]
        of_weights = np.array([u * u, u, u * t], np.float32)[: 1 + self.nuisances]
        of_data = np.array([u, np.ones_like(u), t], np.float32)[: 1 + self.nuisances]
        u = u.astype(np.float32)[:, None]
        p = None
        for _ in range(2):
            self._set_weights(
                None if p is None else u * (np.maximum(p, 0.0) * self.inverse_gain).astype(np.float32)
            )
            found = product(of_weights, self.w, self.kind)
            right = product(of_data, self.w * self.y, self.kind)
            h, g = found[:1], right[:1]
            if self.nuisances:
                self._of_weights().eliminate(h, g, np.zeros_like(g[0]), found[1:, None], right[1:])
            p = g[0] / np.maximum(h[0], 1e-30)
        return np.stack([p, np.full_like(p, b), np.full_like(p, gamma)])

    def weigh(self, state, unit=None):
        """Weights from the noise of the model's own signal."""
        signal = None
        if self.inverse_gain:
            signal = (np.maximum(state[0], 0.0) * self.inverse_gain).astype(np.float32)
            signal = signal * (self._unit(state) if unit is None else unit)
        self._set_weights(signal)

    def _set_weights(self, shot):
        d, variance = self.design, self.w
        variance[:] = self.read_variance
        if shot is not None:
            variance += shot
        variance *= (1.0 / d.frames).astype(np.float32)[:, None]
        if d.common_variance.any():
            variance += d.common_variance.astype(np.float32)[:, None]
        np.reciprocal(variance, out=variance)
        if not self.complete:
            variance *= self.usable
        self._inner = None

    def _of_weights(self):
        """What the present weights make of the bias nuisances."""
        if self._inner is None:
            inner = product(self.columns["nuisance"][: 2 * self.nuisances - 1], self.w)
            self._inner = Nuisances(inner, self.precision, self.kind)
        return self._inner

    def _equations(self, u, p, r):
        """Normal equations with the bias eliminated: h (in rows of the upper triangle), g, quadratic form (m,)."""
        c, kind = self.columns, self.kind
        wr = self.w * r
        chi2 = np.einsum("ij,ij->j", wr, r).astype(kind, copy=False)
        wu = self.w * u
        if self.nuisances:
            cross = product(c["cross"][: self.free * self.nuisances], wu, kind)
            right = product(c["nuisance"][: self.nuisances], wr, kind)
        wr *= u
        g = product(c["gradient"], wr, kind)
        wu *= u
        h = product(c["theta"], wu, kind)
        if self.nuisances:
            self._of_weights().eliminate(h, g, chi2, cross.reshape(self.nuisances, self.free, -1), right)
        # The derivatives by B and gamma carry a factor p.
        g[1:] *= p
        h[1 : self.free] *= p
        h[self.free :] *= p * p
        return h, g, chi2

    def objective(self, state, weigh=False):
        """Return equations and objective (chi-square and prior) at a state; weigh : with weights of that state."""
        u = self._unit(state)
        if weigh:
            self.weigh(state, u)
        r = u * state[0].astype(np.float32)
        np.subtract(self.y, r, out=r)
        h, g, chi2 = self._equations(u, state[0], r)
        held = self.free - 1
        weight = self.prior_weight[:held]
        off = (self.prior_mean[:held] - state[1 : self.free]).astype(self.kind, copy=False)
        pull = weight * off
        g[1:] += pull
        h[self.free] += weight[0]
        if held == 2:
            h[5] += weight[1]
        return h, g, chi2, chi2 + (pull * off).sum(axis=0)

    def steps(self, state, count, weigh=True):
        """Damped Gauss-Newton steps, each kept only where it lowers the objective.

        weigh : take the weights at the given state first.
        Returns state, moving (m,) where the last step was large, and (h, chi2) at the state.
        """
        damping = np.zeros(state.shape[1], self.kind)
        h, g, chi2, best = self.objective(state, weigh)
        moving = np.ones(state.shape[1], bool)
        for _ in range(count):
            step = solve_step(h, g, damping)
            trial = state.copy()
            trial[: self.free] += step
            np.clip(trial[1], *B_RANGE, out=trial[1])
            np.clip(trial[2], *GAMMA_RANGE, out=trial[2])
            found = self.objective(trial)
            moving = (step * g).sum(axis=0) > CONVERGED
            worse = np.flatnonzero(~(found[3] <= best + 1e-5 * (1.0 + best)))
            damping *= 0.1
            if worse.size:
                damping[worse] = np.maximum(100.0 * damping[worse], 0.1)
                for new, old in zip((trial, *found), (state, h, g, chi2, best), strict=True):
                    new[..., worse] = old[..., worse]
            damping[damping < 1e-3] = 0.0
            state, (h, g, chi2, best) = trial, found
            if not moving.any():
                break
        return state, moving, (h, chi2)

    def finish(self, state, h, chi2):
        """Covariance, chi-square and prior pull at the solution."""
        state, h = state.astype(np.float64), h.astype(np.float64)
        if self.free == 2:
            none = np.zeros_like(h[0])
            h = np.stack([h[0], h[1], none, h[2], none, self.prior_weight[1].astype(np.float64)])
        cov = inverse(h)
        n_used = np.full(state.shape[1], self.y.shape[0]) if self.complete else self.usable.sum(axis=0)
        prior_weight = self.prior_weight.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = 1.0 - np.stack([cov[3], cov[5]]) * prior_weight
            pull = np.abs(state[1:] - self.prior_mean) * np.sqrt(prior_weight / np.maximum(kept, 1e-3))
        held = prior_weight >= _HELD
        reach = np.where(held, 0.0, pull).max(axis=0)
        state[1:][held] = self.prior_mean[held]
        for row, places in ((0, (1, 3, 4)), (1, (2, 4, 5))):
            cov[np.ix_(places, held[row])] = 0.0
        nothing = n_used == 0
        state[:, nothing], cov[:, nothing] = np.nan, np.nan
        free = 1.0 + np.clip(kept, 0.0, 1.0).sum(axis=0)
        return PixelFit(*state, cov, chi2.astype(np.float64), n_used, reach, free)


_HELD = 1e12


def _take(value, where):
    return value if np.ndim(value) == 0 else np.asarray(value)[where]


def _prior_arrays(prior, m):
    """Return means (2, m) and weights (2, m) of B and gamma; a sigma of 0 is a very large weight."""
    mean = np.stack([np.broadcast_to(np.asarray(v, np.float64), m) for v in (prior.b, prior.gamma)])
    sigma = np.stack(
        [np.broadcast_to(np.asarray(v, np.float64), m) for v in (prior.b_sigma, prior.gamma_sigma)]
    )
    with np.errstate(divide="ignore"):
        return mean, np.minimum(1.0 / np.square(sigma), 10 * _HELD)
