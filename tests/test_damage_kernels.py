"""Kernels of the degradation analysis: outliers, labels, slopes, hot pixels; and the maps for notebooks."""

import numpy as np
import pytest
from bias_frames import write_frame

from dark_pipeline.dark_pipeline.steps import outgasing_destruction_analysis as older
from dark_pipeline.steps import outgasing_destruction_analysis as command
from utils.errors import InputError
from utils.kernels import hot_ledger, pixel_damage


def test_outliers_by_the_noise_of_the_pair_not_by_their_own_scatter():
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 1.5, (80, 90)).astype(np.float32)
    weight[3, 4] = 0.0
    sigma = 0.01
    change = (sigma * rng.standard_normal(weight.shape) / np.sqrt(np.maximum(weight, 1e-3))).astype(
        np.float32
    )
    hit = rng.choice(change.size, 2000, replace=False)
    change.reshape(-1)[hit] -= 0.3
    change[3, 4] = 0.0
    limit = pixel_damage.outlier_limit(change.size)
    found = pixel_damage.find_outliers(change, weight, sigma**2, limit)
    # A quarter of the pixels: a threshold from the scatter of the difference itself (0.13) would find none.
    assert set(found.pixels) == set(hit) - {3 * 90 + 4}
    assert found.scatter > 0.12
    assert abs(pixel_damage.typical_noise(weight) / np.mean(1 / weight[weight > 0]) - 1) < 1e-5


def test_false_outliers_as_often_as_stated():
    rng = np.random.default_rng(2)
    weight = np.ones((1000, 1000), np.float32)
    limit = pixel_damage.outlier_limit(weight.size, 200.0)
    change = rng.standard_normal(weight.shape).astype(np.float32)
    found = pixel_damage.find_outliers(change, weight, 1.0, limit).pixels.size
    assert abs(found - 200) < 5 * np.sqrt(200)


def test_pixels_that_the_epoch_shows_need_less_in_one_flat():
    change = np.zeros((4, 5), np.float32)
    change[1, 2], change[2, 2], change[3, 3] = -0.03, 0.03, -0.03
    shown = pixel_damage.Outliers(np.array([7, 12]), np.array([-0.03, -0.03]), 0.0)
    found = pixel_damage.find_outliers(change, np.ones_like(change), 1e-4, 5.0, shown=shown)
    assert found.pixels.tolist() == [7]
    extra = np.full(change.shape, 9e-4, np.float32)
    found = pixel_damage.find_outliers(change, np.ones_like(change), 1e-4, 5.0, shown=shown, extra=extra)
    assert found.pixels.size == 0


def test_labels():
    seen = [
        {(1, 1): {("T_10.0", "a")}, (2, 2): {("T_10.0", "a"), ("T_10.0", "b")}, (3, 3): {("T_10.0", "a")}},
        {(1, 1): {("T_20.0", "a")}, (4, 4): {(-5.0, "a"), (10.0, "a")}},
        {
            (3, 3): {(None, "a")},
            (5, 5): {(command.classify_outliers.__globals__["IGNORING"], t) for t in "abc"},
        },
        {(6, 6): {("T_10.0", "a"), (None, "b")}},
    ]
    rows = {row["pixel"]: row for row in command.classify_outliers(seen)}
    assert {pixel: row["classification"] for pixel, row in rows.items()} == {
        (1, 1): "Sensor Damage",
        (4, 4): "Sensor Damage",
        (2, 2): "Likely Sensor",
        (6, 6): "Likely Sensor",
        (3, 3): "Temperature",
        (5, 5): "Temperature",
    }
    assert rows[1, 1]["temp_labels"] == ["T_10.0", "T_20.0"]
    assert rows[4, 4]["temp_labels"] == [-5.0, 10.0]
    assert rows[5, 5] == {
        "pixel": (5, 5), "num_occurrences": 3, "temp_labels": [], "times": ["a", "b", "c"],
        "classification": "Temperature",
    }  # fmt: skip
    assert rows[3, 3]["num_occurrences"] == 1
    assert older.classify_outliers is command.classify_outliers
    assert command.classify_outliers([]) == []


def test_clusters():
    rows, columns = np.array([1, 2, 5, 5, 9]), np.array([1, 2, 5, 6, 0])
    assert pixel_damage.cluster_sizes(rows, columns, (10, 10)).tolist() == [2, 2, 2, 2, 1]


def test_slope_is_least_squares_with_free_zero_points():
    rng = np.random.default_rng(3)
    group, time = np.array([0, 0, 0, 1, 1, 2]), np.array([0.0, 3.0, 9.0, 3.0, 9.0, 5.0])
    information = rng.uniform(1, 4, 6)
    weights, variance = pixel_damage.slope_contrast(group, time, information)
    design = np.column_stack([time, *(group == k for k in range(3))]).astype(float)
    cov = np.linalg.inv(design.T @ (design * information[:, None]))
    assert abs(variance / cov[0, 0] - 1) < 1e-9
    np.testing.assert_allclose(weights, (cov @ (design * information[:, None]).T)[0], atol=1e-12)
    alone, nothing = pixel_damage.slope_contrast([0, 1], [0.0, 1.0], [1.0, 1.0])
    assert np.isinf(nothing)
    assert (alone == 0).all()


