"""Accuracy of the flat pipeline against the truth of simulated cameras: tables and figures of docs/validation.md.

python -m benchmarks.validate_flat            all of it, into docs/
python -m benchmarks.validate_flat --quick    one seed and size, tables printed, nothing written
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from functools import partial

import numpy as np

from benchmarks import flat_figures, real_flats, simulated_flats
from benchmarks.simulated_flats import SEEDS, SHAPES, Sky
from benchmarks.table import Section, machine
from benchmarks.validate_bias import DOCUMENT, IMAGES, REAL, body, put

BITS = {"12left": "12 bit", "16": "16 bit"}
NIGHTS = {
    "usual": Sky(),
    "other stars each frame": Sky(one_field=False),
    "five frames": Sky(frames=5),
    "gradient 10 %, turns": Sky(gradient=0.1),
    "corners at 0.45": Sky(vignetting=-0.5),
    "seeing 6 pixels": Sky(fwhm=6.0),
    "stars 10 × brighter": Sky(bright=10.0),
    "four times the stars": Sky(stars=1200),
    "dither of 10 pixels": Sky(dither=10.0),
    "dither of 5 pixels": Sky(dither=5.0),
}
SKY_SEEDS = tuple(range(1, 11))
HARD_SEEDS = SEEDS[:2]
ST7_LIMIT = 38073.0
"""Saturation that the pipeline finds in the flats of the ST-7XE [ADU]."""


def span(values, digits=3):
    """Smallest and largest of some numbers, one where they are the same."""
    ends = [f"{end:.{digits}f}" for end in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


def tasks_of(seeds, sky_seeds, hard_seeds):
    """{(part, converter, shape, seed[, night]): function}; sizes take turns with the seeds."""
    tasks = {}

    def add(name, preset, seed, function, *more):
        own = preset, SHAPES[seed % len(SHAPES)], seed
        nights = [NIGHTS[one] for one in more]
        tasks[name, *own, *more] = partial(function, *own, *nights)

    for preset in BITS:
        for seed in seeds:
            add("lab", preset, seed, simulated_flats.lab_run)
            add("satellite", preset, seed, simulated_flats.satellite_run)
        for seed in sky_seeds:
            add("sky", preset, seed, simulated_flats.sky_run, "usual")
    for seed in hard_seeds:
        for name in NIGHTS:
            if name != "usual":
                add("sky", "16", seed, simulated_flats.sky_run, name)
    add("unconstrained", "12left", seeds[0], simulated_flats.unconstrained_run)
    return tasks


def part(found, name, preset=None, night=None):
    """Results of one part of the runs."""
    return [
        result
        for key, result in found.items()
        if key[0] == name and preset in (None, key[1]) and (night is None or key[4:] == (night,))
    ]


def accuracy(found):
    rows = []
    for preset, bits in BITS.items():
        lab = [one for run in part(found, "lab", preset) for one in run.masters]
        sets = {
            "lab": lab,
            "sky": part(found, "sky", preset, "usual"),
            "satellite": part(found, "satellite", preset),
        }
        for name, runs in sets.items():
            error = [float(one.error.std()) for one in runs]
            pull = [float(one.pull.std()) for one in runs]
            bias = max(abs(float(one.error.mean())) for one in runs)
            rows.append([f"{name}, {bits}", len(runs), span(error), span(pull), f"{bias:.3f}"])
    columns = ("flats", "masters", "scatter / limit", "pull width", "largest mean error / limit")
    return Section("", columns, rows)


def products(found):
    rows = []
    for preset, bits in BITS.items():
        runs = part(found, "lab", preset)
        light = [100 * one for run in runs for one in run.light]
        rms = [float(np.sqrt(np.mean(np.square(one)))) for one in light]
        worst = max(float(np.abs(one).max()) for one in light)
        prnu = [100 * value for run in runs for value, _ in run.prnu]
        counts = {kind: np.sum([run.pixels[kind] for run in runs], axis=0) for kind in ("DEAD", "LOW_QE")}
        shares = [f"{both / true:.4f}, {both / seen:.4f} ({true})" for both, true, seen in counts.values()]
        rows.append(
            [
                bits,
                len(runs),
                f"{max(rms):.4f} %",
                f"{worst:.3f} %",
                f"{span(prnu, 2)} %".replace("-", "−"),
                *shares,
            ]
        )
    columns = (
        *("camera", "runs", "illumination: largest rms error", "anywhere", "PRNU / truth − 1"),
        *("dead: recall, precision (pixels)", "low QE: recall, precision (pixels)"),
    )
    return Section("", columns, rows)


def model(found):
    rows = []
    for preset, bits in BITS.items():
        runs = part(found, "lab", preset)
        cells = []
        for term in "BC":
            width = [float(run.terms[term].std()) for run in runs]
            mean = [float(run.terms[term].mean()) for run in runs]
            cells += [span(width), span(mean).replace("-", "−")]
        rows.append([bits, *cells])
    columns = ("camera", "B: pull width", "B: mean pull", "C: pull width", "C: mean pull")
    zero = part(found, "unconstrained")
    note = "Flats of one temperature and one exposure: B and C are " + (
        "0 and flagged in every pixel." if all(zero) else "NOT 0 and flagged everywhere."
    )
    return Section("", columns, rows, [note])


def nights(found):
    rows = []
    for name in NIGHTS:
        runs = part(found, "sky", "16", name)
        error = [float(one.error.std()) for one in runs]
        pull = [float(one.pull.std()) for one in runs]
        tenths = np.mean([one.tenths for one in runs], axis=0)
        rows.append(
            [
                name,
                len(runs),
                span(error),
                span(pull),
                f"{tenths[0]:+.2f} to {tenths[-1]:+.2f}".replace("-", "−"),
            ]
        )
    columns = (
        *("night, 16 bit", "runs", "scatter / limit", "pull width"),
        "mean error / limit, tenth with least to tenth with most star light",
    )
    return Section("", columns, rows)


def figures(found):
    """Figures by name."""
    pulls = {
        f"{name}, {bits}": [one.pull for one in runs]
        for preset, bits in BITS.items()
        for name, runs in (
            ("lab", [one for run in part(found, "lab", preset) for one in run.masters]),
            ("sky", part(found, "sky", preset, "usual")),
            ("satellite", part(found, "satellite", preset)),
        )
    }
    lines = {"usual, 12 bit": part(found, "sky", "12left", "usual")}
    lines |= {
        f"{name}, 16 bit" if name == "usual" else name: part(found, "sky", "16", name) for name in NIGHTS
    }
    usual = {bits: part(found, "sky", preset, "usual") for preset, bits in BITS.items()}
    return {
        "flat_pulls": flat_figures.pull_histograms(pulls),
        "flat_sky": flat_figures.skies(lines, usual),
    }


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validate_flat", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one seed and size, nothing written")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    where = machine()[1:]
    seeds = (SEEDS[:1],) * 3 if args.quick else (SEEDS, SKY_SEEDS, HARD_SEEDS)
    tasks = tasks_of(*seeds)

    def say(text):
        print(text, file=sys.stderr, flush=True)

    found = simulated_flats.run_all(tasks, say)
    tables = {
        "flat accuracy": accuracy(found),
        "flat products": products(found),
        "flat model": model(found),
        "flat nights": nights(found),
    }
    for name, section in tables.items():
        print(f"\n{name}\n\n{body(section)}")
    if args.quick:
        return 0
    from utils.application.figure_style import png_bytes

    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in tables.items():
        text = put(text, name, body(section))
    made = [f"- Date: {datetime.now(UTC):%Y-%m-%d}", *(f"- {line}" for line in where)]
    text = put(text, "flat made", "\n".join([*made, f"- Duration: {time.perf_counter() - started:.0f} s"]))
    DOCUMENT.write_text(text, encoding="utf-8")
    IMAGES.mkdir(parents=True, exist_ok=True)
    drawn = figures(found)
    if REAL.is_dir():
        drawn["flat_real"] = flat_figures.real_cameras(
            real_flats.plateaus(REAL), ST7_LIMIT, real_flats.field_ratios(REAL)
        )
    for name, figure in drawn.items():
        (IMAGES / f"{name}.png").write_bytes(png_bytes(figure))
    return 0


if __name__ == "__main__":
    sys.exit(main())
