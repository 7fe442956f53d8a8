"""The simulated sensor: each layer alone against the number that it was asked for, then all together."""

import dataclasses

import numpy as np
import pytest

from utils.kernels.sensor import Sensor, SensorSpec, digitise, poisson
from utils.kernels.sensor_spec import PRESETS

SHAPE = (48, 65)
MAPS = (
    *(
        "bias_a",
        "bias_b",
        "read_noise_map",
        "dark_a",
        "dark_b",
        "dark_gamma",
        "glow",
        "response",
        "illumination",
    ),
    *("prnu", "dust", "hot", "warm", "telegraph", "dead", "low_qe", "telegraph_step"),
)


def bare(**terms):
    return Sensor(SensorSpec.bare(**{"shape": SHAPE, "seed": 5, **terms}))


def wide(**terms):
    """A 16-bit converter far from its ends, where the terms under test are many steps wide."""
    return bare(**{"bit_depth": 16, "left_justified": False, "bias_level": 1000.0, **terms})


def test_bare_sensor_gives_its_bias_level_and_nothing_else():
    sensor = bare()
    assert np.all(sensor.frame("bias", -20.0, rng=1) == 100 * 16)
    assert np.all(sensor.frame("dark", 30.0, 600.0, rng=1) == 100 * 16)
    np.testing.assert_array_equal(sensor.true_bias(17.0), 100.0)
    np.testing.assert_array_equal(sensor.true_dark_rate(30.0, 600.0), 0.0)
    np.testing.assert_array_equal(sensor.true_flat(), 1.0)


@pytest.mark.parametrize("read_noise", [0.4, 1.5, 6.0])
def test_read_noise_and_quantisation(read_noise):
    # The bias pattern spreads the sub-LSB phase evenly, so that the quantisation error has 1/12 of variance.
    sensor = bare(read_noise=read_noise, bias_pixel=3.0)
    n = 400
    residual = sensor.to_adu(sensor.stack("bias", np.zeros(n), rng=2)) - sensor.true_bias(0.0)
    sigma = np.sqrt(read_noise**2 + 1 / 12)
    samples = residual.size
    assert abs(residual.std() - sigma) < 5 * sigma / np.sqrt(2 * samples)
    # The mean over pixels: noise, and the phase error of the pixels, largest where the noise dithers least.
    pixels = residual[0].size
    phase = np.exp(-2 * (np.pi * read_noise) ** 2) / np.pi / np.sqrt(2)
    assert abs(residual.mean()) < 5 * np.hypot(sigma / np.sqrt(samples), phase / np.sqrt(pixels))


def test_read_noise_spread_is_log_normal_over_pixels():
    sensor = bare(shape=(200, 200), read_noise=3.0, read_noise_spread=0.3)
    logs = np.log(sensor.read_noise_map)
    assert abs(logs.mean() - np.log(3.0)) < 5 * 0.3 / 200
    assert abs(logs.std() - 0.3) < 5 * 0.3 / 200 / np.sqrt(2)
    small = bare(shape=(8, 9), read_noise=3.0, read_noise_spread=0.3)
    n = 3000
    measured = small.to_adu(small.stack("bias", np.zeros(n), rng=1)).std(axis=0)
    expected = np.sqrt(small.read_noise_map**2 + 1 / 12)
    assert np.all(np.abs(measured / expected - 1) < 5 / np.sqrt(2 * n))


def test_row_noise_is_common_to_a_row_of_one_frame():
    frames = wide(row_noise=20.0).stack("bias", np.zeros(30), rng=3).astype(float)
    assert np.all(np.ptp(frames, axis=2) == 0)
    rows = frames[:, :, 0] - 1000
    assert abs(rows.std() - 20) < 5 * 20 / np.sqrt(2 * rows.size)
    # Independent from row to row and from frame to frame.
    for one, other in ((rows[1:], rows[:-1]), (rows[:, 1:], rows[:, :-1])):
        assert abs(np.mean(one * other) / 400) < 5 / np.sqrt(one.size)


def test_bias_follows_temperature_in_a_drift():
    sensor = wide(bias_slope=2.0, slope_pixel=0.3, bias_pixel=4.0)
    temperatures = np.linspace(-11.0, -9.0, 9)
    frames = sensor.stack("bias", temperatures, rng=1).astype(float)
    expected = sensor.bias_a.astype(float) + sensor.bias_b.astype(float) * temperatures[:, None, None]
    assert np.abs(frames - expected).max() < 0.501  # half a step, and float32
    slope = np.polyfit(temperatures, frames.mean(axis=(1, 2)), 1)[0]
    assert abs(slope - sensor.bias_b.mean()) < 0.01
    assert np.abs(sensor.true_bias(-9.0) - expected[-1]).max() < 1e-9


