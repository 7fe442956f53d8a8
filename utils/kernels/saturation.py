"""Where a camera saturates below the end of its converter's range, read from the frames themselves.

Four signs, each of which ordinary light cannot give: many samples share the largest value; the scatter collapses where
the level is highest; the scatter is cut off upwards; or pixels stick at levels of their own, so that frames of longer
exposure are no brighter and far more uneven.
"""

from dataclasses import dataclass

import numpy as np

from utils.kernels.medians import median, row_medians

TILE = 32
"""Neighbouring pixels of a row in a tile."""
KEPT = 0.85
"""Part of a tile's differences between neighbours, the smallest, that tells its scatter: no hit or defect does."""
PILE_SAMPLES, PILE_FRACTION, PILE_RATIO = 20, 5e-4, 4.0
"""A pile: so many samples, this part of the frame, and this many times the counts of the three next lower values."""
MIN_WIDTH = 3.0
"""Steps over which a frame's samples must spread for counts of single values to mean anything."""
MIN_TILES = 20
COLLAPSE = 0.25
"""Scatter^2 over level collapses below this part of that of the most even tiles at lower levels."""
CUT_OFF = 0.55
"""Upper width of the samples in a tile over the lower width: 1 for light, small where the top is cut off."""
STUCK_RISE, STUCK_EXPOSURE, STUCK_LEVEL = 2.0, 1.2, 1.06
"""Frames stick when their relative scatter is this many times that of others, and over this ratio of exposures their
levels stay within this ratio."""

FEWEST_HOT, FAR_ABOVE = 5, 20.0
"""Hot pixels that share the largest value in two frames, and that value above the level in units of the scatter."""
TYPICAL_PIXELS = 1 << 17


@dataclass(frozen=True, eq=False)
class FrameTop:
    """What one frame tells: per tile (n,) level, var (scatter^2 between neighbours), lower and upper width [ADU].

    median : of the frame.  pile : largest value where samples pile up at it, else NaN.  constant : all samples are equal.
    step : smallest difference between two values.
    """

    level: np.ndarray
    var: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    median: float
    pile: float
    constant: bool
    step: float


@dataclass(frozen=True, eq=False)
class Saturation:
    """level : samples at or above it are saturated [ADU], inf where nothing shows.  reason : words, '' where nothing shows.

    frames : (n,) bool, frames that show it.
    """

    level: float
    reason: str
    frames: np.ndarray


