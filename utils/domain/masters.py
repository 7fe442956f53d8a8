"""From a screened group of frames to its combined image, and the noise of every pixel over all groups."""

import math
from dataclasses import dataclass

import numpy as np

from utils.domain.screening import ScreenedGroup, Screening
from utils.fits_io.frame_sample import file_datasums
from utils.fits_io.frame_stack import FrameStack, StackResult
from utils.fits_io.workers import over_pixels
from utils.kernels import noise
from utils.kernels.combine import CombineRule
from utils.kernels.medians import nan_median


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
        # Coarse samples are clipped half a step further out.
        k = rule.limit(sigma) / sigma if math.isfinite(sigma) and sigma > 0 else options.clip_sigma
        result.variance *= np.float32(noise.clip_factor(k) ** 2)
    return result


def _middle(plane, absent):
    """Median of a plane from some of its pixels, ``absent`` where there is none."""
    return absent if plane is None else float(nan_median(plane.ravel()[:: plane.size // 65536 | 1]))


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
        errors = self.errors(n_used, factor, method, lsb)
        flat = error.reshape(-1)
        over_pixels(lambda part: flat.__setitem__(part, errors(part)), flat.size)
        return error

    def errors(self, n_used, factor, method, lsb):
        """Return a function of slices of flat pixels that gives `standard_error` there."""
        table = np.full(int(n_used.max(initial=0)) + 1, np.nan, np.float32)
        variances, dofs, noisies, counts = (
            np.reshape(one, -1, copy=False) for one in (self.variance, self.dof, self.noisy, n_used)
        )
        prior, factor = np.float32(self.prior_dof), np.float32(factor)
        rounded = method == "median" and lsb > 0

        def piece(part):
            variance, n = variances[part], counts[part]
            read = np.maximum(variance - np.float32(lsb * lsb / 12.0), np.float32(0.0))
            error = read.copy() if rounded else variance.copy()
            if prior > 0:
                # A moderated variance is the scale of what sigma^2 may be; errors need its mean.
                mean = noise.expected_variance(dofs[part] + prior)
                mean[noisies[part]] = 1.0
                error *= mean
            np.sqrt(error, out=error)
            _fill_table(table, n, method)
            error *= table[n] * factor
            if rounded:
                np.hypot(error, noise.median_rounding(n, lsb), out=error, casting="same_kind")
            elif read.min() < lsb * lsb:
                np.hypot(error, noise.phase_error(np.sqrt(read), lsb), out=error, casting="same_kind")
            return error

        return piece


def _fill_table(table, n_used, method):
    """Give the entries of the n that occur the error of a combined value over that of a sample; 0 stays NaN."""
    few = n_used.size == 0 or n_used.min() == n_used.max()
    for n in n_used[:1] if few else np.flatnonzero(np.bincount(n_used)):
        if n > 0 and math.isnan(table[n]):
            table[n] = (noise.median_factor(int(n)) if method == "median" else 1.0) / math.sqrt(n)


class PooledNoise:
    """Noise of every pixel, pooled over groups whose overall noise may differ by a factor.

    shape : (ny, nx).  jobs : workers.  Feed each group's result with `add`, then call `finish` once.
    """

    def __init__(self, shape, jobs=1):
        self.shape, self._jobs = tuple(shape), jobs
        self._lone = self._squares = self._dof = None

    def add(self, result: StackResult, factor):
        """Add one group; factor : its noise over the reference noise.

        The first result is looked at again by the next call of `add` or `finish` and may not change until then.
        """
        if self._lone is None and self._squares is None:
            self._lone = (result, factor)
            return
        self.open()
        self._sum(result, factor)

    def open(self):
        """Make room for the sums, which `add_part` adds to."""
        if self._squares is None:
            self._squares, self._dof = self._empty(np.float32), self._empty(np.float32)
            if self._lone is not None:
                first, self._lone = self._lone, None
                self._sum(*first)

    def add_part(self, part, variance, n_used, scale=1.0):
        """Add some pixels of a group, after `open`; workers may call it, each for pixels of its own.

        part : slice of flat pixels.  variance, n_used : their arrays.  scale : brings the variance to the reference.
        """
        free = _free(variance, n_used)
        self._squares.reshape(-1)[part] += (
            np.where(free > 0, variance, np.float32(0.0)) * free * np.float32(scale)
        )
        self._dof.reshape(-1)[part] += free

    def _empty(self, dtype):
        return np.zeros(self.shape, dtype)

    def _sum(self, result, factor):
        scale = np.float32(1.0 / (factor * factor))
        variances, counts = result.variance.reshape(-1), result.n_used.reshape(-1)

        def piece(part):
            self.add_part(part, variances[part], counts[part], scale)

        over_pixels(piece, counts.size, self._jobs)

    def finish(self, fallback, lsb=0.0):
        """Moderate the pooled variances; fallback : noise [ADU] where no group holds two frames that differ.

        lsb : converter step [ADU]; noise well above it cannot leave a live pixel without any scatter.

        Returns a `PixelNoise`; the maps of this object become its own.
        """
        own, dof = self._own()
        # Frames without any scatter (one frame repeated) tell no more of the noise than single frames do.
        if not np.fmax.reduce(own, axis=None, initial=0.0) > 0:
            variance = np.full(own.shape, fallback * fallback, np.float32)
            nowhere = np.zeros(own.shape, bool)
            return PixelNoise(variance, own, dof, nowhere, nowhere.copy(), fallback, 0.0)
        # Odd strides: even ones would see one colour of a mosaic, or one converter, only.
        thin = tuple(slice(None, None, size // 512 | 1) for size in own.shape)
        sampled, of = own[thin], dof[thin]
        suspicious = noise.impossible_zeros(sampled, of, lsb)
        if suspicious:
            sampled = np.where(sampled > 0, sampled, np.float32(np.nan))
        prior, prior_dof = noise.variance_prior(sampled, of)
        variance, noisy, frozen = self._empty(np.float32), self._empty(bool), self._empty(bool)
        scatter, n, target, flag, dead = (one.reshape(-1) for one in (own, dof, variance, noisy, frozen))

        def piece(part):
            target[part], flag[part] = noise.moderate_variance(scatter[part], n[part], prior, prior_dof)
            if suspicious:
                dead[part] = (scatter[part] == 0) & (n[part] > 0)

        over_pixels(piece, own.size, self._jobs)
        return PixelNoise(variance, own, dof, noisy, frozen, math.sqrt(prior), prior_dof)

    def _own(self):
        """Pooled variance, NaN where nothing tells it, and its degrees of freedom, (ny, nx) float32."""
        if self._lone is None and self._squares is None:
            zeros = np.zeros(self.shape, np.float32)
            return np.full(self.shape, np.nan, np.float32), zeros
        if self._lone is None:
            own, dof = self._squares, self._dof
            squares, divisor = own.reshape(-1), dof.reshape(-1)

            def divide(part):
                with np.errstate(divide="ignore", invalid="ignore"):
                    squares[part] /= divisor[part]

            over_pixels(divide, own.size, self._jobs)
            return own, dof
        result, factor = self._lone
        own, dof = self._empty(np.float32), self._empty(np.float32)
        variances, counts, values, free = (
            one.reshape(-1) for one in (result.variance, result.n_used, own, dof)
        )

        def take(part):
            free[part] = _free(variances[part], counts[part])
            np.multiply(variances[part], np.float32(1.0 / (factor * factor)), out=values[part])
            values[part][free[part] == 0] = np.nan

        over_pixels(take, own.size, self._jobs)
        return own, dof


def _free(variance, n_used):
    """Degrees of freedom of variances, float32; 0 where there is none."""
    free = n_used.astype(np.float32) - np.float32(1.0)
    free[~(np.isfinite(variance) & (free > 0))] = 0.0
    return free


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
