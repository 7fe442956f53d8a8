import csv
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.errors import OutputError
from utils.fits_io import atomic
from utils.fits_io.atomic import (
    RefusedOutputError,
    atomic_path,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def test_the_file_appears_whole_and_the_folder_is_made(tmp_path):
    target = tmp_path / "a" / "b" / "out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".")
    assert target.read_text() == "half"
    assert os.listdir(target.parent) == ["out.txt"]


def write_and_fail(target, error):
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt("x"), SystemExit("x")])
def test_after_a_failure_the_earlier_file_stands_and_nothing_else(tmp_path, error):
    target = tmp_path / "out.txt"
    target.write_text("earlier")
    with pytest.raises(type(error), match="x"):
        write_and_fail(target, error)
    assert target.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["out.txt"]


def run_python(code, *args):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )


def test_killed_process_leaves_nothing_under_the_name(tmp_path):
    code = """
import os, signal, sys
from utils.fits_io.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(code, tmp_path / "out.txt").returncode == -signal.SIGKILL
    names = os.listdir(tmp_path)
    assert len(names) == 1
    assert names[0].startswith(".out.txt.")


def test_file_size_limit(tmp_path):
    # The kernel itself cuts the write: in a child, since a limit cannot be raised again.
    target = tmp_path / "out.bin"
    target.write_bytes(b"earlier")
    code = """
import resource, signal, sys
from utils.errors import OutputError
from utils.fits_io.atomic import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_bytes(sys.argv[1], [bytes(300_000)])
except OutputError as error:
    print(error.status, error)
"""
    result = run_python(code, target)
    assert result.stdout.startswith(f"1 {target}: file size limit reached"), result.stderr
    assert target.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.parametrize(
    ("code", "kind", "status", "words"),
    [
        (errno.ENOSPC, OutputError, 1, "out.bin: disk full while writing"),
        (errno.EDQUOT, OutputError, 1, "out.bin: disk full while writing"),
        (errno.EROFS, RefusedOutputError, 2, "out.bin: cannot write, read-only file system"),
    ],
)
def test_full_disk_and_read_only_are_one_line(tmp_path, code, kind, status, words):
    with pytest.raises(kind, match=words) as caught:
        write_and_fail(tmp_path / "out.bin", OSError(code, os.strerror(code)))
    assert caught.value.status == status
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_way_of_a_folder_and_a_folder_in_the_way_of_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RefusedOutputError, match="a part of the path is a file"):
        write_text(tmp_path / "file" / "deep" / "out.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RefusedOutputError, match="a folder stands there"):
        write_text(tmp_path / "folder", "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_folder_that_the_system_does_not_let_be_made():
    with pytest.raises(RefusedOutputError, match="/proc/new/deep: the system lets no folder be made there"):
        write_text("/proc/new/deep/out.txt", "x")


def test_an_unreadable_input_is_not_taken_for_the_output(tmp_path):
    (tmp_path / "input").mkdir()
    with pytest.raises(IsADirectoryError, match="Is a directory"), atomic_path(tmp_path / "out.txt"):
        (tmp_path / "input").read_text()


def test_partial_writes_go_on(tmp_path, monkeypatch):
    data = np.arange(100_003, dtype=np.uint8)

    class Slow:
        def __init__(self, path):
            self.stream = open(path, "wb", buffering=0)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.stream.close()

        def write(self, view):
            return self.stream.write(view[:777])

    monkeypatch.setattr(atomic, "open", lambda path, *_, **__: Slow(path), raising=False)
    write_bytes(tmp_path / "out.bin", [b"head", data])
    assert (tmp_path / "out.bin").read_bytes() == b"head" + data.tobytes()


def test_json_is_plain(tmp_path):
    value = {
        "nan": float("nan"),
        "inf": np.inf,
        "f4": np.float32(0.1),
        "i": np.int64(3),
        "b": np.bool_(True),
        "array": np.array([1.5, np.nan]),
        "path": tmp_path,
        "set": {2, 1},
        "text": "°C",
        "none": None,
    }
    write_json(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {
        "nan": None,
        "inf": None,
        "f4": 0.1,
        "i": 3,
        "b": True,
        "array": [1.5, None],
        "path": str(tmp_path),
        "set": [1, 2],
        "text": "°C",
        "none": None,
    }
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        write_json(tmp_path / "y.json", {"x": object()})
    assert os.listdir(tmp_path) == ["x.json"]


def test_csv(tmp_path):
    rows = [{"a": 1, "b": 'x,"y'}, {"a": np.float64(0.1), "b": None}, {"a": float("nan")}]
    write_csv(tmp_path / "x.csv", rows, ["a", "b"])
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [["a", "b"], ["1", 'x,"y'], ["0.1", ""], ["", ""]]
    with pytest.raises(ValueError, match="'c'"):
        write_csv(tmp_path / "y.csv", [{"c": 1}], ["a"])
    assert os.listdir(tmp_path) == ["x.csv"]
