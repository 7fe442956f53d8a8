"""The sections of `make bench` on Dask: what a unit costs, and a run against the number of its frames."""

import json
import shutil
import sys

from benchmarks.table import Section, megabytes
from benchmarks.timing import run_process, worker

WORKERS = 2
TEMPERATURES = (-10, 0, 10, 20)


def units(plan):
    """Cost of units of no work, and of those that carry 4 MB."""
    count = 100 if plan.quick else 1000
    found = json.loads(run_process(worker("scheduler_units", WORKERS, count), plan.environment).output)
    rows = [
        ["start of the workers and connection, once a run [s]", found["connect"]],
        ["empty unit [ms]", 1e3 * found["empty"]],
        ["unit that is sent 4 MB [ms]", 1e3 * found["out"]],
        ["unit that gives 4 MB back [ms]", 1e3 * found["back"]],
    ]
    notes = [
        f"`--scheduler local:{WORKERS}`, {count} empty units and {max(8, count // 10)} of each other kind, one after the"
        " other through one scheduler: the reciprocal is the most that one run can hand out."
    ]
    return Section("What a unit costs on a Dask cluster", ("what", "value"), rows, notes)


def scaling(plan):
    """Bias run over few and many frames, with forked processes and on a cluster of this machine."""
    side, counts = (64, (10, 20)) if plan.quick else (512, (25, 100, 400, 1600))
    rows = []
    for count in counts:
        frames = plan.bias_frames(side, dict.fromkeys(TEMPERATURES, count))
        for where, words in (("forked", ()), ("Dask", ("--scheduler", f"local:{WORKERS}"))):
            out = plan.folder / "scaling_out"
            shutil.rmtree(out, ignore_errors=True)
            command = [sys.executable, "bias_pipeline/run_pipeline.py", "--basepath", frames]
            command += ["--output-dir", out, "--plots", "none", "--quiet", "--jobs", WORKERS, *words]
            found = run_process(command, plan.environment)
            run = json.loads((out / "run.json").read_text(encoding="utf-8"))["runs"][-1]
            steps = {step["name"]: step["seconds"] for step in run["steps"]}
            n = count * len(TEMPERATURES)
            masters = steps["select_frames"] + steps["make_masters"]
            rest = sum(steps.values()) - masters
            record = (out / "run.json").stat().st_size / 1e6
            row = [where, n, found.seconds, masters, 1e3 * masters / n, rest, megabytes(found.peak), record]
            rows.append(row)
        shutil.rmtree(frames)
    notes = [
        f"`bias_pipeline/run_pipeline.py`, {len(TEMPERATURES)} temperatures, frames of {side} × {side}, {WORKERS} processes"
        " either way. Frames: scan, screen and masters, which is what grows; the rest is per pixel and per temperature."
        " Peak: largest single process."
    ]
    columns = (
        *("on", "frames", "seconds", "of these frames [s]", "ms a frame", "the rest [s]"),
        *("peak MB", "run.json MB"),
    )
    return Section("A run against the number of its frames", columns, rows, notes)


SECTIONS = {"units": units, "scaling": scaling}