def describe_frame(rows):
    """Reduce sampled rows of one frame to what `saturation_level` needs, some 30 kB.

    rows : (r, nx) whole rows, neighbours side by side, as the converter gave them (no pedestal subtracted) [product ADU];
    NaN = blank.  Returns a `FrameTop`.
    """
    rows = np.asarray(rows, dtype=np.float32)
    width = min(TILE, rows.shape[1])
    tiles = rows[:, : rows.shape[1] // width * width].reshape(-1, width)
    tiles = tiles[np.isfinite(tiles).all(axis=1)]
    values = np.sort(rows[np.isfinite(rows)], axis=None)
    distinct, counts = np.unique(values, return_counts=True)
    step = float(np.diff(distinct).min()) if distinct.size > 1 else 0.0
    if not len(tiles):
        tiles = np.empty((0, width), np.float32)
    ordered = np.sort(tiles, axis=1)
    at = [round(q * (width - 1)) for q in (0.1, 0.9)]
    level = row_medians(ordered) if len(tiles) else np.empty(0)
    squares = np.sort(np.square(np.diff(tiles, axis=1)), axis=1)[:, : max(1, int(KEPT * (width - 1)))]
    return FrameTop(
        level=level,
        var=squares.mean(axis=1),
        lower=level - ordered[:, at[0]],
        upper=ordered[:, at[1]] - level,
        median=float(values[values.size // 2]) if values.size else float("nan"),
        pile=_pile(distinct, counts, step),
        constant=distinct.size == 1,
        step=step,
    )


def _pile(distinct, counts, step):
    """Largest value, where samples pile up at it; NaN elsewhere."""
    total = counts.sum()
    if distinct.size < 4:
        return float("nan")
    below = np.cumsum(counts)
    low, high = (distinct[np.searchsorted(below, q * total)] for q in (0.05, 0.95))
    if high - low < 2 * 1.645 * MIN_WIDTH * step:
        return float("nan")
    piled = (
        counts[-1] >= max(PILE_SAMPLES, PILE_FRACTION * total)
        and counts[-1] > PILE_RATIO * counts[-4:-1].mean()
    )
    return float(distinct[-1]) if piled else float("nan")


def values_at_top(values, several=True, lit=False):
    """Largest value of an image, and the pixels that pile up at it far above all others.

    values : (m,) of all pixels of a frame that is dark but for hot pixels, or the smaller of two frames in each; -inf =
    blank.  several : values are of more than one frame, so that fewer pixels do.  lit : of flats, whose own pixels come
    near the top; the pile alone tells.
    Returns the largest value and the flat indices of its pixels, empty where they are no pile.
    """
    nothing = np.empty(0, np.intp)
    some = values[:: max(1, values.size // TYPICAL_PIXELS) | 1]
    some = some[np.isfinite(some)]
    top = float(values.max()) if values.size else -np.inf
    if some.size == 0:
        return top, nothing
    middle = float(median(some))
    spread = 1.4826 * float(median(np.abs(some - middle)))
    above = 0.0 if lit else FAR_ABOVE * (spread + 1.0)
    if not (np.isfinite(top) and top - middle > above):
        return top, nothing
    _, counts = np.unique(values[values > 0.5 * (top + middle)], return_counts=True)
    below = counts[-4:-1]
    piled = counts[-1] >= (FEWEST_HOT if several else PILE_SAMPLES)
    if not piled or (below.size and counts[-1] <= PILE_RATIO * below.mean()):
        return top, nothing
    return top, np.flatnonzero(values == np.asarray(top, values.dtype))


def saturation_level(frames, converter_max=np.inf, exposures=None):
    """Level at which a camera saturates.

    frames : sequence of `FrameTop`, flats of one gain and offset, of any exposure; frames of other levels are what the
    collapse of the scatter is judged by.  converter_max : largest value of the converter [ADU].  exposures : (n,) [s], None
    = unknown, then pixels that stick at levels of their own are not looked for.
    Returns `Saturation`: the lowest level of any sign, never above ``converter_max``; inf where nothing shows.
    """
    exposures = np.full(len(frames), np.nan) if exposures is None else np.asarray(exposures, dtype=np.float64)
    nothing = np.zeros(len(frames), bool)
    signs = [
        sign
        for sign in (_piled(frames), _collapsed(frames), _cut_off(frames), _stuck(frames, exposures))
        if sign
    ]
    if not signs:
        return Saturation(float("inf"), "", nothing)
    level, reason, shown = min(signs, key=lambda sign: sign[0])
    return Saturation(float(min(level, converter_max)), reason, shown)


def _piled(frames):
    """Many samples of a frame have its largest value, or all samples of it one value above 0."""
    top = np.array(
        [one.median if one.constant and one.median > 0 else one.pile for one in frames], dtype=np.float64
    )
    shown = np.isfinite(top)
    if not shown.any():
        return None
    # Zeros, or a frame that a fault filled with one low value, are not the top of anything.
    highest = max(one.level.max(initial=0.0) for one in frames)
    shown &= ~(np.array([one.constant for one in frames]) & (top < 0.999 * highest))
    if not shown.any():
        return None
    return float(np.nanmin(top[shown])), "samples pile up at the largest value", shown


def _collapsed(frames):
    """Tiles at the highest levels scatter far less than light at lower levels."""
    level, var, owner = _all_tiles(frames)
    order = np.argsort(level)
    level, var, owner = level[order], var[order], owner[order]
    if level.size < 3 * MIN_TILES or level[-1] <= 0:
        return None
    # From the top down: where the tiles from here on are mostly collapsed, against those clearly below.
    below = np.searchsorted(level, 0.9 * level[-1])
    bright = level[:below] > 0.02 * level[-1]
    if bright.sum() < MIN_TILES:
        return None
    slope = np.quantile(var[:below][bright] / level[:below][bright], 0.1)
    low = (level > 0) & (var < COLLAPSE * slope * level)
    share = np.cumsum(low[::-1])[::-1] / np.arange(level.size, 0, -1)
    count = np.cumsum(low[::-1])[::-1]
    start = np.flatnonzero((share >= 0.8) & (count >= MIN_TILES) & low)
    start = start[level[start] > 0.5 * level[-1]] if start.size else start
    if not start.size:
        return None
    plateau = np.arange(level.size) >= start[0]
    plateau &= low
    width = np.sqrt(median(var[plateau]))
    bottom = float(np.quantile(level[plateau], 0.1) - 3.0 * width)
    shown = np.bincount(owner[plateau], minlength=len(frames)) >= MIN_TILES
    return bottom, "the scatter collapses at the highest levels", shown


def _cut_off(frames):
    """The brightest tiles of a frame scatter downwards as light does, upwards not."""
    found, shown = [], np.zeros(len(frames), bool)
    for index, one in enumerate(frames):
        if one.level.size < MIN_TILES:
            continue
        bright = one.level >= np.quantile(one.level, 0.75)
        lower, upper = median(one.lower[bright]), median(one.upper[bright])
        if bright.sum() >= MIN_TILES and lower > MIN_WIDTH * one.step and upper < CUT_OFF * lower:
            shown[index] = True
            found.append(float(median((one.level + one.upper)[bright]) - 3.0 * upper))
    if not found:
        return None
    return min(found), "the scatter is cut off upwards", shown


def _stuck(frames, exposures):
    """Frames of longer exposure are no brighter, and far more uneven than frames a little fainter."""
    middle = np.array([one.median for one in frames])
    uneven = np.array([_unevenness(one) for one in frames])
    known = np.isfinite(middle) & np.isfinite(uneven) & (middle > 0) & (exposures > 0)
    if known.sum() < 4:
        return None
    peak = middle[known].max()
    top = known & (middle >= peak / STUCK_LEVEL)
    # Ordinary relative scatter falls with the level, so that the brightest half of the others sets the measure.
    others = known & ~top & (middle > 0.4 * peak)
    if top.sum() < 3 or not others.any():
        return None
    stuck = top & (uneven > STUCK_RISE * median(uneven[others]))
    if stuck.sum() < 3 or np.ptp(np.log(exposures[stuck])) < np.log(STUCK_EXPOSURE):
        return None
    # Light that follows the exposure would have spread their levels as far as the exposures.
    longest, shortest = (np.log(exposures[stuck]).argmax(), np.log(exposures[stuck]).argmin())
    grown = middle[stuck][longest] / middle[stuck][shortest]
    if grown > STUCK_EXPOSURE ** (1 / 3):
        return None
    levels = np.concatenate([one.level for one, yes in zip(frames, stuck, strict=True) if yes])
    return float(np.quantile(levels, 0.1)), "longer exposures are no brighter and far more uneven", stuck


def _unevenness(frame):
    good = frame.level > 0
    return float(median(np.sqrt(frame.var[good]) / frame.level[good])) if good.any() else float("nan")


def _all_tiles(frames):
    level = np.concatenate([one.level for one in frames]) if frames else np.empty(0)
    var = np.concatenate([one.var for one in frames]) if frames else np.empty(0)
    owner = np.repeat(np.arange(len(frames)), [one.level.size for one in frames])
    return level.astype(np.float64), var.astype(np.float64), owner
