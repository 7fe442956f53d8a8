"""Sample all groups once, decide what holds for the whole set, and leave out the frames that do not belong.

What holds for the set: stored units per product ADU, saturation level, zero level against temperature with session
shifts.  What holds for a group: noise of a pixel, level of each frame.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from utils.domain.frame_groups import DUPLICATE, FrameGroup, sample_frames
from utils.domain.top_of_range import common_top, top_of_group
from utils.errors import InputError
from utils.fits_io.frame_sample import sample_group
from utils.fits_io.naming import label
from utils.fits_io.workers import in_workers
from utils.kernels import adu_scale as stored_step
from utils.kernels import groups as grouping
from utils.kernels import noise, screen, zero_level
from utils.kernels.medians import median

SESSION_GAP = 6 * 3600.0
"""A pause between frames longer than this starts a new session [s]."""
KNOWN_SLOPE = 3.0
"""Drift is taken out where the slope of the zero level is so many times its error."""
CUT_FRACTION = 0.01
"""Pixels cut at the converter's lowest value that are worth a warning."""
NOISE_VALUES = 1 << 20
"""Values from which the noise of a group is measured."""


@dataclass
class ScreenedGroup:
    """A group without the frames that were left out.

    within : noise of one sample of an ordinary pixel about its frame's level [product ADU], NaN for one frame.
    sigma : the same with the scatter of the frames' levels about temperature and session.
    spatial : where no group has two frames, noise of a sample [product ADU]: what a line through the frames leaves
    (`Screening.about_lines`), else the scatter between neighbouring pixels, noise and fixed pattern together.
    levels, spreads : (n,) level and scatter of each frame about the group [product ADU].  sessions : (n,) int.
    offsets : (n,) brings each frame to the group's mean temperature and session level [product ADU], or None where
    that is negligible.  reference_level : level of the group [product ADU].
    """

    frames: FrameGroup
    within: float
    levels: np.ndarray
    spreads: np.ndarray
    sessions: np.ndarray
    reference_level: float
    spatial: float
    sigma: float = math.nan
    offsets: np.ndarray | None = None


@dataclass
class Screening:
    """All groups after the screen.

    rejected : list of (path, reason).  notes : list of str, what the user should know.
    adu_scale : stored units per product ADU.  lsb : stored step of integers [product ADU].  continuous : frames hold
    floats, which have no step.
    saturation : [product ADU].  zero : `utils.kernels.zero_level.ZeroLevel`.  tops : `Top` of each group, where samples
    may tell the saturation.  about_lines : the noise of single frames is their scatter about lines in temperature.
    """

    groups: list
    adu_scale: float
    lsb: float
    saturation: float
    zero: zero_level.ZeroLevel
    rejected: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    continuous: bool = False
    tops: list = field(default_factory=list)
    about_lines: bool = False

    @property
    def step(self):
        """Step of the converter [product ADU]: 0 for frames of floats."""
        return 0.0 if self.continuous else self.lsb

    @property
    def single_frame_noise(self):
        """Noise of a sample where no group has two frames that differ [product ADU]."""
        return max(self.groups[0].spatial, self.step / math.sqrt(12.0))

    def noise_of_single_frames(self, noise):
        """Say where that noise comes from."""
        if self.about_lines:
            return f"from what lines through the frames leave ({noise:.3g} ADU)"
        return f"taken from neighbouring pixels ({noise:.3g} ADU), which holds the fixed pattern too"


