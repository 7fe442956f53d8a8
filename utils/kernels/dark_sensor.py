"""What holds for the dark current of a whole sensor, from a sample of its pixels.

The distribution of B and gamma over pixels (which then supports the faint ones), the offset between dark and bias
level of each session fitted jointly with gamma, the error that all pixels of a map share, maps that do not fit, and
which law of temperature describes the sensor better.
Reference: Efron & Morris (1973), JASA 68, 117.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from utils.kernels.dark_algebra import product
from utils.kernels.dark_fit import BiasError, Design, Prior, Problem, fit_pixels
from utils.kernels.dark_levels import WIDE_B, WIDE_GAMMA, level_fit, wide_prior
from utils.kernels.dark_population import Population, distribution

KELVIN = 273.15
BOLTZMANN_EV = 8.617333e-5
SIGNIFICANT = 4.0
FEWEST = 200
"""Pixels that a population needs to speak for itself."""
LARGEST_OFFSET_ERROR = 1.0
"""An offset less certain than this cannot be told from gamma [ADU]."""


@dataclass(frozen=True, eq=False)
class SensorLaw:
    """Result of `sensor_law`.

    design : with the pivot and the shared error.  b, gamma : Population of ordinary pixels; b_bright, gamma_bright of
    hot and warm ones (the same objects where the data show no difference).  offset, offset_error (S,) [ADU];
    separable : the offset was fitted.  common (n,) [ADU] : mean residual of each map.  hypotheses : dict name ->
    (chi2, degrees of freedom).  arrhenius_chi2, exponential_chi2 : of the two laws of temperature.
    """

    design: Design
    b: Population
    gamma: Population
    b_bright: Population
    gamma_bright: Population
    offset: np.ndarray
    offset_error: np.ndarray
    separable: bool
    gamma_free: bool
    common: np.ndarray
    hypotheses: dict
    exponential_chi2: float
    arrhenius_chi2: float

    def prior(self, bright):
        """Prior of each pixel; bright (m,) bool."""
        pairs = ((self.b, self.b_bright), (self.gamma, self.gamma_bright))
        if all(one == two for one, two in pairs):
            return Prior(self.b.mean, self.b.sigma, self.gamma.mean, self.gamma.sigma)
        values = []
        for one, two in pairs:
            values += [np.where(bright, two.mean, one.mean), np.where(bright, two.sigma, one.sigma)]
        return Prior(*values)

    @property
    def wide(self):
        """Prior that leaves a pixel to its own data."""
        return wide_prior(self.b.mean, self.gamma.mean, self.gamma_free)


def sensor_law(
    signal,
    read_variance,
    design,
    session,
    *,
    inverse_gain,
    bias,
    bright,
    gamma_free,
    offset_free,
    thorough=True,
):
    """Fit what the sensor's pixels share.

    signal (n, m) float32, read_variance (m,), design, bias : as `fit_pixels`.  session (n,) int from 0.
    bright (m,) bool : hot and warm pixels.  gamma_free : the exposures can carry gamma.  offset_free : temperatures
    and exposures can carry an offset beside it.  thorough False: rival hypotheses and Arrhenius' law are not tried.
    Returns `SensorLaw`.
    """
    count = int(np.max(session)) + 1
    data = _Sample(signal, read_variance, session, inverse_gain, bias)
    variance = np.nanmedian(read_variance) / design.frames
    b, gamma, *_ = level_fit(
        np.nanmedian(signal, axis=1),
        variance,
        design.temperature,
        design.exposure,
        design.frames,
        gamma_free=gamma_free,
    )
    prior = wide_prior(b, gamma, gamma_free)
    offset, error, slope = np.zeros(count), np.full(count, math.inf), np.zeros((count, 2))
    for _ in range(3):
        fit, offset, error, slope = data.joint(design, prior, offset if offset_free else None)
        good = _ordinary(fit)
        common = data.residuals(fit, design, offset, good)
        free = max(1, design.temperature.size - 3 - count)
        shared = math.sqrt(float(np.sum(common**2)) / free)
        typical = math.sqrt(float(np.median(variance)))
        design = replace(
            design, common_variance=np.full_like(design.x, shared**2 if shared > 0.05 * typical else 0.0)
        )
        found = _population(fit, 1, good, prior.b, WIDE_B, 0.3 * prior.b)
        prior = replace(prior, b=found.mean)
        if gamma_free:
            prior = replace(prior, gamma=_population(fit, 2, good, prior.gamma, WIDE_GAMMA, 0.15).mean)
    separable = offset_free and bool(np.all(error < LARGEST_OFFSET_ERROR))
    widen = math.sqrt(max(1.0, _reduced(fit, good)))
    if not (separable and np.any(np.abs(offset) > SIGNIFICANT * widen * error)):
        offset = np.zeros(count)
        fit, *_ = data.joint(design, prior, None)
        good = _ordinary(fit)
    populations = _populations(fit, good, bright, prior, gamma_free, slope, error if separable else None)
    populations = data.centred(design, populations, good, bright, gamma_free, offset)
    more = _shared_errors(data, design, offset, shared, prior, separable)
    populations = tuple(
        replace(one, error=math.hypot(one.error, more[place % 2])) for place, one in enumerate(populations)
    )
    hypotheses, straight, curved = {}, math.nan, math.nan
    if thorough:
        hypotheses = data.hypotheses(design, prior, gamma_free, separable)
        straight = _total(fit, good)[0]
        curved = _total(data.joint(_arrhenius(design), prior, None, offset)[0], good)[0]
    # In the order of the fields: B and gamma of ordinary pixels, then of bright ones.
    return SensorLaw(
        design, *populations, offset, error, separable, gamma_free, common, hypotheses, straight, curved
    )


def _shared_errors(data, design, offset, shared, prior, separable):
    """Errors of the sensor's B and gamma from what all pixels of a map share, which no number of pixels averages out."""
    if not shared > 0:
        return 0.0, 0.0
    levels = np.nanmedian(data.signal, axis=1) - offset[data.session]
    one = replace(design, common_variance=np.full_like(design.x, shared * shared))
    bias = BiasError(np.array([9.0])) if separable else None
    fit = fit_pixels(levels.astype(np.float32)[:, None], np.array([1e-12]), one, prior, bias=bias)
    return math.sqrt(max(0.0, float(fit.cov[3, 0]))), math.sqrt(max(0.0, float(fit.cov[5, 0])))


