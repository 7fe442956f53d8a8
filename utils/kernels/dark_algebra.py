"""Small symmetric matrices of many pixels at once, for the fit of the dark law."""

import numpy as np

SMALL_PRODUCT = 200_000
"""Multiplications of a matrix product that a BLAS library does without threads of its own: these fight with ours."""

ROUNDING = 1e-6
"""Relative error of sums in float32."""


def product(columns, values, kind=np.float64):
    """Matrix product (k, n) x (n, m) of float32 as ``kind`` (k, m), in pieces too small for threads of BLAS."""
    k, n = columns.shape
    out = np.empty((k, values.shape[1]), kind)
    width = max(64, SMALL_PRODUCT // (k * n))
    for start in range(0, values.shape[1], width):
        out[:, start : start + width] = columns @ values[:, start : start + width]
    return out


def line_precision(var_a, var_b, cov, t):
    """Inverse covariance (3, m) of the level at ``t`` and the slope of lines a + b T: rows 00, 01, 11.

    var_b None : of a level alone, (1, m).
    """
    if var_b is None:
        return 1.0 / np.maximum(np.asarray(var_a, np.float64), 1e-12)[None]
    var_b, cov = np.asarray(var_b, np.float64), np.asarray(cov, np.float64)
    level, mixed = var_a + 2 * t * cov + t * t * var_b, cov + t * var_b
    # Rounding of the maps must not make the covariance singular.
    level = np.maximum(level, 1.0001 * mixed * mixed / np.maximum(var_b, 1e-30))
    det = np.maximum(level * var_b - mixed * mixed, 1e-30)
    return np.stack([var_b, -mixed, level]) / det


class Nuisances:
    """Inner matrix of the bias nuisances at given weights, factorised (L D L^T), to take them out of equations.

    inner, precision : (1, m) for a level, (3, m) for level and slope: 00 01 11.  kind : type of the equations.
    """

    def __init__(self, inner, precision, kind):
        total = inner + precision
        self.first = (1.0 / np.sqrt(total[0])).astype(kind)
        self.second = None
        if len(total) == 3:
            ratio = total[1] / total[0]
            self.ratio = ratio.astype(kind)
            self.second = (1.0 / np.sqrt(total[2] - ratio * total[1])).astype(kind)

    def eliminate(self, h, g, chi2, cross, right):
        """Schur complement, in place: h (k (k + 1) / 2, m) in rows, g (k, m), chi2 (m,), cross (j, k, m), right (j, m)."""
        self._take_out(h, g, chi2, cross[0] * self.first, right[0] * self.first)
        if self.second is not None:
            column = (cross[1] - self.ratio * cross[0]) * self.second
            self._take_out(h, g, chi2, column, (right[1] - self.ratio * right[0]) * self.second)

    @staticmethod
    def _take_out(h, g, chi2, column, value):
        place = 0
        for i, row in enumerate(column):
            rest = len(column) - i
            h[place : place + rest] -= column[i:] * row
            place += rest
        g -= column * value
        chi2 -= value * value


class Sums:
    """Sums over the maps that normal equations of m pixels are made of, filled piece after piece of the pixels.

    columns : dict of what stands before the weights: theta (k (k + 1) / 2, n), cross (2 k, n), nuisance (3, n), gradient
    (k, n).  free : k, parameters.  precision : of the nuisances, as `Nuisances` takes it, or None.  kind : of the sums.
    """

    def __init__(self, columns, free, precision, m, kind):
        self._columns, self._precision, self.nuisances = columns, precision, 0
        self.h, self.g = np.empty((len(columns["theta"]), m), kind), np.empty((free, m), kind)
        self.chi2 = np.zeros(m, kind)
        if precision is None:
            return
        k = self.nuisances = 1 if len(precision) == 1 else 2
        self.cross, self.right = np.empty((k * free, m), kind), np.empty((k, m), kind)
        self.inner = np.empty((2 * k - 1, m))

    def add_data(self, part, weighted, u):
        """Take residuals times weights (n, m), which are overwritten; u (n, m) or (n, 1) : signal of p = 1."""
        if self.nuisances:
            self.right[:, part] = self._columns["nuisance"][: self.nuisances] @ weighted
        weighted *= u
        self.g[:, part] = self._columns["gradient"] @ weighted

    def add_weights(self, part, w, u, work=None):
        """Take weights (n, m); work (n, m) is overwritten."""
        weighted = np.multiply(w, u, out=work)
        if self.nuisances:
            self.inner[:, part] = self._columns["nuisance"][: len(self.inner)] @ w
            self.cross[:, part] = self._columns["cross"][: len(self.cross)] @ weighted
        weighted *= u
        self.h[:, part] = self._columns["theta"] @ weighted

    def equations(self):
        """Return h, g and the quadratic form with the nuisances taken out; what stands here is used up."""
        if self.nuisances:
            nuisances = Nuisances(self.inner, self._precision, self.h.dtype)
            cross = self.cross.reshape(self.nuisances, len(self.g), -1)
            nuisances.eliminate(self.h, self.g, self.chi2, cross, self.right)
        return self.h, self.g, self.chi2


def inverse(h):
    """Inverse of symmetric matrices, 2 x 2 as (3, m): 00 01 11, 3 x 3 as (6, m): 00 01 02 11 12 22; same layout."""
    if len(h) == 3:
        a, b, d = h
        first, second = (1.0 / np.sqrt(np.maximum(one, 1e-30)) for one in (a, d))
        off = b * first * second * (1.0 - ROUNDING)
        det = np.maximum(1.0 - off * off, ROUNDING**2)
        return np.stack([first * first, -off * first * second, second * second]) / det
    a, b, c, d, e, f = h
    # Scaled to a unit diagonal first: the parameters differ by orders of magnitude.
    scale = 1.0 / np.sqrt(np.maximum(np.stack([a, d, f]), 1e-30))
    # Rounding of float32 sums can take a correlation beyond 1, where variances would be negative.
    scale_off = 1.0 - ROUNDING
    b, c, e = (value * scale[i] * scale[j] * scale_off for value, i, j in ((b, 0, 1), (c, 0, 2), (e, 1, 2)))
    det = 1.0 + 2.0 * b * c * e - b * b - c * c - e * e
    det = np.maximum(det, ROUNDING**2)
    found = np.stack([1 - e * e, c * e - b, b * e - c, 1 - c * c, b * c - e, 1 - b * b]) / det
    i, j = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
    return found * scale[i] * scale[j]


def solve_step(h, g, damping):
    """Step (k, m) of the damped normal equations of 2 or 3 parameters (Marquardt: the diagonal times 1 + damping)."""
    grown = 1.0 + damping
    # A pixel without any data has no curvature, and stays.
    h[0] = np.maximum(h[0], 1e-30)
    if len(g) == 2:
        a, d = h[0] * grown, h[2] * grown
        along = h[1] / a
        second = (g[1] - along * g[0]) / _positive(d - along * h[1], d)
        return np.stack([g[0] / a - along * second, second])
    a, d, f = h[0] * grown, h[3] * grown, h[5] * grown
    one, two = h[1] / a, h[2] / a
    middle = _positive(d - one * h[1], d)
    mixed = h[4] - one * h[2]
    three = mixed / middle
    second = g[1] - one * g[0]
    third = (g[2] - two * g[0] - three * second) / _positive(f - two * h[2] - three * mixed, f)
    second = second / middle - three * third
    return np.stack([g[0] / a - one * second - two * third, second, third])


def _positive(pivot, diagonal):
    """Pivot of an elimination, kept above its rounding."""
    return np.maximum(pivot, diagonal * (1e-6 if pivot.dtype == np.float32 else 1e-12))
