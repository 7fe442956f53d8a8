"""Zero level of frames against temperature, with a shift common to each session."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ZeroLevel:
    """Result of `fit_zero_level`.

    slope, slope_error [ADU/degC] : change of the level with temperature (0 and infinity at one temperature).
    shifts (S,) [ADU] : zero-level shift of each session against the first; zeros where they cannot be told from the
    slope or are not significant.  shift_errors (S,) [ADU].
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
    many of its errors.  Sessions are separable when allowing for them makes the error of the slope at most ten
    times larger.
    """
    good = np.isfinite(level) & np.isfinite(temperature)
    level, temperature, session = (np.asarray(a)[good] for a in (level, temperature, session))
    count = int(session.max()) + 1 if session.size else 1
    zeros = np.zeros(count)
    if level.size < 2 or np.ptp(temperature) < 1e-6:
        scatter = float(np.std(level)) if level.size else 0.0
        return ZeroLevel(0.0, float("inf"), zeros, zeros, count == 1, 0.0, scatter)
    x = temperature - temperature.mean()
    line = np.column_stack([np.ones(x.size), x])
    plain, plain_cov, plain_scatter = _robust_fit(line, level, least_error)
    if count == 1:
        return ZeroLevel(
            plain[1], plain_cov[1, 1] ** 0.5 * plain_scatter, zeros, zeros, True, 0.0, plain_scatter
        )
    # Against the first session: a later session then never moves the model's level.
    coding = np.vstack([np.zeros(count - 1), np.eye(count - 1)])
    design = np.column_stack([line, coding[session]])
    inflation = float("inf")
    if np.linalg.matrix_rank(design, tol=1e-6 * np.sqrt(x.size)) == design.shape[1]:
        full, cov, scatter = _robust_fit(design, level, least_error)
        inflation = (cov[1, 1] / plain_cov[1, 1]) ** 0.5
    if inflation > 10.0:
        means = np.array(
            [[temperature[session == s].mean(), level[session == s].mean()] for s in np.unique(session)]
        )
        within = float(np.sqrt(np.mean([np.var(level[session == s]) for s in np.unique(session)])))
        between = 0.0
        if len(means) > 2:
            fit = np.polyfit(means[:, 0], means[:, 1], 1)
            between = float(
                np.sqrt(np.sum((means[:, 1] - np.polyval(fit, means[:, 0])) ** 2) / (len(means) - 2))
            )
        return ZeroLevel(
            plain[1],
            plain_cov[1, 1] ** 0.5 * plain_scatter,
            zeros,
            zeros,
            False,
            max(between, within),
            plain_scatter,
        )
    shifts = coding @ full[2:]
    errors = np.sqrt(np.einsum("ij,jk,ik->i", coding, cov[2:, 2:], coding)) * scatter
    if not (np.abs(shifts) > significance * np.maximum(errors, least_error)).any():
        return ZeroLevel(
            plain[1], plain_cov[1, 1] ** 0.5 * plain_scatter, zeros, errors, True, 0.0, plain_scatter
        )
    return ZeroLevel(full[1], cov[1, 1] ** 0.5 * scatter, shifts, errors, True, 0.0, scatter)


def _robust_fit(design, y, floor):
    """Huber fit by reweighting: coefficients, covariance for unit variance, scatter of the residuals."""
    weight = np.ones(y.size)
    scatter = floor
    for _ in range(20):
        scaled = design * weight[:, None]
        coeff = np.linalg.lstsq(scaled.T @ design, scaled.T @ y, rcond=None)[0]
        residual = y - design @ coeff
        scatter = max(floor, 1.4826 * float(np.median(np.abs(residual - np.median(residual)))))
        weight = np.minimum(1.0, 2.0 * scatter / np.maximum(np.abs(residual), 1e-30))
    cov = np.linalg.pinv((design * weight[:, None]).T @ design)
    return coeff, cov, scatter
