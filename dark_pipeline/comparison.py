"""A model of dark current beside the maps: numbers and errors of every pixel, block by block."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from utils.fits_io.mapped import drop_pages
from utils.fits_io.products import DQ
from utils.fits_io.workers import in_workers, shared_empty
from utils.kernels import evaluation
from utils.kernels.pieces import PIECE, middle

IGNORED = int(DQ.SATURATED | DQ.NO_DATA | DQ.DO_NOT_USE)
MEDIAN_PIXELS = 1 << 20
"""Pixels of a regular sample whose medians stand in the tables."""


def sample_of(size, most=200_000):
    """Flat indices of a regular sample; an odd step sees all columns of a mosaic."""
    return np.arange(0, size, size // most | 1)


def real_rate(maps, index, where):
    """Measured rates [ADU/s] of the pixels ``where`` (slice or flat indices), NaN where not usable: (m,) float32."""
    rate = maps.rates[index].reshape(-1)[where].astype(np.float32)
    bad = (maps.dqs[index].reshape(-1)[where] & IGNORED) != 0
    if bad.any():
        rate[bad] = np.nan
    return rate


def bias_variance(maps, index, where):
    """Variance of the bias under a map [ADU^2], (m,) or 0."""
    return 0.0 if maps.bias is None else maps.bias.variance(maps.temperature[index], where)


def all_in_sample(maps, model, *, two, jobs=1):
    """Metrics of every map against the model that it helped to fit: list of dict.

    two : the model knows the exposure.  Workers take pieces of all maps of one exposure, which share what the model needs.
    """
    found = [None] * len(maps.paths)
    exposures = maps.exposure if two else np.ones(len(found))
    for exposure in np.unique(exposures):
        members = np.flatnonzero(exposures == exposure)
        for index, metrics in zip(members, _in_sample(maps, members, model, two, jobs), strict=True):
            found[index] = metrics
    model.rest()
    return found


def _in_sample(maps, members, model, two, jobs):
    """Metrics of the maps ``members``, of one exposure for the model."""
    size = maps.rates[0].size
    step = size // MEDIAN_PIXELS | 1  # an odd step sees all columns of a mosaic
    sample = shared_empty((2, len(members), -(-size // step)), np.float32)

    def compare(part):
        first = -part.start % step
        where = slice((part.start + first) // step, -(-part.stop // step))
        real, synthetic, found = sample[0, :, where], sample[1, :, where], []
        for row, (values, rates, comparison) in enumerate(_compared(maps, members, model, two, part)):
            real[row], synthetic[row] = values[first::step], rates[first::step]
            found.append(comparison)
        drop_pages(*(plane.reshape(-1)[part] for i in members for plane in (maps.rates[i], maps.dqs[i])))
        return found

    parts = [slice(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]
    whole = [evaluation.Comparison() for _ in members]
    for found in in_workers(lambda: compare, parts, jobs):
        for total, one in zip(whole, found, strict=True):
            total.merge(one)

    def medians(row):
        usable = np.isfinite(sample[0, row])
        values = [one[row][usable] for one in sample]
        return [middle(one) if one.size else np.nan for one in values]

    names = ("dark_real", "dark_synthetic")
    told = in_workers(lambda: medians, range(len(members)), jobs)
    return [one.metrics() | dict(zip(names, two, strict=True)) for one, two in zip(whole, told, strict=True)]


def _compared(maps, members, model, two, part):
    """Yield measured and modelled rates (m,) and the `Comparison` of a piece of each map."""
    terms = model.terms(part, float(maps.exposure[members[0]]) if two else 1.0)
    bias = None if maps.bias is None else maps.bias.terms_of(part)
    read, gain = maps.noise(part), np.float32(maps.inverse_gain)
    for index in members:
        temperature, exposure = float(maps.temperature[index]), np.float32(maps.exposure[index])
        # The maps hold the offset that the 2-D fit took out.
        shift = np.float32(model.offset_of(maps.session[index]) / exposure if two else 0.0)
        real = real_rate(maps, index, part)
        signal, error = model.signal(terms, part, temperature, float(exposure))
        if not two:
            signal *= exposure
            error *= exposure * exposure
        variance = np.maximum(signal, np.float32(0.0))
        variance *= gain
        variance += read
        variance /= np.float32(maps.frames[index])
        if bias is not None:
            variance += bias.variance(temperature)
        variance += np.float32(model.common_error**2)
        # A residual of the fit's own data scatters less than the datum, by the variance of the fit.
        np.subtract(variance, error, out=error)
        variance *= np.float32(0.05)
        np.maximum(variance, error, out=variance)
        sigma = np.sqrt(variance, out=variance)
        sigma /= exposure
        synthetic = signal
        synthetic /= exposure
        comparison = evaluation.Comparison()
        residual = real - synthetic
        residual -= shift
        comparison.add(real, residual, sigma)
        yield real, synthetic, comparison


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
