"""A machine without enough disk, permission, open files, memory, UTF-8 or terminal: one line, nothing half-written."""

import os
import re
import shutil

import fault_frames
import machine
import pytest
from bias_frames import ROOT, assert_whole, command, content, files, rows

from utils import raw_to_fits
from utils.application import run_record
from utils.application.command import run_command
from utils.errors import ScarceError
from utils.fits_io import free_space
from utils.fits_io.atomic import RefusedOutputError
from utils.fits_io.free_space import check_room

PIPELINES = tuple(fault_frames.PIPELINES)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine") / "night"
    fault_frames.campaign(folder, shape=(64, 80))
    return folder


def started(name, night, out, *words, **options):
    """Run a pipeline as a process of its own."""
    program = f"{name}_pipeline/run_pipeline.py"
    return command(
        "--basepath", night, "--output-dir", out, "--plots", "none", *words, program=program, **options
    )


def one_error(text):
    (line,) = [line for line in text.splitlines() if not line.startswith("warning")]
    assert line.startswith("error: ")
    return line


# --- full disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_disk_that_cannot_hold_the_run_is_refused_before_it(night, tmp_path, capsys, name):
    with machine.small_disk(tmp_path / "disk", 256 << 10) as disk:
        assert fault_frames.run(name, "--basepath", night, "--output-dir", disk / "out") == 2
        line = one_error(capsys.readouterr().err)
        assert re.search(
            r"/disk/out: about [\d.]+ MB will be written, 262 kB free on its disk, expected room for all of it",
            line,
        )
        assert not (disk / "out").exists()


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("left", [0, 40_000, 150_000, 400_000])
def test_disk_that_fills_up_during_the_run(night, tmp_path, monkeypatch, capsys, name, left):
    """Others fill it after the run has asked: status 1, one line, and a second run on an emptier disk is whole."""
    plain = run_record.RunRecord.check_room

    def then_fill(record, needed):
        plain(record, needed)
        machine.fill(disk, left)

    with machine.small_disk(tmp_path / "disk", 16 << 20) as disk:
        words = ("--basepath", night, "--output-dir", disk / "out")
        with monkeypatch.context() as patch:
            patch.setattr(run_record.RunRecord, "check_room", then_fill)
            assert fault_frames.run(name, *words) == 1
        assert "disk full while writing" in one_error(capsys.readouterr().err)
        if (disk / "out").exists():
            assert_whole(disk / "out")
        (disk / "filler").unlink()
        assert fault_frames.run(name, *words) == 0
        assert not [one for one in files(disk) if ".tmp" in one or ".run_in" in one]
        assert_whole(disk / "out")


@pytest.mark.parametrize("name", PIPELINES)
def test_limit_of_the_size_of_files(night, tmp_path, name):
    ended = started(name, night, tmp_path / "out", preexec_fn=machine.limited(FSIZE=20_000))
    assert ended.returncode == 1
    assert "file size limit reached while writing" in one_error(ended.stderr)
    assert_whole(tmp_path / "out")


def test_converter_asks_for_room(tmp_path, monkeypatch, capsys):
    raw = tmp_path / "Bias" / "T0" / "attempt1"
    (raw / "frames").mkdir(parents=True)
    for number in range(4):
        (raw / "frames" / f"f{number}.raw").write_bytes(bytes(2 * 64 * 64))
    (raw / "configFile.txt").write_text("WIDTH=64\nHEIGHT=64\n")
    words = [str(tmp_path / "Bias"), "x", "x", "--skip-dark", "--skip-flat"]
    needed = 4 * (2 * 64 * 64 + 3 * 2880)
    monkeypatch.setattr(
        free_space.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, needed - 1)
    )
    assert raw_to_fits.main(words) == 2
    line = one_error(capsys.readouterr().err)
    assert "about 67 kB will be written, 67 kB free" in line
    assert not (raw / "fits").exists()
    monkeypatch.setattr(free_space.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, needed))
    assert raw_to_fits.main(words) == 0
    # What stands there makes room for what takes its place.
    monkeypatch.setattr(
        free_space.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, needed // 2)
    )
    assert raw_to_fits.main([*words, "--overwrite"]) == 0


def test_room_is_that_of_the_folder_that_will_hold_the_output(tmp_path):
    check_room(tmp_path / "not" / "yet", 1000)
    with pytest.raises(RefusedOutputError, match=r"about 1e\+06 GB will be written, .* free on its disk"):
        check_room(tmp_path / "not" / "yet", 10**15)
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bias", ()),
        ("bias", ("--mode", "make_master")),
        ("bias", ("--save-eval-fits", "--generate-set")),
        ("dark", ()),
        ("dark", ("--save-corrected",)),
        ("flat", ()),
        ("flat", ("--mode", "reduce_only")),
        ("flat", ("--mode", "full_no_vignetting", "--save-eval-fits")),
    ],
)
def test_bytes_that_are_asked_for_are_about_those_written(tmp_path, monkeypatch, name, options):
    fault_frames.campaign(tmp_path / "night", shape=(256, 300))
    asked = []
    monkeypatch.setattr(run_record.RunRecord, "check_room", lambda record, needed: asked.append(needed))
    out = tmp_path / "out"
    assert fault_frames.run(name, "--basepath", tmp_path / "night", "--output-dir", out, *options) == 0
    written = sum((out / one).stat().st_size for one in files(out))
    # The reserve for reports and pictures is 2 MB; what waits in temporary files may be as much as the rest of the run.
    assert written < asked[0] < 1.5 * written + (2 << 20)


