"""What holds for the dark current of a whole sensor, from a sample of its pixels.

The distribution of B and gamma over pixels (which then supports the faint ones), the offset between dark and bias
level of each session fitted jointly with gamma, the error that all pixels of a map share, maps that do not fit, and
which law of temperature describes the sensor better.
Reference: Efron & Morris (1973), JASA 68, 117.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from utils.kernels.dark_fit import BiasError, Design, Prior, Problem, fit_pixels
from utils.kernels.dark_levels import level_fit, wide_prior
from utils.kernels.dark_population import (
    LEAST_SCATTER,
    WEAK,
    Population,
    Posterior,
    Shared,
    scatter,
)

KELVIN = 273.15
BOLTZMANN_EV = 8.617333e-5
SIGNIFICANT = 4.0
FEWEST = 200
"""Pixels that a population needs to speak for itself."""
START_SCATTER = (0.1, 0.05)
"""Scatter of B, relative, and of gamma that the estimate begins with."""
OUTLIER = 4.5
"""Pixels so many sigma off do not speak for the sensor."""
SEEN = 3.0
"""A scatter over pixels whose square is below so many of its errors counts as none."""
MOST_ROUNDS = 10
LARGEST_OFFSET_ERROR = 1.0
"""An offset less certain than this cannot be told from gamma [ADU]."""


@dataclass(frozen=True, eq=False)
class SensorLaw:
    """Result of `sensor_law`.

    design : with the pivot and the shared error.  b, gamma : Population of ordinary pixels; b_bright, gamma_bright of
    hot and warm ones (the same objects where the data show no difference).  offset, offset_error (S,) [ADU];
    separable : the offset was fitted.  common (n,) [ADU] : mean residual of each map.  hypotheses : dict name ->
    (chi2, degrees of freedom).  arrhenius_chi2, exponential_chi2 : of the two laws of temperature.  regions : places
    that do not follow it, `utils.kernels.dark_regions.Regions`, or None.
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
    regions: object = None

    def prior(self, bright):
        """Prior of each pixel; bright (m,) bool."""
        pairs = ((self.b, self.b_bright), (self.gamma, self.gamma_bright))
        if all(one == two for one, two in pairs):
            return Prior(self.b.mean, self.b.spread, self.gamma.mean, self.gamma.spread)
        values = []
        for one, two in pairs:
            values += [np.where(bright, two.mean, one.mean), np.where(bright, two.spread, one.spread)]
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
    known=None,
):
    """Fit what the sensor's pixels share.

    signal (n, m) float32, read_variance (m,), design, bias : as `fit_pixels`.  session (n,) int from 0.
    bright (m,) bool : hot and warm pixels.  gamma_free : the exposures can carry gamma.  offset_free : temperatures
    and exposures can carry an offset beside it.  thorough False: rival hypotheses and Arrhenius' law are not tried.
    known : law of nearly the same data, where the search starts.
    Returns `SensorLaw`.
    """
    count = int(np.max(session)) + 1
    data = _Sample(signal, read_variance, session, inverse_gain, bias, np.asarray(bright))
    variance = np.nanmedian(read_variance) / design.frames
    if known is not None:
        b, gamma, start = known.b.mean, known.gamma.mean, (known.b.spread, known.gamma.spread)
    else:
        columns = (design.temperature, design.exposure, design.frames)
        b, gamma, *_ = level_fit(np.nanmedian(signal, axis=1), variance, *columns, gamma_free=gamma_free)
        start = (START_SCATTER[0] * b, START_SCATTER[1])
    shared = Shared.start(count, b, gamma, *start, offset_free=offset_free, gamma_free=gamma_free)
    typical = math.sqrt(float(np.median(variance)))
    design, shared = data.settle(design, shared, typical)
    separated = data.separated(design, shared)
    if separated is not shared:
        design, shared = data.settle(design, separated, typical)
    error, means, pixels, widen = data.errors(design, shared)
    separable = offset_free and bool(np.all(error < LARGEST_OFFSET_ERROR))
    if shared.free[0] and not (separable and np.any(np.abs(shared.offset) > SIGNIFICANT * widen * error)):
        without = replace(shared, offset=np.zeros(count), free=(False, *shared.free[1:]))
        design, shared = data.settle(design, without, typical)
        if not separable:
            _, means, pixels, _ = data.errors(design, shared)
    fit, _ = data.fit(design, shared.prior(data.bright), shared.offset)
    good = _ordinary(fit)
    common = data.residuals(fit, design, shared.offset, good)
    wide = wide_prior(shared.mean[0, 0], shared.mean[1, 0], gamma_free)
    more = _shared_errors(data, design, shared.offset, wide, separable)
    # In the order of the fields: B and gamma of ordinary pixels, then of bright ones.
    populations = [
        Population(
            float(shared.mean[i, j]),
            math.hypot(means[i, j], more[i]),
            float(shared.sigma[i, j]),
            int(pixels[i, j]),
        )
        if i in shared.parameters
        else Population(0.0, 0.0, 0.0, 0)
        for j in range(2)
        for i in range(2)
    ]
    hypotheses, straight, curved = {}, math.nan, math.nan
    if thorough:
        hypotheses = data.hypotheses(design, wide, gamma_free, separable)
        straight, curved = (
            _total(data.fit(one, wide, shared.offset)[0], good)[0] for one in (design, _arrhenius(design))
        )
    return SensorLaw(
        design,
        *populations,
        shared.offset,
        error,
        separable,
        gamma_free,
        common,
        hypotheses,
        straight,
        curved,
    )


