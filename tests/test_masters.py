"""Groups combined to masters, and the noise of every pixel pooled over them."""

import numpy as np
import pytest
from astropy.io import fits

from tests.frame_sets import group_of
from utils.domain.masters import CombineOptions, PooledNoise, combine_group, input_datasums
from utils.domain.screening import screen_groups
from utils.fits_io.frame_stack import StackResult

SHAPE = (60, 83)


def screened(folder, stack, temperatures=None):
    return screen_groups([group_of(folder, stack, temperatures)], adu_scale=1.0)


def simulated(rng, n, sigma=3.0, shape=SHAPE):
    truth = 150 + rng.normal(0, 5, shape)
    return truth, np.rint(truth + rng.normal(0, sigma, (n, *shape)))


@pytest.mark.parametrize("n", [2, 5, 20])
@pytest.mark.parametrize("method", ["sigclip", "median", "mean"])
def test_master_and_its_error(tmp_path, n, method):
    rng = np.random.default_rng(n)
    truth, stack = simulated(rng, n)
    screening = screened(tmp_path, stack)
    (group,) = screening.groups
    result = combine_group(group, screening, group.within, CombineOptions(method))
    plain = {"median": np.median, "mean": np.mean, "sigclip": np.mean}[method](stack, axis=0)
    whole = result.n_used == n
    assert whole.mean() > 0.99
    np.testing.assert_allclose(result.value[whole], plain[whole], rtol=1e-6)
    pooled = PooledNoise(SHAPE)
    pooled.add(result, 1.0)
    noise = pooled.finish(group.within)
    error = noise.standard_error(result.n_used, 1.0, method, 1.0)
    pull = (result.value - truth) / error
    # 5,000 pixels: the width is known to 1 %; quantisation makes medians of integers a few percent coarser.
    assert abs(pull.std() - 1) < 0.05
    assert abs(pull.mean()) < 5 / np.sqrt(truth.size)


@pytest.mark.parametrize("sigma", [6.0, 1.5])
def test_scatter_is_corrected_for_the_clip(tmp_path, sigma):
    rng = np.random.default_rng(1)
    _, stack = simulated(rng, 60, sigma=sigma)
    screening = screened(tmp_path, stack)
    (group,) = screening.groups
    noise = sigma**2 + 1 / 12
    for k in (2.5, 4.0):
        result = combine_group(group, screening, np.sqrt(noise), CombineOptions(clip_sigma=k))
        ordinary = result.flags == 0
        # At k = 2.5 the MAD of 60 samples widens the limit in half of the pixels: up to 3 % remain.
        tolerance = 5 * np.sqrt(2 / 59 / ordinary.sum()) + (0.03 if k < 3 else 0.002)
        assert abs(result.variance[ordinary].mean(dtype=float) / noise - 1) < tolerance


def test_drift_of_a_group_is_taken_out_before_clipping(tmp_path):
    rng = np.random.default_rng(2)
    n = 20
    temperatures = np.linspace(-0.5, 0.5, n)
    truth, stack = simulated(rng, n, sigma=2.0)
    stack = np.rint(stack + 12.0 * temperatures[:, None, None])
    screening = screened(tmp_path, stack, temperatures)
    (group,) = screening.groups
    result = combine_group(group, screening, group.within, CombineOptions())
    assert abs(np.sqrt(result.variance.mean(dtype=float)) / np.sqrt(4 + 1 / 12) - 1) < 0.02
    assert abs((result.value - truth).mean()) < 5 * 2 / np.sqrt(n * truth.size) + 0.01


def test_planes_and_scales_reach_the_stack(tmp_path):
    rng = np.random.default_rng(3)
    pedestal = rng.normal(100, 5, SHAPE).astype(np.float32)
    factor = rng.uniform(0.9, 1.1, SHAPE).astype(np.float32)
    stack = np.rint(1100 + rng.normal(0, 3, (8, *SHAPE)))
    stack[3, 20, 30] += 100
    screening = screened(tmp_path, stack)
    (group,) = screening.groups
    scales = rng.uniform(0.98, 1.02, 8) / 1000
    result = combine_group(group, screening, 0.02, CombineOptions(), None, scales, pedestal, factor)
    expected = ((stack - pedestal) * factor * scales[:, None, None]).mean(axis=0)
    assert result.n_used[20, 30] == 7  # 0.1 against a limit of 4 * 0.02: half a step is 0.0005, not 0.5
    whole = result.n_used == 8
    np.testing.assert_allclose(result.value[whole], expected[whole], rtol=1e-6)


