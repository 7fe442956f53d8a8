"""Groups of frames by temperature and exposure: by gap and width, never by rounding."""

import numpy as np


def group_by_gap(values, tolerance):
    """Cut a set of numbers into groups that hang together.

    values : (n,) finite, any order.  tolerance : a gap wider than this ends a group; no group is wider than
    2 x tolerance: a continuous drift is cut at clear gaps, else into pieces of equal width.
    Returns a list of index arrays, groups in ascending order of value, indices in ascending order of value.
    Raises ValueError for a value that is not finite or a tolerance that is not positive.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values to group must be finite")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if values.size == 0:
        return []
    order = np.argsort(values, kind="stable")
    # Readings are decimal: 0.5 - 0.0 and 10.5 - 10.0 must be judged alike.
    slack = 1e-9 * (1.0 + np.abs(values).max())
    cuts = np.flatnonzero(np.diff(values[order]) > tolerance + slack) + 1
    groups = []
    for run in np.split(order, cuts):
        groups.extend(_cut_wide(run, values, 2.0 * tolerance + slack))
    return groups


def _cut_wide(run, values, width):
    ordered = values[run]
    extent = ordered[-1] - ordered[0]
    if extent <= width:
        return [run]
    gaps = np.diff(ordered)
    positive = gaps[gaps > 0]
    largest = int(np.argmax(gaps))
    if gaps[largest] > 3.0 * np.median(positive) and gaps[largest] > 0.1 * width:
        halves = [run[: largest + 1], run[largest + 1 :]]
        return [piece for half in halves for piece in _cut_wide(half, values, width)]
    pieces = int(np.ceil(extent / width))
    place = np.minimum(((ordered - ordered[0]) * (pieces / extent)).astype(int), pieces - 1)
    return [run[place == p] for p in range(pieces) if (place == p).any()]


def group_frames(temperatures, exposures=None, *, temp_tolerance=0.5, exposure_tolerance=0.01):
    """Group frames by exposure (relative tolerance), then by temperature.

    temperatures : (n,) [degC].  exposures : (n,) [s] or None.  exposure_tolerance : relative width of one exposure.
    Returns a list of index arrays ordered by exposure, then temperature.
    """
    temperatures = np.asarray(temperatures, dtype=np.float64)
    if exposures is None:
        return group_by_gap(temperatures, temp_tolerance)
    exposures = np.asarray(exposures, dtype=np.float64)
    groups = []
    for same in group_by_gap(np.log(np.maximum(exposures, 1e-9)), exposure_tolerance):
        groups.extend(same[part] for part in group_by_gap(temperatures[same], temp_tolerance))
    return groups


def sessions_by_time(times, gap):
    """Number the sessions of frames: a pause longer than ``gap`` starts a new one.

    times : (n,) [s], NaN where unknown.  gap : [s].
    Returns (n,) int: 0 for the earliest session; frames without a time join session 0.
    """
    times = np.asarray(times, dtype=np.float64)
    session = np.zeros(times.size, dtype=int)
    known = np.flatnonzero(np.isfinite(times))
    if known.size:
        order = known[np.argsort(times[known], kind="stable")]
        session[order[1:]] = np.cumsum(np.diff(times[order]) > gap)
    return session
