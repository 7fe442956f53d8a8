"""Zero level of frames against temperature, with a shift common to each session."""

from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from utils.kernels.special_functions import t_quantile


@dataclass(frozen=True)
class ZeroLevel:
    """Result of `fit_zero_level`.

    slope, slope_error [ADU/degC] : change of the level with temperature (0 and infinity at one temperature).
    shifts (S,) [ADU] : zero-level shift of each session against the first that has frames; zeros where they cannot
    be told from the slope or are not significant, and for a session without frames.  shift_errors (S,) [ADU].
    separable : False where sessions and temperature cannot be told apart.
    session_scatter [ADU] : scatter of session levels about the line where not separable, else 0.
    frame_scatter [ADU] : scatter of single frames about the fit.
    """

    slope: float
    slope_error: float
    shifts: np.ndarray
    shift_errors: np.ndarray
    separable: bool
    session_scatter: float
    frame_scatter: float


def fit_zero_level(level, temperature, session, *, least_error=1e-3, significance=4.0):
    """Robust straight line of level against temperature with one shift for each session.

    level (n,) [ADU], temperature (n,) [degC], session (n,) int from 0: one entry a frame; NaN levels are left out.
    least_error : floor of a frame's level error [ADU].  significance : a set of shifts counts when one exceeds this
    many of its errors (of a Gaussian; as improbable for few frames).  Sessions are separable when allowing for them
    makes the error of the slope at most ten times larger.
    """
    session = np.asarray(session)
    zeros = np.zeros(int(session.max()) + 1 if session.size else 1)
    good = np.isfinite(level) & np.isfinite(temperature)
    level, temperature, session = (np.asarray(a)[good] for a in (level, temperature, session))
    present, session = np.unique(session, return_inverse=True)
    if level.size < 2:
        return ZeroLevel(0.0, float("inf"), zeros, zeros, present.size < 2, 0.0, 0.0)
    x = temperature - temperature.mean()
    sloped = np.ptp(temperature) >= 1e-6
    line = np.column_stack([np.ones(x.size), x])[:, : 1 + sloped]
    plain, plain_cov, plain_scatter = _robust_fit(line, level, least_error)
    alone = (
        (float(plain[1]), float(plain_cov[1, 1] ** 0.5 * plain_scatter)) if sloped else (0.0, float("inf"))
    )
    if present.size == 1:
        return ZeroLevel(*alone, zeros, zeros, True, 0.0, plain_scatter)
    # Against the first session: a later session then never moves the model's level.
    design = np.column_stack([line, session[:, None] == np.arange(1, present.size)])
    inflation = float("inf")
    free = x.size - design.shape[1]
    if free > 0 and np.linalg.matrix_rank(design, tol=1e-6 * np.sqrt(x.size)) == design.shape[1]:
        full, cov, scatter = _robust_fit(design, level, least_error)
        inflation = (cov[1, 1] / plain_cov[1, 1]) ** 0.5 if sloped else 1.0
    if inflation > 10.0:
        spread = _session_scatter(level, temperature, session)
        return ZeroLevel(*alone, zeros, zeros, False, spread, plain_scatter)
    columns = slice(line.shape[1], None)
    shifts, errors = zeros.copy(), zeros.copy()
    shifts[present[1:]] = full[columns]
    errors[present[1:]] = np.sqrt(np.diag(cov)[columns]) * scatter
    # Student's t: the scatter of few frames is itself uncertain.
    limit = t_quantile(free, 0.5 * erfc(significance / sqrt(2.0)))
    if not (np.abs(shifts) > limit * np.maximum(errors, least_error)).any():
        return ZeroLevel(*alone, zeros, errors, True, 0.0, plain_scatter)
    slope = (float(full[1]), float(cov[1, 1] ** 0.5 * scatter)) if sloped else alone
    return ZeroLevel(*slope, shifts, errors, True, 0.0, scatter)


def _session_scatter(level, temperature, session):
    """Scatter of the sessions' mean levels about a line, at least that of frames within a session [ADU]."""
    members = [session == s for s in np.unique(session)]
    within = float(np.sqrt(np.mean([np.var(level[m]) for m in members])))
    if len(members) <= 2:
        return within
    x, y = (np.array([values[m].mean() for m in members]) for values in (temperature, level))
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    return max(within, float(np.sqrt(residual @ residual / (len(members) - 2))))


def _robust_fit(design, y, floor):
    """Huber fit by reweighting: coefficients, covariance for unit variance, scatter of the residuals.

    p parameters can make p residuals vanish: p - 1 of the smallest have no say in the scatter.
    Reference: DuMouchel & O'Brien (1989), Proc. 21st Symposium on the Interface, 297.
    """
    weight = np.ones(y.size)
    scatter = floor
    for _ in range(20):
        scaled = design * weight[:, None]
        coeff = np.linalg.lstsq(scaled.T @ design, scaled.T @ y, rcond=None)[0]
        residual = y - design @ coeff
        size = np.sort(np.abs(residual))[design.shape[1] - 1 :]
        scatter = max(floor, 1.4826 * float(np.median(size)))
        weight = np.minimum(1.0, 2.0 * scatter / np.maximum(np.abs(residual), 1e-30))
    cov = np.linalg.pinv((design * weight[:, None]).T @ design)
    return coeff, cov, scatter
