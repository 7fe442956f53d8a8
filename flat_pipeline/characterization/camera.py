"""From measured levels to the numbers of a camera."""

import math
from dataclasses import dataclass, field

import numpy as np

from flat_pipeline.characterization.measure import profiles
from utils.fits_io.naming import counted
from utils.kernels import emva, linearity, photon_transfer
from utils.kernels import groups as grouping

EXPOSURES_APART = 1.02
"""Exposures that differ by less than this factor tell no dark current."""
HALF = (0.3, 0.7)
"""Part of the full well at which PRNU is meant to be measured (EMVA 1288: 0.5)."""
STANDARD_FRAMES = 50
"""Fewer frames than this leave noise of which the standard takes no account."""
BLEMISH = 8.0
"""A pixel that responds so many robust sigma unlike its neighbourhood is dead, dusty or blemished: no ordinary pixel."""
BINS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(eq=False)
class Camera:
    """All that was found; None where the frames do not tell it.

    setting; bias : `BiasLevel`; darks, flats : lists of `Level`; well, transfer, response, standard (linearity error),
    read_noise (value, error) [ADU]; currents : list of (temperature, `DarkCurrent`); doubling (value, error) [degC];
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
    series: list = field(default_factory=list)
    read_noise: tuple = (math.nan, math.nan)
    currents: list = field(default_factory=list)
    doubling: tuple = (math.nan, math.nan)
    dsnu: object = None
    prnu: object = None
    notes: list = field(default_factory=list)

    @property
    def temperature(self):
        """Mean temperature of the flats [degC]."""
        return float(np.average([f.temperature for f in self.flats], weights=[f.frames for f in self.flats]))


@dataclass(frozen=True)
class Spatial:
    """Non-uniformity of a stack: parts (squared unit), total of all pixels (root), spectra and their white noise level.

    what : the frames, in words.   spectra : {"row", "column"} -> (frequency, power, power of the noise left).
    """

    parts: emva.Parts
    all_pixels: float
    spectra: dict
    what: str


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
    if not several:
        camera.notes.append("no group has two flats: no temporal noise, no gain")
        return
    signal, variance, error = (
        np.array([getattr(level.found, name) for level in several])
        for name in ("signal", "variance", "error")
    )
    spread = np.array([math.sqrt(max(level.found.variance, 0.0) / level.found.pixels) for level in several])
    camera.well = photon_transfer.full_well(
        signal, variance, base, np.maximum(spread, camera.setting.lsb / 12**0.5)
    )
    well = camera.well.value if math.isfinite(camera.well.value) else math.inf
    _linear(camera, well)
    pairs = None
    if camera.response is not None:
        pairs = camera.response.all_at(signal) if camera.response.order > 1 else []
    known = math.isfinite(base_error)
    limit = well if math.isfinite(well) else _converter_range(camera)
    camera.transfer = photon_transfer.fit_transfer(
        signal,
        variance,
        np.maximum(error, 1e-12),
        base,
        base_error if known else float(variance.max()),
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
    if not camera.transfer.used.any():
        camera.notes.append("no level of flats lies below 70 % of the full well: no gain")
    elif camera.transfer.used.sum() < 3:
        camera.notes.append(
            f"gain from {counted(camera.transfer.used.sum(), 'level')}: the shape of the curve is not tested"
        )
    if camera.well.how == "not reached":
        camera.notes.append(f"full well not reached: it lies above {camera.well.top:.0f} ADU")


def _converter_range(camera):
    """Top of the converter above bias, or infinite for floats without one."""
    level = camera.bias.mean if camera.bias is not None else 0.0
    return camera.setting.top - level if math.isfinite(camera.setting.top) else math.inf


def _linear(camera, well):
    """Response of the filter and temperature with the most exposures."""
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
    camera.series = best
    exposure = np.array([level.exposure for level in best])
    if np.unique(exposure).size < 2:
        camera.notes.append(
            "linearity not told: all flats have one exposure, and the light of a lamp at several settings is not known"
        )
        return
    light = np.array([level.light for level in best])
    lamps = [level.lamp for level in camera.flats if math.isfinite(level.lamp) and not _full(level, well)]
    weights = [
        level.frames - 1.0 for level in camera.flats if math.isfinite(level.lamp) and not _full(level, well)
    ]
    lamp = math.sqrt(np.average(np.square(lamps), weights=weights)) if lamps else 0.0
    error = []
    for level in best:
        noise = level.found.variance if math.isfinite(level.found.variance) else max(level.found.signal, 1.0)
        own = (
            noise / level.found.pixels
            + (lamp * level.light) ** 2
            + camera.setting.lsb**2 / 12.0 / level.found.pixels
        )
        error.append(math.sqrt(max(own, 1e-12) / level.frames))
    camera.response = linearity.fit_response(exposure, light, error, well)
    if camera.response is None:
        camera.notes.append(
            f"linearity not told: {np.unique(exposure).size} exposures of one filter and temperature, expected 4 or more"
            " below the full well"
        )
        return
    if camera.response.scaled > 1.0:
        camera.notes.append(
            f"signals scatter about the response {camera.response.scaled:.1f} times more than frames of one level do:"
            " the lamp or the exposure time differs between levels, errors of the linearity are larger by that"
        )
    if math.isfinite(camera.well.turn):
        camera.standard = linearity.linearity_error(exposure, light, camera.well.turn)


def _full(level, well):
    return level.found.signal > 0.95 * well


def dark_currents(camera, jitter, gain):
    """Dark current at each temperature and the doubling temperature: sets them in ``camera``."""
    darks = [dark for dark in camera.darks if math.isfinite(dark.found.signal)]
    if not darks:
        camera.notes.append("no darks: no dark current")
        return
    for group in grouping.group_frames([dark.temperature for dark in darks], None, temp_tolerance=0.5):
        own = [darks[i] for i in group]
        exposure = [dark.exposure for dark in own]
        mean = [dark.found.signal for dark in own]
        steady = jitter if math.isfinite(jitter) else 0.0
        error = [
            math.sqrt(max(steady**2, _noise(dark, camera) / dark.found.pixels) / dark.frames) for dark in own
        ]
        variance, variance_error = [d.found.variance for d in own], [d.found.error for d in own]
        if camera.bias is not None:
            # Bias frames are darks without exposure; their level is that of the bias taken out.
            exposure, mean = [0.0, *exposure], [0.0, *mean]
            error = [max(steady, 1e-6) / math.sqrt(camera.bias.level.frames), *error]
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


def _noise(dark, camera):
    if math.isfinite(dark.found.variance):
        return dark.found.variance
    return camera.bias.level.found.variance if camera.bias is not None else 1.0


def dark_uniformity(camera, good):
    """Set DSNU from the stack of bias frames."""
    bias = camera.bias
    if bias is None:
        camera.notes.append("DSNU not told: no group has two bias frames")
        return
    n = bias.level.frames
    camera.dsnu = _spatial(bias.stack.value, good, bias.temporal, n, f"{n} bias frames")
    if n < STANDARD_FRAMES:
        camera.notes.append(
            f"DSNU from {n} bias frames, not from the darks of the flats' exposure: hot pixels and glow are not in it"
        )


def photo_uniformity(camera, reference, good, gain):
    """Set PRNU from the flats nearest to half the range; their light is divided out as a smooth surface."""
    group, stack, _, pedestal = reference
    n = len(group)
    finite = good & np.isfinite(stack.value) & (stack.value > 0)
    surface = emva.smooth_surface(stack.value, finite)
    mean = float(np.mean(stack.value[finite], dtype=np.float64))
    if stack.dof < 1:
        camera.notes.append("PRNU not told: the flats at half the range are single frames")
        return
    base = camera.bias.level.found.variance if camera.bias is not None else 0.0
    found = photon_transfer.ordinary_pixels(stack.value[finite], stack.variance[finite], stack.dof, base)
    level = np.maximum(stack.value, 0.0)
    sigma = np.sqrt(np.maximum(base + (found.variance - base) / found.signal * level, 1e-12))
    reading = camera.setting.reading
    temporal = emva.temporal_parts(
        *profiles(stack, finite, sigma, reading), found.variance, found.error, int(finite.sum())
    )
    # Noise of bias and dark taken out below each frame is common to all of them: it stays in the mean.
    below = float(np.mean(pedestal.variance[finite], dtype=np.float64))
    one = mean**2
    temporal = emva.Parts(
        *((part + more) / one for part, more in zip(
            (temporal.total, temporal.row, temporal.column, temporal.pixel), (n * below, 0.0, 0.0, n * below), strict=True
        ))
    )  # fmt: skip
    response = stack.value / surface
    some = response[finite]
    scale = 1.4826 * float(np.median(np.abs(some - 1.0)))
    even = finite & (np.abs(response - 1.0) < BLEMISH * scale)
    part = (
        mean / camera.well.value if camera.well is not None and math.isfinite(camera.well.value) else math.nan
    )
    what = f"{n} flats at {mean:.0f} ADU" + ("" if math.isnan(part) else f", {part:.0%} of the full well")
    camera.prnu = _spatial(response, even, temporal, n, what, finite)
    uneven = float(surface.max() / surface.min() - 1.0)
    if uneven > 0.03:
        camera.notes.append(
            f"light uneven by {uneven:.0%} over the frame, EMVA 1288 asks for 3 %: a smooth surface was divided out"
            " before PRNU"
        )
    if n < STANDARD_FRAMES:
        camera.notes.append(
            f"PRNU from {n} frames: the noise left in their mean was taken out, its error is given"
        )
    if not math.isnan(part) and not HALF[0] <= part <= HALF[1]:
        camera.notes.append(f"PRNU measured at {part:.0%} of the full well, EMVA 1288 asks for 50 %")


def _spatial(image, good, temporal, n, what, finite=None):
    """Split an image into parts with spectra; total of all its finite pixels beside."""
    parts, rows, columns = emva.spatial_parts(image, good, temporal, n)
    every = image[np.isfinite(image) if finite is None else finite].astype(np.float64)
    total = math.sqrt(max(float(every.var(ddof=1)) - temporal.total / n, 0.0))
    ny, nx = image.shape
    spectra = {}
    for name, profile, part, across in (
        ("row", rows, temporal.row, nx),
        ("column", columns, temporal.column, ny),
    ):
        left = (max(part, 0.0) + max(temporal.pixel, 0.0) / across) / n
        spectra[name] = (*emva.spectrum(profile), left + max(parts.pixel, 0.0) / across)
    return Spatial(parts, total, spectra, what)
