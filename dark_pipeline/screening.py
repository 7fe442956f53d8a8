"""Dark groups after the screen: one camera setting, one stored scale, levels above bias."""

from dataclasses import dataclass, replace

import numpy as np

from utils.domain.screening import Screening, screen_groups, settled_saturation
from utils.errors import InputError
from utils.kernels import dark_levels, screen, zero_level
from utils.kernels import groups as grouping

SATURATED_FRACTION = 0.2
"""Pixels of a dark that may be saturated: hot pixels are, and are left out one by one."""
BIAS_PIXELS = 1 << 18
NOTHING_KNOWN = zero_level.ZeroLevel(0.0, float("inf"), np.zeros(1), np.zeros(1), True, 0.0, 0.0)


@dataclass(eq=False)
class DarkGroup:
    """One screened group.

    frames : `ScreenedGroup`.  session : its number.  bias_level [ADU] of the sensor at its temperature, signal [ADU] of
    the median pixel above it.  corrected : its frames were brought to one temperature.
    """

    frames: object
    session: int = 0
    bias_level: float = 0.0
    signal: float = 0.0
    corrected: bool = False

    @property
    def temperature(self):
        """Mean temperature [degC]."""
        return self.frames.frames.temperature

    @property
    def exposure(self):
        """Mean exposure [s]."""
        return self.frames.frames.exposure


def screen_darks(groups, config, bias, record):
    """Screen each group by itself: levels differ between exposures as well as temperatures.

    Returns list of `DarkGroup` and the `Screening` whose scale, step and saturation hold for the set.
    Raises InputError where no frame is left, or the scale is not that of the bias.
    """
    limits = screen.ScreenLimits(saturated_fraction=SATURATED_FRACTION)
    wanted = config.stored_scale if bias is None else bias.model.adu_scale
    found = []
    for group in groups:
        try:
            one = screen_groups(
                [group],
                adu_scale=wanted,
                saturation=config.saturation,
                jobs=config.shared.jobs,
                limits=limits,
            )
        except InputError as error:
            for entry in group.entries:
                record.reject(entry["original_path"], f"SCREEN: {error}")
            continue
        found.append(one)
    if not found:
        raise InputError(
            f"no dark frame passed the screen, the first was {groups[0].entries[0]['original_path']}"
        )
    # One decision for the set: the finest step that any frame shows.
    factor = min(one.lsb * one.adu_scale for one in found)
    scale = float(factor if wanted is None else wanted)
    if bias is not None and config.stored_scale is None:
        check_step(bias, factor, groups[0].entries[0]["original_path"])
    if wanted is None and any(one.adu_scale != scale for one in found):
        return screen_darks(
            groups, replace(config, shared=replace(config.shared, adu_scale=scale)), bias, record
        )
    for one in found:
        for path, reason in one.rejected:
            record.reject(path, reason)
        for note in one.notes:
            record.warn(f"darks: {note}")
    saturation, told_by = settled_saturation(found)
    if told_by:
        record.warn(f"darks: {told_by}")
    whole = Screening([one.groups[0] for one in found], scale, factor / scale, saturation, NOTHING_KNOWN)
    times = np.concatenate([group.frames.times for group in whole.groups])
    cuts = np.cumsum([len(group.frames) for group in whole.groups])[:-1]
    sessions = np.split(grouping.sessions_by_time(times, config.session_gap * 3600.0), cuts)
    result = []
    for group, session in zip(whole.groups, sessions, strict=True):
        group.offsets = None
        group.sigma = group.within
        level = 0.0 if bias is None else sensor_bias(bias.model, group.frames.temperature)
        result.append(
            DarkGroup(group, int(np.bincount(session).argmax()), level, float(np.mean(group.levels)) - level)
        )
    return result, whole


def check_step(bias, factor, path):
    """Refuse darks whose samples have another step than those of the bias: finer than its unit, or coarser.

    factor : step of the darks in stored units.  A unit that the user chose for the bias may be finer than its step.
    """
    scale, lsb = bias.model.adu_scale, bias.model.header.get("LSB")
    if factor < scale or (lsb is not None and factor > scale * float(lsb)):
        raise InputError(
            f"{bias.origin}: ADUSCALE {scale:g}, expected {factor:g} as the dark {path} is stored"
        )


def sensor_bias(model, temperature):
    """Level of the bias of the whole sensor at a temperature [ADU]."""
    step = max(1, model.a.size // BIAS_PIXELS)
    return screen.robust_level(
        model.a.reshape(-1)[::step] + np.float32(temperature) * model.b.reshape(-1)[::step]
    )[0]


def law_of_levels(groups, variance):
    """B and gamma of the median pixel from the levels of the groups; None where the temperatures do not tell.

    Returns (B, misfits bool (n,)).
    """
    temperature = np.array([group.temperature for group in groups])
    columns = (
        np.array([group.signal for group in groups]),
        np.asarray(variance),
        temperature,
        np.array([group.exposure for group in groups]),
        np.array([len(group.frames.frames) for group in groups], float),
    )
    if np.ptp(temperature) < 1.0:
        return None, np.zeros(len(groups), bool)
    out = dark_levels.misfits(*columns)
    b, *_ = dark_levels.level_fit(*(column[~out] for column in columns))
    return (b if 0.01 < b < 0.4 else None), out


def take_out_drift(group, b, bias):
    """Bring the frames of a group to its mean temperature: dark signal by exp(B dT), bias by its slope.

    Sets the group's offsets and returns scales (n,), or None where nothing is to be done.
    """
    frames = group.frames.frames
    away = frames.temperatures - frames.temperature
    slope = 0.0
    if bias is not None and not bias.model.fixed_slope:
        slope = sensor_bias(bias.model, frames.temperature + 0.5) - sensor_bias(
            bias.model, frames.temperature - 0.5
        )
    scales = np.exp(-b * away)
    # About the sensor's bias level: the pixels' own differ from it by little, and the factors average to 1.
    group.frames.offsets = group.bias_level - scales * (group.bias_level + slope * away)
    return scales
