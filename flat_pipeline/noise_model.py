"""Noise of flats: e-/ADU from the user, the frames' headers or their scatter, and the read noise around it."""

import math

import numpy as np

from utils.fits_io.workers import over_pixels
from utils.kernels import noise
from utils.kernels.medians import median

LEVELS_APART = 1.5
"""Levels must differ by this factor before they tell read noise and gain apart."""
UNKNOWN_GAIN = "unknown, stars widen the scatter"
DISAGREES = 0.15
"""A gain that the scatter of the frames contradicts by this part is said."""


def settle_noise(flats, setting, source, config, record):
    """Set gain and read noise of ``setting`` and say where they come from.

    The gain is that of --gain or --detector, else of the headers, else of the bias, else of the scatter of the stacks.
    """
    read, detector = source.read_variance, config.shared.load_detector()
    known = read is not None or (detector is not None and detector.read_noise is not None)
    setting.read_number = setting.step**2 / 12.0
    if read is not None:
        setting.read_number = float(median(read))
    elif known:
        setting.read_number += detector.read_noise.value**2
    measured = _measured(flats, setting, known)
    entry = flats[0].frames.entries[0]
    header = source.bias.model.header if source.bias is not None else {}
    for value, origin in (
        (config.shared.egain(entry["egain"], setting.adu_scale), _origin(config.shared)),
        (float(header["EGAIN"]) if header.get("EGAIN") else None, "EGAIN of the bias"),
    ):
        if value:
            setting.inverse_gain, setting.gain_from = 1.0 / value, origin
            break
    else:
        setting.inverse_gain, setting.gain_from = measured or _from_neighbours(flats, setting, record)
        if measured is not None and config.flat_type == "sky":
            setting.gain_from = UNKNOWN_GAIN
            record.warn(
                f"gain [e-/ADU] unknown: stars that move widen the scatter of sky flats, which is that of"
                f" {1.0 / setting.inverse_gain:.3g} e-/ADU; errors follow the scatter of the masked frames, --gain tells it"
            )
    # Stars that move make the scatter of sky flats too large to tell the gain.
    if measured is not None and config.flat_type != "sky":
        setting.measured_gain = 1.0 / measured[0]
        record.value("gain from the scatter of the flats", setting.measured_gain, "e-/adu", section="Frames")
        away = setting.inverse_gain / measured[0] - 1.0
        if abs(away) > DISAGREES:
            record.warn(
                f"gain {1.0 / setting.inverse_gain:.3g} e-/ADU ({setting.gain_from}), but flats scatter as at"
                f" {setting.measured_gain:.3g}: errors follow the scatter"
            )
    word = "gain of the noise model" if setting.gain_from == UNKNOWN_GAIN else "gain used"
    record.value(f"{word} ({setting.gain_from})", 1.0 / setting.inverse_gain, "e-/adu", section="Frames")
    if known:
        record.value(
            "read noise used (median pixel)", math.sqrt(setting.read_number), "adu", section="Frames"
        )


def _origin(shared):
    return "--gain" if shared.gain is not None else "--detector" if shared.detector is not None else "EGAIN"


def _measured(flats, setting, read_known):
    """ADU per electron from the scatter of the groups, and its origin in words; None where no group has two frames."""
    several = [flat for flat in flats if math.isfinite(flat.sample.within) and flat.sample.within > 0]
    if not several:
        return None
    several = [
        flat for flat in several if math.isfinite(flat.signal) and flat.signal * flat.sample.within > 0
    ]
    if not several:
        return None
    signal = np.array([flat.signal for flat in several])
    variance = np.array([(flat.sample.within * flat.signal) ** 2 for flat in several])
    # The scatter of a group is known to the same part whatever its level.
    weight = np.array([len(flat.frames) - 1.0 for flat in several]) / variance**2
    if not read_known and signal.max() > LEVELS_APART * signal.min():
        design = np.stack([np.ones_like(signal), signal])
        base, slope = np.linalg.solve((design * weight) @ design.T, (design * weight) @ variance)
        if base > 0 and slope > 0:
            setting.read_number = float(base)
            return float(slope), "scatter of the flats at several levels"
    beyond = variance - setting.read_number
    with np.errstate(invalid="ignore", over="ignore"):
        slope = float((weight * signal * beyond).sum() / (weight * signal * signal).sum())
    if not (math.isfinite(slope) and slope > 0):
        return None
    return slope, "scatter of the flats"


def _from_neighbours(flats, setting, record):
    """ADU per electron as an upper limit from neighbouring pixels, where no group has two frames."""
    brightest = max(flats, key=lambda flat: flat.signal)
    variance = max((brightest.sample.spatial * brightest.signal) ** 2 - setting.read_number, 1e-12)
    record.warn(
        "gain [e-/ADU] unknown and no group has two flats: noise taken from neighbouring pixels of one frame, which is"
        " too high by the pattern of the sensor"
    )
    return variance / brightest.signal, "neighbouring pixels"


def sample_variance(setting, base, value, scale_mean, scale_square):
    """Expected variance of one normalised sample.

    base : variance of a sample without light [ADU^2], number or (ny, nx).  value : combined normalised flat (ny, nx).
    scale_mean, scale_square : mean of 1 / level and of its square over the frames.  Returns (ny, nx) float32.
    """
    light = np.fmax(value, np.float32(0.0))
    light *= np.float32(setting.inverse_gain * scale_mean)
    light += np.asarray(base, np.float32) * np.float32(scale_square)
    return light


def base_variance(setting, source_variance, dark, jobs=1):
    """Variance of a sample without light [ADU^2]: read noise, rounding, shot noise of the dark current.

    source_variance, dark : (ny, nx) float32 or None.  Returns a number, or (ny, nx) float32, not to be changed.
    """
    base = np.float32(setting.read_number) if source_variance is None else source_variance
    if dark is None or not setting.inverse_gain:
        return base
    variance = np.empty(dark.shape, np.float32)
    found, darks, bases = (
        variance.reshape(-1),
        dark.reshape(-1),
        np.broadcast_to(base, dark.shape).reshape(-1),
    )

    def piece(part):
        np.fmax(darks[part], np.float32(0.0), out=found[part])
        found[part] *= np.float32(setting.inverse_gain)
        found[part] += bases[part]

    over_pixels(piece, found.size, jobs)
    return variance


def median_variance_factor(method, n):
    """Variance of a combination of n samples in units of that of their mean."""
    return noise.median_factor(n) ** 2 if method == "median" else 1.0
