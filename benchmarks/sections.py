"""The sections of `make bench`: each measures, and returns a `benchmarks.table.Section`."""

import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Section, megabytes, siril_version
from benchmarks.timing import alternate, answer, median_run, run_process, worker

RULES = {
    "ours sigclip": "median ± 4 max(1.4826 MAD, noise of the set), one pass",
    "ours median": "none (exact median)",
    "ours mean": "none",
    "Siril sigclip": "median ± 4 std, until none is rejected",
    "Siril median": "none",
    "Siril mean": "none",
    "ccdproc-sigclip": "median ± 4 mad_std, until none is rejected",
    "ccdproc-median": "none",
    "ccdproc-mean": "none",
    "astropy-sigclip": "median ± 4 std, one pass",
    "numpy-mean": "none",
    "numpy-median-uint16": "none",
    "numpy-median-float32": "none",
    "dask-median": "none",
    "read": "",
}
METHOD_OF = {"sigclip": "sigclip", "median": "median", "mean": "mean"}


@dataclass
class Plan:
    """What to measure.  folder : temporary.  side : of a square frame.  repeats : runs that count.  quick : bool."""

    folder: Path
    side: int = 2048
    frames: int = 40
    repeats: int = 5
    quick: bool = False

    @property
    def environment(self):
        """Headers and compiled modules are remembered in the temporary folder, not in the user's cache."""
        return {
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTHONPYCACHEPREFIX": str(self.folder / "compiled"),
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def bias_frames(self, side=None, groups=None):
        """Folder with simulated bias frames of ``groups`` {T: n}, made once."""
        side, groups = side or self.side, groups or {0: self.frames}
        words = [f"{t}={n}" for t, n in groups.items()]
        folder = self.folder / f"bias_{side}_{'_'.join(words)}"
        if not folder.exists():
            run_process(worker("frames", "bias", folder, side, *words))
        return folder


def pipeline(plan, basepath, output, *options, mode="make_master"):
    """Command of the bias pipeline."""
    program = ["bias_pipeline/run_pipeline.py", "--mode", mode, "--quiet"]
    return [sys.executable, *program, "--basepath", basepath, "--output-dir", output, *options]


def scratch(plan, *names):
    """Remove files and folders of the temporary folder, before a run and not timed."""
    for name in names:
        path = plan.folder / name
        shutil.rmtree(path, ignore_errors=True)
        with suppress(FileNotFoundError, IsADirectoryError):
            path.unlink()


def siril_commands(plan, frames):
    """Commands that stack the frames with Siril, as they are: its conversion has nothing to do."""
    folder = plan.folder / "siril"
    folder.mkdir(exist_ok=True)
    for path in frames.glob("*.fits"):
        with suppress(FileExistsError):
            (folder / path.name).symlink_to(path)
    commands = {}
    for name, how in {"mean": "mean none none", "median": "med", "sigclip": "rej sigma 4 4"}.items():
        script = folder / f"{name}.ssf"
        script.write_text(
            f"requires 1.0.0\nsetext fits\nset16bits\nstack bias_ {how} -nonorm -out=result_{name}\n"
        )
        commands[f"Siril {name}"] = ["siril-cli", "-d", folder, "-s", script]
    return commands


def combine(plan):
    """Whole processes that combine the same frames, in turn."""
    frames = plan.bias_frames() / "T0"
    # Whole commands of seconds in turn with ours; those of tens of seconds once a few turns.
    commands = {
        f"ours {method}": pipeline(plan, frames, plan.folder / "out", "--combine", method, "--plots", "none")
        for method in ("mean", "median", "sigclip")
    }
    if siril_version():
        commands |= siril_commands(plan, frames)
    commands |= {
        way: worker("peers", way, frames, plan.folder / "peer.fits") for way in ("read", "numpy-mean")
    }
    commands |= {
        way: worker("peers", way, frames, plan.folder / "peer.fits")
        for way in ("numpy-median-uint16", "numpy-median-float32", *_installed("dask", "dask-median"))
    }
    slow = {
        way: worker("peers", way, frames, plan.folder / "peer.fits")
        for way in (
            "astropy-sigclip",
            *_installed("ccdproc", "ccdproc-mean", "ccdproc-median", "ccdproc-sigclip"),
        )
    }

    def prepare(_):
        scratch(plan, "out", "peer.fits")

    found = alternate(commands, plan.repeats, prepare, plan.environment)
    found |= alternate(slow, 1 if plan.quick else max(1, plan.repeats // 2), prepare, plan.environment)
    rows = []
    for method in ("mean", "median", "sigclip"):
        ours = found[f"ours {method}"]
        for name, run in found.items():
            if METHOD_OF[method] in name:
                ratio = run.seconds / ours.seconds
                versus_read = run.seconds / found["read"].seconds
                label = name if name.startswith(("ours", "Siril")) else name.replace("-", " ")
                rows.append([label, RULES[name], run.seconds, megabytes(run.peak), ratio, versus_read])
    read = found["read"]
    rows.append(["read of the same bytes, threaded", "", read.seconds, megabytes(read.peak), None, 1.0])
    size = plan.frames * plan.side**2 * 2 / 1e6
    notes = [
        f"{plan.frames} frames of {plan.side} × {plan.side} uint16 with BZERO ({size:.0f} MB), page cache warm, whole"
        " processes in turn, medians. Ours writes the master with error, mask, quality, inputs and checksums, the"
        " read noise maps, run.json and the report; the peers write one image. Siril stacks the files as they are,"
        " without conversion and normalisation.",
    ]
    if not siril_version():
        notes.append("Siril is not installed here.")
    columns = ("method", "clipping rule", "seconds", "peak MB", "time / ours", "time / read")
    return Section("Combine one group, whole commands", columns, rows, notes)


def _installed(package, *ways):
    from importlib.util import find_spec

    return ways if find_spec(package) else ()


def engine(plan):
    """Stack engine inside one process against the read of the same bytes."""
    frames = plan.bias_frames() / "T0"
    found = answer(run_process(worker("in_process", "engine", frames, plan.repeats)))
    goals = {"mean": 5, "median": 5, "sigclip": 10}
    rows = []
    for name, seconds in found.items():
        goal = goals.get(name.split(",")[0])
        goal = None if goal is None else goal * (2 if "," in name else 1)
        small = seconds / found["read into a small buffer"]
        rows.append([name, seconds, seconds / found["read"], goal, small])
    notes = [
        "From open files to value, variance, count and flags; headers known, cache warm. Read: the same bytes by as"
        " many threads, into one array that holds all; into a small buffer they never leave the processor's cache."
    ]
    columns = ("what", "seconds", "time / read", "wanted at most", "time / read into a small buffer")
    return Section("Stack engine in process", columns, rows, notes)


def frames(plan):
    """Time and memory against the number of frames."""
    side = 256 if plan.quick else 1024
    rows = []
    # Copies and no links: a file that is met under two names is counted once.
    for count in (10, 40, 200, 1000):
        folder = plan.bias_frames(side, {0: count})
        command = {"ours": pipeline(plan, folder, plan.folder / "out", "--plots", "none")}
        run = alternate(command, 2, lambda _: scratch(plan, "out"), plan.environment)["ours"]
        rows.append([count, run.seconds, 1e3 * run.seconds / count, megabytes(run.peak)])
        if count > 100:
            shutil.rmtree(folder)
    columns = ("frames", "seconds", "ms a frame", "peak MB")
    notes = [f"`--mode make_master --plots none`, clipped mean, frames of {side} × {side} in one group."]
    return Section("Number of frames", columns, rows, notes)


def pixels(plan):
    """Time and memory against the size of a frame."""
    rows = []
    for side in (256, 512, 1024) if plan.quick else (512, 1024, 2048, 4096):
        folder = plan.bias_frames(side, {0: 10})
        command = {"ours": pipeline(plan, folder, plan.folder / "out", "--plots", "none")}
        run = alternate(command, 2, lambda _: scratch(plan, "out"), plan.environment)["ours"]
        rows.append(
            [f"{side} × {side}", run.seconds, 1e9 * run.seconds / (10 * side**2), megabytes(run.peak)]
        )
        if side > 2048:
            shutil.rmtree(folder)
    columns = ("pixels", "seconds", "ns a sample", "peak MB")
    notes = ["`--mode make_master --plots none`, clipped mean of 10 frames."]
    return Section("Size of a frame", columns, rows, notes)


def full(plan):
    """Whole run at five temperatures, and where the time goes."""
    folder = plan.bias_frames(groups=dict.fromkeys((-20, -10, 0, 10, 20), 20))
    found = {plots: [] for plots in ("summary", "none")}
    steps = {plots: {} for plots in found}
    for turn in range(plan.repeats + 1):
        for plots, runs in found.items():
            scratch(plan, "out")
            command = pipeline(plan, folder, plan.folder / "out", "--plots", plots, mode="full")
            run = run_process(command, plan.environment)
            if not turn:
                continue
            runs.append(run)
            journal = json.loads((plan.folder / "out" / "run.json").read_text(encoding="utf-8"))
            for step in journal["runs"][-1]["steps"]:
                steps[plots].setdefault(step["name"], []).append(step["seconds"])
    rows = []
    for name in steps["summary"]:
        rows.append([name, *(sorted(steps[plots][name])[plan.repeats // 2] for plots in found), None, None])
    middle = {plots: median_run(runs) for plots, runs in found.items()}
    rows.append(
        [
            "whole command",
            *(run.seconds for run in middle.values()),
            *(megabytes(r.peak) for r in middle.values()),
        ]
    )
    shutil.rmtree(folder)
    columns = ("step", "--plots summary [s]", "--plots none [s]", "peak MB (summary)", "peak MB (none)")
    notes = [
        f"`--mode full`, 5 temperatures × 20 frames of {plan.side} × {plan.side}. What is missing between the steps"
        " and the whole is the start of Python and its packages. Wanted: the whole in 5 s, pictures a third of it."
    ]
    return Section("Whole run", columns, rows, notes)


def convert(plan):
    """raw_to_fits against cp of the same bytes, on one core."""
    raw = plan.folder / "raw"
    run_process(worker("frames", "raw", raw, plan.side, plan.frames))
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    pin = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
    attempt = raw / "T0" / "attempt1"
    commands = {
        "cp": [*pin, "cp", "-r", attempt / "frames", plan.folder / "copy"],
        "raw_to_fits": [
            *pin,
            *(sys.executable, "-m", "utils.raw_to_fits", raw, raw, raw),
            *("--skip-dark", "--skip-flat", "--overwrite", "--quiet", "--jobs", "1"),
        ],
        "start": [*pin, sys.executable, "-m", "utils.raw_to_fits", "--help"],
    }

    def prepare(_):
        scratch(plan, "copy")
        shutil.rmtree(attempt / "fits", ignore_errors=True)

    found = alternate(commands, plan.repeats, prepare, plan.environment)
    size = plan.frames * plan.side**2 * 2
    cp, ours, start = (found[name] for name in commands)
    rows = [
        ["cp -r", cp.seconds, size / cp.seconds / 1e6, 1.0],
        ["raw_to_fits --jobs 1", ours.seconds, size / ours.seconds / 1e6, cp.seconds / ours.seconds],
        [
            "the same without the start of Python",
            ours.seconds - start.seconds,
            size / (ours.seconds - start.seconds) / 1e6,
            cp.seconds / (ours.seconds - start.seconds),
        ],
    ]
    shutil.rmtree(raw)
    scratch(plan, "copy")
    notes = [
        f"{plan.frames} raw frames of {plan.side} × {plan.side} uint16 ({size / 1e6:.0f} MB), both on one core, into"
        f" {'the same folder' if pin else 'the same folder, cores not fixed'}. The files get checksums."
    ]
    return Section("Raw files to FITS", ("what", "seconds", "MB/s", "speed / cp"), rows, notes)


def headers(plan):
    """Header scan of many small files."""
    rows = []
    for count in (200, 1000) if plan.quick else (1000, 10000):
        folder = plan.folder / f"headers_{count}"
        run_process(worker("frames", "headers", folder, count))
        found = answer(run_process(worker("in_process", "scan", folder, plan.repeats if count < 5000 else 3)))
        number = found.pop("files")
        for name, seconds in found.items():
            rows.append([number, name, seconds, 1e6 * seconds / number, seconds / found["astropy getheader"]])
        shutil.rmtree(folder)
    columns = ("files", "what", "seconds", "µs a file", "time / astropy")
    notes = [
        "Headers of 40 cards, in process. Cold: without the headers remembered from earlier runs, files in the page"
        " cache. Cached: nothing has changed, no FITS file is opened."
    ]
    return Section("Header scan", columns, rows, notes)


def start(plan):
    """Commands that have little to do."""
    folder = plan.bias_frames(256, {0: 5, 10: 5})
    commands = {
        "run_pipeline.py --help": [sys.executable, "bias_pipeline/run_pipeline.py", "--help"],
        "raw_to_fits --help": [sys.executable, "-m", "utils.raw_to_fits", "--help"],
        "ten frames of 256 × 256, --mode full": pipeline(plan, folder, plan.folder / "out", mode="full"),
        "the same, --plots none": pipeline(plan, folder, plan.folder / "out", "--plots", "none", mode="full"),
    }
    found = alternate(commands, plan.repeats, lambda _: scratch(plan, "out"), plan.environment)
    goals = (0.3, 0.3, 2.5, None)
    rows = [
        [name, run.seconds, goal, megabytes(run.peak)]
        for (name, run), goal in zip(found.items(), goals, strict=True)
    ]
    return Section("Start", ("command", "seconds", "wanted at most", "peak MB"), rows)


def line(plan):
    """Straight line for every pixel."""
    count = 12
    ours = run_process(worker("in_process", "line", plan.side, count, plan.repeats))
    peer = run_process(worker("in_process", "lstsq", plan.side, count))
    seconds = answer(ours)["seconds"], answer(peer)["seconds"]
    rows = [
        ["fit_line, with covariance and chi2", seconds[0], megabytes(ours.peak), 1.0],
        ["np.linalg.lstsq, unweighted", seconds[1], megabytes(peer.peak), seconds[1] / seconds[0]],
    ]
    notes = [
        f"{plan.side} × {plan.side} pixels at {count} temperatures, one core for ours; memory with the data"
        f" ({count * plan.side**2 * 4 / 1e6:.0f} MB)."
    ]
    return Section("Line per pixel, in process", ("what", "seconds", "peak MB", "time / ours"), rows, notes)


SECTIONS = {
    "combine": combine,
    "engine": engine,
    "frames": frames,
    "pixels": pixels,
    "full": full,
    "convert": convert,
    "headers": headers,
    "start": start,
    "line": line,
}
