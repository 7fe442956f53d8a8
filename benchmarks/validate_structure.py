"""What the structure analysis finds and does not find on simulated campaigns: tables and figures of docs/validation.md.

python -m benchmarks.validate_structure            all of it, into docs/
python -m benchmarks.validate_structure --quick    two seeds, tables printed, nothing written
"""

import argparse
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from benchmarks import structure_campaigns as campaigns
from benchmarks.structure_campaigns import KINDS, Plan
from benchmarks.table import Section, machine
from benchmarks.validate_bias import DOCUMENT, IMAGES, body, put
from utils.application.figure_style import BLUE, GREY, RED, head, new_figure, place, styled
from utils.domain import flat_changes
from utils.kernels import film
from utils.kernels.detector_history import Film, History

SEEDS = range(1, 21)
LEVELS = ((3, 5, 7, 8, 9, 10), (4, 6, 8, 8, 8, 9), (8, 8, 10, 4, 6, 7))
QUIET = {
    "lamp drifts by 5 %": Plan(),
    "temperature swings by 6 °C": Plan(swing=6.0),
    "two exposures": Plan(exposures=(1.0, 0.5)),
    "lamp drifts by 15 %": Plan(drift=0.15),
    "four times the cosmic hits": Plan(cosmic=2e-4),
}
FILMS = {
    "edge, 3 %": ("edge", 0.03),
    "patches, 3 %": ("patches", 0.03),
    "edge, 0.3 %": ("edge", 0.003),
    "none": ("edge", 0.0),
}


def recall(seeds, say):
    """Inject structures of 3 to 10 sigma; returns rows (sigma, kind, found, error of the first and of the last epoch)."""
    rows, extra, flats = [], 0, 0
    for seed in seeds:
        for number, sigmas in enumerate(LEVELS):
            injected, result = campaigns.run(100 * seed + number, Plan(), sigmas)
            pairs, left = campaigns.match(injected, result.found)
            extra, flats = extra + len(left), flats + result.flats
            for one, found in pairs:
                first = last = np.nan
                if found is not None:
                    first = found.life.first // Plan.frames - one.first
                    last = found.life.last // Plan.frames - (one.after - 1)
                rows.append((one.sigma, one.kind, found is not None, first, last))
        say(f"structure: recall, seed {seed}")
    return rows, extra, flats


def recall_table(rows):
    lines = []
    for sigma in sorted({row[0] for row in rows}):
        mine = [row for row in rows if row[0] == sigma]
        shares = [[row[2] for row in mine if row[1] == kind] for kind in KINDS]
        cells = [f"{np.mean(one):.2f}" if one else "" for one in shares]
        lines.append([sigma, len(mine), f"{np.mean([row[2] for row in mine]):.3f}", *cells])
    strong = [row for row in rows if row[0] >= 8]
    lines.append(["8 to 10", len(strong), f"{np.mean([row[2] for row in strong]):.3f}", *[""] * len(KINDS)])
    return Section("", ("σ of an ideal filter", "injected", "found", *KINDS), lines)


def quiet(seeds, say):
    """Campaigns without changes: regions found and expected, at the default threshold and at one false region each."""
    lines = []
    for name, plan in QUIET.items():
        found = expected = dark = flats = default = allowed = 0
        for seed in seeds:
            seen = []

            def look(made, _, seen=seen):
                limit = made.threshold()
                seen.append((len(flat_changes.find(made, limit)[0]), made.expected_false(limit)))

            _, result = campaigns.run(1000 + seed, plan, expected=1.0, keep=look)
            found, expected, flats = (
                found + len(result.found),
                expected + result.expected,
                flats + result.flats,
            )
            dark += sum(one.region.significance > 0 for one in result.found)
            default, allowed = default + seen[0][0], allowed + seen[0][1]
        lines.append([name, flats, found, f"{expected:.0f}", dark, default, f"{allowed:.2f}"])
        say(f"structure: {name}")
    columns = (
        *("campaigns without changes", "flats", "found at 1 expected each", "expected", "of them darker"),
        *("found by default", "expected by default"),
    )
    return Section("", columns, lines)


