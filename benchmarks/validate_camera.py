"""Numbers of `--mode characterize` and their errors against the truth of simulated cameras: docs/validation.md, Camera.

python -m benchmarks.validate_camera             all of it, into docs/
python -m benchmarks.validate_camera --runs 5    fewer runs of each camera, tables printed, nothing written
"""

import argparse
import math
import sys
import time
from datetime import UTC, datetime

import numpy as np

from benchmarks.simulated_cameras import CAMERAS, RUNS, run_all
from benchmarks.table import Section, machine
from benchmarks.validate_bias import DOCUMENT, IMAGES, body, put
from utils.application.report import measure

WANTED = {"gain": 0.5, "read noise": 1.0, "full well": 2.0, "linearity": 0.1}
"""Largest bias that is asked for [percent]."""


def collect(found):
    """Errors in percent of the truth and pulls: {number: {camera: (errors, pulls)}}; linearity is in percent itself."""
    collected = {}
    for camera, runs in found.items():
        for run in runs:
            for name, (value, error, true) in run.items():
                errors, pulls = collected.setdefault(name, {}).setdefault(camera, ([], []))
                away = np.atleast_1d(np.asarray(value) - true)
                if name == "linearity":
                    errors.append(away)
                elif true != 0:
                    errors.append(100.0 * away / abs(true))
                pulls.append(away / np.atleast_1d(error))
    return {
        name: {camera: tuple(map(np.concatenate, pair)) for camera, pair in own.items()}
        for name, own in collected.items()
    }


def width(pulls):
    """Width of pulls and its error."""
    return float(np.std(pulls)), 1.0 / math.sqrt(2.0 * pulls.size)


def mean_error(values):
    """Mean of values with its error, in words."""
    return measure(float(values.mean()), float(values.std() / math.sqrt(values.size)))


def table(collected, cell):
    """One row a number, one column a camera."""
    rows = [
        [name, *(cell(own[camera]) if camera in own else "" for camera in CAMERAS)]
        for name, own in collected.items()
    ]
    return Section("", ("", *CAMERAS), rows)


def biases(collected):
    """Mean error in percent with its own error."""
    return table(collected, lambda pair: mean_error(pair[0]))


def widths(collected):
    """Width of the pulls."""
    return table(collected, lambda pair: f"{width(pair[1])[0]:.2f}")


def together(collected):
    """All cameras together: bias, mean pull and width of every number."""
    rows = []
    for name, own in collected.items():
        errors = np.concatenate([pair[0] for pair in own.values()])
        pulls = np.concatenate([pair[1] for pair in own.values()])
        spread, known = width(pulls)
        rows.append(
            [
                name,
                errors.size,
                mean_error(errors),
                "" if name not in WANTED else f"{WANTED[name]:g}",
                f"{errors.std():.2g}",
                f"{pulls.mean():+.2f} ± {spread / math.sqrt(pulls.size):.2f}",
                f"{spread:.3f} ± {known:.3f}",
            ]
        )
    columns = (
        "number",
        "values",
        "bias [%]",
        "wanted [%]",
        "scatter of a run [%]",
        "mean pull",
        "width of the pulls",
    )
    return Section("", columns, rows)


def main(argv=None):
    """Run, print and write; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validate_camera", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--runs", type=int, default=None, help="runs of each camera; with it nothing is written"
    )
    args = parser.parse_args(argv)
    started = time.perf_counter()
    where = machine()[1:]
    collected = collect(run_all(args.runs or RUNS, say=lambda text: print(text, file=sys.stderr, flush=True)))
    tables = {
        "camera all": together(collected),
        "camera bias": biases(collected),
        "camera pulls": widths(collected),
    }
    for name, section in tables.items():
        print(f"\n{name}\n\n{body(section)}")
    if args.runs is not None:
        return 0
    from benchmarks.validation_figures import pulls_of_numbers
    from utils.application.figure_style import png_bytes

    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in tables.items():
        text = put(text, name, body(section))
    made = [
        f"- Date: {datetime.now(UTC):%Y-%m-%d}",
        *(f"- {line}" for line in where),
        f"- {RUNS} runs of each camera in {time.perf_counter() - started:.0f} s",
    ]
    DOCUMENT.write_text(put(text, "camera made", "\n".join(made)), encoding="utf-8")
    (IMAGES / "camera_pulls.png").write_bytes(png_bytes(pulls_of_numbers(collected, width)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
