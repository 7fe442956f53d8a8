"""Figures of docs/validation.md: functions from results to a `matplotlib.figure.Figure`."""

import numpy as np

from benchmarks.simulated_runs import ENDS, EVALUATED, TEMPERATURES
from utils.application.figure_style import COLOURS, GREY, MARKERS, head, new_figure, place, styled


@styled
def error_against_temperature(found, cameras, counts):
    """Rms error of a + b T against temperature: measured, quoted, and the statistical limit."""
    figure = new_figure(7.2, 3.3)
    head(figure, "Error of the bias model against temperature")
    for index, camera in enumerate(cameras):
        axes = place(figure, 0.62 + 3.5 * index, 0.5, 2.95, 2.2)
        axes.grid(visible=True)
        axes.set_title(camera, fontsize=8.5, weight="normal")
        for colour, marker, count in zip(COLOURS, MARKERS, counts, strict=False):
            one = found[camera, count]
            axes.plot(EVALUATED, [one.rms("bound", t) for t in EVALUATED], color=colour, lw=1)
            axes.plot(
                EVALUATED,
                [one.rms("error", t) for t in EVALUATED],
                marker,
                color=colour,
                ms=4,
                label=f"{count} frames a temperature",
            )
            axes.plot(EVALUATED, [one.rms("quoted", t) for t in EVALUATED], ":", color=colour, lw=1.6)
        axes.axvspan(min(TEMPERATURES), max(TEMPERATURES), color=GREY, alpha=0.12, lw=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("temperature [°C]")
        axes.set_ylabel("1 σ error of a + b T [ADU]")
        if index == 0:
            axes.plot([], [], color=GREY, lw=1, label="Cramér-Rao bound")
            axes.plot([], [], ":", color=GREY, lw=1.6, label="quoted error")
        if index == 0:
            axes.legend(loc="upper center", ncols=1)
            axes.set_ylim(top=1.6 * axes.get_ylim()[1])
    return figure


@styled
def pull_histograms(found, cameras, count):
    """Histograms of pulls of a, b and the synthetic bias against the unit Gaussian."""
    figure = new_figure(7.2, 2.7)
    head(figure, f"Pulls, error / quoted error, {count} frames a temperature")
    names = ["a", "b", *(f"{t:g}" for t in ENDS)]
    labels = ["a", "b", *(f"synthetic at {t:g} °C".replace("-", "−") for t in ENDS)]
    edges = np.linspace(-6, 6, 61)
    middle = 0.5 * (edges[1:] + edges[:-1])
    for index, camera in enumerate(cameras):
        axes = place(figure, 0.62 + 3.5 * index, 0.5, 2.95, 1.65)
        axes.grid(visible=True)
        axes.set_title(camera, fontsize=8.5, weight="normal")
        for colour, marker, name, label in zip(COLOURS, MARKERS, names, labels, strict=False):
            pulls = np.concatenate(found[camera, count].pulls[name])
            share = np.histogram(pulls, edges)[0] / (pulls.size * np.diff(edges))
            share[share == 0] = np.nan
            axes.plot(middle, share, marker, ms=2.6, color=colour, label=label)
        axes.plot(middle, np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi), color=GREY, lw=1, label="Gaussian")
        axes.set_yscale("log")
        axes.set_ylim(1e-5, 1)
        axes.minorticks_off()
        axes.set_xlabel("pull")
        axes.set_ylabel("density")
        if index == 0:
            axes.legend(loc="lower center", ncols=1, fontsize=6.5)
    return figure


@styled
def coarse_steps(found, counts, sigma=0.4):
    """Error of a master against the place of the true level between two steps of the converter."""
    camera = "12 bit, read noise 0.4 LSB"
    figure = new_figure(7.2, 2.9)
    head(figure, "Noise of 0.4 steps: the part of the error that averaging does not remove")
    axes = place(figure, 0.75, 0.5, 6.2, 2.0)
    axes.grid(visible=True)
    edges = np.linspace(0, 1, 33)
    for colour, marker, count in zip(COLOURS, MARKERS, counts, strict=False):
        one = found[camera, count]
        phase, error = np.concatenate(one.phase), np.concatenate(one.master)
        place_of = np.digitize(phase, edges) - 1
        number = np.bincount(place_of, minlength=32)
        mean = np.bincount(place_of, error, minlength=32) / number
        spread = np.sqrt(np.bincount(place_of, error**2, minlength=32) / number - mean**2)
        axes.errorbar(
            0.5 * (edges[1:] + edges[:-1]) + 0.004 * (count / 10 - 1),
            mean,
            spread / np.sqrt(number),
            fmt=marker,
            ms=3.5,
            color=colour,
            label=f"{count} frames",
        )
    x = np.linspace(0, 1, 200)
    curve = -np.exp(-2 * (np.pi * sigma) ** 2) / np.pi * np.sin(2 * np.pi * x)
    axes.plot(x, curve, color="#333840", lw=1.2, label="rounding of Gaussian noise (theory)")
    axes.set_xlabel("true level, distance to the step below [ADU]")
    axes.set_ylabel("mean error of the master [ADU]")
    axes.legend(loc="upper right", ncols=2)
    axes.set_ylim(-0.023, 0.03)
    return figure


@styled
def pulls_of_numbers(collected, width):
    """Width of the pulls of every number of detector.json: each camera, and all together."""
    names = list(collected)
    height = 0.22 * len(names)
    figure = new_figure(7.2, height + 1.1)
    head(figure, "Pulls of the numbers of a camera: (found − truth) / quoted error")
    axes = place(figure, 2.0, 0.5, 5.0, height)
    axes.axvspan(0.9, 1.1, color=GREY, alpha=0.15, lw=0)
    axes.axvline(1.0, color=GREY, lw=0.9)
    for row, name in enumerate(names):
        place_of = len(names) - row
        own = collected[name]
        single = [width(pair[1])[0] for pair in own.values()]
        axes.plot(
            single,
            [place_of] * len(single),
            "o",
            ms=3,
            color=COLOURS[1],
            label="one camera" if row == 0 else None,
        )
        value, error = width(np.concatenate([pair[1] for pair in own.values()]))
        label = "all cameras" if row == 0 else None
        axes.errorbar(value, place_of, xerr=error, fmt="s", ms=4.5, color=COLOURS[0], label=label)
    axes.set_yticks(range(1, len(names) + 1), names[::-1])
    axes.set_ylim(0.3, len(names) + 0.7)
    axes.set_xlim(0.6, 1.4)
    axes.set_xlabel("width of the pulls, wanted 1.00 ± 0.10 (grey)")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return figure
