"""Distribution of a parameter over pixels, from values with known errors.

Reference: Paule & Mandel (1982), J. Res. NBS 87, 377.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Population:
    """Distribution of a parameter over pixels: mean, its error, 1 sigma over pixels, pixels behind it."""

    mean: float
    error: float
    sigma: float
    pixels: int


def distribution(values, variances, clip=4.5):
    """Mean and scatter of a population from values with known errors (Paule & Mandel), outliers left out.

    values, variances : (k,).  Returns `Population`; its sigma is 0 where the errors explain all scatter.
    """
    values, variances = np.asarray(values, np.float64), np.asarray(variances, np.float64)
    keep = np.ones(values.size, bool)
    mean, scatter = (
        float(np.median(values)),
        (1.4826 * float(np.median(np.abs(values - np.median(values))))) ** 2,
    )
    for _ in range(12):
        keep = np.abs(values - mean) < clip * np.sqrt(variances + scatter)
        v, s = values[keep], variances[keep]
        low, high = 0.0, 4.0 * float(np.var(v)) + 1e-30

        def excess(extra, v=v, s=s):
            w = 1.0 / (s + extra)
            m = np.sum(w * v) / np.sum(w)
            return np.sum(w * (v - m) ** 2) - (v.size - 1)

        if excess(low) <= 0:
            high = low
        for _ in range(50 if high > low else 0):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
        previous, scatter = scatter, 0.5 * (low + high)
        w = 1.0 / (s + scatter)
        mean = float(np.sum(w * v) / np.sum(w))
        if abs(scatter - previous) <= 1e-4 * (scatter + 1e-30):
            break
    return Population(mean, float(1.0 / math.sqrt(np.sum(w))), math.sqrt(scatter), int(v.size))
