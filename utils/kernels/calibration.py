"""A frame less its bias and dark, divided by its flat, with the error of every pixel."""

import numpy as np

REACH = 2
"""Half width of the square over which the signal is averaged for its own shot noise [pixels]."""
_BRIGHT = 3.0
"""A sample so many sigma above its surroundings is a source: its own signal tells its shot noise."""


def shot_signal(signal, usable, noise, inverse_gain):
    """Signal that the shot noise of each pixel is taken from: the mean of its surroundings, its own where it stands out.

    signal : (ny, nx) float32 above the dark [ADU].  usable : (ny, nx) bool.  noise : (ny, nx) variance without signal.
    A noisy sample by itself makes errors too small where it fluctuated low (science: never from the single sample).
    Returns (ny, nx) float32, never negative.
    """
    total = _box(np.where(usable, signal, np.float32(0.0)))
    count = _box(usable.astype(np.float32))
    near = total / np.maximum(count, np.float32(1.0))
    np.maximum(near, np.float32(0.0), out=near)
    stands_out = signal - near > np.float32(_BRIGHT) * np.sqrt(noise + np.float32(inverse_gain) * near)
    np.copyto(near, signal, where=stands_out)
    return near


def _box(plane):
    """Sum over squares of 2 REACH + 1 pixels; beyond the edges there is nothing."""
    for axis in (0, 1):
        summed = plane.copy()
        for step in range(1, REACH + 1):
            ahead = [slice(None)] * 2
            behind = [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            summed[tuple(behind)] += plane[tuple(ahead)]
            summed[tuple(ahead)] += plane[tuple(behind)]
        plane = summed
    return plane


def calibrate(
    samples, dark, dark_variance, dark_signal, flat, flat_sigma, read_variance, inverse_gain, usable
):
    """Calibrate a block of rows.

    samples : (ny, nx) float32 [ADU], NaN where there is none.  dark : bias and dark together [ADU], dark_variance their
    error [ADU^2], dark_signal : the dark current alone [ADU] (its electrons have shot noise).  flat, flat_sigma : relative
    response, or None.  read_variance : of one sample without signal, quantisation included [ADU^2].
    inverse_gain : ADU per electron, 0 unknown.  usable : (ny, nx) bool.  Arrays are not changed.
    Returns value, sigma (ny, nx) float32 [ADU]; NaN where a sample or the flat is missing.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        signal = samples - dark
        noise = read_variance + np.float32(inverse_gain) * np.maximum(dark_signal, np.float32(0.0))
        light = shot_signal(signal, usable & np.isfinite(signal), noise, inverse_gain)
        variance = noise + np.float32(inverse_gain) * light + dark_variance
        if flat is None:
            return signal, np.sqrt(variance)
        value = signal / flat
        variance /= flat * flat
        variance += np.square(value * (flat_sigma / flat))
        bad = ~(flat > 0)
        value[bad] = np.nan
        variance[bad] = np.nan
        return value, np.sqrt(variance)
