"""Empirical illuminations against known truth: polynomial, Gaussian, median."""

import numpy as np
import pytest
from flat_scenes import simulate_flat

from utils.kernels.illumination_surfaces import fit_polynomial, middle_part, smooth_gaussian, smooth_median

SHAPE = (208, 320)


def normalised(light):
    return light / light[middle_part(light.shape)].mean()


def test_polynomial_follows_light_that_is_not_radial_and_leaves_dust_out():
    pulls = []
    for seed in range(8):
        scene = simulate_flat(seed, SHAPE, depth=0.1)
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
        tilt = 1 + 0.1 * x / SHAPE[1] - 0.05 * y / SHAPE[0]
        fit = fit_polynomial(scene.flat * tilt, scene.sigma * tilt, degree=6)
        truth = normalised(scene.light * tilt)
        error = fit.value / truth - 1
        assert np.sqrt(np.mean(error**2)) < 0.001  # 28 terms, 3300 bins of 0.2 %: 0.02 %
        assert np.abs(error).max() < 0.01
        assert 0.8 < fit.quality.chi2_red < 1.3
        assert fit.quality.masked < 0.3
        pulls.append(((fit.value - truth) / fit.sigma)[20:-20:20, 20:-20:20])
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.3


def test_polynomial_of_too_low_a_degree_says_so_and_too_high_a_degree_is_refused():
    scene = simulate_flat(1, SHAPE, k=(-0.3, -0.2, 0.2))
    assert fit_polynomial(scene.flat, scene.sigma, degree=2).quality.chi2_red > 2
    with pytest.raises(ValueError, match="16 usable bins, expected more than the 28 terms of degree 6"):
        fit_polynomial(np.ones((4, 4)), degree=6)


@pytest.mark.parametrize("width", [2.5, 12.0, 40.0])
def test_gaussian_follows_slopes_to_the_edges(width):
    scene = simulate_flat(2, SHAPE, k=(-0.3, 0, 0), dust=0)
    flat = scene.flat.copy()
    flat[:, 100] = np.nan
    flat[60, 60:80] = 60_000.0
    usable = np.ones(SHAPE, bool)
    usable[150:155] = False
    fit = smooth_gaussian(flat, scene.sigma, usable, width)
    error = fit.value / normalised(scene.light) - 1
    # Scatter 1 % a pixel (1.03 % with the noise) over the area 4 pi width^2; half of it at an edge.
    expected = 0.0105 / np.sqrt(4 * np.pi * width**2)
    assert error.std() < 1.5 * expected + 0.0002
    assert np.abs(error).max() < 8 * expected + 0.001
    inner = np.s_[20:-20:7, 20:-20:7]
    if width < 20:
        assert 0.8 < np.std(error[inner] / fit.sigma[inner]) < 1.25
    assert fit.quality.notes == ()


@pytest.mark.parametrize("width", [1, 7, 31])
def test_median_follows_slopes_and_not_lines(width):
    scene = simulate_flat(3, SHAPE, k=(-0.3, 0, 0), dust=0)
    flat = scene.flat.copy()
    if width > 1:
        flat[:, 100] = 0.0
    fit = smooth_median(flat, scene.sigma, None, width)
    error = fit.value / normalised(scene.light) - 1
    expected = 0.0105 * 1.25 / width
    usual = np.abs(error) < 6 * expected + 0.001
    assert error[usual].std() < 1.5 * expected + 0.0005
    assert usual.mean() > (0.99 if width > 1 else 0.97)


def test_parts_without_pixels_take_the_trend_and_say_so():
    scene = simulate_flat(4, SHAPE, k=(-0.3, 0, 0), dust=0)
    flat = scene.flat.copy()
    flat[:80, :80] = np.nan
    for fit in (smooth_gaussian(flat, scene.sigma, width=5.0), smooth_median(flat, scene.sigma, width=9)):
        assert "no usable pixel in parts of the frame" in fit.quality.notes[0]
        assert np.isfinite(fit.value).all()
        error = fit.value / normalised(scene.light) - 1
        assert np.abs(error[:70, :70]).max() < 0.02


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="Gaussian width 0"):
        smooth_gaussian(np.ones((9, 9)), width=0)
    with pytest.raises(ValueError, match="median size 0"):
        smooth_median(np.ones((9, 9)), width=0)
