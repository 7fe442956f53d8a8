"""Factors of clipping and medians, pooled scatter and moderated variances, against published values and sums."""

from math import gamma, pi, sqrt

import numpy as np
import pytest

from utils.kernels import noise

# --- median ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "factor"), [(5, 1.198), (10, 1.176), (20, 1.212), (50, 1.236)])
def test_median_factor_of_published_tables(n, factor):
    assert abs(noise.median_factor(n) - factor) < 6e-4


@pytest.mark.parametrize(
    ("n", "variance"),
    # Variance of the sample median of a standard Gaussian: David & Nagaraja (2003) and closed forms; for 3 samples
    # 1 - sqrt(3) / pi, for 4 samples 1/4 (V22 + V33 + 2 C23) of the tables of order statistics.
    [(1, 1.0), (2, 0.5), (3, 1 - sqrt(3) / pi), (4, (0.3604553 * 2 + 0.2359439 * 2) / 4), (5, 0.2868336)],
)
def test_median_factor_of_few_samples(n, variance):
    assert abs(noise.median_factor(n) - sqrt(n * variance)) < 1e-5


@pytest.mark.parametrize("n", [6, 10, 49, 50, 128, 500])
def test_median_factor_by_monte_carlo(n):
    trials = 4_000_000 // n
    rng = np.random.default_rng(n)
    got = np.median(rng.standard_normal((n, trials), dtype=np.float32), axis=0).std(dtype=float) * sqrt(n)
    assert abs(got / noise.median_factor(n) - 1) < 5 / sqrt(2 * trials)


def test_median_factor_tends_to_its_limit_and_is_smooth():
    # The mean of the two middle values of an even number is a little better than the middle of an odd number.
    for parity in (0, 1):
        counts = [n + parity for n in (20, 60, 100, 300, 900, 1998, 2002, 10000)]
        factors = np.array([noise.median_factor(n) for n in counts])
        assert (np.diff(factors) > 0).all()
        assert (factors < sqrt(pi / 2)).all()
        loss = (sqrt(pi / 2) - factors) * counts / sqrt(pi / 2)
        assert np.ptp(loss[3:]) < 0.02
    assert abs(noise.median_factor(100_000) - 1.2533) < 1e-4


# --- clipping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2.0, 2.5, 3.0, 4.0, 5.0])
def test_clip_factor_is_that_of_a_truncated_gaussian(k):
    x = np.linspace(-k, k, 200_001)
    density = np.exp(-0.5 * x * x)
    assert abs(noise.clip_factor(k) - sqrt(density.sum() / (density * x * x).sum())) < 1e-4
    if k == 3.0:
        assert round(noise.clip_factor(k), 3) == 1.014


def test_phase_error_is_that_of_averaged_quantised_samples():
    level = np.linspace(0.0, 1.0, 401)[:-1]
    steps = np.arange(-8, 10)
    from scipy.stats import norm

    for read_noise in (0.25, 0.4, 0.6):
        edges = norm.cdf((steps[:, None] + 0.5 - level) / read_noise)
        mean = (steps[1:, None] * np.diff(edges, axis=0)).sum(axis=0)
        expected = np.sqrt(np.mean((mean - level) ** 2))
        assert abs(noise.phase_error(read_noise) / expected - 1) < 0.02
        assert abs(noise.phase_error(16 * read_noise, 16.0) / (16 * expected) - 1) < 0.02
    assert abs(noise.phase_error(0.4) * sqrt(2) - 0.0135) < 1e-4


# --- pooled scatter -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("sigma", [0.3, 0.4, 1.0, 12.0])
def test_pooled_scatter_of_integers(n, sigma):
    rng = np.random.default_rng(n)
    m = 40_000
    # All phases between two steps: the variance of the quantised samples about their mean is sigma^2 + 1/12, less
    # what each phase is always wrong by.
    stack = np.rint(100 + rng.random(m) + rng.normal(0.0, sigma, (n, m)))
    got = noise.pooled_scatter(stack)
    expected = sigma**2 + 1 / 12 - (np.exp(-2 * (pi * sigma) ** 2) / pi) ** 2 / 2
    assert abs(got / sqrt(expected) - 1) < 5 / sqrt(2 * (n - 1) * m) + 0.002
    assert abs(got / sqrt(stack.var(axis=0, ddof=1).mean()) - 1) < 5e-4


