"""The sections of `make bench` on the dark pipeline: the fit of all pixels, the whole run."""

import json
import sys

from benchmarks.table import Section, megabytes
from benchmarks.timing import alternate, answer, run_process, worker

TEMPERATURES, EXPOSURES = "-10,-5,0,5,10", "5,15,60,180"
WANTED_FIT, WANTED_READS = 8.0, 10.0


def dark_fit(plan):
    """2-D fit of all pixels over 30 maps, beside scipy pixel by pixel."""
    side, pixels = plan.side, 200 if plan.quick else 1000
    ours = run_process(worker("dark_fit", "ours", side, plan.repeats))
    peer = run_process(worker("dark_fit", "scipy", side, pixels))
    mine, found = answer(ours), answer(peer)
    seconds = mine["seconds"]
    whole = found["seconds"] / pixels * side**2
    rows = [
        ["ours, with covariance, bias nuisances and support", seconds, WANTED_FIT, megabytes(ours.peak), 1.0],
        [f"scipy curve_fit, {pixels} pixels extrapolated", whole, None, None, whole / seconds],
    ]
    notes = [
        f"{side} × {side} pixels, 30 maps (6 temperatures × 5 exposures), the fit itself in process on all cores; memory"
        f" with the maps ({30 * side**2 * 4 / 1e6:.0f} MB). scipy fits A, B, gamma with analytic weights and neither bias"
        f" error nor support. Ours used {mine['cpu']:.2f} s of the processors. scipy: of {pixels} pixels"
        f" {found['failed']} were given up."
    ]
    columns = ("what", "seconds", "wanted at most", "peak MB", "time / ours")
    return Section("Dark model, fit of all pixels", columns, rows, notes)


def dark_run(plan):
    """Whole run of the dark pipeline against the read of its frames."""
    count = 3 if plan.quick else 10
    frames = plan.folder / f"dark_{plan.side}_{count}"
    if not frames.exists():
        run_process(worker("frames", "dark", frames, plan.side, count, TEMPERATURES, EXPOSURES))
    bias = plan.folder / "dark_bias"
    words = ("--mode", "full", "--quiet", "--overwrite")
    bias_words = ("--basepath", frames / "bias", "--output-dir", bias, "--plots", "none")
    run_process([sys.executable, "bias_pipeline/run_pipeline.py", *words, *bias_words], plan.environment)
    out = plan.folder / "dark_out"
    dark_words = ("--basepath", frames / "dark", "--output_dir", out, "--bias-model", bias / "bias_model")
    commands = {
        "read of the frames": worker("peers", "read", frames / "dark", plan.folder / "none"),
        "whole run": [
            *(sys.executable, "dark_pipeline/run_pipeline.py", *words, *dark_words),
            *("--memory-limit", "2GB"),
        ],
    }
    found = alternate(commands, 1 if plan.quick else 3, environment=plan.environment)
    read = found["read of the frames"]
    steps = json.loads((out / "run.json").read_text(encoding="utf-8"))["runs"][-1]["steps"]
    rows = [
        [name, run.seconds, megabytes(run.peak), run.seconds / read.seconds] for name, run in found.items()
    ]
    rows += [
        [f"step {step['name']}", step["seconds"], None, step["seconds"] / read.seconds] for step in steps
    ]
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    size = 20 * count * plan.side**2 * 2
    notes = [
        f"5 temperatures × 4 exposures × {count} frames of {plan.side} × {plan.side} ({size / 1e9:.2f} GB), bias from a"
        f" model, `--memory-limit 2GB`, pictures drawn; {written / 1e9:.2f} GB of products with checksums are"
        f" written. Wanted: at most {WANTED_READS:g} × the read; page cache warm."
    ]
    return Section("Dark pipeline, whole run", ("what", "seconds", "peak MB", "time / read"), rows, notes)


SECTIONS = {"dark_fit": dark_fit, "dark_run": dark_run}
