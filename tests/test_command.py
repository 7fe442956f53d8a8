import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.application import log
from utils.application.command import run_command
from utils.application.log import LOGGER, close_logging, crash_log, progress, set_crash_folder, setup_logging
from utils.application.options import CommandParser
from utils.errors import InputError, OutputError
from utils.fits_io.atomic import RefusedOutputError, write_bytes

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _logging_as_before():
    yield
    close_logging()
    LOGGER.setLevel(logging.NOTSET)


def fail_with(error):
    def function(_):
        raise error

    return function


def test_status_of_a_run_and_its_arguments():
    assert run_command(lambda argv: None, ["a"]) == 0
    assert run_command(lambda argv: len(argv), ["a"]) == 1
    assert run_command(lambda argv: argv[0] == "missing", ["missing"]) == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("x.fits: got 3, expected 4"), 2, "error: x.fits: got 3, expected 4\n"),
        (OutputError("x.fits: disk full"), 1, "error: x.fits: disk full\n"),
        (RefusedOutputError("x.fits:\nread-only"), 2, "error: x.fits: read-only\n"),
        (KeyboardInterrupt(), 130, "error: interrupted, nothing half-written is left\n"),
        (BrokenPipeError(), 1, ""),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.png"),
            1,
            "error: x.png: No space left on device\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device\n"),
        (OSError(errno.EROFS, "Read-only file system", "x.png"), 2, "error: x.png: Read-only file system\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "in.fits"),
            2,
            "error: in.fits: Permission denied\n",
        ),
        (SystemExit("told why"), 2, "error: told why\n"),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_errors_become_one_line_and_a_status(capsys, error, status, line):
    assert run_command(fail_with(error), []) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_in_a_destructor_is_not_lost(number, status):
    class Signalled:
        def __del__(self):
            signal.raise_signal(number)

    ends = []

    def function(argv):
        Signalled()
        ends.append("went on")  # Python drops what a destructor raises
        time.sleep(5)
        ends.append("slept")

    assert run_command(function, []) == status
    assert ends == ["went on"]


def test_argparse_errors_are_status_2(capsys):
    parser = CommandParser(prog="tool")
    assert run_command(lambda argv: parser.parse_args(argv) and 0, ["--nothing"]) == 2
    assert capsys.readouterr().err == (
        "tool: error: unrecognized arguments: --nothing (--help tells the options)\n"
    )
    assert run_command(lambda argv: parser.parse_args(argv) and 0, ["--version"]) == 0


def test_a_bug_without_a_folder_shows_its_traceback(capsys):
    assert run_command(fail_with(ZeroDivisionError("secret")), []) == 3
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.splitlines()[-1] == (
        "error: this is a bug (ZeroDivisionError: secret): please report it with the traceback above"
    )


def test_a_bug_leaves_its_traceback_in_the_output_folder(capsys, tmp_path):
    def function(argv):
        set_crash_folder(tmp_path)
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    assert run_command(function, ["--mode", "full"]) == 3
    assert "Traceback" in (tmp_path / "crash.log").read_text()
    assert "['--mode', 'full']" in (tmp_path / "crash.log").read_text()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(tmp_path / "crash.log") in line
    assert crash_log() is None  # The next command starts afresh.


def test_a_bug_goes_to_the_log_file(capsys, tmp_path):
    def function(argv):
        setup_logging(0, tmp_path / "logs" / "run.log")
        LOGGER.info("a step")
        raise KeyError("lost")

    assert run_command(function, []) == 3
    text = (tmp_path / "logs" / "run.log").read_text()
    assert "INFO a step" in text
    assert "Traceback" in text
    assert "ERROR this is a bug (KeyError: 'lost')" in text
    assert "run.log" in capsys.readouterr().err


def test_what_goes_where(capsys, tmp_path):
    setup_logging(0, tmp_path / "run.log")
    LOGGER.debug("detail")
    LOGGER.info("masters: 3")
    LOGGER.warning("one temperature only")
    captured = capsys.readouterr()
    assert captured.out == "masters: 3\n"
    assert captured.err == "warning: one temperature only\n"
    setup_logging(-1)
    LOGGER.info("masters: 3")
    LOGGER.warning("one temperature only")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: one temperature only\n"
    setup_logging(1)
    LOGGER.debug("detail")
    assert capsys.readouterr().out == "detail\n"
    assert (tmp_path / "run.log").read_text().count("\n") == 2


def test_a_log_file_that_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RefusedOutputError, match=r"run\.log: cannot write, a part of the path is a file"):
        setup_logging(0, tmp_path / "file" / "run.log")
    with pytest.raises(RefusedOutputError, match="cannot write, a folder stands there"):
        setup_logging(0, tmp_path)


def test_progress_is_silent_for_short_work_and_plain_lines_else(capsys, monkeypatch):
    setup_logging(0)
    assert list(progress(range(3), 3, "frames")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(log, "_SECONDS_BETWEEN_LINES", 0)
    assert list(progress(iter("ab"), 2, "frames")) == ["a", "b"]
    assert capsys.readouterr().err == "frames: 0 of 2 (0 %)\nframes: 1 of 2 (50 %)\n"
    setup_logging(-1)
    assert list(progress(range(3), 3, "frames")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch):
    setup_logging(0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(3), 3, "frames")) == [0, 1, 2]
    assert "frames:" in capsys.readouterr().err


def run_python(code, *args, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], cwd=ROOT, text=True, check=False, **options
    )


PRINTER = """
import sys
from utils.application.command import run_command
def main(argv):
    for n in range(200000):
        print("line", n)
sys.exit(run_command(main))
"""


def test_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    result = run_python(PRINTER, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        result = run_python(PRINTER, stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (1, "error: No space left on device\n")


def test_full_disk_while_writing_a_product(monkeypatch, tmp_path, capsys):
    class Full:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("utils.fits_io.atomic.open", Full, raising=False)
    assert run_command(lambda argv: write_bytes(tmp_path / "x.fits", [b"data"]), []) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/x.fits: disk full while writing, nothing was left under this name\n"
    )
    assert os.listdir(tmp_path) == []
