"""What the simulated sensor looks at: a lamp's pattern, a field of stars, cosmic hits, and its own state.

    lamp = led_pattern((256, 256), seed=1)                          # satellite flats
    sensor.frame("flat", 20.0, 2.0, rng, level=1500.0, scene=Scene(pattern=lamp, cosmic=1e-4))

    stars = StarField((256, 256), count=300, seed=1)                # sky flats: another offset a frame
    sensor.frame("flat", 20.0, 30.0, rng, level=900.0, scene=Scene(light=stars.light(dx, dy)))

    history = History((256, 256), [Film((0, 30), (0.0, 0.02))])     # detector_history: what befalls the sensor
    sensor.frame("flat", 20.0, 2.0, rng, level=1500.0, scene=Scene(state=history.at(12.0)))

Light [product ADU of a perfect pixel on the optical axis] = level x pattern + light; the sensor multiplies it by its
illumination and response, and by what its state lets through.
"""

from dataclasses import dataclass

import numpy as np

from utils.kernels.detector_history import DetectorState

__all__ = ["Scene", "StarField", "led_pattern"]

_PATCH_IN_FWHM = 8  # half width of the patch that a star is drawn on


@dataclass(frozen=True)
class Scene:
    """What is special in one frame; None or 0 where nothing is.

    pattern : (ny, nx), times the frame's level.   light : (ny, nx), added to it [ADU].
    cosmic : hits per pixel, beside those of the sensor's specification.
    state : DetectorState, what dust, films and radiation did to the sensor by then.
    Bias and dark frames take ``cosmic`` and ``state`` only.
    """

    pattern: np.ndarray | None = None
    light: np.ndarray | None = None
    cosmic: float = 0.0
    state: DetectorState | None = None


class StarField:
    """Stars of random place and brightness, in and around a frame.

    shape : (ny, nx) of the frame.   count : mean number of stars inside the frame.   seed : of the field.
    faintest, brightest : total signal of a star [ADU]; N(> F) falls as F^-slope between them.
    fwhm : of the point spread function [pixels].   psf : 'moffat' (beta 2.5) or 'gaussian'.
    margin : pixels around the frame that hold stars too: the largest dither that keeps the mean number.
    x, y, flux : arrays of all stars [pixels of an undithered frame, ADU].
    Raises ValueError for values that make no field.
    """

    def __init__(
        self,
        shape,
        count=300,
        seed=1,
        *,
        faintest=300.0,
        brightest=60_000.0,
        slope=1.0,
        fwhm=3.0,
        psf="moffat",
        margin=40,
    ):
        if psf not in ("moffat", "gaussian"):
            raise ValueError(f"psf: got {psf!r}, expected moffat or gaussian")
        if not (0 < faintest < brightest and slope > 0 and fwhm > 0 and count >= 0 and margin >= 0):
            raise ValueError(
                f"star field: got count {count}, faintest {faintest}, brightest {brightest}, slope {slope}, "
                f"fwhm {fwhm}, margin {margin}, expected 0 < faintest < brightest, slope and fwhm above 0"
            )
        self.shape, self.fwhm, self.psf = tuple(shape), float(fwhm), psf
        ny, nx = self.shape
        rng = np.random.default_rng(seed)
        total = round(count * (ny + 2 * margin) * (nx + 2 * margin) / (ny * nx))
        self.x = rng.uniform(-margin - 0.5, nx + margin - 0.5, total)
        self.y = rng.uniform(-margin - 0.5, ny + margin - 0.5, total)
        # Inverse of the distribution function of a power law cut at both ends.
        low, high = faintest**-slope, brightest**-slope
        self.flux = (low - rng.uniform(size=total) * (low - high)) ** (-1 / slope)

    def light(self, dx=0.0, dy=0.0, scale=1.0):
        """Light of the stars in a frame where they stand (dx, dy) pixels further: (ny, nx) float32 [ADU].

        scale : times every star's signal, as for a longer exposure.
        """
        half = int(np.ceil(_PATCH_IN_FWHM * self.fwhm))
        ny, nx = self.shape
        x, y = self.x + dx, self.y + dy
        near = (x > -half) & (x < nx + half) & (y > -half) & (y < ny + half)
        x, y, flux = x[near], y[near], self.flux[near] * scale
        # Drawn on a frame with a border of a patch, so that none is cut by hand.
        border = 2 * half + 1
        canvas = np.zeros((ny + 2 * border, nx + 2 * border), np.float32)
        step = np.arange(-half, half + 1)
        columns, rows = np.rint(x).astype(int)[:, None] + step, np.rint(y).astype(int)[:, None] + step
        r2 = ((rows - y[:, None]) ** 2)[:, :, None] + ((columns - x[:, None]) ** 2)[:, None, :]
        patches = (flux[:, None, None] * self._profile(r2)).astype(np.float32)
        np.add.at(canvas, (rows[:, :, None] + border, columns[:, None, :] + border), patches)
        return canvas[border : border + ny, border : border + nx].copy()

    def _profile(self, r2):
        """Point spread function at squared radii [1/pixel], of unit sum."""
        if self.psf == "gaussian":
            variance = self.fwhm**2 / (8 * np.log(2))
            return np.exp(-0.5 * r2 / variance) / (2 * np.pi * variance)
        beta = 2.5
        alpha2 = self.fwhm**2 / (4 * (2 ** (1 / beta) - 1))
        return (beta - 1) / (np.pi * alpha2) * (1 + r2 / alpha2) ** -beta


def led_pattern(shape, seed=1, *, tilt=0.08, bumps=3, height=0.12, width=0.35):
    """Large-scale pattern of lamps that stand beside the field: a tilt and off-centre bumps, (ny, nx) float32 of mean 1.

    tilt : relative change of the light from edge to edge, in a random direction.   bumps : their number.
    height : of the highest bump.   width : 1 sigma of a bump, in frame diagonals.
    Raises ValueError where that makes no light somewhere.
    """
    ny, nx = shape
    rng = np.random.default_rng(seed)
    y, x = (np.arange(ny)[:, None] + 0.5) / ny - 0.5, (np.arange(nx) + 0.5) / nx - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    pattern = 1 + tilt * (x * np.cos(angle) + y * np.sin(angle))
    for x0, y0, part in rng.uniform((-0.5, -0.5, 0.5), (0.5, 0.5, 1.0), (bumps, 3)):
        r2 = (((x - x0) * nx) ** 2 + ((y - y0) * ny) ** 2) / (nx**2 + ny**2)
        pattern = pattern + height * part * np.exp(-0.5 * r2 / width**2)
    if pattern.min() <= 0:
        raise ValueError(f"tilt: got {tilt}, expected a pattern above 0 everywhere")
    return (pattern / pattern.mean()).astype(np.float32)