@pytest.mark.parametrize("n", [2, 5, 20])
def test_pooled_scatter_is_that_of_ordinary_pixels(n):
    rng = np.random.default_rng(n)
    m = 40_000
    stack = rng.normal(0.0, 2.0, (n, m)) + rng.normal(0.0, 30.0, m)
    stack[:, : m // 50] += rng.normal(0.0, 60.0, (n, m // 50))
    stack[0, m // 50 : m // 25] += rng.uniform(100, 5000, m // 25 - m // 50)
    stack[:, -m // 50 :] += 100.0 * (rng.random((n, m // 50)) < 0.3)
    stack[0, 5000:5100] = np.nan
    # Of the noisy pixels some look ordinary, most at two frames: less than 0.3 % of all.
    assert abs(noise.pooled_scatter(stack) / 2.0 - 1) < 0.01 + 5 / sqrt(2 * (n - 1) * m)


def test_pooled_scatter_without_data():
    assert np.isnan(noise.pooled_scatter(np.zeros((1, 5))))
    assert np.isnan(noise.pooled_scatter(np.zeros((4, 0))))
    assert np.isnan(noise.pooled_scatter(np.full((4, 5), np.nan)))
    assert noise.pooled_scatter(np.full((4, 50), 7)) == 0.0


# --- moderated variances --------------------------------------------------------------------------


@pytest.mark.parametrize("dof", [1, 2, 4, 9, 19])
@pytest.mark.parametrize("prior_dof", [20.0, np.inf])
def test_prior_of_the_sensor(dof, prior_dof):
    rng = np.random.default_rng(dof)
    m = 60_000
    true = 4.0 if np.isinf(prior_dof) else 4.0 * prior_dof / rng.chisquare(prior_dof, m)
    variance = true * rng.chisquare(dof, m) / dof
    prior, found = noise.variance_prior(variance, dof)
    # Mean of ln(variance) over m pixels: scatter at most sqrt(trigamma(1/2) + trigamma(10)).
    assert abs(prior / 4.0 - 1) < (0.08 if dof == 1 else 0.03)
    if np.isinf(prior_dof):
        # Whatever weight is found, it leaves the pixel's own variance no more than a small part.
        assert found > 100 * dof
    else:
        # ln(1 + 2 / d0) of spread in the variances, known to the error of a spread with heavier tails at 1 dof.
        assert abs(found / prior_dof - 1) < (0.6 if dof == 1 else 0.2)


def test_prior_of_too_few_pixels_is_their_mean():
    assert noise.variance_prior(np.array([1.0, 5.0, np.nan, 0.0]), 4) == (2.0, noise.ROBUST_DOF)
    prior, _ = noise.variance_prior(np.full(30, np.nan), 4)
    assert np.isnan(prior)


@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize("prior_dof", [60.0, np.inf])
def test_pulls_of_means_with_moderated_errors_are_one(n, prior_dof):
    rng = np.random.default_rng(n)
    m = 60_000
    true = np.full(m, 4.0) if np.isinf(prior_dof) else 4.0 * prior_dof / rng.chisquare(prior_dof, m)
    stack = rng.normal(0.0, np.sqrt(true), (n, m))
    variance = stack.var(axis=0, ddof=1).astype(np.float32)
    dof = np.full(m, n - 1)
    moderated, noisy = noise.moderate_variance(variance, dof, *noise.variance_prior(variance, dof))
    mean = stack.mean(axis=0)
    width = np.std(mean / np.sqrt(moderated / n))
    # Student's t with prior_dof + n - 1 degrees of freedom: width 1.015 at 60; plus the noise of m pulls.
    assert abs(width - 1) < 5 / sqrt(2 * m) + (0.0 if np.isinf(prior_dof) else 1 / prior_dof)
    assert noisy.mean() < 1e-3
    raw = np.std(mean / np.sqrt(variance / n))
    # Student's t with n - 1: the raw scatter is what science.md warns of.
    assert abs(raw / sqrt((n - 1) / (n - 3)) - 1) < 0.04


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("sigma", [0.3, 0.4, 0.6, 1.0, 3.0])
def test_pulls_of_means_of_coarse_integers_are_one(n, sigma):
    # Up to two thirds of the pixels show no scatter at all; they must not be left out of the sensor's noise.
    rng = np.random.default_rng(10 * n)
    m = 60_000
    truth = 100 + rng.random(m)
    stack = np.rint(truth + rng.normal(0.0, sigma, (n, m)))
    variance = stack.var(axis=0, ddof=1).astype(np.float32)
    dof = np.full(m, n - 1)
    moderated, noisy = noise.moderate_variance(variance, dof, *noise.variance_prior(variance, dof))
    phase = noise.phase_error(np.sqrt(np.maximum(moderated - 1 / 12, 0)))
    width = np.std((stack.mean(axis=0) - truth) / np.hypot(np.sqrt(moderated / n), phase))
    assert abs(width - 1) < 0.035
    assert noisy.mean() < 1e-3


def test_moderation_weighs_by_degrees_of_freedom():
    variance = np.array([2.0, 8.0, np.nan, 5.0], np.float32)
    moderated, noisy = noise.moderate_variance(variance, np.array([4, 12, 4, 0]), 4.0, 12.0)
    np.testing.assert_allclose(moderated, [(4 * 2 + 12 * 4) / 16, 6.0, 4.0, 4.0], rtol=1e-6)
    assert not noisy.any()


def test_noisy_pixels_keep_their_own_variance():
    rng = np.random.default_rng(1)
    variance = (4.0 * rng.chisquare(19, 50_000) / 19).astype(np.float32)
    variance[:50] = 100.0
    moderated, noisy = noise.moderate_variance(variance, np.full(variance.size, 19), 4.0, noise.ROBUST_DOF)
    assert noisy[:50].all()
    np.testing.assert_array_equal(moderated[:50], 100.0)
    # 5 sigma: one clean pixel in 3 million, a few times that in the chi-square's tail.
    assert noisy[50:].sum() <= 1


def test_c4_is_the_mean_of_a_standard_deviation():
    for dof in (1, 2, 3, 4, 5, 7, 8, 20, 99):
        exact = sqrt(2 / dof) * gamma((dof + 1) / 2) / gamma(dof / 2)
        assert abs(noise.scatter_bias(np.array([dof]))[0] / exact - 1) < 5e-5
    rng = np.random.default_rng(2)
    got = rng.normal(0, 1, (4, 200_000)).std(axis=0, ddof=1).mean()
    assert abs(got / noise.scatter_bias(np.array([3.0]))[0] - 1) < 5 * 0.42 / sqrt(200_000)


@pytest.mark.parametrize("dof", [1, 3, 20])
def test_chi2_limit_is_exceeded_as_rarely_as_that_of_a_gaussian(dof):
    from scipy.stats import chi2, norm

    # Wilson and Hilferty's cube root is not exact: few degrees of freedom exceed it more rarely.
    for sigma in (2.0, 3.0, 5.0):
        chance = chi2.sf(dof * noise.chi2_limit(dof, sigma), dof)
        assert 0.03 < chance / norm.sf(sigma) < 1.1


@pytest.mark.parametrize(("sigma", "n"), [(3.0, 5), (1.0, 5), (1.0, 12)])
def test_integers_that_repeat_by_chance_are_no_dead_pixels(sigma, n):
    rng = np.random.default_rng(3)
    samples = np.rint(rng.uniform(0, 1, 100_000) + sigma * rng.standard_normal((n, 100_000)))
    variance, dof = samples.var(axis=0, ddof=1), np.full(100_000, n - 1)
    assert not noise.impossible_zeros(variance, dof, 1.0)
    variance[:20_000] = 0.0
    assert noise.impossible_zeros(variance, dof, 1.0)


def test_read_noise_map_and_its_error():
    rng = np.random.default_rng(3)
    n, shape, true = 12, (200, 211), 3.0
    stack = rng.normal(0.0, true, (n, *shape)) + rng.uniform(-0.5, 0.5, (n, *shape))
    variance = stack.var(axis=0, ddof=1).astype(np.float32)
    read, error = noise.read_noise(variance, np.full(shape, n - 1, np.float32), 1.0)
    assert read.shape == error.shape == shape
    m = read.size
    assert abs(read.mean(dtype=float) / true - 1) < 0.002 + 5 / sqrt(2 * (n - 1) * m)
    # sqrt(1 - c4^2) / c4 is 1.1 % more than 1 / sqrt(2 dof) at 11, and sqrt(v) is 2.2 % below sigma in the mean.
    assert abs(np.std((read - true) / error.mean(dtype=float)) - 1) < 0.04
    # Scatter below the quantisation: zero with a finite error, never NaN.
    read, error = noise.read_noise(np.full((3, 3), 0.01, np.float32), np.full((3, 3), 4, np.float32), 1.0)
    assert (read == 0).all()
    assert ((error > 0) & np.isfinite(error)).all()
