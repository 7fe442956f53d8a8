"""Response to light: signal against exposure time, how far it is from a straight line, and up to where."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

HIGHEST, MOST_BENDS = 7, 3
"""Highest power of the exposure in the response, and powers beside the first."""
RANGE_PART = 0.95
"""Part of the full well up to which the response is judged (EMVA 1288)."""
LEAST_PART = 0.05
FEWEST = 4
USABLE_PERCENT = 1.0
"""Deviation up to which a signal counts as usable."""
SHOWN = 12.0
"""A further term is kept where it lowers chi-square by more than this: 3 sigma, several powers being tried."""


@dataclass(frozen=True)
class Response:
    """Fitted response of one series: ``m = k u + k_p u^p + ...``, u = (t + delay) / longest.

    powers : 1, p, ...  coefficients : k, k_p, ...  covariance of them.  delay, delay_error [s] : by which the exposures are
    longer than they say, 0 where the data do not show it.  chi2, dof, scaled (factor on the errors).  longest [s].
    exposure, signal, error (n,) and used (n,) bool: the levels.
    deviation, deviation_error (n,) : m / (k u) - 1 of the levels.
    """

    powers: np.ndarray
    coefficients: np.ndarray
    covariance: np.ndarray
    chi2: float
    dof: int
    scaled: float
    longest: float
    exposure: np.ndarray
    signal: np.ndarray
    error: np.ndarray
    used: np.ndarray
    deviation: np.ndarray
    deviation_error: np.ndarray
    delay: float = 0.0
    delay_error: float = 0.0

    @property
    def order(self):
        """Number of powers of the exposure: 1 is a straight line."""
        return self.powers.size

    def at(self, signal):
        """Linear signal x and slope dm/dx for signals m (n,) [ADU]."""
        return _linear(self.powers, self.coefficients, signal)

    def all_at(self, signal):
        """`at` as fitted, then with each principal parameter off by 1 sigma."""
        return [_linear(self.powers, some, signal) for some in (self.coefficients, *self.shifted())]

    def shifted(self):
        """Coefficients with each principal parameter off by 1 sigma, one after the other."""
        values, vectors = np.linalg.eigh(self.covariance)
        return [
            self.coefficients + math.sqrt(max(value, 0.0)) * vector
            for value, vector in zip(values, vectors.T, strict=True)
        ]

    @property
    def last(self):
        """Longest exposure used, delay included, of ``longest``."""
        return float(self.exposure[self.used].max() + self.delay) / self.longest

    def curve(self, points=100):
        """Signal and deviation of the fitted response up to the longest exposure used, (points,) each."""
        t = np.linspace(0.0, self.last, points + 1)[1:]
        m = _value(self.powers, self.coefficients, t)
        return m, m / (self.coefficients[0] * t) - 1.0


def _value(powers, coefficients, t):
    return (np.asarray(t)[..., None] ** powers) @ coefficients


def _linear(powers, coefficients, signal):
    """Invert the response by Newton's method."""
    signal = np.asarray(signal, float)
    k = coefficients[0]
    grow = coefficients * powers
    t = signal / k
    for _ in range(50):
        slope = np.maximum(_value(powers - 1, grow, t), 0.05 * k)
        step = (_value(powers, coefficients, t) - signal) / slope
        t = t - step
        if np.all(np.abs(step) <= 1e-12 * np.maximum(np.abs(t), 1e-12)):
            break
    return k * t, _value(powers - 1, grow, t) / k


def fit_response(exposure, signal, error, well=math.inf):
    """Response from levels of light at several exposure times.

    exposure (n,) [s]; signal (n,) of the light alone (bias and dark taken out) and error (n,) [ADU]: the noise of a level
    and the steadiness of the lamp.  well [ADU above bias].  Levels above 95 % of it do not count.
    No more powers of the exposure, and no delay of a shutter, enter than lower chi-square by 12 each.
    Returns `Response`, or None where fewer than four usable levels of different exposures are there.
    """
    t, m, e = (np.asarray(a, float) for a in (exposure, signal, error))
    used = np.isfinite(m) & (e > 0) & (m > 0) & (m <= RANGE_PART * well)
    if np.unique(t[used]).size < FEWEST:
        return None
    longest = float(t[used].max())
    u, y, w = t[used] / longest, m[used], 1.0 / e[used] ** 2
    best = _chosen(u, y, w, np.unique(t[used]).size - 2)
    dof = u.size - best.terms
    scaled = math.sqrt(best.chi2 / dof) if dof > 0 and special.chdtrc(dof, best.chi2) < 1e-3 else 1.0
    order = best.powers.size
    covariance = best.covariance * scaled**2
    k, delay = best.coefficients[0], best.delay * longest
    with np.errstate(divide="ignore", invalid="ignore"):
        straight = k * (t + delay) / longest
        deviation = m / straight - 1.0
        own = scaled * _deviation_error(best, e / straight, (t + delay) / longest, used)
    late_error = math.sqrt(covariance[-1, -1]) * longest if covariance.shape[0] > order else 0.0
    return Response(
        best.powers,
        best.coefficients,
        covariance[:order, :order],
        best.chi2,
        dof,
        scaled,
        longest,
        t,
        m,
        e,
        used,
        deviation,
        own,
        delay,
        late_error,
    )


def _deviation_error(fit, relative, x, used):
    """Error of ``m / (k x) - 1`` for levels of relative errors (n,): a level that was fitted drew the line to itself."""
    slope = np.zeros((x.size, fit.terms))
    slope[:, 0] = 1.0 / fit.coefficients[0]
    if fit.terms > fit.powers.size:
        slope[:, -1] = 1.0 / x
    variance = relative**2 + np.einsum("ni,ij,nj->n", slope, fit.covariance, slope)
    # Covariance of the parameters with a level: their own times its row of the design.
    shared = np.einsum("ni,ij,nj->n", slope[used], fit.covariance, fit.design)
    variance[used] -= 2.0 * shared / (fit.coefficients[0] * x[used])
    return np.sqrt(np.maximum(variance, 0.0))


