"""Medians against those of numpy, to the last bit."""

import warnings

import numpy as np
import pytest

from utils.kernels.medians import median, nan_median, row_medians


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 1000, 1001, 65536])
def test_median_is_that_of_numpy(kind, size):
    rng = np.random.default_rng(size)
    values = rng.normal(20000, 100, size).astype(kind)
    for one in (values, np.rint(values), values[::-1], np.sort(values)):
        found = median(one)
        assert found == np.median(one)
        assert found.dtype == kind
    assert np.array_equal(values, np.random.default_rng(size).normal(20000, 100, size).astype(kind))


@pytest.mark.parametrize("shape", [(5, 1), (7, 2), (40, 9), (3, 4, 25), (2, 300)])
def test_medians_of_rows_are_those_of_numpy(shape):
    values = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    assert np.array_equal(row_medians(values), np.median(values, axis=-1))
    values.reshape(-1)[0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert np.array_equal(row_medians(values), np.median(values, axis=-1), equal_nan=True)


def test_blank_values():
    values = np.random.default_rng(2).normal(0, 1, 501).astype(np.float32)
    holes = values.copy()
    holes[[0, 10, 250, 500]] = np.nan
    assert np.isnan(median(holes))
    assert nan_median(holes) == np.nanmedian(holes)
    assert nan_median(values) == np.median(values)
    assert np.isnan(median([np.nan]))
    assert np.isnan(nan_median([np.nan, np.nan]))
    assert np.isnan(median(np.empty(0, np.float32)))
    whole = np.arange(10, dtype=np.int16)
    assert median(whole) == row_medians(whole) == 4.5
    infinite = np.array([1.0, np.inf, -np.inf, 2.0])
    assert median(infinite) == np.median(infinite)
