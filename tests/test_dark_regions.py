"""Glow of an amplifier: found, kept out of what the sensor tells, and its pixels' errors told honestly."""

from types import SimpleNamespace

import dark_frames
import numpy as np
import pytest
from dark_frames import campaign, sensor

from utils.domain import dark_maps
from utils.domain.dark_model import DarkModel
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ
from utils.kernels.dark_fit import Prior
from utils.kernels.dark_regions import Grid, Regions

SHAPE = (132, 168)
AT = ((2.0, 20.0), (10.0, 30.0))


def made(folder, glow, seed=3):
    camera = sensor(SHAPE, seed, glow=glow, glow_scale=0.1, telegraph_fraction=0.0)
    plan = {"temperatures": (-5, 2, 8, 15), "exposures": (5, 60), "bias_temperatures": (-5, 15)}
    campaign(folder / "in", camera, n=8, bias_n=20, **plan)
    assert dark_frames.run("--basepath", folder / "in", "--output-dir", folder / "out") == 0
    header = read_product(folder / "out/dark_model_2d/A_map_2D.fits").header
    model = DarkModel.load(folder / "out/dark_model_2d")
    pulls = []
    for temperature, exposure in AT:
        rate, error, dq = model.evaluate(temperature, exposure)
        pulls.append((rate - camera.true_dark_rate(temperature, exposure)) / error)
    return camera, header, np.array(pulls), (dq & ~0x188) == 0


def test_glow_neither_spoils_the_sensor_nor_makes_errors_too_small(tmp_path):
    camera, header, pulls, good = made(tmp_path, 0.4)
    assert 0.1 < header["ODDPART"] < 0.7
    assert header["COMMONER"] == 0.0
    ordinary = good & (camera.glow < 0.01) & ~camera.hot
    expected = float(np.median(camera.dark_b[ordinary]))
    assert abs(header["B_G"] - expected) < 0.01 * expected
    # Widths of some 10,000 pulls are known to 1 %.
    assert np.all(np.abs(pulls[:, ordinary].std(axis=1) - 1.0) < 0.07)
    # No law of this form describes glow and dark current together: its error is told, and not too small.
    in_glow = good & (camera.glow > 0.05)
    assert np.all(np.sqrt(np.mean(np.square(pulls[:, in_glow]), axis=1)) < 1.2)


def test_a_sensor_without_glow_has_no_such_places(tmp_path):
    _, header, pulls, good = made(tmp_path, 0.0)
    assert "ODDPART" not in header
    assert np.all(np.abs(pulls[:, good].std(axis=1) - 1.0) < 0.07)


@pytest.mark.parametrize("shape", [(64, 80), (131, 200), (900, 1300)])
def test_means_and_places_of_tiles(shape):
    grid = Grid.of(shape)
    plane = np.add.outer(1000.0 * np.arange(shape[0]), np.arange(shape[1]))
    usable = np.random.default_rng(1).random(shape) > 0.1
    mean, count = grid.means(plane[grid.cut], usable[grid.cut])
    assert mean.shape == count.shape == grid.tiles
    height, width = (s * k for s, k in zip(grid.size, grid.step, strict=True))
    part = tuple(slice(side, 2 * side, k) for side, k in zip((height, width), grid.step, strict=True))
    assert count[1, 1] == usable[part].sum()
    assert mean[1, 1] == pytest.approx(plane[part][usable[part]].mean())
    y, x = grid.axes
    there = [y[height + height // 2], x[2 * width + width // 2]]
    np.testing.assert_allclose(there, [1.0, 2.0], atol=0.5 / min(height, width) + 1e-9)
    assert y[0] == x[0] == 0.0
    assert (y.size, x.size) == shape


def test_saturated_pixels_leave_the_levels_of_tiles_and_of_maps_true():
    shape = (64, 80)
    rate = np.random.default_rng(4).lognormal(0.0, 0.5, shape)
    saturated = np.where(rate > np.quantile(rate, 0.96), int(DQ.SATURATED), 0)
    rates = [rate, np.where(saturated, np.nan, 10.0 * rate), np.full(shape, np.nan)]
    dqs = [np.zeros(shape, int), saturated, np.full(shape, int(DQ.SATURATED))]
    maps = SimpleNamespace(rates=rates, dqs=dqs, exposure=np.full(3, 2.0))
    levels = dark_maps._tile_levels(maps, np.zeros(shape, bool), Grid.of(shape))
    np.testing.assert_allclose(levels[1], 10.0 * levels[0], rtol=1e-6)
    assert np.isnan(levels[2]).all()

    signals = SimpleNamespace(
        signal=lambda where: np.stack([one[where] for one in rates]),
        noise=lambda where: np.full(np.count_nonzero(where), 4.0),
        inverse_gain=0.5,
        frames=np.array([8.0, 8.0, 8.0]),
    )
    found, variance = dark_maps.measured_levels(signals, saturated > 0)
    assert found[0] == np.median(rate[saturated > 0])
    assert variance[0] == (4.0 + 0.5 * found[0]) / 8.0
    assert np.isnan(found[1:]).all()
    assert np.isnan(variance[1:]).all()


def test_prior_is_that_of_the_neighbourhood():
    grid = Grid.of((60, 72))
    odd = np.zeros(grid.tiles, bool)
    odd[2, 2:4] = True
    regions = Regions(grid, odd, np.where(odd, -0.02, 0.0))
    pixels = np.array([0, 30 * 72 + 36, 30 * 72 + 36])
    prior = regions.prior(Prior(0.1, 0.01), pixels, np.array([False, False, True]))
    # The pixel lies half a pixel from the centre of its tile, a 24th of the way to an ordinary one.
    off = 0.02 * 23 / 24
    np.testing.assert_allclose(prior.b, [0.1, 0.1 - off, 0.1])
    np.testing.assert_allclose(prior.b_sigma, [0.01, np.hypot(0.01, 0.5 * off), 0.01])
    np.testing.assert_allclose(regions.mean_of(np.array([7.0, 1.0, 2.0]), pixels), [np.nan, 1.5, 1.5])


def test_small_frames_have_no_tiles():
    assert Grid.of((40, 50)) is None
