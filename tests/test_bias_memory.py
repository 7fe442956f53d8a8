"""Peak memory of the whole bias command: bounded, and the same however many frames a group has."""

import sys

import numpy as np
import pytest

from benchmarks.frames import bias_cards, write_frame
from benchmarks.timing import run_process

SIDE = 200
MEGA = 1e6
ROOM = 250 * MEGA
"""What the command may use at most."""
PER_FRAME = 16e3
"""Header, entry and record of one frame; its samples are 80 kB."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders with 10, 40, 200 and 1,000 frames of one temperature, by their number."""
    rng = np.random.default_rng(1)
    root = tmp_path_factory.mktemp("many")
    pattern = rng.normal(1000, 5, (SIDE, SIDE))
    distinct = [np.rint(pattern + rng.normal(0, 3, (SIDE, SIDE))).astype(np.uint16) for _ in range(40)]
    for count in (10, 40, 200, 1000):
        for number in range(count):
            path = root / str(count) / f"bias_{number:04d}.fits"
            write_frame(path, distinct[number % 40], bias_cards(0.0, 1.7e9 + number))
    return root


def peak(folder, count, tmp_path, *options, descriptors=None):
    """Peak memory [bytes] of make_master over a folder of ``count`` frames."""
    words = ["--mode", "make_master", "--quiet", "--plots", "none", "--basepath", folder / str(count)]
    program = [sys.executable, "bias_pipeline/run_pipeline.py"]
    if descriptors:
        limited = (
            "import os, resource, sys;"
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}));"
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        )
        program = [sys.executable, "-c", limited, "bias_pipeline/run_pipeline.py"]
    output = tmp_path / f"out_{count}_{len(list(tmp_path.iterdir()))}"
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    run = run_process([*program, *words, "--output-dir", output, *options], environment)
    assert (output / "bias_grouped_by_temp" / "master_bias_0.0C.fits").stat().st_size > 0
    return run.peak


@pytest.mark.parametrize(
    ("method", "jobs", "descriptors"), [("sigclip", 2, None), ("median", 1, 64), ("mean", 2, 64)]
)
def test_peak_memory_does_not_grow_with_the_frames(folder, tmp_path, method, jobs, descriptors):
    options = ("--combine", method, "--jobs", jobs)
    peaks = {n: peak(folder, n, tmp_path, *options, descriptors=descriptors) for n in (10, 40, 200, 1000)}
    assert max(peaks.values()) < ROOM
    # 1,000 frames hold 80 MB as stored; blocks, samples of the screen and samples at work have limits of their own.
    limit = peaks[10] + 20 * MEGA
    assert all(value < limit + n * PER_FRAME for n, value in peaks.items()), peaks


def test_peak_memory_obeys_the_limit(folder, tmp_path):
    wide = peak(folder, 1000, tmp_path, "--jobs", 1, "--memory-limit", "2GB")
    narrow = peak(folder, 1000, tmp_path, "--jobs", 1, "--memory-limit", "16MB")
    assert narrow <= wide + 2 * MEGA
