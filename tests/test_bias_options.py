"""Options of the bias pipeline, and the ways to start it."""

import os
import re

import numpy as np
import pytest
from astropy.io import fits

from tests.bias_frames import (
    LABELS,
    MASTERS,
    MODEL,
    NOISE,
    SHAPE,
    SYNTHETIC,
    TABLES,
    command,
    files,
    rows,
    run,
    same_products,
    take,
)
from utils.application import options
from utils.fits_io.product_reader import read_product
from utils.kernels.sensor import Sensor, SensorSpec

# --- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["-5 7.25"], ["-5", "7.25"], ["-5;7.25 "]])
def test_temps_in_every_form(bias_copy, words):
    assert run("--mode", "synthetic_only", "--output-dir", bias_copy, "--temps", *words) == 0
    found = {name for name in files(bias_copy) if name.startswith("bias_masks_by_temp")}
    assert found == {f"bias_masks_by_temp/synthetic_bias_{t}C.fits" for t in ("-5.0", "7.2")}
    header = fits.getheader(bias_copy / "bias_masks_by_temp" / "synthetic_bias_7.2C.fits")
    assert header["TEMP"] == 7.25


def test_temperatures_of_one_label_do_not_share_a_name(bias_copy):
    assert run("--mode", "synthetic_only", "--output-dir", bias_copy, "--temps", "-0.01 0.01 0.04") == 0
    found = sorted(name for name in files(bias_copy) if name.startswith("bias_masks_by_temp"))
    assert found == [f"bias_masks_by_temp/synthetic_bias_0.0C{more}.fits" for more in ("", "_2", "_3")]


def test_temperature_outside_the_range_is_said_and_marked(bias_copy, capsys):
    assert run("--mode", "synthetic_only", "--output-dir", bias_copy, "--temps", "-40", "0") == 0
    assert "-40.0 degC outside the fitted range -20.0 to 20.0 degC" in capsys.readouterr().err
    cold, inside = (
        read_product(bias_copy / "bias_masks_by_temp" / f"synthetic_bias_{t}C.fits") for t in ("-40.0", "0.0")
    )
    assert (cold.header["EXTRAP"], inside.header["EXTRAP"]) == (True, False)
    assert np.median(cold.uncert) > 2 * np.median(inside.uncert)


def test_generate_set_is_a_grid_of_one_degree(bias_copy):
    assert run("--mode", "synthetic_only", "--output-dir", bias_copy, "--generate-set") == 0
    found = {name for name in files(bias_copy) if name.startswith("bias_masks_by_temp")}
    assert found == {f"bias_masks_by_temp/synthetic_bias_{t:.1f}C.fits" for t in range(-20, 21)}


