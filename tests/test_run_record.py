import csv
import dataclasses
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run_records import files, make, new_record, run, run_file
from utils.application.log import crash_log, setup_logging
from utils.application.product_list import load_products
from utils.application.run_record import RunRecord
from utils.errors import InputError, OutputError
from utils.fits_io.atomic import RefusedOutputError
from utils.version import __version__

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("logging_as_before")


def test_a_run_and_what_it_writes(out, tmp_path, capsys):
    setup_logging(0)
    frame = tmp_path / "frame.fits"
    frame.write_bytes(b"12345")
    with new_record(out) as record:
        record.add_input([frame])
        record.reject("bad.fits", "no temperature")
        with record.step("make_masters") as step:
            make(record, "masters/m_-5.0C.fits", temperature=-5.0, frames=10)
            make(record, "masters/m_0.0C.fits", temperature=0.0, frames=8)
            step.summary = "2 masters of 18 frames"
        with record.step("evaluate") as step:
            picture = record.claim(out / "evaluation" / "mae.png")
            picture.parent.mkdir()
            picture.write_bytes(b"png")
            record.add_figure(picture, "Error against temperature", "Evaluation")
            record.value("slope", 0.28, "adu/degC", error=0.01, section="Model")
            record.value("chi2", float("nan"))
            step.summary = "1 figure"
        record.warn("one temperature only")
        assert record.finish() == 0
    captured = capsys.readouterr()
    first, second = captured.out.splitlines()
    assert first.startswith(f"make_masters: 2 masters of 18 frames, 2 files in {out}/masters, 0.")
    assert second.startswith(f"evaluate: 1 figure, 1 file in {out}/evaluation, ")
    assert captured.err == "warning: one temperature only\n"
    assert files(out) == [
        "evaluation/mae.png",
        "masters/m_-5.0C.fits",
        "masters/m_0.0C.fits",
        "rejected_frames.csv",
        "run.json",
        "summary.csv",
    ]
    with open(out / "summary.csv", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["section", "name", "value", "error", "unit"],
            ["Model", "slope", "0.28", "0.01", "adu/degC"],
            ["", "chi2", "", "", ""],
        ]
    assert (out / "rejected_frames.csv").read_text() == "path,reason\nbad.fits,no temperature\n"
    content = run_file(out)
    assert content["format"] == 1
    assert content["products"]["masters/m_-5.0C.fits"] == {
        "prodtype": "MASTER_BIAS",
        "pipeline": "bias",
        "step": "make_masters",
        "run": 1,
        "facts": {"temperature": -5.0, "frames": 10},
    }
    (entry,) = content["runs"]
    assert (entry["status"], entry["error"], entry["mode"], entry["options"]) == (
        0,
        None,
        "full",
        {"clip_sigma": 4.0},
    )
    assert entry["argv"] == ["--mode", "full"]
    assert entry["inputs"]["count"] == 1
    assert entry["inputs"]["files"][0]["path"] == str(frame)
    assert entry["inputs"]["files"][0]["size"] == 5
    assert entry["inputs"]["files"][0]["mtime"] == pytest.approx(frame.stat().st_mtime, abs=1e-5)
    assert [step["name"] for step in entry["steps"]] == ["make_masters", "evaluate"]
    assert entry["warnings"] == ["one temperature only"]
    assert entry["rejected"] == [{"path": "bad.fits", "reason": "no temperature"}]
    assert entry["versions"]["calibration-pipelines"] == __version__
    assert entry["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(entry["versions"]) >= {"numpy", "scipy", "astropy"}


def test_runs_are_appended_and_other_pipelines_kept(out):
    run(out, ["a.fits"])
    run(out, ["d.fits"], pipeline="dark")
    run(out, ["a.fits"], mode="make_master")
    content = run_file(out)
    assert [entry["pipeline"] for entry in content["runs"]] == ["bias", "dark", "bias"]
    assert content["products"]["d.fits"]["run"] == 2
    assert content["products"]["a.fits"]["run"] == 3
    assert (out / "a.fits").read_text() == "make_master a.fits"


def test_something_missing_is_status_1(out, capsys):
    setup_logging(0)
    with new_record(out) as record:
        record.missing("bias_model", "one temperature only")
        assert record.finish() == 1
    assert run_file(out)["runs"][0]["missing"] == [{"what": "bias_model", "reason": "one temperature only"}]
    assert capsys.readouterr().err == "warning: missing: bias_model: one temperature only\n"


# Products of this and of earlier runs -----------------------------------------------------------------------


def test_a_later_mode_finds_what_earlier_ones_made(out, tmp_path):
    run(out, ["m/a.fits", "m/b.fits"])
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    shutil.rmtree(out)
    with new_record(copy, "fit_model") as record:
        assert [product.path for product in record.products("MASTER_BIAS")] == [
            copy / "m/a.fits",
            copy / "m/b.fits",
        ]
        with pytest.raises(
            InputError, match="no such product, expected BIAS_A; make it with --mode fit_model"
        ):
            record.products("BIAS_A", made_by="--mode fit_model")
        with record.step("fit"):
            make(record, "model/a_map.fits", "BIAS_A", constant=3)
        assert record.products("BIAS_A")[0].facts == {"constant": 3}
    assert [product.prodtype for product in load_products(copy, "BIAS_A")] == ["BIAS_A"]
    (copy / "m" / "a.fits").unlink()
    with (
        new_record(copy, "fit_model") as record,
        pytest.raises(InputError, match=r"m/a\.fits: the file is gone, expected MASTER_BIAS"),
    ):
        record.products("MASTER_BIAS")
    with pytest.raises(InputError, match=r"none/run\.json: got no such file, expected MASTER_BIAS"):
        load_products(tmp_path / "none", "MASTER_BIAS")


def test_a_step_done_again_hides_its_earlier_products_at_once(out):
    run(out, ["a.fits", "b.fits", "c.fits"])
    with new_record(out) as record:
        with record.step("make_masters"):
            make(record, "b.fits")
        assert [product.path.name for product in record.products("MASTER_BIAS")] == ["b.fits"]
        assert (out / "a.fits").exists()  # Until the run has ended well.


# Stale files ------------------------------------------------------------------------------------------------


def test_only_own_stale_products_are_removed(out):
    run(out, ["m/a.fits", "m/b.fits"])
    run(out, ["model.fits"], step="fit")
    run(out, ["dark.fits"], pipeline="dark")
    (out / "m" / "notes.txt").write_text("mine")
    run(out, ["m/b.fits"])
    assert files(out) == [
        "dark.fits",
        "m/b.fits",
        "m/notes.txt",
        "model.fits",
        "rejected_frames.csv",
        "run.json",
        "summary.csv",
    ]
    content = run_file(out)
    assert "m/a.fits" not in content["products"]
    assert content["runs"][-1]["removed"] == ["m/a.fits"]


def test_a_failed_run_removes_nothing_and_lists_what_it_made(out):
    run(out, ["a.fits", "b.fits"])
    with pytest.raises(InputError, match="no luck"):
        fail_after(out, ["b.fits", "c.fits"], InputError("no luck"))
    assert files(out) == ["a.fits", "b.fits", "c.fits", "rejected_frames.csv", "run.json", "summary.csv"]
    content = run_file(out)
    assert (content["runs"][-1]["status"], content["runs"][-1]["error"]) == (2, "InputError: no luck")
    run(out, ["c.fits"])  # c.fits is known as ours.
    assert "a.fits" not in files(out)


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt("x"), 130), (ZeroDivisionError("x"), 3)])
def test_interrupted_and_crashed_runs_are_recorded(out, error, status):
    with pytest.raises(type(error), match="x"):
        fail_after(out, ["b.fits"], error)
    assert run_file(out)["runs"][-1]["status"] == status
    assert "b.fits" in run_file(out)["products"]


