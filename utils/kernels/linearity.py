"""Response to light: signal against exposure time, how far it is from a straight line, and up to where."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

MOST_ORDER = 6
"""Highest power of the exposure in the response."""
RANGE_PART = 0.95
"""Part of the full well up to which the response is judged (EMVA 1288)."""
LEAST_PART = 0.05
FEWEST = 4
USABLE_PERCENT = 1.0
"""Deviation up to which a signal counts as usable."""
SHOWN = 9.0
"""A further term is kept where it lowers chi-square by more than this."""


@dataclass(frozen=True)
class Response:
    """Fitted response of one series: ``m = k t (1 + c2 t + c3 t^2 ...)``, t in units of the longest exposure.

    coefficients : k, k c2, ...  covariance of them.  chi2, dof, scaled (factor on the errors).  longest [s].
    exposure, signal, error (n,) and used (n,) bool: the levels.
    deviation, deviation_error (n,) : m / (k t) - 1 of the levels.
    """

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

    @property
    def order(self):
        """Highest power of the exposure: 1 is a straight line."""
        return self.coefficients.size

    def at(self, signal):
        """Linear signal x and slope dm/dx for signals m (n,) [ADU]."""
        return _linear(self.coefficients, signal)

    def all_at(self, signal):
        """`at` as fitted, then with each principal parameter off by 1 sigma."""
        values, vectors = np.linalg.eigh(self.covariance)
        pairs = [self.at(signal)]
        for value, vector in zip(values, vectors.T, strict=True):
            shift = math.sqrt(max(value, 0.0)) * vector
            pairs.append(_linear(self.coefficients + shift, signal))
        return pairs

    def curve(self, points=100):
        """Signal and deviation of the fitted response up to the longest exposure used, (points,) each."""
        t = np.linspace(0.0, float((self.exposure[self.used] / self.longest).max()), points + 1)[1:]
        m = _value(self.coefficients, t)
        return m, m / (self.coefficients[0] * t) - 1.0


def _value(coefficients, t):
    return t * np.polynomial.polynomial.polyval(t, coefficients)


def _linear(coefficients, signal):
    """Invert the response by Newton's method."""
    signal = np.asarray(signal, float)
    k = coefficients[0]
    grow = coefficients * np.arange(1, coefficients.size + 1)
    t = signal / k
    for _ in range(50):
        slope = np.maximum(np.polynomial.polynomial.polyval(t, grow), 0.05 * k)
        step = (_value(coefficients, t) - signal) / slope
        t = t - step
        if np.all(np.abs(step) <= 1e-12 * np.maximum(np.abs(t), 1e-12)):
            break
    return k * t, np.polynomial.polynomial.polyval(t, grow) / k


def fit_response(exposure, signal, error, well=math.inf):
    """Response from levels of light at several exposure times.

    exposure (n,) [s]; signal (n,) of the light alone (bias and dark taken out) and error (n,) [ADU]: the noise of a level
    and the steadiness of the lamp.  well [ADU above bias].  Levels above 95 % of it do not count.
    The order is the lowest that the data allow; none is added that does not lower chi-square by more than 9.
    Returns `Response`, or None where fewer than four usable levels of different exposures are there.
    """
    t, m, e = (np.asarray(a, float) for a in (exposure, signal, error))
    used = np.isfinite(m) & (e > 0) & (m > 0) & (m <= RANGE_PART * well)
    if np.unique(t[used]).size < FEWEST:
        return None
    longest = float(t[used].max())
    u, y, w = t[used] / longest, m[used], 1.0 / e[used] ** 2
    best = None
    for order in range(1, min(MOST_ORDER, np.unique(t[used]).size - 2) + 1):
        fit = _polynomial(u, y, w, order)
        if fit is None:
            break
        # A term may only show together with the next one.
        gain_needed = SHOWN * (order - best[0].size) if best else 0.0
        noise = max(1.0, fit[2] / max(u.size - order, 1))
        if best is None or best[2] - fit[2] > gain_needed * noise:
            best = fit
    coefficients, covariance, chi2 = best
    dof = u.size - coefficients.size
    scaled = math.sqrt(chi2 / dof) if dof > 0 and special.chdtrc(dof, chi2) < 1e-3 else 1.0
    covariance = covariance * scaled**2
    k = coefficients[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        straight = k * t / longest
        deviation = m / straight - 1.0
        own = np.hypot(e * scaled / straight, m / straight * math.sqrt(covariance[0, 0]) / k)
    return Response(coefficients, covariance, chi2, dof, scaled, longest, t, m, e, used, deviation, own)


def _polynomial(u, y, w, order):
    design = u[:, None] ** np.arange(1, order + 1)
    root = np.sqrt(w)[:, None]
    scale = np.linalg.norm(design * root, axis=0)
    q, r = np.linalg.qr(design * root / scale)
    if np.abs(np.diag(r)).min() < 1e-8:
        return None
    inverse = np.linalg.inv(r)
    coefficients = inverse @ (q.T @ (y * root[:, 0])) / scale
    covariance = inverse @ inverse.T / np.outer(scale, scale)
    chi2 = float((w * (y - design @ coefficients) ** 2).sum())
    return coefficients, covariance, chi2


def usable_range(response, percent=USABLE_PERCENT):
    """Lowest and highest signal [ADU] between which the response deviates by at most ``percent``.

    From the fitted curve above the lowest level, so that noise of single levels does not end it.
    """
    signal, deviation = response.curve(1000)
    beyond = np.flatnonzero(np.abs(deviation) > percent / 100.0)
    high = signal[beyond[0]] if beyond.size else signal[-1]
    return float(response.signal[response.used].min()), float(high)


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
