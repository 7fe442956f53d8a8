"""Defects and PRNU of simulated responses against known truth."""

import numpy as np
import pytest
from flat_scenes import simulate_flat

from utils.kernels.pixel_response import DefectLimits, find_defects, local_median, prnu

SHAPES = [(256, 256), (200, 321)]


def defective(seed, shape, pixel_scatter, noise, dust_depth):
    """Flat with its illumination, sigma relative to the neighbourhood, and the true response of every pixel."""
    rng = np.random.default_rng(seed)
    scene = simulate_flat(seed, shape, depth=dust_depth, defects=0)
    response = 1 + pixel_scatter * rng.normal(size=shape)
    bad = rng.random(shape) < 0.004
    response[bad] *= rng.uniform(0, 1, bad.sum())
    response[:, 60] *= 0.2
    response[:, 150:153] *= 0.1
    response[50:57, 30:37] *= 0.3
    response[0, :40] = 0.0
    response[-5:, -5:] *= 0.7
    response[:3, -3:] *= 0.02
    response[150:180, 90:120] *= 0.05
    response[120] *= 0.8
    clean = scene.light * scene.dust
    sigma = noise * np.sqrt(clean * response + 1e-3)
    flat = clean * response + sigma * rng.normal(size=shape)
    return flat.astype(np.float32), sigma.astype(np.float32), sigma / clean, response


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("pixel_scatter", "noise"), [(0.01, 0.002), (0.01, 0.01), (0.003, 0.02), (0.025, 0.005)]
)
def test_dead_and_low_qe_pixels_columns_and_clusters(shape, pixel_scatter, noise):
    limits = DefectLimits()
    counts = {"dead": np.zeros(3), "low_qe": np.zeros(3)}
    for seed in range(3):
        flat, sigma, relative, truth = defective(seed, shape, pixel_scatter, noise, 0.06)
        found = find_defects(flat, sigma)
        scored = (np.abs(truth - limits.dead) > 5 * relative) & (np.abs(truth - limits.low_qe) > 5 * relative)
        true = {"dead": truth < limits.dead, "low_qe": (truth >= limits.dead) & (truth < limits.low_qe)}
        for name, count in counts.items():
            got = getattr(found, name)
            both = (got & true[name] & scored).sum()
            count += both, (got & scored).sum(), (true[name] & scored).sum()
        assert not (found.dead & found.low_qe).any()
    for both, got, true in counts.values():
        assert true > 500
        assert both >= 0.995 * got
        assert both >= 0.995 * true


def test_low_pixels_within_their_noise_are_not_flagged():
    rng = np.random.default_rng(3)
    noise = 0.05
    flat = 1 + noise * rng.normal(size=(256, 256))
    found = find_defects(flat, noise)
    # 2.3 % of the pixels lie below 0.9 by noise alone; none of 65536 beyond 5 sigma.
    assert (flat < 0.9).mean() > 0.02
    assert not (found.dead | found.low_qe | found.high).any()
    flat[100, 100] = 0.3
    assert find_defects(flat, noise).dead[100, 100]
    assert not find_defects(flat, 0.2).dead.any()


def test_high_outliers_and_the_scatter_of_ordinary_pixels():
    rng = np.random.default_rng(4)
    for scatter, limit in ((0.01, 1.1), (0.03, 1.15)):
        flat = 1 + scatter * rng.normal(size=(200, 200))
        flat[10, 20], flat[30, 40] = 1.3, limit + 0.03
        found = find_defects(flat, 0.002)
        assert abs(found.high_limit - limit) < 0.002
        assert sorted(map(tuple, np.argwhere(found.high))) == [(10, 20), (30, 40)]


def test_limits_are_options_and_unusable_pixels_are_not_judged():
    flat = np.ones((64, 64), np.float32)
    flat[5, 5], flat[6, 30], flat[40, 41], flat[50, 50] = 0.65, 0.75, 0.1, np.nan
    usable = np.ones(flat.shape, bool)
    usable[40, 41] = False
    found = find_defects(flat, 0.001, usable, DefectLimits(dead=0.7, low_qe=0.8))
    assert np.argwhere(found.dead).tolist() == [[5, 5]]
    assert np.argwhere(found.low_qe).tolist() == [[6, 30]]
    assert np.isnan(found.ratio[40, 41])
    assert np.isnan(found.ratio[50, 50])


