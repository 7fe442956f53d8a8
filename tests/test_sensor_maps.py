"""Specification and fixed maps of the simulated sensor: each pattern has its spread, and stands alone."""

import dataclasses

import numpy as np
import pytest

from utils.kernels.sensor import Sensor, SensorSpec
from utils.kernels.sensor_spec import LAYERS

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
    *("full_well_map", "flat_b", "flat_c"),
)


def bare(**terms):
    return Sensor(SensorSpec.bare(**{"shape": SHAPE, "seed": 5, **terms}))


def test_bias_pattern_of_rows_columns_and_pixels():
    size = 300
    for terms, axis in (({"bias_row": 5.0}, 1), ({"bias_column": 5.0}, 0)):
        pattern = bare(shape=(size, size), **terms).bias_a
        assert np.all(np.ptp(pattern, axis=axis) == 0)
        assert abs(pattern.mean(axis=axis).std() - 5) < 5 * 5 / np.sqrt(2 * size)
    assert abs(bare(shape=(size, size), bias_pixel=5.0).bias_a.std() - 5) < 5 * 5 / size / np.sqrt(2)
    slope = bare(
        shape=(size, size), bias_slope=0.3, slope_row=0.01, slope_column=0.02, slope_pixel=0.05
    ).bias_b
    rows, columns = slope.mean(axis=1), slope.mean(axis=0)
    assert abs(slope.mean() - 0.3) < 5 * np.hypot(0.01, 0.02) / np.sqrt(size)
    assert abs(rows.std() - 0.01) < 5 * np.hypot(0.01, 0.05 / np.sqrt(size)) / np.sqrt(2 * size)
    assert abs(columns.std() - 0.02) < 5 * np.hypot(0.02, 0.05 / np.sqrt(size)) / np.sqrt(2 * size)
    pixels = slope - rows[:, None] - columns
    assert abs(pixels.std() - 0.05) < 5 * 0.05 / size / np.sqrt(2)


def test_hot_and_warm_tail():
    sensor = bare(shape=(300, 200), dark_rate=0.1, dark_spread=0.2, hot_fraction=0.01, warm_fraction=0.03)
    assert sensor.hot.sum() == 600
    assert sensor.warm.sum() == 1800
    assert not np.any(sensor.hot & sensor.warm)
    plain = ~(sensor.hot | sensor.warm)
    for mask, median, spread in ((sensor.hot, 10.0, 0.7), (sensor.warm, 0.8, 0.4), (plain, 0.1, 0.2)):
        logs = np.log(sensor.dark_a[mask])
        assert abs(logs.mean() - np.log(median)) < 5 * spread / np.sqrt(logs.size)
        assert abs(logs.std() - spread) < 5 * spread / np.sqrt(2 * logs.size)


def test_response_has_prnu_dust_and_defects():
    shape = (200, 300)
    prnu = bare(shape=shape, prnu=0.02)
    assert abs(prnu.response.std() - 0.02) < 5 * 0.02 / np.sqrt(2 * 60_000)
    dusty = bare(shape=shape, dust_count=4, dust_depth=0.2)
    assert 0.7 < dusty.response.min() < 0.95
    assert 0.8 < np.mean(dusty.response > 0.999) < 0.999
    broken = bare(shape=shape, dead_fraction=0.001, low_qe_fraction=0.01)
    assert broken.dead.sum() == 60
    assert broken.low_qe.sum() == 600
    assert not np.any(broken.dead & broken.low_qe)
    assert broken.response[broken.dead].max() < 0.3
    assert 0.6 <= broken.response[broken.low_qe].min() < broken.response[broken.low_qe].max() < 0.85
    assert np.all(broken.response[~(broken.dead | broken.low_qe)] == 1)
    frame = broken.to_adu(broken.frame("flat", 0.0, 1.0, rng=1, level=1000.0)) - 100
    expected = 1000.0 * broken.response
    assert np.abs((frame - expected) / np.sqrt(expected / 2 + 1 / 12)).max() < 6


def test_prnu_of_rows_and_columns():
    size = 300
    for terms, axis in (({"prnu_row": 0.01}, 1), ({"prnu_column": 0.01}, 0)):
        response = bare(shape=(size, size), **terms).response
        assert np.all(np.ptp(response, axis=axis) == 0)
        assert abs(response.mean(axis=axis).std() - 0.01) < 5 * 0.01 / np.sqrt(2 * size)


def test_vignetting_is_off_centre_and_follows_its_polynomial():
    terms = {"vignetting_k1": -0.3, "vignetting_k2": 0.05, "vignetting_k3": -0.02}
    sensor = bare(shape=(40, 60), vignetting_centre=(0.6, 0.3), **terms)
    x0, y0 = sensor.vignetting_centre
    assert (x0, y0) == pytest.approx((35.5, 11.5))
    for y, x in ((0, 0), (39, 59), (12, 36)):
        r = np.hypot(y - y0, x - x0) / np.hypot(20, 30)
        assert sensor.illumination[y, x] == pytest.approx(
            1 - 0.3 * r**2 + 0.05 * r**4 - 0.02 * r**6, rel=1e-6
        )
    assert np.unravel_index(sensor.illumination.argmax(), (40, 60)) in (
        (11, 35),
        (11, 36),
        (12, 35),
        (12, 36),
    )
    np.testing.assert_allclose(sensor.true_flat(), sensor.illumination)
    with pytest.raises(ValueError, match=r"vignetting: got illumination .*, expected more than 0"):
        bare(vignetting_k1=-2.0)