# --- no permission ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_folder_that_cannot_be_written(night, tmp_path, name):
    machine.needs_permissions(tmp_path / "shut")
    (tmp_path / "shut").chmod(0o555)
    ended = started(name, night, tmp_path / "shut" / "out", preexec_fn=machine.obey_permissions)
    (tmp_path / "shut").chmod(0o755)
    assert ended.returncode == 2
    assert one_error(ended.stderr).endswith("cannot be written, expected a writable output folder")


@pytest.mark.parametrize("name", PIPELINES)
def test_frames_and_folders_that_cannot_be_read(night, tmp_path, name):
    machine.needs_permissions(tmp_path / "shut")
    tree = fault_frames.copy(night, tmp_path / "night")
    frame = sorted((tree / name).iterdir())[2]
    frame.chmod(0)
    shutil.copytree(tree / "flat", tree / "more", ignore=lambda *_: [frame.name])
    (tree / "more").chmod(0)
    ended = started(name, tree, tmp_path / "out", preexec_fn=machine.obey_permissions)
    (tree / "more").chmod(0o755)
    assert ended.returncode == 0
    assert {row["path"]: row["reason"] for row in rows(tmp_path / "out" / "rejected_frames.csv")} == {
        str(frame): "cannot be read (Permission denied)",
        str(tree / "more"): "cannot be read (Permission denied)",
    }


# --- open files, memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_sixty_four_open_files(night, tmp_path, name):
    ended = started(name, night, tmp_path / "out", "--jobs", "2", preexec_fn=machine.limited(NOFILE=64))
    assert ended.returncode == 0, ended.stderr
    assert fault_frames.run(name, "--basepath", night, "--output-dir", tmp_path / "free") == 0
    for one in files(tmp_path / "free"):
        if one.endswith(".fits"):
            assert content(tmp_path / "out" / one) == content(tmp_path / "free" / one)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("megabytes", [230, 300, 1000])
def test_limit_of_memory(night, tmp_path, name, megabytes):
    """A gigabyte of addresses is enough; with less the run ends in one line, or is done."""
    words = ("--jobs", "2", "--memory-limit", "100MB")
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    limit = machine.limited(AS=megabytes << 20)
    ended = started(name, night, tmp_path / "out", *words, preexec_fn=limit, env=environment)
    if megabytes == 1000:
        assert ended.returncode == 0, ended.stderr
    elif ended.returncode:
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
    if (tmp_path / "out").exists():
        assert_whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (OSError(12, "Cannot allocate memory"), "out of memory"),
        (ImportError("libz.so: failed to map segment from shared object"), "out of memory"),
        (RuntimeError("can't start new thread"), "out of memory"),
        (OSError(11, "Resource temporarily unavailable"), "no more processes"),
        (OSError(24, "Too many open files", "/x"), "/x: too many open files"),
        (OSError(5, "Input/output error", "/x"), "/x: input/output error"),
        (ScarceError("worker process 7 ended"), "worker process 7"),
    ],
)
def test_what_the_machine_lacks_is_no_bug(capsys, error, words):
    def fail(argv):
        raise error

    assert run_command(fail, []) == 1
    line = one_error(capsys.readouterr().err)
    assert words in line


# --- locale, terminal, many files --------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_locale_without_utf8_and_no_terminal(night, tmp_path, name):
    odd = fault_frames.copy(night, tmp_path / "Nächte 'x' 雪")
    first = sorted((odd / name).iterdir())[0]
    first.rename(first.with_name("é.fits"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = started(name, odd, tmp_path / "ü", env=environment, stdin=-3, start_new_session=True)
    assert ended.returncode == 0, ended.stderr
    assert "é.fits" in (tmp_path / "ü" / "run.json").read_text(encoding="utf-8")
    assert "\x1b" not in ended.stdout + ended.stderr
    assert "\r" not in ended.stderr
    ended = started(name, tmp_path / "kein Ort é", tmp_path / "ü", env=environment, stdin=-3)
    assert ended.returncode == 2
    assert "no such folder" in one_error(ended.stderr.replace(f"{name}_pipeline/run_pipeline.py: ", ""))


def test_ten_thousand_files_in_one_folder(tmp_path):
    """Hard links would be met once: each is a file of its own, of one pixel row."""
    import numpy as np
    from bias_frames import write_frame

    folder = tmp_path / "night"
    first = write_frame(folder / "f00000.fits", np.arange(100, 108, dtype=np.uint16).reshape(1, 8))
    bytes_of_one = first.read_bytes()
    for number in range(1, 10_000):
        (folder / f"f{number:05d}.fits").write_bytes(bytes_of_one)
    ended = command(
        "--basepath",
        folder,
        "--output-dir",
        tmp_path / "out",
        "--mode",
        "make_master",
        "--plots",
        "none",
        preexec_fn=machine.limited(NOFILE=256),
    )
    assert ended.returncode == 0, ended.stderr
    assert rows(tmp_path / "out" / "rejected_frames.csv") == []
    assert "10000 bias frames" in ended.stdout
    assert ROOT.is_dir()
