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

from utils.kernels.dark_algebra import SMALL_PRODUCT, Sums, inverse, line_precision, product, solve_step
from utils.kernels.pieces import DOUBLES

QUICK_STEPS, MORE_STEPS = 3, 12
"""Steps of all pixels, and damped ones of those that they leave short of their solution."""
CONVERGED = 1e-3
"""A step below this many standard errors ends the iteration."""
B_RANGE, GAMMA_RANGE = (-0.1, 0.5), (-0.95, 2.0)
_HELD = 1e12


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

    Newton's method without damping ends for nearly all pixels at once: the linear problem at the start, and one step with
    the noise of its result.  Who has not arrived after three steps walks again, with damped ones.
    """
    work = Problem(signal, read_variance, design, prior, inverse_gain, bias, fast=True)
    start = [float(np.mean(value)) for value in ((prior.b, prior.gamma) if start is None else start)]
    begin, h, g = work.begin(*start)
    now, left, some = work.moved(begin, solve_step(h, g, 0.0)), None, work
    for _ in range(QUICK_STEPS):
        h, g, _, best = some.objective(now, weigh=True)
        step = solve_step(h, g, 0.0)
        gain = (step * g).sum(axis=0)
        now = some.moved(now, step)
        chi2 = best - gain - some.prior_pull(now)
        if left is None:
            left, state, solution = np.arange(gain.size), now, (h, chi2)
        else:
            _put(left, (state, *solution), (now, h, chi2))
        moving = np.flatnonzero(~(gain <= CONVERGED))
        left = left[moving]
        if not left.size:
            break
        some, now = some.part(moving), now[:, moving]
    if left.size:
        found = begin[:, left]
        for _ in range(3):
            found, last = some.steps(found, MORE_STEPS)
        _put(left, (state, *solution), (found, *last))
    return work.finish(state, *solution)


def _put(where, wholes, pieces):
    for whole, piece in zip(wholes, pieces, strict=True):
        whole[..., where] = piece


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
        self.lost, self.y = None, signal
        if not usable.all():
            self.lost = np.logical_not(usable, out=usable)
            self.y = np.where(self.lost, np.float32(0), signal)
        self.read_variance = np.asarray(read_variance, np.float32)
        self.w = np.empty(signal.shape, np.float32)
        x, ln, t = design.x, design.log_exposure, design.temperature - design.pivot_t
        one = np.ones_like(x)
        terms = (one, x, ln)[: self.free]
        columns = {
            "theta": [p * q for i, p in enumerate(terms) for q in terms[i:]],
            "cross": [*terms, *(t * p for p in terms)],
            "nuisance": [one, t, t * t],
            "gradient": terms,
            "power": [x, ln, np.log(design.exposure)] if np.any(ln) else [x, np.log(design.exposure)],
        }
        self.columns = {name: np.array(rows, np.float32) for name, rows in columns.items()}
        self.nuisances = 0 if bias is None else 1 if bias.var_b is None else 2
        self.precision = None
        if bias is not None:
            self.precision = line_precision(bias.var_a, bias.var_b, bias.cov_ab, design.pivot_t)
        self.prior_mean, self.prior_weight = _prior_arrays(prior, signal.shape[1])

    def part(self, where):
        """Return the work of the pixels at the indices ``where``, without weights."""
        data = self.y[:, where]
        if self.lost is not None:
            data[self.lost[:, where]] = np.nan
        bias = None if self.bias is None else self.bias.at(where)
        more = self.design, self.prior.at(where), self.inverse_gain, bias, self.fast
        return Problem(data, self.read_variance[where], *more)

    def unit(self, state):
        """Signal of p = 1, (n, m) float32."""
        u = product(self.columns["power"].T, self._powers(state), np.float32)
        return np.exp(u, out=u)

    def _powers(self, state):
        """What the exponents of `unit` are made of, beside their columns."""
        powers = np.ones((len(self.columns["power"]), state.shape[1]), np.float32)
        powers[:-1] = state[1 : len(powers)]
        return powers

    def _pieces(self):
        """Slices of pixels whose work arrays stay in the cache, and three such arrays for each."""
        n, m = self.y.shape
        width = min(m, max(64, SMALL_PRODUCT // (6 * n)))
        room = np.empty((3, n * width), np.float32)
        for first in range(0, m, width):
            part = slice(first, min(first + width, m))
            size = part.stop - first
            yield part, [one[: n * size].reshape(n, size) for one in room]

    def begin(self, b, gamma):
        """Best p for one B and gamma in all pixels, a linear problem, and the normal equations there: state, h, g."""
        d = self.design
        sums = Sums(self.columns, self.free, self.precision, self.y.shape[1], self.kind)
        u = d.exposure * np.exp(b * d.x + gamma * d.log_exposure)
        by_frames = (u * d.frames).astype(np.float32)[None]
        u = u.astype(np.float32)[:, None]
        over = np.float32(by_frames[0] @ u[:, 0])
        for part, (work, *_) in self._pieces():
            y = self.y[:, part]
            # Least squares with the weights of the frames tells p for the noise.
            if self.lost is not None:
                np.multiply(u, ~self.lost[:, part], out=work)
                over = np.maximum((by_frames @ work)[0], 1e-30)
            p = (by_frames @ y)[0] / over
            np.multiply(u, self._shot(p), out=work)
            w = self._set_weights(part, work)
            sums.add_data(part, np.multiply(w, y, out=work), u)
            sums.add_weights(part, w, u)
        h, g, _ = sums.equations()
        p = g[0] / np.maximum(h[0], 1e-30)
        g -= p * h[: self.free]
        state = np.stack([p, np.full_like(p, b), np.full_like(p, gamma)])
        self._scale(h, g, p)
        self._support(h, g, state)
        return state, h, g

    def moved(self, state, step):
        """Return the state (3, m) after a step of the free parameters, inside the ranges of B and gamma."""
        state = state.copy()
        state[: self.free] += step
        np.clip(state[1], *B_RANGE, out=state[1])
        np.clip(state[2], *GAMMA_RANGE, out=state[2])
        return state

    def _shot(self, p):
        """Factor between `unit` and the variance of shot noise, float32."""
        return (np.maximum(p, 0.0) * self.inverse_gain).astype(np.float32, copy=False)

    def _set_weights(self, part, shot):
        """Set weights of some pixels from their shot noise (n, m), which is overwritten; returns them."""
        frames, w = self.design.frames, self.w[:, part]
        shot += self.read_variance[part]
        if self.design.common_variance.any():
            shot += (self.design.common_variance * frames).astype(np.float32)[:, None]
        np.divide(frames.astype(np.float32)[:, None], shot, out=w)
        if self.lost is not None:
            np.copyto(w, 0.0, where=self.lost[:, part])
        return w

    def _scale(self, h, g, p):
        """Derivatives by B and gamma carry a factor p; in place."""
        g[1:] *= p
        h[1 : self.free] *= p
        h[self.free :] *= p * p

    def _support(self, h, g, state):
        """Add what the prior tells to the equations, in place."""
        held = self.free - 1
        g[1:] += self.prior_weight[:held] * self._off(state)
        h[self.free] += self.prior_weight[0]
        if held == 2:
            h[5] += self.prior_weight[1]

    def _off(self, state):
        """Mean of the prior less B, and gamma where it is free."""
        return (self.prior_mean[: self.free - 1] - state[1 : self.free]).astype(self.kind, copy=False)

    def prior_pull(self, state):
        """Part of the objective that the prior adds, (m,)."""
        return (self.prior_weight[: self.free - 1] * np.square(self._off(state))).sum(axis=0)

    def objective(self, state, weigh=False):
        """Normal equations and objective at a state, with the bias eliminated; weigh : with weights of that state.

        Returns h (rows of the upper triangle), g, chi-square (m,), and that with what the prior adds.
        """
        powers, p = self._powers(state), state[0].astype(np.float32, copy=False)
        shot = self._shot(p)
        sums = Sums(self.columns, self.free, self.precision, self.y.shape[1], self.kind)
        for part, (u, r, work) in self._pieces():
            np.matmul(self.columns["power"].T, powers[:, part], out=u)
            np.exp(u, out=u)
            w = self.w[:, part]
            if weigh:
                self._set_weights(part, np.multiply(u, shot[part], out=work))
            np.multiply(u, p[part], out=r)
            np.subtract(self.y[:, part], r, out=r)
            np.multiply(w, r, out=work)
            sums.chi2[part] = np.einsum("ij,ij->j", work, r)
            sums.add_data(part, work, u)
            sums.add_weights(part, w, u, r)
        h, g, chi2 = sums.equations()
        self._scale(h, g, state[0])
        self._support(h, g, state)
        return h, g, chi2, chi2 + self.prior_pull(state)

    def steps(self, state, count):
        """Damped Gauss-Newton steps with the weights of ``state``, each kept only where it lowers the objective.

        Returns the last state, and (h, chi2) there.
        """
        damping = np.zeros(state.shape[1], self.kind)
        h, g, chi2, best = self.objective(state, weigh=True)
        for _ in range(count):
            step = solve_step(h, g, damping)
            trial = self.moved(state, step)
            found = self.objective(trial)
            moving = (step * g).sum(axis=0) > CONVERGED
            worse = np.flatnonzero(~(found[3] <= best + 1e-5 * (1.0 + best)))
            damping *= 0.1
            if worse.size:
                damping[worse] = np.maximum(100.0 * damping[worse], 0.1)
                _put(worse, (trial, *found), [old[..., worse] for old in (state, h, g, chi2, best)])
            damping[damping < 1e-3] = 0.0
            state, (h, g, chi2, best) = trial, found
            if not moving.any():
                break
        return state, (h, chi2)

    def finish(self, state, h, chi2):
        """Covariance, chi-square and prior pull at the solution."""
        m, own = state.shape[1], range(1, self.free)
        state, cov = state.astype(np.float64), np.zeros((6, m))
        reach, parameters = np.zeros(m), np.ones(m)
        rows = slice(None) if self.free == 3 else [0, 1, 3]
        for first in range(0, m, DOUBLES):
            part = slice(first, first + DOUBLES)
            cov[rows, part] = inverse(h[:, part].astype(np.float64))
            for i in own:
                weight = self.prior_weight[i - 1, part]
                kept = np.clip(1.0 - cov[(3, 5)[i - 1], part] * weight, 0.0, 1.0)
                pull = np.abs(state[i, part] - self.prior_mean[i - 1, part])
                pull *= np.sqrt(weight / np.maximum(kept, 1e-3))
                parameters[part] += kept
                np.maximum(reach[part], pull, out=reach[part], where=weight < _HELD)
        for i, places in ((1, (1, 3, 4)), (2, (2, 4, 5))):
            held = self.prior_weight[i - 1] >= _HELD
            if held.any():
                np.copyto(state[i], self.prior_mean[i - 1], where=held)
                for place in places:
                    cov[place, held] = 0.0
        n_used = np.full(m, len(self.y))
        if self.lost is not None:
            n_used -= np.count_nonzero(self.lost, axis=0)
            nothing = np.flatnonzero(n_used == 0)
            state[:, nothing], cov[:, nothing] = np.nan, np.nan
        return PixelFit(*state, cov, chi2.astype(np.float64), n_used, reach, parameters)


def _prior_arrays(prior, m):
    """Return means (2, m) and weights (2, m) of B and gamma; a sigma of 0 is a very large weight."""
    mean = np.stack([np.broadcast_to(np.asarray(v, np.float64), m) for v in (prior.b, prior.gamma)])
    sigma = np.stack(
        [np.broadcast_to(np.asarray(v, np.float64), m) for v in (prior.b_sigma, prior.gamma_sigma)]
    )
    with np.errstate(divide="ignore"):
        return mean, np.minimum(1.0 / np.square(sigma), 10 * _HELD)
