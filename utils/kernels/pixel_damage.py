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

    pixels : (k,) int, flat indices, ascending.  change : (k,) float32.  scatter : standard deviation of the difference
    over all good pixels.
    """

    pixels: np.ndarray
    change: np.ndarray
    scatter: float


def find_outliers(change, weight, variance, limit, *, good=None, shown=None, extra=None):
    """Find the pixels of a difference that noise does not explain.

    change : (ny, nx) relative, without its smooth part, 0 at bad pixels.  weight : (ny, nx) inverse variance of a pixel
    over that of the typical one, 0 = bad.  variance : of the typical pixel.  limit : [sigma].
    good : number of pixels with a weight, None = counted.
    shown : `Outliers` of the mean of the epoch, or None: of its pixels SUPPORTED sigma of the same sign are enough.
    extra : (ny, nx) variance that comes on top, or None.
    Returns `Outliers`.
    """
    good = int(np.count_nonzero(weight)) if good is None else good
    beyond = np.float32(limit * limit * variance)
    found, start = [], 0
    total = squares = 0.0
    for y, w, *more in in_pieces(change, weight, *(() if extra is None else (extra,))):
        square = y * y
        total += float(y.sum())
        squares += float(square.sum())
        square *= _scale(w, variance, *more)
        if square.max() > beyond:
            found.append(np.flatnonzero(square > beyond) + start)
        start += y.size
    pixels = np.concatenate(found) if found else np.zeros(0, np.int64)
    flat = np.reshape(change, -1)
    if shown is not None and shown.pixels.size:
        mine = shown.pixels
        more = () if extra is None else (np.reshape(extra, -1)[mine],)
        enough = np.square(flat[mine]) * _scale(np.reshape(weight, -1)[mine], variance, *more)
        same = (enough > np.float32(SUPPORTED**2 * variance)) & (flat[mine] * shown.change > 0)
        pixels = np.union1d(pixels, mine[same])
    mean = total / max(good, 1)
    return Outliers(pixels, flat[pixels], math.sqrt(max(squares / max(good, 1) - mean * mean, 0.0)))


def _scale(weight, variance, extra=None):
    """Weight with a further variance of the pixel."""
    return (
        weight if extra is None else weight / (np.float32(1.0) + weight * extra * np.float32(1.0 / variance))
    )


def typical_noise(weight):
    """Mean of 1 / weight over the good pixels: what the variance of the typical pixel must be multiplied with."""
    total, count = 0.0, 0
    for (w,) in in_pieces(weight):
        known = w[w > 0]
        total, count = total + float((1.0 / known).sum(dtype=np.float64)), count + known.size
    return total / max(count, 1)


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
