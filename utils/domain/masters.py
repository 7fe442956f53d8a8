"""From a screened group of frames to its combined image, and the noise of every pixel over all groups."""

import math
from dataclasses import dataclass

import numpy as np

from utils.domain.screening import ScreenedGroup, Screening
from utils.fits_io.frame_sample import file_datasums
from utils.fits_io.frame_stack import FrameStack, StackResult
from utils.kernels import noise
from utils.kernels.combine import CombineRule
from utils.kernels.pieces import in_pieces


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


def combine_group(
    group: ScreenedGroup,
    screening: Screening,
    sigma,
    options: CombineOptions,
    progress=None,
    scales=None,
    pedestal=None,
    factor=None,
):
    """Combine the frames of one group.

    sigma : noise of one sample at the group's level, floor of the clipping scale, in the unit of the result.
    scales : (n,) factor of each frame (with the group's offsets), or None.  pedestal, factor : (ny, nx) subtracted
    from every frame [product ADU] and multiplied afterwards, or None.
    Returns a `StackResult` in product ADU (times scale and factor), its variance corrected for the clipping.
    """
    scale = (1.0 if scales is None else float(np.mean(scales))) * _middle(factor, 1.0)
    shift = 0.0 if group.offsets is None else float(np.mean(group.offsets))
    rule = CombineRule(
        options.method,
        options.clip_sigma,
        sigma * sigma if math.isfinite(sigma) else 0.0,
        options.inverse_gain,
        (group.reference_level - _middle(pedestal, 0.0)) * scale + shift,
        screening.saturation,
        screening.step * abs(scale),
    )
    with FrameStack(
        group.frames.images,
        adu_scale=screening.adu_scale,
        jobs=options.jobs,
        memory_limit=options.memory_limit,
    ) as stack:
        result = stack.combine(rule, group.offsets, scales, pedestal, factor, progress)
    if options.method != "mean" and len(group.frames) >= 3:
        result.variance *= np.float32(noise.clip_factor(options.clip_sigma) ** 2)
    return result


def _middle(plane, absent):
    """Median of a plane from some of its pixels, ``absent`` where there is none."""
    return absent if plane is None else float(np.nanmedian(plane.ravel()[:: plane.size // 65536 | 1]))


@dataclass(eq=False)
class PixelNoise:
    """Noise of every pixel, each map (ny, nx).

    variance : of one sample, moderated, at the reference noise [ADU^2].  own : the pixel's own scatter, NaN where no
    group holds two samples [ADU^2].  dof : degrees of freedom of own.  noisy : bool, beyond the sensor's distribution.
    frozen : bool, never changes though its neighbours do: not a live pixel.
    prior [ADU], prior_dof : noise of the sensor and its weight.
    """

    variance: np.ndarray
    own: np.ndarray
    dof: np.ndarray
    noisy: np.ndarray
    frozen: np.ndarray
    prior: float
    prior_dof: float

    def standard_error(self, n_used, factor, method, lsb):
        """Error of a combined value, 1 sigma (ny, nx) float32 [ADU].

        n_used : samples used.  factor : noise of the group over the reference.  method : of the combination; a median
        is less certain than a mean, by the exact factor of its n.  lsb : converter step [ADU]: of its rounding a mean
        keeps the phase error, a median of integers nearly all.  NaN where nothing was used.
        """
        error = np.empty_like(self.variance)
        table = np.full(1, np.nan, np.float32)
        prior = np.float32(self.prior_dof)
        for target, variance, dof, noisy, n in in_pieces(error, self.variance, self.dof, self.noisy, n_used):
            if n.max() >= table.size:
                table = _error_table(table, int(n.max()))
            if method == "median":
                _fill_medians(table, n)
            read = np.maximum(variance - np.float32(lsb * lsb / 12.0), np.float32(0.0))
            rounded = method == "median" and lsb > 0
            # A moderated variance is the scale of what sigma^2 may be; errors need its mean.
            own = noisy | (self.prior_dof == 0)
            mean = np.where(own, np.float32(1.0), noise.expected_variance(dof + prior))
            np.sqrt((read if rounded else variance) * mean, out=target)
            target *= table[n] * np.float32(factor)
            if rounded:
                np.hypot(target, noise.median_rounding(n, lsb), out=target, casting="same_kind")
            elif read.min() < lsb * lsb:
                phase = noise.phase_error(np.sqrt(read), lsb)
                np.hypot(target, phase, out=target, casting="same_kind")
        return error


def _error_table(table, largest):
    """Extend the table of 1 / sqrt(n) to n = largest; entry 0 is NaN."""
    with np.errstate(divide="ignore"):
        longer = (1.0 / np.sqrt(np.arange(largest + 1.0))).astype(np.float32)
    longer[: table.size] = table
    return longer


def _fill_medians(table, n_used):
    """Give the entries of the n that occur the factor of a median; entries already done are left."""
    for n in np.unique(n_used):
        if n > 2 and table[n] == np.float32(1.0 / math.sqrt(n)):
            table[n] = noise.median_factor(int(n)) / math.sqrt(n)


class PooledNoise:
    """Noise of every pixel, pooled over groups whose overall noise may differ by a factor.

    shape : (ny, nx).  Feed each group's result with `add`, then call `finish` once.
    """

    def __init__(self, shape):
        self._squares = np.zeros(shape, np.float32)
        self._dof = np.zeros(shape, np.float32)

    def add(self, result: StackResult, factor):
        """Add one group; factor : its noise over the reference noise."""
        scale = np.float32(1.0 / (factor * factor))
        for squares, dof, variance, n_used in in_pieces(
            self._squares, self._dof, result.variance, result.n_used
        ):
            free = n_used.astype(np.float32) - np.float32(1.0)
            free[~(np.isfinite(variance) & (free > 0))] = 0.0
            squares += np.where(free > 0, variance, np.float32(0.0)) * free * scale
            dof += free

    def finish(self, fallback, lsb=0.0):
        """Moderate the pooled variances; fallback : noise [ADU] where no group holds two frames that differ.

        lsb : converter step [ADU]; noise well above it cannot leave a live pixel without any scatter.

        Returns a `PixelNoise`; the maps of this object become its own.
        """
        own, dof = self._squares, self._dof
        with np.errstate(divide="ignore", invalid="ignore"):
            own /= dof
        # Frames without any scatter (one frame repeated) tell no more of the noise than single frames do.
        if not np.nanmax(own, initial=0.0) > 0:
            variance = np.full(own.shape, fallback * fallback, np.float32)
            nowhere = np.zeros(own.shape, bool)
            return PixelNoise(variance, own, dof, nowhere, nowhere.copy(), fallback, 0.0)
        # Odd strides: even ones would see one colour of a mosaic, or one converter, only.
        thin = tuple(slice(None, None, size // 512 | 1) for size in own.shape)
        sampled, of = own[thin], dof[thin]
        frozen = np.zeros(own.shape, bool)
        if noise.impossible_zeros(sampled, lsb):
            frozen = (own == 0) & (dof > 0)
            sampled = np.where(sampled > 0, sampled, np.float32(np.nan))
        prior, prior_dof = noise.variance_prior(sampled, of)
        variance, noisy = np.empty_like(own), np.empty(own.shape, bool)
        for target, flag, scatter, n in in_pieces(variance, noisy, own, dof):
            target[:], flag[:] = noise.moderate_variance(scatter, n, prior, prior_dof)
        return PixelNoise(variance, own, dof, noisy, frozen, math.sqrt(prior), prior_dof)


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
