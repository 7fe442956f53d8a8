"""Weighted straight line for every pixel, with covariance, chi-square and leverages; closed form, in float64."""

import numpy as np


def fit_line(values, weights, x, origin=0.0):
    """Weighted straight line ``y = a + b (x - origin)`` for every pixel.

    values : (n, m) [ADU], NaN = unusable.  weights : (n, m) or (n, 1), 1 / sigma^2 [1/ADU^2].
    x : (n,) [degC].  The solve is centred on each pixel's weighted mean of x, so that it is well conditioned.
    Returns coeff (2, m): a [ADU] at x = origin and b [ADU/degC]; cov (3, m): var a, var b, cov(a, b);
    chi2 (m,); n_used (m,).  Fewer than 2 distinct usable x: coeff and cov NaN, chi2 NaN.
    Raises ValueError if x holds fewer than 2 distinct values.
    Reference: Bevington & Robinson, 3rd ed., ch. 6.
    """
    x = np.asarray(x, dtype=np.float64)
    if np.unique(x).size < 2:
        raise ValueError("a line needs at least 2 distinct values of x")
    w, y, usable = _usable(values, weights)
    total = w.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x = (w * x[:, None]).sum(axis=0) / total
        mean_y = (w * y).sum(axis=0) / total
        dx = x[:, None] - mean_x
        wdx = w * dx
        sxx = _lever((wdx * dx).sum(axis=0), total, mean_x)
        slope = (wdx * (y - mean_y)).sum(axis=0) / sxx
        var_b = 1.0 / sxx
        shift = mean_x - origin
        a = mean_y - slope * shift
        cov = np.stack([1.0 / total + shift * shift * var_b, var_b, -shift * var_b])
        residual = y - mean_y - slope * dx
        chi2 = (w * residual * residual).sum(axis=0)
    return np.stack([a, slope]), cov, chi2, usable.sum(axis=0)


def left_out_residuals(values, weights, x):
    """Residual of every point from the line fitted without it, and the variance of that prediction.

    Arguments as in `fit_line`.  Exact, by the leverage of a weighted fit: ``r / (1 - h)``, nothing is fitted again.
    Returns residual (n, m) = value - prediction [ADU] and prediction variance (n, m) [ADU^2] (of the model only);
    NaN where the other points do not carry a line.
    Reference: Cook & Weisberg (1982), Residuals and Influence in Regression, ch. 2.
    """
    x = np.asarray(x, dtype=np.float64)
    w, y, usable = _usable(values, weights)
    total = w.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x = (w * x[:, None]).sum(axis=0) / total
        dx = x[:, None] - mean_x
        sxx = _lever((w * dx * dx).sum(axis=0), total, mean_x)
        mean_y = (w * y).sum(axis=0) / total
        slope = (w * dx * (y - mean_y)).sum(axis=0) / sxx
        variance = 1.0 / total + dx * dx / sxx
        leverage = w * variance
        free = 1.0 - leverage
        free[free < 1e-9] = np.nan
        residual = (y - mean_y - slope * dx) / free
        prediction_variance = variance / free
    residual[~usable] = np.nan
    return residual, prediction_variance


def _lever(sxx, total, mean_x):
    """Weighted spread of x; NaN where it is rounding: a pixel seen at one x only rarely gives exactly zero."""
    return np.where(sxx <= 1e-12 * total * (1.0 + mean_x * mean_x), np.nan, sxx)


def _usable(values, weights):
    values = np.asarray(values)
    weights = np.broadcast_to(np.asarray(weights, dtype=np.float64), values.shape)
    usable = np.isfinite(values) & np.isfinite(weights) & (weights > 0)
    return np.where(usable, weights, 0.0), np.where(usable, values, 0.0).astype(np.float64), usable