def test_growth_and_rates_at_a_common_temperature():
    rng = np.random.default_rng(4)
    growth = 0.11 + 0.01 * rng.standard_normal(4000)
    cold = rng.uniform(5, 50, growth.size)
    warm = cold * np.exp(growth * 8.0)
    sigma = np.full(growth.size, 0.05)
    noisy = [one + 0.05 * rng.standard_normal(growth.size) for one in (cold, warm)]
    found = hot_ledger.growth_of(noisy[0], sigma, noisy[1], sigma, 8.0)
    assert abs(found.value - 0.11) < 5 * 1.25 * 0.01 / np.sqrt(growth.size)
    assert abs(found.spread - 0.01) < 5 * 1.17 * 0.01 / np.sqrt(growth.size) + 2e-4
    assert hot_ledger.growth_of(cold[:5], sigma[:5], warm[:5], sigma[:5], 8.0) is None
    moved, error = hot_ledger.at_temperature(noisy[0], sigma, found.value, found.spread, 2.0)
    pulls = (moved - cold * np.exp(growth * 2.0)) / error
    assert abs(pulls.std() - 1.0) < 5 / np.sqrt(2 * pulls.size) + 0.02


def test_ledger_of_hot_pixels():
    rng = np.random.default_rng(5)
    low, high = 0.2, 10.0
    histories = {
        "persistent": [high] * 6,
        "born": [low, low, high, high, high, high],
        "annealed": [high, high, high, low, low, low],
        "born, annealed": [low, high, high, high, low, low],
        "hotter": [high, high, high, 2 * high, 2 * high, 2 * high],
        "cooler": [3 * high, 3 * high, high, high, high, high],
    }
    many = 200
    truth = np.repeat(np.array(list(histories.values())).T, many, axis=1)
    sigmas = np.full(truth.shape, 0.3)
    rates = truth + sigmas * rng.standard_normal(truth.shape)
    rates[4, ::7] = np.nan
    ledger = hot_ledger.keep_ledger(rates, sigmas, 3.0)
    assert (ledger.status == np.repeat(list(histories), many)).all()
    born, annealed = ledger.born.reshape(6, many), ledger.annealed.reshape(6, many)
    assert (born[[0, 2, 4, 5]] == -1).all()
    assert (born[1] == 2).all()
    assert (born[3] == 1).all()
    assert (annealed[2] == 3).all()
    assert np.isin(annealed[3], [4, 5]).all()  # epoch 4 is unknown for some
    pulls = (ledger.during[many : 2 * many] - high) / ledger.errors[1, many : 2 * many]
    assert abs(pulls.std() - 1.0) < 5 / np.sqrt(2 * many)
    assert ledger.hot.sum(axis=0)[:many].min() == 5


def test_maps_of_bias_and_darks(tmp_path):
    rng = np.random.default_rng(6)
    entries = []
    for number, (temperature, exposure, level) in enumerate(
        [
            (14.94, 1.0, 100),
            (14.96, 1.0, 104),
            (-0.04, 1.0, 50),
            (0.02, 2.0, 70),
            (15.0, 0.02, 30),
            (15.0, 0.04, 60),
        ]
    ):
        for k in range(6):
            samples = (level + rng.integers(0, 3, (20, 24))).astype(np.uint16) * 16
            path = write_frame(tmp_path / f"d{number}_{k}.fits", samples)
            entries.append({"original_path": path, "temperature": temperature, "exposure_time": exposure})
    entries[0]["temperature"] = 14.94
    maps = command.generate_dark_maps(entries)
    assert set(maps) == {(14.9, 1.0), (0.0, 1.0), (0.0, 2.0), (15.0, 0.02), (15.0, 0.04)} or set(maps) == {
        (15.0, 1.0), (0.0, 1.0), (0.0, 2.0), (15.0, 0.02), (15.0, 0.04),
    }  # fmt: skip
    assert all(str(key[0]) != "-0.0" for key in maps)
    means = {round(float(value.mean())) for value in maps.values()}
    assert means == {103, 51, 71, 31, 61}
    bias = command.generate_bias_maps([e for e in entries if e["exposure_time"] == 2.0])
    assert list(bias) == [0.0]
    assert bias[0.0].shape == (20, 24)
    with pytest.raises(InputError, match="got no exposure_time"):
        command.generate_dark_maps([{"original_path": "x", "temperature": 1.0}])
    assert command.generate_bias_maps([]) == {}


def test_closest_dark():
    maps = {(10.0, 1.0): "a", (10.5, 1.0): "b", (10.0, 1.1): "c", (12.0, 1.0): "d"}
    assert command.find_closest_dark(10.1, 1.0, maps) == "a"
    assert command.find_closest_dark(10.4, 1.0, maps) == "b"
    assert command.find_closest_dark(10.0, 1.09, maps) == "c"
    assert command.find_closest_dark(13.0, 1.0, maps) == "d"
    assert command.find_closest_dark(13.1, 1.0, maps) is None
    assert command.find_closest_dark(10.0, 1.3, maps) is None
    assert command.find_closest_dark(10.0, 1.3, maps, exp_tolerance=0.5) == "c"
    assert command.find_closest_dark(10.0, 1.0, {}) is None
