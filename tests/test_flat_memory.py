"""The whole flat pipeline under a narrow memory limit: the same products, and a peak below it."""

import sys

import flat_frames
import pytest
from bias_frames import files, same_products

from benchmarks.timing import run_process

SHAPE = (520, 640)
"""More pixels than a worker takes at a time; the frames of one group are too few for two workers."""
EXPOSURES = (0.5, 1.0, 2.0, 4.0)
"""At two temperatures: eight groups."""
LIMIT = 240e6
"""Less than what program and planes at work are taken for: all groups wait in the temporary file."""
MEGA, WAITING = 1e6, 13
"""Bytes a pixel of a group that waits."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Number of workers -> output folder and peak [bytes] of a run, with a wide limit and with a narrow one."""
    root = tmp_path_factory.mktemp("narrow")
    camera = flat_frames.sensor(SHAPE, 6)
    frames, found = root / "in", {}
    flat_frames.campaign(frames, camera, 6, exposures=EXPOSURES, n=3, bias_n=3, dark_n=0)
    for jobs, limit in ((1, "2GB"), (2, f"{LIMIT / MEGA:.0f}MB")):
        out = root / f"out_{jobs}"
        words = ("--basepath", frames, "--output-dir", out, "--jobs", jobs, "--memory-limit", limit)
        command = [sys.executable, "flat_pipeline/run_pipeline.py", "--quiet", "--plots", "none", *words]
        found[jobs] = out, run_process(command, {"XDG_CACHE_HOME": str(root / "cache")}).peak
    return found


def test_workers_and_memory_change_no_product(runs):
    wide, narrow = runs[1][0], runs[2][0]
    names = [name for name in files(wide) if name.endswith(".fits")]
    assert len([name for name in names if name.startswith("master_flat/")]) == 8
    same_products(wide, narrow, names)


def test_peak_obeys_the_limit(runs):
    wide, narrow = runs[1][1], runs[2][1]
    assert narrow < LIMIT
    # Eight groups wait in memory there, and none here; blocks of all masters side by side are alike in both.
    assert narrow < wide - 3 * WAITING * SHAPE[0] * SHAPE[1]
