"""Hot, warm and unstable pixels of a set of dark groups."""

from dataclasses import dataclass

import numpy as np

from dark_pipeline.config import MOST_CANDIDATES, WARM_SIGMA
from utils.fits_io.frame_stack import FrameStack
from utils.kernels import dark_noise, noise
from utils.kernels.pieces import in_pieces

ABLE = 1.5
"""A group can tell a hot pixel where the limit is so many times what it needs to be significant."""
SATURATED_MOST = 0.02
TYPICAL_PIXELS = 1 << 17
"""Pixels of a regular sample of which the typical error of a group is taken."""


@dataclass(frozen=True, eq=False)
class HotPixels:
    """hot, warm (ny, nx) bool; limit, warm_limit [ADU/s] at temperature [degC] and exposure [s] of the map judged."""

    hot: np.ndarray
    warm: np.ndarray
    limit: float
    warm_limit: float
    temperature: float
    exposure: float


def find_hot(groups, planes, config, b):
    """Judge pixels at the hottest temperature that is not saturated, in its longest exposure.

    groups : list of `DarkGroup`.  planes : function (index, where) -> rate, sigma [ADU/s], saturated of some pixels (slice
    or flat indices), (m,) each.  b : coefficient of temperature [1/degC], which scales the limit to the other groups.
    """
    shape = groups[0].frames.frames.images[0].shape
    order = sorted(
        range(len(groups)), key=lambda i: (round(groups[i].temperature), groups[i].exposure), reverse=True
    )
    for chosen in (*order, order[0]):
        judged, _, full = planes(chosen, slice(None))
        if full.mean() <= SATURATED_MOST:
            break
    usable = np.isfinite(judged) & ~full
    values = judged[usable]
    middle = float(np.median(values)) if values.size else 0.0
    robust = 1.4826 * float(np.median(np.abs(values - middle))) if values.size else 0.0
    limit = middle + config.hot_sigma * robust if config.hot_threshold is None else config.hot_threshold
    warm_limit = min(middle + WARM_SIGMA * robust, limit)
    at = groups[chosen]
    above, warm = full | (judged > limit), full | (judged > warm_limit)
    candidates = np.flatnonzero(warm)
    regular = np.arange(0, judged.size, judged.size // TYPICAL_PIXELS | 1)
    told, significant = 0, np.zeros(candidates.size, int)
    for index, group in enumerate(groups):
        here = max(limit, 1e-9) * np.exp(b * (group.temperature - at.temperature))
        if here > ABLE * config.hot_sigma * float(np.nanmedian(planes(index, regular)[1])):
            told += 1
            significant += _significant(planes(index, candidates), config.hot_sigma)
    if not told and config.hot_threshold is None:
        # No group shows a pixel at the limit for sure, but the map judged shows those well above it.
        told, significant = 1, _significant(planes(chosen, candidates), config.hot_sigma)
    sure = np.zeros(judged.size, bool)
    sure[candidates] = 2 * significant >= told
    hot = (above & sure).reshape(shape)
    return HotPixels(hot, warm.reshape(shape) & ~hot, limit, warm_limit, at.temperature, at.exposure)


def _significant(planes, limit):
    rate, error, saturated = planes
    with np.errstate(invalid="ignore"):
        return saturated | (rate > limit * error)


class Scatter:
    """Scatter of every pixel over the noise model, pooled over groups; shape : (ny, nx)."""

    def __init__(self, shape):
        self._squares, self._dof = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def add(self, part, variance, expected, n_used):
        """Add one group in a slice of the flat maps: scatter and expected variance of a sample [ADU^2], samples used."""
        dof = n_used.astype(np.float32) - np.float32(1.0)
        dof[~(np.isfinite(variance) & (dof > 0))] = 0.0
        self._squares.reshape(-1)[part] += np.where(dof > 0, variance, np.float32(0.0)) * dof / expected
        self._dof.reshape(-1)[part] += dof

    def noisy(self):
        """Pixels whose scatter is beyond the noise model and the sensor's own distribution, bool (ny, nx)."""
        if not (self._dof > 0).any():
            return np.zeros(self._dof.shape, bool)
        thin = tuple(slice(None, None, max(1, size // 512)) for size in self._dof.shape)
        found = np.empty(self._dof.shape, bool)
        with np.errstate(invalid="ignore", divide="ignore"):
            prior, prior_dof = noise.variance_prior(self._squares[thin] / self._dof[thin], self._dof[thin])
            for flag, squares, dof in in_pieces(found, self._squares, self._dof):
                flag[:] = noise.moderate_variance(
                    squares / dof, dof, np.float32(prior), np.float32(prior_dof)
                )[1]
        return found


def find_telegraph(groups, noisy, screening, expected):
    """Noisy pixels that jump between two or three levels, bool (ny, nx).

    expected : function (index, where) -> variance of a sample of the pixels at flat indices, (c,) [ADU^2].
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
        sigmas.append(np.sqrt(expected(index, candidates)))
    if samples:
        levels, _ = dark_noise.count_levels(samples, sigmas)
        result.reshape(-1)[candidates[levels > 1]] = True
    return result
