"""Medians equal to those of numpy, several times as fast.

``np.median`` asks for three order statistics at once, which numpy finds without SIMD: here one is partitioned with it, and
short rows are sorted with it.  Medians over the first axis of a stack are those of `median_network`.
"""

import numpy as np


def median(values):
    """Median of all values; NaN where one of them is NaN, or there is none."""
    values = _floats(values).reshape(-1)
    if values.size == 0:
        return values.dtype.type(np.nan)
    half = values.size // 2
    ordered = np.partition(values, half)
    below = ordered[:half].max() if values.size % 2 == 0 else ordered[half]
    return _of_pair(below, ordered[half], ordered[half:].max())


def nan_median(values):
    """Median of the values that are not NaN; NaN where there is none."""
    values = _floats(values)
    return median(values[~np.isnan(values)])


def row_medians(values):
    """Median along the last axis, of some hundred values; NaN where one of them is NaN."""
    ordered = np.sort(_floats(values), axis=-1)
    n = ordered.shape[-1]
    return _of_pair(ordered[..., (n - 1) // 2], ordered[..., n // 2], ordered[..., -1])


def _floats(values):
    values = np.asarray(values)
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _of_pair(below, above, last):
    """Mean of the two middle values; ``last`` is NaN where any value is."""
    return np.where(np.isnan(last), last, (below + above) / below.dtype.type(2))[()]
