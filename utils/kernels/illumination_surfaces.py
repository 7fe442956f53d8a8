"""Empirical illumination of a flat: a polynomial, or the flat smoothed by a Gaussian or a median.

A surface is 1 in the mean of the middle of the frame (`MIDDLE`).
"""

from dataclasses import dataclass, replace

import numpy as np

from utils.kernels.flat_bins import bin_flat, bin_size, block_medians, centres, spread_over_pixels, to_blocks
from utils.kernels.illumination import FitQuality, fit_bins, fit_quality
from utils.kernels.noise import median_factor

MIDDLE = 8
"""A surface is 1 in the mean of the middle 1 / MIDDLE of the frame's width and height."""
PIXEL_CLIP = 5.0
"""Pixels so many robust sigma from the neighbourhood are not smoothed over."""


@dataclass(frozen=True, eq=False)
class SurfaceFit:
    """An empirical illumination: value and 1 sigma, (ny, nx) float32, and its `FitQuality`."""

    value: np.ndarray
    sigma: np.ndarray
    quality: FitQuality


def fit_polynomial(flat, sigma=None, usable=None, degree=4):
    """Fit a two-dimensional polynomial of total ``degree`` (Legendre) to a flat; bins, masks and arguments as `fit_radial`.

    Returns a `SurfaceFit`.  Raises ValueError where the bins are fewer than the coefficients.
    """
    bins, used, solution = fit_bins(
        flat,
        sigma,
        usable,
        lambda b, u: _solve_polynomial(b, u, flat.shape, degree),
        lambda s: s.paint(flat.shape).astype(np.float32),
    )
    quality = fit_quality(bins, used, solution)
    value = solution.paint(flat.shape)
    scale = _middle_level(value)
    error = np.sqrt(np.maximum(solution.variance(bins), 0.0) * np.fmax(1.0, quality.chi2_red))
    error = spread_over_pixels(error, bins.size, flat.shape) / abs(scale)
    value = (value / scale).astype(np.float32)
    return SurfaceFit(value, np.maximum(error, 0).astype(np.float32), replace(quality, level=scale))


def smooth_gaussian(flat, sigma=None, usable=None, width=50.0):
    """Illumination by a Gaussian of standard deviation ``width`` [pixels]; unusable pixels take no part.

    The departure from a quadratic surface is smoothed, so that slopes do not bend the result at the edges.  flat, sigma,
    usable : as in `utils.kernels.illumination.fit_radial`.  Dust larger than the width stays in the illumination.
    Returns a `SurfaceFit`.  Raises ValueError for a width that is not positive.
    """
    if not width > 0:
        raise ValueError(f"Gaussian width {width}, expected a positive number of pixels")
    from scipy.ndimage import gaussian_filter

    trend, ratio, scatter = _departure(flat, sigma, usable)
    size = max(1, int(width / 4))
    blocks = to_blocks(ratio, size)
    n = np.isfinite(blocks).sum(axis=-1).astype(np.float64)
    total = np.nansum(blocks, axis=-1, dtype=np.float64)
    # The bin itself is a part of the smoothing.
    narrow = np.sqrt(max((width / size) ** 2 - (1 - 1 / size**2) / 12.0, 1e-4))
    weight = gaussian_filter(n, narrow, mode="constant")
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth = gaussian_filter(total, narrow, mode="constant") / weight
        squared = gaussian_filter(n * scatter(size) ** 2, narrow / np.sqrt(2.0), mode="constant")
        error = np.sqrt(squared / (4.0 * np.pi * max(narrow**2, 1 / (4 * np.pi)))) / weight
    return _surface(flat, usable, trend, np.where(weight > 1e-6, smooth, np.nan), error, size)


