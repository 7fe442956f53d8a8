"""Kernels of the dark law: batched fit, sensor-wide distribution, gain and full well, levels of unstable pixels."""

import numpy as np
import pytest

from utils.kernels import dark_algebra, dark_fit, dark_law, dark_levels, dark_noise, dark_population

T = np.repeat([-10.0, 0.0, 10.0], 4)
E = np.tile([1.0, 10.0, 60.0, 200.0], 3)
FRAMES = np.full(T.size, 10.0)
GAIN, READ = 2.0, 2.5


def made(m, seed, *, bias_sigma=0.0, offset=0.0, a=0.3, b=0.1, gamma=0.02):
    """Signals of m pixels with their noise; returns signals, design, bias error, truth."""
    rng = np.random.default_rng(seed)
    a, b, gamma = (np.broadcast_to(np.asarray(v, float), m) for v in (a, b, gamma))
    true = E[:, None] * a * np.exp(np.outer(T, b) + np.outer(np.log(E), gamma))
    noise = np.sqrt((READ + np.maximum(true, 0) / GAIN) / FRAMES[:, None])
    level = bias_sigma * rng.standard_normal(m)
    signal = true + noise * rng.standard_normal(true.shape) - level + offset
    strength = np.median(true, axis=1) ** 2 / np.median(noise, axis=1) ** 2
    error = dark_fit.BiasError(np.full(m, bias_sigma**2)) if bias_sigma else None
    return signal.astype(np.float32), dark_fit.Design.of(T, E, FRAMES, strength), error, (a, b, gamma)


def fit(signal, design, bias=None, prior=None):
    prior = prior or dark_fit.Prior(0.1, 0.05, 0.0, 0.5)
    read = np.full(signal.shape[1], READ)
    return dark_fit.fit_pixels(signal, read, design, prior, inverse_gain=1 / GAIN, bias=bias)


@pytest.mark.parametrize("bias_sigma", [0.0, 0.5])
def test_parameters_and_their_errors(bias_sigma):
    signal, design, bias, (a, b, gamma) = made(4000, 1, bias_sigma=bias_sigma)
    params, cov = dark_law.at_reference(fit(signal, design, bias), design, 0.0)
    for value, true, variance in zip(params, (a, b, gamma), cov[[0, 3, 5]], strict=True):
        pull = (value - true) / np.sqrt(variance)
        # 4000 pixels: the width is known to 1.1 %, the mean to 1.6 % of a sigma; the wide prior adds some per cent.
        assert abs(pull.std() - 1.0) < 0.07
        assert abs(pull.mean()) < 0.12


def test_the_bias_of_a_pixel_is_common_to_its_darks():
    """Independent noise of the same size in every map is a worse model: its errors are larger or its pulls wrong."""
    signal, design, bias, _ = made(3000, 2, bias_sigma=1.0)
    common = fit(signal, design, bias)
    degrees = T.size - common.parameters
    assert abs(np.mean(common.chi2 / degrees) - 1.0) < 0.04
    ignored = fit(signal, design)
    assert np.mean(ignored.chi2 / degrees) > 1.5


def test_faint_and_negative_pixels_keep_their_value():
    signal, design, _, _ = made(3000, 3, a=0.0)
    found = fit(signal, design, prior=dark_fit.Prior(0.1, 0.003, 0.0, 0.01))
    assert 0.4 < np.mean(found.p < 0) < 0.6
    assert abs(np.std(found.p / np.sqrt(found.cov[0])) - 1.0) < 0.07


def test_missing_samples_and_pixels_without_any():
    signal, design, *_ = made(500, 4)
    signal[3:6, :100] = np.nan
    signal[:, 7] = np.nan
    found = fit(signal, design)
    assert found.n_used[0] == T.size - 3
    assert found.n_used[7] == 0
    assert np.isnan(found.p[7])
    rest = np.delete(np.arange(500), 7)
    assert np.isfinite(found.p[rest]).all()
    assert np.all(found.cov[0][:7] > np.median(found.cov[0][100:]) * 0.9)


def test_blocks_do_not_change_a_result():
    signal, design, bias, _ = made(997, 5, bias_sigma=0.3)
    whole = fit(signal, design, bias)
    for part in (slice(0, 101), slice(101, 997)):
        some = fit(signal[:, part], design, bias.at(part))
        np.testing.assert_allclose(some.p, whole.p[part], rtol=2e-4, atol=1e-5)