@dataclass(frozen=True)
class _Fit:
    powers: np.ndarray
    coefficients: np.ndarray
    delay: float
    covariance: np.ndarray
    chi2: float
    design: np.ndarray

    @property
    def terms(self):
        return self.covariance.shape[0]


def _chosen(u, y, w, most):
    """Fit with the fewest terms that the levels ask for."""
    choices = [
        ((1, *bends), late)
        for count in range(MOST_BENDS + 1)
        for bends in combinations(range(2, HIGHEST + 1), count)
        for late in (False, True)
        if 1 + count + late <= max(most, 1)
    ]
    fits = [fit for powers, late in choices if (fit := _fit(u, y, w, np.array(powers), late)) is not None]
    best = None
    for terms in sorted({fit.terms for fit in fits}):
        fit = min((fit for fit in fits if fit.terms == terms), key=lambda one: one.chi2)
        # A term may only show together with the next one.
        noise = max(1.0, fit.chi2 / max(u.size - terms, 1))
        if best is None or best.chi2 - fit.chi2 > SHOWN * (terms - best.terms) * noise:
            best = fit
    return best


def _fit(u, y, w, powers, late):
    """Weighted sum of powers of u, or (late) of u + delay by Gauss-Newton; None where singular."""
    root = np.sqrt(w)
    delay = 0.0
    for _ in range(20 if late else 1):
        x = u + delay
        if x.min() <= 0:
            return None
        design = x[:, None] ** powers
        if late:
            solved = _solve(design, y, root)
            if solved is None:
                return None
            design = np.column_stack([design, (x[:, None] ** (powers - 1)) @ (solved[0] * powers)])
        solved = _solve(design, y, root)
        if solved is None:
            return None
        if late:
            step = solved[0][-1]
            delay += step
            if abs(step) <= 1e-10:
                break
    coefficients, covariance = solved
    model = design @ coefficients
    chi2 = float(np.square(root * (y - model)).sum())
    return _Fit(powers, coefficients[: powers.size], delay, covariance, chi2, design)


def _solve(design, y, root):
    """Weighted least squares: coefficients and covariance, None where the columns are not independent."""
    weighted = design * root[:, None]
    scale = np.linalg.norm(weighted, axis=0)
    q, r = np.linalg.qr(weighted / scale)
    if np.abs(np.diag(r)).min() < 1e-8:
        return None
    inverse = np.linalg.inv(r)
    return inverse @ (q.T @ (y * root)) / scale, inverse @ inverse.T / np.outer(scale, scale)


def usable_range(response, percent=USABLE_PERCENT):
    """Lowest and highest signal [ADU] between which the response deviates by at most ``percent``, and the highest's error.

    From the fitted curve above the lowest level, so that noise of single levels does not end it.  Error NaN where the
    levels end before the curve leaves that range.
    """
    end, ended = _end(response, response.coefficients, percent)
    variance = 0.0 if ended else math.nan
    for shifted in response.shifted():
        variance += (_end(response, shifted, percent)[0] - end) ** 2
    return float(response.signal[response.used].min()), end, math.sqrt(variance)


def _end(response, coefficients, percent):
    """Signal up to which the curve of these coefficients stays within ``percent``, and whether it leaves that range."""
    t = np.linspace(0.0, response.last, 2001)[1:]
    signal = _value(response.powers, coefficients, t)
    over = np.abs(signal / (coefficients[0] * t) - 1.0) - percent / 100.0
    beyond = np.flatnonzero(over > 0)
    if not beyond.size:
        return float(signal[-1]), False
    i = beyond[0]
    if i == 0:
        return float(signal[0]), True
    part = over[i - 1] / (over[i - 1] - over[i])
    return float(signal[i - 1] + part * (signal[i] - signal[i - 1])), True


@dataclass(frozen=True)
class LinearityError:
    """EMVA 1288 linearity.

    offset [ADU], slope [ADU/s] : of the line.  deviation (n,) [percent], used (n,).  error, least, largest [percent].
    """

    offset: float
    slope: float
    deviation: np.ndarray
    used: np.ndarray
    error: float
    least: float
    largest: float


def linearity_error(exposure, signal, saturation):
    """Linearity error by EMVA 1288.

    exposure (n,), signal (n,) less the dark signal; saturation : signal of the largest variance [ADU].
    A straight line with offset is fitted to the levels from 5 to 95 % of the saturation with weights 1 / signal^2, so that
    relative deviations count; error is the mean of their absolute values, least and largest are those of Release 3.1.
    Returns None where fewer than three levels are in that range.
    Reference: EMVA 1288 Release 4.0 Linear, sec. 6.7; Release 3.1, sec. 6.7.
    """
    t, m = np.asarray(exposure, float), np.asarray(signal, float)
    used = np.isfinite(m) & (m >= LEAST_PART * saturation) & (m <= RANGE_PART * saturation)
    if used.sum() < 3 or np.unique(t[used]).size < 2:
        return None
    w = 1.0 / m[used] ** 2
    design = np.stack([np.ones(used.sum()), t[used]])
    offset, slope = np.linalg.solve((design * w) @ design.T, (design * w) @ m[used])
    line = offset + slope * t
    deviation = 100.0 * (m - line) / line
    own = deviation[used]
    return LinearityError(
        float(offset),
        float(slope),
        deviation,
        used,
        float(np.abs(own).mean()),
        float(own.min()),
        float(own.max()),
    )
