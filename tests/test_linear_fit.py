"""Weighted lines against numpy's least squares, pixel by pixel, and their errors by Monte Carlo."""

import numpy as np
import pytest

from utils.kernels.linear_fit import PIECE, fit_line, left_out_residuals

X = np.array([-19.7, -10.2, -9.9, 0.3, 10.1, 19.8])


def sample(rng, m=40):
    values = 100 + rng.normal(0, 5, m) + np.outer(X, rng.normal(0, 0.3, m)) + rng.normal(0, 1, (X.size, m))
    weights = rng.uniform(0.1, 10.0, values.shape)
    return values, weights


def lstsq_one(values, weights, origin):
    """Weighted line of one pixel by numpy.linalg: coefficients, covariance, chi-square, points."""
    good = np.isfinite(values) & np.isfinite(weights) & (weights > 0)
    design = np.column_stack([np.ones(good.sum()), X[good] - origin])
    root = np.sqrt(weights[good])
    coeff, *_ = np.linalg.lstsq(design * root[:, None], values[good] * root, rcond=None)
    cov = np.linalg.inv((design * weights[good][:, None]).T @ design)
    residual = values[good] - design @ coeff
    return coeff, cov, (weights[good] * residual**2).sum(), good.sum()


@pytest.mark.parametrize("origin", [0.0, 15.0, -273.15])
def test_lines_are_those_of_numpy(origin):
    rng = np.random.default_rng(1)
    values, weights = sample(rng)
    values[rng.random(values.shape) < 0.15] = np.nan
    weights[0, :3] = 0.0
    weights[1, :3] = np.nan
    coeff, cov, chi2, n_used = fit_line(values, weights, X, origin)
    for pixel in range(values.shape[1]):
        expected = lstsq_one(values[:, pixel], weights[:, pixel], origin)
        np.testing.assert_allclose(coeff[:, pixel], expected[0], rtol=1e-10, atol=1e-10)
        va, vb, cab = cov[:, pixel]
        np.testing.assert_allclose([[va, cab], [cab, vb]], expected[1], rtol=1e-9)
        np.testing.assert_allclose(chi2[pixel], expected[2], rtol=1e-8, atol=1e-10)
        assert n_used[pixel] == expected[3]


def test_equal_weights_are_polyfit():
    rng = np.random.default_rng(2)
    values, _ = sample(rng)
    slope, a = np.polyfit(X, values, 1)
    # One weight a frame, (n, 1), serves all pixels.
    coeff, *_ = fit_line(values.astype(np.float32), np.full((X.size, 1), 0.25), X)
    np.testing.assert_allclose(coeff, [a, slope], atol=2e-5)


def test_covariance_and_chi2_by_monte_carlo():
    rng = np.random.default_rng(3)
    m = 40_000
    sigma = np.array([0.5, 1.0, 2.0, 0.7, 1.5, 1.0])[:, None]
    values = 10.0 + 0.2 * X[:, None] + rng.normal(0, 1, (X.size, m)) * sigma
    coeff, cov, chi2, _ = fit_line(values, 1 / sigma**2, X, origin=15.0)
    measured = np.cov(coeff)
    precision = 5 * np.sqrt(2 / m)
    assert abs(measured[0, 0] / cov[0, 0] - 1) < precision
    assert abs(measured[1, 1] / cov[1, 0] - 1) < precision
    assert abs(measured[0, 1] / cov[2, 0] - 1) < precision * 2
    assert abs(coeff[0].mean() - 13.0) < 5 * np.sqrt(cov[0, 0] / m)
    assert abs(coeff[1].mean() - 0.2) < 5 * np.sqrt(cov[1, 0] / m)
    dof = X.size - 2
    assert abs(chi2.mean() / dof - 1) < 5 * np.sqrt(2 / dof / m)


def test_large_levels_and_narrow_ranges_lose_no_digits():
    x = 300.0 + np.array([0.0, 0.01, 0.02, 0.03])
    coeff, *_ = fit_line((5e4 + 0.25 * (x - 300))[:, None], np.ones((4, 1)), x, origin=300.0)
    np.testing.assert_allclose(coeff[:, 0], [5e4, 0.25], rtol=1e-6)


