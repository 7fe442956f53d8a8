"""The sections of `make bench` on the use of products: calibrated frames, analyses of a campaign."""

import json
import shutil
import sys

from benchmarks.table import Section, megabytes
from benchmarks.timing import alternate, run_process, worker

FRAMES = 8
WANTED = 3.0


def calibrate(plan):
    """Calibrate frames, beside ccdproc on the same ones."""
    folder = plan.folder / "science"
    if not folder.exists():
        run_process(worker("science_frames", "make", folder, plan.side, FRAMES))
    ours = [sys.executable, "-m", "utils.calibrate", folder / "science", "--quiet", "--plots", "none"]
    ours += ["--bias-model", folder / "bias_model", "--dark-model", folder / "dark_model_2d"]
    ours += ["--flat", folder / "flat.fits", "--output-dir", folder / "out"]
    commands = {"ours": ours, "ccdproc ccd_process": worker("science_frames", "ccdproc", folder)}
    found = alternate(
        commands,
        1 if plan.quick else max(2, plan.repeats // 2),
        lambda _: shutil.rmtree(folder / "out", ignore_errors=True),
        plan.environment,
    )
    mine = found["ours"].seconds
    rows = [[name, run.seconds, megabytes(run.peak), run.seconds / mine] for name, run in found.items()]
    notes = [
        f"{FRAMES} frames of {plan.side} × {plan.side}, whole processes in turn, frames written with their errors. Ours"
        " evaluates the bias and dark models at the temperature of each frame with their errors and writes quality bits,"
        " the inputs and checksums; ccdproc subtracts one bias and one scaled dark. Wanted: ccdproc takes at least"
        f" {WANTED:g} × as long."
    ]
    columns = ("what", "seconds", "peak MB", "time / ours")
    return Section("Calibrate frames, whole commands", columns, rows, notes)


def analyses(plan):
    """Both analyses of a campaign of one sensor that changes, for two numbers of flats."""
    rows = []
    sizes = ((4, 96),) if plan.quick else ((4, 512), (8, 512), (4, 1024))
    for count, side in sizes:
        folder = plan.folder / f"epochs_{count}_{side}"
        words = ["--plan", "epochs", "--size", side, side, "--frames", count]
        run_process([sys.executable, "-m", "utils.simulate_campaign", folder, *words])
        sections = [folder / name for name in ("Bias", "Darks", "Flats")]
        run_process([sys.executable, "-m", "utils.raw_to_fits", *sections])
        commands = {
            "structure analysis": ["structure_analysis.py", folder, "--reduce", "--output-dir", folder / "s"],
            "degradation analysis": [
                *("dark_pipeline/steps/outgasing_destruction_analysis.py", folder, "--calibrate"),
                *("--output_dir", folder / "o"),
            ],
        }
        commands = {name: [sys.executable, *command, "--quiet"] for name, command in commands.items()}
        found = alternate(commands, 1, environment=plan.environment)
        for name, run in found.items():
            output = folder / ("s" if name.startswith("structure") else "o")
            flats = _flats(output)
            pixels = flats * side**2 / 1e6
            rows.append([name, flats, side, run.seconds, 1e3 * run.seconds / pixels, megabytes(run.peak)])
        shutil.rmtree(folder)
    notes = [
        "Campaign `--plan epochs` of the simulator: six dates, two filters; bias and dark maps made from the frames."
    ]
    columns = ("what", "flats", "side [pixel]", "seconds", "ms per megapixel", "peak MB")
    return Section("Analyses of a campaign, whole commands", columns, rows, notes)


def _flats(output):
    """Number of flats that went in."""
    runs = json.loads((output / "run.json").read_text(encoding="utf-8"))["runs"]
    return sum("flat" in item["path"].lower() for item in runs[-1]["inputs"]["files"])


SECTIONS = {"calibrate": calibrate, "analyses": analyses}
