"""What the degradation analysis finds on simulated missions: tables of docs/validation.md.

python -m benchmarks.validate_degradation            all of it, into docs/
python -m benchmarks.validate_degradation --quick    two seeds, tables printed, nothing written
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.missions import mission
from benchmarks.table import Section, machine
from benchmarks.validate_bias import DOCUMENT, body, put
from utils import detector_damage, flat_campaign
from utils.application.options import SharedOptions
from utils.application.run_record import RunRecord
from utils.kernels import film, hot_ledger, pixel_damage
from utils.kernels.detector_history import Damage, Film, HotPixels

SEEDS = range(1, 21)
SHAPE, DAYS = (128, 160), (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
DROPS, COUNT = (0.1, 0.15, 0.2, 0.3, 0.5, 0.9), 20
RATES, BORN = (4.0, 8.0, 16.0), 40
FILMS = {"edge, 4 %": ("edge", 0.04), "patches, 3 %": ("patches", 0.03), "none": ("edge", 0.0)}
QUIET = {
    "lamp swings by 6 %": {},
    "lamp swings by 20 %": {"lamp": 0.2},
    "second visit 4 °C warmer": {"warm": 4.0},
    "two exposures": {"exposures": (1.0, 0.6)},
    "four times the cosmic hits": {"cosmic": 2e-4},
    "ten times the cosmic hits": {"cosmic": 5e-4},
}


@dataclass(eq=False)
class Seen:
    """One mission, analysed.  labels : pixel -> label.  outliers, films, slopes, hot : as `detector_damage.Damage`."""

    labels: dict
    damage: object
    sensor: object
    history: object
    flats: int


def analyse(folder, sensor, history):
    """Run the analysis as the command does, but for its tables and pictures."""
    shared = SharedOptions(basepath=folder / "in", output_dir=folder / "out", plots="none", verbosity=-1)
    config = detector_damage.DamageConfig(shared, reduce=True, keep_norm=False)
    with RunRecord(shared.output_dir, "degradation", "full", config, []) as record:
        campaign = flat_campaign.select(config, record)
        flat_campaign.masters(config, record, campaign)
        flat_campaign.levels(config, record, campaign)
        damage = detector_damage.Damage()
        with flat_campaign.spool(config) as store:
            detector_damage.compare(config, record, campaign, store)
            detector_damage.follow(config, record, campaign, damage)
            detector_damage.separate(config, record, campaign, damage, None)
            detector_damage.hot_pixels(config, record, campaign, damage, store)
    labels = {row["pixel"]: row["classification"] for row in damage.rows}
    return Seen(labels, damage, sensor, history, sum(one.count for one in campaign.sets))


def fly(seed, changes=(), **options):
    """Simulate and analyse one mission."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = mission(folder / "in", changes=changes, seed=seed, shape=SHAPE, days=DAYS, **options)
        return analyse(folder, *found)


def places(hit):
    """Set of (row, column) of what `History.hit` returns."""
    return set(zip(*(one.tolist() for one in hit), strict=True))


def changes_of(seed):
    """Damage of all depths on day 15, hot pixels of all rates on day 15 (half of them anneal on day 35), a film."""
    profile, depth = list(FILMS.values())[seed % 2]
    damage = [Damage(15.0, COUNT, drop) for drop in DROPS]
    hot = [HotPixels(15.0, BORN, rate, spread=0.1, anneal_day=35.0, annealed=0.5) for rate in RATES]
    return (*damage, *hot, Film((0.0, DAYS[-1]), (0.0, depth), profile))


def damaged(missions):
    """Table of labels against the depth of the damage; pulls of the slopes of all other pixels."""
    found = {drop: Counter() for drop in DROPS}
    false = flats = 0
    pulls = []
    for seen in missions:
        known, bad = set(), seen.sensor.dead | seen.sensor.low_qe | seen.sensor.hot
        for number in range(len(DROPS) + len(RATES)):
            mine = places(seen.history.hit(number, 30.0))
            known |= mine
            if number < len(DROPS):
                found[DROPS[number]].update(seen.labels.get(p, "none") for p in mine if not bad[p])
        alarms = {p for p, label in seen.labels.items() if label != pixel_damage.TEMPERATURE}
        false, flats = false + len(alarms - known), flats + seen.flats
        slope, sigma = seen.damage.slopes[0]
        quiet = np.isfinite(slope)
        quiet[tuple(np.array(sorted(known)).T)] = False
        pulls.append((slope / sigma)[quiet])
    pulls = np.concatenate(pulls)
    lines = []
    for drop, names in found.items():
        total = sum(names.values())
        share = [
            names[one] / total for one in (pixel_damage.DAMAGE, pixel_damage.LIKELY, pixel_damage.TEMPERATURE)
        ]
        lines.append(
            [f"{100 * drop:.0f} %", total, *(f"{one:.3f}" for one in share), f"{names['none'] / total:.3f}"]
        )
    section = Section(
        "",
        ("light lost", "pixels", "Sensor Damage", "Likely Sensor", "Temperature", "not found"),
        lines,
        [
            f"Other pixels with one of the first two labels: {false} in {flats} flats. Slopes of the pixels where nothing"
            f" was put: pulls of mean {pulls.mean():.3f} and width {pulls.std():.3f} ({pulls.size} pixels)."
        ],
    )
    return section


