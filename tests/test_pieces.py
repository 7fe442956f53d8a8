"""Maps in pieces, and medians of a part of their pixels."""

import numpy as np
import pytest

from utils.kernels.pieces import in_pieces, median_of_some


def test_writing_into_a_piece_writes_into_its_map():
    source, target = np.arange(100_001.0), np.zeros(100_001)
    for values, out in in_pieces(source, target):
        np.multiply(values, 2.0, out=out)
    np.testing.assert_array_equal(target, 2.0 * source)


def test_median_of_a_small_map_is_numpys():
    values = np.random.default_rng(1).normal(size=(301, 97)).astype(np.float32)
    values[3, 5], values[7] = np.inf, np.nan
    assert median_of_some(values) == pytest.approx(np.median(values[np.isfinite(values)]), rel=1e-6)


def test_median_of_a_large_map_is_within_the_error_of_its_sample():
    values = np.random.default_rng(2).normal(300.0, 5.0, 1_000_000)
    sigma = 1.2533 * 5.0 / np.sqrt(10_000)
    assert 0 < abs(median_of_some(values, 10_000) - np.median(values)) < 5 * sigma


def test_no_finite_value_has_no_median():
    assert median_of_some(np.full((3, 4), np.nan)) is None
    assert median_of_some(np.empty(0)) is None