def test_support_of_the_sensor_earns_its_keep():
    rng = np.random.default_rng(6)
    b, gamma = 0.1 + 0.003 * rng.standard_normal(6000), 0.01 * rng.standard_normal(6000)
    signal, design, _, _ = made(6000, 6, a=0.05, b=b, gamma=gamma)
    free = fit(signal, design)
    helped = fit(signal, design, prior=dark_fit.Prior(0.1, 0.003, 0.0, 0.01))
    true = 0.05 * np.exp(5 * b + gamma * np.log(30.0))
    errors = []
    for one in (free, helped):
        params, cov = dark_law.at_reference(one, design, 0.0)
        value, sigma = dark_law.rate(params, cov, 5.0, 30.0)
        errors.append(np.std(value - true))
        assert abs(np.std((value - true) / sigma) - 1.0) < 0.07
    assert errors[1] < 0.8 * errors[0]


def test_scatter_of_a_population_beyond_known_errors():
    rng = np.random.default_rng(7)
    sigma = rng.uniform(0.5, 3.0, 20000)
    for true in (0.0, 0.3, 1.5):
        off = np.hypot(true, sigma) * rng.standard_normal(sigma.size)
        found, error = dark_population.scatter(off, sigma**2)
        assert abs(found - true**2) < 4 * error
        assert found >= 0


def test_few_precise_values_decide_about_a_scatter():
    """A chi-square of all values would be lost in those that tell nothing: its error is 30 times larger here."""
    rng = np.random.default_rng(8)
    sigma = np.concatenate([np.full(500, 0.005), np.full(40000, 0.2)])
    found, error = dark_population.scatter(sigma * rng.standard_normal(sigma.size), sigma**2)
    assert error < 2.1 * 0.005**2 / np.sqrt(500)
    assert found < 4 * error


def test_a_map_that_does_not_belong_is_named():
    level = 0.3 * np.exp(0.1 * T) * E
    level[1] += 300.0
    out = dark_levels.misfits(level, READ / FRAMES + level / 20, T, E, FRAMES)
    assert out[1]
    assert out.sum() == 1
    level[1] -= 300.0
    assert not dark_levels.misfits(level, READ / FRAMES + level / 20, T, E, FRAMES).any()


def test_gain_and_full_well_from_scatter():
    rng = np.random.default_rng(8)
    signal = np.concatenate([np.full(20000, 40.0), rng.uniform(100, 4000, 3000)])
    variance = (READ + signal / GAIN) * rng.chisquare(9, signal.size) / 9
    variance[signal > 3800] = 3.0
    found = dark_noise.photon_transfer(signal, variance, np.full(signal.size, 9.0))
    assert abs(found.inverse_gain - 1 / GAIN) < 5 * found.error
    assert 3700 < found.full_well < 3900
    flat = dark_noise.photon_transfer(signal[:20000], variance[:20000], np.full(20000, 9.0))
    assert np.isnan(flat.inverse_gain)
    assert flat.full_well == np.inf


def test_pixels_struck_together_do_not_make_a_full_well():
    """A bin of the faintest signals that is full of cosmic hits, as plain means of frames keep them."""
    rng = np.random.default_rng(12)
    signal = np.concatenate([np.full(20000, 240.0), np.full(25, 785.0), rng.uniform(850, 50000, 2000)])
    variance = (READ + signal / GAIN) * rng.chisquare(9, signal.size) / 9
    variance[20000:20025] = 2e6
    signal, variance = np.append(signal, np.full(100, 60000.0)), np.append(variance, np.full(100, 3.0))
    found = dark_noise.photon_transfer(signal, variance, np.full(signal.size, 9.0), READ)
    assert found.full_well == 60000.0
    assert abs(found.inverse_gain - 1 / GAIN) < 5 * found.error


def test_a_pedestal_makes_no_full_well():
    """Signals with their bias still in them: quiet pixels at 300 ADU, and hot ones whose noise is that of the rest."""
    rng = np.random.default_rng(13)
    dark = np.concatenate([np.zeros(20000), rng.uniform(50, 900, 400)])
    variance = (READ + dark / GAIN) * rng.chisquare(5, dark.size) / 5
    found = dark_noise.photon_transfer(300.0 + dark, variance, np.full(dark.size, 5.0), READ)
    assert found.full_well == np.inf
    assert abs(found.inverse_gain - 1 / GAIN) < 5 * found.error


