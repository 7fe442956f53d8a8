"""The commands and tables of flat_pipeline/README.md, as a reader would use them."""

import re
import subprocess
import sys
from pathlib import Path

import flat_frames
import pytest
from bias_frames import files

from flat_pipeline.run_pipeline import MODES, OPTIONS, steps

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "flat_pipeline" / "README.md").read_text(encoding="utf-8")
COMMAND = "python flat_pipeline/run_pipeline.py --mode full --basepath DIR --output-dir OUT"


def call(words, cache):
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={"PATH": "", "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("start", ["flat_pipeline/run_pipeline.py", "-m flat_pipeline.run_pipeline"])
def test_first_command_prints_a_line_a_step(tmp_path, start):
    assert COMMAND in README
    flat_frames.campaign(tmp_path / "in", flat_frames.sensor((32, 40), 4), 4, n=4, bias_n=4, dark_n=4)
    words = COMMAND.replace("python flat_pipeline/run_pipeline.py", start).split()
    words = [{"DIR": str(tmp_path / "in"), "OUT": str(tmp_path / "out")}.get(word, word) for word in words]
    done = call([*words, "--plots", "none"], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    printed = [line.split(":")[0] for line in done.stdout.splitlines()]
    # One line a step, in order.
    assert [line for line in printed if line in steps()] == list(MODES["full"])
    assert "pixel response" in done.stdout
    assert "report.html" in files(tmp_path / "out")


def test_modes_and_options_of_the_readme_are_those_of_the_command():
    table = README.split("## Modes")[1].split("## Options")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(MODES)
    options = README.split("## Options")[1].split("## Steps")[0]
    assert {f"--{name}" for name in OPTIONS} <= set(re.findall(r"--[\w-]+", options))


def test_help_answers_with_all_options(tmp_path):
    done = call(["flat_pipeline/run_pipeline.py", "--help"], tmp_path)
    assert done.returncode == 0
    assert all(f"--{name}" in done.stdout for name in OPTIONS)
