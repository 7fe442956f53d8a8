"""The clipped mean against the rule of its docstring, written out in float64 for one pixel at a time."""

import numpy as np
import pytest

from tests.stack_frames import reference
from utils.kernels.combine import NO_DATA, SATURATED, UNSTABLE, CombineRule, combine

COUNTS = (2, 3, 4, 5, 10, 40, 130)


def agree(stack, rule):
    kept = stack.copy()
    value, variance, n_used, flags = combine(stack, rule)
    expected = reference(stack, rule)
    np.testing.assert_array_equal(n_used, expected[2])
    np.testing.assert_array_equal(flags, expected[3])
    # Integers have a float64 mean.  Floats are summed as float32 distances, and the variance comes from float32
    # distances too: their errors are those of float32, of a distance and not of the level.
    np.testing.assert_array_equal(np.isnan(value), np.isnan(expected[0]))
    error = np.nan_to_num(value - expected[0])
    assert (np.abs(error) <= 2e-15 * np.abs(np.nan_to_num(expected[0])) + 1e-9 + _rounding(stack)).all()
    np.testing.assert_allclose(variance, expected[1], rtol=2e-5, atol=1e-7)
    assert value.dtype == np.float64
    np.testing.assert_array_equal(stack, kept, err_msg="the caller's array was changed")
    return value, variance, n_used, flags


def _rounding(stack):
    """What float32 leaves of the largest distance between samples of each pixel; 0 for integers."""
    if stack.dtype.kind in "iu":
        return 0.0
    used = np.isfinite(stack)
    distance = np.where(used, stack, -np.inf).max(axis=0) - np.where(used, stack, np.inf).min(axis=0)
    return 2.0**-24 * np.sqrt(len(stack)) * np.maximum(distance, 0.0)


def noisy(rng, n, m, level=300.0, sigma=3.0):
    pattern = level + rng.normal(0.0, 4.0, m)
    return pattern + rng.normal(0.0, sigma, (n, m))


