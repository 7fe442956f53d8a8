"""The modes of the bias pipeline, its products by name and header, its options, and the tool for one bias."""

import json
import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from bias_pipeline import generate_bias
from tests.bias_frames import campaign, command, files, record, rows, run, take, write_frame
from utils.application.command import run_command
from utils.fits_io.product_reader import read_product
from utils.kernels.sensor import Sensor, SensorSpec

TEMPERATURES = (-20, -10, 0, 10, 20)
LABELS = ("-20.0", "-10.0", "0.0", "10.0", "20.0")
SHAPE = (32, 40)
MASTERS = {f"bias_grouped_by_temp/master_bias_{t}C.fits" for t in LABELS}
NOISE = {f"read_noise/read_noise_{t}C.fits" for t in LABELS} | {"read_noise/read_noise.fits"}
MODEL = {f"bias_model/{name}" for name in ("bias_a_map.fits", "bias_b_map.fits", "bias_ab_covariance.fits")}
SYNTHETIC = {f"bias_masks_by_temp/synthetic_bias_{t}C.fits" for t in LABELS}
TABLES = {
    "bias_grouped_by_temp/frame_levels.csv",
    "bias_model/bias_model.json",
    "evaluation/evaluation_summary.csv",
}
OF_RUN = {"run.json", "rejected_frames.csv", "summary.csv", "report.html"}
EVERYWHERE = (
    *("PRODTYPE", "BUNIT", "NCOMBINE", "TEMP", "TEMPSTD", "TEMPMIN", "TEMPMAX", "EXPTIME", "CALTYPE"),
    *("ADUSCALE", "EGAIN", "SATURATE", "DATE-BEG", "DATE-AVG", "DATE-END", "DATE", "PROGVER"),
    *("CHECKSUM", "DATASUM"),
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign") / "Bias"
    campaign(folder, shape=SHAPE, temperatures=TEMPERATURES, n=6, seed=11)
    return folder


@pytest.fixture(scope="module")
def full(frames, tmp_path_factory):
    """Output of a full run with everything but pictures."""
    out = tmp_path_factory.mktemp("full") / "out"
    assert run("--basepath", frames, "--output_dir", out, "--save-eval-fits", "--gain", "2.0") == 0
    return out


@pytest.fixture
def copy(full, tmp_path):
    """A copy of the full run's folder in another place; the frames are not reachable from it."""
    return Path(shutil.copytree(full, tmp_path / "copy" / "out"))


def content(path):
    """Everything in a FITS file but dates of writing and checksums: comparable with ==."""
    found = []
    with fits.open(path) as hdus:
        for hdu in hdus:
            cards = [
                tuple(card) for card in hdu.header.cards if card[0] not in ("DATE", "CHECKSUM", "DATASUM")
            ]
            found.append((cards, None if hdu.data is None else hdu.data.tobytes()))
    return found


def without_datasums(path):
    """As ``content``, the sums in the INPUTS table left out too (those of masters hold their dates)."""
    found = content(path)
    with fits.open(path) as hdus:
        for number, hdu in enumerate(hdus):
            if hdu.name == "INPUTS":
                table = [tuple(str(cell) for cell in row)[:-1] for row in hdu.data]
                found[number] = (found[number][0], table)
    return found


def same_products(one, other, names):
    for name in sorted(names):
        if name.endswith(".fits"):
            assert without_datasums(one / name) == without_datasums(other / name), name
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


# --- names and headers -------------------------------------------------------------------------------


def test_full_run_makes_what_is_promised_and_nothing_else(full):
    evaluation = {
        f"evaluation/{kind}_{t}C.fits"
        for kind in ("real_bias", "synthetic_bias", "mae", "mape")
        for t in LABELS
    }
    assert files(full) == MASTERS | NOISE | MODEL | SYNTHETIC | TABLES | OF_RUN | evaluation
    products = record(full)["products"]
    assert set(products) == files(full) - {"run.json"}


def test_every_product_has_every_card(full):
    for name in sorted(files(full)):
        if name.endswith(".fits"):
            header = fits.getheader(full / name)
            assert [key for key in EVERYWHERE if key not in header] == [], name
            assert header["ADUSCALE"] == 16
            assert header["EGAIN"] == 2.0
            assert header["CALTYPE"] == "BIAS"
            assert [header[f"DQBIT{bit}"] for bit in (0, 5, 8)] == ["DO_NOT_USE", "NOISY", "UNRELIABLE_FIT"]
            with fits.open(full / name) as hdus:
                assert {"DQ", "MASK", "INPUTS"} <= {hdu.name for hdu in hdus}, name


def test_products_open_as_ccddata_without_a_warning(full):
    for name, unit in (
        ("bias_grouped_by_temp/master_bias_0.0C.fits", "adu"),
        ("read_noise/read_noise.fits", "adu"),
        ("bias_model/bias_a_map.fits", "adu"),
        ("bias_model/bias_b_map.fits", "adu / K"),
        ("bias_masks_by_temp/synthetic_bias_10.0C.fits", "adu"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = CCDData.read(full / name)
        assert image.unit.to_string() == unit
        assert image.shape == SHAPE
        assert image.data.dtype == np.dtype(">f4")
        assert np.isfinite(image.uncertainty.array).all()
        assert image.uncertainty.uncertainty_type == "std"
        assert image.mask.dtype == bool


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify_finds_no_error_and_no_warning(full):
    paths = sorted(full / name for name in files(full) if name.endswith(".fits"))
    result = subprocess.run(
        ["fitsverify", "-q", *map(str, paths)], capture_output=True, text=True, check=False
    )
    lines = result.stdout.splitlines()
    assert len([line for line in lines if line.startswith("verification OK")]) == len(paths)
    assert result.returncode == 0


def test_checksums_hold(full):
    for name in sorted(MASTERS | MODEL):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with fits.open(full / name, checksum=True) as hdus:
                assert len(hdus) > 3


def test_master_tells_its_frames(full, frames):
    master = read_product(full / "bias_grouped_by_temp" / "master_bias_-10.0C.fits")
    assert [Path(row["file"]).name for row in master.inputs] == [f"bias_01_{i:03d}.fits" for i in range(6)]
    assert [row["time"] for row in master.inputs] == [1.7e9 + 600 + 2 * i for i in range(6)]
    assert {row["temperature"] for row in master.inputs} == {-10.0}
    assert {row["exposure"] for row in master.inputs} == {1e-5}
    # The sum of the stored data, as astropy computes it.
    with fits.open(frames / "bias_01_000.fits", do_not_scale_image_data=True) as hdus:
        hdus[0].add_datasum()
        expected = hdus[0].header["DATASUM"]
    assert master.inputs[0]["datasum"] == expected
    header = master.header
    assert (header["NCOMBINE"], header["COMBINE"], header["CLIPSIG"]) == (6, "sigclip", 4.0)
    assert (header["TEMP"], header["TEMPSTD"], header["TEMPMIN"], header["TEMPMAX"]) == (-10, 0, -10, -10)
    assert header["SATURATE"] == 4095
    assert header["DATE-BEG"] == "2023-11-14T22:23:20.000"
    assert header["DATE-AVG"] == "2023-11-14T22:23:25.000"


def test_model_can_be_evaluated_from_its_headers_alone(full):
    a, b = (fits.open(full / "bias_model" / f"bias_{which}_map.fits") for which in "ab")
    cov = fits.getdata(full / "bias_model" / "bias_ab_covariance.fits").astype(float)
    header = a[0].header
    assert header["MODEL"] == "bias(T) = a + b * T, T in degC"
    assert header["ERRMODEL"] == "UNCERT(T)^2 = sa^2 + 2 T cov + T^2 sb^2"
    assert (header["T_MIN"], header["T_MAX"], header["T_REF"], header["NMASTER"]) == (-20, 20, 0, 5)
    assert (header["NCOMBINE"], header["TEMP"]) == (30, 0)
    assert header["DATE-BEG"] == "2023-11-14T22:13:20.000"
    assert header["DATE-AVG"] == "2023-11-14T22:33:25.000"
    t = 10.0
    with fits.open(full / "bias_masks_by_temp" / "synthetic_bias_10.0C.fits") as synthetic:
        np.testing.assert_allclose(synthetic[0].data, a[0].data + t * b[0].data, rtol=1e-6)
        variance = (
            a["UNCERT"].data.astype(float) ** 2 + 2 * t * cov + t * t * b["UNCERT"].data.astype(float) ** 2
        )
        np.testing.assert_allclose(synthetic["UNCERT"].data, np.sqrt(variance), rtol=1e-5)
        assert synthetic[0].header["EXTRAP"] is False
        assert synthetic[0].header["TEMP"] == 10.0
    for hdus in (a, b):
        hdus.close()
    summary = json.loads((full / "bias_model" / "bias_model.json").read_text())
    assert summary["temperatures"] == list(TEMPERATURES)
    assert summary["maps"]["a"] == "bias_a_map.fits"


def test_numbers_of_the_run(full):
    found = {
        (row["section"], row["name"], row["unit"]): float_or_text(row["value"])
        for row in rows(full / "summary.csv")
    }
    assert found["camera", "stored units per ADU", ""] == 16
    assert found["camera", "saturation", "adu"] == 4095
    assert found["camera", "read noise (median pixel)", "adu"] == pytest.approx(1.5, rel=0.05)
    assert found["camera", "read noise (median pixel)", "e-"] == pytest.approx(3.0, rel=0.05)
    assert found["bias level", "slope of the zero level", "adu/degC"] == pytest.approx(0.3, abs=0.005)
    assert found["bias model", "a (median pixel)", "adu"] == pytest.approx(100, abs=1.5)
    assert found["bias model", "b (median pixel)", "adu/K"] == pytest.approx(0.3, abs=0.01)
    # 1280 pixels with 3 degrees of freedom: the mean is known to sqrt(2 / 3 / 1280) = 2.3 %.
    assert found["bias model", "reduced chi2 (mean of good pixels)", ""] == pytest.approx(1, abs=0.1)
    assert found["evaluation", "extrapolation beyond the fitted range", ""].startswith("trusted")
    table = rows(full / "evaluation" / "evaluation_summary.csv")
    assert [float(row["temperature"]) for row in table] == list(TEMPERATURES)
    assert [row["left_out_is"] for row in table] == ["extrapolation", *["interpolation"] * 3, "extrapolation"]
    assert all(float(row["left_out_rmse"]) > float(row["rmse"]) for row in table)
    assert all(float(row["within_3sigma"]) > 0.98 for row in table)


def float_or_text(text):
    try:
        return float(text)
    except ValueError:
        return text


def test_run_is_recorded(full, frames):
    (one,) = record(full)["runs"]
    assert (one["mode"], one["status"], one["error"], one["warnings"]) == ("full", 0, None, [])
    assert one["inputs"]["count"] == 30
    assert one["inputs"]["files"][0]["path"] == str(frames / "bias_00_000.fits")
    assert [step["name"] for step in one["steps"]] == [
        *("select_frames", "make_masters", "fit_model", "synthesize", "evaluate", "report")
    ]
    assert one["options"]["shared"]["gain"] == 2.0


# --- modes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "made"),
    [
        ("fit_model", MODEL | {"bias_model/bias_model.json"}),
        ("synthetic_only", SYNTHETIC),
        ("evaluate_model", {"evaluation/evaluation_summary.csv"}),
    ],
)
def test_mode_works_on_a_copy_without_frames(full, copy, mode, made):
    for name in made:
        (copy / name).unlink()
    words = ["--save-eval-fits"] if mode == "evaluate_model" else []
    result = command("--mode", mode, "--output-dir", copy, "--plots", "none", *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert files(copy) == files(full)
    same_products(full, copy, files(full) - OF_RUN)
    assert [one["mode"] for one in record(copy)["runs"]] == ["full", mode]


def test_make_master_alone_gives_the_masters_of_full(full, frames, tmp_path):
    out = tmp_path / "out"
    result = command(
        *("--mode", "make_master", "--basepath", frames, "--output-dir", out),
        *("--gain", 2, "--plots", "none"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert files(out) == MASTERS | NOISE | OF_RUN | {"bias_grouped_by_temp/frame_levels.csv"}
    same_products(full, out, files(out) - OF_RUN)


def test_modes_one_after_the_other_give_what_full_gives(full, frames, tmp_path):
    out = tmp_path / "out"
    assert run("--mode", "make_master", "--basepath", frames, "--output-dir", out, "--gain", 2) == 0
    for mode in ("fit_model", "synthetic_only", "evaluate_model"):
        assert run("--mode", mode, "--output-dir", out, "--save-eval-fits") == 0
    assert files(out) == files(full)
    same_products(full, out, files(full) - OF_RUN)


@pytest.mark.parametrize(
    ("mode", "missing"),
    [
        ("fit_model", "MASTER_BIAS"),
        ("synthetic_only", "BIAS_A"),
        ("evaluate_model", "MASTER_BIAS"),
    ],
)
def test_mode_without_its_input_is_refused(tmp_path, capsys, mode, missing):
    assert run("--mode", mode, "--output-dir", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert missing in line
    assert "--mode" in line  # how to make it
    assert not (tmp_path / "out").exists()


# --- runs into a folder that is in use ------------------------------------------------------------------


def test_second_run_gives_the_same(full, frames, copy):
    before = files(copy)
    assert run("--basepath", frames, "--output-dir", copy, "--save-eval-fits", "--gain", 2) == 0
    assert files(copy) == before
    same_products(full, copy, before - OF_RUN)
    assert len(record(copy)["runs"]) == 2


def test_stale_products_go_and_nothing_else(copy, tmp_path):
    """Other temperatures: masters, noise, synthetic biases and maps of the old ones are removed."""
    other = tmp_path / "other"
    campaign(other, shape=SHAPE, temperatures=(-20, 5), n=6, seed=12)
    mine = copy / "bias_grouped_by_temp" / "notes.txt"
    mine.write_text("mine")
    foreign = copy / "bias_masks_by_temp" / "synthetic_bias_99.0C.fits"
    shutil.copy(copy / "bias_masks_by_temp" / "synthetic_bias_0.0C.fits", foreign)
    assert run("--basepath", other, "--output-dir", copy) == 0
    now = {name for name in files(copy) if name.endswith(".fits")}
    assert now == MODEL | {foreign.relative_to(copy).as_posix()} | {
        *(f"bias_grouped_by_temp/master_bias_{t}C.fits" for t in ("-20.0", "5.0")),
        *(
            "read_noise/read_noise.fits",
            "read_noise/read_noise_-20.0C.fits",
            "read_noise/read_noise_5.0C.fits",
        ),
        *(f"bias_masks_by_temp/synthetic_bias_{t}C.fits" for t in ("-20.0", "5.0")),
    }
    assert mine.read_text() == "mine"
    assert "bias_masks_by_temp/synthetic_bias_0.0C.fits" in record(copy)["runs"][-1]["removed"]


def test_output_folder_inside_the_input_folder_twice(tmp_path):
    frames = tmp_path / "night"
    campaign(frames, shape=SHAPE, temperatures=(0, 10), n=5, seed=13)
    out = frames / "calibrated"
    for _ in range(2):
        assert run("--basepath", frames, "--output-dir", out) == 0
    first, second = record(out)["runs"]
    assert first["inputs"]["count"] == second["inputs"]["count"] == 10
    assert first["products"] == second["products"]
    # A third run elsewhere meets the products and leaves them out by what they are.
    assert run("--basepath", frames, "--output-dir", tmp_path / "other") == 0
    assert record(tmp_path / "other")["runs"][0]["inputs"]["count"] == 10


# --- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["-5 7.25"], ["-5", "7.25"], ["-5;7.25 "]])
def test_temps_in_every_form(copy, words):
    assert run("--mode", "synthetic_only", "--output-dir", copy, "--temps", *words) == 0
    found = {name for name in files(copy) if name.startswith("bias_masks_by_temp")}
    assert found == {f"bias_masks_by_temp/synthetic_bias_{t}C.fits" for t in ("-5.0", "7.2")}
    header = fits.getheader(copy / "bias_masks_by_temp" / "synthetic_bias_7.2C.fits")
    assert header["TEMP"] == 7.25


def test_temperatures_of_one_label_do_not_share_a_name(copy):
    assert run("--mode", "synthetic_only", "--output-dir", copy, "--temps", "-0.01 0.01 0.04") == 0
    found = sorted(name for name in files(copy) if name.startswith("bias_masks_by_temp"))
    assert found == [f"bias_masks_by_temp/synthetic_bias_0.0C{more}.fits" for more in ("", "_2", "_3")]


def test_temperature_outside_the_range_is_said_and_marked(copy, capsys):
    assert run("--mode", "synthetic_only", "--output-dir", copy, "--temps", "-40", "0") == 0
    assert "-40.0 degC outside the fitted range -20.0 to 20.0 degC" in capsys.readouterr().err
    cold, inside = (
        read_product(copy / "bias_masks_by_temp" / f"synthetic_bias_{t}C.fits") for t in ("-40.0", "0.0")
    )
    assert (cold.header["EXTRAP"], inside.header["EXTRAP"]) == (True, False)
    assert np.median(cold.uncert) > 2 * np.median(inside.uncert)


def test_generate_set_is_a_grid_of_one_degree(copy):
    assert run("--mode", "synthetic_only", "--output-dir", copy, "--generate-set") == 0
    found = {name for name in files(copy) if name.startswith("bias_masks_by_temp")}
    assert found == {f"bias_masks_by_temp/synthetic_bias_{t:.1f}C.fits" for t in range(-20, 21)}


def test_hot_pixel_mask_marks_and_leaves_out(full, frames, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[3, 4] = mask[20, 30] = 1
    fits.PrimaryHDU(mask).writeto(tmp_path / "hot.fits")
    out = tmp_path / "out"
    assert run("--basepath", frames, "--output-dir", out, "--hot-pixel-mask", tmp_path / "hot.fits") == 0
    for name in ("bias_grouped_by_temp/master_bias_0.0C.fits", "bias_model/bias_a_map.fits"):
        product = read_product(out / name)
        assert ((product.dq & 8) != 0).tolist() == (mask != 0).tolist()
        np.testing.assert_array_equal(product.data, read_product(full / name).data)
    table, plain = (rows(folder / "evaluation" / "evaluation_summary.csv") for folder in (out, full))
    assert int(plain[0]["pixels"]) - int(table[0]["pixels"]) == 2


def test_wrong_hot_pixel_mask_is_refused(frames, tmp_path, capsys):
    fits.PrimaryHDU(np.zeros((3, 4), np.uint8)).writeto(tmp_path / "hot.fits")
    words = ("--basepath", frames, "--output-dir", tmp_path / "out", "--hot-pixel-mask")
    assert run(*words, tmp_path / "hot.fits") == 2
    assert f"hot.fits: shape (3, 4), expected {SHAPE} as the frames" in capsys.readouterr().err
    assert run(*words, tmp_path / "none.fits") == 2
    assert "none.fits: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("plots", "maps"), [("summary", {"-20.0", "0.0", "20.0"}), ("all", set(LABELS))])
def test_pictures(frames, tmp_path, plots, maps):
    out = tmp_path / "out"
    assert run("--basepath", frames, "--output-dir", out, plots=plots) == 0
    pictures = {name for name in files(out) if name.endswith(".png")}
    evaluation = {
        f"evaluation/{kind}_{t}C.png" for kind in ("real_bias", "synthetic_bias", "mae", "mape") for t in maps
    }
    assert {name for name in pictures if name.startswith("evaluation")} == evaluation | {
        "evaluation/evaluation_summary.png"
    }
    assert {f"figures/master_bias_{t}C.png" for t in maps} <= pictures
    assert all((out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for name in pictures)
    text = (out / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r"(?:src|href)=[\"']https?:", text)  # it opens offline


@pytest.mark.parametrize("method", ["mean", "median"])
def test_other_combinations_are_named_and_differ(full, frames, tmp_path, method):
    words = ("--mode", "make_master", "--combine", method, "--output-dir", tmp_path / "out")
    assert run("--basepath", frames, *words) == 0
    name = "bias_grouped_by_temp/master_bias_0.0C.fits"
    master = read_product(tmp_path / "out" / name)
    assert master.header["COMBINE"] == method
    stack = np.array([fits.getdata(frames / f"bias_02_{i:03d}.fits").astype(float) for i in range(6)]) / 16
    np.testing.assert_allclose(master.data, getattr(np, method)(stack, axis=0), rtol=1e-6)
    assert not np.array_equal(master.data, read_product(full / name).data) or method == "mean"


def test_blocks_and_jobs_change_nothing(full, frames, tmp_path):
    for jobs, memory in ((1, "2GB"), (3, "16MB")):
        out = tmp_path / str(jobs)
        words = ("--jobs", jobs, "--memory-limit", memory, "--gain", 2)
        assert run("--basepath", frames, "--output-dir", out, *words) == 0
        same_products(full, out, MASTERS | NOISE | MODEL | SYNTHETIC | TABLES)


def test_select_chooses_one_gain(tmp_path, capsys):
    sensor = Sensor(SensorSpec.preset("12left", shape=SHAPE, seed=14))
    for gain in (100, 200):
        take(tmp_path / "frames" / str(gain), sensor, [0.0, 10.0], 5, gain, GAIN=gain)
    words = ("--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out")
    assert run(*words) == 2
    capsys.readouterr()
    assert run(*words, "--select", "gain=200") == 0
    header = fits.getheader(tmp_path / "out" / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    assert (header["GAIN"], header["NCOMBINE"]) == (200, 5)


def test_gain_of_the_header_is_brought_to_product_adu(tmp_path):
    sensor = Sensor(SensorSpec.preset("12left", shape=SHAPE, seed=15))
    take(tmp_path / "frames", sensor, [0.0], 5, 15, EGAIN=0.125)
    assert (
        run("--mode", "make_master", "--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out") == 0
    )
    header = fits.getheader(tmp_path / "out" / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    assert (header["ADUSCALE"], header["EGAIN"], header["SATURATE"]) == (16, 2.0, 4095)


def test_given_adu_scale_counts(full, frames, tmp_path):
    words = ("--mode", "make_master", "--adu-scale", 1, "--output-dir", tmp_path / "out")
    assert run("--basepath", frames, *words) == 0
    name = "bias_grouped_by_temp/master_bias_0.0C.fits"
    stored, scaled = read_product(tmp_path / "out" / name), read_product(full / name)
    assert (stored.header["ADUSCALE"], stored.header["LSB"]) == (1, 16)
    np.testing.assert_allclose(stored.data, 16 * scaled.data, rtol=1e-6)
    # The same noise, but for the weight of a sensor's own spread: measured on the same samples.
    np.testing.assert_allclose(stored.uncert, 16 * scaled.uncert, rtol=1e-4)


def test_dry_run_prints_the_groups_and_writes_nothing(frames, tmp_path, capsys):
    before = files(frames)
    assert run("--basepath", frames, "--output-dir", tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "group: bias, T -20.00 degC (-20.00 to -20.00, drift 0.00), exposure 1e-05 s" in said
    assert said.count("group: bias") == 5
    assert "6 frames" in said
    assert "would write" in said
    assert "master_bias_-20.0C.fits" in said
    assert not (tmp_path / "out").exists()
    assert files(frames) == before


def test_quiet_run_says_nothing_and_the_log_file_all(frames, tmp_path, capsys):
    words = ("--basepath", frames, "--output-dir", tmp_path / "out", "--quiet")
    assert run(*words, "--log-file", tmp_path / "log.txt") == 0
    assert capsys.readouterr() == ("", "")
    text = (tmp_path / "log.txt").read_text()
    assert re.search(
        r"INFO make_masters: 5 masters of 30 frames \(sigclip\), 12 files in \S+, \d+\.\d s", text
    )


# --- ways to start it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        "bias_pipeline/run_pipeline.py",
        "bias_pipeline.run_pipeline",
        "bias_pipeline/bias_pipeline/run_pipeline.py",
        "bias_pipeline.bias_pipeline.run_pipeline",
    ],
)
def test_every_way_to_start(program, frames, tmp_path):
    words = (
        "--mode",
        "make_master",
        "--basepath",
        frames,
        "--output_dir",
        tmp_path / "out",
        "--plots",
        "none",
    )
    result = command(*words, program=program)
    assert (result.returncode, result.stderr) == (0, "")
    assert files(tmp_path / "out") >= MASTERS


def test_older_path_exports_the_same():
    from bias_pipeline import run_pipeline as newer
    from bias_pipeline.bias_pipeline import run_pipeline as older

    assert older.main is newer.main
    assert older.MODES is newer.MODES


@pytest.mark.parametrize("program", ["bias_pipeline/run_pipeline.py", "bias_pipeline/generate_bias.py"])
def test_help_and_version_answer_without_heavy_imports(program):
    result = command("--version", program=program)
    assert re.fullmatch(r"bias_pipeline/\w+\.py \d+\.\d+\.\d+\n", result.stdout)
    result = command("--help", program=program, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 0
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines() if "|" in line}
    assert imported & {"argparse"}
    assert not imported & {"numpy", "scipy", "astropy", "matplotlib", "pandas"}


# --- generate_bias.py ---------------------------------------------------------------------------------------


def one_bias(full, *words):
    maps = [("--a-map", "bias_a_map.fits"), ("--b_map", "bias_b_map.fits")]
    words = [
        *(str(w) for option, name in maps for w in (option, full / "bias_model" / name)),
        *map(str, words),
    ]
    return run_command(generate_bias.main, words)


def test_one_bias_to_a_file_and_to_a_folder(full, tmp_path, capsys):
    assert one_bias(full, "--temperature", 10, "--output", tmp_path / "deep" / "mine.fits") == 0
    assert one_bias(full, "--temperature", 10, "--output", tmp_path / "folder") == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = re.findall(r"(\S+): mean (\S+) adu, std (\S+) adu", out)
    assert [path for path, _, _ in found] == [
        str(tmp_path / "deep" / "mine.fits"),
        str(tmp_path / "folder" / "synthetic_bias_10.0C.fits"),
    ]
    expected = read_product(full / "bias_masks_by_temp" / "synthetic_bias_10.0C.fits")
    for path, mean, std in found:
        made = read_product(path)
        np.testing.assert_array_equal(made.data, expected.data)
        np.testing.assert_array_equal(made.uncert, expected.uncert)
        assert float(mean) == pytest.approx(expected.data.mean(dtype=float), abs=1e-4)
        assert float(std) == pytest.approx(expected.data.std(dtype=float), abs=1e-4)


def test_one_bias_outside_the_range(full, tmp_path, capsys):
    assert one_bias(full, "--temperature", -35, "--output", tmp_path) == 0
    assert "-35 degC is outside the fitted range -20.0 to 20.0 degC: extrapolated" in capsys.readouterr().err
    header = fits.getheader(tmp_path / "synthetic_bias_-35.0C.fits")
    assert (header["EXTRAP"], header["TEMP"]) == (True, -35)


def test_one_bias_never_writes_over_a_file_unasked(full, tmp_path, capsys):
    (tmp_path / "mine.fits").write_text("mine")
    words = ("--temperature", 0, "--output", tmp_path / "mine.fits")
    assert one_bias(full, *words) == 2
    assert "mine.fits: exists, expected a new name or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine.fits").read_text() == "mine"
    assert one_bias(full, *words, "--overwrite") == 0
    assert fits.getval(tmp_path / "mine.fits", "PRODTYPE") == "SYNTHETIC_BIAS"


@pytest.mark.parametrize("temperature", ["nan", "-300", "warm"])
def test_one_bias_at_no_temperature_is_refused(full, tmp_path, capsys, temperature):
    assert one_bias(full, f"--temperature={temperature}", "--output", tmp_path / "x.fits") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--temperature" in line
    assert files(tmp_path) == set()


def test_one_bias_from_maps_that_do_not_belong_together(full, tmp_path, capsys):
    other = tmp_path / "frames"
    campaign(other, shape=(24, 40), temperatures=(0, 10), n=5, seed=16)
    assert run("--basepath", other, "--output-dir", tmp_path / "out") == 0
    capsys.readouterr()
    b_map = tmp_path / "out" / "bias_model" / "bias_b_map.fits"
    words = ["--a-map", full / "bias_model" / "bias_a_map.fits", "--b-map", b_map, "--temperature", 0]
    words = [str(word) for word in [*words, "--output", tmp_path / "x.fits"]]
    assert run_command(generate_bias.main, words) == 2
    assert f"{b_map}: shape (24, 40), expected {SHAPE}" in capsys.readouterr().err
    words[3] = words[1]  # the a map twice
    assert run_command(generate_bias.main, words) == 2
    assert "got PRODTYPE BIAS_A, expected BIAS_B" in capsys.readouterr().err
    assert not (tmp_path / "x.fits").exists()


def test_frames_without_a_clock_or_a_camera_name(tmp_path):
    sensor = Sensor(SensorSpec.preset("16", shape=SHAPE, seed=17))
    rng = np.random.default_rng(17)
    for k, t in enumerate((0.0, 10.0)):
        for i in range(5):
            write_frame(
                tmp_path / "frames" / f"b{k}{i}.fits",
                sensor.frame("bias", t, 0.0, rng),
                CCD_TEMP=t,
                INSTRUME=None,
            )
    assert run("--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out") == 0
    header = fits.getheader(tmp_path / "out" / "bias_model" / "bias_a_map.fits")
    assert "DATE-BEG" not in header
    assert "INSTRUME" not in header
