"""Sensors that are not all alike: noise that differs from pixel to pixel, dead rows, unsteady levels, cut levels."""

import numpy as np
import pytest

from tests.bias_frames import run, take, write_frame
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ
from utils.kernels.sensor import Sensor, SensorSpec

TEMPERATURES = (-20.0, -5.0, 5.0, 20.0)
SHAPE = (96, 128)


def camera(**terms):
    return Sensor(SensorSpec.bare(shape=SHAPE, seed=3, bias_pixel=3.0, bias_slope=0.3, **terms))


def model_pull(out, sensor, at, where=slice(None)):
    folder = out / "bias_model"
    a, b = read_product(folder / "bias_a_map.fits"), read_product(folder / "bias_b_map.fits")
    cov = read_product(folder / "bias_ab_covariance.fits").data.astype(float)
    quoted = np.sqrt(a.uncert.astype(float) ** 2 + 2 * at * cov + at * at * b.uncert.astype(float) ** 2)
    error = a.data.astype(float) + b.data.astype(float) * at - sensor.true_bias(at)
    return float(np.std((error / quoted)[where]))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_noise_that_differs_by_a_third_between_pixels(tmp_path, n):
    sensor = camera(read_noise=3.0, read_noise_spread=0.3)
    take(tmp_path / "in", sensor, TEMPERATURES, n, 1)
    assert run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out") == 0
    # Width of 12,288 pulls: known to 0.6 %.
    for at in (-20.0, 0.0, 20.0):
        assert model_pull(tmp_path / "out", sensor, at) == pytest.approx(1.0, abs=0.035)
    noise = read_product(tmp_path / "out" / "read_noise" / "read_noise.fits").data
    assert noise.mean() / sensor.read_noise_map.mean() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("noise", "n"), [(1.0, 10), (1.0, 11), (3.0, 10)])
def test_medians_of_integers_quote_their_rounding(tmp_path, noise, n):
    sensor = camera(read_noise=noise)
    take(tmp_path / "in", sensor, TEMPERATURES, n, 1)
    words = ("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out", "--combine", "median")
    assert run(*words) == 0
    assert model_pull(tmp_path / "out", sensor, 0.0) == pytest.approx(1.0, abs=0.04)


def test_dead_rows_are_flagged_and_do_not_speak_for_the_others(tmp_path, capsys):
    sensor = camera(read_noise=3.0)
    rng = np.random.default_rng(1)
    for k, temperature in enumerate(TEMPERATURES):
        for i in range(10):
            samples = sensor.frame("bias", temperature, 1e-5, rng)
            samples[20:28] = 0
            write_frame(tmp_path / "in" / f"b{k}_{i}.fits", samples, CCD_TEMP=temperature)
    assert run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out") == 0
    assert "1024 pixels never changed" in capsys.readouterr().err
    noise = read_product(tmp_path / "out" / "read_noise" / "read_noise.fits")
    live = np.ones(SHAPE, bool)
    live[20:28] = False
    assert np.median(noise.data[live]) == pytest.approx(3.0, rel=0.01)
    assert model_pull(tmp_path / "out", sensor, 0.0, live) == pytest.approx(1.0, abs=0.03)
    for name in ("bias_grouped_by_temp/master_bias_20.0C.fits", "bias_model/bias_a_map.fits"):
        product = read_product(tmp_path / "out" / name)
        assert (product.dq[20:28] & DQ.UNRELIABLE_FIT).all()
        np.testing.assert_array_equal(product.mask, ~live)


def test_jitter_of_the_level_is_no_read_noise(tmp_path):
    sensor = camera(read_noise=3.0)
    rng = np.random.default_rng(1)
    for k, temperature in enumerate(TEMPERATURES):
        for i in range(12):
            samples = sensor.frame("bias", temperature, 1e-5, rng).astype(np.int32)
            samples += sensor.adu_scale * round(rng.normal(0.0, 1.5))
            frame = samples.astype(np.uint16)
            write_frame(tmp_path / "in" / f"b{k}_{i:02d}.fits", frame, CCD_TEMP=temperature)
    assert run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out") == 0
    noise = read_product(tmp_path / "out" / "read_noise" / "read_noise.fits").data
    # Were the jitter taken for noise, sqrt(3^2 + 1.5^2) = 3.35 would come out.
    assert np.median(noise) == pytest.approx(3.0, rel=0.015)


def test_level_cut_at_zero_is_said(tmp_path, capsys):
    sensor = Sensor(SensorSpec.bare(shape=SHAPE, seed=3, bias_level=2.0, read_noise=2.0))
    take(tmp_path / "in", sensor, TEMPERATURES[:2], 6, 1)
    assert run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out") == 0
    assert "are cut at 0, the converter's lowest value" in capsys.readouterr().err


def test_two_gains_in_electrons_are_refused_unless_one_is_given(tmp_path, capsys):
    sensor = camera(read_noise=3.0)
    take(tmp_path / "in" / "one", sensor, (-5.0,), 5, 1, EGAIN=1.0)
    take(tmp_path / "in" / "two", sensor, (5.0,), 5, 2, EGAIN=2.0)
    words = ("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out")
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert "egain differs" in said
    assert "one/bias_00_000.fits" in said
    assert run(*words, "--gain", "1.5") == 0


def test_foreign_model_map_is_refused_before_anything_is_written(tmp_path, capsys):
    take(tmp_path / "in", camera(read_noise=3.0), (-5.0, 5.0), 5, 1)
    foreign = tmp_path / "out" / "bias_model" / "bias_a_map.fits"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    assert run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out") == 2
    assert "bias_a_map.fits: stands there but no run of these pipelines made it" in capsys.readouterr().err
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [foreign]
    assert foreign.read_text() == "mine"