def test_local_median_follows_slopes_to_the_corners():
    y, x = np.mgrid[:101, :203]
    slope = 1 + 0.002 * x + 0.001 * y
    np.testing.assert_allclose(
        local_median(slope), slope, rtol=0.015
    )  # windows at the edge are lopsided by half a block
    inside = np.s_[12:-12, 12:-12]
    np.testing.assert_allclose(local_median(slope)[inside], slope[inside], rtol=1e-5)
    assert np.isnan(local_median(np.full((20, 20), np.nan))).all()
    assert local_median(np.ones((3, 2))).tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("value", [0.003, 0.01, 0.05])
@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_prnu_under_noise_dust_defects_and_vignetting(shape, value, ratio):
    got, error = [], []
    for seed in range(6):
        scene = simulate_flat(seed, shape, prnu=value, noise=ratio * value, depth=0.08, defects=2e-3)
        flat = scene.flat.copy()
        flat[:, 70] *= 0.1
        found = find_defects(flat, scene.sigma)
        result = prnu(flat, scene.sigma, found.ordinary)
        got.append(result.value / value)
        error.append(result.error / value)
        assert abs(got[-1] - 1) < 0.02
        assert result.pixels > 0.5 * flat.size
    # Where PRNU is 5 %, pixels below the low-QE limit (2 sigma) count nevertheless: without them it would be 6 % less.
    assert abs(np.mean(got) - 1) < 4 * np.mean(error) / np.sqrt(6) + 0.006
    assert np.std(got) < 2.2 * np.mean(error)


def test_prnu_holds_rows_and_columns_in_full():
    # A block has 16 columns, of which its quadratic surface takes three.
    rng = np.random.default_rng(8)
    flat = (
        1
        + 0.01 * rng.normal(size=(320, 480))
        + 0.005 * rng.normal(size=480)
        + 0.003 * rng.normal(size=(320, 1))
    )
    # The sample of 480 columns and 320 rows tells their variance to 6 and 8 %.
    error = np.hypot(0.5**2 * np.sqrt(2 / 480), 0.3**2 * np.sqrt(2 / 320)) / (2 * 1.34)
    assert abs(prnu(flat, 1e-6).value / flat.std() - 1) < 2 * error


def test_prnu_error_is_that_of_the_scatter_and_noise_alone_is_zero():
    rng = np.random.default_rng(6)
    pulls, hidden = [], []
    for _ in range(60):
        flat = 1 + 0.01 * rng.normal(size=(96, 128)) + 0.005 * rng.normal(size=(96, 128))
        result = prnu(flat, 0.005)
        pulls.append((result.value - 0.01) / result.error)
        assert abs(result.scatter - np.hypot(0.01, 0.005)) < 0.0005
        assert abs(result.noise - 0.005) < 1e-5
        nothing = prnu(1 + 0.01 * rng.normal(size=(96, 128)), 0.01)
        hidden.append(nothing.value)
    assert abs(np.std(pulls) - 1) < 4 / np.sqrt(2 * 60)
    assert abs(np.mean(pulls)) < 5 / np.sqrt(60)
    # The variance of 12288 pixels is known to sqrt(2 / 12288).
    assert max(hidden) < 0.01 * np.sqrt(4 * np.sqrt(2 / 12288))
    assert np.mean(np.array(hidden) == 0) > 0.2


def test_prnu_with_lines_of_their_own_gain():
    rng = np.random.default_rng(7)
    columns, pixels = 0.004 * rng.normal(size=320), 0.01 * rng.normal(size=(320, 320))
    result = prnu(1 + columns + pixels, 0.0)
    truth = np.std(columns + pixels)
    # Of the columns' part, a block of 16 shows all but its mean, slope and curvature: 3 of 16.
    assert abs(result.value / truth - 1) < 0.02


def test_prnu_of_nothing():
    empty = prnu(np.full((32, 32), np.nan), 0.01)
    assert np.isnan(empty.value)
    assert empty.pixels == 0