def test_hot_pixel_mask_marks_and_leaves_out(bias_run, bias_campaign, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[3, 4] = mask[20, 30] = 1
    fits.PrimaryHDU(mask).writeto(tmp_path / "hot.fits")
    out = tmp_path / "out"
    assert (
        run("--basepath", bias_campaign, "--output-dir", out, "--hot-pixel-mask", tmp_path / "hot.fits") == 0
    )
    for name in ("bias_grouped_by_temp/master_bias_0.0C.fits", "bias_model/bias_a_map.fits"):
        product = read_product(out / name)
        assert ((product.dq & 8) != 0).tolist() == (mask != 0).tolist()
        np.testing.assert_array_equal(product.data, read_product(bias_run / name).data)
    table, plain = (rows(folder / "evaluation" / "evaluation_summary.csv") for folder in (out, bias_run))
    assert int(plain[0]["pixels"]) - int(table[0]["pixels"]) == 2


def test_wrong_hot_pixel_mask_is_refused(bias_campaign, tmp_path, capsys):
    fits.PrimaryHDU(np.zeros((3, 4), np.uint8)).writeto(tmp_path / "hot.fits")
    words = ("--basepath", bias_campaign, "--output-dir", tmp_path / "out", "--hot-pixel-mask")
    assert run(*words, tmp_path / "hot.fits") == 2
    assert f"hot.fits: shape (3, 4), expected {SHAPE} as the frames" in capsys.readouterr().err
    assert run(*words, tmp_path / "none.fits") == 2
    assert "none.fits: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("plots", "few", "maps"),
    [("summary", 4, {"-20.0", "20.0"}), ("summary", 5, set(LABELS)), ("all", 4, set(LABELS))],
)
def test_pictures(bias_campaign, tmp_path, monkeypatch, plots, few, maps):
    monkeypatch.setattr(options, "FEW_GROUPS", few)
    out = tmp_path / "out"
    assert run("--basepath", bias_campaign, "--output-dir", out, plots=plots) == 0
    pictures = {name for name in files(out) if name.endswith(".png")}
    evaluation = {
        f"evaluation/{kind}_{t}C.png" for kind in ("real_bias", "synthetic_bias", "mae", "mape") for t in maps
    }
    assert {name for name in pictures if name.startswith("evaluation")} == evaluation | {
        "evaluation/evaluation_summary.png",
        "evaluation/pulls.png",
    }
    # Masters look alike: a summary shows the one in the middle.
    shown = {name for name in pictures if name.startswith("figures/master_bias")}
    assert shown == {f"figures/master_bias_{t}C.png" for t in (LABELS if plots == "all" else ["0.0"])}
    assert all((out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for name in pictures)
    text = (out / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r"(?:src|href)=[\"']https?:", text)  # it opens offline


@pytest.mark.parametrize("method", ["mean", "median"])
def test_other_combinations_are_named_and_differ(bias_run, bias_campaign, tmp_path, method):
    words = ("--mode", "make_master", "--combine", method, "--output-dir", tmp_path / "out")
    assert run("--basepath", bias_campaign, *words) == 0
    name = "bias_grouped_by_temp/master_bias_0.0C.fits"
    master = read_product(tmp_path / "out" / name)
    assert master.header["COMBINE"] == method
    stack = (
        np.array([fits.getdata(bias_campaign / f"bias_02_{i:03d}.fits").astype(float) for i in range(6)]) / 16
    )
    np.testing.assert_allclose(master.data, getattr(np, method)(stack, axis=0), rtol=1e-6)
    assert not np.array_equal(master.data, read_product(bias_run / name).data) or method == "mean"


def test_blocks_and_jobs_change_nothing(bias_run, bias_campaign, tmp_path):
    for jobs, memory in ((1, "2GB"), (3, "16MB")):
        out = tmp_path / str(jobs)
        words = ("--jobs", jobs, "--memory-limit", memory, "--gain", 2)
        assert run("--basepath", bias_campaign, "--output-dir", out, *words) == 0
        same_products(bias_run, out, MASTERS | NOISE | MODEL | SYNTHETIC | TABLES)


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


def test_given_adu_scale_counts(bias_run, bias_campaign, tmp_path):
    words = ("--mode", "make_master", "--adu-scale", 1, "--output-dir", tmp_path / "out")
    assert run("--basepath", bias_campaign, *words) == 0
    name = "bias_grouped_by_temp/master_bias_0.0C.fits"
    stored, scaled = read_product(tmp_path / "out" / name), read_product(bias_run / name)
    assert (stored.header["ADUSCALE"], stored.header["LSB"]) == (1, 16)
    np.testing.assert_allclose(stored.data, 16 * scaled.data, rtol=1e-6)
    # The same noise, but for the weight of a sensor's own spread: measured on the same samples.
    np.testing.assert_allclose(stored.uncert, 16 * scaled.uncert, rtol=1e-4)


def test_dry_run_prints_the_groups_and_writes_nothing(bias_campaign, tmp_path, capsys):
    before = files(bias_campaign)
    assert run("--basepath", bias_campaign, "--output-dir", tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "group: bias, T -20.00 degC (-20.00 to -20.00, drift 0.00), exposure 1e-05 s" in said
    assert said.count("group: bias") == 5
    assert "6 frames" in said
    assert "would write" in said
    assert "master_bias_-20.0C.fits" in said
    assert not (tmp_path / "out").exists()
    assert files(bias_campaign) == before


def test_quiet_run_says_nothing_and_the_log_file_all(bias_campaign, tmp_path, capsys):
    words = ("--basepath", bias_campaign, "--output-dir", tmp_path / "out", "--quiet")
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
def test_every_way_to_start(program, bias_campaign, tmp_path):
    words = (
        "--mode",
        "make_master",
        "--basepath",
        bias_campaign,
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
