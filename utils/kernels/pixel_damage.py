"""Damaged pixels: outliers of single flats by the noise of the pair, what they are called, the slope of every pixel."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from utils.kernels.pieces import in_pieces

FALSE_PER_FLAT = 1e-3
"""Pixels that noise alone may make outliers, for each flat."""
SUPPORTED = 2.0
"""A pixel that the mean of a flat's epoch shows is an outlier of that flat from so many sigma on."""
IGNORING = "ignore_temp"
"""Label of an occurrence that the comparison without regard to temperature found."""
NO_TEMPERATURE = frozenset({"", "all", "none", "ignore", IGNORING, "time_ignore_temp", "by_time_ignore_temp"})
DAMAGE, LIKELY, TEMPERATURE = "Sensor Damage", "Likely Sensor", "Temperature"


def outlier_limit(pixels, expected=FALSE_PER_FLAT):
    """Significance that noise alone lifts ``expected`` of so many pixels beyond, both ways together."""
    return float(-special.ndtri(min(expected / (2.0 * max(pixels, 1)), 0.25)))


@dataclass(frozen=True, eq=False)
class Outliers:
    """Outliers of one difference.

    pixels : (k,) int, flat indices.  change : (k,) float32.  scatter : standard deviation
    of the difference over all good pixels.  expected : what noise alone would give.
    """

    pixels: np.ndarray
    change: np.ndarray
    scatter: float
    expected: float


def find_outliers(change, weight, variance, limit, shown=None, extra=None):
    """Find the pixels of a difference that noise does not explain.

    change : (ny, nx) relative, without its smooth part.  weight : (ny, nx) inverse variance of a pixel over that of the
    typical one, 0 = bad.  variance : of the typical pixel.  limit : [sigma].
    shown : (ny, nx) int8, +1 or -1 where the mean of the epoch shows a brighter or darker pixel, or None.
    extra : (ny, nx) variance that comes on top, or None.
    Returns `Outliers`.
    """
    limits = np.float32(limit * limit), np.float32(SUPPORTED * SUPPORTED)
    maps = [np.ascontiguousarray(one) for one in (change, weight)]
    optional = [None if one is None else np.ascontiguousarray(one) for one in (shown, extra)]
    given = [one for one in optional if one is not None]
    found, start = [], 0
    total = squares = noise = 0.0
    count = 0
    for pieces in in_pieces(*maps, *given):
        y, w = pieces[:2]
        more = iter(pieces[2:])
        own_shown = None if shown is None else next(more)
        scale = np.float32(1.0 / variance) * w
        if extra is not None:
            scale = scale / (np.float32(1.0) + scale * next(more))
        ratio = y * y * scale
        out = ratio > limits[0]
        if own_shown is not None:
            out |= (ratio > limits[1]) & (y * own_shown > 0)
        found.append(np.flatnonzero(out) + start)
        good = w > 0
        seen = y[good].astype(np.float64)
        count += seen.size
        total += float(seen.sum())
        squares += float(seen @ seen)
        noise += float((1.0 / scale[good]).sum(dtype=np.float64))
        start += y.size
    pixels = np.concatenate(found)
    mean = total / max(count, 1)
    scatter = math.sqrt(max(squares / max(count, 1) - mean * mean, 0.0))
    return Outliers(pixels, maps[0].reshape(-1)[pixels].copy(), scatter, math.sqrt(noise / max(count, 1)))


def shown_pixels(change, weight, variance, limit):
    """Direction of the pixels that the mean of an epoch shows: (ny, nx) int8, +1 brighter, -1 darker, 0 neither."""
    shown = np.zeros(change.shape, np.int8)
    flat, signed = shown.reshape(-1), np.reshape(change, -1)
    found = find_outliers(change, weight, variance, limit).pixels
    flat[found] = np.sign(signed[found]).astype(np.int8)
    return shown


# --- labels ---------------------------------------------------------------------------------------------


def label_of(temperatures, times):
    """Label of a pixel that was an outlier at so many different temperatures (or stages) and times; arrays too."""
    labels = np.where(
        np.asarray(temperatures) >= 2,
        DAMAGE,
        np.where((np.asarray(temperatures) == 1) & (np.asarray(times) >= 2), LIKELY, TEMPERATURE),
    )
    return str(labels) if labels.ndim == 0 else labels


def classify_outliers(occurrences):
    """Label pixels by where and when they were outliers.

    occurrences : list of mappings (row, col) -> set of (label, time), one mapping a temperature, stage or comparison.
    label : a temperature or stage; None or ``IGNORING`` for what was found without regard to temperature: it adds times,
    never a temperature.
    Returns a list of dicts pixel (row, col), num_occurrences, temp_labels, times (sorted lists), classification:
    'Sensor Damage' at two or more temperatures or stages, 'Likely Sensor' at one but several times, else 'Temperature'.
    The most damaged come first.
    """
    merged = {}
    for mapping in occurrences:
        for pixel, seen in mapping.items():
            merged.setdefault(tuple(int(one) for one in pixel), set()).update(tuple(one) for one in seen)
    rows = []
    for pixel, seen in merged.items():
        labels = sorted({label for label, _ in seen if not ignores_temperature(label)}, key=_order)
        times = sorted({time for _, time in seen if time is not None}, key=_order)
        # Two looks at one flat are one occurrence.
        named = {(label, time) for label, time in seen if not ignores_temperature(label)}
        others = {time for label, time in seen if ignores_temperature(label)} - {time for _, time in named}
        rows.append(
            {
                "pixel": pixel,
                "num_occurrences": len(named) + len(others),
                "temp_labels": labels,
                "times": times,
                "classification": label_of(len(labels), len(times)),
            }
        )
    rank = {DAMAGE: 0, LIKELY: 1, TEMPERATURE: 2}
    rows.sort(key=lambda row: (rank[row["classification"]], -row["num_occurrences"], row["pixel"]))
    return rows


def ignores_temperature(label):
    """Whether a label stands for the comparison without regard to temperature."""
    return label is None or (isinstance(label, str) and label.strip().lower() in NO_TEMPERATURE)


def _order(value):
    return (0, float(value), "") if isinstance(value, (int, float, np.number)) else (1, 0.0, str(value))


def cluster_sizes(rows, columns, shape):
    """Number of outliers in the connected cluster of each, itself included; corners touch.

    rows, columns : (k,) int.  shape : (ny, nx).  Returns (k,) int.  Large clusters are dust or stains, not single pixels.
    """
    from scipy import ndimage

    seen = np.zeros(shape, bool)
    seen[rows, columns] = True
    labels, count = ndimage.label(seen, np.ones((3, 3), int))
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    return sizes[labels[rows, columns]]


# --- trends ---------------------------------------------------------------------------------------------


def slope_contrast(group, time, information):
    """Weights that turn planes of change into the slope of every pixel over time.

    group : (p,) int, planes of one number share an unknown zero point.  time : (p,).  information : (p,), 1 / variance of
    a typical pixel.  Least squares of ``change = zero[group] + slope * time``.
    Returns weights (p,), which sum to 0 over each group, so that the noise of its reference drops out, and the variance
    of the slope of a typical pixel (inf where the times do not differ inside any group).
    """
    group, time = np.asarray(group), np.asarray(time, np.float64)
    information = np.asarray(information, np.float64)
    centred = np.zeros(time.size)
    for number in np.unique(group):
        mine = group == number
        centred[mine] = time[mine] - np.average(time[mine], weights=information[mine])
    total = float((information * centred**2).sum())
    if not total > 0:
        return np.zeros(time.size), math.inf
    return information * centred / total, 1.0 / total
