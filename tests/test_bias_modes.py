"""Modes of the bias pipeline in fresh processes and one after the other, and runs into a folder that is in use."""

import shutil

import pytest

from tests.bias_frames import (
    MASTERS,
    MODEL,
    NOISE,
    OF_RUN,
    SHAPE,
    SYNTHETIC,
    campaign,
    command,
    files,
    record,
    run,
    same_products,
)

# --- modes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "made"),
    [
        ("fit_model", MODEL | {"bias_model/bias_model.json"}),
        ("synthetic_only", SYNTHETIC),
        ("evaluate_model", {"evaluation/evaluation_summary.csv"}),
    ],
)
def test_mode_works_on_a_copy_without_frames(bias_run, bias_copy, mode, made):
    for name in made:
        (bias_copy / name).unlink()
    words = ["--save-eval-fits"] if mode == "evaluate_model" else []
    result = command("--mode", mode, "--output-dir", bias_copy, "--plots", "none", *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert files(bias_copy) == files(bias_run)
    same_products(bias_run, bias_copy, files(bias_run) - OF_RUN)
    assert [one["mode"] for one in record(bias_copy)["runs"]] == ["full", mode]


def test_make_master_alone_gives_the_masters_of_full(bias_run, bias_campaign, tmp_path):
    out = tmp_path / "out"
    result = command(
        *("--mode", "make_master", "--basepath", bias_campaign, "--output-dir", out),
        *("--gain", 2, "--plots", "none"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert files(out) == MASTERS | NOISE | OF_RUN | {"bias_grouped_by_temp/frame_levels.csv"}
    same_products(bias_run, out, files(out) - OF_RUN)


def test_modes_one_after_the_other_give_what_full_gives(bias_run, bias_campaign, tmp_path):
    out = tmp_path / "out"
    assert run("--mode", "make_master", "--basepath", bias_campaign, "--output-dir", out, "--gain", 2) == 0
    for mode in ("fit_model", "synthetic_only", "evaluate_model"):
        assert run("--mode", mode, "--output-dir", out, "--save-eval-fits") == 0
    assert files(out) == files(bias_run)
    same_products(bias_run, out, files(bias_run) - OF_RUN)


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


def test_second_run_gives_the_same(bias_run, bias_campaign, bias_copy):
    before = files(bias_copy)
    assert run("--basepath", bias_campaign, "--output-dir", bias_copy, "--save-eval-fits", "--gain", 2) == 0
    assert files(bias_copy) == before
    same_products(bias_run, bias_copy, before - OF_RUN)
    assert len(record(bias_copy)["runs"]) == 2


def test_stale_products_go_and_nothing_else(bias_copy, tmp_path):
    """Other temperatures: masters, noise, synthetic biases and maps of the old ones are removed."""
    other = tmp_path / "other"
    campaign(other, shape=SHAPE, temperatures=(-20, 5), n=6, seed=12)
    mine = bias_copy / "bias_grouped_by_temp" / "notes.txt"
    mine.write_text("mine")
    foreign = bias_copy / "bias_masks_by_temp" / "synthetic_bias_99.0C.fits"
    shutil.copy(bias_copy / "bias_masks_by_temp" / "synthetic_bias_0.0C.fits", foreign)
    assert run("--basepath", other, "--output-dir", bias_copy) == 0
    now = {name for name in files(bias_copy) if name.endswith(".fits")}
    assert now == MODEL | {foreign.relative_to(bias_copy).as_posix()} | {
        *(f"bias_grouped_by_temp/master_bias_{t}C.fits" for t in ("-20.0", "5.0")),
        *(
            "read_noise/read_noise.fits",
            "read_noise/read_noise_-20.0C.fits",
            "read_noise/read_noise_5.0C.fits",
        ),
        *(f"bias_masks_by_temp/synthetic_bias_{t}C.fits" for t in ("-20.0", "5.0")),
    }
    assert mine.read_text() == "mine"
    assert "bias_masks_by_temp/synthetic_bias_0.0C.fits" in record(bias_copy)["runs"][-1]["removed"]


def test_output_folder_inside_the_input_folder_twice(tmp_path):
    bias_campaign = tmp_path / "night"
    campaign(bias_campaign, shape=SHAPE, temperatures=(0, 10), n=5, seed=13)
    out = bias_campaign / "calibrated"
    for _ in range(2):
        assert run("--basepath", bias_campaign, "--output-dir", out) == 0
    first, second = record(out)["runs"]
    assert first["inputs"]["count"] == second["inputs"]["count"] == 10
    assert first["products"] == second["products"]
    # A third run elsewhere meets the products and leaves them out by what they are.
    assert run("--basepath", bias_campaign, "--output-dir", tmp_path / "other") == 0
    assert record(tmp_path / "other")["runs"][0]["inputs"]["count"] == 10
