"""Figures of the flat pipeline: functions from arrays to a `matplotlib.figure.Figure`; no files, no pyplot.

Flats have no unit, temperatures are in degC, exposures in s, maps (ny, nx) with NaN where there is no value.
"""

import numpy as np

from utils.application.axis_marks import mark
from utils.application.figure_style import (
    BLUE,
    COLOURS,
    ERRORS,
    GREY,
    LEVELS,
    MARKERS,
    RED,
    celsius,
    count_histogram,
    head,
    logarithmic,
    new_figure,
    place,
    robust_scale,
    styled,
)
from utils.application.plots import (
    Panel,
    Series,
    draw_series,
    fit_figure,
    heat_map,
    map_figure,
    map_with_histogram,
    panels_figure,
)
from utils.fits_io.naming import label as label_of
from utils.kernels.medians import median

TEMPERATURE = "temperature [°C]"
ANNULI = 60
MOST_IN_LEGEND, MOST_NAMES = 8, 45
"""Groups that a legend tells apart; names of groups that stand side by side below an axis."""
STRIPE = 0.02
"""Half width of the stripe that a profile averages, as part of the frame."""


def master_map(image, name, temperature, exposure, frames, corrected):
    """Master flat, with histogram."""
    what = "Pixel response" if corrected else "Master flat"
    title = f"{what}, {name}, {celsius(temperature)}, {exposure:g} s, {frames} frames"
    return map_with_histogram(image, label="response" if corrected else "flat", title=title)


