"""Row, column and pixel parts, spectra and dark current of drawn images, against what they were drawn from."""

import math

import numpy as np
import pytest

from utils.kernels import emva

NY, NX = 60, 90


def stack(rng, n, spatial=(0.0, 0.0, 0.0), temporal=(0.0, 0.0, 0.0)):
    """Frames (n, NY, NX) with row, column and pixel patterns and noise of these sigmas."""
    rows, columns, pixels = spatial
    image = rows * rng.standard_normal((NY, 1)) + columns * rng.standard_normal(NX)
    image = image + pixels * rng.standard_normal((NY, NX))
    rows, columns, pixels = temporal
    frames = rows * rng.standard_normal((n, NY, 1)) + columns * rng.standard_normal((n, 1, NX))
    return image + frames + pixels * rng.standard_normal((n, NY, NX))


def parts_of(frames):
    own = frames - frames.mean(axis=0)
    own = own - own.mean(axis=(1, 2), keepdims=True)
    n = len(frames)
    variance = float((own**2).sum() / ((n - 1) * NY * NX))
    return emva.temporal_parts(
        own.mean(axis=2), own.mean(axis=1), variance, variance * math.sqrt(2.0 / ((n - 1) * NY * NX)), NY * NX
    )


@pytest.mark.parametrize("true", [(0.3, 0.5, 2.0), (0.0, 0.0, 1.0), (1.0, 0.2, 0.5)])
def test_temporal_parts(true):
    pulls = []
    for seed in range(30):
        parts = parts_of(stack(np.random.default_rng(seed), 8, temporal=true))
        pulls.append(
            [
                (getattr(parts, name) - sigma**2) / getattr(parts, f"{name}_error")
                for name, sigma in zip(("row", "column", "pixel"), true, strict=True)
            ]
        )
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 4.0 / math.sqrt(30))
    assert np.all(np.abs(np.std(pulls, axis=0) - 1.0) < 4.0 / math.sqrt(60))


def test_spatial_parts_without_the_noise_that_is_left():
    """Means of 4 frames: the noise left is larger than the patterns of rows and columns."""
    true, noise = (0.3, 0.5, 0.6), (0.5, 0.4, 2.0)
    found, pulls = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        frames = stack(rng, 4, true, noise)
        temporal = emva.Parts(sum(s**2 for s in noise), *(s**2 for s in noise))
        parts, rows, columns = emva.spatial_parts(frames.mean(axis=0), np.ones((NY, NX), bool), temporal, 4)
        found.append([parts.row, parts.column, parts.pixel, parts.total])
        assert rows.shape == (NY,)
        assert columns.shape == (NX,)
        pulls.append((parts.pixel - true[2] ** 2) / parts.pixel_error)
    mean, scatter = np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(40)
    expected = np.array([*(s**2 for s in true), sum(s**2 for s in true)])
    # The definition divides row and column means by their number: low by 1/NY, 1/NX of them.
    assert np.all(np.abs(mean - expected) < 4.0 * scatter + expected / 40)
    assert np.std(pulls) < 1.4


def test_split_is_that_of_the_standard():
    """Equations of the standard, written out for columns and rows."""
    total, rows, columns = 5.0, 0.9, 1.4
    row, column, pixel = emva.split_variance(total, rows, columns, NY, NX)
    rest = NY * NX - NY - NX
    assert column == pytest.approx((NY * NX - NY) / rest * columns - NX / rest * (total - rows))
    assert row == pytest.approx((NY * NX - NX) / rest * rows - NY / rest * (total - columns))
    assert row + column + pixel == pytest.approx(total)


def test_pixels_that_do_not_count_are_left_out():
    rng = np.random.default_rng(3)
    image = stack(rng, 1, (0.3, 0.5, 1.0))[0]
    image[5, 7] = 1e6
    good = np.ones(image.shape, bool)
    good[5, 7] = False
    parts, *_ = emva.spatial_parts(image, good, emva.Parts(0, 0, 0, 0), 1)
    assert parts.total == pytest.approx(0.09 + 0.25 + 1.0, rel=0.25)