def screen_groups(
    groups, *, adu_scale=None, saturation=None, jobs=1, session_gap=SESSION_GAP, limits=None, lines=False
):
    """Screen the groups of one kind of frames of one camera setting.

    groups : list of `FrameGroup`.  adu_scale : stored units per product ADU, None = found from the samples.
    saturation : [product ADU], None = SATURATE card, else the value at which samples pile up,
    never above the converter's maximum.  lines : pixels follow a line in temperature (bias frames).
    Returns a `Screening`; a group that loses all frames is gone from it.  Raises InputError when no frame is left.
    """
    limits = limits or screen.ScreenLimits()
    groups, samples, unusable = _sample_all(groups, jobs)
    factor = stored_step.shared_factor(vote for sample in samples for vote in sample.votes)
    scale = float(factor if adu_scale is None else adu_scale)
    tops = [] if saturation is not None or _told(groups) else [top_of_group(group.images) for group in groups]
    full = converter_maximum(groups, scale) if saturation is None else float(saturation)
    full = min(full, common_top(tops) / scale)
    times = np.concatenate([group.times for group in groups])
    cuts = np.cumsum([len(group) for group in groups])[:-1]
    sessions = np.split(grouping.sessions_by_time(times, session_gap), cuts)

    about_lines = _scatter_about_lines(groups, samples) / scale if lines else math.nan
    for sample in samples:
        sample.to_product_adu(scale, full, jobs)
    zero = _fit_zero(groups, samples, sessions)
    result = Screening([], scale, factor / scale, full, zero, rejected=unusable, tops=tops)
    result.notes += [f"{path}: {reason}" for path, reason in unusable if reason.startswith(DUPLICATE)]
    result.about_lines = math.isfinite(about_lines)
    result.continuous = all(image.bitpix < 0 for group in groups for image in group.images)
    refit = False
    for group, sample, session in zip(groups, samples, sessions, strict=True):
        found, notes = _judge(group, sample, session, result, limits)
        result.notes += notes
        for index, (code, detail) in sorted(found.items()):
            result.rejected.append((group.entries[index]["original_path"], f"{code}: {detail}"))
        keep = [i for i in range(len(group)) if i not in found]
        if not keep:
            continue
        if found:
            refit = True
            group, session = group.subset(keep), session[keep]
            sample = _sampled_again(group, jobs)
            sample.to_product_adu(scale, full, jobs)
        if sample.cut > CUT_FRACTION and result.step > 0:
            result.notes.append(
                f"{sample.cut:.0%} of the pixels at {label(group.temperature, 1)} degC are cut at 0, the converter's"
                " lowest value: their means are too high and their noise too low"
            )
        result.groups.append(
            ScreenedGroup(
                group,
                sample.within,
                sample.level + sample.reference,
                sample.spread,
                session,
                sample.reference,
                about_lines if result.about_lines else sample.spatial,
            )
        )
    if not result.groups:
        raise _nothing_left(result.rejected)
    if refit:
        result.zero = zero_level.fit_zero_level(
            np.concatenate([g.levels for g in result.groups]),
            np.concatenate([g.frames.temperatures for g in result.groups]),
            np.concatenate([g.sessions for g in result.groups]),
        )
    for group in result.groups:
        _set_offsets(group, result.zero)
    return result


