"""Levels of bias, dark and flat frames: signal and noise of the ordinary pixels of each group."""

import math
from dataclasses import dataclass

import numpy as np

from flat_pipeline.characterization.measure import (
    Reading,
    Stack,
    frame_levels,
    measure,
    moving_light,
    profiles,
)
from utils.domain.frame_groups import DUPLICATE, group_entries, sample_frames
from utils.domain.screening import converter_maximum, screen_groups
from utils.errors import InputError
from utils.kernels import adu_scale as stored_step
from utils.kernels import emva, screen
from utils.kernels.groups import group_by_gap
from utils.kernels.photon_transfer import Ordinary, highest_variance, ordinary_pixels
from utils.kernels.screen import robust_level

BAND = 0.1
"""Pixels whose light differs from the middle one by less than this part make up a level: signal is one number there."""
ONE_LEVEL = 1.2
"""Frames whose levels follow one another within this factor are of one level."""
MOSAIC = 0.05
"""A flat whose pixels differ by more than this part between the places of a 2 x 2 mosaic is one of a colour camera."""
ODD = 0.2
"""A pixel whose response differs from the surface by more than this part is dead, dusty or blemished."""
WARM_SIGMA = 5.0
"""A pixel whose dark signal lies so many robust sigma above the others is warm or hot."""
SATURATED_DARKS = 0.2


@dataclass(frozen=True)
class Setting:
    """What holds for all frames: reading, lsb [ADU] (0: floats), top of the converter [ADU]."""

    reading: Reading
    lsb: float
    top: float


@dataclass(frozen=True)
class Level:
    """One group of frames.

    found : `Ordinary` pixels, signal above bias.  light : signal without dark current [ADU].  scatter : of the frames'
    levels [ADU], noise included, NaN where unknown.  pattern, pattern_error : variance that light which moves adds [ADU^2].
    """

    kind: str
    filter: str
    temperature: float
    exposure: float
    frames: int
    found: Ordinary
    light: float
    scatter: float
    pattern: float = 0.0
    pattern_error: float = 0.0

    def mean_error(self, jitter, noise):
        """Error of the mean of the frames [ADU], a lamp's changes apart.

        jitter : of the zero level [ADU].  noise : variance of a sample where the frames do not tell it [ADU^2].
        """
        own = self.found.variance if math.isfinite(self.found.variance) else noise
        return math.sqrt(max(own / self.found.pixels, jitter**2) / self.frames)


@dataclass(frozen=True)
class BiasLevel:
    """Bias frames: their stack, level, good pixels (bool), temporal `Parts`."""

    stack: Stack
    level: Level
    mean: float
    good: np.ndarray
    temporal: emva.Parts


@dataclass(frozen=True)
class Sampled:
    """What a sample of the rows of a group of flats tells: votes on the stored step, rows at fault, highest samples."""

    group: object
    votes: list
    zero: np.ndarray
    frozen: np.ndarray
    highest: np.ndarray


def sample_flats(context, config):
    """Read the sample of all groups; frames whose bytes are of no use go to the record.  Returns list of `Sampled`."""
    sampled = []
    for group in context.groups:
        kept, taken, unusable = sample_frames(group, config.shared.jobs, ceiling=65535)
        for path, reason in unusable:
            context.record.reject(path, reason)
            if reason.startswith(DUPLICATE):
                context.record.warn(f"{path}: {reason}")
        if len(kept):
            highest = np.where(np.isnan(taken.rows), -np.inf, taken.rows).max(axis=(1, 2))
            sampled.append(Sampled(kept, taken.votes, taken.zero, taken.frozen, highest))
    if not sampled:
        raise InputError(f"{config.shared.basepath}: no flat that can be read")
    return sampled


def find_setting(context, config, sampled):
    """Stored units per ADU, step and top of the converter, from the flats and what was found for bias and dark."""
    shared, scale = config.shared, config.stored_scale
    factor = stored_step.shared_factor(vote for one in sampled for vote in one.votes)
    known = context.dark.adu_scale
    scale = float(scale or known or factor)
    if known is not None and factor < known and config.stored_scale is None:
        raise InputError(
            f"bias: ADUSCALE {known:g}, expected {factor:g} as the flat"
            f" {context.groups[0].entries[0]['original_path']} is stored"
        )
    floats = all(image.bitpix < 0 for group in context.groups for image in group.images)
    top = config.saturation or converter_maximum(context.groups, scale)
    reading = Reading(scale, shared.jobs, shared.memory_limit)
    return Setting(reading, 0.0 if floats else max(factor / scale, 1e-9), top)


