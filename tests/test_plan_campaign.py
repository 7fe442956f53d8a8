"""python -m utils.plan_campaign: what it prints, writes and refuses."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.application.command import run_command
from utils.domain.campaign_errors import TYPICAL, Camera, Frames, cheapest, information, known
from utils.domain.detector import Detector, Measured
from utils.kernels import plan_errors
from utils.plan_campaign import main

ROOT = Path(__file__).resolve().parents[1]
PLAN = ("--temps", "-20 -10 0", "--exptimes", "1 10 60")


def run(*words):
    return run_command(main, [*PLAN, *(str(word) for word in words)])


def test_command_prints_the_errors_and_the_cheapest_plan():
    words = [*PLAN, "--want-dark", "0.01", "--want-bias", "0.5", "--want-flat", "0.2"]
    done = subprocess.run(
        [sys.executable, "-m", "utils.plan_campaign", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("camera: gain 1 e-/adu, read noise 2.5 adu")
    assert sum(line.startswith("dark current") for line in lines) == 18
    assert any(line.startswith("cheapest plan, ") for line in lines)
    # 20 biases of 2.5 ADU, and the converter's step, at three temperatures: noise / sqrt(60) in the middle.
    middle = next(line for line in lines if line.startswith("bias ") and " -10 " in line)
    assert float(middle.split()[5]) == pytest.approx(((2.5**2 + 1 / 12) / 60) ** 0.5, rel=1e-3)


def test_folder_gets_tables_picture_and_report(tmp_path):
    out = tmp_path / "plan"
    assert run("--output-dir", out, "--want-dark", "0.01") == 0
    rows = list(csv.DictReader((out / "plan_errors.csv").read_text().splitlines()))
    assert {row["product"] for row in rows} >= {"bias", "dark current", "bias + dark of a frame"}
    frames = list(csv.DictReader((out / "cheapest_plan.csv").read_text().splitlines()))
    assert {row["kind"] for row in frames} <= {"bias", "dark"}
    assert sum(int(row["frames"]) for row in frames) > 0
    assert "Errors to expect" in (out / "report.html").read_text()
    kinds = {entry["prodtype"] for entry in json.loads((out / "run.json").read_text())["products"].values()}
    assert {"PLAN_ERRORS", "CHEAPEST_PLAN", "REPORT"} <= kinds


def test_detector_gives_the_camera_and_options_go_before_it(tmp_path, capsys):
    sheet = tmp_path / "detector.json"
    more = {"dark_current": {"value": 0.7, "temperature": 5.0}, "doubling_temperature": {"value": 7.0}}
    Detector(Measured(1.9), 1.0, Measured(6.3), Measured(30000.0), more=more).write(sheet)
    assert run("--detector", sheet, "--rate", "0.9") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line == (
        "camera: gain 1.9 e-/adu, read noise 6.3 adu, full well 30000 adu, dark current 0.9 adu/s at 5 degC,"
        f" doubled by 7 degC ({sheet} and options)"
    )


def test_a_plan_that_cannot_determine_the_model_is_said(capsys, tmp_path):
    words = ["--temps", "-10", "--exptimes", "10", "--want-dark", "0.01"]
    assert run_command(main, words) == 1
    captured = capsys.readouterr()
    assert "not determined" in captured.out
    assert "more of them are needed" in captured.err
    assert run_command(main, [*words, "--output-dir", str(tmp_path / "out")]) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--temps", "cold"),
        ("--temps", "-300"),
        ("--exptimes", "0"),
        ("--at-exptimes", "-1"),
        ("--gain", "0"),
        ("--want-dark", "nan"),
        ("--detector", "none.json"),
    ],
)
def test_nonsense_is_refused_in_one_line(words, capsys):
    assert run(*words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_cheapest_plan_meets_what_is_wanted_and_costs_more_for_more():
    at = ((-15.0, 5.0), (10.0,))
    camera = Camera(**TYPICAL, origin="typical")
    hours = []
    for wanted in (0.05, 0.01, 0.002):
        plan = Frames((-20.0, 0.0, 10.0), (5.0, 60.0))
        rows, reasons = cheapest(camera, plan, at, {"bias": 0.5, "dark": wanted, "flat": None})
        assert reasons == []
        hours.append(sum(row["hours"] for row in rows))
        counts = {(row["kind"], row["temperature"], row["exposure"]): row["frames"] for row in rows}
        terms, law = information(camera, plan)
        told = np.tensordot([counts.get(group, 0) for group in plan.groups], terms, 1)
        root = plan_errors.known_root(told, known(camera))
        for t in at[0]:
            assert plan_errors.error_along(root, np.array([0, 0, 0, 1.0, t])) <= 0.5 * (1 + 1e-6)
            direction = plan_errors.dark_direction(law, t, 10.0)[0]
            assert plan_errors.error_along(root, direction) <= wanted * (1 + 1e-6)
    assert hours == sorted(hours)
    assert hours[2] > 4 * hours[1]


def test_what_other_pixels_tell_counts_only_where_the_plan_lets_them_tell():
    camera = Camera(**TYPICAL, origin="typical")
    for temps, finite in (((-10.0, 10.0), True), ((5.0,), False)):
        plan = Frames(temps, (5.0, 60.0))
        plan.groups = [("bias", -10.0, 0.0), ("bias", 10.0, 0.0), *(g for g in plan.groups if g[0] == "dark")]
        terms, law = information(camera, plan)
        told = np.tensordot(np.full(len(terms), 10.0), terms, 1)
        direction = plan_errors.dark_direction(law, 0.0, 5.0)[0]
        error = plan_errors.error_along(plan_errors.known_root(told, known(camera)), direction)
        assert np.isfinite(error) == finite
        if finite:
            assert error < 0.7 * plan_errors.error_along(plan_errors.covariance_root(told), direction)
