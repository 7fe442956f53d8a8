"""Level of every flat above its pedestal, and what a small sample of its rows tells: noise, scatter, top of the range."""

import math
from dataclasses import dataclass

import numpy as np

from utils.fits_io.frame_sample import spread_rows
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.workers import in_workers
from utils.kernels import noise
from utils.kernels.flat_level import (
    LASTING_SIGMA,
    field_ratio,
    fields_differ,
    frame_level,
    lasting_ratio,
    level_against,
    trust,
)
from utils.kernels.median_network import median_pair
from utils.kernels.medians import median

LEVEL_VALUES = 1 << 16
"""Values of a frame that its level is found from, in rows that depend on the shape only."""
FEWEST_ROWS = 16
TAIL = 0.02
"""Highest part of a frame's sample that is kept to count saturated pixels."""
HOT_PART = 0.1
"""Dark of a pixel above that of the others, in parts of the light, from which on it says nothing about saturation."""
THIN = 8
"""Every so many-th column tells the light roughly."""
NOISE_VALUES = 1 << 19
WAITING_VALUES = 1 << 16
"""Values of a group that wait until its frames are judged."""
TILES = (2, 4)


def level_rows(shape):
    """Rows that tell the level of a frame: all of small frames, some of large ones, evenly spaced."""
    ny, nx = shape
    return spread_rows(ny, max(FEWEST_ROWS, -(-LEVEL_VALUES // nx)))


@dataclass(eq=False)
class LevelGroup:
    """Frames of one group whose levels are wanted.

    images : list of FitsImage.  drifts : (n,) pedestal of each frame above that of the group [ADU].  pedestal : (r, nx)
    [ADU] at the rows, NaN = not usable.  adu_scale : stored units per product ADU.  saturation : [product ADU].
    """

    images: list
    drifts: np.ndarray
    pedestal: np.ndarray
    adu_scale: float = 1.0
    saturation: float = math.inf

    def frames(self, rows):
        """Yield the sampled rows of each frame above its pedestal, (r, nx) float32 [ADU], NaN = saturated."""
        with FrameStack(self.images) as stack:
            for index, image in enumerate(self.images):
                stored = np.asarray(stack.frame_view(index)[rows], np.float32)
                values = stored * np.float32(image.bscale / self.adu_scale)
                values += np.float32(image.bzero / self.adu_scale)
                if math.isfinite(self.saturation):
                    values[values >= self.saturation] = np.nan
                values -= self.pedestal
                values -= np.float32(self.drifts[index])
                yield values


def levels_of(groups, rows, method, jobs=1):
    """Levels of the frames of one filter above their pedestals.

    groups : list of `LevelGroup`.  rows : (r,) from `level_rows`.  method : 'median', 'mean', 'max': what is 1 in the mean
    flat of the filter.  jobs : workers.
    Every frame is compared with that flat, pixel by pixel: the median of a vignetted frame alone would follow its noise,
    and a faint frame would seem brighter or darker than it is.
    Interlaced sensors read even and odd rows as two fields: where their ratio differs between the frames of a group, the
    level of each is found too. What differs is the shutter, not the pixels: a mean ratio that these frames cannot tell
    from 1 counts as 1.
    Returns a list of (levels, fields): levels (n,) [product ADU]; a frame without light has one that is not positive, or
    NaN; fields (n, 2), level of even and of odd rows relative to that of the frame and the mean flat, or None.
    """
    sums = in_workers(lambda: lambda group: _mean_rows(group, rows), groups, jobs)
    total, count = (np.sum([one[part] for one in sums], axis=0) for part in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        reference = total / count
        flats = [own / n for own, n, _ in sums]
    unit = frame_level(reference, method)
    if not unit > 0:
        return [(first, None) for _, _, first in sums]
    reference /= unit
    odd = np.asarray(rows) % 2 == 1

    def work(number):
        group, first = groups[number], sums[number][2]
        weights = trust(flats[number], reference)
        levels, ratios = [], []
        for values in group.frames(rows):
            levels.append(level_against(values, reference, weights))
            ratios.append(field_ratio(values, reference, odd))
        levels = np.where(first > 0, levels, first)
        fields = None
        if fields_differ(*np.transpose(ratios)):
            fields = np.array([_fields(values, reference, weights, odd) for values in group.frames(rows)])
            fields /= levels[:, None]
            lasting, error = lasting_ratio(reference, rows, np.transpose(ratios)[0])
            if abs(lasting - 1.0) < LASTING_SIGMA * error:
                fields *= np.sqrt([lasting, 1.0 / lasting])
        return levels, fields

    return in_workers(lambda: work, range(len(groups)), jobs)


def _fields(values, reference, weights, odd):
    return [level_against(values[odd == p], reference[odd == p], weights[odd == p]) for p in (False, True)]


def _mean_rows(group, rows):
    """Sum of the normalised frames of a group and number of samples, (r, nx), and the median level of each frame (n,)."""
    total = count = 0.0
    first = []
    for values in group.frames(rows):
        level = frame_level(values, "median")
        first.append(level)
        known = np.isfinite(values) & (level > 0)
        total = total + np.where(known, values, np.float32(0.0)) / (level if level > 0 else 1.0)
        count = count + known
    return total, count, np.array(first)


@dataclass
class FlatSample:
    """What the sampled rows of one group tell, in product ADU.

    levels : (n,) median above the pedestal.  spreads : (n,) robust scatter of each normalised frame about the group's.
    uneven : (n,) largest minus smallest tile of that difference.  within : noise of a sample of an ordinary pixel, relative
    to the level, NaN for one frame.  spatial : the same between neighbours in one frame, fixed pattern included.
    tails : (n, k) highest samples, ascending, pedestal included.  size : samples of a frame.  values : (n, m) some samples
    relative to the level, of which ``within`` is the noise; None once the frames are chosen.
    """

    levels: np.ndarray
    spreads: np.ndarray
    uneven: np.ndarray
    within: float
    spatial: float
    tails: np.ndarray
    size: int
    values: np.ndarray | None = None

    def subset(self, keep):
        """Return the sample of some of the frames: those left out must not tell the noise of the others."""
        within = self.within if len(keep) == len(self.levels) else _noise(self.values[keep])
        return FlatSample(
            self.levels[keep], self.spreads[keep], self.uneven[keep], within, self.spatial, self.tails[keep],
            self.size,
        )  # fmt: skip

    def scaled(self, factor):
        """Return the sample with ADU divided by ``factor``."""
        return FlatSample(
            self.levels / factor, self.spreads, self.uneven, self.within, self.spatial, self.tails / factor,
            self.size, self.values,
        )  # fmt: skip

    def saturated(self, limit):
        """Part of each frame's samples at or above a level [ADU], (n,); parts above TAIL count as 1."""
        count = (self.tails >= limit).sum(axis=1)
        return np.where(count == self.tails.shape[1], 1.0, count / self.size)


def hot_pixels(rows, pedestal):
    """Pixels of the sampled rows whose own dark brings them near the top: they do not tell that there is too much light.

    rows : (n, r, nx) [ADU].  pedestal : (r, nx) [ADU].  Returns (r, nx) bool.
    """
    base = _median(pedestal)
    light = max((_median(one[:, ::THIN]) - base for one in rows), default=math.nan)
    return ~(pedestal - base <= HOT_PART * light) if light > 0 else np.zeros(pedestal.shape, bool)


def sample_flats(rows, pedestal, where, hot=None):
    """Boil the sampled rows of a group down.

    rows : (n, r, nx) float32 [ADU], changed.  pedestal : (r, nx) [ADU].  where : (r,) numbers of the rows: noise is
    found with even and odd ones normalised apart where their ratio differs between frames.  hot : (r, nx) bool, pixels that
    do not count for the saturation.  Returns `FlatSample`.
    """
    n, size = len(rows), rows[0].size
    keep = max(2, math.ceil(TAIL * size))
    tails = np.stack(
        [_highest(one if hot is None else np.where(hot, np.float32(np.nan), one), keep) for one in rows]
    )
    rows -= pedestal
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = np.array([_median(one) for one in rows])
        # A frame without light has no shape; its noise must not become infinite.
        rows /= np.where(levels > 0, levels, np.nan).astype(np.float32)[:, None, None]
    reference = _middle(rows)
    spreads, uneven = np.full(n, np.nan), np.zeros(n)
    for index, one in enumerate(rows):
        difference = one - reference
        finite = difference[np.isfinite(difference)]
        if finite.size:
            spreads[index] = 1.4826 * float(median(np.abs(finite - median(finite))))
            uneven[index] = _unevenness(difference)
    # Frames are judged as they are, their noise without what the fields share.
    odd = np.asarray(where) % 2 == 1
    ratios = [field_ratio(one, reference, odd) for one in rows]
    if fields_differ(*np.transpose(ratios)):
        for one, (ratio, _) in zip(rows, ratios, strict=True):
            if np.isfinite(ratio) and ratio > 0:
                one[~odd] /= np.float32(np.sqrt(ratio))
                one[odd] *= np.float32(np.sqrt(ratio))
    some = rows.reshape(n, -1)[:, :: max(1, n * size // NOISE_VALUES)]
    usable = np.isfinite(levels) & (levels > 0)
    steps = np.diff(rows[usable][0], axis=1) if usable.any() else np.zeros(0)
    steps = steps[np.isfinite(steps)]
    spatial = float(1.4826 * median(np.abs(steps)) / math.sqrt(2.0)) if steps.size else math.nan
    few = some[:, :: max(1, some.size // WAITING_VALUES)].copy()
    return FlatSample(levels, spreads, uneven, _noise(some[usable]), spatial, tails, size, few)


def _noise(values):
    """Noise of a sample, of (n, m) in n frames; NaN for one frame."""
    return noise.pooled_scatter(values) if len(values) > 1 else math.nan


def _highest(values, keep):
    finite = np.nan_to_num(values.ravel(), nan=-np.inf)
    return np.sort(np.partition(finite, finite.size - keep)[-keep:])


def _median(values):
    finite = values[np.isfinite(values)]
    return float(median(finite)) if finite.size else math.nan


def _middle(rows):
    """Median of the frames at every sampled pixel, NaN where all are."""
    good = [index for index, one in enumerate(rows) if np.isfinite(one).any()]
    if not good:
        return rows[0]
    some = rows[good]
    if np.isfinite(some).all():
        low, high = median_pair(some)
        return np.float32(0.5) * (low + high)
    known = np.isfinite(some).any(axis=0)
    reference = np.full(some.shape[1:], np.nan, np.float32)
    reference[known] = np.nanmedian(some[:, known], axis=0)
    return reference


def _unevenness(difference):
    bands, columns = (min(count, extent) for count, extent in zip(TILES, difference.shape, strict=True))
    tiles = [
        _median(tile)
        for band in np.array_split(difference, bands, axis=0)
        for tile in np.array_split(band, columns, axis=1)
    ]
    return float(np.nanmax(tiles) - np.nanmin(tiles)) if np.isfinite(tiles).any() else 0.0
