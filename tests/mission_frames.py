"""What the tests of the degradation analysis share: missions as the accuracy runs have them, runs in this process."""

from benchmarks.missions import DAYS, mission
from dark_pipeline.steps.outgasing_destruction_analysis import main
from utils.application.command import run_command

__all__ = ["DAYS", "SHAPE", "mission", "pixels", "run"]
SHAPE = (72, 96)


def run(folder, out, *words, plots="none"):
    """Run the analysis in this process; returns its exit status."""
    given = [
        str(folder),
        "--output_dir",
        str(out),
        "--plots",
        plots,
        "--quiet",
        *(str(word) for word in words),
    ]
    return run_command(main, given)


def pixels(rows, *labels):
    """Pixels with one of the labels, or all: set of (row, column)."""
    return {
        (int(row["row"]), int(row["column"])) for row in rows if not labels or row["classification"] in labels
    }