def _arrhenius(design):
    """Design with the temperature term of exp(-E / kT); B is then E / (k T_p^2)."""
    pivot = design.pivot_t + KELVIN
    return replace(design, x=pivot * pivot * (1.0 / pivot - 1.0 / (design.temperature + KELVIN)))


class _Sample:
    """The sampled pixels, fitted with different hypotheses."""

    def __init__(self, signal, read_variance, session, inverse_gain, bias):
        self.signal, self.read_variance = signal, read_variance
        self.session, self.inverse_gain, self.bias = np.asarray(session), inverse_gain, bias

    def _fit(self, design, prior, offset):
        shifted = self.signal - offset[self.session].astype(np.float32)[:, None]
        fit = fit_pixels(
            shifted, self.read_variance, design, prior, inverse_gain=self.inverse_gain, bias=self.bias
        )
        problem = Problem(shifted, self.read_variance, design, prior, self.inverse_gain, self.bias)
        return fit, problem

    def joint(self, design, prior, offset, fixed=None):
        """Pixels and, where offset is not None, the offset of each session, by Gauss-Newton on both.

        Returns fit, offset (S,), its error, d(B, gamma)/d(offset) of the mean pixel (S, 2).
        """
        count = int(self.session.max()) + 1
        free = offset is not None
        offset = np.zeros(count) if not free else offset.copy()
        if fixed is not None:
            offset = fixed
        error, slope = np.full(count, math.inf), np.zeros((count, 2))
        fit, problem = self._fit(design, prior, offset)
        for _ in range(3 if free else 0):
            matrix, right, slope = self._offset_equations(fit, problem, _ordinary(fit))
            cov = np.linalg.pinv(matrix)
            error = np.sqrt(np.maximum(np.diag(cov), 0.0))
            step = np.clip(cov @ right, -50.0, 50.0)
            offset = offset + step
            fit, problem = self._fit(design, prior, offset)
            if np.all(np.abs(step) < 0.05 * error):
                break
        return fit, offset, error, slope

    def _offset_equations(self, fit, problem, good):
        """Normal equations (S, S), (S,) of the offsets with all else eliminated; sum over good pixels."""
        state = np.stack([fit.p, fit.b, fit.gamma])
        state[:, ~np.isfinite(fit.p)] = 0.0
        problem.weigh(state)
        u = problem._unit(state)
        r = problem.y - u * state[0].astype(np.float32)
        h, g, _, _ = problem.objective(state)
        count = int(self.session.max()) + 1
        columns = problem.columns
        scale = np.stack([np.ones(state.shape[1]), state[0], state[0]])
        k = problem.nuisances
        inverse = None
        if k:
            inner = product(columns["nuisance"][: 2 * k - 1], problem.w) + problem.precision
            inverse = (
                1.0 / inner
                if k == 1
                else np.stack([inner[2], -inner[1], inner[0]]) / (inner[0] * inner[2] - inner[1] ** 2)
            )
            cross_theta = product(columns["cross"][: 3 * k], problem.w * u).reshape(k, 3, -1) * scale
            right_n = product(columns["nuisance"][:k], problem.w * r)
        theta, nuisance, own, direct = [], [], [], []
        for s in range(count):
            w = problem.w * (self.session == s)[:, None].astype(np.float32)
            theta.append(product(columns["gradient"], w * u) * scale)
            direct.append((w * r).sum(axis=0, dtype=np.float64))
            own.append(w.sum(axis=0, dtype=np.float64))
            if k:
                nuisance.append(product(columns["nuisance"][:k], w))
        matrix = np.zeros((count, count))
        right = np.zeros(count)
        hinv = _symmetric_inverse(h)
        slope = np.zeros((count, 2))
        weight = np.where(good, 1.0 / np.maximum(fit.cov[5] + fit.cov[3], 1e-12), 0.0)
        solved = [_apply(inverse, n) for n in nuisance] if k else None
        if k:
            theta = [c - np.einsum("kim,km->im", cross_theta, q) for c, q in zip(theta, solved, strict=True)]
            direct = [d - (q * right_n).sum(axis=0) for d, q in zip(direct, solved, strict=True)]
        for s in range(count):
            shift = np.einsum("ijm,jm->im", hinv, theta[s])
            slope[s] = -np.average(shift[1:][:, good], axis=1, weights=weight[good]) if good.any() else 0.0
            right[s] = (direct[s] - (shift * g).sum(axis=0))[good].sum()
            for q in range(count):
                value = (own[s] if s == q else 0.0) - (shift * theta[q]).sum(axis=0)
                if k:
                    value = value - (solved[s] * nuisance[q]).sum(axis=0)
                matrix[s, q] = value[good].sum()
        return matrix, right, slope

    def centred(self, design, populations, good, bright, gamma_free, offset):
        """Populations with their means improved by fits that the populations support.

        Errors of a free fit depend on the values it found, which pulls a mean weighted by them; here both are taken
        at the supported values (Newton's step on the marginal likelihood).
        """
        pairs = [list(populations[:2]), list(populations[2:])]
        separate = populations[0] is not populations[2] or populations[1] is not populations[3]
        for _ in range(2):
            prior = Prior(
                *(
                    np.where(bright, getattr(pairs[1][i], name), getattr(pairs[0][i], name))
                    for i in range(2)
                    for name in ("mean", "sigma")
                )
            )
            fit, _ = self._fit(design, prior, offset)
            for place, where in enumerate((~bright, bright) if separate else (np.ones_like(bright),)):
                for index in range(1 + gamma_free):
                    found = pairs[place][index]
                    use = good & where & (fit.reach < 5.0)
                    value, variance = (fit.b, fit.gamma)[index][use], fit.cov[(3, 5)[index]][use]
                    kept = np.maximum(1.0 - variance / found.sigma**2, 0.0)
                    if np.sum(kept) > 0:
                        mean = found.mean + float(np.sum(value - found.mean) / np.sum(kept))
                        pairs[place][index] = replace(found, mean=mean)
            if not separate:
                pairs[1] = pairs[0]
        return (*pairs[0], *pairs[1])

    def residuals(self, fit, design, offset, good):
        """Mean residual of each map over good pixels, weighted, (n,) [ADU]."""
        shifted = self.signal - offset[self.session][:, None]
        unit = np.exp(np.outer(design.x, fit.b) + np.outer(design.log_exposure, fit.gamma))
        model = design.exposure[:, None] * fit.p * unit
        variance = self.read_variance + self.inverse_gain * np.maximum(model, 0.0)
        use = np.isfinite(shifted) & np.isfinite(model) & good
        weight = np.where(use, 1.0 / variance, 0.0)
        total = weight.sum(axis=1)
        return np.where(use, (shifted - model) * weight, 0.0).sum(axis=1) / np.maximum(total, 1e-30)

    def hypotheses(self, design, prior, gamma_free, offset_free):
        """Chi-square of the explanations of a rate that depends on exposure, each (chi2, degrees of freedom)."""
        held = replace(prior, gamma=0.0, gamma_sigma=0.0)
        zero = np.zeros(int(self.session.max()) + 1)
        found = {}
        fits = {"neither": self.joint(design, held, None)[0]}
        if gamma_free:
            fits["gamma"] = self.joint(design, prior, None)[0]
        if offset_free:
            fits["offset"] = self.joint(design, held, zero)[0]
            fits["offset and gamma"] = self.joint(design, prior, zero)[0]
        # The same pixels for all: those ordinary under the fullest explanation.
        good = _ordinary(list(fits.values())[-1])
        for name, fit in fits.items():
            chi2, pixels = _total(fit, good)
            parameters = 2 + ("gamma" in name)
            degrees = float(np.sum(fit.n_used[good])) - parameters * pixels - zero.size * ("offset" in name)
            found[name] = (chi2, degrees)
        return found


