"""The dark law ``rate = A t^gamma exp(B (T - T_min))`` of fitted pixels: at its reference, and evaluated with its error."""

import numpy as np

from utils.kernels.pieces import DOUBLES, Parabola


def at_reference(fit, design, t_min):
    """Return the law at T_min and 1 s instead of the pivot.

    Returns params (3, m): A [ADU/s], B, gamma, and cov (6, m): AA, AB, AG, BB, BG, GG.
    """
    dx, dl = design.pivot_t - t_min, np.log(design.pivot_e)
    params, cov = np.empty((3, fit.p.size)), np.empty((6, fit.p.size))
    for first in range(0, fit.p.size, DOUBLES):
        part = slice(first, first + DOUBLES)
        b, gamma, (pp, pb, pg, bb, bg, gg) = fit.b[part], fit.gamma[part], fit.cov[:, part]
        u = np.exp(-b * dx - gamma * dl)
        a = fit.p[part] * u
        params[:, part] = a, b, gamma
        # dA = u dp - A dx dB - A dl dgamma
        v, w = -a * dx, -a * dl
        ab, ag = u * pb + v * bb + w * bg, u * pg + v * bg + w * gg
        aa = u * (u * pp + v * pb + w * pg) + v * ab + w * ag
        cov[:, part] = aa, ab, ag, bb, bg, gg
    return params, cov


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
    """The law of some pixels at one exposure, ready for many temperatures.

    params : A, B, gamma, each (m,); sigmas : their errors; mixed : cov(A, B), cov(A, gamma), cov(B, gamma), of the pixels
    whose error is wanted, ``inner`` : slice of those.  gamma and what belongs to it None: a law without exposure.
    exposure [s].
    """

    def __init__(self, params, sigmas, mixed, exposure, inner=slice(None)):
        a, self.b, gamma = (None if one is None else np.asarray(one, np.float32) for one in params)
        self.inner, log_t, power = inner, 0.0, np.float32(exposure)
        if gamma is not None and exposure != 1.0:
            log_t = float(np.log(exposure))
            power = power * np.exp(gamma * np.float32(log_t))
        self.scale = a * power
        self.error = Parabola(self.b[inner].shape)
        power = np.broadcast_to(power, a.shape)
        for part in self.error.parts():
            own = [None if one is None else one[part].astype(np.float64) for one in (*sigmas, *mixed)]
            whole = (a[inner][part], power[inner][part])
            self.error.set(part, *_in_temperature(*(one.astype(np.float64) for one in whole), log_t, *own))

    def signal(self, dt):
        """Dark signal [ADU] at dt = T - T_min [degC], (m,), and its variance [ADU^2] of the pixels ``inner``; float32."""
        factor = np.multiply(self.b, np.float32(dt))
        np.exp(factor, out=factor)
        own = factor[self.inner]
        variance = self.error.at(dt, np.empty_like(own))
        variance *= own
        variance *= own
        factor *= self.scale
        return factor, variance


def _in_temperature(a, power, log_t, sigma_a, sigma_b, sigma_g, ab, ag, bg):
    """Variance of a signal over ``exp(2 B dT)`` as ``c0 + 2 c1 dT + c2 dT^2``; power : the signal over A without that."""
    c0, c1, c2 = sigma_a * sigma_a, a * ab, np.square(a * sigma_b)
    if log_t:
        w = a * log_t
        c0 = c0 + w * (w * np.square(sigma_g) + 2.0 * ag)
        c1 = c1 + a * w * bg
    power = power * power
    return c0 * power, c1 * power, c2 * power
