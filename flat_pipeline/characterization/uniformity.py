"""DSNU and PRNU of a camera with their parts and spectra."""

import math
from dataclasses import astuple, dataclass, replace

import numpy as np

from flat_pipeline.characterization.measure import profiles
from utils.kernels import emva, photon_transfer

HALF = (0.3, 0.7)
"""Part of the full well at which PRNU is meant to be measured (EMVA 1288: 0.5)."""
STANDARD_FRAMES = 50
"""Fewer frames than this leave noise of which the standard takes no account."""
BLEMISH = 8.0
"""A pixel that responds so many robust sigma unlike its neighbourhood is dead, dusty or blemished: no ordinary pixel."""


@dataclass(frozen=True)
class Spatial:
    """Non-uniformity of a stack: parts (squared unit), total of all pixels (root), spectra and their white noise level.

    what : the frames, in words.   spectra : {"row", "column"} -> (frequency, power, power of the noise left).
    """

    parts: emva.Parts
    all_pixels: float
    spectra: dict
    what: str


def dark_uniformity(camera, good):
    """Set DSNU from the stack of bias frames."""
    bias = camera.bias
    if bias is None:
        camera.notes.append(
            "DSNU not told, nor temporal noise by rows and columns: no group has two bias frames"
        )
        return
    n = bias.level.frames
    camera.dsnu = _spatial(bias.stack.value, good, bias.temporal, n, f"{n} bias frames")
    if n < STANDARD_FRAMES:
        camera.notes.append(
            f"DSNU from {n} bias frames, not from the darks of the flats' exposure: hot pixels and glow are not in it"
        )


def photo_uniformity(camera, reference, good, gain):
    """Set PRNU from the flats nearest to half the range; their light is divided out as a smooth surface."""
    group, stack, _, pedestal, colour = reference
    n = len(group)
    if not colour.all():
        camera.notes.append(
            f"a mosaic of colours: gain, linearity and PRNU are those of the brightest {colour.mean():.0%} of the pixels"
        )
    finite = good & colour & np.isfinite(stack.value) & (stack.value > 0)
    surface = emva.smooth_surface(stack.value, finite)
    mean = float(np.mean(stack.value[finite], dtype=np.float64))
    if camera.no_gain and stack.dof > 0:
        camera.notes.append(f"PRNU not told: {camera.no_gain}")
        return
    if stack.dof < 1:
        camera.notes.append("PRNU not told: the flats at half the range are single frames")
        return
    base = camera.bias.level.found.variance if camera.bias is not None else 0.0
    found = photon_transfer.ordinary_pixels(stack.value[finite], stack.variance[finite], stack.dof, base)
    level = np.maximum(stack.value, 0.0)
    sigma = np.sqrt(np.maximum(base + (found.variance - base) / found.signal * level, 1e-12))
    # A pixel that was struck keeps a share of it in the mean.
    limit = photon_transfer.highest_variance(stack.dof)
    finite &= ~(stack.variance > np.float32(limit) * np.square(sigma))
    reading = camera.setting.reading
    temporal = emva.temporal_parts(
        *profiles(stack, finite, sigma, reading), found.variance, found.error, int(finite.sum())
    )
    # Noise of bias and dark taken out below each frame is common to all of them: it stays in the mean.
    below = float(np.mean(pedestal.variance[finite], dtype=np.float64))
    temporal = replace(temporal, total=temporal.total + n * below, pixel=temporal.pixel + n * below)
    temporal = emva.Parts(*(part / mean**2 for part in astuple(temporal)))
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
