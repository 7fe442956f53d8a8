"""From a screened group of frames to its combined image, and the noise of every pixel over all groups."""

import math
from dataclasses import dataclass

import numpy as np

from utils.domain.screening import ScreenedGroup, Screening
from utils.fits_io.frame_sample import file_datasums
from utils.fits_io.frame_stack import FrameStack, StackResult
from utils.kernels import noise
from utils.kernels.combine import CombineRule


@dataclass(frozen=True)
class CombineOptions:
    """How frames are combined.  method : 'sigclip', 'median', 'mean'.  clip_sigma : k.  jobs : threads.

    memory_limit : bytes for buffers.  inverse_gain : ADU per electron, 0 where frames hold no signal.
    """

    method: str = "sigclip"
    clip_sigma: float = 4.0
    jobs: int = 1
    memory_limit: int = 2 << 30
    inverse_gain: float = 0.0


def combine_group(group: ScreenedGroup, screening: Screening, sigma, options: CombineOptions, progress=None):
    """Combine the frames of one group.

    sigma : noise of one sample, floor of the clipping scale [product ADU].
    Returns a `StackResult` in product ADU, its variance corrected for the clipping.
    """
    rule = CombineRule(
        options.method,
        options.clip_sigma,
        sigma * sigma if math.isfinite(sigma) else 0.0,
        options.inverse_gain,
        group.reference_level,
        screening.saturation,
    )
    with FrameStack(
        group.frames.images,
        adu_scale=screening.adu_scale,
        jobs=options.jobs,
        memory_limit=options.memory_limit,
    ) as stack:
        result = stack.combine(rule, offsets=group.offsets, progress=progress)
    if options.method != "mean" and len(group.frames) >= 3:
        result.variance *= np.float32(noise.clip_factor(options.clip_sigma) ** 2)
    return result


def standard_error_factor(method, n_used):
    """Standard error of the combined value over sigma / sqrt(n), per pixel: 1 for a mean, exact for a median.

    n_used : (ny, nx) samples used.  Returns float32 of the same shape, sigma multiplied by it is the 1-sigma error;
    NaN where nothing was used.
    """
    largest = int(n_used.max(initial=0))
    table = np.full(largest + 1, np.nan)
    for n in np.flatnonzero(np.bincount(n_used.ravel(), minlength=largest + 1)):
        if n:
            table[n] = (noise.median_factor(int(n)) if method == "median" else 1.0) / math.sqrt(n)
    return table.astype(np.float32)[n_used]


class PooledNoise:
    """Noise of every pixel, pooled over groups whose overall noise may differ by a factor.

    shape : (ny, nx).  Feed each group's result with `add`, then call `finish` once.
    """

    def __init__(self, shape):
        self._squares = np.zeros(shape, np.float32)
        self._dof = np.zeros(shape, np.float32)

    def add(self, result: StackResult, factor):
        """Add one group; factor : its noise over the reference noise."""
        dof = result.n_used.astype(np.float32) - 1.0
        good = np.isfinite(result.variance) & (dof > 0)
        self._squares += np.where(good, result.variance * (dof / np.float32(factor * factor)), 0.0)
        self._dof += np.where(good, dof, 0.0)

    def finish(self, fallback):
        """Moderate the pooled variances.

        fallback : noise [ADU] where no group holds two frames that differ.
        Returns sigma (ny, nx) [ADU] at the reference noise, moderated; scatter (ny, nx), the pixel's own; dof (ny, nx);
        noisy (ny, nx) bool; prior [ADU] and prior_dof of the sensor.
        """
        dof = self._dof
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = self._squares / dof
        # Frames without any scatter (one frame repeated) tell no more of the noise than single frames do.
        if not (variance > 0).any():
            sigma = np.full(dof.shape, fallback, np.float32)
            return (
                sigma,
                np.sqrt(variance),
                dof,
                np.zeros(dof.shape, bool),
                fallback,
                0.0,
            )
        thin = (
            slice(None, None, max(1, dof.shape[0] // 512)),
            slice(None, None, max(1, dof.shape[1] // 512)),
        )
        prior, prior_dof = noise.variance_prior(variance[thin], dof[thin])
        moderated, noisy = noise.moderate_variance(variance, dof, np.float32(prior), np.float32(prior_dof))
        return np.sqrt(moderated), np.sqrt(variance), dof, noisy, math.sqrt(prior), prior_dof


def input_datasums(group, jobs):
    """DATASUM of each frame of a group: its card, else computed from its data."""
    known = [entry["datasum"] for entry in group.entries]
    missing = [index for index, value in enumerate(known) if value is None]
    if missing:
        for index, value in zip(
            missing, file_datasums([group.images[i] for i in missing], jobs), strict=True
        ):
            known[index] = value
    return known