def test_pixels_without_two_temperatures_have_no_line():
    values = np.full((6, 5), 7.0)
    values[1:, 0] = np.nan
    values[:, 1] = np.nan
    values[2:, 2] = np.nan
    coeff, cov, chi2, n_used = fit_line(values, np.ones((6, 1)), X)
    np.testing.assert_array_equal(n_used, [1, 0, 2, 6, 6])
    assert np.isnan(coeff[:, :2]).all()
    assert np.isnan(cov[:, :2]).all()
    assert np.isnan(chi2[:2]).all()
    np.testing.assert_allclose(coeff[:, 2:], [[7] * 3, [0] * 3], atol=1e-12)
    # Several frames, all at one temperature that is no binary fraction.
    x = np.array([14.95, 14.95, 14.95, 20.1])
    values = np.array([[1.0], [2.0], [4.0], [np.nan]])
    coeff, cov, *_ = fit_line(values, np.array([[0.3], [0.7], [1.1], [1.0]]), x)
    assert np.isnan(coeff).all()
    assert np.isnan(cov).all()


def test_one_temperature_is_refused():
    with pytest.raises(ValueError, match="at least 2 distinct"):
        fit_line(np.zeros((3, 2)), np.ones((3, 1)), [5.0, 5.0, 5.0])


def test_input_is_not_changed():
    rng = np.random.default_rng(4)
    values, weights = sample(rng)
    values[0, 0] = np.nan
    kept = values.copy(), weights.copy()
    fit_line(values, weights, X)
    left_out_residuals(values, weights, X)
    np.testing.assert_array_equal(values, kept[0])
    np.testing.assert_array_equal(weights, kept[1])


@pytest.mark.parametrize("shared", [True, False])
def test_pieces_are_solved_as_one_pixel_is(shared):
    rng = np.random.default_rng(6)
    m = 2 * PIECE + 3
    values, weights = sample(rng, m)
    weights = weights[:, :1] if shared else weights
    values[2, [5, PIECE, m - 1]] = np.nan  # one piece is whole, others have holes
    values[:, 7] = np.inf
    line, left = fit_line(values, weights, X), left_out_residuals(values, weights, X)
    for pixel in (0, 5, 6, 7, PIECE - 1, PIECE, PIECE + 1, m - 2, m - 1):
        one = slice(pixel, pixel + 1)
        own = weights if shared else weights[:, one]
        expected = (*fit_line(values[:, one], own, X), *left_out_residuals(values[:, one], own, X))
        for got, alone in zip((*line, *left), expected, strict=True):
            np.testing.assert_allclose(got[..., one], alone, rtol=1e-9, atol=1e-9)
    assert line[3][7] == 0
    assert line[3][5] == X.size - 1


def test_left_out_residuals_are_those_of_a_refit():
    rng = np.random.default_rng(5)
    values, weights = sample(rng)
    values[rng.random(values.shape) < 0.1] = np.nan
    residual, variance = left_out_residuals(values, weights, X)
    compared = 0
    for pixel in range(values.shape[1]):
        for point in range(X.size):
            if np.isnan(values[point, pixel]):
                assert np.isnan(residual[point, pixel])
                continue
            others = values[:, pixel].copy()
            others[point] = np.nan
            coeff, cov, _, n = lstsq_one(others, weights[:, pixel], X[point])
            if n < 2:
                continue
            compared += 1
            np.testing.assert_allclose(residual[point, pixel], values[point, pixel] - coeff[0], rtol=1e-8)
            np.testing.assert_allclose(variance[point, pixel], cov[0, 0], rtol=1e-8)
    assert compared > 180


def test_left_out_residuals_need_a_line_through_the_others():
    values = np.full((6, 3), 5.0)
    values[2:, 0] = np.nan
    values[1:, 1] = np.nan
    residual, variance = left_out_residuals(values, np.ones((6, 1)), X)
    assert np.isnan(residual[:, :2]).all()
    assert not np.isfinite(variance[:2, :2]).any()
    np.testing.assert_allclose(residual[:, 2], 0.0, atol=1e-12)


def test_left_out_residuals_at_one_temperature_are_undefined():
    x = np.array([14.95, 14.95, 14.95, 20.1])
    values = np.array([[1.0], [2.0], [4.0], [np.nan]])
    weights = np.array([[0.3], [0.7], [1.1], [1.0]])
    assert np.isnan(left_out_residuals(values, weights, x)[0]).all()
    # With one point elsewhere, that point alone cannot be predicted.
    values[3] = 3.0
    residual = left_out_residuals(values, weights, x)[0]
    assert np.isnan(residual[3, 0])
    assert np.isfinite(residual[:3]).all()
