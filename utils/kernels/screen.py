"""One screen for single frames before they are combined: what does not belong to its group, and why."""

from dataclasses import dataclass

import numpy as np

from utils.kernels.median_network import median_pair
from utils.kernels.medians import median

CODES = {
    "LEVEL_JUMP": "level differs from the rest of its group",
    "LIGHT_LEAK": "level is too high in part of the frame",
    "ZERO_BLOCK": "block of rows holds only zeros",
    "DROPPED_ROWS": "rows are constant or repeat the row before",
    "SATURATED": "too many saturated pixels",
    "NO_DATA": "no finite sample",
    "UNSTABLE_TEMPERATURE": "temperature changed during the exposure",
}
"""Reason codes of rejected frames."""


@dataclass(frozen=True)
class ScreenLimits:
    """Thresholds of the screen.

    jump_mad : a level jump exceeds this many robust sigma of the group's frame levels (more in groups of few), and
    jump_noise pixel sigma.
    bad_rows : rows that may be bad in a frame.  saturated_fraction : pixels that may be saturated.
    common_fraction : when more frames than this share a fault of level or zero rows, it is the group's way, not a
    fault.
    min_frames : a level is judged only among at least so many frames.
    unstable : change of temperature during one exposure [degC].
    """

    jump_mad: float = 8.0
    jump_noise: float = 0.5
    bad_rows: int = 0
    saturated_fraction: float = 0.02
    common_fraction: float = 0.4
    min_frames: int = 5
    unstable: float = 0.5


def frame_levels(samples, each=map):
    """Level of each frame against its group, how uneven that difference is, and its noise.

    samples : (n, r, nx) sampled rows [ADU], NaN = unusable.  each : calls a function with every frame's number, as map.
    Returns level (n,) [ADU], difference from the group's median image; unevenness (n,) [ADU]: the largest minus the
    smallest level of that difference over eight tiles, 0 for frames whose level is not odd; spread (n,) [ADU]: its
    scatter without outliers.
    """
    reference = _median_image(samples)
    found = list(each(lambda index: robust_level(samples[index] - reference), range(len(samples))))
    level, spread = np.array(found).T
    uneven = np.zeros(len(samples))
    away = np.abs(level - np.nanmedian(level)) if np.isfinite(level).any() else level
    for index in np.flatnonzero(away > 3.0 * 1.4826 * np.nanmedian(away)):
        # Only a frame whose level is odd is asked where it is so.
        difference = samples[index] - reference
        tiles = [
            robust_level(tile)[0]
            for band in np.array_split(difference, min(2, difference.shape[0]), axis=0)
            for tile in np.array_split(band, min(4, difference.shape[1]), axis=1)
        ]
        uneven[index] = np.nanmax(tiles) - np.nanmin(tiles)
    return level, uneven, spread


def _median_image(samples):
    """Median of the frames at every sampled pixel; blank samples (NaN) take no part."""
    reference = 0.5 * np.add(*median_pair(samples))
    rows, columns = np.nonzero(np.isnan(samples).any(axis=0))
    some = samples[:, rows, columns]
    known = np.isfinite(some).any(axis=0)
    reference[rows, columns] = np.nan
    reference[rows[known], columns[known]] = np.nanmedian(some[:, known], axis=0)
    return reference


def robust_level(values):
    """Mean and scatter of the values after those beyond 5 robust sigma are drawn in; NaN if none is finite.

    A median would be as coarse as the converter's step.
    """
    finite = np.isfinite(values)
    values = values.ravel() if finite.all() else values[finite]
    if values.size == 0:
        return float("nan"), float("nan")
    centre = median(values)
    reach = 5.0 * 1.4826 * median(np.abs(values - centre)) + 1.0
    drawn = np.clip(values - centre, -reach, reach)
    return float(centre + drawn.mean()), float(drawn.std())


