"""python -m utils.calibrate: frames at unseen temperatures and exposures against truth, and what is refused."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from bias_frames import write_frame
from dark_frames import campaign, run, sensor
from flat_frames import run as flat_run
from flat_frames import take

from bias_pipeline.run_pipeline import main as bias_main
from utils.application.command import run_command
from utils.calibrate import main
from utils.domain.bias_model import BiasModel
from utils.domain.bias_source import load_bias
from utils.domain.dark_model import DarkModel
from utils.domain.detector import Detector, Measured
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ, write_product

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (88, 120)
FLAT_SIGMA = 0.002
SCIENCE = ((2.3, 12.0, 300.0), (12.5, 40.0, 800.0), (-3.1, 30.0, 0.0), (7.0, 60.0, 20.0))
"""Temperature [degC], exposure [s], light [ADU] of the frames: none at a point of the campaign but the exposure 60 s."""


@pytest.fixture(scope="module")
def camera():
    return sensor(SHAPE, seed=1, cosmic_rate=0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory, camera):
    """Bias and dark products, a flat and science frames of one camera."""
    folder = tmp_path_factory.mktemp("calibrate")
    campaign(folder / "frames", camera, seed=1)
    words = ["--basepath", str(folder / "frames"), "--output-dir", str(folder / "bias"), "--plots", "none"]
    assert run_command(bias_main, words) == 0
    bias = folder / "bias" / "bias_model"
    words = ("--basepath", folder / "frames", "--output_dir", folder / "dark", "--bias-model", bias)
    assert run(*words) == 0
    rng = np.random.default_rng(7)
    truth = camera.true_flat() / np.median(camera.true_flat())
    dq = np.where(truth < 0.5, DQ.DEAD | DQ.DO_NOT_USE, 0).astype(np.int16)
    write_flat(folder / "flat.fits", truth + rng.normal(0.0, FLAT_SIGMA, SHAPE), dq)
    for number, (temperature, exposure, light) in enumerate(SCIENCE):
        cards = {"IMAGETYP": "Light Frame", "EXPTIME": exposure, "CCD_TEMP": temperature, "TIMESTMP": 1.7e9}
        kind = "flat" if light else "dark"
        level = {"level": light} if light else {}
        samples = camera.frame(kind, temperature, exposure, rng, **level)
        write_frame(folder / "science" / f"m31_{number}.fits", samples, **cards, OBJECT="M 31", CRVAL1=10.68)
    return folder


def write_flat(path, data, dq=None, name="NONE", **cards):
    given = {"FILTER": name, "TEMP": 5.0, "GAIN": None} | cards
    sigma = np.full(data.shape, FLAT_SIGMA)
    write_product(path, data, prodtype="MASTER_FLAT", unit="", cards=given, uncert=sigma, dq=dq)


def words(folder, out, *more, frames="science"):
    return [
        *(str(folder / frames), "--bias-model", str(folder / "bias" / "bias_model")),
        *("--dark-model", str(folder / "dark" / "dark_model_2d"), "--flat", str(folder / "flat.fits")),
        *("--output-dir", str(out), "--plots", "none", *map(str, more)),
    ]


@pytest.fixture(scope="module")
def calibrated(made):
    assert run_command(main, words(made, made / "out")) == 0
    return [read_product(made / "out" / f"m31_{n}_calibrated.fits", expect="CALIBRATED") for n in range(4)]


@pytest.mark.parametrize("number", range(4))
def test_residual_is_unbiased_and_errors_are_right(calibrated, camera, number):
    product, light = calibrated[number], SCIENCE[number][2]
    true = light * np.median(camera.true_flat())
    good = ~product.mask
    assert good.mean() > 0.985
    error = (product.data - true)[good].astype(float)
    pull = error / product.uncert[good]
    assert abs(error.mean()) < 0.1 * np.median(product.uncert[good])
    assert 0.95 < pull.std() < 1.1
    # Pixels whose telegraph noise the darks did not show are among the good ones.
    assert np.mean(np.abs(pull) > 6.0) < 1e-3


def test_header_tells_the_frame_and_what_was_done(calibrated, made):
    header = calibrated[0].header
    assert (header["OBJECT"], header["CRVAL1"], header["TEMP"], header["EXPTIME"]) == (
        "M 31",
        10.68,
        2.3,
        12.0,
    )
    assert header["DATE-OBS"] == "2023-11-14T22:13:20.000"
    assert header["BIASFILE"].endswith("bias_model")
    assert header["FLATFILE"].endswith("flat.fits")
    assert (header["DARKKIND"], header["EXTRAP"]) == ("model", False)
    assert calibrated[0].inputs[0]["file"].endswith("m31_0.fits")
    assert calibrated[0].unit == "adu"
    rows = list(csv.DictReader((made / "out" / "calibrated_frames.csv").read_text().splitlines()))
    assert [row["dark"] for row in rows] == ["model"] * 4
    # A master dark of 60 s stands 2 degC away, two masters stand around: both leave more.
    header = calibrated[3].header
    assert header["DARKRES"] < header["RESINTER"] < header["RESMASTE"]


def test_the_advisor_says_what_the_dark_leaves(calibrated, camera, made):
    """The expected residual is the scatter of the dark's error over pixels of an ordinary rate."""
    from utils.application.product_list import load_products
    from utils.domain.dark_advisor import DarkAdvisor

    maps = [product.path for product in load_products(made / "dark", "DARK_CURRENT")]
    advisor = DarkAdvisor(DarkModel.load(made / "dark" / "dark_model_2d"), maps)
    ordinary = ~(camera.hot | camera.warm | camera.telegraph).ravel()
    for temperature, exposure in ((7.0, 60.0), (5.05, 60.0), (2.0, 20.0)):
        true = camera.true_signal("dark", temperature, exposure)
        for candidate in advisor.candidates(temperature, exposure):
            dark, _ = candidate.signal(slice(0, ordinary.size), slice(None), lambda key, make: make())
            left = (dark + candidate.offset - true.ravel())[
                ordinary & ~candidate.lost(slice(0, ordinary.size))
            ]
            rms = 1.4826 * np.median(np.abs(left))
            assert candidate.expected == pytest.approx(rms, rel=0.35), (candidate.kind, temperature, exposure)
    best = advisor.candidates(5.0, 60.0)
    assert best[0].kind in ("model", "master")


