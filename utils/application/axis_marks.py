"""Ticks, numbers and grid of an axis, drawn as a few plain artists.

matplotlib makes five artists for each tick and measures all of them to place a label: half the time of a figure.
Here the ticks of an axis are one artist, its grid one, its numbers one text each, and the label stands at the place
that the longest number leaves free.
"""

import math

import numpy as np

TICK, PAD = 3.5, 3.5  # length of a tick, and from there to its number [points]
NUMBERS = 8  # size of the numbers [points]
_LINE = 1.18  # height of a line of numbers over its size
_LABEL_PAD = 4.0
_GRID, _TICKS, _TEXT = "#e3e6ea", "#7b818a", "#333840"


def mark(axes, which, *, most=None, whole=False, grid=True, numbers=True, far=False):
    """Mark the x or y axis of `axes`, once its data and limits are final.

    which : "x" or "y".   most : steps at most (default: what there is room for).   whole : whole numbers only.
    grid, numbers : whether there are lines across, and numbers at the ticks.   far : on the right or upper side.
    An axis with a logarithmic scale is marked at powers of ten.
    """
    from matplotlib.ticker import NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    length = _length(axes, which)
    if axis.get_scale() == "log":
        values = powers_of_ten(low, high, most or 6)
        texts, factor = [_power(value) for value in values], ""
    else:
        room = length / (NUMBERS * (3.2 if which == "x" else 2.0))
        values = steps(low, high, most or int(min(max(room, 1), 9)), whole)
        texts, factor = numbers_of(values)
    axis.set_major_locator(NullLocator())
    axis.set_minor_locator(NullLocator())
    _draw_marks(axes, which, values, grid, far)
    wide = 0.0
    if numbers:
        _draw_numbers(axes, which, values, texts, factor, far)
        wide = max(map(_width, texts), default=0.0) if which == "y" else _LINE * NUMBERS
    _place_label(axes, which, TICK + PAD + wide + _LABEL_PAD, far)


def steps(low, high, most, whole=False):
    """Round values from `low` to `high`, at most `most` steps; whole : whole numbers only."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return np.array([low]) if math.isfinite(low) else np.empty(0)
    power = 10.0 ** math.floor(math.log10(span / most))
    choices = [factor * scale * power for scale in (1.0, 10.0) for factor in (1.0, 2.0, 2.5, 5.0)]
    choices.append(100.0 * power)
    if whole:
        choices = [choice for choice in choices if choice >= 1 and choice == round(choice)] or [1.0]
    for step in choices:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first <= most:
            break
    return step * np.arange(first, last + 1)


def powers_of_ten(low, high, most):
    """Powers of ten from `low` to `high`, at most `most` of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first + 1) / most))
    return 10.0 ** np.arange(first, last + 1, stride)


def numbers_of(values):
    """Texts of evenly spaced values, all with as many decimals as their step needs, and their common factor ("")."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        return [], ""
    largest = float(np.abs(values).max())
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    power = power if power >= 6 or power < -3 else 0
    values = values / 10.0**power
    step = float(values[1] - values[0]) if values.size > 1 else abs(float(values[0])) or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:  # a step of 2.5
        decimals += 1
    texts = [f"{value + 0.0:.{decimals}f}".replace("-", "−") for value in np.round(values, decimals)]
    return texts, f"× 10{_raised(power)}" if power else ""


def _power(value):
    power = round(math.log10(value))
    return f"{value:g}" if -2 < power < 4 else f"10{_raised(power)}"


def _raised(power):
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _width(text):
    """Width of a number [points], from the advances of the font's characters."""
    return NUMBERS * sum({"−": 0.838, ".": 0.318}.get(letter, 0.636) for letter in text)


def _length(axes, which):
    """Length of an axis [points]."""
    width, height = axes.figure.get_size_inches()
    box = axes.get_position(original=True)
    return 72.0 * (box.width * width if which == "x" else box.height * height)


def _draw_marks(axes, which, values, grid, far):
    from matplotlib.lines import Line2D

    across = axes.get_xaxis_transform("grid") if which == "x" else axes.get_yaxis_transform("grid")
    if grid and len(values):
        along = np.repeat(np.asarray(values, dtype=np.float64), 3)
        along[2::3] = np.nan
        side = np.tile([0.0, 1.0, np.nan], len(values))
        lines = (along, side) if which == "x" else (side, along)
        axes.add_artist(Line2D(*lines, transform=across, color=_GRID, linewidth=0.6, zorder=0.5))
    side = np.full(len(values), 1.0 if far else 0.0)
    places = (values, side) if which == "x" else (side, values)
    marker = {("x", False): 3, ("x", True): 2, ("y", False): 0, ("y", True): 1}[
        which, far
    ]  # down, up, left, right
    look = {
        "marker": marker,
        "markersize": TICK,
        "markeredgewidth": 0.8,
        "color": _TICKS,
        "linestyle": "none",
    }
    axes.add_artist(Line2D(*places, transform=across, clip_on=False, zorder=2.01, **look))


def _draw_numbers(axes, which, values, texts, factor, far):
    name = f"get_{which}axis_text{2 if far else 1}_transform"
    transform, vertical, horizontal = getattr(axes, name)(TICK + PAD)
    look = {"size": NUMBERS, "color": _TEXT, "transform": transform}
    side = 1.0 if far else 0.0
    for value, text in zip(values, texts, strict=True):
        place = (value, side) if which == "x" else (side, value)
        axes.text(*place, text, va=vertical, ha=horizontal, **look)
    if factor:
        place = {"x": (1.0, 0.02), "y": (side, 1.02)}[which]
        aligned = {"ha": "right"} if which == "x" or far else {"ha": "left"}
        axes.text(*place, factor, va="bottom", size=NUMBERS, color=_TEXT, transform=axes.transAxes, **aligned)


def _place_label(axes, which, distance, far):
    """Put the label `distance` points from the axis."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if far:
        axis.set_label_position("right" if which == "y" else "top")
    share = distance / _length(axes, "y" if which == "x" else "x")
    across = 1.0 + share if far else -share
    axis.set_label_coords(*((0.5, across) if which == "x" else (across, 0.5)))