# What each switched-off term may change: the maps it is part of, or none but frames.
OWN_MAPS = {
    **{key: {"full_well_map"} for key in ("full_well", "full_well_spread")},
    **{key: {"prnu", "response"} for key in ("prnu_row", "prnu_column")},
    **{key: {"flat_b"} for key in ("flat_b", "flat_b_spread")},
    **{key: {"flat_c"} for key in ("flat_c", "flat_c_spread")},
    "read_noise": {"read_noise_map"},
    "read_noise_spread": {"read_noise_map"},
    **{key: {"bias_a"} for key in ("bias_row", "bias_column", "bias_pixel")},
    **{key: {"bias_b"} for key in ("bias_slope", "slope_row", "slope_column", "slope_pixel")},
    "dark_rate": {"dark_a"},
    "dark_spread": {"dark_a"},
    "hot_fraction": {"dark_a", "hot"},
    "warm_fraction": {"dark_a", "warm"},
    "dark_b_spread": {"dark_b"},
    **{key: {"dark_gamma"} for key in ("dark_gamma", "dark_gamma_spread")},
    "glow": {"glow"},
    "telegraph_fraction": {"telegraph", "telegraph_step"},
    "prnu": {"prnu", "response"},
    "dust_count": {"dust", "response"},
    "dead_fraction": {"dead", "response"},
    "low_qe_fraction": {"low_qe", "response"},
    **{key: {"illumination"} for key in ("vignetting_k1", "vignetting_k2", "vignetting_k3")},
}


@pytest.mark.parametrize("term", LAYERS)
def test_a_term_switched_off_changes_its_own_maps_only_and_the_frames(term):
    # Fractions large enough for 48 x 65 pixels to have each kind of them; light near the full well.
    spec = SensorSpec(
        shape=SHAPE,
        dead_fraction=0.01,
        low_qe_fraction=0.02,
        cosmic_per_frame=1e-3,
        cosmic_rate=1e-3,
        dark_offset=3.0,
        column_noise=0.3,
        full_well_spread=0.02,
        gain_droop=0.01,
        brighter_fatter=1e-5,
        prnu_row=0.003,
        prnu_column=0.004,
        flat_b=1e-3,
        flat_b_spread=1e-4,
        flat_c=-1e-3,
        flat_c_spread=1e-4,
    )
    zero = () if term == "session_shifts" else 0
    off = {term: zero, "nonlinearity": 0, "gain_droop": 0} if term == "full_well" else {term: zero}
    one, other = Sensor(spec), Sensor(dataclasses.replace(spec, **off))
    changed = {name for name in MAPS if not np.array_equal(getattr(one, name), getattr(other, name))}
    assert changed == OWN_MAPS.get(term, set())
    frames = [s.frame("flat", 10.0, 9.0, rng=1, session=1, level=3000.0) for s in (one, other)]
    assert not np.array_equal(*frames)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"shape": (0, 4)}, r"shape: got \(0, 4\), expected two positive whole numbers"),
        ({"shape": 16}, "shape: got 16, expected a list"),
        ({"bit_depth": 20}, "bit_depth: got 20, expected 8 to 16"),
        ({"left_justified": 1}, "left_justified: got 1, expected true or false"),
        ({"gain": 0}, "gain: got 0, expected more than 0"),
        ({"read_noise": -1.0}, "read_noise: got -1.0, expected 0 or more"),
        ({"read_noise": "2"}, "read_noise: got 2, expected a finite number"),
        ({"bias_level": float("nan")}, "bias_level: got nan, expected a finite number"),
        ({"hot_fraction": 1.5}, "hot_fraction: got 1.5, expected 0 to 1"),
        (
            {"hot_fraction": 0.6, "warm_fraction": 0.6},
            r"hot_fraction \+ warm_fraction: got 1.2, expected at most 1",
        ),
        ({"dark_gamma": -1.0}, "dark_gamma: got -1.0, expected more than -1"),
        ({"nonlinearity": 0.5}, "nonlinearity: got 0.5, expected at most 0.1"),
        ({"full_well": 0}, "full_well: got 0, expected more than 0 where nonlinearity is on"),
        ({"gain_droop": 0.2}, "gain_droop: got 0.2, expected at most 0.1"),
        (
            {"full_well": 0, "nonlinearity": 0, "gain_droop": 0.1},
            "full_well: got 0, .* where gain_droop is on",
        ),
        ({"session_shifts": (0.0, "x")}, "session_shifts: .*expected finite numbers"),
        ({"vignetting_centre": (0.5,)}, "vignetting_centre: .*expected two finite numbers"),
        ({"dust_count": 1.5}, "dust_count: got 1.5, expected a whole number"),
        ({"seed": -1}, "seed: got -1, expected a whole number"),
    ],
)
def test_impossible_sensors_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        SensorSpec(**terms)


def test_specification_from_a_mapping():
    spec = SensorSpec.from_dict({"shape": [4, 6], "gain": 3}, SensorSpec.preset("16"))
    assert (spec.shape, spec.gain, spec.bit_depth) == ((4, 6), 3, 16)
    with pytest.raises(ValueError, match="sensor term: got gian, red_noise, expected"):
        SensorSpec.from_dict({"gian": 1, "red_noise": 2, "gain": 3})
    with pytest.raises(ValueError, match="preset: got 14, expected one of 12left, 12, 16"):
        SensorSpec.preset("14")
