"""Runs taken up with --resume: killed at any moment, finished, with other options, with damaged files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bias_frames
import dark_frames
import flat_frames
import numpy as np
import pytest
import test_structure_analysis

from bias_pipeline.run_pipeline import main as bias_main
from utils.application.command import run_command
from utils.raw_to_fits import main as raw_main

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (48, 64)


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """One small campaign for each pipeline."""
    folder = tmp_path_factory.mktemp("nights")
    bias_frames.campaign(folder / "bias", shape=SHAPE, temperatures=(-20, -5, 10), n=4, seed=3)
    dark_frames.campaign(
        *(folder / "dark", dark_frames.sensor(SHAPE)), temperatures=(-5, 5, 15), exposures=(5, 20), n=4,
        bias_temperatures=(-5, 15), bias_n=4,
    )  # fmt: skip
    flat_frames.campaign(folder / "flat", flat_frames.sensor(SHAPE), n=4, bias_n=4, dark_n=4)
    return folder


@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    """Flats of five visits with something new in them, biases and darks."""
    folder = tmp_path_factory.mktemp("epochs")
    test_structure_analysis.campaign(folder, changes=test_structure_analysis.CHANGES)
    return folder


def raw_campaign(root, n=3):
    """Raw frames with configs and logs: two attempts of biases, one of darks, one of flats."""
    rng = np.random.default_rng(1)
    for place in ("Bias/T-5/attempt1", "Bias/T5/attempt1", "Darks/20Frames/5s/attempt1", "Flats/1s/attempt1"):
        attempt = root / place
        (attempt / "frames").mkdir(parents=True)
        (attempt / "configFile.txt").write_text(f"WIDTH={SHAPE[1]}\nHEIGHT={SHAPE[0]}\nBIT_DEPTH=12\n")
        rows = ["FrameNum,TimeStamp,ExpTime,Temperature"]
        for number in range(n):
            rng.integers(0, 4096, SHAPE).astype("<u2").tofile(attempt / "frames" / f"f{number}.raw")
            rows.append(f"{number},{1.7e9 + number},1000,-5.0")
        (attempt / "temperatureLog.csv").write_text("\n".join(rows) + "\n")
    return [str(root / name) for name in ("Bias", "Darks", "Flats")]


# --- killed ------------------------------------------------------------------------------------------------


def killed(tmp_path, command, argv, **job):
    """Do a job of tests/killed_runs.py; returns what it tells of each chain of kills."""
    (tmp_path / "work").mkdir()
    job = {"command": command, "argv": [str(word) for word in argv], "work": str(tmp_path / "work"), **job}
    job.setdefault("out", str(tmp_path / "out"))
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(
        [sys.executable, "tests/killed_runs.py", str(path)], cwd=ROOT, env=environment, capture_output=True,
        text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    differences = {json.dumps(one["moments"]): one["differences"] for one in told if one["differences"]}
    assert not differences
    return told


@pytest.mark.parametrize("name", ["bias", "dark", "flat"])
def test_killed_pipelines_are_taken_up(nights, tmp_path, name):
    argv = ("--basepath", nights / name, "--output-dir", tmp_path / "out", "--plots", "none")
    told = killed(tmp_path, name, argv, seed=len(name), kills=15, chain=5)
    assert sum(one["killed"] for one in told) >= 9


@pytest.mark.parametrize(("name", "word"), [("structure", "--reduce"), ("degradation", "--calibrate")])
def test_killed_analyses_are_taken_up(epochs, tmp_path, name, word):
    argv = (epochs, word, "--output-dir", tmp_path / "out", "--plots", "none")
    told = killed(tmp_path, name, argv, seed=1, kills=3, chain=3)
    assert sum(one["killed"] for one in told) >= 1


def test_killed_calibration_is_taken_up(nights, tmp_path):
    """Frames that were written before the end are not made again."""
    model = tmp_path / "model"
    assert bias_run(nights, model, "--mode", "full") == 0
    words = ("--bias-model", model / "bias_model", "--output-dir", tmp_path / "out", "--plots", "none")
    told = killed(tmp_path, "calibrate", (nights / "bias", *words), seed=1, kills=6, chain=2)
    assert sum(one["killed"] for one in told) >= 3


def test_killed_inside_each_kind_of_write(nights, tmp_path):
    argv = ("--basepath", nights / "bias", "--output-dir", tmp_path / "out", "--plots", "none")
    told = killed(tmp_path, "bias", argv, seed=1, writes=1, when=["write", "after"])
    kinds = {one["moments"][0][0] for one in told if one["killed"] == 1}
    for suffix in (".fits", ".csv", ".json", ".html", ".npz", "run.json"):
        assert {f"write {suffix}", f"after {suffix}"} <= kinds
    assert "write .run_in_progress" in kinds


def test_killed_conversions_are_taken_up(tmp_path):
    argv = raw_campaign(tmp_path / "out")
    told = killed(tmp_path, "raw", argv, seed=1, kills=15, chain=3, writes=1)
    assert sum(one["killed"] for one in told) >= 15
    assert {"write .fits", "write .csv", "after .fits"} <= {one["moments"][0][0] for one in told}


# --- finished ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(nights, tmp_path_factory):
    """A finished run of the bias pipeline; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert bias_run(nights, out) == 0
    return out