def _apply(inverse, vector):
    """Inverse (1 or 3, m) of a symmetric k x k matrix times a vector (k, m)."""
    if len(vector) == 1:
        return inverse * vector
    return np.stack(
        [inverse[0] * vector[0] + inverse[1] * vector[1], inverse[1] * vector[0] + inverse[2] * vector[1]]
    )


def _symmetric_inverse(h):
    full = h[[[0, 1, 2], [1, 3, 4], [2, 4, 5]]]
    return np.moveaxis(np.linalg.inv(np.moveaxis(full, -1, 0) + 1e-12 * np.eye(3)), 0, -1)


def _ordinary(fit):
    """Pixels whose chi-square is not beyond what noise allows."""
    degrees = np.maximum(fit.n_used - 3.0, 1.0)
    scale = max(1.0, float(np.nanmedian(fit.chi2 / degrees)))
    return (
        (fit.n_used > 3) & (fit.chi2 < scale * (degrees + 5.0 * np.sqrt(2.0 * degrees) + 5.0)) & (fit.p > 0)
    )


def _total(fit, good):
    return float(np.sum(fit.chi2[good])), int(np.count_nonzero(good))


def _reduced(fit, good):
    degrees = np.sum(np.maximum(fit.n_used[good] - 3.0, 1.0))
    return float(np.sum(fit.chi2[good]) / degrees) if degrees else 1.0