def fail_after(out, names, error):
    with new_record(out) as record, record.step("make_masters"):
        for name in names:
            make(record, name)
        raise error


def test_a_refused_run_leaves_no_trace(out):
    with pytest.raises(InputError, match="no frames"):
        fail_after(out, [], InputError("no frames"))
    assert not out.exists()


def killed_id(out):
    (temporary,) = out.glob("*/.*.tmp")
    return temporary.name.split(".")[-2]


def test_a_killed_run_does_not_block_the_next(out):
    code = """
import os, signal, sys
from utils.application.run_record import RunRecord
from utils.fits_io.atomic import atomic_path
with RunRecord(sys.argv[1], "bias", "full", {}, []) as record, record.step("make_masters"):
    for name in ("a.fits", "b.fits"):
        path = record.claim(record.output_dir / name)
        path.write_text("half a run")
        record.add_product(path, "MASTER_BIAS")
    with atomic_path(record.claim(record.output_dir / "deep" / "c.fits")) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert files(out) == [".run_in_progress", "a.fits", "b.fits", f"deep/.c.fits.{killed_id(out)}.tmp"]
    with new_record(out) as record, pytest.raises(InputError, match="expected MASTER_BIAS"):
        record.products("MASTER_BIAS")  # What a killed run left is never an input.
    run(out, ["a.fits"])
    assert files(out) == ["a.fits", "rejected_frames.csv", "run.json", "summary.csv"]
    assert (out / "a.fits").read_text() == "full a.fits"


def test_two_runs_at_once_in_one_folder(out):
    with new_record(out) as first:
        make(first, "a.fits")
        with pytest.raises(RefusedOutputError, match="another run is writing there"):
            run(out, ["b.fits"])
        assert not (out / "b.fits").exists()
    run(out, ["b.fits"])


# Dry run ----------------------------------------------------------------------------------------------------


def test_dry_run_writes_nothing_but_checks(out):
    with new_record(out, dry_run=True) as record:
        record.claim(out / "a.fits")
        record.missing("model", "one temperature")
        with pytest.raises(ValueError, match="a dry run makes no products"):
            record.add_product(out / "a.fits", "MASTER_BIAS")
        assert record.finish() == 1
        assert crash_log() is None
    assert not out.exists()
    out.mkdir()
    (out / "a.fits").write_text("mine")
    with new_record(out, dry_run=True) as record, pytest.raises(RefusedOutputError, match="stands there"):
        record.claim(out / "a.fits")


# Options and report -----------------------------------------------------------------------------------------


def test_options_of_a_dataclass(out):
    @dataclasses.dataclass(frozen=True)
    class Config:
        basepath: Path = Path("in")
        temps: tuple = (1.0, 2.0)

    with RunRecord(out, "bias", "full", Config(), []) as record:
        record.finish()
    assert run_file(out)["runs"][0]["options"] == {"basepath": "in", "temps": [1.0, 2.0]}


def test_the_report_takes_the_record(out):
    from utils.application.report import context_of, write_report

    with new_record(out) as record:
        with record.step("make_masters"):
            make(record, "a.fits", what="the master")
        record.value("slope", 0.28, "adu/degC", error=0.01)
        with record.step("report"):
            path = record.claim(out / "report.html")
            write_report(path, context_of(record, title="Bias", program="bias_pipeline"))
            record.add_product(path, "REPORT")
    text = (out / "report.html").read_text()
    assert "a.fits" in text
    assert "slope" in text


def test_what_a_failed_run_wrote_and_did_not_list_is_not_foreign(out):
    def fail():
        with new_record(out) as record, record.step("fit"):
            record.claim(out / "a.fits").write_bytes(b"whole")
            record.claim(out / "b.fits")
            raise OutputError(f"{out / 'b.fits'}: disk full")

    with pytest.raises(OutputError, match="disk full"):
        fail()
    assert run_file(out)["products"]["a.fits"]["prodtype"] == "UNFINISHED"
    assert "b.fits" not in run_file(out)["products"]
    with new_record(out) as record, record.step("other"):
        record.claim(out / "a.fits")