@styled
def response_histogram(response, prnu, error, noise, name):
    """Histogram of the response of good pixels against Gaussians of the PRNU, and of PRNU and noise together.

    response : values of good pixels about 1, large scales taken out.  prnu, error, noise : relative, 1 sigma.
    """
    middle, scale = robust_scale(response)
    reach = 7.0 * max(scale, 1e-6)
    counts, edges, outside = count_histogram(response, middle - reach, middle + reach)
    total, step = int(counts.sum()) + outside, edges[1] - edges[0]
    centres = 0.5 * (edges[1:] + edges[:-1])
    figure = new_figure(4.6, 3.1)
    axes = place(figure, 0.68, 0.48, 3.75, 2.25)
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.35, linewidth=0)
    axes.stairs(counts, edges, color=BLUE, linewidth=0.9, label="good pixels")
    for sigma, colour, words in (
        (prnu, RED, f"PRNU {100 * prnu:.3f} %"),
        (float(np.hypot(prnu, noise)), GREY, "with the noise"),
    ):
        if np.isfinite(sigma) and sigma > 0:
            curve = (
                np.exp(-0.5 * ((centres - middle) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma) * total * step
            )
            axes.plot(centres, curve, color=colour, label=words)
    logarithmic(axes, counts, 3.0)
    axes.set(xlabel="response", ylabel="pixels", xlim=(edges[0], edges[-1]))
    axes.legend(loc="upper right")
    note = f"median {middle:.4f}\nwidth {100 * scale:.3f} %\nPRNU {100 * prnu:.3f} ± {100 * error:.3f} %"
    axes.text(0.03, 0.97, note, transform=axes.transAxes, va="top", size=7.5, color="#333840")
    head(figure, f"Response of the good pixels, {name}")
    return figure


def radial_profile(flat, model, centre, usable, name):
    """Flat against radius with the model, and the residual in percent.

    flat, model : (ny, nx), the flat in units of the model.  centre : (x, y) [pixels].  usable : (ny, nx) bool.
    """
    ny, nx = flat.shape
    good = usable & np.isfinite(flat)
    radius = np.hypot(np.arange(nx) - centre[0], np.arange(ny)[:, None] - centre[1])[good]
    radius /= 0.5 * np.hypot(nx, ny)
    fitted = model[good].astype(np.float64)
    ratio = flat[good] / fitted
    # In bytes, which are sorted in a tenth of the time.
    index = np.minimum((radius / max(radius.max(), 1e-9) * ANNULI), ANNULI - 1).astype(np.uint8)
    count = np.bincount(index, minlength=ANNULI)
    order = np.argsort(index, kind="stable")
    rings = np.split(order, np.cumsum(count)[:-1])

    def middle(values):
        return np.array([median(values[ring]) if ring.size else np.nan for ring in rings])

    at, expected = middle(radius), middle(fitted)
    measured = expected * middle(ratio)
    scatter = np.array([robust_scale(ratio[ring])[1] if ring.size else np.nan for ring in rings])
    spread = 1.2533 * scatter * expected / np.sqrt(np.maximum(count, 1))
    shown = count > 10
    one = Series(
        at[shown], 100 * measured[shown], sigma=100 * spread[shown], model=100 * expected[shown],
        line=(at[shown], 100 * expected[shown]), label="flat (medians of annuli) and model",
    )  # fmt: skip
    return fit_figure(
        [one],
        xlabel="radius from the centre of the illumination [half diagonals]",
        ylabel="flat [% of the centre]",
        residual_label="residual [%]",
        title=f"Radial profile, {name}",
    )


def illumination_map(image, name, words):
    """Illumination, 1 at its centre."""
    return map_figure(image, label="illumination", title=f"Illumination, {name}: {words}"[:58], cmap=LEVELS)


def stripes(shape):
    """Indices of the middle rows, and of the middle columns, that a profile averages."""
    found = []
    for extent in shape:
        half = max(1, round(STRIPE * extent))
        found.append(slice(max(0, extent // 2 - half), extent // 2 + half))
    return [(found[0], slice(None)), (slice(None), found[1])]


def profiles(parts, name):
    """Middle rows and columns of the flat, averaged, with the illumination.

    parts : (flat, illumination or None) of the middle rows, and of the middle columns, as `stripes` cuts them.
    """
    panels = []
    for axis, (words, part) in enumerate(zip(("rows", "columns"), parts, strict=True)):
        series = []
        for image, label, colour in zip(part, ("flat", "illumination"), (BLUE, RED), strict=True):
            if image is not None:
                line = _along(image, axis)
                x = np.arange(line.size)
                series.append(Series(x, line, label=label, joined=True, marker="", colour=colour))
        panels.append(Panel(f"flat along the middle {words}", tuple(series)))
    return panels_figure(
        panels, xlabel="pixel along the profile", title=f"Profiles, {name}", side_by_side=True, height=1.9
    )


def _along(part, axis):
    good = np.isfinite(part)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(good, part, 0).sum(axis=axis) / good.sum(axis=axis)


def levels(groups):
    """Level of every frame in order of time; groups : list of (label, levels [ADU])."""
    if len(groups) > MOST_IN_LEGEND:
        return _levels_of_many(groups)
    series, start = [], 0
    for words, values in groups:
        series.append(
            Series(np.arange(start, start + len(values)), np.asarray(values), label=words, joined=True)
        )
        start += len(values)
    panel = Panel("level above bias and dark [ADU]", tuple(series))
    return panels_figure([panel], xlabel="frame, group after group", title="Levels of the flats", height=2.4)


@styled
def _levels_of_many(groups):
    """The same where a legend of all groups would hide them: names stand below, a colour for each filter."""
    figure = new_figure(7.2, 4.1)
    head(figure, "Levels of the flats")
    axes = place(figure, 0.92, 1.45, 6.08, 2.15)
    filters = list(dict.fromkeys(words.rsplit("_T", 1)[0] for words, _ in groups))
    start, middles = 0, []
    for words, values in groups:
        number = filters.index(words.rsplit("_T", 1)[0])
        at = np.arange(start, start + len(values))
        one = Series(at, np.asarray(values), joined=True, marker=MARKERS[number % len(MARKERS)])
        draw_series(axes, one, number)
        middles.append(start + 0.5 * (len(values) - 1))
        start += len(values)
        axes.axvline(start - 0.5, color=GREY, lw=0.5, alpha=0.5)
    every = -(-len(groups) // MOST_NAMES)
    mark(axes, "y", most=5)
    axes.set_xticks(middles[::every], [words for words, _ in groups[::every]], rotation=90, fontsize=6.5)
    axes.set_xlim(-0.7, start - 0.3)
    axes.set_ylabel("level above bias and dark [ADU]")
    axes.set_xlabel("frames, group after group" + (f" (one of {every} is named)" if every > 1 else ""))
    if len(filters) > 1:
        for number, name in enumerate(filters[: len(COLOURS)]):
            axes.plot([], [], MARKERS[number], color=COLOURS[number], ms=4, label=name)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 0.99), ncols=len(COLOURS), fontsize=7)
    return figure


def term_map(image, term, unit, name):
    """Map of one term of the model, with histogram."""
    label = f"{term} [{unit}]" if unit else term
    symmetric = term != "A"
    return map_with_histogram(image, label=label, title=f"Model: {term}, {name}", symmetric=symmetric)


def chi2_map(chi2, name):
    """Reduced chi-square of the model, with histogram."""
    return map_with_histogram(
        chi2, label="reduced χ²", title=f"Model: reduced χ², {name}", cmap=ERRORS, floor=0.0
    )


def difference_map(image, title, limits=None):
    """Master less model."""
    return map_figure(image, label="master − model", title=title, symmetric=True, limits=limits)


def error_map(image, title, label):
    """Absolute error of the model."""
    return map_figure(image, label=label, title=title, cmap=ERRORS, floor=0.0)


def heat(values, temperatures, exposures, label, title):
    """Error of the model over temperature and exposure."""
    return heat_map(
        values,
        rows=[label_of(t, 1) for t in temperatures],
        columns=[f"{e:g}" for e in exposures],
        label=label,
        row_label=TEMPERATURE,
        column_label="exposure [s]",
        title=title,
    )


def evaluation_summary(rows):
    """Errors of each master: in-sample, and left out of the fit."""
    x = np.arange(len(rows), dtype=float)

    def column(key, scale=1.0):
        return np.array([np.nan if row[key] is None else row[key] for row in rows], float) * scale

    panels = []
    for key, words, scale, reference in (
        ("mae", "MAE [%]", 100.0, None),
        ("mean_error", "mean error [%]", 100.0, 0.0),
        ("chi2_red", "reduced χ²", 1.0, 1.0),
    ):
        series = []
        for prefix, label, hollow in (("", "in-sample", False), ("left_out_", "left out", True)):
            values = column(prefix + key, scale)
            if np.isfinite(values).any():
                series.append(Series(x, values, label=label, hollow=hollow))
        panels.append(Panel(words, tuple(series), reference=reference))
    return panels_figure(
        panels, xlabel="master, in the order of the table", title="Evaluation of the flat model", height=1.3
    )
