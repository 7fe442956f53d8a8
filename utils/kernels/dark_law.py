"""The dark law ``rate = A t^gamma exp(B (T - T_min))`` of fitted pixels: at its reference, and evaluated with its error."""

import numpy as np

_DOUBLES = 1 << 12
"""Pixels of which float64 stay in the cache."""


def at_reference(fit, design, t_min):
    """Return the law at T_min and 1 s instead of the pivot.

    Returns params (3, m): A [ADU/s], B, gamma, and cov (6, m): AA, AB, AG, BB, BG, GG.
    """
    dx, dl = design.pivot_t - t_min, np.log(design.pivot_e)
    unit = np.exp(-fit.b * dx - fit.gamma * dl)
    a = fit.p * unit
    pp, pb, pg, bb, bg, gg = fit.cov
    # dA = unit dp - A dx dB - A dl dgamma
    u, v, w = unit, -a * dx, -a * dl
    aa = u * u * pp + v * v * bb + w * w * gg + 2 * (u * v * pb + u * w * pg + v * w * bg)
    ab = u * pb + v * bb + w * bg
    ag = u * pg + v * bg + w * gg
    return np.stack([a, fit.b, fit.gamma]), np.stack([aa, ab, ag, bb, bg, gg])


def rate(params, cov, dt, exposure):
    """Dark current [ADU/s] and its 1 sigma from `at_reference`, dt = T - T_min [degC], at an exposure [s].

    params : A, B, gamma, arrays of one shape; gamma None: a law without exposure.  cov : six more, None: no error.
    """
    a, b, gamma = params
    log_t = 0.0 if gamma is None else float(np.log(exposure))
    power = b * b.dtype.type(dt)
    if log_t:
        power += gamma * b.dtype.type(log_t)
    factor = np.exp(power, out=power)
    value = a * factor
    if cov is None:
        return value, None
    aa, ab, ag, bb, bg, gg = cov
    v = a * dt
    inner = aa + v * (v * bb + 2.0 * ab)
    if log_t:
        w = a * log_t
        inner += w * (w * gg + 2.0 * (ag + v * bg))
    return value, factor * np.sqrt(np.maximum(inner, 0.0))


class DarkTerms:
    """The law of some pixels and the root of its covariance, ready for many temperatures and exposures.

    params : A, B, gamma, each (m,); sigmas : their errors; mixed : cov(A, B), cov(A, gamma), cov(B, gamma).  gamma and what
    belongs to it None: a law without exposure.  The error is ``factor |L^T (1, A dT, A ln t)|`` with cov = L L^T: a sum
    of squares, in which nothing cancels, so that float32 does.
    """

    def __init__(self, params, sigmas, mixed):
        self.a, self.b, self.gamma = (None if one is None else np.asarray(one, np.float32) for one in params)
        sizes = (2, 1) if self.gamma is None else (3, 2, 1)
        self.root = [[np.empty_like(self.a) for _ in range(size)] for size in sizes]
        for start in range(0, self.a.size, _DOUBLES):
            part = slice(start, start + _DOUBLES)
            own = [None if one is None else one[part].astype(np.float64) for one in (*sigmas, *mixed)]
            rows = _root(self.a[part].astype(np.float64), own[:3], own[3:])
            for target, values in zip((one for row in self.root for one in row), rows, strict=True):
                target[part] = values

    def factor(self, dt, exposure, out):
        """``exp(B dT + gamma ln t)`` into ``out``, float32; dt = T - T_min [degC], exposure [s]."""
        np.multiply(self.b, np.float32(dt), out=out)
        if self.gamma is not None and exposure != 1.0:
            out += self.gamma * np.float32(np.log(exposure))
        return np.exp(out, out=out)

    def variance(self, dt, exposure, out):
        """Variance of the rate over the square of `factor` into ``out``, float32 [(ADU/s)^2]."""
        dt, log_t = np.float32(dt), np.float32(np.log(exposure))
        scales = [np.float32(1.0), dt, log_t][: len(self.root)]
        part, more = np.empty_like(out), np.empty_like(out)
        for number, row in enumerate(self.root):
            target = part if number else out
            np.multiply(row[0], scales[number], out=target)
            for one, scale in zip(row[1:], scales[number + 1 :], strict=True):
                np.multiply(one, scale, out=more)
                target += more
            target *= target
            if number:
                out += part
        return out


def _root(a, sigmas, mixed):
    """Entries of the root of the covariance row by row, those of B and gamma times A; float64."""
    p, sigma_b, sigma_g = sigmas
    ab, ag, bg = mixed
    q = _over(ab, p)
    s = np.sqrt(np.maximum(sigma_b * sigma_b - q * q, 0.0))
    if sigma_g is None:
        return p, a * q, a * s
    r = _over(ag, p)
    u = _over(bg - q * r, s)
    v = np.sqrt(np.maximum(sigma_g * sigma_g - r * r - u * u, 0.0))
    return p, a * q, a * r, a * s, a * u, a * v


def _over(number, divisor):
    """``number / divisor``, which is at least 0; where it is 0 the number, a covariance of it, is 0 too."""
    return number / np.maximum(divisor, np.finfo(float).tiny)
