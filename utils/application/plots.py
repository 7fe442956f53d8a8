"""Figures for reports: functions from arrays to a `matplotlib.figure.Figure`, without files.

Drawing must not dominate a run: a figure has as few axes as it can (each costs about 25 ms), fixed places
instead of a layout engine, and maps are averaged to at most 512 pixels on a side before they are drawn.
Maps may be mapped files: they are read in pieces, never copied whole.  Medians and spreads quoted in a figure are
those of a regular sample of 200 000 pixels.
"""

from dataclasses import dataclass

import numpy as np

from utils.application.axis_marks import mark
from utils.application.figure_style import (
    BLUE,
    COLOURS,
    DIFFERENCES,
    GREY,
    LEVELS,
    MARKERS,
    RED,
    count_histogram,
    head,
    logarithmic,
    map_limits,
    new_figure,
    place,
    robust_limits,
    robust_scale,
    sample,
    small_map,
    styled,
)


@dataclass(frozen=True)
class Series:
    """Points, with an optional model, in a panel.

    x, y : (n,).   sigma : (n,), 1 sigma of y.   model : (n,), the model at x, for residuals.
    line : (x, y) of the drawn model.   hollow : open markers.   joined : points joined by a thin line.
    """

    x: np.ndarray
    y: np.ndarray
    sigma: np.ndarray | None = None
    model: np.ndarray | None = None
    line: tuple | None = None
    label: str = ""
    colour: object = None
    marker: str | None = None
    hollow: bool = False
    joined: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes: its y label with unit, its series, and an optional horizontal reference line."""

    ylabel: str
    series: tuple
    reference: float | None = None


def show_map(axes, image, *, limits, cmap, symmetric=False, floor=None):
    """Draw `image`, an array or a `SmallMap`, with row 0 at the bottom, as DS9 does, NaN grey; returns the limits."""
    small = small_map(image)
    limits = limits or map_limits(small, symmetric=symmetric, floor=floor)
    factor, (rows, columns) = small.factor, small.shape
    covered = (-0.5, small.image.shape[1] * factor - 0.5, -0.5, small.image.shape[0] * factor - 0.5)
    _show(axes, small.image, covered, limits, cmap)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5), ylabel="row [pixel]")
    each = round(columns / axes.bbox.width)
    axes.set_xlabel("column [pixel]" + (f", shown as means of about {each} × {each}" if each > 1 else ""))
    for which in "xy":
        mark(axes, which, most=5, whole=True, grid=False)
    return limits


def _show(axes, values, extent, limits, cmap, bad="#b9bdc4"):
    from utils.application.quick_drawing import AveragedMap

    axes.add_artist(AveragedMap(values, extent, limits, cmap, bad))


def colour_strip(axes, limits, cmap, span=None, vertical=True):
    """Fill `axes` with the colours of `limits`, over the axis range `span` (default: the same), and mark it."""
    low, high = span or limits
    ramp = np.linspace(low, high, 256)
    if vertical:
        picture, extent = ramp[:, None], (0, 1, low, high)
    else:
        picture, extent = ramp[None, :], (low, high, 0, 1)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    _show(axes, picture, extent, limits, cmap)
    (axes.xaxis if vertical else axes.yaxis).set_visible(False)
    mark(axes, "y" if vertical else "x", most=None if vertical else 6, grid=False, far=vertical)


def _map_box(shape, widest, highest):
    """Width and height [inch] of a map with square pixels; frames longer than 1:4 are shown as 1:4."""
    ratio = min(max(shape[1] / shape[0], 0.25), 4.0)
    return min(widest, highest * ratio), min(highest, widest / ratio)


def _number(value):
    """Round `value` to four or five figures for a label."""
    return f"{value:.5g}" if abs(value) >= 1000 else f"{value:.4g}"


@styled
def map_figure(image, *, label, title, limits=None, symmetric=False, floor=None, cmap=None):
    """One map with a colour bar.

    image : (ny, nx), or a `figure_style.SmallMap`.   label : what the colours are, with unit.
    limits : (low, high) of the colours, else those of `map_limits` with `symmetric` and `floor`.
    """
    cmap = cmap or (DIFFERENCES if symmetric else LEVELS)
    width, height = _map_box(image.shape, 2.72, 2.72)  # two fit side by side in a report
    figure = new_figure(width + 1.7, height + 0.85)
    axes = place(figure, 0.65, 0.48, width, height)
    limits = show_map(axes, image, limits=limits, cmap=cmap, symmetric=symmetric, floor=floor)
    head(figure, title)
    bar = place(figure, 0.65 + width + 0.12, 0.48, 0.14, height)
    colour_strip(bar, limits, cmap)
    bar.set_ylabel(label)
    return figure


@styled
def map_with_histogram(
    image, *, label, title, limits=None, symmetric=False, floor=None, cmap=None, expected=None
):
    """A map beside the histogram of its values, whose axis carries the colours of the map.

    image : (ny, nx), NaN = no value.   label : what is shown, with unit.
    limits, symmetric, floor : as in `map_figure`.
    expected : (density, name), the expected probability density of the values, drawn over the histogram.
    """
    cmap = cmap or (DIFFERENCES if symmetric else LEVELS)
    width, height = _map_box(image.shape, 3.6, 2.8)
    total_width, total_height = 8.4, max(height, 2.0) + 0.85
    figure = new_figure(total_width, total_height)
    axes = place(figure, 0.62, total_height - 0.37 - height, width, height)
    limits = show_map(axes, image, limits=limits, cmap=cmap, symmetric=symmetric, floor=floor)
    head(figure, title)

    left = 0.62 + width + 0.85
    strip = place(figure, left, 0.48, total_width - left - 0.2, 0.11)
    histogram = place(figure, left, 0.59, total_width - left - 0.2, total_height - 0.59 - 0.37)
    # A few wild pixels must not squeeze all others into one bin: they are counted, not shown.
    some = sample(image)
    inner = robust_limits(some)
    room = 1.5 * (inner[1] - inner[0])
    low, high = robust_limits(some, 0.02, 99.98)
    low = min(max(low, inner[0] - room), limits[0])
    high = max(min(high, inner[1] + room), limits[1])
    counts, edges, outside = count_histogram(image, low, high)
    colour_strip(strip, limits, cmap, span=(low, high), vertical=False)
    strip.set_xlabel(label)
    histogram.stairs(counts, edges, fill=True, color=BLUE, alpha=0.35, linewidth=0)
    histogram.stairs(counts, edges, color=BLUE, linewidth=0.9)
    finite = int(counts.sum()) + outside
    if expected is not None:
        density, name = expected
        centres = 0.5 * (edges[1:] + edges[:-1])
        histogram.plot(centres, density(centres) * finite * (edges[1] - edges[0]), color=RED, label=name)
        histogram.legend(loc="upper right")
    logarithmic(histogram, counts, 2.0)
    histogram.set(xlim=(low, high), ylabel="pixels")
    histogram.xaxis.set_visible(False)
    mark(histogram, "y")
    median, scale = robust_scale(some)
    share = 100 * outside / finite if finite else 0.0
    note = f"median {_number(median)}, robust std {_number(scale)}, beyond the axis {share:.2g} %"
    histogram.set_title(note, size=7.5, weight="normal", color="#333840")
    return figure


def draw_series(axes, series, number):
    """Draw one `Series`; `number` picks its colour and marker where it names none."""
    colour = series.colour if series.colour is not None else COLOURS[number % len(COLOURS)]
    marker = series.marker or MARKERS[number % len(MARKERS)]
    many = len(series.x) > 200
    look = {
        "color": colour,
        "marker": "." if many else marker,
        "markersize": 2.5 if many else 4,
        "markerfacecolor": "white" if series.hollow else colour,
        "markeredgewidth": 0 if many else 1,
        "linestyle": "-" if series.joined else "none",
        "linewidth": 0.9,
        "label": series.label or None,
        "zorder": 3,
    }
    if series.sigma is None:
        axes.plot(series.x, series.y, **look)
    else:
        axes.errorbar(series.x, series.y, series.sigma, elinewidth=0.9, **look)
    if series.line is not None:
        axes.plot(*series.line, color=colour, linewidth=1.0, alpha=0.8, zorder=2)


def _fill(axes, panel):
    """Series, reference line and label of one panel."""
    for number, series in enumerate(panel.series):
        draw_series(axes, series, number)
    if panel.reference is not None:
        axes.axhline(panel.reference, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set_ylabel(panel.ylabel)


@styled
def panels_figure(panels, *, xlabel, title, height=1.35, side_by_side=False, colours=None):
    """Panels over a common x axis, stacked or side by side.

    panels : list of `Panel`.   height : of one panel [inch].
    colours : (limits, cmap, label), a colour bar that tells the colours of the series, instead of a legend.
    """
    count = len(panels)
    if side_by_side:
        figure = new_figure(9.6, height + 1.2)  # legends stand above the panels
        width = (9.6 - 0.15) / count - 0.75
        places = [(0.68 + number * (width + 0.75), 0.5, width, height) for number in range(count)]
    else:
        right = 1.0 if colours else 0.2
        figure = new_figure(7.2, count * (height + 0.12) + 0.85)
        places = [
            (0.92, 0.48 + (count - 1 - n) * (height + 0.12), 7.2 - 0.92 - right, height) for n in range(count)
        ]
    drawn = []
    for number, (panel, rectangle) in enumerate(zip(panels, places, strict=True)):
        axes = place(figure, *rectangle, sharex=drawn[0] if drawn else None)
        drawn.append(axes)
        _fill(axes, panel)
        if side_by_side or number == count - 1:
            axes.set_xlabel(xlabel)
        if not colours and (side_by_side or number == 0) and any(s.label for s in panel.series):
            above = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.99), "ncols": 2, "columnspacing": 1.2}
            axes.legend(**(above if side_by_side else {"loc": "best"}))
    for number, axes in enumerate(drawn):  # their common x axis is known only now
        mark(axes, "x", numbers=side_by_side or number == count - 1)
        mark(axes, "y", most=5)
    if colours:
        limits, cmap, label = colours
        bar = place(figure, 7.2 - 0.85, 0.48, 0.12, count * (height + 0.12) - 0.12)
        colour_strip(bar, limits, cmap)
        bar.set_ylabel(label)
    head(figure, title)
    return figure


@styled
def fit_figure(series, *, xlabel, ylabel, residual_label, title):
    """Points with their model above, residuals (point minus model, with errors) below.

    series : list of `Series` with `model`; those without one are drawn above only.
    """
    figure = new_figure(7.2, 3.95)
    upper = place(figure, 0.92, 1.52, 6.08, 2.05)
    lower = place(figure, 0.92, 0.48, 6.08, 0.95, sharex=upper)
    _fill(upper, Panel(ylabel, tuple(series)))
    with_model = [(number, one) for number, one in enumerate(series) if one.model is not None]
    for number, one in with_model:
        difference = np.asarray(one.y) - np.asarray(one.model)
        residual = Series(
            one.x, difference, sigma=one.sigma, colour=one.colour, marker=one.marker, hollow=one.hollow
        )
        draw_series(lower, residual, number)
    _fill(lower, Panel(residual_label, (), reference=0.0))
    lower.set_xlabel(xlabel)
    for axes, most in ((upper, 5), (lower, 3)):
        mark(axes, "x", numbers=axes is lower)
        mark(axes, "y", most=most)
    if any(one.label for one in series):
        upper.legend(loc="best")
    head(figure, title)
    return figure


@styled
def heat_map(values, *, rows, columns, label, row_label, column_label, title, cmap=LEVELS, log=False):
    """A value for each pair of groups, written into its cell; an empty cell is NaN.

    values : (len(rows), len(columns)).   rows, columns : numbers or strings.   label : the values, with unit.
    log : colours by the logarithm; cells at or below zero stay empty.
    """
    values = np.asarray(values, dtype=np.float64)
    usable = np.where(values > 0, values, np.nan) if log else values
    shown = np.log10(usable) if log else values
    limits = robust_limits(shown, 0, 100)
    width, height = max(1.6, min(0.62 * len(columns), 8.0)), max(1.0, min(0.32 * len(rows), 6.0))
    figure = new_figure(width + 2.1, height + 1.0)
    axes = place(figure, 0.85, 0.55, width, height)
    extent = (-0.5, len(columns) - 0.5, -0.5, len(rows) - 0.5)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    _show(axes, shown, extent, limits, cmap, bad="#eceef1")
    axes.set_xticks(range(len(columns)), [f"{c:g}" if isinstance(c, float) else str(c) for c in columns])
    axes.set_yticks(range(len(rows)), [f"{r:g}" if isinstance(r, float) else str(r) for r in rows])
    axes.set(xlabel=column_label, ylabel=row_label)
    if len(columns) <= 14 and len(rows) <= 20:
        for row, column in np.argwhere(np.isfinite(shown)):
            dark = shown[row, column] < 0.5 * (limits[0] + limits[1])
            text = f"{values[row, column]:.3g}"
            axes.text(column, row, text, ha="center", va="center", size=7, color="white" if dark else "black")
    bar = place(figure, 0.85 + width + 0.12, 0.55, 0.12, height)
    colour_strip(bar, limits, cmap)
    bar.set_ylabel(f"log10 of {label}" if log else label)
    head(figure, title)
    return figure


@styled
def pull_figure(pulls, *, label, title, half_range=6.0):
    """Histogram of error / sigma against the Gaussian of width 1 that a right sigma gives."""
    counts, edges, outside = count_histogram(pulls, -half_range, half_range, 96)
    total = int(counts.sum()) + outside
    centres = 0.5 * (edges[1:] + edges[:-1])
    figure = new_figure(4.6, 3.1)
    axes = place(figure, 0.68, 0.48, 3.75, 2.25)
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.35, linewidth=0)
    axes.stairs(counts, edges, color=BLUE, linewidth=0.9, label="measured")
    gauss = np.exp(-0.5 * centres**2) / np.sqrt(2 * np.pi) * total * (edges[1] - edges[0])
    axes.plot(centres, gauss, color=RED, label="Gaussian, width 1")
    logarithmic(axes, counts, 3.0)
    axes.set(xlabel=label, ylabel="pixels", xlim=(-half_range, half_range))
    for which in "xy":
        mark(axes, which)
    axes.legend(loc="upper right")
    median, scale = robust_scale(pulls)
    middle = f"{round(median, 3) + 0.0:.3f}".replace("-", "−")
    note = f"median {middle}\nwidth {scale:.3f}\nbeyond ±{half_range:g}: {outside}"
    axes.text(0.03, 0.97, note, transform=axes.transAxes, va="top", size=7.5, color="#333840")
    head(figure, title)
    return figure
