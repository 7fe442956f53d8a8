"""Weighted straight line for every pixel, with covariance, chi-square and leverages; closed form, in float64."""

import numpy as np

PIECE = 1 << 13
"""Pixels solved at a time: their points stay in a processor's cache."""


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
    m = np.shape(values)[1]
    coeff, cov, chi2, n_used = np.empty((2, m)), np.empty((3, m)), np.empty(m), np.empty(m, np.intp)
    for part, w, y, usable, spare in _pieces(values, weights):
        total, mean_x, mean_y, dx, sxx, slope = _line(w, y, x, spare)
        shift = mean_x - origin
        with np.errstate(divide="ignore", invalid="ignore"):
            coeff[0, part] = mean_y - slope * shift
            coeff[1, part] = slope
            var_b = 1.0 / sxx
            cov[0, part] = 1.0 / total + shift * shift * var_b
            cov[1, part] = var_b
            cov[2, part] = -shift * var_b
            y -= np.multiply(dx, slope, out=spare[1])
            y *= y
        chi2[part] = _weighted_sum(w, y)
        n_used[part] = len(x) if usable is None else usable.sum(axis=0)
    return coeff, cov, chi2, n_used


def left_out_residuals(values, weights, x):
    """Residual of every point from the line fitted without it, and the variance of that prediction.

    Arguments as in `fit_line`.  Exact, by the leverage of a weighted fit: ``r / (1 - h)``, nothing is fitted again.
    Returns residual (n, m) = value - prediction [ADU] and prediction variance (n, m) [ADU^2] (of the model only);
    NaN where the other points do not carry a line.
    Reference: Cook & Weisberg (1982), Residuals and Influence in Regression, ch. 2.
    """
    x = np.asarray(x, dtype=np.float64)
    residuals, variances = np.empty(np.shape(values)), np.empty(np.shape(values))
    for part, w, y, usable, spare in _pieces(values, weights):
        residual, variance = residuals[:, part], variances[:, part]
        total, _, _, dx, sxx, slope = _line(w, y, x, spare)
        with np.errstate(divide="ignore", invalid="ignore"):
            np.multiply(dx, slope, out=residual)
            np.subtract(y, residual, out=residual)
            np.multiply(dx, dx, out=variance)
            variance /= sxx
            variance += 1.0 / total
            free = np.multiply(w, variance, out=y)  # the leverage ...
            np.subtract(1.0, free, out=free)  # ... and what it leaves to the other points
            free[free < 1e-9] = np.nan
            residual /= free
            variance /= free
        if usable is not None:
            residual[~usable] = np.nan
    return residuals, variances


def _line(w, y, x, spare):
    """Solve one piece: total weight, means of x and y, x from its mean, weighted spread of x, slope.

    w : (n, m) or (n, 1).  y : (n, m), its mean is taken out in place.  spare : two work arrays, x from its mean is in
    the first.  What depends on x and w only has one column where w has.
    """
    dx, lever = (one[:, : w.shape[1]] for one in spare)
    total = w.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x = np.einsum("i,ij->j", x, w) / total
        mean_y = _weighted_sum(w, y) / total
        y -= mean_y
        np.subtract(x[:, None], mean_x, out=dx)
        np.multiply(w, dx, out=lever)
        sxx = np.einsum("ij,ij->j", lever, dx)
        # Below this the spread is rounding: a pixel seen at one x only rarely gives exactly zero.
        sxx[sxx <= 1e-12 * total * (1.0 + mean_x * mean_x)] = np.nan
        slope = _weighted_sum(lever, y) / sxx
    return total, mean_x, mean_y, dx, sxx, slope


def _weighted_sum(w, y):
    """Sum of w y over the points; w : (n, m) or (n, 1)."""
    return np.einsum("i,ij->j", w[:, 0], y) if w.shape[1] == 1 else np.einsum("ij,ij->j", w, y)


def _pieces(values, weights):
    """Yield (part, weights, values, usable, spare): float64 copies, 0 where unusable, to be used up.

    usable : (n, m) bool, or None where all are; weights that all pixels share stay (n, 1) then.
    spare : two work arrays (n, m).  All arrays are those of the next piece, too: fresh ones would cost more than the
    arithmetic.
    """
    values, weights = np.asarray(values), np.asarray(weights)
    n, m = values.shape
    work = np.empty((4, n, min(m, PIECE)))
    for start in range(0, m, PIECE):
        part = slice(start, min(start + PIECE, m))
        y, w, *spare = work[:, :, : part.stop - start]
        y[:] = values[:, part]
        if weights.shape[1] == 1:
            w = np.array(weights, dtype=np.float64)
        else:
            w[:] = weights[:, part]
        with np.errstate(invalid="ignore", over="ignore"):
            # A sum that is finite has finite terms only.
            if np.isfinite(y.sum() + w.sum()) and w.min(initial=np.inf) > 0:
                yield part, w, y, None, spare
                continue
            usable = np.isfinite(y) & (np.isfinite(w) & (w > 0))
        y[~usable] = 0.0
        yield part, np.where(usable, w, 0.0), y, usable, spare
