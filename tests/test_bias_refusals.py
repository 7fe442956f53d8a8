"""Unusable options, disks that are full or locked, Ctrl-C, damaged models: one line, a status, nothing half-written."""

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from tests.bias_frames import ROOT, SHAPE, assert_whole, campaign, command, files, only_line, record, run
from utils.application.command import run_command
from utils.application.run_record import RunRecord
from utils.fits_io.product_reader import read_product


@pytest.fixture
def night(tmp_path):
    """A folder with six good frames at 0 and six at 10 degC."""
    campaign(tmp_path / "night", shape=SHAPE, temperatures=(0.0, 10.0), n=6, seed=3)
    return tmp_path / "night"


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["--mode", "half"], "invalid choice: 'half'"),
        (["--temps", "warm"], "--temps: got 'warm', expected numbers"),
        (["--temps", "-400"], "--temps: got -400, expected degrees Celsius"),
        (["--temps", "nan"], "--temps: got 'nan'"),
        (["--temps", " "], "--temps: got no number"),
        (["--jobs", "0"], "--jobs: got '0', expected a whole number above 0"),
        (["--memory-limit", "lots"], "--memory_limit: got 'lots'"),
        (
            ["--select", "colour=red"],
            "expected KEY=VALUE with KEY one of gain, binning, filter, camera, shape",
        ),
        (["--combine", "sum"], "invalid choice: 'sum'"),
        (["--clip-sigma", "3", "--combine", "mean"], "works with --combine sigclip only"),
        (["--adu-scale", "-1"], "--adu_scale: got '-1'"),
        (["--temp-tolerance", "0"], "--temp_tolerance: got '0'"),
        (["--session-gap", "-3"], "--session_gap: got '-3'"),
        (["--session-gap", "nan"], "--session_gap: got 'nan'"),
    ],
)
def test_unusable_option_is_refused_before_anything_is_written(night, out, capsys, words, said):
    assert run("--basepath", night, "--output-dir", out, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not out.exists()


def test_folders_that_cannot_be(night, tmp_path, capsys):
    assert run("--output-dir", tmp_path / "out") == 2
    assert only_line(capsys) == "--basepath: got none, expected the folder with the frames"
    assert run("--basepath", tmp_path / "none", "--output-dir", tmp_path / "out") == 2
    assert "none: got no such folder" in only_line(capsys)
    assert run("--basepath", night, "--output-dir", tmp_path) == 2
    assert "holds --basepath" in only_line(capsys)
    assert files(tmp_path) == {f"night/{name}" for name in files(night)}


# --- output ------------------------------------------------------------------------------------------------


def test_output_folder_that_cannot_be_made(night, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run("--basepath", night, "--output-dir", tmp_path / "file" / "out") == 2
    assert "is a file, expected a folder" in only_line(capsys)
    assert run("--basepath", night, "--output-dir", tmp_path / "file") == 2
    assert "got a file, expected a folder" in only_line(capsys)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_output_folder_where_the_system_has_none(night, capsys):
    assert run("--basepath", night, "--output-dir", "/proc/new/out") == 2
    assert only_line(capsys).startswith("/proc/new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_output_folder_without_permission(night, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert run("--basepath", night, "--output-dir", tmp_path / "locked" / "out") == 2
    assert "cannot be written, expected a writable output folder" in only_line(capsys)


@pytest.fixture
def mounted(tmp_path):
    """Mount a small disk, where that is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no permission to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_read_only_disk(night, mounted, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    assert run("--basepath", night, "--output-dir", mounted / "out") == 2
    assert str(mounted) in only_line(capsys)
    assert files(mounted) == set()


def test_full_disk(night, mounted, monkeypatch, capsys):
    (mounted / "ballast").write_bytes(bytes(250_000))
    out = mounted / "out"
    with monkeypatch.context() as patch:
        # Others take the room after the run has asked for it.
        patch.setattr(RunRecord, "check_room", lambda record, needed: None)
        assert run("--basepath", night, "--output-dir", out, "--save-eval-fits") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "disk full while writing, nothing was left under this name" in line
    assert_whole(out)
    (mounted / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(mounted)], check=True)
    assert run("--basepath", night, "--output-dir", out, "--save-eval-fits") == 0
    assert_whole(out)


def test_file_size_limit(night, out):
    """As a full disk, for everybody: no file may exceed 20,000 bytes (a master has more)."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = command("--basepath", night, "--output-dir", out, "--plots", "none", preexec_fn=limit)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert "file size limit reached" in line
    assert "Traceback" not in result.stderr
    assert_whole(out)


def test_foreign_file_in_the_way_is_kept(night, out, capsys):
    mine = out / "bias_grouped_by_temp" / "master_bias_0.0C.fits"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert run("--basepath", night, "--output-dir", out) == 2
    assert "master_bias_0.0C.fits: stands there but no run of these pipelines made it" in only_line(capsys)
    assert mine.read_text() == "mine"
    assert run("--basepath", night, "--output-dir", out, "--overwrite") == 0
    assert read_product(mine).prodtype == "MASTER_BIAS"


def test_damaged_run_file(night, out, capsys):
    out.mkdir()
    (out / "run.json").write_text("{")
    assert run("--basepath", night, "--output-dir", out) == 2
    assert "expected the JSON record of earlier runs" in only_line(capsys)
    assert files(out) == {"run.json"}
    assert run("--basepath", night, "--output-dir", out, "--overwrite") == 0


# --- interruptions -----------------------------------------------------------------------------------------


def test_ctrl_c_leaves_whole_files_and_the_next_run_goes_on(night, out):
    words = [
        sys.executable,
        "bias_pipeline/run_pipeline.py",
        "--basepath",
        str(night),
        "--output-dir",
        str(out),
    ]
    process = subprocess.Popen(
        [*words, "--plots", "all"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("synthesize"):
            process.send_signal(signal.SIGINT)  # while the pictures of the evaluation are drawn
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted, nothing half-written is left"
    assert "Traceback" not in err
    assert_whole(out)
    one = record(out)["runs"][-1]
    assert (one["status"], one["error"]) == (130, "KeyboardInterrupt")
    assert run("--basepath", night, "--output-dir", out) == 0
    assert {name for name in files(out) if name.endswith(".png")} == set()


def test_ctrl_c_between_two_masters(night, out, monkeypatch, capsys):
    from bias_pipeline.steps import step2_make_masters

    write, made = step2_make_masters.write_product, []

    def interrupted(path, *args, **kwargs):
        if made:
            raise KeyboardInterrupt
        made.append(path)
        write(path, *args, **kwargs)

    monkeypatch.setattr(step2_make_masters, "write_product", interrupted)
    assert run("--basepath", night, "--output-dir", out) == 130
    assert only_line(capsys) == "interrupted, nothing half-written is left"
    assert files(out) == {
        *("bias_grouped_by_temp/master_bias_0.0C.fits", "read_noise/read_noise_0.0C.fits", "run.json")
    }
    monkeypatch.undo()
    assert run("--basepath", night, "--output-dir", out) == 0


def test_bug_is_kept_for_a_report(night, out, monkeypatch, capsys):
    from bias_pipeline.steps import step3_fit_model

    def broken(*_):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(step3_fit_model, "_line", broken)
    assert run("--basepath", night, "--output-dir", out) == 3
    line = only_line(capsys)
    assert "this is a bug (ZeroDivisionError: on purpose): please report it with" in line
    assert "ZeroDivisionError: on purpose" in (out / "crash.log").read_text()


# --- models and masters that are not what they should be -----------------------------------------------------


@pytest.fixture
def made(night, out, capsys):
    """Output of a good run."""
    assert run("--basepath", night, "--output-dir", out) == 0
    capsys.readouterr()
    return out


@pytest.mark.parametrize(
    "name", ["bias_a_map.fits", "bias_b_map.fits", "bias_ab_covariance.fits", "bias_model.json"]
)
def test_missing_map(made, capsys, name):
    (made / "bias_model" / name).unlink()
    before = files(made)
    for mode in ("synthetic_only", "evaluate_model"):
        assert run("--mode", mode, "--output-dir", made) == 2
        line = only_line(capsys)
        assert f"{name}: the file is gone, expected BIAS_" in line
        assert "make it with --mode fit_model or full" in line
        assert files(made) == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "truncated"),
        (lambda path: path.write_bytes(b""), "empty file, expected a FITS product"),
        (lambda path: path.write_bytes(b"x" * 4000), "got no FITS file"),
        (
            lambda path: shutil.copy(path.with_name("bias_b_map.fits"), path),
            "got PRODTYPE BIAS_B, expected BIAS_A",
        ),
    ],
)
def test_corrupted_map(made, capsys, spoil, said):
    spoil(made / "bias_model" / "bias_a_map.fits")
    before = files(made)
    assert run("--mode", "synthetic_only", "--output-dir", made) == 2
    line = only_line(capsys)
    assert "bias_a_map.fits: " in line
    assert said in line
    assert files(made) == before


def test_map_of_another_model(made, tmp_path, capsys):
    """Same shape, another range of temperatures: both files and both values are named."""
    campaign(tmp_path / "other", shape=SHAPE, temperatures=(-30, 30), n=5, seed=9)
    assert run("--basepath", tmp_path / "other", "--output-dir", tmp_path / "two") == 0
    capsys.readouterr()
    shutil.copy(tmp_path / "two" / "bias_model" / "bias_b_map.fits", made / "bias_model" / "bias_b_map.fits")
    assert run("--mode", "synthetic_only", "--output-dir", made) == 2
    line = only_line(capsys)
    assert "bias_b_map.fits: T_MIN -30.0, expected 0.0 as in " in line
    assert line.endswith("bias_a_map.fits")


def test_model_of_another_shape_than_the_masters(made, tmp_path, capsys):
    campaign(tmp_path / "other", shape=(16, 40), temperatures=(0, 10), n=5, seed=9)
    assert run("--basepath", tmp_path / "other", "--output-dir", tmp_path / "two") == 0
    capsys.readouterr()
    for path in (tmp_path / "two" / "bias_model").iterdir():
        shutil.copy(path, made / "bias_model" / path.name)
    assert run("--mode", "evaluate_model", "--output-dir", made) == 2
    assert f"bias_a_map.fits: shape (16, 40), expected {SHAPE} as " in only_line(capsys)


def test_master_that_is_gone_or_another(made, capsys):
    first, second = (made / "bias_grouped_by_temp" / f"master_bias_{t}C.fits" for t in ("0.0", "10.0"))
    keep = second.read_bytes()
    second.unlink()
    assert run("--mode", "fit_model", "--output-dir", made) == 2
    assert "master_bias_10.0C.fits: the file is gone, expected MASTER_BIAS" in only_line(capsys)
    second.write_bytes(keep[: len(keep) // 2])
    assert run("--mode", "fit_model", "--output-dir", made) == 2
    assert "master_bias_10.0C.fits: truncated" in only_line(capsys)
    shutil.copy(made / "bias_model" / "bias_a_map.fits", second)
    assert run("--mode", "fit_model", "--output-dir", made) == 2
    assert "got BIAS_A, expected MASTER_BIAS" in only_line(capsys)
    shutil.copy(first, second)  # two masters of one temperature
    assert run("--mode", "fit_model", "--output-dir", made) == 0


def test_generate_bias_without_maps(tmp_path, capsys):
    from bias_pipeline import generate_bias

    words = [
        "--a-map",
        tmp_path / "a.fits",
        "--b-map",
        tmp_path / "b.fits",
        "--temperature",
        0,
        "--output",
        tmp_path,
    ]
    assert run_command(generate_bias.main, [str(word) for word in words]) == 2
    assert "a.fits: No such file or directory, expected a FITS product" in only_line(capsys)
