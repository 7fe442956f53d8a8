"""Flats after the screen: which belong together, what saturates them, what an electron is worth."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from flat_pipeline.config import FEW_FRAMES, SATURATED_FRACTION, UNDEREXPOSED
from utils.domain import flat_levels
from utils.domain.frame_groups import DUPLICATE, sample_frames
from utils.domain.screening import converter_maximum
from utils.domain.top_of_range import top_of_group
from utils.errors import InputError
from utils.fits_io.naming import label
from utils.fits_io.workers import in_workers
from utils.kernels import adu_scale as stored_step
from utils.kernels import saturation, screen

SCATTER = 3.0
"""A frame that scatters about its group so many times more than the others do does not belong to it."""
UNEVEN, LEAST_UNEVEN = 8.0, 0.01
"""A frame whose pattern differs across the sensor by so many times that of the others, and by so much, neither."""
JUMP_MAD = 8.0
RANGE = "range of the converter"
STUCK = "hot pixels stick at the largest value"
FAINT = 20.0
"""A flat below so many times the read noise is underexposed, where nothing tells the range of the camera."""
MOST_WAITING = 8
"""Groups whose samples wait in memory, some 10 MB each, to be boiled down by workers together."""
MOST_ELECTRONS = 5e6
"""No pixel holds more: flats that scatter less than so many photons do are at the end of the range."""


@dataclass(eq=False)
class FlatGroup:
    """Flats of one filter, temperature and exposure that passed the screen.

    frames : `FrameGroup`.  name : stem of its products.  levels : (n,) level of each frame above its pedestal [ADU].
    fields : (n, 2) level of even and odd rows relative to that, None where they are alike in all frames.
    drifts : (n,) pedestal of each frame above that of the group [ADU].  within : noise of a sample relative to the level.
    """

    frames: object
    sample: object
    levels: np.ndarray | None = None
    drifts: np.ndarray | None = None
    fields: np.ndarray | None = field(default=None, kw_only=True)
    name: str = ""
    cards: dict = field(default_factory=dict)

    @property
    def filter(self):
        """Name of the filter."""
        return self.frames.entries[0]["filter"]

    @property
    def temperature(self):
        """Mean temperature [degC]."""
        return self.frames.temperature

    @property
    def exposure(self):
        """Mean exposure [s]."""
        return self.frames.exposure

    @property
    def signal(self):
        """Mean level above the pedestal [ADU]."""
        return float(np.mean(self.levels if self.levels is not None else self.sample.levels))


@dataclass
class Setting:
    """What holds for all flats of the set.

    adu_scale : stored units per product ADU.  lsb : stored step [product ADU].  saturation [product ADU], and where it
    is known from.  inverse_gain [ADU/e-], 0 where unknown, and its origin.  read_number : variance of a sample without
    signal [ADU^2].
    """

    adu_scale: float
    lsb: float
    continuous: bool
    saturation: float
    saturation_from: str
    inverse_gain: float = 0.0
    gain_from: str = "unknown"
    measured_gain: float = math.nan
    read_number: float = 0.0
    notes: list = field(default_factory=list)

    @property
    def gain_known(self):
        """Whether the gain is that of the camera, and not only what the noise model needs."""
        return not self.gain_from.startswith("unknown")

    @property
    def step(self):
        """Step of the converter [product ADU], 0 for frames of floats."""
        return 0.0 if self.continuous else self.lsb


def screen_flats(groups, config, source, record, progress=None):
    """Screen all groups.

    groups : list of FrameGroup.  source : `DarkSource`.  Returns list of `FlatGroup` and `Setting`; frames that are left
    out go to the record.  Raises InputError where no flat is left.
    """
    scale = source.adu_scale or config.stored_scale
    samples, faults, votes, tops, usable = [], [], [], [], []
    jobs = config.shared.jobs
    limits = screen.ScreenLimits()

    def boil_down(group, taken, pedestal):
        found, _ = screen.judge_rows(taken.zero, taken.frozen, limits)
        known = [vote for index, vote in enumerate(taken.votes) if vote is not None and index not in found]
        exposures = [entry["exposure"] for entry in group.entries]
        found |= screen.judge_temperatures(group.temperatures, group.times, exposures, limits)
        rows = taken.rows if scale in (None, 1.0) else taken.rows / np.float32(scale)
        hot = flat_levels.hot_pixels(rows, pedestal)
        top = [saturation.describe_frame(np.where(hot, np.float32(np.nan), one)) for one in rows]
        return flat_levels.sample_flats(rows, pedestal, taken.where, hot), found, known, top

    waiting = []

    def empty():
        for sample, found, known, top in in_workers(lambda: lambda one: boil_down(*one), waiting, jobs):
            samples.append(sample)
            faults.append(found)
            votes.extend(known)
            tops.extend(top)
        waiting.clear()

    for group in groups if progress is None else progress(groups, len(groups), "screen flats"):
        group, taken, unusable = sample_frames(group, jobs, ceiling=65535)
        for path, reason in unusable:
            record.reject(path, reason)
            if reason.startswith(DUPLICATE):
                record.warn(f"{path}: {reason}")
        if not len(group):
            continue
        usable.append(group)
        for entry, data_sum in zip(group.entries, taken.datasums, strict=True):
            if entry["datasum"] is None:
                entry["datasum"] = data_sum
        pedestal = source.at_rows(taken.where).pedestal(group.temperature, group.exposure).value
        waiting.append((group, taken, pedestal))
        if len(waiting) == MOST_WAITING:
            empty()
    empty()
    if not usable:
        path, reason = unusable[0]
        raise InputError(f"no flat passed the screen, the first was {path} ({reason})")
    groups = usable
    factor = stored_step.shared_factor(votes) if votes else scale or 1
    if scale is not None and factor < scale and config.stored_scale is None:
        raise InputError(
            f"{source.bias.origin if source.bias else 'model'}: ADUSCALE {scale:g}, expected {factor:g} as the flat"
            f" {groups[0].entries[0]['original_path']} is stored"
        )
    if scale is None:
        scale = float(factor)
        samples = [one.scaled(scale) for one in samples]
        tops = [_scaled(top, scale) for top in tops]
    level, told_by, showing = _saturation(groups, config, float(scale), tops, samples)
    setting = Setting(
        float(scale),
        factor / scale,
        all(image.bitpix < 0 for group in groups for image in group.images),
        level,
        told_by,
    )
    least = _least_level(groups, setting, source)
    showing = np.split(showing, np.cumsum([len(group) for group in groups])[:-1])
    flats = []
    for group, sample, found, full in zip(groups, samples, faults, showing, strict=True):
        found |= _judge(sample, setting, found, full, least, config.flat_type)
        for index, (code, detail) in sorted(found.items()):
            record.reject(group.entries[index]["original_path"], f"{code}: {detail}")
        keep = [index for index in range(len(group)) if index not in found]
        if keep:
            one = FlatGroup(group.subset(keep), sample.subset(keep))
            flats.append(one)
    if not flats:
        code, detail = next(iter(faults[0].values()))
        raise InputError(
            f"no flat passed the screen, the first was {groups[0].entries[0]['original_path']} ({code}: {detail})"
        )
    return flats, setting


def _judge(sample, setting, known, full, least, flat_type):
    """Frames that are saturated, below ``least`` [ADU], or not like their group: {index: (code, detail)}."""
    found = {}
    for index in np.flatnonzero(~np.isfinite(sample.levels)):
        found[int(index)] = ("NO_DATA", "no finite sample")
    saturated = sample.saturated(setting.saturation)
    at = f"{setting.saturation:.6g} ADU ({setting.saturation_from})"
    for index in np.flatnonzero(full):
        found[int(index)] = ("SATURATED", at)
    for index in np.flatnonzero(saturated > SATURATED_FRACTION):
        part = "more than 2 %" if saturated[index] == 1.0 else f"{saturated[index]:.1%}"
        found[int(index)] = ("SATURATED", f"{part} of the sampled pixels reach {at}")
    if 0 < sample.within < 1.0 / math.sqrt(MOST_ELECTRONS):
        quiet = f"frames scatter by {sample.within:.2g} of their level, less than light can"
        found = dict.fromkeys(range(sample.levels.size), ("SATURATED", quiet))
    for index in np.flatnonzero(~(sample.levels > least)):
        found.setdefault(
            int(index),
            (
                "UNDEREXPOSED",
                f"level {sample.levels[index]:.1f} ADU above bias and dark, expected {least:.0f} or more",
            ),
        )
    out = {*known, *found}
    member = np.array([i for i in range(sample.levels.size) if i not in out], int)
    if member.size < FEW_FRAMES:
        return _new(found, known)
    spread, level = sample.spreads[member], sample.levels[member]
    usual = float(np.median(spread))
    middle = float(np.median(level))
    deviation = np.abs(level - middle)
    odd = deviation > JUMP_MAD * 1.4826 * np.median(deviation)
    patchy = (sample.uneven[member] > UNEVEN * np.median(sample.uneven[member])) & (
        sample.uneven[member] > LEAST_UNEVEN
    )
    for index, wide, jumped, uneven in zip(member, spread > SCATTER * usual, odd, patchy, strict=True):
        change = sample.levels[index] / middle - 1.0
        times = f"scatter {sample.spreads[index]:.4f} of the level, {usual:.4f} in the others"
        if wide and jumped:
            found[int(index)] = ("LEVEL_JUMP", f"level {change:+.1%} against its group and {times}")
        elif wide:
            found[int(index)] = ("SCATTER", times)
        elif uneven and flat_type != "sky":
            found[int(index)] = (
                "LIGHT_LEAK",
                f"pattern differs by {sample.uneven[index]:.2%} over the frame",
            )
    return _new(found, known)


def _new(found, known):
    """Reasons beside those known; a saturated frame is also one of equal rows, but that is not why."""
    return {
        index: reason for index, reason in found.items() if index not in known or reason[0] == "SATURATED"
    }


def _scaled(top, factor):
    """What one frame tells of its top, with ADU divided by ``factor``."""
    names = ("level", "lower", "upper", "median", "pile", "step")
    parts = {name: getattr(top, name) / factor for name in names}
    return replace(top, **parts, var=top.var / factor**2)


def _saturation(groups, config, scale, tops, samples):
    """Saturation level [product ADU], where it is known from, and the frames that show it (n,) bool."""
    highest = converter_maximum(groups, scale)
    nothing = np.zeros(len(tops), bool)
    if config.saturation is not None:
        return float(config.saturation), "--saturation", nothing
    if any(entry["saturate"] for group in groups for entry in group.entries):
        return highest, "SATURATE card", nothing
    exposures = [group.exposure for group in groups for _ in range(len(group))]
    found = saturation.saturation_level(tops, highest, exposures)
    if math.isfinite(found.level) and found.level < highest:
        return found.level, found.reason, found.frames
    brightest = max(range(len(groups)), key=lambda index: np.median(np.nan_to_num(samples[index].levels)))
    pile = top_of_group(groups[brightest].images, lit=True).pile / scale
    if pile < highest and pile > max((top.level + top.upper).max(initial=0.0) for top in tops):
        return pile, STUCK, nothing
    return highest, RANGE, nothing


def _least_level(groups, setting, source):
    """Level below which a flat is underexposed [ADU]: part of the range, where none is told a multiple of the read noise.

    Samples of 12 bits in 16 look like those of a 16-bit camera that is always faint.
    """
    told = any(entry["bit_depth"] for group in groups for entry in group.entries)
    if told or setting.saturation_from != RANGE:
        return UNDEREXPOSED * setting.saturation
    read = source.read_variance
    return 0.0 if read is None else FAINT * math.sqrt(float(np.median(read)))


def describe_group(group):
    """Name a group of flats in words."""
    return f"{group.filter} at {label(group.temperature, 1)} degC, {group.exposure:g} s"


def set_levels(flats, members, rows, method, jobs=1):
    """Set the levels of groups, those of a filter by its mean flat; InputError where a frame has no light.

    members : `flat_levels.LevelGroup` of each group.  rows : (r,) that tell the level.
    """
    for name in dict.fromkeys(flat.filter for flat in flats):
        own = [index for index, flat in enumerate(flats) if flat.filter == name]
        levels = flat_levels.levels_of([members[index] for index in own], rows, method, jobs)
        for index, found in zip(own, levels, strict=True):
            flats[index].levels, flats[index].fields = found
            check_levels(flats[index])


def warn_of_fields(flats, record):
    """Say it where even and odd rows are normalised apart."""
    apart = [flat for flat in flats if flat.fields is not None]
    if apart:
        ratios = [flat.fields[:, 0] / flat.fields[:, 1] for flat in apart]
        worst = max(float(np.std(one, ddof=1)) for one in ratios)
        record.warn(
            f"{len(apart)} of {len(flats)} groups: the ratio of even to odd rows scatters by up to {worst:.2%} from"
            " frame to frame (an interlaced sensor): both fields are normalised apart in every frame; a mean ratio that"
            " is 1 within its error is taken for 1, another one stays in the master"
        )


def check_levels(flat):
    """InputError where a frame of a group has no light."""
    for entry, level in zip(flat.frames.entries, flat.levels, strict=True):
        if not (math.isfinite(level) and level > 0):
            raise InputError(
                f"{entry['original_path']}: level {level:g} ADU, expected light above bias and dark"
            )