def smooth_median(flat, sigma=None, usable=None, width=51):
    """Illumination by the median of a square of ``width`` pixels a side; unusable pixels take no part.

    Works on medians of bins of a quarter of the width, and as `smooth_gaussian` on the departure from a quadratic
    surface.  Returns a `SurfaceFit`.  Raises ValueError for a width below 1.
    """
    if not width >= 1:
        raise ValueError(f"median size {width}, expected 1 pixel or more")
    from scipy.ndimage import median_filter

    trend, ratio, scatter = _departure(flat, sigma, usable)
    size = max(1, int(width) // 4)
    medians = block_medians(to_blocks(ratio, size))
    known = np.isfinite(medians)
    window = max(1, round(width / size)) | 1
    smooth = median_filter(np.where(known, medians, 1.0), size=window, mode="nearest")
    n = np.full(medians.shape, float(window * size) ** 2)
    error = scatter(size) * median_factor(int(n[0, 0])) / np.sqrt(n)
    return _surface(flat, usable, trend, np.where(known, smooth, np.nan), error, size)


def _departure(flat, sigma, usable):
    """Quadratic trend of a flat, flat / trend without outlying pixels, and its scatter per pixel as a map of bins."""
    flat = np.asarray(flat)
    usable = np.isfinite(flat) if usable is None else usable & np.isfinite(flat)
    first = fit_polynomial(flat, sigma, usable, degree=2)
    trend = first.value * np.float32(first.quality.level)
    # Where the quadratic surface reaches zero it is no scale to divide by.
    trend = np.maximum(trend, np.float32(0.05 * abs(first.quality.level)))
    ratio = np.where(usable, flat / trend, np.float32(np.nan)).astype(np.float32, copy=False)
    coarse = bin_size(flat.shape)
    middle = block_medians(to_blocks(ratio, coarse))
    local = spread_over_pixels(np.nan_to_num(middle, nan=1.0), coarse, flat.shape)
    away = np.abs(ratio - local)
    pixel = 1.4826 * block_medians(to_blocks(away, coarse)).astype(np.float64)
    pixel = np.where(np.isfinite(pixel), pixel, np.nanmedian(pixel))
    limit = spread_over_pixels(PIXEL_CLIP * np.maximum(pixel, np.median(pixel)), coarse, flat.shape)
    ratio[away > np.maximum(limit, 1e-6)] = np.nan

    def scatter(size):
        x, y = centres(flat.shape, size)
        return pixel[np.ix_((y // coarse).astype(int), (x // coarse).astype(int))]

    return trend, ratio, scatter


def _surface(flat, usable, trend, smooth, error, size):
    """`SurfaceFit` of a smoothed departure; where nothing could be smoothed the trend stands alone."""
    empty = ~np.isfinite(smooth)
    smooth = np.where(empty, 1.0, smooth)
    error = np.where(
        np.isfinite(error) & ~empty, error, np.nanmedian(error[~empty]) if (~empty).any() else 0.0
    )
    value = trend * spread_over_pixels(smooth, size, flat.shape)
    level = _middle_level(value)
    sigma = (trend * spread_over_pixels(error, size, flat.shape) / level).astype(np.float32)
    notes = (
        ("no usable pixel in parts of the frame: a quadratic surface stands there",) if empty.any() else ()
    )
    masked_flat = np.asarray(flat) if usable is None else np.where(usable, flat, np.nan)
    bins = bin_flat(masked_flat, None, value)
    used = np.isfinite(bins.value) & (bins.sigma > 0)
    x, y = bins.x[used].round().astype(int), bins.y[used].round().astype(int)
    smooth_value = np.maximum(value[y, x], 1e-6 * abs(level))
    residual = bins.value[used] - value[y, x]
    quality = FitQuality(
        level=level,
        chi2_red=float(np.mean((residual / bins.sigma[used]) ** 2)),
        rms_residual=float(np.sqrt(np.mean((residual / smooth_value) ** 2))),
        rms_expected=float(np.sqrt(np.mean((bins.sigma[used] / smooth_value) ** 2))),
        prnu=bins.prnu,
        masked=0.0,
        bins=bins,
        used=used,
        notes=notes,
    )
    return SurfaceFit((value / level).astype(np.float32), np.maximum(sigma, 0), quality)


@dataclass(frozen=True, eq=False)
class _Polynomial:
    parameters: np.ndarray
    cov: np.ndarray
    powers: tuple
    shape: tuple
    notes: tuple = ()

    @property
    def n_free(self):
        return self.parameters.size

    def predict(self, x, y):
        return _terms(self.powers, x, y, self.shape) @ self.parameters

    def paint(self, shape):
        """Value of every pixel, (ny, nx) float64, row by column polynomials."""
        degree = max(i for i, _ in self.powers)
        table = np.zeros((degree + 1, degree + 1))
        for (i, j), coefficient in zip(self.powers, self.parameters, strict=True):
            table[i, j] = coefficient
        along_y = np.polynomial.legendre.legvander(_unit(np.arange(shape[0]), shape[0]), degree)
        along_x = np.polynomial.legendre.legvander(_unit(np.arange(shape[1]), shape[1]), degree)
        return along_y @ table @ along_x.T

    def variance(self, bins):
        terms = _terms(self.powers, bins.x, bins.y, self.shape)
        return ((terms @ self.cov) * terms).sum(axis=-1)


def _unit(position, extent):
    return 2.0 * (np.asarray(position, dtype=np.float64) + 0.5) / extent - 1.0


def _terms(powers, x, y, shape):
    degree = max(i for i, _ in powers)
    along_y = np.polynomial.legendre.legvander(_unit(y, shape[0]), degree)
    along_x = np.polynomial.legendre.legvander(_unit(x, shape[1]), degree)
    return np.stack([along_y[..., i] * along_x[..., j] for i, j in powers], axis=-1)


def _solve_polynomial(bins, used, shape, degree):
    powers = tuple((i, j) for i in range(degree + 1) for j in range(degree + 1 - i))
    if used.sum() <= len(powers):
        raise ValueError(
            f"{used.sum()} usable bins, expected more than the {len(powers)} terms of degree {degree}"
        )
    root = 1.0 / bins.sigma[used]
    design = _terms(powers, bins.x[used], bins.y[used], shape) * root[:, None]
    # A frame of few rows or columns does not carry all terms: the smallest solution is taken.
    cov = np.linalg.pinv(design.T @ design, rcond=1e-12, hermitian=True)
    return _Polynomial(cov @ (design.T @ (bins.value[used] * root)), cov, powers, shape)


def _middle_level(value):
    """Mean over the middle of the frame, where an empirical surface is 1."""
    return float(np.nanmean(value[middle_part(value.shape)]))


def middle_part(shape):
    """Slices of the middle 1 / MIDDLE of a frame."""
    return tuple(slice((n - max(1, n // MIDDLE)) // 2, (n + max(1, n // MIDDLE) + 1) // 2) for n in shape)
