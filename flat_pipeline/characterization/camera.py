"""From measured levels to the numbers of a camera."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from utils.fits_io.naming import counted
from utils.kernels import emva, full_well, linearity, photon_transfer
from utils.kernels import groups as grouping

EXPOSURES_APART = 1.02
"""Exposures that differ by less than this factor tell no dark current."""
STANDARD_LEVELS = 50
SATURATION_APART = 0.02
"""Part by which --saturation may differ from where the flats end before it is said."""
UNSTEADY = 0.005
"""Scatter of the lamp from frame to frame that is said."""
UNTOLD = 0.1
"""Errors of the linearity above this part tell nothing of it."""
SEEN_SIGMA, SEEN_PART = 5.0, 0.005
"""A pattern of light that changes is taken out where it is so significant, and so large a part of the variance."""
DISAGREES, DISAGREES_SIGMA = 0.01, 4.0
"""A gain in the headers that differs by more than this part, and so many of its errors, is said."""
BINS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(eq=False)
class Camera:
    """All that was found; None where the frames do not tell it.

    setting; bias : `BiasLevel`; darks, flats : lists of `Level`; well, transfer, response, standard (linearity error);
    system_gain, line_slope : `emva.SystemGain` by the standard, and of a line with an offset;
    read_noise (value, error) [ADU]; currents : list of (temperature, `DarkCurrent`); doubling (value, error) [degC];
    told_gain : EGAIN of the frames [e-/ADU]; no_gain : why there is none, '' where there is;
    dsnu, prnu : `Spatial`; notes : what the data do not allow.
    """

    setting: object
    bias: object
    darks: list
    flats: list
    well: object = None
    transfer: object = None
    response: object = None
    standard: object = None
    system_gain: object = None
    line_slope: object = None
    no_gain: str = ""
    read_noise: tuple = (math.nan, math.nan)
    currents: list = field(default_factory=list)
    doubling: tuple = (math.nan, math.nan)
    told_gain: float | None = None
    dsnu: object = None
    prnu: object = None
    notes: list = field(default_factory=list)

    @property
    def temperature(self):
        """Mean temperature of the flats [degC]."""
        return float(np.average([f.temperature for f in self.flats], weights=[f.frames for f in self.flats]))


def base_of(bias, darks, source):
    """Variance without signal and its error [ADU^2], and where they come from; an error of inf: unknown."""
    if bias is not None:
        return bias.level.found.variance, bias.level.found.error, "bias frames"
    several = [dark for dark in darks if dark.frames > 1]
    if several:
        shortest = min(several, key=lambda one: one.exposure)
        return shortest.found.variance, shortest.found.error, f"darks of {shortest.exposure:g} s"
    if source.read_variance is not None:
        value = float(np.median(source.read_variance))
        return value, 0.01 * value, "read noise of the bias model"
    return 0.0, math.inf, "the flats themselves"


def photon(camera, base, base_error):
    """Full well, linearity and gain: sets them in ``camera``."""
    flats = camera.flats
    several = [level for level in flats if level.frames > 1 and math.isfinite(level.found.variance)]
    signal, variance, error = (
        np.array([getattr(level.found, name) for level in several])
        for name in ("signal", "variance", "error")
    )
    variance = variance - _moving(camera, several)
    spread = np.array([_spread(level, camera) for level in several])
    camera.well = full_well.full_well(signal, variance, base, spread)
    _linear(camera)
    well = camera.well.value if math.isfinite(camera.well.value) else math.inf
    pairs = None
    if camera.response is not None:
        pairs = camera.response.all_at(signal) if camera.response.order > 1 else []
    known = math.isfinite(base_error)
    limit = well if math.isfinite(well) else _converter_range(camera)
    lit = ~camera.well.full & (variance - base > SEEN_SIGMA * np.hypot(error, base_error if known else 0.0))
    if lit.any() and signal[lit].min() > photon_transfer.FIT_PART * limit:
        camera.notes.append(
            f"all levels of flats lie above 70 % of the range ({limit:.0f} ADU), up to which EMVA 1288 takes the gain: from"
            " the faintest"
        )
        limit = signal[lit].min() / photon_transfer.FIT_PART
    camera.transfer = photon_transfer.fit_transfer(
        signal,
        variance,
        np.maximum(error, 1e-12),
        base,
        base_error if known else float(variance.max(initial=1.0)),
        well=limit,
        responses=pairs,
    )
    camera.notes += camera.transfer.notes
    if known or camera.transfer.base > 0:
        at, sigma = (base, base_error) if known else (camera.transfer.base, camera.transfer.base_error)
        camera.read_noise = photon_transfer.read_noise(at, sigma, camera.setting.lsb)
        if not photon_transfer.trusted_read_noise(at, camera.setting.lsb):
            camera.notes.append(
                f"variance without light {at:.3g} ADU² is below 0.24 steps²: the converter's rounding hides the read noise"
            )
    levels = int(camera.transfer.used.sum())
    camera.no_gain = _no_gain(camera.transfer, several, known)
    if not camera.no_gain and levels < 3:
        camera.notes.append(f"gain from {counted(levels, 'level')}: the shape of the curve is not tested")
    if camera.no_gain:
        camera.transfer = replace(camera.transfer, gain=math.nan, gain_error=math.nan)
        if camera.well.how == "not reached":
            camera.notes.append("full well not told, nor saturation by EMVA 1288: there is no gain")
        return
    if camera.well.how == "not reached":
        camera.notes.append(
            f"full well not reached: it lies above {camera.well.top:.0f} ADU; without it no saturation, system gain K and"
            " linearity error by EMVA 1288"
        )
        return
    dark_error = base_error if known else 0.0
    camera.system_gain = emva.system_gain(signal, variance, error, base, dark_error, camera.well.turn)
    camera.line_slope = emva.line_slope(signal, variance, error, camera.well.value)
    if len(several) < STANDARD_LEVELS:
        camera.notes.append(
            f"{len(several)} levels of flats, EMVA 1288 asks for {STANDARD_LEVELS} between dark and saturation"
        )


def _no_gain(transfer, several, known):
    """Why there is no gain, '' where there is."""
    if not several:
        return "no group has two flats; expected pairs of flats below the full well"
    vague = not transfer.gain_error < 0.5 * transfer.gain
    if vague and (known or not math.isfinite(transfer.gain)):
        return "no level of flats has the noise of light; expected pairs of flats below the full well"
    if vague:
        return "the flats do not tell the noise of light from that of reading; expected biases, or flats of several levels"
    return ""


def _moving(camera, levels):
    """Variance that light which differs between frames adds to each level [ADU^2], where it is seen; said."""
    still = 0.0
    if camera.bias is not None:
        still = sum(max(part, 0.0) for part in (camera.bias.temporal.row, camera.bias.temporal.column))
    added = np.array([level.pattern for level in levels]) - still
    error = np.array([level.pattern_error for level in levels])
    variance = np.array([level.found.variance for level in levels])
    seen = (added > SEEN_SIGMA * error) & (added > SEEN_PART * variance)
    if seen.any():
        part = float((added[seen] / variance[seen]).max())
        camera.notes.append(
            f"the pattern of the light changes between frames of {counted(seen.sum(), 'level')}, up to {part:.1%} of the"
            " variance: taken out"
        )
    return np.where(seen, added, 0.0)


def compare_gain(camera, told):
    """Say where the gain that the headers tell (EGAIN, [e-/ADU], or None) is not the one measured."""
    camera.told_gain = told
    if not told or camera.no_gain:
        return
    gain, error = camera.transfer.gain, camera.transfer.gain_error
    away = told / gain - 1.0
    if abs(told - gain) > DISAGREES_SIGMA * error and abs(away) > DISAGREES:
        camera.notes.append(
            f"EGAIN of the frames is {told:.4g} e-/ADU, {abs(away):.1%} {'above' if away > 0 else 'below'} the"
            f" {gain:.4g} +- {error:.2g} that they show: give --detector (or --gain) to the pipelines"
        )


def compare_saturation(camera, given):
    """Say where --saturation [ADU] is not where the flats end; ``given`` is None without it."""
    if not math.isfinite(camera.well.value):
        return
    if camera.bias is None:
        camera.notes.append("saturation not told: without bias frames the full well is known above bias only")
        return
    found = camera.well.value + camera.bias.mean
    if given and abs(given / found - 1.0) > SATURATION_APART:
        camera.notes.append(f"--saturation is {given:g} ADU, the flats end at {found:.0f} ADU")


def _converter_range(camera):
    """Top of the converter above bias, or infinite for floats without one."""
    level = camera.bias.mean if camera.bias is not None else 0.0
    return camera.setting.top - level if math.isfinite(camera.setting.top) else math.inf


def _series(camera):
    """Levels of the filter and temperature with the most exposures."""
    by_filter = {}
    for level in camera.flats:
        by_filter.setdefault(level.filter, []).append(level)
    best = []
    for own in by_filter.values():
        for group in grouping.group_frames([level.temperature for level in own], None, temp_tolerance=1.0):
            series = [own[i] for i in group]
            if len({round(level.exposure, 6) for level in series}) > len(
                {round(b.exposure, 6) for b in best}
            ):
                best = series
    return best


def _linear(camera):
    """Response of the series of exposures; the full well too, where no variance told it."""
    best = _series(camera)
    exposure = np.array([level.exposure for level in best])
    if np.unique(exposure).size < 2:
        camera.notes.append(
            "linearity not told: all flats have one exposure, and the light of a lamp at several settings is not known"
        )
        return
    if camera.well.how == "not reached":
        single = np.array([math.isnan(level.found.variance) for level in best])
        signal = np.array([level.found.signal for level in best])
        value, spread = full_well.no_brighter(exposure, signal)
        if value > 0 and single[signal > 0.95 * value].all():
            camera.well = replace(camera.well, value=value, error=spread, how="no brighter", turn=math.nan)
    well = camera.well.value if math.isfinite(camera.well.value) else math.inf
    light = np.array([level.light for level in best])
    lamp = _lamp(camera, well)
    if lamp > UNSTEADY:
        camera.notes.append(
            f"the lamp changes by {lamp:.1%} from frame to frame: gain and noise are free of it, the linearity is not"
        )
    error = [
        math.hypot(_spread(level, camera), lamp * level.light / math.sqrt(level.frames)) for level in best
    ]
    camera.response = linearity.fit_response(exposure, light, error, well)
    if camera.response is None:
        camera.notes.append(
            f"linearity not told: {np.unique(exposure).size} exposures of one filter and temperature, expected 4 or more"
            " below the full well"
        )
        return
    typical = float(np.median(camera.response.deviation_error[camera.response.used]))
    if typical > UNTOLD:
        camera.notes.append(
            f"linearity not told: signals scatter by {typical:.0%} about any response to the exposure; the lamp was not"
            " the same"
        )
        camera.response = None
        return
    if camera.response.scaled > 1.0:
        camera.notes.append(
            f"signals scatter about the response {camera.response.scaled:.1f} times more than frames of one level do:"
            " the lamp or the exposure time differs between levels, errors of the linearity are larger by that"
        )
    if camera.well.how != "not reached" and math.isfinite(camera.well.turn):
        camera.standard = linearity.linearity_error(exposure, light, camera.well.turn)


def _spread(level, camera):
    """Error of the mean of a level's frames [ADU], the lamp's changes apart."""
    lsb = camera.setting.lsb
    noise = (
        max(level.found.signal, 1.0)
        if level.kind == "flat" or camera.bias is None
        else camera.bias.level.found.variance
    )
    # Noise of a quarter of a step does not carry the mean across the steps; at the converter's end there is none at all.
    stuck = 0 < level.found.variance < 0.15 * lsb**2 and level.found.signal < 0.998 * _converter_range(camera)
    return math.hypot(level.mean_error(_jitter(camera), noise), lsb / 12**0.5 if stuck else 0.0)


def _jitter(camera):
    """Scatter of the zero level from frame to frame [ADU], of biases and darks."""
    levels = [*([camera.bias.level] if camera.bias is not None else []), *camera.darks]
    known = [level for level in levels if math.isfinite(level.scatter)]
    if not known:
        return 0.0
    squares, weights = zip(*((one.scatter**2, one.frames - 1.0) for one in known), strict=True)
    return math.sqrt(np.average(squares, weights=weights))


def _lamp(camera, well):
    """Scatter of the lamp from frame to frame of a group, relative: that of the levels beyond their noise."""
    levels = [one for one in camera.flats if math.isfinite(one.scatter) and not _full(one, well)]
    if not levels:
        return 0.0
    # One frame's share of the mean's error.
    noise = np.array([one.frames * (_spread(one, camera) / one.light) ** 2 for one in levels])
    excess = np.array([(one.scatter / one.light) ** 2 for one in levels]) - noise
    known = np.array([one.frames - 1.0 for one in levels])
    square = 0.0
    for _ in range(3):
        square = max(float(np.average(excess, weights=known / (noise + square) ** 2)), 0.0)
    return math.sqrt(square)


def zero_error(camera):
    """Error of the level of the bias frames [ADU], which every signal above bias shares."""
    return _spread(camera.bias.level, camera) if camera.bias is not None else 0.0


def _full(level, well):
    return level.found.signal > 0.95 * well


def dark_currents(camera, gain):
    """Dark current at each temperature and the doubling temperature: sets them in ``camera``."""
    darks = [dark for dark in camera.darks if math.isfinite(dark.found.signal)]
    if not darks:
        camera.notes.append("no darks: no dark current, no doubling temperature")
        return
    for group in grouping.group_frames([dark.temperature for dark in darks], None, temp_tolerance=0.5):
        own = [darks[i] for i in group]
        exposure = [dark.exposure for dark in own]
        mean = [dark.found.signal for dark in own]
        error = [_spread(dark, camera) for dark in own]
        variance, variance_error = [d.found.variance for d in own], [d.found.error for d in own]
        if camera.bias is not None:
            # Bias frames are darks without exposure; their level is that of the bias taken out.
            exposure, mean = [0.0, *exposure], [0.0, *mean]
            error = [zero_error(camera), *error]
            variance = [camera.bias.level.found.variance, *variance]
            variance_error = [camera.bias.level.found.error, *variance_error]
        if max(exposure) < EXPOSURES_APART * max(min(exposure), 1e-9):
            continue
        found = emva.dark_current(exposure, mean, error, variance, np.nan_to_num(variance_error), gain)
        camera.currents.append((float(np.mean([dark.temperature for dark in own])), found))
    if not camera.currents:
        camera.notes.append("dark current not told: darks of one exposure without bias frames")
        return
    temperature, rate, error = (
        np.array(column)
        for column in zip(*((t, c.from_mean, c.mean_error) for t, c in camera.currents), strict=True)
    )
    camera.doubling = emva.doubling_temperature(temperature, rate, error)
    if np.ptp(temperature) < 1.0:
        camera.notes.append("doubling temperature not told: darks of one temperature")
    if all(c.levels < 6 for _, c in camera.currents):
        camera.notes.append(
            "EMVA 1288 asks for six exposures of darks at a temperature, there are"
            f" {max(c.levels for _, c in camera.currents)}"
        )