def films(seeds, say):
    """Depths of films in cells against the truth, in quoted errors."""
    lines, pulls = [], {}
    for name, (profile, depth) in FILMS.items():
        found, deepest = [], []
        for seed in seeds:
            plan = replace(Plan(), level=1000.0)
            last = (plan.epochs - 1) * plan.days
            changes = [Film((0.0, last), (0.0, depth), profile)] if depth else []
            history = History(plan.shape, changes, seed=seed)

            def look(made, regions, found=found, deepest=deepest, history=history, last=last):
                measured = flat_changes.film_history(made, regions)
                truth = history.at(last).film
                truth = np.zeros(made.shape) if truth is None else truth
                cells, total = film.cell_means(truth.astype(np.float32), made.weight, measured.cell)
                one = measured.maps[-1]
                zero = np.average(cells[one.undisturbed], weights=total[one.undisturbed])
                found.append(
                    ((one.loss - (cells - zero)) / one.sigma)[np.isfinite(one.loss) & (one.sigma > 0)]
                )
                deepest.append((one.beyond_tilt, measured.depth[-1], measured.sigma[-1]))

            campaigns.run(3000 + seed, plan, history=history, keep=look)
        pulls[name] = np.concatenate(found)
        beyond, depth_found, sigma = np.mean(deepest, axis=0)
        values = (pulls[name].mean(), pulls[name].std())
        lines.append(
            [
                name,
                pulls[name].size,
                *(f"{v:.2f}" for v in values),
                f"{100 * depth_found:.3f} ± {100 * sigma:.3f}",
                f"{beyond:.1f}",
            ]
        )
        say(f"structure: film {name}")
    columns = (
        "film",
        "cells",
        "mean pull",
        "width of the pulls",
        "loss where deepest [%]",
        "σ beyond a tilt",
    )
    return Section("", columns, lines)


@styled
def recall_figure(rows, threshold):
    """Share of structures found against their significance."""
    figure = new_figure(5.2, 3.0)
    axes = place(figure, 0.65, 0.5, 4.35, 2.1)
    levels = np.array(sorted({row[0] for row in rows}), float)
    counts = np.array([sum(row[0] == s for row in rows) for s in levels])
    share = np.array([np.mean([row[2] for row in rows if row[0] == s]) for s in levels])
    error = np.sqrt(np.maximum(share * (1 - share), 0.25 / counts) / counts)
    axes.errorbar(levels, share, error, fmt="o", color=BLUE, ms=4)
    axes.axhline(0.95, color=GREY, lw=0.9, ls=(0, (4, 3)))
    axes.axvline(threshold, color=RED, lw=0.9)
    axes.text(threshold, 0.02, " threshold of a pixel", color=RED, size=7.5)
    axes.set(xlabel="significance that an ideal filter would have [σ]", ylabel="found", ylim=(-0.03, 1.05))
    head(figure, "Injected structures that are found")
    return figure


def main(argv=None):
    """Run the campaigns and write the tables; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validate_structure", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="two seeds, nothing written")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    where = machine()[1:]

    def say(text):
        print(text, file=sys.stderr, flush=True)

    seeds = list(SEEDS)[:2] if args.quick else list(SEEDS)
    rows, extra, flats = recall(seeds, say)
    tables = {
        "structure recall": recall_table(rows),
        "structure quiet": quiet(seeds, say),
        "structure films": films(seeds, say),
    }
    strong = np.array([row[3:] for row in rows if row[2] and row[0] >= 8])
    within = np.mean(np.abs(strong) <= 1, axis=0)
    tables["structure recall"].notes.append(
        f"First epoch right within one for {within[0]:.3f} of those of 8 σ and more, last one for {within[1]:.3f};"
        f" exactly right {np.mean(strong[:, 0] == 0):.3f}. Regions that were not injected: {extra} in {flats} flats."
    )
    for name, section in tables.items():
        print(f"\n{name}\n\n{body(section)}")
    if args.quick:
        return 0
    from utils.application.figure_style import png_bytes

    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in tables.items():
        text = put(text, name, body(section))
    made = [f"- Date: {datetime.now(UTC):%Y-%m-%d}", *(f"- {line}" for line in where)]
    text = put(
        text, "structure made", "\n".join([*made, f"- Duration: {time.perf_counter() - started:.0f} s"])
    )
    DOCUMENT.write_text(text, encoding="utf-8")
    _, sample = campaigns.run(1, Plan())
    (IMAGES / "structure_recall.png").write_bytes(png_bytes(recall_figure(rows, sample.threshold)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