def test_session_shifts():
    sensor = wide(session_shifts=(0.0, 7.0, -3.0))
    means = [sensor.frame("bias", 0.0, rng=1, session=i).mean() for i in range(3)]
    assert means == [1000, 1007, 997]
    assert sensor.true_bias(0.0, session=1).mean() == 1007
    with pytest.raises(ValueError, match=r"session: got 3, expected 0 to 2"):
        sensor.frame("bias", 0.0, rng=1, session=3)
    assert wide().frame("bias", 0.0, rng=1, session=3).mean() == 1000


@pytest.mark.parametrize("level", [30.0, 90.0, 150.0, 3000.0])
def test_gain_by_mean_and_variance(level):
    """Exact Poisson below 200 electrons, normal above: the same mean and variance."""
    gain = 2.5
    sensor = wide(gain=gain)
    frames = sensor.stack("flat", np.zeros(60), 1.0, rng=4, level=level).astype(float) - 1000
    n = frames.size
    variance = level / gain + 1 / 12
    assert abs(frames.mean() - level) < 5 * np.sqrt(variance / n)
    kurtosis = 1 / (level * gain)  # of a Poisson deviate, in excess of the normal one
    assert abs(frames.var() / variance - 1) < 5 * np.sqrt((2 + kurtosis) / n)


def test_poisson_is_exact_where_small():
    mean = np.full(400_000, 3.0)
    draws = poisson(mean, np.random.default_rng(1))
    assert draws.dtype == np.float32
    expected = np.exp(-3.0) * np.array([1, 3, 4.5, 4.5, 3.375]) * mean.size
    counts = np.bincount(draws.astype(int))[:5]
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    assert np.all(poisson(np.zeros(10), np.random.default_rng(1)) == 0)
    mixed = poisson(np.array([0.0, 1e6]), np.random.default_rng(1))
    assert mixed[0] == 0
    assert abs(mixed[1] - 1e6) < 5e3


def test_dark_law_and_its_shot_noise():
    sensor = wide(dark_rate=4.0, dark_spread=0.3, dark_gamma=-0.1, dark_gamma_spread=0.02, dark_b_spread=0.05)
    n = 200
    for temperature, exposure in ((-5.0, 10.0), (5.0, 3.0), (0.0, 40.0)):
        rate = sensor.dark_a * exposure**sensor.dark_gamma * np.exp(sensor.dark_b * temperature)
        np.testing.assert_allclose(sensor.true_dark_rate(temperature, exposure), rate, rtol=1e-5)
        frames = sensor.stack("dark", np.full(n, temperature), exposure, rng=8).astype(float)
        pull = (frames.mean(axis=0) - 1000 - rate * exposure) / np.sqrt((rate * exposure / 2 + 1 / 12) / n)
        assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
        assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)
        chi2 = frames.var(axis=0, ddof=1) / (rate * exposure / 2 + 1 / 12)
        assert abs(chi2.mean() - 1) < 5 * np.sqrt(2.1 / n / chi2.size)
    doubling = np.median(sensor.true_dark_rate(6.5, 1.0) / sensor.true_dark_rate(0.0, 1.0))
    assert abs(doubling - 2) < 0.02
    np.testing.assert_allclose(
        sensor.true_dark_a(-8.0) * np.exp(sensor.dark_b * 8.0), sensor.dark_a, rtol=1e-6
    )


def test_dark_offset_is_in_dark_and_flat_frames_only():
    sensor = wide(dark_offset=9.0)
    assert np.all(sensor.frame("bias", 0.0, 1e-5, rng=1) == 1000)
    assert np.all(sensor.frame("dark", 0.0, 5.0, rng=1) == 1009)
    assert np.all(sensor.frame("flat", 0.0, 5.0, rng=1, level=0.0) == 1009)
    assert sensor.true_signal("dark", 0.0, 5.0).mean() == 9
    assert sensor.true_signal("bias", 0.0, 5.0).mean() == 0


def test_telegraph_pixels_have_two_levels_around_the_true_bias():
    sensor = wide(telegraph_fraction=0.02, telegraph_amplitude=200.0)
    assert sensor.telegraph.sum() == round(0.02 * sensor.telegraph.size)
    n = 400
    frames = sensor.stack("bias", np.zeros(n), rng=6).astype(float)
    assert np.all(frames[:, ~sensor.telegraph] == 1000)
    series = frames[:, sensor.telegraph]
    low, high = series.min(axis=0), series.max(axis=0)
    assert np.all((series == low) | (series == high))
    step = sensor.telegraph_step[sensor.telegraph]
    assert np.abs(high - low - step).max() <= 1.001
    duty = (series == high).mean(axis=0)
    assert duty.min() > 0.1
    assert duty.max() < 0.9
    pull = (series.mean(axis=0) - 1000) / (step * np.sqrt(duty * (1 - duty) / n))
    assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)
    assert np.all(sensor.telegraph_step[~sensor.telegraph] == 0)


