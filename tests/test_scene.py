"""What the simulated sensor looks at: stars, lamps, hits, and responses that depend on temperature and exposure."""

import numpy as np
import pytest

from utils.kernels.scene import Scene, StarField, led_pattern
from utils.kernels.sensor import Sensor, SensorSpec

SHAPE = (60, 90)


def bare(**terms):
    return Sensor(
        SensorSpec.bare(**{"shape": SHAPE, "seed": 5, "bit_depth": 16, "left_justified": False, **terms})
    )


@pytest.mark.parametrize("psf", ["moffat", "gaussian"])
def test_stars_keep_their_light_and_move_with_the_dither(psf):
    stars = StarField(SHAPE, count=1, seed=2, faintest=999.0, brightest=1001.0, psf=psf, margin=0)
    assert stars.flux == pytest.approx([1000.0], abs=1.0)
    to_middle = 45 - stars.x[0], 30 - stars.y[0]
    light = stars.light(*to_middle)
    assert light.dtype == np.float32
    # A Moffat profile of beta 2.5 has (1 + (r/alpha)^2)^-1.5 of its light beyond r, 0.13 % at 24 pixels.
    assert light.sum() == pytest.approx(stars.flux[0], rel=3e-3)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    assert ((light * x).sum() / light.sum(), (light * y).sum() / light.sum()) == pytest.approx(
        (45, 30), abs=1e-3
    )
    # Half the peak at half the width: fwhm 3 lies between pixels 1 and 2.
    assert light[30, 46] > light[30, 45] / 2 > light[30, 47]
    moved = stars.light(to_middle[0] + 7, to_middle[1] - 4, scale=2.0)
    np.testing.assert_allclose(moved[20:30, 30:60], 2 * light[24:34, 23:53], rtol=1e-4, atol=1e-4)
    assert not stars.light(500.0, 0.0).any()


def test_star_numbers_and_brightness():
    field = StarField((400, 500), count=300, seed=3, faintest=100.0, brightest=10_000.0, margin=50)
    inside = (abs(field.x - 249.5) < 250) & (abs(field.y - 199.5) < 200)
    assert abs(inside.sum() - 300) < 5 * np.sqrt(300)
    assert field.flux.min() >= 100
    assert field.flux.max() <= 10_000
    # N(> F) ~ 1/F between the ends: (1/300 - 1/1e4) / (1/100 - 1/1e4) are above 300.
    share = (1 / 300 - 1e-4) / (1 / 100 - 1e-4)
    assert abs(np.mean(field.flux > 300) - share) < 5 * np.sqrt(share * (1 - share) / field.flux.size)
    again = StarField((400, 500), count=300, seed=3, faintest=100.0, brightest=10_000.0, margin=50)
    np.testing.assert_array_equal(field.light(1.5, 2.5), again.light(1.5, 2.5))


def test_sky_flat_is_sky_and_stars_through_the_response():
    sensor = bare(prnu=0.02, vignetting_k1=-0.2, bias_level=100.0)
    light = StarField(SHAPE, count=40, seed=4).light(3.2, -1.7)
    scene = Scene(light=light)
    expected = (500.0 + light.astype(float)) * sensor.true_flat()
    np.testing.assert_allclose(sensor.true_signal("flat", 0.0, 1.0, 500.0, scene), expected, rtol=1e-6)
    n = 100
    frames = sensor.stack("flat", np.zeros(n), 1.0, rng=1, level=500.0, scene=scene).astype(float) - 100
    noise = sensor.true_noise("flat", 0.0, 1.0, 500.0, scene)
    pull = (frames.mean(axis=0) - expected) / noise * np.sqrt(n)
    unsaturated = expected < 60_000
    assert unsaturated.mean() > 0.99
    assert abs(pull[unsaturated].mean()) < 5 / np.sqrt(pull.size)
    assert abs(pull[unsaturated].std() - 1) < 5 / np.sqrt(2 * pull.size)
    # Stars alone, without any sky.
    dark_sky = sensor.frame("flat", 0.0, 1.0, rng=1, level=0.0, scene=scene)
    bright = light > 400
    assert bright.any()
    assert dark_sky[bright].min() > 100 + 200
    assert np.median(dark_sky) < 100 + 20


@pytest.mark.parametrize("shape", [SHAPE, (1, 7), (256, 256)])
def test_led_pattern_is_smooth_positive_and_of_mean_one(shape):
    pattern = led_pattern(shape, seed=7)
    assert pattern.shape == shape
    assert pattern.mean() == pytest.approx(1, abs=1e-6)
    if min(shape) > 1:
        assert 0.03 < np.ptp(pattern) < 0.5
        # Large scales only: from pixel to pixel less than the tilt and the slopes of three bumps allow.
        steepest = 0.08 / min(shape) + 3 * 0.12 * np.exp(-0.5) / (0.35 * np.hypot(*shape))
        assert np.abs(np.diff(pattern, axis=0)).max() < 1.1 * steepest
    assert not np.array_equal(pattern, led_pattern(shape, seed=8)) or min(shape) == 1
    with pytest.raises(ValueError, match="tilt: got 9, expected a pattern above 0"):
        led_pattern(SHAPE, tilt=9)