def _shared_errors(data, design, offset, prior, separable):
    """Errors of the sensor's B and gamma from what all pixels of a map share, which no number of pixels averages out."""
    shared = data.shared_error
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

    def __init__(self, signal, read_variance, session, inverse_gain, bias, bright):
        self.signal, self.read_variance, self.bright = signal, read_variance, bright
        self.session, self.inverse_gain, self.bias = np.asarray(session), inverse_gain, bias
        self.shared_error = 0.0

    def fit(self, design, prior, offset):
        """Fit every pixel; returns `PixelFit` and its `Problem`."""
        shifted = self.signal - offset[self.session].astype(np.float32)[:, None]
        given = {"inverse_gain": self.inverse_gain, "bias": self.bias}
        fit = fit_pixels(shifted, self.read_variance, design, prior, **given)
        return fit, Problem(shifted, self.read_variance, design, prior, *given.values())

    def look(self, design, shared):
        """Fit every pixel as what is shared supports it; returns fit, pixels that speak for the sensor, `Posterior`."""
        fit, problem = self.fit(design, shared.prior(self.bright), shared.offset)
        return fit, _ordinary(fit) & (fit.reach < OUTLIER), Posterior(fit, problem)

    def settle(self, design, shared, typical):
        """Estimate what is shared until it stands; returns the design, with the error that maps share, and `Shared`.

        typical [ADU] : noise of a pixel in a map.
        """
        free = max(1, design.temperature.size - 3 - shared.offset.size)
        for _ in range(MOST_ROUNDS):
            fit, good, posterior = self.look(design, shared)
            common = self.residuals(fit, design, shared.offset, good)
            self.shared_error = math.sqrt(float(np.sum(common**2)) / free)
            variance = self.shared_error**2 if self.shared_error > 0.05 * typical else 0.0
            design = replace(design, common_variance=np.full_like(design.x, variance))
            step, error = self._solved(shared, posterior, good)
            moved = self._scatters(shared.moved(step), posterior, good)
            still = np.all(np.abs(step) < 0.1 * error) and np.allclose(moved.sigma, shared.sigma, rtol=0.05)
            shared = moved
            if still:
                break
        return design, shared

    def _solved(self, shared, posterior, good):
        """Step and errors of the shared numbers from the pixels ``good``."""
        score, information = posterior.shared_equations(shared, self.session, self.bright)
        weak = [WEAK[0 if kind == "offset" else 1 + kind] for kind, _ in shared.columns]
        cov = np.linalg.inv(information[:, :, good].sum(axis=2) + np.diag(1.0 / np.square(weak)))
        return cov @ score[:, good].sum(axis=1), np.sqrt(np.diag(cov))

    def _off(self, shared, posterior, index):
        """What the data alone say of B (0) or gamma (1) less the mean, and its variance; each (m,)."""
        value, variance = posterior.own(index)
        return value - np.where(self.bright, shared.mean[index, 1], shared.mean[index, 0]), variance

    def _scatters(self, shared, posterior, good):
        """Return ``shared`` with the scatters of B and gamma about its means."""
        sigma = shared.sigma.copy()
        for i in shared.parameters:
            off, variance = self._off(shared, posterior, i)
            told = good & np.isfinite(variance)
            floor = LEAST_SCATTER[i] * (abs(shared.mean[0, 0]) if i == 0 else 1.0)
            classes = (~self.bright, self.bright) if shared.own_sigma[i] else (np.ones_like(good),)
            for j, where in enumerate(classes):
                use = told & where
                if use.any():
                    found, error = scatter(off[use], variance[use])
                    sigma[i, j:] = max(floor, math.sqrt(found) if found > SEEN * error else 0.0)
        return replace(shared, sigma=sigma)

    def separated(self, design, shared):
        """Return ``shared`` with means and scatters of bright pixels apart where the data show a difference."""
        _, good, posterior = self.look(design, shared)
        own_mean, own_sigma = shared.own_mean.copy(), shared.own_sigma.copy()
        for i in shared.parameters:
            off, variance = self._off(shared, posterior, i)
            classes = [good & np.isfinite(variance) & where for where in (~self.bright, self.bright)]
            if min(np.count_nonzero(use) for use in classes) < FEWEST:
                continue
            found = []
            for use in classes:
                weight = 1.0 / (variance[use] + shared.sigma[i, 0] ** 2)
                mean = float(np.sum(weight * off[use]) / np.sum(weight))
                found.append((mean, 1.0 / np.sum(weight), *scatter(off[use] - mean, variance[use])))
            (mean, error, width, unsure), (mean_2, error_2, width_2, unsure_2) = found
            own_mean[i] = abs(mean - mean_2) > SIGNIFICANT * math.sqrt(error + error_2)
            own_sigma[i] = abs(width - width_2) > SIGNIFICANT * math.hypot(unsure, unsure_2)
        if not (own_mean.any() or own_sigma.any()):
            return shared
        return replace(shared, own_mean=own_mean, own_sigma=own_sigma)

    def errors(self, design, shared):
        """Errors of offsets (S,) and of means (2, 2), pixels behind the means (2, 2), root of the reduced chi-square."""
        fit, good, posterior = self.look(design, shared)
        offset, means = np.full(shared.offset.size, math.inf), np.zeros((2, 2))
        pixels = np.full((2, 2), np.count_nonzero(good))
        _, found = self._solved(shared, posterior, good)
        for (kind, place), error in zip(shared.columns, found, strict=True):
            if kind == "offset":
                offset[place] = error
            elif place < 0:
                means[kind] = error
            else:
                means[kind, place] = error
                pixels[kind, place] = np.count_nonzero(good & (self.bright == bool(place)))
        return offset, means, pixels, math.sqrt(max(1.0, _reduced(fit, good)))

    def with_offset(self, design, prior):
        """Fit with an offset of each session beside the free parameters of every pixel; returns `PixelFit`."""
        count = int(self.session.max()) + 1
        shared = Shared.start(count, 0.0, 0.0, 0.0, 0.0, offset_free=True, gamma_free=False)
        shared = replace(shared, free=(True, False, False))
        for _ in range(4):
            fit, problem = self.fit(design, prior, shared.offset)
            step, error = self._solved(shared, Posterior(fit, problem), _ordinary(fit))
            if np.all(np.abs(step) < 0.05 * error):
                break
            shared = shared.moved(step)
        return fit

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
        fits = {"neither": self.fit(design, held, zero)[0]}
        if gamma_free:
            fits["gamma"] = self.fit(design, prior, zero)[0]
        if offset_free:
            fits["offset"] = self.with_offset(design, held)
            fits["offset and gamma"] = self.with_offset(design, prior)
        # The same pixels for all: those ordinary under the fullest explanation.
        good = _ordinary(list(fits.values())[-1])
        for name, fit in fits.items():
            chi2, pixels = _total(fit, good)
            parameters = 2 + ("gamma" in name)
            degrees = float(np.sum(fit.n_used[good])) - parameters * pixels - zero.size * ("offset" in name)
            found[name] = (chi2, degrees)
        return found


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