@pytest.fixture
def out(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "out"))


def bias_run(nights, out, *words):
    words = ("--basepath", nights / "bias", "--output-dir", out, "--plots", "none", *words)
    return run_command(bias_main, [str(word) for word in words])


def told(capsys):
    """What --resume says of each part of the run: name -> words."""
    lines = [
        line.removeprefix("resume: ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("resume: ")
    ]
    parts = {}
    for line in lines:
        name, _, words = line.partition(" ")
        parts.setdefault(name, words)
    return parts, lines


def stamps(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


PARTS = ("make_masters", "fit_model", "synthesize", "evaluate", "report")


def check_parts(parts, **made):
    """Parts named are made for the reason given, the others are kept."""
    for name in PARTS:
        expected = made.get(name, "kept")
        assert expected in parts[name], f"{name}: {parts[name]}, expected {expected}"
        assert ("made" in parts[name]) == (name in made)


def test_a_finished_run_is_left_as_it_is(nights, out, capsys):
    before = stamps(out)
    assert bias_run(nights, out, "--resume") == 0
    parts, lines = told(capsys)
    check_parts(parts)
    assert lines[-1] == "5 of 5 parts kept, nothing to make"
    changed = {path.name for path, stamp in stamps(out).items() if before.get(path) != stamp}
    assert changed == {"run.json", "summary.csv", "rejected_frames.csv"}
    assert not (out / ".resume").exists()
    assert not (out / ".run_in_progress").exists()


def test_a_run_without_the_option_makes_everything_again(nights, out):
    before = stamps(out)
    assert bias_run(nights, out) == 0
    assert not [path for path, stamp in stamps(out).items() if before[path] == stamp]


def test_other_options_make_again_what_depends_on_them(nights, out, capsys):
    assert bias_run(nights, out, "--resume", "--temps", "0") == 0
    parts, _ = told(capsys)
    check_parts(parts, synthesize="option changed (temps None -> [0.0])", report="what it reads has changed")
    assert [path.name for path in (out / "bias_masks_by_temp").iterdir()] == ["synthetic_bias_0.0C.fits"]
    assert bias_run(nights, out, "--resume", "--temps", "0", "--clip-sigma", "3") == 0
    parts, _ = told(capsys)
    assert "option changed (clip_sigma 4.0 -> 3.0)" in parts["make_masters"]
    assert "made" in parts["fit_model"]


def test_frames_that_are_new_or_changed_make_it_stale(nights, out, tmp_path, capsys):
    night = Path(shutil.copytree(nights / "bias", tmp_path / "bias"))
    words = ("--basepath", night, "--output-dir", out, "--plots", "none", "--resume")
    assert run_command(bias_main, [str(word) for word in words]) == 0
    parts, _ = told(capsys)
    assert (
        "frames have changed" in parts["make_masters"]
    )  # The same frames in another place are told by other names.
    frame = next(iter(sorted(night.glob("*.fits"))))
    os.utime(frame, ns=(1, frame.stat().st_mtime_ns + 10**9))
    assert run_command(bias_main, [str(word) for word in words]) == 0
    parts, _ = told(capsys)
    # The data are the same: so are the masters, and what was made from them stays.
    check_parts(parts, make_masters="frames have changed", report="what the run tells has changed")


def test_missing_and_damaged_products_are_made_again_and_the_others_stay(nights, out, capsys):
    master = out / "bias_grouped_by_temp" / "master_bias_-5.0C.fits"
    whole = {path: path.read_bytes() for path in out.rglob("*.fits")}
    before = stamps(out)
    master.unlink()
    assert bias_run(nights, out, "--resume") == 0
    parts, lines = told(capsys)
    check_parts(parts, make_masters="1 file missing, the first: bias_grouped_by_temp/master_bias_-5.0C.fits")
    assert "of that 6 whole files and 0 results of frames as read before" in lines
    data = bytearray(master.read_bytes())
    data[-4000] ^= 1
    synthetic = out / "bias_masks_by_temp" / "synthetic_bias_10.0C.fits"
    master.write_bytes(data)
    synthetic.write_bytes(whole[synthetic][:-2880])
    assert bias_run(nights, out, "--resume") == 0
    parts, _ = told(capsys)
    check_parts(parts, make_masters="1 file changed or damaged", synthesize="1 file changed or damaged")
    # Whole again; only the date of writing, and the checksum with it, may differ.
    assert len(master.read_bytes()) == len(whole[master])
    touched = {
        path.name
        for path, stamp in stamps(out).items()
        if before.get(path) != stamp and path.suffix == ".fits"
    }
    assert touched == {master.name, synthetic.name}


def test_dry_run_says_what_would_be_made(nights, out, capsys):
    (out / "bias_model" / "bias_a_map.fits").unlink()
    before = stamps(out)
    assert bias_run(nights, out, "--resume", "--dry-run") == 0
    _, lines = told(capsys)
    assert "make_masters would be kept (8 files)" in lines
    assert "fit_model would be made: 1 file missing, the first: bias_model/bias_a_map.fits" in lines
    assert "synthesize would be made: perhaps, as fit_model would be" in lines
    assert lines[-1] == "1 of 5 parts kept, made: fit_model, synthesize, evaluate, report"
    assert stamps(out) == before


def test_another_version_makes_everything_again(nights, out, capsys, monkeypatch):
    from utils.application import resume

    monkeypatch.setattr(resume, "versions", lambda: {"calibration-pipelines": "0.0.1"})
    assert bias_run(nights, out, "--resume") == 0
    parts, _ = told(capsys)
    check_parts(parts, **dict.fromkeys(PARTS, "version changed (calibration-pipelines "))


def test_a_damaged_record_of_parts_means_making_again(nights, out, capsys):
    content = json.loads((out / "run.json").read_text())
    content["blocks"] = [7, {"pipeline": "bias"}, {**content["blocks"][0], "told": 1}]
    (out / "run.json").write_text(json.dumps(content))
    assert bias_run(nights, out, "--resume") == 0
    parts, _ = told(capsys)
    assert "not made before, or not finished" in parts["make_masters"]


# --- two at once -------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from utils.application.run_record import RunRecord
with RunRecord(sys.argv[1], "bias", "full", {}, []) as record:
    record.claim(record.output_dir / "a.fits")
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder():
    """Start a run that holds a folder, in a process of its own."""
    started = []

    def start(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "there\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("words", [(), ("--resume",)])
def test_a_second_run_is_refused_and_a_stale_lock_is_not(nights, out, holder, capsys, words):
    process = holder(out)
    before = stamps(out)
    assert bias_run(nights, out, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {out}: another run is writing there (process {process.pid} on ")
    assert stamps(out) == before
    process.kill()
    process.wait()
    assert bias_run(nights, out, *words) == 0
    said = capsys.readouterr().out
    assert f"{out}: process {process.pid} on " in said
    assert "did not finish and holds no lock any more" in said
    assert not (out / ".run_in_progress").exists()


def test_two_conversions_at_once(tmp_path, holder, capsys):
    sections = raw_campaign(tmp_path / "raw", n=1)
    process = holder(tmp_path / "raw")
    assert raw_main(sections) == 2
    assert (
        f"error: {tmp_path / 'raw'}: another run is writing there (process {process.pid}"
        in capsys.readouterr().err
    )
    process.kill()
    process.wait()
    assert raw_main(sections) == 0
    assert f"process {process.pid} on " in capsys.readouterr().out
    assert not (tmp_path / "raw" / ".run_in_progress").exists()


# --- the converter -----------------------------------------------------------------------------------------


def test_a_conversion_is_taken_up(tmp_path, capsys):
    sections = raw_campaign(tmp_path / "raw")
    assert raw_main([*sections, "--resume"]) == 0
    assert "resume: 0 of 12 FITS files kept (12 missing)\n" in capsys.readouterr().out
    first, second = sorted((tmp_path / "raw" / "Bias" / "T5" / "attempt1" / "fits").glob("*.fits"))[:2]
    first.unlink()
    second.write_bytes(
        second.read_bytes().replace(b"BITDEPTH=                   12", b"BITDEPTH=                   10")
    )
    assert raw_main([*sections, "--resume"]) == 0
    assert "resume: 10 of 12 FITS files kept (1 missing, 1 other header)\n" in capsys.readouterr().out
    assert raw_main([*sections, "--resume"]) == 0
    assert "resume: 12 of 12 FITS files kept (none missing or stale)\n" in capsys.readouterr().out
    assert raw_main([*sections, "--resume", "--overwrite"]) == 2
    assert "--resume: got --overwrite too" in capsys.readouterr().err