def test_blocks_and_threads_leave_no_trace(made, calibrated, monkeypatch):
    from utils.domain import calibration_pass

    monkeypatch.setattr(calibration_pass, "PIECE", 7 * SHAPE[1])
    monkeypatch.setattr(calibration_pass, "BATCH", 3)
    assert run_command(main, words(made, made / "small", "--jobs", 3)) == 0
    again = read_product(made / "small" / "m31_1_calibrated.fits")
    np.testing.assert_array_equal(again.data, calibrated[1].data)
    np.testing.assert_array_equal(again.uncert, calibrated[1].uncert)
    np.testing.assert_array_equal(again.dq, calibrated[1].dq)


def test_dark_output_folder_brings_its_bias_and_frames_are_named_one_by_one(made, calibrated, tmp_path):
    command = [
        str(made / "science" / "m31_2.fits"),
        "--dark-model",
        str(made / "dark"),
        "--flat",
        str(made / "flat.fits"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "utils.calibrate", *command, "--output-dir", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "calibrate: 1 of 1 frames" in done.stdout
    again = read_product(tmp_path / "out" / "m31_2_calibrated.fits")
    np.testing.assert_allclose(again.data, calibrated[2].data, atol=1e-3)
    assert "data:image/png" in (tmp_path / "out" / "report.html").read_text()


def test_models_are_found_in_the_output_folders_of_their_pipelines(made):
    assert load_bias(made / "bias").origin == str(made / "bias/bias_model")
    assert DarkModel.load(made / "dark").paths == DarkModel.load(made / "dark/dark_model_2d").paths


def test_saturated_samples_and_full_wells_are_not_usable(made, camera, tmp_path):
    rng = np.random.default_rng(1)
    samples = camera.frame("flat", 5.0, 10.0, rng, level=300.0)
    samples[10, 20] = 4095 * 16
    samples[11, 21] = 3900 * 16  # charge near the full well, below the converter's end
    cards = {"IMAGETYP": "Light Frame", "EXPTIME": 10.0, "CCD_TEMP": 5.0}
    write_frame(tmp_path / "science" / "a.fits", samples, **cards)
    command = words(made, tmp_path / "out")
    assert run_command(main, [str(tmp_path / "science"), *command[1:]]) == 0
    product = read_product(tmp_path / "out" / "a_calibrated.fits")
    for row, column in ((10, 20), (11, 21)):
        assert product.mask[row, column]
        assert product.dq[row, column] & DQ.SATURATED


def test_outside_the_range_is_said_and_flagged(made, camera, tmp_path, capsys):
    rng = np.random.default_rng(1)
    cards = {"IMAGETYP": "Light Frame", "EXPTIME": 10.0, "CCD_TEMP": 28.0}
    write_frame(tmp_path / "science" / "hot.fits", camera.frame("dark", 28.0, 10.0, rng), **cards)
    assert run_command(main, [str(tmp_path / "science"), *words(made, tmp_path / "out")[1:]]) == 0
    assert "temperature 28 degC outside" in capsys.readouterr().err
    product = read_product(tmp_path / "out" / "hot_calibrated.fits")
    assert product.header["EXTRAP"] is True


def test_what_does_not_fit_is_refused_naming_both(made, camera, tmp_path, capsys):
    rng = np.random.default_rng(1)
    samples = camera.frame("flat", 5.0, 10.0, rng, level=300.0)
    cards = {"IMAGETYP": "Light Frame", "EXPTIME": 10.0, "CCD_TEMP": 5.0}
    cases = {
        "shape": (samples[:-2], cards, "shape"),
        "scale": (
            samples + np.arange(samples.size, dtype=np.uint16).reshape(SHAPE) % 2,
            cards,
            "ADUSCALE 16, expected 1",
        ),
        "cold": (samples, cards | {"CCD_TEMP": 999.0}, "temperature"),
        "filter": (samples, cards | {"FILTER": "R"}, "no flat of filter R, expected one of B, V"),
    }
    for name in ("B", "V"):
        write_flat(tmp_path / f"{name}.fits", np.ones(SHAPE), name=name)
    for name, (frame, header, message) in cases.items():
        path = tmp_path / name / f"{name}.fits"
        write_frame(path, frame, **header)
        command = [str(path), *words(made, tmp_path / f"out_{name}")[1:]]
        if name == "filter":
            command[command.index("--flat") + 1] = str(tmp_path / "V.fits")
            message = "no flat of filter R, expected one of V"
        assert run_command(main, command) == 2, name
        error = capsys.readouterr().err
        assert message in error
        assert str(path) in error
        assert "Traceback" not in error


def test_one_bad_frame_is_named_and_the_others_are_made(made, tmp_path, capsys):
    shutil.copytree(made / "science", tmp_path / "science")
    (tmp_path / "science" / "broken.fits").write_bytes(b"SIMPLE  = nonsense")
    assert run_command(main, [str(tmp_path / "science"), *words(made, tmp_path / "out")[1:]]) == 1
    assert "missing: broken_calibrated.fits" in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*_calibrated.fits"))) == 4


def test_frame_whose_data_are_not_those_of_its_sum(made, tmp_path, capsys):
    path = Path(shutil.copy(made / "science" / "m31_1.fits", tmp_path / "x.fits"))
    with fits.open(path, mode="update", checksum=True, do_not_scale_image_data=True):
        pass
    changed = bytearray(path.read_bytes())
    changed[-2880 * 2] ^= 1
    path.write_bytes(bytes(changed))
    assert run_command(main, [str(path), *words(made, tmp_path / "out")[1:]]) == 2
    assert "x.fits: DATASUM: the data have " in capsys.readouterr().err


def test_detector_and_gain_change_the_errors(made, calibrated, tmp_path):
    sheet = tmp_path / "detector.json"
    Detector(Measured(1e-3), 16.0, Measured(2.0), Measured(3700.0)).write(sheet)
    for number, more in enumerate((("--detector", sheet), ("--gain", "1e-3"))):
        assert run_command(main, words(made, tmp_path / f"out{number}", *more)) == 0
        again = read_product(tmp_path / f"out{number}" / "m31_0_calibrated.fits")
        assert np.median(again.uncert) > 5 * np.median(calibrated[0].uncert)
        np.testing.assert_array_equal(again.data, calibrated[0].data)


def test_a_flat_that_is_nowhere_positive_leaves_no_value(made, calibrated, tmp_path):
    """Zeros, negative pixels and NaN of a flat: no value, flagged; the other pixels are as before."""
    truth = read_product(made / "flat.fits").data
    holes = {(3, 4): 0.0, (50, 7): -0.1, (87, 119): np.nan}
    for at, value in holes.items():
        truth[at] = value
    write_flat(tmp_path / "holes.fits", truth, read_product(made / "flat.fits").dq)
    command = words(made, tmp_path / "out", "--flat", tmp_path / "holes.fits")
    assert run_command(main, command) == 0
    product = read_product(tmp_path / "out" / "m31_1_calibrated.fits")
    for at in holes:
        assert np.isnan(product.data[at])
        assert product.mask[at]
        assert product.dq[at] & DQ.NO_DATA
        product.data[at] = calibrated[1].data[at]
    np.testing.assert_array_equal(product.data, calibrated[1].data)


@pytest.mark.parametrize("mode", ["full", "full_no_vignetting"])
def test_flats_of_the_flat_pipeline_with_their_light_or_without(made, camera, tmp_path, mode):
    """The frame is divided by response and illumination, whether the pipeline parted them or not."""
    take(tmp_path / "in", camera, "flat", [(5.0, 5.0, 10, 1400.0)], 3)
    options = ("--bias-model", made / "bias" / "bias_model", "--dark-model", made / "dark" / "dark_model_2d")
    given = ("--mode", mode, "--basepath", tmp_path / "in", "--output-dir", tmp_path / "flat")
    assert flat_run(*given, *options) == 0
    assert run_command(main, words(made, tmp_path / "out", "--flat", tmp_path / "flat")) == 0
    product = read_product(tmp_path / "out" / "m31_1_calibrated.fits")
    assert product.header["FLATFILE"].endswith(".fits")
    good = ~product.mask
    assert good.mean() > 0.985
    # A flat is known up to a factor: pixels against their median.
    pull = (product.data - np.median(product.data[good]))[good] / product.uncert[good]
    assert 0.95 < pull.std() < 1.1
    edge, middle = product.data[:8, :8], product.data[40:48, 56:64]
    error = 1.25 * np.median(product.uncert[good]) / 8.0
    assert abs(np.median(edge) - np.median(middle)) < 5.0 * error


@pytest.mark.parametrize("at", [(-5.0, 5.0), (5.0, 60.0), (10.0, 20.0)])
def test_synthetic_darks_with_their_bias_have_its_error_once(made, camera, tmp_path, at):
    """The model lacks what the error of the bias adds: the two cancel in part.  As if independent: 0.97, 0.85, 0.80."""
    out = tmp_path / "dark"
    shutil.copytree(made / "dark", out)
    single = ("--temp-single", at[0], "--exptime-single", at[1], "--unit", "adu", "--add-bias")
    assert run("--mode", "synthetic_2d_single", "--output_dir", out, *single) == 0
    product = read_product(next(out.glob("synthetic_2d_dark_T*.fits")))
    assert product.header["OFFSET"] == 0.0
    assert product.header["WITHBIAS"]
    good = ~(camera.hot | camera.warm | camera.telegraph | (product.dq != 0))
    error = (product.data - camera.true_bias(at[0]) - camera.true_signal("dark", *at))[good]
    assert abs(error.mean()) < 0.02  # 0.5 ADU over 10,000 pixels, and half a hundredth of the rate
    # 10,000 pixels: known to 0.007.
    assert np.std(error / product.uncert[good]) == pytest.approx(1.0, abs=0.04)


def test_options_that_cannot_work_are_refused(made, tmp_path, capsys):
    frame, sheet = str(made / "science" / "m31_0.fits"), tmp_path / "detector.json"
    Detector(None, 16.0, Measured(2.0), Measured(3700.0)).write(sheet)
    for command, message in (
        ([frame], "--bias-model: got none"),
        ([frame, "--bias-model", str(tmp_path)], "bias_a_map.fits"),
        ([str(tmp_path), *words(made, tmp_path / "o")[1:]], "no FITS file below"),
        (
            [frame, *words(made, tmp_path / "o")[1:], "--flat", str(made / "science" / "m31_0.fits")],
            "expected MASTER_FLAT",
        ),
        ([frame, *words(made, tmp_path / "o")[1:], "--detector", str(sheet)], 'got no "gain"'),
    ):
        assert run_command(main, [*command, "--output-dir", str(tmp_path / "o")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_products_in_folders_are_left_out_and_no_frame_comes_twice(made, tmp_path, capsys):
    frame = shutil.copy(made / "science" / "m31_0.fits", tmp_path / "night 1.fits")
    again = tmp_path / "sub" / ".." / "night 1.fits"
    (tmp_path / "sub").mkdir()
    command = [str(tmp_path), str(frame), str(again), *words(made, tmp_path)[1:]]
    for turn in range(2):  # The output folder is the input folder: the second time it holds a product.
        assert run_command(main, command) == 0
        assert ("1 product among the frames" in capsys.readouterr().err) == (turn == 1)
    assert [path.name for path in tmp_path.glob("*_calibrated.fits")] == ["night 1_calibrated.fits"]


def test_no_exposure_has_no_dark_and_a_frame_of_another_size_is_refused(made, camera, tmp_path, capsys):
    samples = camera.frame("bias", 5.0, 0.0, np.random.default_rng(1))
    cards = {"IMAGETYP": "Light Frame", "EXPTIME": 0.0, "CCD_TEMP": 5.0}
    write_frame(tmp_path / "zero.fits", samples, **cards)
    write_frame(tmp_path / "cut.fits", samples, **cards, BADSIZE=True)
    command = words(made, tmp_path / "out")
    command[0:1] = [str(tmp_path / "zero.fits"), str(tmp_path / "cut.fits")]
    assert run_command(main, command) == 1
    assert "cut.fits: BADSIZE = T" in capsys.readouterr().err
    product = read_product(tmp_path / "out" / "zero_calibrated.fits")
    assert "DARKKIND" not in product.header
    error = product.data[~product.mask]
    assert abs(error.mean()) < 5 * np.median(product.uncert) / np.sqrt(error.size / 25)


@pytest.mark.parametrize("at", [(7.0, 60.0), (2.0, 1.0), (-3.0, 11.0), (30.0, 12.0), (0.0, 500.0)])
def test_parabolas_are_the_models(made, at):
    """What calibration evaluates many times is what the models say once, inside and outside their range."""
    dark = DarkModel.load(made / "dark" / "dark_model_2d")
    rate, sigma, _ = dark.evaluate(*at)
    whole = slice(0, rate.size)
    signal, variance = dark.signal(dark.terms(whole, at[1]), whole, *at)
    np.testing.assert_allclose(signal, rate.ravel() * at[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(variance), sigma.ravel() * at[1], rtol=2e-3, atol=1e-5)
    bias = BiasModel.load(made / "bias" / "bias_model", mapped=True)
    level, error, _ = BiasModel.load(made / "bias" / "bias_model").evaluate(at[0])
    terms = bias.terms(slice(3, 40), slice(5, 38))
    np.testing.assert_allclose(terms.level(at[0]), level[3:40], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(terms.variance(at[0])), error[5:38], rtol=1e-3)
