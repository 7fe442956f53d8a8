"""One screen for single frames before they are combined: what does not belong to its group, and why."""

from dataclasses import dataclass

import numpy as np

from utils.kernels.median_network import median_pair

CODES = {
    "LEVEL_JUMP": "level differs from the rest of its group",
    "LIGHT_LEAK": "level is too high in part of the frame",
    "ZERO_BLOCK": "block of rows holds only zeros",
    "DROPPED_ROWS": "rows are constant or repeat the row before",
    "SATURATED": "too many saturated pixels",
    "UNSTABLE_TEMPERATURE": "temperature changed during the exposure",
}
"""Reason codes of rejected frames."""


@dataclass(frozen=True)
class ScreenLimits:
    """Thresholds of the screen.

    jump_mad : a level jump exceeds this many robust sigma of the group's frame levels, and jump_noise pixel sigma.
    bad_rows : rows that may be bad in a frame.  saturated_fraction : pixels that may be saturated.
    common_fraction : when more frames than this share a fault of level, it is the group's way, not a fault.
    min_frames : a level is judged only among at least so many frames.
    """

    jump_mad: float = 8.0
    jump_noise: float = 0.5
    bad_rows: int = 0
    saturated_fraction: float = 0.02
    common_fraction: float = 0.25
    min_frames: int = 5


def frame_levels(samples):
    """Level of each frame against its group, how uneven that difference is, and its noise.

    samples : (n, r, nx) sampled rows [ADU], NaN = unusable.
    Returns level (n,) [ADU], median difference from the group's median image, and unevenness (n,) [ADU]: the largest
    minus the smallest level of that difference over eight tiles; spread (n,) [ADU]: its scatter without outliers.
    """
    reference = 0.5 * np.add(*median_pair(samples))
    level = np.empty(len(samples))
    uneven = np.empty(len(samples))
    spread = np.empty(len(samples))
    for index, rows in enumerate(samples):
        difference = rows - reference
        level[index], spread[index] = robust_level(difference)
        tiles = [
            robust_level(tile)[0]
            for band in np.array_split(difference, min(2, difference.shape[0]), axis=0)
            for tile in np.array_split(band, min(4, difference.shape[1]), axis=1)
        ]
        uneven[index] = np.nanmax(tiles) - np.nanmin(tiles) if np.isfinite(tiles).any() else 0.0
    return level, uneven, spread


def robust_level(values):
    """Mean and scatter of the values after those beyond 5 robust sigma are drawn in; NaN if none is finite.

    A median would be as coarse as the converter's step.
    """
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan"), float("nan")
    centre = np.median(values)
    reach = 5.0 * 1.4826 * np.median(np.abs(values - centre)) + 1.0
    drawn = np.clip(values - centre, -reach, reach)
    return float(centre + drawn.mean()), float(drawn.std())


def judge_levels(level, uneven, sigma, tile_pixels, expected=None, session=None, limits=None):
    """Frames whose level does not belong to the group.

    level, uneven : (n,) from `frame_levels` [ADU].  sigma : noise of one pixel [ADU].  tile_pixels : pixels in a tile.
    expected : (n,) level that temperature explains [ADU].  session : (n,) int, levels are compared within a session.
    Returns a dict {frame index: (code, detail)}.
    """
    limits = limits or ScreenLimits()
    level = np.asarray(level, dtype=np.float64) - (0.0 if expected is None else np.asarray(expected))
    session = np.zeros(level.size, int) if session is None else np.asarray(session)
    found = {}
    for number in np.unique(session):
        member = np.flatnonzero(session == number)
        if member.size < limits.min_frames:
            continue
        deviation = level[member] - np.nanmedian(level[member])
        spread = 1.4826 * np.nanmedian(np.abs(deviation))
        limit = max(limits.jump_mad * spread, limits.jump_noise * sigma)
        jumped = member[~(np.abs(deviation) <= limit)]
        if jumped.size > limits.common_fraction * member.size:
            continue
        patchy = max(6.0 * 1.2533 * sigma / np.sqrt(tile_pixels) * 2.0, 0.3 * sigma)
        for index in jumped:
            high = level[index] - np.nanmedian(level[member])
            code = "LIGHT_LEAK" if high > 0 and uneven[index] > patchy else "LEVEL_JUMP"
            found[int(index)] = (code, f"level {high:+.2f} ADU against its group, limit {limit:.2f}")
    return found


def judge_rows(zero, frozen, limits=None):
    """Frames with rows that the group does not show.

    zero, frozen : (n, ny) bool, rows that hold only zeros in a strip, and rows constant or equal to the row before.
    A row that is so in half of the group (a masked row, a column of the amplifier) is no fault of a frame.
    Returns a dict {frame index: (code, detail)}.
    """
    limits = limits or ScreenLimits()
    found = {}
    for code, rows in (("DROPPED_ROWS", frozen), ("ZERO_BLOCK", zero)):
        usual = rows.mean(axis=0) >= 0.5 if len(rows) > 2 else np.zeros(rows.shape[1], bool)
        count = (rows & ~usual).sum(axis=1)
        for index in np.flatnonzero(count > limits.bad_rows):
            first = int(np.flatnonzero(rows[index] & ~usual)[0])
            found[int(index)] = (code, f"{count[index]} rows, the first is row {first}")
    return found
