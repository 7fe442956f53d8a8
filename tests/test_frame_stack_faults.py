"""Frames that cannot be read: truncated, damaged, vanished, written anew, too many to be open at once."""

import dataclasses
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.stack_frames import RULE, combined, samples, write_uint16
from utils.errors import InputError
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.header_scan import scan_header
from utils.kernels.combine import CombineRule

ROOT = Path(__file__).resolve().parents[1]


def fails(images, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        combined(images, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.status == 2


def outcome(images):
    """Type and text of what combining raised, and how many files it left open."""

    def opened():
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = opened()
    error, stack = None, FrameStack(images)
    try:
        with stack:
            stack.combine(RULE)
    except Exception as caught:  # noqa: BLE001  which one it is, is the question
        error = caught
    left = opened() - before
    stack.__exit__()
    return (type(error) if error else None), str(error), left


@pytest.fixture
def few(tmp_path):
    stack = samples(np.random.default_rng(9), 4, (60, 97))
    return [write_uint16(tmp_path / f"{k}.fits", frame) for k, frame in enumerate(stack)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_file_truncated_after_the_scan(few, jobs):
    os.truncate(few[2].path, few[2].offset + 5000)
    fails(few, r"2\.fits: file changed during the run \(7880 bytes, 17280 before\)", jobs=jobs)


@pytest.mark.parametrize("jobs", [1, 3])
def test_file_truncated_while_it_is_open(few, jobs):
    with FrameStack(few, jobs=jobs) as stack:
        os.truncate(few[2].path, few[2].offset + 5000)
        with pytest.raises(InputError, match=r"2\.fits: data end before row \d+, file changed or truncated"):
            stack.combine(RULE)


def test_file_written_anew(few):
    """Before it is opened, and in place while it is combined; one that another replaces is still there as it was."""
    path = Path(few[1].path)
    content = path.read_bytes()
    with FrameStack(few) as stack:
        path.unlink()
        path.write_bytes(bytes(len(content)))
        assert stack.combine(RULE).value.min() > 0
    fails(few, r"1\.fits: file changed during the run \(written anew\)")
    with FrameStack([scan_header(image.path) for image in (few[0], few[2])]) as stack:
        os.utime(few[2].path, ns=(0, 1))
        with pytest.raises(InputError, match=r"2\.fits: file changed during the run \(written anew\)"):
            stack.combine(RULE)


def test_lenient_stack_names_what_cannot_be_opened(few, tmp_path):
    packed = write_uint16(tmp_path / "4.fits.gz", np.zeros((60, 97)))
    os.unlink(few[1].path)
    os.unlink(packed.path)
    with FrameStack([*few, packed], lenient=True) as stack:
        assert stack.unusable == dict.fromkeys((1, 4), "file vanished during the run")


def test_file_vanished_after_the_scan(few):
    os.unlink(few[1].path)
    kind, text, _ = outcome(few)
    assert kind is InputError
    assert text == f"{few[1].path}: file vanished during the run"


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("gz", "truncated"),
        ("gz", "vanished"),
        ("gz", "garbled"),
        ("fz", "truncated"),
        ("fz", "vanished"),
        ("fz", "garbled"),
    ],
)
def test_compressed_file_damaged_after_the_scan(tmp_path, suffix, damage):
    stack = samples(np.random.default_rng(10), 3, (60, 97))
    images = [write_uint16(tmp_path / f"{k}.fits.{suffix}", s, compress=suffix) for k, s in enumerate(stack)]
    path = Path(images[1].path)
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "vanished":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + b"\xff" * 2000 + content[middle + 2000 :])
    if damage != "vanished":
        status = path.stat()
        images[1] = dataclasses.replace(images[1], size=status.st_size, mtime_ns=status.st_mtime_ns)
    kind, text, _ = outcome(images)
    assert kind is InputError
    assert ("cannot be unpacked" in text) == (damage != "vanished")
    assert f"1.fits.{suffix}: " in text
    assert "\n" not in text


def test_descriptors_are_closed_where_unpacking_fails(tmp_path):
    images = [write_uint16(tmp_path / f"{k}.fits.gz", np.zeros((7, 13))) for k in range(2)]
    os.unlink(images[1].path)
    kind, _, left = outcome(images)
    assert kind is InputError
    assert left == 0


def test_no_frames_and_different_shapes_are_refused(tmp_path, few):
    with pytest.raises(InputError, match="no frames to combine"):
        FrameStack([])
    other = write_uint16(tmp_path / "other.fits", np.zeros((60, 96)))
    with pytest.raises(
        InputError, match=r"other\.fits: shape \(60, 96\), expected \(60, 97\) as in .*0\.fits"
    ):
        FrameStack([*few, other])


def test_descriptors_are_closed(few):
    assert outcome(few) == (None, "None", 0)


def test_descriptors_are_closed_where_a_frame_is_missing(few):
    os.unlink(few[3].path)
    kind, _, left = outcome(few)
    assert kind is InputError
    assert left == 0


LIMITED = """
import resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.header_scan import scan_header
from utils.kernels.combine import CombineRule
from utils.kernels.combine import CombineRule
folder, jobs = sys.argv[1], int(sys.argv[2])
with FrameStack([scan_header(f"{folder}/{k}.fits") for k in range(100)], jobs=jobs) as stack:
    result = stack.combine(CombineRule("sigclip", 4.0, 4.0))
np.savez(f"{folder}/result.npz", **vars(result))
"""


def test_more_frames_than_the_system_lets_be_open(tmp_path):
    stack = samples(np.random.default_rng(11), 100, (31, 29))
    images = [write_uint16(tmp_path / f"{k}.fits", frame) for k, frame in enumerate(stack)]
    expected = combined(images, CombineRule("sigclip", 4.0, 4.0))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(tmp_path / "result.npz") as got:
        for name, array in vars(expected).items():
            np.testing.assert_array_equal(got[name], array)
