"""The section of `make bench` on the degradation analysis: time a flat and memory against the number of flats."""

import json
import sys

from benchmarks.table import Section, megabytes
from benchmarks.timing import run_process, worker


def damage(plan):
    """Whole run over few and many flats: the peak must not grow with their number."""
    counts = (12, 24) if plan.quick else (40, 160)
    rows = []
    for count in counts:
        frames = plan.folder / f"visits_{plan.side}_{count}"
        run_process(worker("frames", "visits", frames, plan.side, count))
        out = plan.folder / "damage_out"
        command = [
            *(sys.executable, "dark_pipeline/steps/outgasing_destruction_analysis.py", frames, "--calibrate"),
            *("--output_dir", out, "--no-norm-files", "--quiet", "--overwrite"),
        ]
        found = run_process(command, plan.environment)
        steps = {
            step["name"]: step["seconds"]
            for step in json.loads((out / "run.json").read_text(encoding="utf-8"))["runs"][-1]["steps"]
        }
        each = (steps["levels"] + steps["epochs"] + steps["outliers"]) / count
        row = [
            count,
            found.seconds,
            each,
            *(steps[name] for name in ("levels", "epochs", "outliers", "report")),
        ]
        rows.append([*row, megabytes(found.peak)])
    notes = [
        f"Flats of {plan.side} × {plan.side} in ten visits, bias subtracted, pictures drawn, `--no-norm-files`; every flat"
        " is read once for its level, once for the epochs and once for its outliers."
    ]
    columns = ("flats", "seconds", "seconds a flat", "levels", "epochs", "outliers", "report", "peak MB")
    return Section("Degradation analysis", columns, rows, notes)


SECTIONS = {"damage": damage}