def test_glow_does_not_know_the_temperature():
    sensor = wide(glow=3.0, glow_scale=0.2)
    assert sensor.glow[-1, -1] == 3
    assert sensor.glow.max() == 3
    assert abs(sensor.glow[-1, 0] - 3 * np.exp(-(SHAPE[1] - 1) / (0.2 * np.hypot(*SHAPE)))) < 1e-6
    np.testing.assert_allclose(sensor.true_dark_rate(-20.0, 1.0), sensor.true_dark_rate(20.0, 100.0))
    n = 100
    for temperature in (-20.0, 20.0):
        corner = sensor.stack("dark", np.full(n, temperature), 50.0, rng=2)[:, -1, -1]
        assert abs(corner.mean() - 1150) < 5 * np.sqrt(75 / n)


def test_full_well_and_the_bend_below_it():
    sensor = wide(full_well=20_000.0, nonlinearity=0.03, gain=2.0)
    for level, expected, spread in ((1e5, 9700, 0), (5000, 5000 * (1 - 0.03 / 64), 50), (800, 800, 20)):
        frames = sensor.stack("flat", np.zeros(10), 1.0, rng=3, level=level).astype(float) - 1000
        assert abs(frames.mean() - expected) <= 5 * spread / np.sqrt(frames.size) + 1e-9
    unlimited = wide(gain=2.0).frame("flat", 0.0, 1.0, rng=3, level=30_000.0)
    assert abs(unlimited.mean() - 31_000) < 5 * np.sqrt(15_000 / unlimited.size)


def test_digitise_rounds_clips_and_left_justifies():
    levels = np.array([-3.0, -0.4, 0.49, 0.51, 1.5, 2.5, 4094.6, 9000.0], np.float32)
    expected = np.array([0, 0, 0, 1, 2, 2, 4095, 4095])
    np.testing.assert_array_equal(digitise(levels, 12, False), expected)
    np.testing.assert_array_equal(digitise(levels, 12, True), expected * 16)
    np.testing.assert_array_equal(digitise(np.array([-1.0, 7e4]), 16, True), [0, 65535])
    assert digitise(levels, 12, True).dtype == np.uint16


@pytest.mark.parametrize("preset", PRESETS)
def test_converters(preset):
    sensor = Sensor(SensorSpec.preset(preset, shape=SHAPE))
    assert (sensor.adu_scale, sensor.full_scale) == {"12left": (16, 4095), "12": (1, 4095), "16": (1, 65535)}[
        preset
    ]
    stack = sensor.stack("flat", np.zeros(3), 1.0, rng=1, level=0.4 * sensor.full_scale)
    assert stack.dtype == np.uint16
    assert np.gcd.reduce(stack, axis=None) == sensor.adu_scale
    adu = sensor.to_adu(stack)
    assert adu.dtype == np.float32
    assert abs(np.median(adu) / np.median(0.4 * sensor.full_scale * sensor.true_flat()) - 1.05) < 0.1
    lit = sensor.to_adu(sensor.frame("flat", 0.0, 1.0, rng=1, level=10.0 * sensor.full_scale))
    # The full well saturates first, so that the pile-up is below the converter's end.
    assert 0.9 * sensor.full_scale < np.median(lit) < sensor.full_scale


def test_cosmic_hits_are_short_tracks_of_log_normal_charge():
    terms = {"shape": (200, 200), "gain": 1.0, "cosmic_charge": 3000.0, "cosmic_spread": 0.5}
    sensor = wide(cosmic_per_frame=1e-4, cosmic_rate=1e-5, **terms)
    n = 150
    for exposure, rate in ((0.0, 1e-4), (30.0, 4e-4)):
        hits = np.zeros((n, 200, 200), bool)
        frames = sensor.stack("dark", np.zeros(n), exposure, rng=9, hits=hits).astype(float) - 1000
        assert np.all(frames[~hits] == 0)
        tracks = n * 40_000 * rate
        # Lengths 1, 2, 3, 4 with 1/2, 1/4, 1/8, 1/8: 1.875 pixels a track, a few lost at the edges.
        assert abs(hits.sum() / (1.875 * tracks) - 1) < 5 * 1.15 / np.sqrt(tracks) + 0.02
        mean_charge = 3000 * np.exp(0.5**2 / 2)
        assert abs(frames.sum() / (mean_charge * tracks) - 1) < 5 * 1.2 / np.sqrt(tracks) + 0.02
    assert not np.any(wide(shape=(200, 200)).stack("dark", np.zeros(3), 900.0, rng=9) != 1000)