def _scatter_about_lines(groups, samples):
    """Noise of single frames at three temperatures or more, NaN for others: what lines leave [stored units]."""
    temperatures = np.array([group.temperature for group in groups])
    if len(groups) < 3 or any(len(group) > 1 for group in groups) or not np.ptp(temperatures) > 0:
        return math.nan
    rows = np.concatenate([sample.rows for sample in samples])
    flat = rows.reshape(len(rows), -1)[:, :: max(1, rows.size // NOISE_VALUES)].astype(np.float64)
    flat = flat[:, np.isfinite(flat).all(axis=0)]
    design = np.column_stack([np.ones(len(groups)), temperatures - temperatures.mean()])
    left = flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]
    # The zero level jitters in all pixels alike.
    left -= np.median(left, axis=1, keepdims=True) if left.size else 0.0
    return noise.pooled_scatter(left) * math.sqrt((len(groups) - 1.0) / (len(groups) - 2.0))


def _judge(group, sample, session, result, limits):
    """Frames of one group to leave out, {index: (code, detail)}, and what else is worth a word."""
    found, zeros = screen.judge_rows(sample.zero, sample.frozen, limits)
    exposures = [entry["exposure"] or 0.0 for entry in group.entries]
    found |= screen.judge_temperatures(group.temperatures, group.times, exposures, limits)
    for index in np.flatnonzero(sample.saturated > limits.saturated_fraction):
        found[int(index)] = ("SATURATED", f"{sample.saturated[index]:.1%} of the sampled pixels")
    for index in np.flatnonzero(~np.isfinite(sample.level)):
        found[int(index)] = ("NO_DATA", "no finite sample")
    # A frame that is out already must not speak for the level of the others.
    level = sample.level.copy()
    level[list(found)] = np.nan
    expected = _known_slope(result.zero) * (group.temperatures - group.temperature)
    # Samples that hardly ever change have no scatter, and still the noise of the converter's step.
    sigma = max(sample.within, result.step / math.sqrt(12.0))
    jumped, tolerated = screen.judge_levels(
        level, sample.uneven, sigma, sample.tile_pixels, expected, session, limits
    )
    notes = []
    if zeros:
        notes.append(
            f"{zeros} frames at {label(group.temperature, 1)} degC hold blocks of zeros: is the bias level near 0?"
        )
    notes += _level_notes(group, level - expected, session, sigma, limits)
    if tolerated:
        notes.append(
            f"{tolerated} of {len(group)} frames at {label(group.temperature, 1)} degC are off the level of the others:"
            " too many to be faults of single frames, kept"
        )
    return found | jumped, notes


def _level_notes(group, level, session, sigma, limits):
    """Say it when frames of one session jump about by more than the noise of a pixel; level (n,) [ADU]."""
    for number in np.unique(session):
        own = level[(session == number) & np.isfinite(level)]
        scatter = 1.4826 * float(median(np.abs(own - median(own)))) if own.size else 0.0
        if own.size >= limits.min_frames and scatter > sigma:
            return [
                f"levels of the frames at {label(group.temperature, 1)} degC scatter by {scatter:.2f} ADU, more than"
                f" the noise of a pixel ({sigma:.2f} ADU): is the zero level stable?"
            ]
    return []


def _told(groups):
    """Whether a header tells the saturation."""
    return any(entry["saturate"] for group in groups for entry in group.entries)


def settled_saturation(screenings):
    """Saturation of sets that were screened one by one: the lowest that no set goes beyond.

    Returns it [product ADU], and in words where samples tell it, else ''.
    """
    tops = [top for one in screenings for top in one.tops]
    pile, scale = common_top(tops), screenings[0].adu_scale
    lowest = min(
        converter_maximum([group.frames for group in one.groups], scale) if one.tops else one.saturation
        for one in screenings
    )
    if not pile / scale < lowest:
        return lowest, ""
    pixels = max(top.pixels for top in tops if top.pile == pile)
    return pile / scale, (
        f"samples of {pixels} pixels pile up at {pile / scale:g} ADU, below the converter's {lowest:g}: taken for the"
        " saturation"
    )


def converter_maximum(groups, scale):
    """Return the level that no sample exceeds [product ADU]: SATURATE card, else the converter's largest value."""
    lowest = math.inf
    for group in groups:
        for entry, image in zip(group.entries, group.images, strict=True):
            depth = entry["bit_depth"]
            if image.bitpix in (8, 16):
                top = (255.0 if image.bitpix == 8 else 32767.0) * image.bscale + image.bzero
                stored = math.floor(top / scale)
                lowest = min(lowest, stored, 2**depth - 1 if depth and depth < image.bitpix else stored)
            elif depth and depth < 32:
                lowest = min(lowest, math.floor((2**depth - 1) / (scale if depth == 16 else 1)))
            if entry["saturate"]:
                lowest = min(lowest, entry["saturate"] / scale)
    return float(lowest)


@dataclass
class _Sampled:
    """One group's sample, boiled down to numbers."""

    votes: list
    zero: np.ndarray
    frozen: np.ndarray
    rows: np.ndarray | None
    level: np.ndarray = None
    uneven: np.ndarray = None
    spread: np.ndarray = None
    within: float = math.nan
    reference: float = math.nan
    spatial: float = math.nan
    tile_pixels: int = 1
    saturated: np.ndarray = None
    cut: float = 0.0

    def to_product_adu(self, scale, saturation, jobs=1):
        """Reduce the sampled rows to levels and noise in product ADU, and let them go."""
        rows = self.rows / np.float32(scale) if scale != 1 else self.rows
        self.rows = None
        with np.errstate(invalid="ignore"):
            self.saturated = (rows >= saturation).mean(axis=(1, 2))
            low = rows <= 0
        if not (rows < 0).any():
            # Pixels that reach the converter's lowest value in some frames and not in others.
            self.cut = float((low.any(axis=0) & ~low.all(axis=0)).mean())
        self.level, self.uneven, self.spread = screen.frame_levels(
            rows, lambda one, items: in_workers(lambda: one, items, jobs)
        )
        first = int(np.argmax(np.isfinite(self.level)))  # A frame that is blank all over tells nothing.
        self.reference = screen.robust_level(rows[first])[0] - self.level[first]
        self.tile_pixels = max(1, rows[0].size // 8)
        steps = np.diff(rows[first], axis=1)
        steps = steps[np.isfinite(steps)]
        self.spatial = float(1.4826 * median(np.abs(steps)) / math.sqrt(2.0)) if steps.size else 0.0
        flat = rows.reshape(len(rows), -1)[:, :: max(1, rows.size // NOISE_VALUES)]
        self.within = noise.pooled_scatter(flat - self.level.astype(np.float32)[:, None])


def _sample_all(groups, jobs):
    """Groups that have frames left, their samples, and (path, reason) of frames whose bytes are of no use."""
    left, samples, rejected = [], [], []
    for group in groups:
        usable, sample, unusable = sample_frames(group, jobs, ceiling=65535)
        rejected += unusable
        if len(usable):
            left.append(usable)
            samples.append(_sampled(usable, sample))
    if not left:
        raise _nothing_left(rejected)
    return left, samples, rejected


def _nothing_left(rejected):
    path, reason = rejected[0]
    return InputError(f"no frame passed the screen, the first was {path} ({reason})")


def _sampled(group, sample):
    # The bytes have been read: what a header does not tell need not be read again.
    for entry, data_sum in zip(group.entries, sample.datasums, strict=True):
        if entry["datasum"] is None:
            entry["datasum"] = data_sum
    return _Sampled(sample.votes, sample.zero, sample.frozen, sample.rows)


def _sampled_again(group, jobs):
    sample = sample_group(group.images, jobs, ceiling=65535)
    for index, fault in sample.faults.items():
        raise InputError(f"{group.images[index].path}: {fault}")
    return _sampled(group, sample)


def _fit_zero(groups, samples, sessions):
    return zero_level.fit_zero_level(
        np.concatenate([sample.level + sample.reference for sample in samples]),
        np.concatenate([group.temperatures for group in groups]),
        np.concatenate(sessions),
    )


def _known_slope(zero):
    """Slope of the zero level where it is known, else 0: a correction by chance would be noise [ADU/degC]."""
    return zero.slope if abs(zero.slope) > KNOWN_SLOPE * zero.slope_error else 0.0


def _set_offsets(group, zero):
    """Noise and offsets of a group: drift and session shifts are taken out where they matter against its noise."""
    temperatures = group.frames.temperatures
    shift = _known_slope(zero) * (temperatures - temperatures.mean()) + zero.shifts[group.sessions]
    shift = shift - shift.mean()
    if len(shift) < 2:
        return
    left = group.levels - shift
    if np.abs(shift).max() > 0.02 * group.within:
        group.offsets = -shift
    else:
        left = group.levels
    group.sigma = math.hypot(group.within, float(np.std(left, ddof=1)))
