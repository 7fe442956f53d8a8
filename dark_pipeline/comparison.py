"""A model of dark current beside the maps: numbers and errors of every pixel, block by block."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from utils.fits_io.mapped import drop_pages
from utils.fits_io.products import DQ
from utils.kernels import evaluation
from utils.kernels.pieces import PIECE

IGNORED = int(DQ.SATURATED | DQ.NO_DATA | DQ.DO_NOT_USE)
MEDIAN_PIXELS = 1 << 20
"""Pixels of a regular sample whose medians stand in the tables."""


def sample_of(size, most=200_000):
    """Flat indices of a regular sample; an odd step sees all columns of a mosaic."""
    return np.arange(0, size, size // most | 1)


def real_rate(maps, index, where):
    """Measured rates [ADU/s] of the pixels ``where`` (slice or flat indices), NaN where not usable: (m,) float32."""
    rate = maps.rates[index].reshape(-1)[where].astype(np.float32)
    rate[(maps.dqs[index].reshape(-1)[where] & IGNORED) != 0] = np.nan
    return rate


def bias_variance(maps, index, where):
    """Variance of the bias under a map [ADU^2], (m,) or 0."""
    return 0.0 if maps.bias is None else maps.bias.variance(maps.temperature[index], where)


def all_in_sample(maps, model, *, two, jobs=1):
    """Metrics of every map against the model that it helped to fit: list of dict.

    two : the model knows the exposure.  Threads take a map each.
    """
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        found = list(pool.map(lambda index: _in_sample(maps, index, model, two), range(len(maps.paths))))
    model.rest()
    return found


def _in_sample(maps, index, model, two):
    temperature, exposure = float(maps.temperature[index]), float(maps.exposure[index])
    at = temperature, exposure if two else 1.0
    # The maps hold the offset that the 2-D fit took out.
    shift = np.float32(model.offset_of(maps.session[index]) / exposure if two else 0.0)
    comparison = evaluation.Comparison()
    size = maps.rates[index].size
    for start in range(0, size, PIECE):
        part = slice(start, min(start + PIECE, size))
        real = real_rate(maps, index, part)
        synthetic, sigma = model.at(part, *at)
        signal = np.maximum(synthetic * np.float32(exposure), np.float32(0.0))
        variance = (maps.noise(part) + np.float32(maps.inverse_gain) * signal) / np.float32(
            maps.frames[index]
        )
        variance = (variance + bias_variance(maps, index, part) + model.common_error**2) / exposure**2
        # A residual of the fit's own data scatters less than the datum, by the variance of the fit.
        own = np.sqrt(np.maximum(variance - np.square(sigma), 0.05 * variance))
        comparison.add(real, real - synthetic - shift, own)
    where = sample_of(size, MEDIAN_PIXELS)
    real, synthetic = real_rate(maps, index, where), model.at(where, *at)[0]
    usable = np.isfinite(real)
    drop_pages(maps.rates[index], maps.dqs[index])
    return comparison.metrics() | {
        "dark_real": float(np.median(real[usable])) if usable.any() else np.nan,
        "dark_synthetic": float(np.median(synthetic[usable])) if usable.any() else np.nan,
    }


def percent_error(maps, index, model, jobs=1):
    """Error of a 1-D model in percent of the map (at least of 3 sigma): (ny, nx) float32, NaN where not usable."""
    found = np.empty(maps.shape, np.float32)
    temperature, size = float(maps.temperature[index]), found.size

    def one(start):
        part = slice(start, min(start + PIECE, size))
        real = real_rate(maps, index, part)
        synthetic, sigma = model.at(part, temperature)
        found.reshape(-1)[part] = evaluation.percentage_error(real, synthetic - real, sigma)

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        list(pool.map(one, range(0, size, PIECE)))
    drop_pages(maps.rates[index], maps.dqs[index])
    model.rest()
    return found
