"""Light of stars that move over the sensor: where each frame points, and what all frames together know of the stars.

    first = matched_spectrum(contrast(rest[0]))
    shift, same = find_shift(first, contrast(rest[1]))                  # is it the same field, and how far is it moved?
    field = StarField(shape, shifts)
    for one, shift, part in zip(rest, shifts, parts): field.add(one, shift, part)
    stars = field.model()                                                # as deep as all frames together
    light = stars.light(shift)                                           # in one frame

A star that a single frame cannot tell from noise stands out of the mean of all frames of its field.
Reference: Fixsen, Moseley & Arendt (2000), ApJS 128, 651 (sky and response told apart by dithering).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

SEEN, BRIGHTEST = 3.0, 30.0
"""Stars speak for the shift by what rises above the first number of sigma of the smoothed sky, up to the second."""
SMOOTHING = 1.4
"""1 sigma of the Gaussian by which a frame is smoothed before stars are looked for [pixels]."""
EDGE = 16
"""Stars count less and less over so many pixels before the edge."""
LEAST_LIKENESS, LEAST_LEAD = 0.2, 1.5
"""Two frames show one field where their correlation is this at least, and so many times the second-best place's."""
TAPS = 3
"""Half the width of the interpolating kernel (Lanczos) [pixels]."""
FOUND = 4.0
"""Stars of the mean of all frames are kept pixel by pixel where they rise so many sigma; the rest of it is smoothed."""
WIDE = 4.0
"""1 sigma of the Gaussian for that rest: wings and faint stars in numbers [pixels]."""
STRONG, FEWEST_STRONG, USUAL_ERROR = 15.0, 20, 0.1
"""Pixels of stars above so many sigma of a frame tell how well the model fits; with fewer of them it counts as that."""


