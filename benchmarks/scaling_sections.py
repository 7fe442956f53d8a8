"""The sections of `make bench` on Dask: what a unit costs, and a run against the number of its frames."""

import json
import shutil

from benchmarks.table import Section, megabytes
from benchmarks.timing import answer, run_process, worker

WORKERS = 2
TEMPERATURES = (-10, 0, 10, 20)
PROGRAMS = {
    "bias": ("bias_pipeline/run_pipeline.py",),
    "flat": ("flat_pipeline/run_pipeline.py", "--no-dark"),
}
"""Kind of frames: the pipeline, with what it needs to do without others."""


def units(plan):
    """Cost of units of no work, and of those that carry 4 MB."""
    count = 100 if plan.quick else 1000
    found = json.loads(run_process(worker("scheduler_units", WORKERS, count), plan.environment).output)
    rows = [["start of the workers and connection, once a run", 1e3 * found["connect"], None]]
    for what, key in (("empty unit", "empty"), ("sent 4 MB", "out"), ("gives 4 MB back", "back")):
        rows.append([what, *(1e3 * value for value in found[key])])
    notes = [
        f"`--scheduler local:{WORKERS}`, {count} empty units and {max(8, count // 10)} of each other kind, one after the"
        " other through one scheduler, which runs in the process of the command: CPU is of both."
    ]
    return Section("What a unit costs on a Dask cluster", ("what", "ms", "CPU ms"), rows, notes)


def scaling(plan):
    """Runs over few and many frames, with forked processes and on a cluster of this machine."""
    side, counts = (64, (10, 20)) if plan.quick else (512, (25, 100, 600))
    rows = []
    for kind, program in PROGRAMS.items():
        for count in counts:
            folder = plan.folder / "scaling_frames"
            # Four groups of frames.
            more = ("V", *(",".join(map(str, TEMPERATURES)), "2")) if kind == "flat" else ()
            groups = (count, *more) if more else [f"{t}={count}" for t in TEMPERATURES]
            run_process(worker("frames", kind, folder, side, *groups))
            for words in ((), ("--scheduler", f"local:{WORKERS}")):
                rows.append([kind, *_measured(plan, program, folder, count * len(TEMPERATURES), words)])
            shutil.rmtree(folder)
    notes = [
        f"{len(TEMPERATURES)} groups of frames of {side} × {side}, {WORKERS} processes either way. CPU: of the command"
        " itself (with Dask its scheduler too) and of its workers; seconds hang on what else the machine does. Peak: of the"
        " command."
    ]
    columns = (
        "frames",
        "on",
        "number",
        "seconds",
        "CPU command [s]",
        "CPU workers [s]",
        "peak MB",
        "run.json MB",
    )
    return Section("Runs against the number of their frames", columns, rows, notes)


def _measured(plan, program, frames, number, words):
    """Cells of one run."""
    out = plan.folder / "scaling_out"
    shutil.rmtree(out, ignore_errors=True)
    command = worker("client_share", program[0], "--basepath", frames, "--output-dir", out, *program[1:])
    command += ["--plots", "none", "--quiet", "--jobs", str(WORKERS), *words]
    found = run_process(command, plan.environment)
    used = answer(found)
    record = (out / "run.json").stat().st_size / 1e6
    where = "Dask" if words else "forked"
    return where, number, found.seconds, used["own"], used["others"], megabytes(used["peak"]), record


SECTIONS = {"units": units, "scaling": scaling}
