"""Levels of flats against known truth: noise, coarse steps, vignetting, hot pixels and rows."""

import numpy as np
import pytest

from utils.kernels.flat_level import METHODS, frame_level, frame_levels, level_against, trust

SHAPE = (16, 1024)


def vignetted(rng, level, sigma):
    """Rows of a flat, 1 in the middle of the rows and 0.8 at their ends."""
    x = np.linspace(-1, 1, SHAPE[1])
    return level * (1 - 0.2 * x**2) * np.ones((SHAPE[0], 1)) + rng.normal(0, sigma, SHAPE)


@pytest.mark.parametrize(("method", "expected"), [("median", 0.95), ("mean", 1 - 0.2 / 3), ("max", 1.0)])
def test_levels_of_a_vignetted_flat_do_not_follow_hot_pixels(method, expected):
    rng = np.random.default_rng(4)
    level, sigma = 20_000.0, 150.0
    for hot in (False, True):
        samples = vignetted(rng, level, sigma)
        samples[rng.random(SHAPE) < 0.01] = np.nan
        if hot:
            samples[rng.random(SHAPE) < 0.002] = 65_535.0
            samples[3] = 65_535.0 if method == "max" else samples[3]
        # The widest of them is the noise of a block of 256 pixels; the 99 % quantile stands up to 3 of it high.
        tolerance = {"median": 5 * 1.2533 * 0.06 * level, "mean": 5 * 0.06 * level, "max": 0}[method] / 128
        tolerance += 5 * 1.2533 * sigma / (128 if method != "max" else 16)
        assert abs(frame_level(samples, method) - expected * level) < tolerance


def test_the_maximum_of_a_flat_of_equal_level_is_that_level():
    rng = np.random.default_rng(5)
    samples = rng.normal(1000, 30, (16, 2048))
    # Medians of 256 pixels scatter by 1.25 x 30 / 16 = 2.3; the 99 % quantile of 128 is 2.3 of these up.
    assert 1000 < frame_level(samples, "max") < 1000 + 4 * 2.35


def test_coarse_integers_are_resolved_within_their_step():
    rng = np.random.default_rng(6)
    for truth in (50.1, 50.37, 50.5, 50.84):
        samples = np.rint(rng.normal(truth, 1.5, (16, 2048)))
        sigma = 1.2533 * 1.53 / np.sqrt(samples.size)
        assert (
            abs(frame_level(samples) - truth) < 5 * sigma + 0.002
        )  # the grouped median of 1.5 steps is exact to 0.002


def test_ratio_of_levels_is_the_ratio_of_the_lamps():
    rng = np.random.default_rng(7)
    samples = np.stack([vignetted(rng, level, np.sqrt(level)) for level in (5000, 10_000, 20_000)])
    for method in METHODS:
        levels = frame_levels(samples, method)
        # Noise of 1 / sqrt(5000) = 1.4 % a pixel, over 16384 pixels; 256 pixels a block for the maximum.
        np.testing.assert_allclose(levels / levels[0], [1, 2, 4], rtol=2e-3 if method != "max" else 4e-3)


def test_odd_inputs():
    assert np.isnan(frame_level(np.full((4, 10), np.nan)))
    assert frame_level(np.full((4, 10), 7.0), "mean") == 7.0
    assert frame_level(np.full((4, 10), 7.0)) == 7.0
    assert frame_level(np.array([[3.0, np.nan, np.nan]]), "max") == 3.0
    with pytest.raises(ValueError, match="'mode', expected one of median, mean, max"):
        frame_level(np.ones((2, 2)), "mode")


def test_level_against_a_reference_does_not_follow_the_noise():
    shape = (16, 4096)
    light = 1 - 0.5 * np.linspace(-1, 1, shape[1]) ** 2 * np.ones((shape[0], 1))
    rng = np.random.default_rng(8)
    found = {}
    for level in (100.0, 20_000.0):
        frames = [rng.poisson(level * light) + rng.normal(0, 3, shape) for _ in range(25)]
        found[level] = [np.mean([f(one) for one in frames]) / level for f in (against(light), frame_level)]
    # 11 % of noise in each of 25 x 65536 samples.
    tolerance = 5 * 0.11 / np.sqrt(25 * 65536)
    assert abs(found[100.0][0] / found[20_000.0][0] - 1) < tolerance
    assert abs(found[100.0][0] - 1) < tolerance
    # The median alone does.
    assert abs(found[100.0][1] / found[20_000.0][1] - 1) > 3 * tolerance


def against(light):
    return lambda frame: level_against(frame, light)


def test_level_against_a_reference_does_not_follow_defects():
    rng = np.random.default_rng(9)
    light = vignetted(rng, 1.0, 0.0)
    samples = 1000.0 * light + rng.normal(0, 30, SHAPE)
    clean = level_against(samples, light)
    samples[rng.random(SHAPE) < 0.01] = 65_535.0
    samples[3, :200] = 0.0
    samples[5, :50] = np.nan
    # What is left out costs 1.5 % of the samples, whose own noise is 3 % / 128.
    assert abs(level_against(samples, light) / clean - 1) < 5 * 0.03 / 128 * np.sqrt(0.025)
    defects = light + rng.normal(0, 0.01, SHAPE)
    defects[7, 9] += 0.2
    weights = trust(defects, light)
    assert weights[7, 9] == 0
    assert weights.mean() > 0.999
    assert np.isnan(level_against(np.full(SHAPE, np.nan), light))
    assert level_against(7.0 * light, light) == pytest.approx(7.0, rel=1e-6)