def test_gain_below_a_well_that_bends():
    """Response and scatter of the simulated well bend above 0.7 of it: that part does not pull the gain."""
    rng = np.random.default_rng(10)
    signal = np.concatenate([np.full(20000, 40.0), rng.uniform(100, 3900, 20000), np.full(600, 3900.0)])
    bend = 1.0 - 7 * 0.02 * (signal / 3900.0) ** 6
    for dof in (4.0, 9.0):
        variance = (READ + signal / GAIN * bend**2) * rng.chisquare(dof, signal.size) / dof
        variance[-600:] = 3.0
        found = dark_noise.photon_transfer(signal, variance, np.full(signal.size, dof), READ)
        # At 0.7 of the well the scatter is 3 % below the law, on average over the range 0.5 %.
        assert abs(found.inverse_gain * GAIN - 1.0) < 0.006 + 4 * found.error * GAIN


def test_first_gain_from_the_levels_of_groups():
    level = np.array([3.0, 10.0, 40.0, 160.0])
    assert abs(dark_noise.gain_of_levels(level, READ + level / GAIN, READ) - 1 / GAIN) < 1e-9
    assert dark_noise.gain_of_levels(level / 1000, READ + level / GAIN / 1000, READ) is None
    assert dark_noise.gain_of_levels(level, np.full(4, np.nan), READ) is None


def test_levels_of_telegraph_pixels():
    rng = np.random.default_rng(9)
    groups = []
    for number in range(10):
        samples = rng.standard_normal((10, 300))
        samples[:, 100:200] += 8.0 * rng.integers(0, 2, (10, 100))
        samples[:, 200:] *= 6.0
        if number < 3:
            samples[3, :50] += 50.0  # Hits; in every group, the same would be a second level.
        groups.append(samples)
    levels, step = dark_noise.count_levels(groups, [np.ones(300)] * 10)
    assert (levels[:100] == 1).all()
    assert (levels[100:200] > 1).mean() > 0.95
    assert (levels[200:] == 1).all()
    assert abs(np.median(step[100:200]) - 8.0) < 1.0


@pytest.mark.parametrize("n", [5, 8])
def test_levels_of_telegraph_pixels_in_groups_of_few_frames(n):
    """A level that one group shows once is there in the others too; a hit is not."""
    rng = np.random.default_rng(11)
    groups = []
    for number in range(12):
        samples = rng.standard_normal((n, 1500))
        samples[:, 500:1000] += 12.0 * rng.integers(0, 2, (n, 500))
        samples[:, 1000:] *= 5.0
        if number < 2:
            samples[number, :500] += 40.0
        groups.append(samples)
    levels, _ = dark_noise.count_levels(groups, [np.ones(1500)] * 12)
    assert (levels[:500] == 1).all()
    assert (levels[500:1000] > 1).mean() > 0.95
    assert (levels[1000:] > 1).mean() < 0.01


def test_variances_stay_positive_where_rounding_makes_parameters_one():
    """Correlations a little beyond 1, as sums in float32 give them."""
    off = np.array([1.0 - 1e-3, 1.0, 1.0 + 1e-8, 1.0 + 3e-7, -1.0 - 3e-7])
    one, none = np.ones_like(off), np.zeros_like(off)
    pp, pb, _, bb, *_ = dark_algebra.inverse(np.stack([4.0 * one, 2.0 * off, none, one, none, one]))
    for slope in (-30.0, -2.0, -0.5, 0.0, 0.5, 2.0, 30.0):
        assert np.all(pp + slope * slope * bb + 2.0 * slope * pb > 0)
    np.testing.assert_allclose(pp[0], 0.25 / (1.0 - off[0] ** 2), rtol=2e-3)


@pytest.mark.parametrize("frames", [3, 12])
def test_noise_of_a_signal_does_not_set_its_own_error(frames):
    electrons, step, read = 0.05, 10.0, 49.0
    rng = np.random.default_rng(frames)
    counts = rng.poisson(electrons * frames, 40000) / frames
    signal = (step * counts + rng.normal(0.0, np.sqrt(read / frames), counts.size)).astype(np.float32)
    level = step * electrons
    truth = read + step * level
    shot = dark_noise.shot_signal(signal, level, np.float32(truth / frames))
    quoted = (read + step * np.maximum(shot, 0.0)) / frames
    pull = (signal - level) / np.sqrt(quoted)
    # With each signal's own shot noise, cut at 0: 0.87 and 0.92.  Pixels that noise lets stand out leave some per cent.
    assert abs(pull.std() - 1.0) < 0.07


def test_shot_noise_of_bright_pixels_is_that_of_their_signal():
    signal = np.array([0.5, 500.0, 5000.0, -3.0], np.float32)
    shot = dark_noise.shot_signal(signal, 0.5, np.full(4, 16.0, np.float32))
    np.testing.assert_allclose(shot[:3], signal[:3], rtol=1e-3)
    assert abs(shot[3] - 0.5) < 1.0