def test_switching_cosmic_hits_off_leaves_the_rest_of_a_frame():
    spec = SensorSpec(shape=(120, 130), cosmic_per_frame=2e-3)
    hits = np.zeros(spec.shape, bool)
    with_hits = Sensor(spec).frame("dark", 10.0, 30.0, rng=7, hits=hits)
    off = dataclasses.replace(spec, cosmic_rate=0.0, cosmic_per_frame=0.0)
    without = Sensor(off).frame("dark", 10.0, 30.0, rng=7)
    assert hits.any()
    np.testing.assert_array_equal(with_hits[~hits], without[~hits])
    assert np.mean(with_hits[hits] > without[hits]) > 0.95


def test_same_seed_same_sensor_and_frames():
    spec = SensorSpec(shape=SHAPE, seed=11)
    one, other = Sensor(spec), Sensor(spec)
    for name in MAPS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    stacks = [s.stack("dark", [1.0, 2.0], 5.0, rng=3) for s in (one, other)]
    np.testing.assert_array_equal(*stacks)
    rng = np.random.default_rng(3)
    single = [one.frame("dark", t, 5.0, rng) for t in (1.0, 2.0)]
    np.testing.assert_array_equal(stacks[0], single)
    assert not np.array_equal(stacks[0], one.stack("dark", [1.0, 2.0], 5.0, rng=4))
    assert not np.array_equal(one.bias_a, Sensor(SensorSpec(shape=SHAPE, seed=12)).bias_a)
    same = one.stack("dark", [1.0, 1.0], 5.0, rng=3)
    assert not np.array_equal(same[0], same[1])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("kind", "exposure", "level"), [("bias", 0.0, None), ("dark", 30.0, None), ("flat", 2.0, 0.3)]
)
def test_true_noise_and_mean_of_the_whole_sensor(preset, kind, exposure, level):
    spec = SensorSpec.preset(
        preset, shape=(60, 70), cosmic_rate=0.0, cosmic_per_frame=0.0, telegraph_fraction=0.01
    )
    sensor = Sensor(spec)
    level = None if level is None else level * sensor.full_scale
    n = 200
    frames = sensor.to_adu(
        sensor.stack(kind, np.full(n, 3.0), exposure, rng=5, session=1, level=level)
    ).astype(float)
    mean = sensor.true_bias(3.0, session=1) + sensor.true_signal(kind, 3.0, exposure, level)
    noise = sensor.true_noise(kind, 3.0, exposure, level)
    linear = mean < 0.45 * sensor.full_scale  # elsewhere the bend of the full well shows
    assert linear.mean() > 0.99
    pull = ((frames.mean(axis=0) - mean) / noise * np.sqrt(n))[linear]
    # Row noise is shared by the 70 pixels of a row, and quantisation in a pixel at rest is not quite noise.
    assert abs(pull.mean()) < 5 * np.sqrt((1 + 70 * (spec.row_noise / noise.min()) ** 2) / pull.size)
    assert abs(pull.std() - 1) < 0.06
    ratio = frames.var(axis=0, ddof=1)[linear] / noise[linear] ** 2
    assert abs(ratio.mean() - 1) < 5 * np.sqrt(3 / n / ratio.size) + 0.002
    telegraph = ratio[sensor.telegraph[linear]]
    assert abs(telegraph.mean() - 1) < 5 * np.sqrt(3 / n / telegraph.size)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (13, 29)])
def test_any_shape(shape):
    sensor = Sensor(SensorSpec(shape=shape, cosmic_per_frame=0.5))
    for kind, level in (("bias", None), ("dark", None), ("flat", [500.0, 900.0])):
        assert sensor.stack(kind, [0.0, 1.0], 2.0, rng=1, level=level).shape == (2, *shape)
    assert all(getattr(sensor, name).shape == shape for name in MAPS)


def test_stack_takes_a_level_for_each_frame():
    means = (
        wide().stack("flat", np.zeros(3), 1.0, rng=1, level=[100.0, 400.0, 900.0]).mean(axis=(1, 2)) - 1000
    )
    assert np.abs(means - [100, 400, 900]).max() < 5 * np.sqrt(450 / (SHAPE[0] * SHAPE[1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("light", 0.0, 1.0), "kind: got 'light', expected one of bias, dark, flat"),
        (("dark", 0.0, -1.0), "exposure: got -1.0, expected 0 or more"),
        (("dark", 0.0, float("inf")), "exposure: got inf"),
        (("flat", 0.0, 1.0), "level: got None, expected the light"),
    ],
)
def test_impossible_frames_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bare().frame(*arguments, rng=1)


def test_levels_and_exposures_out_of_place_are_refused():
    with pytest.raises(ValueError, match=r"level: got 5\.0 for a dark frame, expected none"):
        bare().frame("dark", 0.0, 1.0, rng=1, level=5.0)
    with pytest.raises(ValueError, match="exposure: got 0, expected more than 0"):
        bare().true_dark_rate(0.0, 0)
