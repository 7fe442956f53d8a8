"""Non-uniformity and temporal noise by rows, columns and pixels, their spectra, and dark current, after EMVA 1288.

Reference for all: EMVA Standard 1288, Release 4.0 Linear (2021), sec. 4 (row, column and pixel parts), 7 (dark current)
and 8 (spatial measurements).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

CLIP_SIGMA = 5.0
"""A residual further out is a hit or a pixel that jumps: it must not speak for its row."""
SURFACE_BINS, SURFACE_ORDER = 32, 4
UNLIKELY = 0.01
"""Probability of chi-square below which the scatter of the points counts, and not what they say."""
SENSITIVITY_PART = 0.7
"""Part of the saturation up to which the system gain is the slope."""
LINE_PARTS = (0.03, 0.6)
"""Parts of the full well between which a line with an offset is laid."""


@dataclass(frozen=True)
class Parts:
    """Variances of rows, columns and pixels, and the sum of the three, with their errors; squared unit of the image.

    A variance may come out negative where the part is smaller than its error.
    """

    total: float
    row: float
    column: float
    pixel: float
    total_error: float = 0.0
    row_error: float = 0.0
    column_error: float = 0.0
    pixel_error: float = 0.0

    def sigma(self, name):
        """Root of one part and its error; 0 for a negative variance, whose error is then the root of its error."""
        value, error = getattr(self, name), getattr(self, f"{name}_error")
        if value <= 0:
            return 0.0, math.sqrt(max(error, 0.0))
        return math.sqrt(value), error / (2.0 * math.sqrt(value))


def split_variance(total, of_rows, of_columns, ny, nx):
    """Row, column and pixel variance from that of all pixels, of the row means and of the column means.

    The means of nx pixels of a row still hold pixel noise: ``of_rows = row + pixel / nx``, ``of_columns = column +
    pixel / ny`` and ``total = row + column + pixel``, solved for the three.  Returns row, column, pixel.
    """
    pixel = (total - of_rows - of_columns) / (1.0 - 1.0 / nx - 1.0 / ny)
    return of_rows - pixel / nx, of_columns - pixel / ny, pixel


def temporal_parts(rows, columns, variance, variance_error, pixels):
    """Temporal noise of rows, columns and pixels.

    rows (n, ny), columns (n, nx) : means of rows and columns of each of n frames, less those of the stack.
    variance, variance_error : of a sample of an ordinary pixel, level of the frames taken out, as if all its noise were
    that of pixels.  pixels : of a frame used.
    Levels of the frames are taken out here.  Returns `Parts`.
    """
    n, ny = rows.shape
    nx = columns.shape[1]

    def of(profile):
        own = profile - profile.mean(axis=1, keepdims=True)
        own = own - own.mean(axis=0, keepdims=True)
        dof = (n - 1) * (profile.shape[1] - 1)
        value = float((own**2).sum()) / dof
        return value, value * math.sqrt(2.0 / dof)

    (of_rows, row_error), (of_columns, column_error) = of(rows), of(columns)
    # Pixels that are used in a row and in a column, which may be fewer than it has.
    in_row, in_column = pixels / ny, pixels / nx
    # The level of a frame takes a share of row, column and pixel noise with it.
    share = 1.0 - 1.0 / pixels - (1.0 - 1.0 / ny) / in_row - (1.0 - 1.0 / nx) / in_column
    pixel = (variance - of_rows * (1.0 - 1.0 / ny) - of_columns * (1.0 - 1.0 / nx)) / share
    row, column = of_rows - pixel / in_row, of_columns - pixel / in_column
    pixel_error = variance_error * max(pixel, 0.0) / variance if variance > 0 else 0.0
    total_error = math.sqrt(pixel_error**2 + row_error**2 + column_error**2)
    return Parts(row + column + pixel, row, column, pixel, total_error, row_error, column_error, pixel_error)


def spatial_parts(image, good, temporal, n):
    """Non-uniformity of rows, columns and pixels of the mean of n frames, residual temporal noise taken out.

    image (ny, nx) : mean of n frames.  good : (ny, nx) bool, pixels that count; others do not enter.
    temporal : `Parts` of one frame, which the stack still holds an n-th of; its row and column parts too, which the
    standard takes for pixel noise.
    Returns `Parts` and the profiles of rows (ny,) and columns (nx,) about the mean, NaN where no pixel is good.
    The errors are those of the residual temporal noise, and of what was taken out for it.
    """
    ny, nx = image.shape
    work = np.where(good, image, 0.0).astype(np.float64)
    count = int(good.sum())
    mean = work.sum() / count
    work = np.where(good, work - mean, 0.0)
    per_row, per_column = good.sum(axis=1), good.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rows, columns = work.sum(axis=1) / per_row, work.sum(axis=0) / per_column
    total = float(np.square(work).sum()) / (count - 1)
    in_row, in_column = count / ny, count / nx
    left = (
        temporal.total / n,
        (temporal.row + temporal.pixel / in_row) / n,
        (temporal.column + temporal.pixel / in_column) / n,
    )
    of_all = total - left[0]
    of_rows = float(np.nanmean(np.square(rows))) - left[1]
    of_columns = float(np.nanmean(np.square(columns))) - left[2]
    row, column, pixel = split_variance(of_all, of_rows, of_columns, in_column, in_row)

    def error(variance, noise, number, known):
        """Of a variance found in ``number`` values that hold a noise (variance), which is known to ``known``."""
        chance = (4.0 * max(variance, 0.0) * noise + 2.0 * noise**2) / number
        return math.hypot(math.sqrt(chance), known / n)

    errors = [
        error(of_rows, max(left[1], 0.0), ny, temporal.row_error),
        error(of_columns, max(left[2], 0.0), nx, temporal.column_error),
        error(pixel, max(temporal.pixel, 0.0) / n, count, temporal.pixel_error),
    ]
    parts = Parts(of_all, row, column, pixel, math.hypot(*errors), *errors)
    return parts, rows, columns


def smooth_surface(image, good):
    """Fourth-order surface of an image, (ny, nx) float32: uneven light, which is no property of the sensor.

    Fitted to medians of good pixels in about 32 x 32 cells.  Second order would leave the r^4 of a lens' vignetting, whose
    edges pass for rows and columns.  EMVA 1288 Release 4, sec. 8.1, asks for the removal of slow changes, too.
    """
    ny, nx = image.shape
    high, wide = max(1, ny // SURFACE_BINS), max(1, nx // SURFACE_BINS)
    cut = np.where(good, image, np.nan)[: ny // high * high, : nx // wide * wide]
    cells = cut.reshape(ny // high, high, nx // wide, wide).swapaxes(1, 2).reshape(ny // high, nx // wide, -1)
    some = np.isfinite(cells).any(axis=2)
    values = np.nanmedian(cells[some], axis=1)
    y = (np.arange(ny // high) * high + 0.5 * high) / ny * 2.0 - 1.0
    x = (np.arange(nx // wide) * wide + 0.5 * wide) / nx * 2.0 - 1.0
    yy, xx = np.broadcast_to(y[:, None], some.shape)[some], np.broadcast_to(x, some.shape)[some]
    legendre = np.polynomial.legendre
    keep = np.add.outer(np.arange(SURFACE_ORDER + 1), np.arange(SURFACE_ORDER + 1)) <= SURFACE_ORDER
    design = legendre.legvander2d(yy, xx, (SURFACE_ORDER, SURFACE_ORDER))[:, keep.ravel()]
    coefficients = np.zeros(keep.shape)
    coefficients[keep] = np.linalg.lstsq(design, values, rcond=None)[0]
    y, x = (2.0 * np.arange(ny) + 1.0) / ny - 1.0, (2.0 * np.arange(nx) + 1.0) / nx - 1.0
    return legendre.leggrid2d(y, x, coefficients).astype(np.float32)


def spectrum(profile):
    """Power spectrum of a profile of row or column means, and its frequencies [cycles/pixel].

    profile (m,), NaN are set to the mean.  White noise of variance v has the power v at all frequencies.
    Returns frequency and power (m // 2,), the mean left away.
    """
    own = np.asarray(profile, float)
    own = np.nan_to_num(own - np.nanmean(own))
    power = np.abs(np.fft.rfft(own)) ** 2 / own.size
    return np.fft.rfftfreq(own.size)[1:], power[1:]


def binned_noise(parts, sizes):
    """Temporal noise of the mean of b x b pixels, (k,): rows and columns of a frame do not average as pixels do.

    ``row / b + column / b + pixel / b^2``.  Returns also what pixels alone would give.
    """
    b = np.asarray(sizes, float)
    row, column, pixel = (max(getattr(parts, name), 0.0) for name in ("row", "column", "pixel"))
    true = np.sqrt(row / b + column / b + pixel / b**2)
    return true, np.sqrt(row + column + pixel) / b


@dataclass(frozen=True)
class DarkCurrent:
    """Dark current [ADU/s] from the mean and from the variance of darks against exposure; NaN where not told."""

    from_mean: float
    mean_error: float
    from_variance: float
    variance_error: float
    levels: int


def dark_current(exposure, mean, mean_error, variance, variance_error, gain):
    """Dark current at one temperature.

    exposure (n,) [s], bias frames count as 0 s; mean (n,) [ADU] and variance (n,) [ADU^2] of ordinary pixels with their
    errors, NaN = unknown.  gain [e-/ADU] turns a growth of variance to one of signal.
    Straight lines; their errors grow where the points scatter more than
    chance allows.  Returns `DarkCurrent`.
    """
    t = np.asarray(exposure, float)
    slope, error = _slope(t, mean, mean_error)
    rise, rise_error = _slope(t, variance, variance_error)
    return DarkCurrent(slope, error, rise * gain, rise_error * gain, int(np.unique(t).size))


def _slope(x, y, sigma):
    y, sigma = np.asarray(y, float), np.asarray(sigma, float)
    good = np.isfinite(y) & (sigma > 0)
    x, y, w = x[good], y[good], 1.0 / sigma[good] ** 2
    if np.unique(x).size < 2:
        return math.nan, math.nan
    centre = (w * x).sum() / w.sum()
    sxx = (w * (x - centre) ** 2).sum()
    slope = (w * (x - centre) * y).sum() / sxx
    left = y - (w * y).sum() / w.sum() - slope * (x - centre)
    return float(slope), _scaled((w * left**2).sum(), x.size - 2) / math.sqrt(sxx)


def _scaled(chi2, dof):
    """Factor on errors that points do not keep to; chance alone must not make it."""
    return math.sqrt(chi2 / dof) if dof > 0 and special.chdtrc(dof, chi2) < UNLIKELY else 1.0


def doubling_temperature(temperature, rate, error):
    """Temperature step that doubles the dark current, ``ln 2 / B``, and its error [degC].

    temperature (n,) [degC], rate (n,) and error (n,) [ADU/s].  ``rate = A exp(B T)`` by Gauss-Newton in linear space; the
    error grows where the rates scatter more than chance allows.  NaN where fewer than two temperatures have a rate above
    three times its error, or the rate does not grow.
    """
    t, r, e = (np.asarray(a, float) for a in (temperature, rate, error))
    good = np.isfinite(r) & (e > 0) & (r > 3.0 * e)
    t, r, e = t[good], r[good], e[good]
    if np.unique(t).size < 2:
        return math.nan, math.nan
    x = t - t.mean()
    w = (r / e) ** 2
    b, a = np.polyfit(x, np.log(r), 1, w=np.sqrt(w))
    for _ in range(50):
        model = np.exp(a + b * x)
        design = np.stack([model, model * x]) / e
        normal = design @ design.T
        step = np.linalg.solve(normal, design @ ((r - model) / e))
        a, b = a + step[0], b + step[1]
        if np.abs(step).max() < 1e-12:
            break
    chi2 = float((((r - np.exp(a + b * x)) / e) ** 2).sum())
    if not b > 0:
        return math.nan, math.nan
    scaled = _scaled(chi2, t.size - 2)
    return math.log(2.0) / b, math.log(2.0) / b**2 * math.sqrt(np.linalg.inv(normal)[1, 1]) * scaled


@dataclass(frozen=True)
class SystemGain:
    """Slope of variance against signal [ADU/e-] and its error; the levels used: number, lowest and highest signal [ADU]."""

    value: float
    error: float
    levels: int
    low: float
    high: float


def system_gain(signal, variance, error, dark, dark_error, saturation):
    """Overall system gain K as EMVA 1288 has it: a line through the origin, all levels up to 70 % of saturation alike.

    signal (n,) above dark [ADU], variance and error (n,) [ADU^2]; dark, dark_error : variance without light [ADU^2].
    saturation : signal of the largest variance [ADU].  The error is that of the noise, or what the levels scatter by about
    the line where that is more.  Returns `SystemGain`, or None where no level is in the range.
    """
    x, y, e = (np.asarray(a, float) for a in (signal, variance, error))
    used = (x > 0) & (x <= SENSITIVITY_PART * saturation)
    if not used.any():
        return None
    x, y, e = x[used], y[used] - dark, e[used]
    square = (x**2).sum()
    slope = (x * y).sum() / square
    noise = ((x * e) ** 2).sum() / square**2 + (x.sum() / square * dark_error) ** 2
    scatter = ((y - slope * x) ** 2).sum() / max(x.size - 1, 1) / square
    return SystemGain(float(slope), math.sqrt(max(noise, scatter)), x.size, float(x.min()), float(x.max()))


def line_slope(signal, variance, error, well):
    """Slope of a line with an offset of its own, levels from 3 to 60 % of the full well, as often quoted for K.

    A response that bends down, or a brighter-fatter effect, makes it smaller than K: the line need not meet the variance
    without light.  Returns `SystemGain`, or None where fewer than two levels are in that range.
    """
    x, y, e = (np.asarray(a, float) for a in (signal, variance, error))
    used = (x >= LINE_PARTS[0] * well) & (x <= LINE_PARTS[1] * well)
    if used.sum() < 2 or np.ptp(x[used]) == 0:
        return None
    x, y, e = x[used], y[used], e[used]
    away = x - x.mean()
    square = (away**2).sum()
    slope = (away * y).sum() / square
    noise = ((away * e) ** 2).sum() / square**2
    left = y - y.mean() - slope * away
    scatter = (left**2).sum() / (x.size - 2) / square if x.size > 2 else 0.0
    return SystemGain(float(slope), math.sqrt(max(noise, scatter)), x.size, float(x.min()), float(x.max()))
