"""The median of every column is numpy's, whatever the number of samples and their type."""

import numpy as np
import pytest

from utils.kernels.median_network import NETWORK_LIMIT, WIDE, WIDE_LIMIT, median_comparators, median_pair

COUNTS = [*range(1, 61), 100, 127, 128, 129, 130, 131, 300]


def columns(n, dtype, rng):
    """Random columns, columns full of ties, and columns in order, against the order, and constant."""
    if np.dtype(dtype).kind == "f":
        loose = rng.normal(0.0, 1e3, (n, 40)).astype(dtype)
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        loose = rng.integers(low, high, (n, 40), dtype=dtype, endpoint=True)
    ties = rng.integers(0, 3, (n, 40)).astype(dtype)
    ramp = np.arange(n).astype(dtype)
    return np.concatenate([loose, ties, np.stack([ramp, ramp[::-1], np.full(n, 7, dtype)], axis=1)], axis=1)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.float64])
def test_median_is_exactly_that_of_numpy(dtype):
    rng = np.random.default_rng(1)
    for n in COUNTS:
        stack = columns(n, dtype, rng)
        kept = stack.copy()
        low, high = median_pair(stack)
        ordered = np.sort(stack, axis=0)
        np.testing.assert_array_equal(low, ordered[(n - 1) // 2], err_msg=f"n = {n}")
        np.testing.assert_array_equal(high, ordered[n // 2], err_msg=f"n = {n}")
        assert low.dtype == high.dtype == np.dtype(dtype)
        middle = 0.5 * (low.astype(np.float64) + high)
        np.testing.assert_array_equal(middle, np.median(stack.astype(np.float64), axis=0), err_msg=f"n = {n}")
        np.testing.assert_array_equal(stack, kept, err_msg="the caller's array was changed")


@pytest.mark.parametrize("n", range(1, 13))
def test_network_finds_the_middle_of_every_row_of_zeros_and_ones(n):
    # A comparator network that is right for all sequences of 0 and 1 is right for all (Knuth 5.3.4).
    rows = (np.arange(2**n) >> np.arange(n)[:, None]) & 1
    low, high = median_pair(rows.astype(np.int16))
    ones = rows.sum(axis=0)
    np.testing.assert_array_equal(low, ones >= n - (n - 1) // 2)
    np.testing.assert_array_equal(high, ones >= n - n // 2)


def test_pruned_network_is_shorter_than_a_sort_and_in_range():
    for n in (9, 25, 64, NETWORK_LIMIT):
        steps, low, high = median_comparators(n)
        assert (low, high) == ((n - 1) // 2, n // 2)
        assert all(0 <= i < j < n and (need_min or need_max) for i, j, need_min, need_max in steps)
        assert any(not (need_min and need_max) for _, _, need_min, need_max in steps)


@pytest.mark.parametrize("n", [129, 200, WIDE_LIMIT, WIDE_LIMIT + 1])
@pytest.mark.parametrize("columns", [WIDE - 1, WIDE])
def test_many_samples_of_many_columns(n, columns):
    stack = np.random.default_rng(n).integers(-40, 40, (n, columns)).astype(np.int16)
    low, high = median_pair(stack)
    np.testing.assert_array_equal(0.5 * (low.astype(float) + high), np.median(stack, axis=0))


@pytest.mark.parametrize("n", [3, 8, 140])
def test_strided_and_single_columns(n):
    rng = np.random.default_rng(2)
    wide = rng.integers(-50, 50, (n, 33)).astype(np.int16)
    for view in (wide[:, 4:29:3], wide[:, :1], wide[:, ::-1], wide[::-1]):
        low, high = median_pair(view)
        np.testing.assert_array_equal((low.astype(float) + high) / 2, np.median(view, axis=0))


@pytest.mark.parametrize("n", [7, 128, 129, 200])
def test_further_axes_are_kept(n):
    stack = np.random.default_rng(n).integers(0, 999, (n, 3, 5)).astype(np.int16)
    low, high = median_pair(stack)
    assert low.shape == high.shape == (3, 5)
    np.testing.assert_array_equal(0.5 * (low.astype(float) + high), np.median(stack, axis=0))