def robust_scatter(values):
    """1 sigma from the lower half of the values, of about 200,000 of them: stars only add light."""
    some = values.reshape(-1)[:: max(1, values.size // 200_000)]
    middle = float(np.median(some))
    below = some[some < middle]
    return 1.4826 * float(np.median(middle - below)) if below.size else 0.0


def contrast(rest):
    """What of a frame is stars for certain, each of them with about the same weight.

    rest : (ny, nx) frame less its sky, NaN = no value.  Returns (ny, nx) float32, 0 without stars.
    """
    smooth = ndimage.gaussian_filter(np.nan_to_num(rest).astype(np.float32), SMOOTHING, mode="nearest")
    sigma = robust_scatter(smooth)
    if not sigma > 0:
        return np.zeros(rest.shape, np.float32)
    out = np.clip(smooth / np.float32(sigma) - np.float32(SEEN), 0, BRIGHTEST - SEEN)
    # Stars that the edge cuts would hold the frames together at its place.
    for axis, extent in enumerate(out.shape):
        near = np.minimum(np.arange(extent), np.arange(extent)[::-1])
        fade = np.clip(near / EDGE, 0, 1).astype(np.float32)
        out *= fade[:, None] if axis == 0 else fade
    return out


def matched_spectrum(stars):
    """Spectrum of a frame's `contrast`, padded so that shifts of up to half the frame are told apart; and its power."""
    padded = [fft.next_fast_len(math.ceil(1.5 * extent), real=True) for extent in stars.shape]
    return np.conj(fft.rfft2(stars, padded)), padded, float(np.square(stars, dtype=np.float64).sum())


def find_shift(first, stars):
    """How far the stars of a frame stand from those of the first.

    first : of `matched_spectrum`.  stars : `contrast` of the frame.
    Returns ((dy, dx) [pixels], whether both show the same field).
    """
    spectrum, padded, power = first
    own = float(np.square(stars, dtype=np.float64).sum())
    if not power * own > 0:
        return np.zeros(2), False
    likeness = fft.irfft2(spectrum * fft.rfft2(stars, padded), padded)
    likeness /= np.float32(math.sqrt(power * own))
    top = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
    peak = float(likeness[top])
    if not peak > 0:
        return np.zeros(2), False
    shift = np.empty(2)
    for axis in (0, 1):
        near = [list(top) for _ in range(3)]
        for step in (-1, 0, 1):
            near[step + 1][axis] = (top[axis] + step) % padded[axis]
        # The top is nearly a Gaussian: its logarithm is a parabola.
        low, middle, high = (math.log(max(float(likeness[tuple(at)]), 1e-3 * peak)) for at in near)
        bend = low - 2 * middle + high
        at = top[axis] + (0.5 * (low - high) / bend if bend < 0 else 0.0)
        shift[axis] = at - padded[axis] if at > padded[axis] / 2 else at
    reach = round(4 * SMOOTHING)
    rows, columns = (
        np.arange(at - reach, at + reach + 1) % extent for at, extent in zip(top, padded, strict=True)
    )
    likeness[np.ix_(rows, columns)] = 0
    inside = all(abs(one) < 0.5 * extent for one, extent in zip(shift, stars.shape, strict=True))
    return shift, inside and peak > LEAST_LIKENESS and peak > LEAST_LEAD * float(likeness.max())


def moved(plane, fraction):
    """Interpolate a plane at (row - fraction[0], column - fraction[1]), each fraction 0 to 1 [pixels]; Lanczos kernel."""
    for axis, part in enumerate(fraction):
        if part == 0:
            continue
        distance = np.arange(-TAPS, TAPS) + part
        taps = np.sinc(distance) * np.sinc(distance / TAPS)
        plane = ndimage.correlate1d(
            plane, (taps / taps.sum()).astype(np.float32), axis, mode="constant", origin=0
        )
    return plane


class StarField:
    """Mean of frames of one field, each brought to the place of the first.

    shape : (ny, nx) of a frame.  shifts : (n, 2) (dy, dx) of the stars in each of them [pixels].
    Memory: three float32 planes of the area that all frames together cover.
    """

    def __init__(self, shape, shifts):
        shifts = np.atleast_2d(shifts)
        self.shape = shape
        self.corner = np.floor(-shifts.max(axis=0)).astype(int)
        far = np.floor(-shifts.min(axis=0)).astype(int) + 1
        size = np.array(shape) + far - self.corner
        self.total, self.weight, self.square = (np.zeros(size, np.float32) for _ in range(3))
        self.count = np.zeros(size, np.uint16)

    def _place(self, shift):
        """Slices of the area that a frame covers, and the fraction of a pixel that is left."""
        where = -np.asarray(shift, float) - self.corner
        whole = np.floor(where).astype(int)
        return tuple(slice(a, a + b) for a, b in zip(whole, self.shape, strict=True)), where - whole

    def add(self, rest, shift, part=1.0):
        """Add a frame.

        rest : (ny, nx) float32, frame less its sky, NaN = no value.  part : brightness of its stars in those units, 1 in
        the first frame.
        """
        area, fraction = self._place(shift)
        bad = ~np.isfinite(rest)
        value = moved(np.where(bad, np.float32(0.0), rest).astype(np.float32), fraction)
        # A sample that a missing pixel or the edge has a part in is missing.
        reach = 2 * TAPS + 1
        good = ~ndimage.maximum_filter(bad, reach, mode="constant", cval=True)
        self.total[area] += np.float32(part) * value * good
        self.weight[area] += np.float32(part * part) * good
        self.square[area] += np.square(value) * good
        self.count[area] += good

    def model(self):
        """Return the `Stars` of the field."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.nan_to_num(self.total / self.weight)
            scatter = (self.square - mean * self.total) / np.maximum(self.count - np.int32(1), 1)
        known = self.count > 1
        significant = mean * np.sqrt(self.weight)
        smooth = ndimage.gaussian_filter(significant, SMOOTHING)
        usual = robust_scatter(smooth[known]) if known.any() else 0.0
        found = ndimage.binary_dilation(smooth > FOUND * usual) if usual > 0 else np.zeros(mean.shape, bool)
        plain = known & ~found
        sigma = math.sqrt(max(float(np.median(scatter[plain])), 0.0)) if plain.any() else 0.0
        strong = known & (mean > STRONG * sigma) & (self.count * 2 > self.count.max())
        error = USUAL_ERROR
        if np.count_nonzero(strong) >= FEWEST_STRONG:
            beyond = np.maximum(scatter[strong] - sigma * sigma, 0.0) / np.square(mean[strong])
            error = math.sqrt(float(np.median(beyond)))
        # Beside the stars found the mean is smoothed: it holds their wings and the light of fainter ones.
        part = ndimage.gaussian_filter(plain.astype(np.float32), WIDE)
        wide = ndimage.gaussian_filter(np.where(plain, mean, np.float32(0.0)), WIDE)
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = np.where(part > 0.02, wide / part, np.float32(0.0))
        light = np.where(found & known, mean, rest).astype(np.float32)
        return Stars(light, error, sigma, self)


@dataclass(eq=False)
class Stars:
    """Light of a field's stars.

    plane : (Y, X) float32, in units of the first frame.  error : part of a star's light by which frames differ from it.
    sigma : noise of a pixel of one frame.  field : the `StarField` it is of.
    """

    plane: np.ndarray
    error: float
    sigma: float
    field: StarField

    def __post_init__(self):
        # Sums are not wanted any more.
        for name in ("total", "weight", "square", "count"):
            setattr(self.field, name, None)

    def light(self, shift, part=1.0):
        """Light in a frame whose stars are moved by ``shift`` and have ``part`` of the brightness, (ny, nx) float32."""
        where = -np.asarray(shift, float) - self.field.corner
        whole = np.ceil(where).astype(int)
        # One more row and column than the frame on each side, as far as there are any.
        start = np.maximum(whole - TAPS, 0)
        stop = np.minimum(whole + np.array(self.field.shape) + TAPS, self.plane.shape)
        patch = moved(self.plane[start[0] : stop[0], start[1] : stop[1]], whole - where)
        inner = tuple(slice(a, a + b) for a, b in zip(whole - start, self.field.shape, strict=True))
        out = np.zeros(self.field.shape, np.float32)
        piece = patch[inner]
        out[: piece.shape[0], : piece.shape[1]] = piece
        return out * np.float32(part)
