"""The dark law ``rate = A t^gamma exp(B (T - T_min))`` of fitted pixels: at its reference, and evaluated with its error."""

import numpy as np


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