def measure_bias(context, config, setting, temperature):
    """Bias frames nearest to a temperature, of groups with at least half as many frames as the largest; None without."""
    if not context.bias_entries:
        return None
    groups = group_entries(context.bias_entries, context.images, temp_tolerance=config.shared.temp_tolerance)
    screening = screen_groups(groups, adu_scale=setting.reading.adu_scale, jobs=config.shared.jobs)
    groups = [one.frames for one in screening.groups if len(one.frames) > 1]
    if not groups:
        return None
    many = max(len(group) for group in groups)
    group = min(
        (one for one in groups if 2 * len(one) >= many), key=lambda one: abs(one.temperature - temperature)
    )
    stack = measure(group.images, None, setting.reading, light=False)
    n = len(group)
    zero = np.zeros(stack.value.shape, np.float32)
    found = ordinary_pixels(zero, stack.variance, stack.dof, 0.0, read_only=True)
    good = stack.variance <= highest_variance(stack.dof) * found.variance
    sigma = math.sqrt(max(found.variance, 1e-12))
    rows, columns = profiles(stack, good, sigma, setting.reading)
    temporal = emva.temporal_parts(rows, columns, found.variance, found.error, int(good.sum()))
    # Rows and columns of a frame are few: their share of the noise is known less well than that of pixels.
    found = Ordinary(0.0, temporal.total, temporal.total_error, found.pixels, found.left_out)
    level = Level("bias", "", group.temperature, 0.0, n, found, 0.0, stack.scatter)
    return BiasLevel(stack, level, float(stack.levels.mean()), good, temporal)


def measure_darks(context, config, setting, base, good, progress):
    """Darks above their bias; frames left out go to the record.

    Hot and warm pixels are told by the darks with the most signal, which are measured first.
    Returns list of `Level`, and the good pixels without them.
    """
    if not context.dark_entries:
        return [], good
    groups = group_entries(
        context.dark_entries, context.images, temp_tolerance=config.shared.temp_tolerance, by_exposure=True
    )
    # Dark current doubles about every 7 degC.
    groups.sort(key=lambda group: -group.exposure * 2.0 ** (group.temperature / 7.0))
    levels = []
    for group in progress(groups, len(groups), "darks"):
        frames = _screened_darks(group, context, config, setting)
        if frames is None:
            continue
        source = context.dark
        bias = None if source.bias is None else source.bias.model.evaluate(frames.temperature)[0]
        stack = measure(frames.images, bias, setting.reading, light=False)
        if not levels:
            good = good & _not_hot(stack.value, good, setting.lsb)
        levels.append(_dark_level(frames, stack, base, good))
    return sorted(levels, key=lambda level: (level.temperature, level.exposure)), good


def _screened_darks(group, context, config, setting):
    """Frames of a group that pass the screen, None where none does."""
    limits = screen.ScreenLimits(saturated_fraction=SATURATED_DARKS)
    try:
        screening = screen_groups(
            [group], adu_scale=setting.reading.adu_scale, jobs=config.shared.jobs, limits=limits
        )
    except InputError as error:
        for entry in group.entries:
            context.record.reject(entry["original_path"], f"SCREEN: {error}")
        return None
    for path, reason in screening.rejected:
        context.record.reject(path, reason)
    return screening.groups[0].frames


def _not_hot(value, good, lsb):
    """Pixels that are no warmer than chance and the spread of the sensor allow."""
    some = value[good][:: max(1, value.size >> 20)]
    middle = float(np.median(some))
    scale = 1.4826 * float(np.median(np.abs(some - middle)))
    return value < middle + WARM_SIGMA * max(scale, lsb)


def _dark_level(frames, stack, base, good):
    if stack.dof > 0:
        found = ordinary_pixels(stack.value[good], stack.variance[good], stack.dof, base)
    else:
        mean, _ = robust_level(stack.value[good])
        found = Ordinary(mean, math.nan, math.nan, int(good.sum()), 0.0)
    return Level(
        "dark", "", frames.temperature, frames.exposure, len(frames), found, found.signal, stack.scatter
    )


def screen_frames(one, setting, context):
    """Flats of a `Sampled` group without those with faulty rows; None where none is left.

    Full frames are constant by right.
    """
    group, highest = one.group, one.highest / setting.reading.adu_scale
    frozen = one.frozen & ~one.frozen.all(axis=1, keepdims=True)
    frozen &= (highest < max(0.9 * highest.max(), 0.5 * setting.top))[:, None]
    found, _ = screen.judge_rows(one.zero, frozen)
    for index in np.flatnonzero(~np.isfinite(highest)):
        found[int(index)] = ("NO_DATA", "no finite sample")
    for index, (code, detail) in sorted(found.items()):
        context.record.reject(group.entries[index]["original_path"], f"{code}: {detail}")
    keep = [index for index in range(len(group)) if index not in found]
    return group.subset(keep) if keep else None