def test_smooth_surface_takes_the_light_and_leaves_the_rows():
    """Vignetting with r^4 and r^6, off centre: what is left of it is less than a tenth of a row pattern of 0.5 %."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:200, :300] / 180.0
    r2 = (y - 0.6) ** 2 + (x - 0.9) ** 2
    light = 1.0 - 0.18 * r2 - 0.06 * r2**2 + 0.02 * r2**3
    good = np.ones(light.shape, bool)
    even = light / emva.smooth_surface(light, good)
    assert np.std(even.mean(axis=1)) < 5e-4
    image = light * (1.0 + 0.005 * rng.standard_normal((200, 1)))
    image[50:52, 60:62] = 0.0
    flat = image / emva.smooth_surface(image, good)
    # A few of 200 degrees of freedom go with the surface.
    assert np.std(flat.mean(axis=1)) == pytest.approx(0.005, rel=0.2)


def test_spectrum_of_noise_and_of_a_wave():
    rng = np.random.default_rng(5)
    frequency, power = emva.spectrum(2.0 * rng.standard_normal(4096))
    assert (frequency[0], frequency[-1]) == (pytest.approx(1 / 4096), 0.5)
    assert power.mean() == pytest.approx(4.0, rel=4.0 / math.sqrt(2048))
    frequency, power = emva.spectrum(np.cos(2 * np.pi * 0.125 * np.arange(800)))
    assert frequency[np.argmax(power)] == pytest.approx(0.125)


def test_noise_of_binned_areas():
    rng = np.random.default_rng(6)
    frames = stack(rng, 400, temporal=(0.3, 0.2, 1.0))
    parts = emva.Parts(0.09 + 0.04 + 1.0, 0.09, 0.04, 1.0)
    real, alone = emva.binned_noise(parts, [1, 10])
    areas = frames.reshape(400, NY // 10, 10, NX // 10, 10).mean(axis=(2, 4))
    assert real[1] == pytest.approx(areas.std(axis=0).mean(), rel=0.03)
    assert alone[1] == pytest.approx(math.sqrt(1.13) / 10)
    assert real[0] == pytest.approx(alone[0])


def test_dark_current_from_mean_and_from_variance():
    rng = np.random.default_rng(7)
    t = np.array([0.0, 5, 10, 20, 40, 60])
    pulls = []
    for _ in range(100):
        mean = 0.4 * t + 0.01 * rng.standard_normal(t.size)
        variance = 2.4 + 0.4 / 1.6 * t + 0.05 * rng.standard_normal(t.size)
        found = emva.dark_current(t, mean, [0.01] * 6, variance, [0.05] * 6, 1.6)
        pulls.append(
            ((found.from_mean - 0.4) / found.mean_error, (found.from_variance - 0.4) / found.variance_error)
        )
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 0.4)
    assert np.all(np.abs(np.std(pulls, axis=0) - 0.9) < 0.3)
    alone = emva.dark_current([5.0, 5.0], [1.0, 1.1], [0.1, 0.1], [2.0, 2.1], [0.1, 0.1], 1.0)
    assert math.isnan(alone.from_mean)


def test_doubling_temperature():
    rng = np.random.default_rng(8)
    t = np.array([-10.0, -5, 0, 5, 10])
    pulls = []
    for _ in range(100):
        true = 0.2 * 2.0 ** (t / 6.3)
        error = 0.02 * true
        value, sigma = emva.doubling_temperature(t, true + error * rng.standard_normal(5), error)
        pulls.append((value - 6.3) / sigma)
    assert abs(np.mean(pulls)) < 0.4
    assert 0.6 < np.std(pulls) < 1.2
    assert math.isnan(emva.doubling_temperature([0.0], [1.0], [0.1])[0])
    assert math.isnan(emva.doubling_temperature([0.0, 10.0], [1.0, 0.5], [0.1, 0.1])[0])