def test_satellite_flat_has_the_pattern_and_the_given_hits():
    sensor = bare(bias_level=100.0, gain=2.0, cosmic_charge=30_000.0, cosmic_spread=0.0)
    pattern = led_pattern(SHAPE, seed=7)
    n = 200
    hits = np.zeros((n, *SHAPE), bool)
    scene = Scene(pattern=pattern, cosmic=1e-3)
    frames = sensor.stack("flat", np.zeros(n), 1.0, rng=3, level=800.0, scene=scene, hits=hits) - 100.0
    tracks = n * 1e-3 * SHAPE[0] * SHAPE[1]
    assert abs(hits.sum() / (1.875 * tracks) - 1) < 5 * 1.15 / np.sqrt(tracks) + 0.03
    clean = np.where(hits, np.nan, frames)
    pull = (np.nanmean(clean, axis=0) - 800 * pattern) / np.sqrt((400 * pattern + 1 / 12) / n)
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size) + 0.003
    without = sensor.stack("flat", np.zeros(n), 1.0, rng=3, level=800.0, scene=Scene(pattern=pattern)) - 100.0
    np.testing.assert_array_equal(frames[~hits], without[~hits])


def test_response_changes_with_temperature_and_exposure_as_the_flat_model_says():
    terms = {"flat_b": 2e-3, "flat_b_spread": 5e-4, "flat_c": -1e-2, "flat_c_spread": 2e-3}
    sensor = bare(prnu=0.02, flat_t_ref=10.0, flat_exposure_ref=2.0, bias_level=100.0, **terms)
    a = sensor.true_flat()
    n = 400
    for temperature, exposure in ((10.0, 2.0), (30.0, 2.0), (0.0, 5.0)):
        expected = 3000 * (a + a * sensor.flat_b * (temperature - 10) + a * sensor.flat_c * (exposure - 2))
        np.testing.assert_allclose(3000 * sensor.true_flat(temperature, exposure), expected, rtol=1e-6)
        frames = sensor.stack("flat", np.full(n, temperature), exposure, rng=2, level=3000.0) - 100.0
        pull = (frames.mean(axis=0) - expected) / np.sqrt((expected / 2 + 1 / 12) / n)
        assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
        assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)
    assert abs(sensor.flat_b.std() - 5e-4) < 5 * 5e-4 / np.sqrt(2 * sensor.flat_b.size)
    assert abs(sensor.flat_c.mean() + 1e-2) < 5 * 2e-3 / np.sqrt(sensor.flat_c.size)


def test_column_noise_is_common_to_a_column_of_one_frame():
    frames = bare(column_noise=20.0, bias_level=1000.0).stack("bias", np.zeros(30), rng=3).astype(float)
    assert np.all(np.ptp(frames, axis=1) == 0)
    columns = frames[:, 0] - 1000
    assert abs(columns.std() - 20) < 5 * 20 / np.sqrt(2 * columns.size)
    for one, other in ((columns[1:], columns[:-1]), (columns[:, 1:], columns[:, :-1])):
        assert abs(np.mean(one * other) / 400) < 5 / np.sqrt(one.size)
    both = bare(column_noise=20.0, row_noise=5.0, bias_level=1000.0)
    rows_only = bare(row_noise=5.0, bias_level=1000.0)
    lines = [sensor.stack("bias", np.zeros(3), rng=3).astype(float) for sensor in (both, rows_only)]
    # The rows are the same with and without the columns, in later frames too.
    assert np.ptp((lines[0] - lines[1]), axis=1).max() <= 1


def test_droop_is_the_linearity_that_frames_show():
    sensor = bare(full_well=20_000.0, gain_droop=0.02, gain=2.0, bias_level=1000.0)
    for level in (500.0, 3000.0, 7000.0):
        seen = sensor.measured_charge(2 * level)
        np.testing.assert_allclose(seen / (2 * level) - 1, -0.02 * 2 * level / 20_000, rtol=1e-5)
        frames = sensor.stack("flat", np.zeros(50), 1.0, rng=3, level=level).astype(float) - 1000
        # The mean of a square is larger by the variance: 0.02 / 20000 x mean electrons.
        expected = seen.mean() / 2 - 0.02 / 20_000 * 2 * level / 2
        assert abs(frames.mean() - expected) < 5 * np.sqrt(level / 2 / frames.size)


def test_full_wells_differ_from_pixel_to_pixel_and_their_noise_collapses():
    sensor = bare(full_well=20_000.0, full_well_spread=0.05, gain=2.0, bias_level=1000.0)
    logs = np.log(sensor.full_well_map / 20_000)
    assert abs(logs.std() - 0.05) < 5 * 0.05 / np.sqrt(2 * logs.size)
    frames = sensor.stack("flat", np.zeros(5), 1.0, rng=3, level=20_000.0).astype(float) - 1000
    assert np.all(np.ptp(frames, axis=0) == 0)
    np.testing.assert_allclose(frames[0], sensor.full_well_map / 2, atol=0.51)
    assert np.all(np.isinf(bare().full_well_map))


def test_scenes_out_of_place_are_refused():
    sensor, light = bare(), np.ones(SHAPE, np.float32)
    with pytest.raises(ValueError, match=r"scene: got light for a dark frame, expected none"):
        sensor.frame("dark", 0.0, 1.0, rng=1, scene=Scene(light=light))
    with pytest.raises(ValueError, match=r"scene\.pattern: got shape \(3, 4\), expected \(60, 90\)"):
        sensor.frame("flat", 0.0, 1.0, rng=1, level=5.0, scene=Scene(pattern=light[:3, :4]))
    with pytest.raises(ValueError, match="psf: got 'airy', expected moffat or gaussian"):
        StarField(SHAPE, psf="airy")
    with pytest.raises(ValueError, match="expected 0 < faintest < brightest"):
        StarField(SHAPE, faintest=5, brightest=2)
