"""Small symmetric matrices of many pixels at once, for the fit of the dark law."""

import numpy as np

SMALL_PRODUCT = 200_000
"""Multiplications of a matrix product that a BLAS library does without threads of its own: these fight with ours."""


def product(columns, values):
    """Matrix product (k, n) x (n, m) of float32 as float64 (k, m), in pieces too small for threads of BLAS."""
    k, n = columns.shape
    out = np.empty((k, values.shape[1]))
    width = max(64, SMALL_PRODUCT // (k * n))
    for start in range(0, values.shape[1], width):
        out[:, start : start + width] = columns @ values[:, start : start + width]
    return out


def eliminate(h, g, chi2, cross, right, inner, precision):
    """Take the bias nuisances out of the normal equations, in place (Schur complement).

    cross (k, 3, m), right (k, m), inner (2k - 1, m), precision (2k - 1, m).
    """
    total = inner + precision
    if len(cross) == 1:
        solved, own = [cross[0] / total[0]], [right[0] / total[0]]
    else:
        det = total[0] * total[2] - total[1] * total[1]
        solved = [
            (total[2] * cross[0] - total[1] * cross[1]) / det,
            (total[0] * cross[1] - total[1] * cross[0]) / det,
        ]
        own = [
            (total[2] * right[0] - total[1] * right[1]) / det,
            (total[0] * right[1] - total[1] * right[0]) / det,
        ]
    for k, (column, value) in enumerate(zip(solved, own, strict=True)):
        for place, (i, j) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
            h[place] -= cross[k][i] * column[j]
        g -= cross[k] * value
        chi2 -= right[k] * value


def inverse(h):
    """Inverse of symmetric 3 x 3 matrices given as (6, m): 00 01 02 11 12 22; same layout."""
    a, b, c, d, e, f = h
    # Scaled to a unit diagonal first: the parameters differ by orders of magnitude.
    scale = 1.0 / np.sqrt(np.maximum(np.stack([a, d, f]), 1e-30))
    b, c, e = b * scale[0] * scale[1], c * scale[0] * scale[2], e * scale[1] * scale[2]
    det = 1.0 + 2.0 * b * c * e - b * b - c * c - e * e
    det = np.maximum(det, 1e-12)
    found = np.stack([1 - e * e, c * e - b, b * e - c, 1 - c * c, b * c - e, 1 - b * b]) / det
    i, j = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
    return found * scale[i] * scale[j]


def solve_step(h, g, damping):
    """Step (3, m) of the damped normal equations (Marquardt: the diagonal times 1 + damping)."""
    damped = h.copy()
    damped[[0, 3, 5]] *= 1.0 + damping
    v = inverse(damped)
    return np.stack(
        [
            v[0] * g[0] + v[1] * g[1] + v[2] * g[2],
            v[1] * g[0] + v[3] * g[1] + v[4] * g[2],
            v[2] * g[0] + v[4] * g[1] + v[5] * g[2],
        ]
    )
