"""Hot, warm and unstable pixels of a set of dark groups."""

from dataclasses import dataclass

import numpy as np

from dark_pipeline.config import MOST_CANDIDATES, WARM_SIGMA
from utils.fits_io.frame_stack import FrameStack
from utils.kernels import dark_noise, noise

ABLE = 1.5
"""A group can tell a hot pixel where the limit is so many times what it needs to be significant."""
SATURATED_MOST = 0.02


@dataclass(frozen=True, eq=False)
class HotPixels:
    """hot, warm (ny, nx) bool; limit, warm_limit [ADU/s] at temperature [degC] and exposure [s] of the map judged."""

    hot: np.ndarray
    warm: np.ndarray
    limit: float
    warm_limit: float
    temperature: float
    exposure: float


def find_hot(groups, rates, sigmas, saturated, config, b):
    """Judge pixels at the hottest temperature that is not saturated, in its longest exposure.

    groups : list of `DarkGroup`.  rates, sigmas, saturated : functions index -> map (ny, nx) [ADU/s, ADU/s, bool].
    b : coefficient of temperature [1/degC], which scales the limit to the other groups.
    """
    order = sorted(
        range(len(groups)), key=lambda i: (round(groups[i].temperature), groups[i].exposure), reverse=True
    )
    chosen = next((i for i in order if saturated(i).mean() <= SATURATED_MOST), order[0])
    judged, full = rates(chosen), saturated(chosen)
    usable = np.isfinite(judged) & ~full
    values = judged[usable]
    middle = float(np.median(values)) if values.size else 0.0
    robust = 1.4826 * float(np.median(np.abs(values - middle))) if values.size else 0.0
    limit = middle + config.hot_sigma * robust if config.hot_threshold is None else config.hot_threshold
    warm_limit = min(middle + WARM_SIGMA * robust, limit)
    at = groups[chosen]
    above, warm = full | (judged > limit), full | (judged > warm_limit)
    candidates = np.flatnonzero(warm)
    told, significant = np.zeros(candidates.size, int), np.zeros(candidates.size, int)
    for index, group in enumerate(groups):
        sigma = sigmas(index)
        here = max(limit, 1e-9) * np.exp(b * (group.temperature - at.temperature))
        if not here > ABLE * config.hot_sigma * float(np.nanmedian(sigma)):
            continue
        rate, error = rates(index).reshape(-1)[candidates], sigma.reshape(-1)[candidates]
        good = saturated(index).reshape(-1)[candidates]
        told += 1
        with np.errstate(invalid="ignore"):
            significant += good | (rate > config.hot_sigma * error)
    sure = np.zeros(judged.size, bool)
    sure[candidates] = (2 * significant >= told) & (told > 0)
    if config.hot_threshold is not None:
        sure[candidates[told == 0]] = True
    hot = above & sure.reshape(judged.shape)
    return HotPixels(hot, warm & ~hot, limit, warm_limit, at.temperature, at.exposure)


class Scatter:
    """Scatter of every pixel over the noise model, pooled over groups; shape : (ny, nx)."""

    def __init__(self, shape):
        self._squares, self._dof = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def add(self, variance, expected, n_used):
        """Add one group: scatter and expected variance of a sample [ADU^2], samples used; each (ny, nx)."""
        dof = n_used.astype(np.float32) - 1.0
        good = np.isfinite(variance) & (dof > 0)
        self._squares += np.where(good, variance * dof / expected, 0.0)
        self._dof += np.where(good, dof, 0.0)

    def noisy(self):
        """Pixels whose scatter is beyond the noise model and the sensor's own distribution, bool (ny, nx)."""
        if not (self._dof > 0).any():
            return np.zeros(self._dof.shape, bool)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = self._squares / self._dof
        thin = tuple(slice(None, None, max(1, size // 512)) for size in ratio.shape)
        prior, prior_dof = noise.variance_prior(ratio[thin], self._dof[thin])
        return noise.moderate_variance(ratio, self._dof, np.float32(prior), np.float32(prior_dof))[1]


def find_telegraph(groups, noisy, screening, expected):
    """Noisy pixels that jump between two or three levels, bool (ny, nx).

    expected : function index -> variance of a sample (ny, nx) [ADU^2].
    """
    result = np.zeros(noisy.shape, bool)
    candidates = np.flatnonzero(noisy)
    if candidates.size == 0 or candidates.size > MOST_CANDIDATES:
        return result
    samples, sigmas = [], []
    for index, group in enumerate(groups):
        images = group.frames.frames.images
        if len(images) < 4:
            continue
        rows = np.empty((len(images), candidates.size), np.float64)
        with FrameStack(images) as stack:
            for number, image in enumerate(images):
                raw = stack.frame_view(number).reshape(-1)[candidates].astype(np.float64)
                rows[number] = (raw * image.bscale + image.bzero) / screening.adu_scale
        samples.append(rows)
        sigmas.append(np.sqrt(expected(index).reshape(-1)[candidates]))
    if samples:
        levels, _ = dark_noise.count_levels(samples, sigmas)
        result.reshape(-1)[candidates[levels > 1]] = True
    return result
