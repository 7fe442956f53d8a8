"""Metrics of a comparison, from sums over blocks, against numpy over the whole."""

import numpy as np
import pytest

from utils.kernels.evaluation import Comparison, comparisons, percentage_error, sums_side_by_side


def test_metrics_are_those_of_numpy():
    rng = np.random.default_rng(1)
    real, sigma = rng.normal(50, 30, 5000), rng.uniform(1, 3, 5000)
    residual = rng.normal(0.5, 1, 5000) * sigma
    whole = Comparison()
    whole.add(real, residual, sigma)
    got = whole.metrics(degrees_of_freedom=0.8)
    known = np.abs(real) >= 3 * sigma
    pull = residual / sigma
    expected = {
        "mae": np.abs(residual).mean(),
        "mape": 100 * (np.abs(residual[known]) / np.abs(real[known])).mean(),
        "rmse": np.sqrt((residual**2).mean()),
        "mean_error": residual.mean(),
        "chi2_red": (pull**2).mean() / 0.8,
        "within_3sigma": (np.abs(pull) <= 3).mean(),
        "pixels": 5000,
        "excluded": (~known).sum(),
    }
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-12), name
    assert got["excluded"] > 100


def test_blocks_of_any_shape_add_up():
    rng = np.random.default_rng(2)
    real, residual = rng.normal(9, 3, (2, 97, 101)).astype(np.float32)
    sigma = np.ones_like(real)
    one, many = Comparison(), Comparison()
    one.add(real, residual, sigma)
    for start in range(0, 97, 13):
        rows = slice(start, start + 13)
        part = Comparison()
        part.add(real[rows], residual[rows], sigma[rows])
        many.merge(part)
    for name, value in one.metrics().items():
        assert many.metrics()[name] == pytest.approx(value, rel=1e-10), name


def test_maps_side_by_side_are_compared_as_one_after_the_other():
    rng = np.random.default_rng(3)
    shape = (4, 3000)
    real = rng.normal(9, 4, shape).astype(np.float32)
    variance = rng.uniform(0.5, 4, shape).astype(np.float32)
    residual = (rng.normal(0.2, 1.5, shape) * np.sqrt(variance)).astype(np.float32)
    use = rng.random(shape) < 0.9
    residual[0, :9], variance[1, :9], variance[2, :9] = np.nan, 0.0, np.nan
    real[3, :9] = 0.0
    expected = [Comparison() for _ in range(4)]
    for one, x, r, v, own in zip(expected, real, residual, variance, use, strict=True):
        one.add(x[own], r[own], np.sqrt(v[own], dtype=np.float64))
    sums = 0.0
    for start in range(0, 3000, 1100):
        part = slice(start, start + 1100)
        block = (np.ascontiguousarray(one[:, part]) for one in (real, residual, variance, use))
        sums = sums + sums_side_by_side(*block)
    for one, got in zip(expected, comparisons(sums), strict=True):
        assert one.pixels > 2600
        assert one.excluded > 100
        for name, value in one.metrics().items():
            # Single precision of 3000 terms.
            assert got.metrics()[name] == pytest.approx(value, rel=1e-5), name


def test_unusable_pixels_are_left_out():
    comparison = Comparison()
    nan, inf = np.nan, np.inf
    comparison.add([10, nan, 10, 10, 10, 10], [1, 1, nan, 1, 1, 1], [1, 1, 1, nan, 0, inf])
    got = comparison.metrics()
    assert (got["pixels"], got["excluded"], got["mae"], got["mape"]) == (1, 0, 1.0, 10.0)


def test_nothing_known_is_nan():
    got = Comparison().metrics()
    assert got["pixels"] == 0
    assert all(np.isnan(got[name]) for name in ("mae", "mape", "rmse", "mean_error", "chi2_red"))
    faint = Comparison()
    faint.add([1.0, -1.0], [0.5, 0.5], [1.0, 1.0])
    assert np.isnan(faint.metrics()["mape"])
    assert faint.metrics()["excluded"] == 2
    assert faint.metrics()["mae"] == 0.5


def test_percentage_error_of_faint_pixels_is_against_3_sigma():
    got = percentage_error(
        np.array([100.0, -50.0, 0.0]), np.array([1.0, -1.0, 3.0]), np.array([1.0, 1.0, 2.0])
    )
    np.testing.assert_allclose(got, [1.0, 2.0, 50.0])