@dataclass(frozen=True)
class FlatSet:
    """Levels of all flats, and the reference of each filter.

    references : filter -> (FrameGroup, Stack, band of pixels (bool), pedestal, pixels of the brightest colour (bool)).
    """

    levels: list
    references: dict


def measure_flats(sampled, context, config, setting, base, good, progress):
    """Measure all groups of flats.

    Pixels of a level are those whose light, in a flat of the same filter at about half the range, lies within 10 % of the
    middle one: their signal is one number, and where the response bends it bends for all.
    """
    groups, source = [], context.dark
    for one in sampled:
        kept = screen_frames(one, setting, context)
        if kept is None:
            continue
        pedestal = source.pedestal(kept.temperature, kept.exposure)
        levels = frame_levels(kept.images, pedestal.value, setting.reading)
        dim = [index for index in range(len(kept)) if not levels[index] > 0]
        for index in dim:
            context.record.reject(
                kept.entries[index]["original_path"], f"UNDEREXPOSED: level {levels[index]:.1f} ADU"
            )
        lit = np.flatnonzero(levels > 0)
        # Flats of one exposure under several settings of the lamp are several levels.
        for own in group_by_gap(np.log(levels[lit]), math.log(ONE_LEVEL)) if lit.size else ():
            own = np.sort(lit[own])
            groups.append((kept.subset(own.tolist()), levels[own]))
    if not groups:
        raise InputError(f"{config.shared.basepath}: no flat with light above bias and dark")
    means = np.array([levels.mean() for _, levels in groups])
    references = {}
    for name in dict.fromkeys(group.entries[0]["filter"] for group, _ in groups):
        own = [i for i, (group, _) in enumerate(groups) if group.entries[0]["filter"] == name]
        half = 0.5 * min(means[own].max(), setting.top)
        several = [i for i in own if len(groups[i][0]) > 1] or own
        references[name] = min(several, key=lambda i: abs(means[i] - half))
    found, bands = [], {}
    order = [*references.values(), *(i for i in range(len(groups)) if i not in references.values())]
    for index in progress(order, len(order), "flats"):
        group, levels = groups[index]
        name = group.entries[0]["filter"]
        pedestal = source.pedestal(group.temperature, group.exposure)
        stack = measure(group.images, pedestal.value, setting.reading, light=True, levels=levels)
        if name not in bands:
            brightest = _brightest_colour(stack.value, good)
            bands[name] = (group, stack, _band(stack.value, good & brightest), pedestal, brightest)
        found.append(_flat_level(group, stack, pedestal.dark, base, bands[name][2], setting))
    found.sort(key=lambda level: (level.filter, level.found.signal))
    return FlatSet(found, bands)


def _brightest_colour(value, good):
    """Pixels of the brightest places of a 2 x 2 mosaic of colours, all pixels where there is none."""
    finite = good & np.isfinite(value)
    places = [(y, x) for y in (0, 1) for x in (0, 1)]
    means = [robust_level(value[y::2, x::2][finite[y::2, x::2]])[0] for y, x in places]
    chosen = np.ones(value.shape, bool)
    if not min(means) < (1.0 - MOSAIC) * max(means):
        return chosen
    for (y, x), mean in zip(places, means, strict=True):
        chosen[y::2, x::2] = mean > (1.0 - MOSAIC) * max(means)
    return chosen


def _band(value, good):
    """Pixels whose light is near that of the middle pixel, without blemishes."""
    finite = good & np.isfinite(value) & (value > 0)
    surface = emva.smooth_surface(value, finite)
    with np.errstate(invalid="ignore", divide="ignore"):
        even = np.abs(value / surface - 1.0) < ODD
        near = np.abs(surface / np.median(surface) - 1.0) < BAND
    return finite & even & near


def _flat_level(group, stack, dark, base, band, setting):
    below = 0.0 if dark is None else float(np.mean(dark[band], dtype=np.float64))
    if stack.dof > 0:
        above = stack.value[band] + np.float32(below)
        found = ordinary_pixels(above, stack.variance[band], stack.dof, base)
        pattern = moving_light(stack.images, stack.pedestal, stack.levels, setting.reading)
    else:
        pattern = 0.0, 0.0
        found = Ordinary(robust_level(stack.value[band])[0] + below, math.nan, math.nan, int(band.sum()), 0.0)
    return Level(
        "flat",
        group.entries[0]["filter"],
        group.temperature,
        group.exposure,
        len(group),
        found,
        found.signal - below,
        stack.scatter,
        *pattern,
    )