def fake(variance, n):
    variance = np.asarray(variance, np.float32)
    return StackResult(
        np.zeros_like(variance),
        variance,
        np.full(variance.shape, n, np.uint16),
        np.zeros(variance.shape, np.uint8),
    )


def test_noise_is_pooled_by_degrees_of_freedom():
    rng = np.random.default_rng(3)
    shape, plan = (150, 170), ((5, 1.0), (10, 1.5), (20, 0.8))
    pooled = PooledNoise(shape)
    squares = np.zeros(shape)
    for n, factor in plan:
        variance = 9.0 * factor**2 * rng.chisquare(n - 1, shape) / (n - 1)
        pooled.add(fake(variance, n), factor)
        squares += (n - 1) * variance / factor**2
    noise = pooled.finish(99.0)
    np.testing.assert_array_equal(noise.dof, 32)
    np.testing.assert_allclose(noise.own, squares / 32, rtol=1e-5)
    assert noise.prior == pytest.approx(3.0, rel=0.01)
    assert np.sqrt(noise.variance).std() < 0.1
    assert noise.noisy.sum() <= 1
    # Of the groups with one frame and of pixels without scatter nothing is learned.
    single = PooledNoise(shape)
    single.add(fake(np.full(shape, np.nan), 1), 1.0)
    alone = single.finish(2.5)
    np.testing.assert_allclose(alone.variance, 6.25)
    assert alone.prior_dof == 0.0
    assert not alone.noisy.any()


def test_noisy_pixels_keep_their_own_noise():
    rng = np.random.default_rng(4)
    variance = 9.0 * rng.chisquare(19, (100, 100)) / 19
    variance[3, 4] = 400.0
    variance[5, 6] = np.nan
    pooled = PooledNoise(variance.shape)
    pooled.add(fake(variance, 20), 1.0)
    noise = pooled.finish(3.0)
    assert noise.noisy[3, 4]
    assert noise.variance[3, 4] == pytest.approx(400.0)
    assert noise.variance[5, 6] == pytest.approx(noise.prior**2, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "factors"),
    [("mean", [1, 1, 1, 1]), ("sigclip", [1] * 4), ("median", [1, 1, 1.19756, 1.17612])],
)
def test_error_of_the_combined_value(method, factors):
    pooled = PooledNoise((2, 2))
    noise = pooled.finish(50.0)
    n_used = np.array([[1, 2], [5, 10]], np.uint16)
    error = noise.standard_error(n_used, 1.3, method, 1.0)
    np.testing.assert_allclose(error.ravel(), 65.0 * np.array(factors) / np.sqrt(n_used.ravel()), rtol=1e-4)
    assert np.isnan(noise.standard_error(np.zeros((2, 2), np.uint16), 1.0, method, 1.0)).all()


def test_coarse_steps_leave_an_error_that_averaging_does_not_remove():
    noise = PooledNoise((1, 1)).finish(np.sqrt(0.16 + 1 / 12))
    error = noise.standard_error(np.full((1, 1), 10_000, np.uint16), 1.0, "mean", 1.0)[0, 0]
    phase = np.exp(-2 * (0.4 * np.pi) ** 2) / np.pi / np.sqrt(2)
    assert error == pytest.approx(np.hypot(np.sqrt(0.16 + 1 / 12) / 100, phase), rel=1e-3)


def test_datasums_come_from_the_card_or_the_data(tmp_path):
    group = group_of(tmp_path, np.random.default_rng(5).integers(0, 4000, (3, 7, 13)))
    group.entries[1]["datasum"] = "12345"
    expected = []
    for image in group.images:
        with fits.open(image.path, do_not_scale_image_data=True) as hdus:
            hdus[0].data  # noqa: B018  astropy sums the bytes of data that it has read
            expected.append(str(int(hdus[0]._calculate_datasum())))
    got = [str(value) for value in input_datasums(group, 1)]
    assert got == [expected[0], "12345", expected[2]]
