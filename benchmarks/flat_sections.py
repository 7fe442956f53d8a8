"""The section of `make bench` on the flat pipeline: a whole run of many groups, and one group beside ccdproc.

python -m benchmarks.flat_sections FOLDER OUTPUT   ccdproc on the bias/, dark/ and flat/ frames of FOLDER
"""

import json
import os
import sys
from pathlib import Path

from benchmarks.table import Section, megabytes
from benchmarks.timing import alternate, run_process, worker

FILTERS, TEMPERATURES, EXPOSURES = "R,G,B", "-10,0,10", "0.5,1,2"
DARK_EXPOSURE, DARKS = "2", 5
GROUP = "00"
"""Number of the group that ccdproc combines: the first temperature and exposure of the first filter."""
WANTED_READS = 8.0


def flat_run(plan):
    """Whole run of the flat pipeline against the read of its frames, and against ccdproc on one of its groups."""
    count = 4 if plan.quick else 20
    frames = plan.folder / f"flat_{plan.side}_{count}"
    if not frames.exists():
        makers = ("dark", frames, plan.side, DARKS, TEMPERATURES, DARK_EXPOSURE)
        run_process(worker("frames", *makers))
        makers = ("flat", frames / "flat", plan.side, count, FILTERS, TEMPERATURES, EXPOSURES)
        run_process(worker("frames", *makers))
    part = _one_group(frames, plan.folder / "flat_part")
    out, part_out = plan.folder / "flat_out", plan.folder / "flat_part_out"
    words = [
        sys.executable,
        "flat_pipeline/run_pipeline.py",
        "--quiet",
        "--overwrite",
        "--memory-limit",
        "2GB",
    ]
    commands = {
        "read of all frames": worker("flat_sections", "read", frames),
        "whole run": [*words, "--mode", "full", "--basepath", frames, "--output-dir", out],
        "read of one group": worker("flat_sections", "read", part),
        "one group, make_master": [
            *(
                *words,
                "--mode",
                "make_master",
                "--plots",
                "none",
                "--basepath",
                part,
                "--output-dir",
                part_out,
            ),
        ],
        "one group, ccdproc": worker("flat_sections", "ccdproc", part, plan.folder / "peer.fits"),
    }
    found = alternate(commands, 1 if plan.quick else 2, environment=plan.environment)
    number = {name: 27 * count if name in ("read of all frames", "whole run") else count for name in found}
    mine = found["one group, make_master"].seconds
    rows = []
    for name, run in found.items():
        read = found["read of all frames" if number[name] > count else "read of one group"]
        rows.append(
            [
                *(name, run.seconds, run.cpu, megabytes(run.peak)),
                *(run.seconds / read.seconds, run.cpu / read.cpu, 1e3 * run.seconds / number[name]),
                run.seconds / mine if number[name] == count else None,
            ]
        )
    read = found["read of all frames"]
    for step in json.loads((out / "run.json").read_text(encoding="utf-8"))["runs"][-1]["steps"]:
        seconds = step["seconds"]
        rows.append([f"step {step['name']}", seconds, None, None, seconds / read.seconds, None, None, None])
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    size = 27 * count * plan.side**2 * 2
    notes = [
        f"3 filters × 3 temperatures × 3 exposures × {count} flats of {plan.side} × {plan.side} ({size / 1e9:.2f} GB) with"
        f" {DARKS} bias and {DARKS} dark frames a temperature, `--memory-limit 2GB`, pictures drawn;"
        f" {written / 1e9:.2f} GB of products with checksums are written. Wanted: at most {WANTED_READS:g} × the read; page"
        " cache warm. One group with its bias and dark frames: ccdproc combines bias and dark, subtracts them from every"
        " flat, divides by the median and takes the clipped mean (4 mad_std, until none is rejected), one image; ours has"
        " error, mask, quality, inputs and checksums, and screens every frame."
    ]
    columns = (
        *("what", "seconds", "processor seconds", "peak MB", "time / read", "processor / read", "ms a flat"),
        "time / ours",
    )
    return Section("Flat pipeline, whole run", columns, rows, notes)


def _one_group(frames, part):
    """Folder ``part`` with one group of the flats, and the bias and dark frames of its temperature, as hard links."""
    if not part.exists():
        first = FILTERS.split(",")[0]
        darks = len(TEMPERATURES.split(","))
        for source in (
            *frames.glob(f"flat/{first}/flat_{GROUP}_*.fits"),
            *frames.glob("bias/bias_00_*.fits"),
            *frames.glob(f"dark/dark_{darks:02d}_*.fits"),
        ):
            target = part / source.relative_to(frames).parts[0] / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
    return part


def read(folder):
    """Read the bytes of all frames below a folder."""
    from benchmarks import peers

    peers.read(sorted(str(path) for path in Path(folder).rglob("*.fits")), None)


def ccdproc(folder, output):
    """Master flat of one group as the documentation of ccdproc shows it."""
    import ccdproc
    import numpy as np
    from astropy import units
    from astropy.nddata import CCDData
    from astropy.stats import mad_std

    clipping = {
        "method": "average",
        "sigma_clip": True,
        "sigma_clip_low_thresh": 4.0,
        "sigma_clip_high_thresh": 4.0,
        "sigma_clip_func": np.ma.median,
        "sigma_clip_dev_func": mad_std,
        "dtype": "float32",
    }

    def of_kind(kind):
        return [CCDData.read(path, unit="adu") for path in sorted((Path(folder) / kind).glob("*.fits"))]

    bias = ccdproc.combine(of_kind("bias"), **clipping)
    darks = [ccdproc.subtract_bias(one, bias) for one in of_kind("dark")]
    exposure = {"exposure_time": "EXPTIME", "exposure_unit": units.s}
    dark = ccdproc.combine(darks, **clipping)
    dark.header["EXPTIME"] = darks[0].header["EXPTIME"]
    del darks
    flats = [
        ccdproc.subtract_dark(ccdproc.subtract_bias(one, bias), dark, scale=True, **exposure)
        for one in of_kind("flat")
    ]
    master = ccdproc.combine(flats, scale=lambda frame: 1.0 / np.ma.median(frame), **clipping)
    master.write(output, overwrite=True)


SECTIONS = {"flat_run": flat_run}

if __name__ == "__main__":
    {"read": read, "ccdproc": ccdproc}[sys.argv[1]](*sys.argv[2:])