def _population(fit, index, good, centre, width, enough):
    """Distribution of B (index 1) or gamma (2) from pixels that know their own to better than ``enough``.

    The wide prior (centre, width) of the fit is taken out of value and error first.
    """
    value = (fit.b, fit.gamma)[index - 1]
    post = fit.cov[(3, 5)[index - 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        own = 1.0 / (1.0 / post - 1.0 / width**2)
        estimate = (value / post - centre / width**2) * own
    usable = good & np.isfinite(estimate) & (own > 0)
    chosen = usable & (own < enough**2)
    if chosen.sum() < FEWEST and usable.any():
        chosen = usable & (own <= np.quantile(own[usable], 0.1))
    if chosen.sum() < 3:
        return Population(float(centre), math.inf, float(width), int(chosen.sum()))
    return distribution(estimate[chosen], own[chosen])


def _populations(fit, good, bright, prior, gamma_free, slope, offset_error):
    """Populations of B and gamma: ordinary, and bright where they differ: (b, gamma, b_bright, gamma_bright)."""
    result = []
    for index, width, enough in ((1, WIDE_B, 0.3 * prior.b), (2, WIDE_GAMMA, 0.15)):
        centre = prior.b if index == 1 else prior.gamma
        if index == 2 and not gamma_free:
            held = Population(0.0, 0.0, 0.0, 0)
            result.append((held, held))
            continue
        floor = 1e-3 * abs(centre) if index == 1 else 2e-4
        both = _population(fit, index, good, centre, width, enough)
        pair = [_population(fit, index, good & where, centre, width, enough) for where in (~bright, bright)]
        one, two = pair
        differ = min(one.pixels, two.pixels) >= FEWEST and (
            abs(one.mean - two.mean) > SIGNIFICANT * math.hypot(one.error, two.error)
            or not 0.5 < (two.sigma + 10 * floor) / (one.sigma + 10 * floor) < 2.0
        )
        extra = 0.0
        if offset_error is not None and np.all(np.isfinite(offset_error)):
            extra = float(np.sqrt(np.sum((slope[:, index - 1] * offset_error) ** 2)))
        pair = [
            replace(q, sigma=max(q.sigma, floor), error=math.hypot(q.error, extra))
            for q in (pair if differ else (both,))
        ]
        result.append((pair[0], pair[-1]))
    (b, b_bright), (gamma, gamma_bright) = result
    return b, gamma, b_bright, gamma_bright
