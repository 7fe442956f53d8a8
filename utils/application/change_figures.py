"""Figures of change: maps with what was found in them, histories of regions and of the smooth loss, trends."""

import numpy as np

from utils.application.figure_style import (
    COLOURS,
    DIFFERENCES,
    ERRORS,
    GREY,
    RED,
    celsius,
    head,
    new_figure,
    place,
    small_map,
    styled,
)
from utils.application.plots import Panel, Series, colour_strip, map_figure, panels_figure, show_map

MOST_MARKED = 60
"""Regions drawn on a map."""
MOST_FOLLOWED = 6
"""Regions whose history is drawn."""


@styled
def change_map(change, title, regions=(), names=()):
    """Relative change of an epoch in per cent, with a frame around each region.

    change : (ny, nx), NaN = not looked at.  regions : `utils.kernels.regions.Region`; names : their ids.
    """
    from matplotlib.patches import Rectangle

    ny, nx = change.shape
    ratio = min(max(nx / ny, 0.25), 4.0)
    width, height = min(5.6, 4.6 * ratio), min(4.6, 5.6 / ratio)
    figure = new_figure(width + 1.75, height + 0.9)
    axes = place(figure, 0.65, 0.48, width, height)
    percent = 100.0 * change
    small = small_map(percent).image
    spread = np.nanpercentile(np.abs(small - np.nanmedian(small)), 99.0) if np.isfinite(small).any() else 1.0
    limits = (-max(float(spread), 1e-3) * 1.3, max(float(spread), 1e-3) * 1.3)
    show_map(axes, percent, limits=limits, cmap=DIFFERENCES)
    for region, name in list(zip(regions, names, strict=True))[:MOST_MARKED]:
        room = 2 + 0.008 * max(ny, nx)
        x0, y0 = region.columns.min() - room, region.rows.min() - room
        size = np.ptp(region.columns) + 2 * room, np.ptp(region.rows) + 2 * room
        axes.add_patch(Rectangle((x0, y0), *size, fill=False, edgecolor="#101418", linewidth=0.9))
        axes.text(x0 + size[0], y0 + size[1], str(name), size=7.5, color="#101418", clip_on=True)
    head(figure, title)
    bar = place(figure, 0.65 + width + 0.12, 0.48, 0.14, height)
    colour_strip(bar, limits, DIFFERENCES)
    bar.set_ylabel("change [%]")
    return figure


def region_histories(found, names, days, xlabel):
    """Change of the most significant regions in every flat, with the step that explains it best.

    found : list of `FoundRegion`.  days : (n,) time of each flat.
    """
    panels = []
    for number, (one, name) in enumerate(list(zip(found, names, strict=True))[:MOST_FOLLOWED]):
        known = np.isfinite(one.values)
        inside = one.present()
        outside = known & ~inside
        base = np.average(one.values[outside], weights=one.sigmas[outside] ** -2.0) if outside.any() else 0.0
        colour = COLOURS[number % len(COLOURS)]
        first, last = days[inside].min(), days[inside].max()
        model = np.where((days[known] >= first) & (days[known] <= last), one.life.depth, 0.0)
        order = np.argsort(days[known], kind="stable")
        series = Series(
            days[known],
            100 * (one.values[known] - base),
            sigma=100 * one.sigmas[known],
            line=(days[known][order], 100 * model[order]),
            colour=colour,
        )
        panels.append(Panel(f"region {name} [%]", (series,), reference=0.0))
    return panels_figure(panels, xlabel=xlabel, title="Regions in every flat", height=1.0)


def film_map_figure(history, shape, title):
    """Smooth loss of the last epoch, cell by cell."""
    last = history.maps[-1].loss
    image = np.repeat(np.repeat(100 * last, history.cell, axis=0), history.cell, axis=1)[
        : shape[0], : shape[1]
    ]
    return map_figure(image, label="loss of light [%]", title=title, cmap=ERRORS)


def film_history_figure(histories, days_of, xlabel):
    """Loss of the cells that lost most, against time.  histories : name -> `FilmHistory`; days_of : name -> (epochs,)."""
    series = tuple(
        Series(
            days_of[name][history.epochs],
            100 * history.depth,
            sigma=100 * history.sigma,
            label=f"filter {name}",
            joined=True,
        )
        for name, history in histories.items()
    )
    return panels_figure(
        [Panel("loss of light [%]", series, reference=0.0)],
        xlabel=xlabel,
        title="Smooth loss where it is deepest",
        height=2.0,
    )


def level_figure(rows, key, xlabel, title, fits=(), factor=1.0):
    """Level against the first epoch and scatter of every flat, one colour a group of like flats.

    rows : dicts with group, key, relative level and scatter.  fits : dicts with group, and `Trend` of level and scatter.
    factor : from the values under key to what is drawn.
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))
    panels = []
    for column, words in (("relative_level", "level / first epoch"), ("scatter", "scatter / level")):
        series = []
        for number, group in enumerate(groups):
            mine = [row for row in rows if row["group"] == group]
            x, y = np.array([row[key] for row in mine], float), np.array([row[column] for row in mine], float)
            line = next(
                (fit[column] for fit in fits if fit["group"] == group and fit.get(column) is not None), None
            )
            drawn = None
            if line is not None and np.ptp(x) > 0:
                ends = np.linspace(x.min(), x.max(), 2)
                drawn = (factor * ends, line.at(ends))
            label = group if len(groups) <= 8 else ""
            series.append(
                Series(factor * x, y, label=label, colour=COLOURS[number % len(COLOURS)], line=drawn)
            )
        panels.append(Panel(words, tuple(series)))
    return panels_figure(panels, xlabel=xlabel, title=title, height=1.7)


@styled
def detections_figure(days, counts, significance, xlabel):
    """Number of changed regions in every flat, and the largest significance that one flat alone gives them."""
    figure = new_figure(7.2, 3.4)
    upper, lower = place(figure, 0.92, 1.9, 6.08, 1.1), place(figure, 0.92, 0.48, 6.08, 1.25)
    upper.step(days, counts, where="mid", color=RED, linewidth=1.2)
    upper.set_ylabel("regions present")
    upper.tick_params(labelbottom=False)
    upper.set_ylim(bottom=0)
    lower.plot(days, significance, ".", color=GREY, markersize=4)
    lower.set(xlabel=xlabel, ylabel="largest |depth| / σ")
    lower.set_xlim(upper.get_xlim())
    head(figure, "What each flat shows")
    return figure


def group_name(group, filter_name):
    """Name of a group of like flats for legends and tables."""
    return f"{filter_name}, {celsius(group.frames.temperature)}, {group.frames.exposure:g} s"
