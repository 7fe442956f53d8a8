"""Stars of dithered frames: where each frame points, and the light that all of them together know."""

import numpy as np
import pytest

from utils.domain.sky_sources import sky_mesh, sky_surface, source_mask
from utils.kernels import scene, star_light

SHAPE, NOISE = (128, 160), 3.0


def frames(seed, n=10, reach=12, part=None):
    """Frames of one field less their sky, the shifts against the first, and their true light."""
    rng = np.random.default_rng(seed)
    stars = scene.StarField(SHAPE, 80, seed)
    steps = rng.uniform(-reach, reach, (n, 2))
    part = np.ones(n) if part is None else np.asarray(part)
    light = np.array([stars.light(dx, dy) * one for (dy, dx), one in zip(steps, part, strict=True)])
    noisy = light + rng.normal(0, NOISE, light.shape)
    return noisy.astype(np.float32), steps - steps[0], light


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shifts_are_found(seed):
    rest, true, _ = frames(seed)
    first = star_light.matched_spectrum(star_light.contrast(rest[0]))
    for one, shift in zip(rest, true, strict=True):
        found, same = star_light.find_shift(first, star_light.contrast(one))
        assert same
        # The stars are three pixels wide; a tenth of that moves no light that counts.
        np.testing.assert_allclose(found, shift, atol=0.3)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_other_fields_and_frames_without_stars_are_told_apart(seed):
    rest, _, _ = frames(seed, n=1)
    other, _, _ = frames(seed + 50, n=1)
    empty = np.random.default_rng(seed).normal(0, NOISE, SHAPE).astype(np.float32)
    first = star_light.matched_spectrum(star_light.contrast(rest[0]))
    for one in (other[0], empty, np.zeros(SHAPE, np.float32)):
        assert not star_light.find_shift(first, star_light.contrast(one))[1]
    nothing = star_light.matched_spectrum(star_light.contrast(empty))
    assert not star_light.find_shift(nothing, star_light.contrast(rest[0]))[1]


def test_mean_of_all_frames_tells_the_light_of_each():
    part = np.linspace(1.0, 1.5, 10)
    rest, shifts, light = frames(5, part=part)
    rest[3, 40:44, 60:70] = np.nan
    field = star_light.StarField(SHAPE, shifts)
    for one, shift, share in zip(rest, shifts, part, strict=True):
        field.add(one, shift, share)
    stars = field.model()
    assert abs(stars.sigma / NOISE - 1) < 0.2  # smoothed a little by the interpolation
    assert stars.error < 0.03
    edge = 16  # where few frames reach, the mean knows less
    inner = np.s_[edge:-edge, edge:-edge]
    for true, shift, share in zip(light, shifts, part, strict=True):
        error = (stars.light(shift, share) - true)[inner]
        faint = true[inner] < 10 * NOISE
        # Less than the noise of the mean of ten, in which stars are known pixel by pixel.
        assert error[faint].std() < NOISE / np.sqrt(10) * share
        assert abs(error[faint].mean()) < 0.1 * NOISE


def test_frames_whose_stars_differ_are_told():
    rest, shifts, _ = frames(6)
    part = np.random.default_rng(1).uniform(0.7, 1.3, len(rest))  # clouds
    field = star_light.StarField(SHAPE, shifts)
    for one, shift, share in zip(rest, shifts, part, strict=True):
        field.add(one * np.float32(share), shift)
    # Half of the values of an even distribution of +-0.3 lie beyond 0.15.
    assert 0.08 < field.model().error < 0.3


@pytest.mark.parametrize("fraction", [(0.0, 0.0), (0.5, 0.5), (0.2, 0.9)])
def test_interpolation(fraction):
    stars = scene.StarField((64, 72), 30, 2, psf="gaussian")
    found = star_light.moved(stars.light(), fraction)
    true = stars.light(fraction[1], fraction[0])
    assert np.abs(found - true)[8:-8, 8:-8].max() < 0.01 * true.max()


def test_sky_with_a_slope_to_the_edge():
    rows, columns = np.mgrid[0:130, 0:170]
    slope = 1 + 0.0004 * rows - 0.0003 * columns
    rng = np.random.default_rng(3)
    image = (slope + rng.normal(0, 0.01, slope.shape)).astype(np.float32)
    mesh = sky_mesh(image, np.zeros(image.shape, bool))
    error = sky_surface(mesh, image.shape) - slope
    # A box of 24 pixels knows its median to 1.25 x 0.01 / 24; a line beyond the last box is two of them.
    assert np.abs(error).max() < 6 * 2 * 1.25 * 0.01 / 24
    mask, _ = source_mask(image, np.ones(image.shape))
    assert mask.mean() < 0.002


def test_dark_corners_are_noisier_not_full_of_sources():
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[-1:1:160j, -1:1:192j]
    response = (1 - 0.4 * (rows**2 + columns**2)).astype(np.float32)
    image = 1 + rng.normal(0, 0.01, response.shape) / np.sqrt(response)
    mask, _ = source_mask(image.astype(np.float32), response)
    assert mask.mean() < 0.002
    image[20:23, 20:23] += 0.1
    assert source_mask(image.astype(np.float32), response)[0][20:23, 20:23].all()