def judge_levels(level, uneven, sigma, tile_pixels, expected=None, session=None, limits=None):
    """Frames whose level does not belong to the group.

    level, uneven : (n,) from `frame_levels` [ADU].  sigma : noise of one pixel [ADU].  tile_pixels : pixels in a tile.
    expected : (n,) level that temperature explains [ADU].  session : (n,) int, levels are compared within a session.
    A level that is not finite takes no part.
    Returns a dict {frame index: (code, detail)} and the number of frames off the level of their group that were kept
    because they are too many to be the fault of single frames.
    """
    limits = limits or ScreenLimits()
    level = np.asarray(level, dtype=np.float64) - (0.0 if expected is None else np.asarray(expected))
    session = np.zeros(level.size, int) if session is None else np.asarray(session)
    found, tolerated = {}, 0
    for number in np.unique(session):
        member = np.flatnonzero((session == number) & np.isfinite(level))
        if member.size < limits.min_frames:
            continue
        deviation = level[member] - np.median(level[member])
        spread = 1.4826 * np.median(np.abs(deviation))
        # The MAD of few levels is often far too small: 1 group of 5 in 20 has a level 8 MAD off.
        few = 1.0 + (10.0 / member.size) ** 2
        limit = max(limits.jump_mad * few * spread, limits.jump_noise * sigma)
        jumped = member[np.abs(deviation) > limit]
        if jumped.size > limits.common_fraction * member.size:
            tolerated += jumped.size
            continue
        patchy = max(6.0 * 1.2533 * sigma / np.sqrt(tile_pixels) * 2.0, 0.3 * sigma)
        for index in jumped:
            high = level[index] - np.median(level[member])
            code = "LIGHT_LEAK" if high > 0 and uneven[index] > patchy else "LEVEL_JUMP"
            found[int(index)] = (code, f"level {high:+.2f} ADU against its group, limit {limit:.2f}")
    return found, tolerated


def judge_rows(zero, frozen, limits=None):
    """Frames with rows that the group does not show.

    zero, frozen : (n, ny) bool, rows that hold only zeros in a strip, and rows constant or equal to the row before.
    A row that is so in half of the group (a masked row, a column of the amplifier) is no fault of a frame, nor are
    zeros here and there in many frames (a bias level near zero). A frame without any other row is always at fault.
    Returns a dict {frame index: (code, detail)} and the number of frames with zeros that were kept for that reason.
    """
    limits = limits or ScreenLimits()
    found, tolerated = {}, 0
    for code, rows in (("DROPPED_ROWS", frozen), ("ZERO_BLOCK", zero)):
        usual = rows.mean(axis=0) >= 0.5 if len(rows) > 2 else np.zeros(rows.shape[1], bool)
        count = (rows & ~usual).sum(axis=1)
        whole = rows.all(axis=1)
        faulty = (count > limits.bad_rows) & ~whole
        if code == "ZERO_BLOCK" and faulty.sum() > max(1, limits.common_fraction * len(rows)):
            tolerated = int(faulty.sum())
            faulty[:] = False
        for index in np.flatnonzero(faulty):
            first = int(np.flatnonzero(rows[index] & ~usual)[0])
            found[int(index)] = (code, f"{count[index]} rows, the first is row {first}")
        for index in np.flatnonzero(whole):
            found[int(index)] = (code, f"all {rows.shape[1]} rows")
    return found, tolerated


def judge_temperatures(temperature, time, exposure, limits=None):
    """Frames during which the temperature changed too much, by the rate between neighbouring frames.

    temperature [degC], time [Unix s, NaN = unknown], exposure [s] : (n,) each.
    Returns a dict {frame index: (code, detail)}.
    """
    limits = limits or ScreenLimits()
    temperature, time, exposure = (np.asarray(a, dtype=np.float64) for a in (temperature, time, exposure))
    order = np.flatnonzero(np.isfinite(time))
    order = order[np.argsort(time[order], kind="stable")]
    # Frames cannot follow faster than they are exposed, whatever a coarse clock says.
    pause = np.maximum(np.diff(time[order]), np.maximum(exposure[order][:-1], 1e-3))
    rate = np.abs(np.diff(temperature[order])) / pause
    change = np.zeros(temperature.size)
    # The calmer neighbour counts: a jump between two series is no drift during either frame.
    if order.size > 2:
        change[order] = np.minimum(np.r_[rate[0], rate], np.r_[rate, rate[-1]]) * exposure[order]
    return {
        int(index): ("UNSTABLE_TEMPERATURE", f"{change[index]:.2f} degC during {exposure[index]:g} s")
        for index in np.flatnonzero(change > limits.unstable)
    }