def ledger(missions):
    """Table of hot pixels found, by rate."""
    lines = []
    claimed, right = Counter(), Counter()
    scores = {rate: Counter() for rate in RATES}
    for seen in missions:
        hot, nx = seen.damage.hot, SHAPE[1]
        status = {divmod(int(p), nx): str(s) for p, s in zip(hot.pixels, hot.ledger.status, strict=True)}
        born = {divmod(int(p), nx): k for p, k in zip(hot.pixels, hot.ledger.born, strict=True)}
        hit, healed = set(), set()
        for number, rate in enumerate(RATES, len(DROPS)):
            now, later = (places(seen.history.hit(number, day)) for day in (30.0, 50.0))
            hit, healed = hit | now, healed | (now - later)
            for pixel in now:
                if seen.sensor.hot[pixel] or seen.sensor.telegraph_step[pixel]:
                    continue
                one = scores[rate]
                one["pixels"] += 1
                one["born"] += born.get(pixel, -1) == 2
                if pixel in now - later:
                    one["healing"] += 1
                    one["annealed"] += status.get(pixel) == hot_ledger.PASSED
                else:
                    one["staying"] += status.get(pixel) == hot_ledger.BORN
        for pixel, name in status.items():
            if name != hot_ledger.PERSISTENT:
                claimed["changed"] += 1
                right["changed"] += pixel in hit
            if name in (hot_ledger.PASSED, hot_ledger.ANNEALED):
                claimed["annealed"] += 1
                right["annealed"] += pixel in healed
    for rate, one in scores.items():
        stay = one["pixels"] - one["healing"]
        lines.append(
            [
                f"{rate:g}",
                one["pixels"],
                f"{one['born'] / one['pixels']:.3f}",
                f"{one['annealed'] / one['healing']:.3f}",
                f"{one['staying'] / stay:.3f}",
            ]
        )
    limit = np.mean([seen.damage.hot.limit for seen in missions])
    words = [
        f"{right[k]} of {claimed[k]} {what}"
        for k, what in (("changed", "changes"), ("annealed", "annealings"))
    ]
    return Section(
        "",
        (
            "new rate [ADU/s]",
            "pixels",
            "born, with its date",
            "annealed, of those that did",
            "stays, of those that do",
        ),
        lines,
        [
            f"Hot is {limit:.2f} ADU/s above the median on average. Precision: {', '.join(words)} in the ledger are true."
        ],
    )


def films(seeds, say):
    """Depths of films in cells against the truth, in quoted errors; damaged pixels lie in them."""
    lines = []
    for name, (profile, depth) in FILMS.items():
        pulls, beyond = [], []
        for seed in seeds:
            change = (Film((0.0, DAYS[-1]), (0.0, depth), profile),) if depth else ()
            seen = fly(4000 + seed, (Damage(25.0, 60, 0.5), *change), temperatures=(10.0,), darks=False)
            history, made = seen.damage.films[0], seen.damage.outliers[0].changes
            truth = seen.history.at(DAYS[-1]).film
            truth = np.zeros(SHAPE, np.float32) if truth is None else truth
            cells, total = film.cell_means(truth, made.weight, history.cell)
            one = history.maps[-1]
            zero = np.average(cells[one.undisturbed], weights=total[one.undisturbed])
            good = np.isfinite(one.loss) & (one.sigma > 0)
            pulls.append(((one.loss - (cells - zero)) / one.sigma)[good])
            beyond.append((history.depth[-1], history.sigma[-1], one.beyond_tilt))
        pulls = np.concatenate(pulls)
        mean, error, tilt = np.mean(beyond, axis=0)
        found = f"{100 * mean:.3f} ± {100 * error:.3f}"
        lines.append([name, pulls.size, f"{pulls.mean():.2f}", f"{pulls.std():.2f}", found, f"{tilt:.1f}"])
        say(f"degradation: film {name}")
    columns = (
        "film",
        "cells",
        "mean pull",
        "width of the pulls",
        "loss where deepest [%]",
        "σ beyond a tilt",
    )
    return Section("", columns, lines)


def quiet(seeds, say):
    """Alarms in missions to which nothing happened."""
    lines = []
    for name, options in QUIET.items():
        labels, flats, changed = Counter(), 0, 0
        for seed in seeds:
            seen = fly(5000 + seed, **options)
            labels.update(seen.labels.values())
            flats += seen.flats
            changed += int((seen.damage.hot.ledger.status != hot_ledger.PERSISTENT).sum())
        names = (pixel_damage.DAMAGE, pixel_damage.LIKELY, pixel_damage.TEMPERATURE)
        lines.append([name, flats, *(labels[one] for one in names), changed])
        say(f"degradation: {name}")
    columns = (
        "missions without changes",
        "flats",
        *("Sensor Damage", "Likely Sensor", "Temperature", "changed hot pixels"),
    )
    return Section("", columns, lines)


def main(argv=None):
    """Run the missions and write the tables; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validate_degradation", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="two seeds, nothing written")
    args = parser.parse_args(argv)
    started, where = time.perf_counter(), machine()[1:]

    def say(text):
        print(text, file=sys.stderr, flush=True)

    seeds = list(SEEDS)[:2] if args.quick else list(SEEDS)
    missions = []
    for seed in seeds:
        missions.append(fly(seed, changes_of(seed), warm=3.0))
        say(f"degradation: mission {seed}")
    tables = {"degradation labels": damaged(missions), "degradation ledger": ledger(missions)}
    tables |= {"degradation quiet": quiet(seeds, say), "degradation films": films(seeds, say)}
    for name, section in tables.items():
        print(f"\n{name}\n\n{body(section)}")
    if args.quick:
        return 0
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in tables.items():
        text = put(text, name, body(section))
    made = [f"- Date: {datetime.now(UTC):%Y-%m-%d}", *(f"- {line}" for line in where)]
    made.append(f"- Duration: {time.perf_counter() - started:.0f} s")
    DOCUMENT.write_text(put(text, "degradation made", "\n".join(made)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