def faulty(rng, n, m=700, sigma=3.0):
    """Clean pixels and, in equal parts, one outlier, several outliers, telegraph, hot and noisy pixels."""
    stack = noisy(rng, n, m, sigma=sigma)
    part = m // 7
    stack[rng.integers(0, n, part), np.arange(part)] += rng.uniform(3, 300, part) * sigma
    for column in range(part, 2 * part):
        hit = rng.permutation(n)[: 1 + rng.integers(0, max(1, n // 5))]
        stack[hit, column] += rng.uniform(5, 100) * sigma * rng.choice([-1, 1])
    telegraph = rng.random((n, part)) < rng.uniform(0.05, 0.5, part)
    stack[:, 2 * part : 3 * part] += 15 * sigma * telegraph
    hot = rng.uniform(1e3, 2e4, part)
    stack[:, 3 * part : 4 * part] += hot + rng.normal(0.0, np.sqrt(hot), (n, part))
    stack[:, 4 * part : 5 * part] += rng.normal(0.0, 6 * sigma, (n, part))
    return stack


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("method", ["sigclip", "median", "mean"])
def test_integers_follow_the_rule(n, method):
    rng = np.random.default_rng(n)
    stack = np.rint(faulty(rng, n)).astype(np.int16)
    _, _, n_used, flags = agree(stack, CombineRule(method, 4.0, 9.0 + 1 / 12))
    if method != "mean" and n > 4:
        assert (n_used < n).sum() > 50
        assert (flags & UNSTABLE).any()


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("method", ["sigclip", "median", "mean"])
def test_floats_with_unusable_samples_follow_the_rule(n, method):
    rng = np.random.default_rng(100 + n)
    stack = faulty(rng, n).astype(np.float32)
    stack[rng.random(stack.shape) < 0.05] = np.nan
    stack[:, ::17] = np.nan
    stack[1:, 3::17] = np.nan
    stack[2:, 5::17] = np.nan
    _, variance, n_used, flags = agree(stack, CombineRule(method, 4.0, 9.0))
    assert (n_used[::17] == 0).all()
    assert (flags[::17] == NO_DATA).all()
    assert np.isnan(variance[3::17]).all()


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_rule_without_a_floor_and_with_a_growing_one(n, dtype):
    rng = np.random.default_rng(200 + n)
    stack = faulty(rng, n)
    stack = (np.rint(stack) if dtype == np.int16 else stack).astype(dtype)
    agree(stack, CombineRule("sigclip", 3.0, 0.0))
    agree(stack, CombineRule("sigclip", 5.0, 9.0, inverse_gain=1.0, zero_level=300.0))


@pytest.mark.parametrize("n", [3, 5, 10, 40])
@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.4, 1.0])
def test_noise_below_one_step_follows_the_rule(n, sigma):
    rng = np.random.default_rng(int(1000 * sigma) + n)
    stack = np.rint(faulty(rng, n, sigma=sigma)).astype(np.int16)
    agree(stack, CombineRule("sigclip", 4.0, sigma**2 + 1 / 12))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_integers_at_the_ends_of_their_range(dtype):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(3)
    for centre in (info.min, info.max):
        stack = np.clip(np.rint(centre + rng.normal(0, 3.0, (20, 300))), info.min, info.max).astype(dtype)
        stack[4, :100] = info.max if centre == info.min else info.min
        _, _, n_used, _ = agree(stack, CombineRule("sigclip", 4.0, 9.0))
        assert (n_used[:100] <= 19).all()


def test_one_frame_is_itself_without_scatter():
    stack = np.arange(10, dtype=np.int16)[None]
    value, variance, n_used, flags = combine(stack, CombineRule("sigclip", 4.0, 1.0))
    np.testing.assert_array_equal(value, stack[0])
    assert np.isnan(variance).all()
    assert (n_used == 1).all()
    assert (flags == 0).all()


def test_result_of_a_pixel_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(4)
    for dtype in (np.int16, np.float32):
        stack = faulty(rng, 17).astype(dtype)
        whole = combine(stack, CombineRule("sigclip", 4.0, 9.0))
        for width in (64, 101):
            for start in range(0, stack.shape[1], width):
                part = combine(stack[:, start : start + width], CombineRule("sigclip", 4.0, 9.0))
                for got, expected in zip(part, whole, strict=True):
                    np.testing.assert_array_equal(got, expected[start : start + width])


def test_scratch_and_strided_input_change_nothing():
    rng = np.random.default_rng(5)
    rule = CombineRule("sigclip", 4.0, 9.0)
    wide = np.rint(faulty(rng, 12)).astype(np.int16)
    plain = combine(np.ascontiguousarray(wide[:, 100:400]), rule)
    scratch = np.full((12, 300), np.nan, np.float32)
    for got, expected in zip(combine(wide[:, 100:400], rule, scratch), plain, strict=True):
        np.testing.assert_array_equal(got, expected)


# --- accuracy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 10, 40, 130])
@pytest.mark.parametrize("quantised", [True, False])
def test_efficiency_on_clean_frames(n, quantised):
    # Efficiency: variance of the plain mean over that of the clipped mean; the same samples enter both.
    rng = np.random.default_rng(6 + n)
    m = 40000
    truth = 200.0 + rng.random(m)
    stack = truth + rng.normal(0.0, 3.0, (n, m))
    stack = np.rint(stack).astype(np.int16) if quantised else stack.astype(np.float32)
    value, *_ = combine(stack, CombineRule("sigclip", 4.0, 9.0 + quantised / 12))
    plain = stack.mean(axis=0, dtype=np.float64)
    efficiency = np.var(plain - truth) / np.var(value - truth)
    # k = 4: about 6e-5 of the samples are lost, far less than the noise of this estimate lets one see.
    assert 0.995 < efficiency < 1.005


@pytest.mark.parametrize("n", [5, 9, 10, 20, 40])
def test_read_noise_of_0p4_lsb_leaves_no_bias(n):
    # Levels cover all phases between two steps; over them the error of quantisation averages out.
    rng = np.random.default_rng(7 + n)
    m = 120_000
    truth = 100.0 + (np.arange(m) + 0.5) / m
    stack = np.rint(truth + rng.normal(0.0, 0.4, (n, m))).astype(np.int16)
    value, _, n_used, flags = combine(stack, CombineRule("sigclip", 4.0, 0.4**2 + 1 / 12))
    assert abs((value - truth).mean()) < 0.002
    # The trap: a MAD of 0 or 1 would reject about a third of good samples.
    assert n_used.sum() > 0.995 * n * m
    assert flags.astype(bool).mean() < 1e-3
    if n == 40:
        phase = truth % 1
        by_phase = np.array(
            [(value - truth)[(phase >= p) & (phase < p + 0.05)].mean() for p in np.arange(0, 1, 0.05)]
        )
        # Widrow: 1 / pi exp(-2 pi^2 0.4^2) = 0.0135 at most; noise of a bin of 6,000 pixels: 0.001.
        assert 0.009 < np.abs(by_phase).max() < 0.0135 + 5 * 0.49 / np.sqrt(n * m / 20)


@pytest.mark.parametrize("n", [5, 10, 20])
def test_cosmic_hits_do_not_move_the_master(n):
    rng = np.random.default_rng(8 + n)
    m, sigma = 20000, 2.0
    truth = 150.0 + rng.random(m)
    stack = np.rint(truth + rng.normal(0.0, sigma, (n, m)))
    struck = np.arange(m) % 4 == 0
    stack[rng.integers(0, n, m), np.arange(m)] += np.where(struck, rng.uniform(50, 3000, m), 0)
    value, variance, n_used, flags = combine(
        stack.astype(np.int16), CombineRule("sigclip", 4.0, sigma**2 + 1 / 12)
    )
    error = value - truth
    scatter = np.sqrt(sigma**2 + 1 / 12)
    assert (n_used[struck] == n - 1).mean() > 0.998
    # Every hit is found; a good sample beyond 4 sigma beside it makes a pixel look unstable, rarely.
    assert flags[struck].astype(bool).mean() < 1e-3
    struck &= flags == 0
    assert abs(error[struck].mean()) < 5 * scatter / np.sqrt((n - 1) * struck.sum())
    assert abs(error[struck].std() * np.sqrt(n - 1) / scatter - 1) < 5 / np.sqrt(2 * struck.sum())
    assert abs(np.mean(variance[flags == 0]) / scatter**2 - 1) < 5 * np.sqrt(2 / ((n - 1) * m)) + 0.001


def test_scatter_is_unbiased_and_that_of_clipped_samples_follows_the_known_factor():
    rng = np.random.default_rng(9)
    stack = rng.normal(0.0, 1.0, (400, 5000)).astype(np.float32)
    plain = combine(stack, CombineRule("mean"))[1]
    assert abs(plain.mean(dtype=float) - 1) < 5 * np.sqrt(2 / stack.size)
    # The limit is 2.5 sigma: floor 1.25, which the MAD of 400 samples (1 +- 0.06) never exceeds.
    clipped, n_used = combine(stack, CombineRule("sigclip", 2.0, 1.25**2))[1:3]
    # Variance of a Gaussian cut at +- c: 1 - 2 c phi(c) / (2 Phi(c) - 1), by numerical integration.
    x = np.linspace(-2.5, 2.5, 20001)
    density = np.exp(-0.5 * x * x)
    expected = (density * x * x).sum() / density.sum()
    assert abs(clipped.mean(dtype=float) / expected - 1) < 5 * np.sqrt(2 / stack.size)
    kept = density.sum() * (x[1] - x[0]) / np.sqrt(2 * np.pi)
    assert abs(n_used.mean() / 400 - kept) < 5 * np.sqrt(kept * (1 - kept) / stack.size)


def test_efficiency_at_a_read_noise_of_0p4_lsb():
    rng = np.random.default_rng(12)
    m = 120_000
    truth = 100.0 + (np.arange(m) + 0.5) / m
    stack = np.rint(truth + rng.normal(0.0, 0.4, (5, m))).astype(np.int16)
    value, *_ = combine(stack, CombineRule("sigclip", 4.0, 0.4**2 + 1 / 12, step=1.0))
    assert np.var(stack.mean(axis=0) - truth) / np.var(value - truth) >= 0.97


# --- flags ----------------------------------------------------------------------------------------


def test_more_than_a_tenth_lost_is_unstable_and_kept_whole():
    base = np.tile(np.array([99, 100, 101, 100], np.int16), 10)[:, None]
    stack = np.repeat(base, 6, axis=1)
    for column, hits in enumerate((0, 1, 4, 5, 12, 20)):
        stack[:hits, column] += 500
    value, variance, n_used, flags = combine(stack, CombineRule("sigclip", 4.0, 1.0))
    # 20 hits of 40 make the MAD itself wide: nothing is rejected, and nothing flagged.
    np.testing.assert_array_equal(n_used, [40, 39, 36, 40, 40, 40])
    np.testing.assert_array_equal(flags, [0, 0, 0, UNSTABLE, UNSTABLE, 0])
    np.testing.assert_allclose(value[3:], stack[:, 3:].mean(axis=0))
    np.testing.assert_allclose(variance[3:], stack[:, 3:].var(axis=0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("method", ["sigclip", "median", "mean"])
def test_saturated_samples_are_left_out_and_many_of_them_flagged(method, dtype):
    rng = np.random.default_rng(10)
    stack = np.rint(rng.normal(100, 2, (10, 50))).astype(dtype)
    stack[3, 7] = 4095
    stack[:5, 8] = 4095
    stack[:, 9] = 4095
    stack[2, 11] = 4094
    value, _, n_used, flags = combine(stack, CombineRule(method, 4.0, 4.0, saturation=4095))
    # One saturated sample of ten is a hit; more of them are the pixel's way.
    np.testing.assert_array_equal(np.flatnonzero(flags & SATURATED), [8, 9])
    np.testing.assert_array_equal(n_used[[7, 8, 9]], [9, 5, 0])
    expected = np.median(stack[:, 7]) if method == "median" else np.delete(stack[:, 7], 3).mean()
    np.testing.assert_allclose(value[7], expected)
    expected = np.median(stack[5:, 8]) if method == "median" else stack[5:, 8].mean()
    np.testing.assert_allclose(value[8:10], [expected, 4095])


@pytest.mark.parametrize("method", ["sigclip", "median", "mean"])
def test_saturated_pixel_with_an_unusable_sample_is_saturated(method):
    stack = np.full((6, 3), np.inf, np.float32)
    stack[2] = np.nan
    stack[3, 2] = 1000.0
    value, _, n_used, flags = combine(stack, CombineRule(method, 4.0, 1.0, saturation=4095.0))
    np.testing.assert_array_equal(value, [4095, 4095, 1000])
    np.testing.assert_array_equal(n_used, [0, 0, 1])
    np.testing.assert_array_equal(flags, SATURATED)


def test_two_hits_that_differ_are_rejected_and_two_that_agree_are_a_second_level():
    stack = np.tile(np.array([99, 100, 101, 100, 100], np.int16), 2)[:, None].repeat(2, axis=1)
    stack[3:5, 0] = [400, 900]
    stack[3:5, 1] = [400, 402]
    _, _, n_used, flags = combine(stack, CombineRule("sigclip", 4.0, 1.0))
    np.testing.assert_array_equal(n_used, [8, 10])
    np.testing.assert_array_equal(flags, [0, UNSTABLE])


def test_unusable_rules_are_refused():
    with pytest.raises(ValueError, match="method must be one of"):
        CombineRule("mode")
    for k in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="clip_sigma must be positive"):
            CombineRule("sigclip", k)


def test_floor_grows_with_the_signal():
    rule = CombineRule("sigclip", 4.0, 4.0, inverse_gain=0.5, zero_level=100.0)
    np.testing.assert_allclose(rule.floor(np.array([0.0, 100.0, 110.0])), [2.0, 2.0, 3.0])
