"""Figures of the degradation analysis: difference maps, outliers on the sensor, histories."""

import numpy as np

from utils.application.axis_marks import mark
from utils.application.figure_style import (
    BLUE,
    COLOURS,
    DIFFERENCES,
    GREY,
    OCHRE,
    RED,
    head,
    new_figure,
    place,
    small_map,
    styled,
)
from utils.application.plots import Panel, Series, colour_strip, panels_figure, show_map
from utils.kernels import hot_ledger, pixel_damage

MOST_MARKED = 3000
LABELS = {pixel_damage.DAMAGE: RED, pixel_damage.LIKELY: OCHRE, pixel_damage.TEMPERATURE: BLUE}


@styled
def difference_map(change, title, rows, columns):
    """Relative change in per cent, with a ring around each outlier.  change : (ny, nx), NaN = not looked at."""
    figure, axes, box = _sensor(change.shape)
    percent = 100.0 * change
    small = small_map(percent).image
    spread = np.nanpercentile(np.abs(small), 99.0) if np.isfinite(small).any() else 1.0
    limits = (-1.3 * max(float(spread), 1e-3), 1.3 * max(float(spread), 1e-3))
    show_map(axes, percent, limits=limits, cmap=DIFFERENCES)
    _rings(axes, rows, columns, "#101418")
    head(figure, title)
    bar = place(figure, box[0] + 0.77, 0.48, 0.14, box[1])
    colour_strip(bar, limits, DIFFERENCES)
    bar.set_ylabel("change [%]")
    return figure


@styled
def sensor_plane(shape, rows, title):
    """Outlier pixels where they lie, in the colour of their label.  rows : of `classify_outliers`."""
    figure, axes, _ = _sensor(shape, room=1.9)
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5))
    axes.set(xlabel="column [pixel]", ylabel="row [pixel]")
    axes.grid(False)
    for name, colour in LABELS.items():
        mine = np.array([row["pixel"] for row in rows if row["classification"] == name], int).reshape(-1, 2)
        size = 9 if len(mine) < 300 else 3
        axes.scatter(
            mine[:, 1], mine[:, 0], s=size, color=colour, linewidths=0, label=f"{name} ({len(mine)})"
        )
    for which in "xy":
        mark(axes, which, most=5, whole=True, grid=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    head(figure, title)
    return figure


def _sensor(shape, room=1.55):
    ny, nx = shape
    ratio = min(max(nx / ny, 0.25), 4.0)
    box = min(5.4, 4.4 * ratio), min(4.4, 5.4 / ratio)
    figure = new_figure(box[0] + 0.65 + room, box[1] + 0.9)
    return figure, place(figure, 0.65, 0.48, *box), box


def _rings(axes, rows, columns, colour):
    rows, columns = (np.asarray(one)[:MOST_MARKED] for one in (rows, columns))
    size = 26 if rows.size < 200 else 10
    axes.scatter(columns, rows, s=size, facecolors="none", edgecolors=colour, linewidths=0.6)


def outliers_figure(rows, key, factor, xlabel, title):
    """Outliers of every flat against time or temperature, by comparison.  rows : of analysis_flats.csv."""
    panels = []
    for kind, words in (("by_temperature", "own temperature"), ("by_time_ignore_temp", "any temperature")):
        mine = [row for row in rows if row["analysis_type"] == kind]
        series = _series(mine, key, "n_outliers", factor)
        panels.append(Panel(f"outliers,\n{words}", series))
    return panels_figure(panels, xlabel=xlabel, title=title, height=1.5)


def level_figure(rows, key, factor, xlabel, title):
    """Mean and standard deviation of every flat.  rows : of analysis_flats.csv."""
    mine = [row for row in rows if row["analysis_type"] == "by_temperature"]
    panels = [
        Panel("mean [ADU]", _series(mine, key, "mean_flat", factor)),
        Panel("standard\ndeviation [ADU]", _series(mine, key, "std_flat", factor)),
    ]
    return panels_figure(panels, xlabel=xlabel, title=title, height=1.5)


def _series(rows, key, column, factor):
    names = sorted({(row["filter"], row["exposure"], float(row["approx_temp"])) for row in rows})
    found = []
    for number, name in enumerate(names):
        mine = [r for r in rows if (r["filter"], r["exposure"], float(r["approx_temp"])) == name]
        x, y = (np.array([row[one] for row in mine], float) for one in (key, column))
        words = f"{name[0]}, {name[2]:.1f} °C, {name[1]:g} s".replace("-", "−")
        found.append(
            Series(
                factor * x, y, label=words if len(names) <= 8 else "", colour=COLOURS[number % len(COLOURS)]
            )
        )
    return tuple(found)


def hot_figure(hot, days, xlabel):
    """Hot pixels of each session at the common temperature, and how many were born and annealed."""
    count = hot.ledger.hot.sum(axis=1)
    number = np.arange(days.size)
    born = np.array([(hot.ledger.born == k).sum() for k in number])
    annealed = np.array([(hot.ledger.annealed == k).sum() for k in number])
    panels = [
        Panel(
            f"hot at {hot.common:.1f} °C".replace("-", "−"), (Series(days, count, colour=RED, joined=True),)
        ),
        Panel(
            "new state since",
            (
                Series(days, born, label="born", colour=RED),
                Series(days, annealed, label="annealed", colour=BLUE),
            ),
            reference=0.0,
        ),
        Panel("darks [°C]", (Series(days, hot.temperatures, colour=GREY, joined=True),)),
    ]
    return panels_figure(panels, xlabel=xlabel, title="Hot pixels at one temperature", height=1.2)


@styled
def hot_map(shape, hot):
    """Hot pixels on the sensor, in the colour of what became of them."""
    figure, axes, _ = _sensor(shape, room=1.9)
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5))
    axes.set(xlabel="column [pixel]", ylabel="row [pixel]")
    axes.grid(False)
    order = (
        hot_ledger.PERSISTENT, hot_ledger.BORN, hot_ledger.ANNEALED, hot_ledger.PASSED, hot_ledger.HOTTER,
        hot_ledger.COOLER,
    )  # fmt: skip
    for name, colour in zip(order, (GREY, RED, BLUE, OCHRE, COLOURS[4], COLOURS[2]), strict=True):
        mine = hot.pixels[hot.ledger.status == name]
        if mine.size:
            size = 9 if hot.pixels.size < 1000 else 3
            axes.scatter(
                mine % shape[1],
                mine // shape[1],
                s=size,
                color=colour,
                linewidths=0,
                label=f"{name} ({mine.size})",
            )
    for which in "xy":
        mark(axes, which, most=5, whole=True, grid=False)
    if hot.pixels.size:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    head(figure, "Hot pixels over the sessions")
    return figure
