"""Accuracy of the dark pipeline against the truth of simulated cameras: tables and figures of docs/validation.md.

python -m benchmarks.validate_dark            all of it, into docs/
python -m benchmarks.validate_dark --quick    one seed a camera, tables printed, nothing written
"""

import argparse
import sys
import time
from datetime import UTC, datetime

import numpy as np

from benchmarks import dark_figures, simulated_darks
from benchmarks.simulated_darks import Campaign
from benchmarks.table import Section, machine
from benchmarks.validate_bias import DOCUMENT, IMAGES, body, put

CAMPAIGNS = {
    "12 bit, −5 to 15 °C, 5 to 60 s": (Campaign(drift=0.6), "12left"),
    "12 bit, −10 to 20 °C, 1 to 120 s": (
        Campaign(
            (-10, 0, 10, 20),
            (1, 10, 60, 120),
            10,
            (-10, 0, 10, 20),
            20,
            0.1,
            (-5.0, 3.0, 8.0, 15.0),
            (5.0, 30.0, 100.0),
        ),
        "12left",
    ),
    "12 bit, −20 to 10 °C, 30 to 300 s, 5 frames": (
        Campaign(
            (-20, -10, 0, 10),
            (30, 120, 300),
            5,
            (-20, -10, 0, 10),
            10,
            0.3,
            (-15.0, -6.0, 3.0, 8.0),
            (60.0, 200.0),
        ),
        "12left",
    ),
    "16 bit, −5 to 15 °C, 5 to 60 s": (Campaign(), "16"),
}
TRUTHS = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, -0.05, 0.01), (1.0, 0.03, 0.01)]
SHAPES = ((192, 256), (220, 220))


def span(values):
    """Smallest and largest of some numbers."""
    return f"{min(values):.2f} to {max(values):.2f}"


def together(ratio):
    """Rms over pairs."""
    return float(np.sqrt(np.mean(np.square(ratio))))


def truth_cells(campaign, truth):
    offset, gamma, spread = truth
    return [campaign, f"{offset:g}", f"{gamma:g} ± {spread:g}" if spread else f"{gamma:g}"]


HEAD = ("campaign", "offset [ADU]", "γ over pixels")


def accuracy(found):
    rows = []
    for (name, truth), one in found.items():
        upper = CAMPAIGNS[name][0].upper
        normal, best = one.ratio("normal"), one.ratio("normal", "best")
        rows.append(
            [
                *truth_cells(name, truth),
                f"{normal.max():.2f}",
                f"{together(normal[upper]):.2f}",
                f"{together(best[upper]):.2f}",
                f"{one.ratio('hot').max():.2f}",
                f"{together(one.ratio('hot')):.2f}",
                f"{100 * np.abs(one.mean('normal')).max():.2f} %",
                f"{100 * np.abs(one.mean('hot')).max():.2f} %",
            ]
        )
    columns = (
        *HEAD,
        "normal, worst",
        "normal, upper half",
        "best possible there",
        "hot, worst",
        "hot, all",
        "mean error, normal",
        "mean error, hot",
    )
    return Section("", columns, rows)


def pulls(found):
    rows = [
        [
            *truth_cells(name, truth),
            span(one.pull("normal")),
            span(one.pull("hot")),
            one.count("hot"),
            one.hot,
            f"{one.recall:.4f}",
            f"{one.precision:.4f}",
        ]
        for (name, truth), one in found.items()
    ]
    columns = (
        *HEAD,
        "pull, normal",
        "pull, hot",
        "hot pixels made",
        "above the limit",
        "recall",
        "precision",
    )
    return Section("", columns, rows)


def shared(found):
    rows = []
    for (name, truth), one in found.items():
        cells = truth_cells(name, truth)
        for key, error, true, digits in (
            ("gamma_g", "gamma_g_error", "true_gamma", 4),
            ("offset_adu", "offset_error_adu", "true_offset", 3),
            ("B_g", "B_g_error", "true_b", 5),
        ):
            texts = []
            for numbers in one.shared:
                value, sigma = (np.atleast_1d(numbers[k])[0] for k in (key, error))
                texts.append(f"{value - numbers[true]:+.{digits}f} ± {sigma:.{digits}f}")
            cells.append(", ".join(texts).replace("-", "−"))
        cells.append(", ".join(f"{numbers['gamma_scatter_over_pixels']:.4f}" for numbers in one.shared))
        rows.append(cells)
    columns = (*HEAD, "γ − truth", "offset − truth [ADU]", "B − truth [1/K]", "scatter of γ found")
    return Section("", columns, rows)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validate_dark", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one seed a campaign, nothing written")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    where = machine()[1:]

    def say(text):
        print(text, file=sys.stderr, flush=True)

    truths, shapes = (TRUTHS[1:2], SHAPES[:1]) if args.quick else (TRUTHS, SHAPES)
    found = simulated_darks.run_all(CAMPAIGNS, truths, shapes, say)
    tables = {"dark accuracy": accuracy(found), "dark pulls": pulls(found), "dark shared": shared(found)}
    for name, section in tables.items():
        print(f"\n{name}\n\n{body(section)}")
    if args.quick:
        return 0
    from utils.application.figure_style import png_bytes

    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in tables.items():
        text = put(text, name, body(section))
    made = [f"- Date: {datetime.now(UTC):%Y-%m-%d}", *(f"- {line}" for line in where)]
    text = put(text, "dark made", "\n".join([*made, f"- Duration: {time.perf_counter() - started:.0f} s"]))
    DOCUMENT.write_text(text, encoding="utf-8")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("dark_error", dark_figures.error_against_temperature(found, CAMPAIGNS, TRUTHS)),
        ("dark_pulls", dark_figures.pull_histograms(found, CAMPAIGNS)),
        ("dark_shared", dark_figures.shared_numbers(found)),
    ):
        (IMAGES / f"{name}.png").write_bytes(png_bytes(figure))
    return 0


if __name__ == "__main__":
    sys.exit(main())
