"""Combine the samples of many pixels: mean, median, sigma-clipped mean, with scatter, count and flags.

The rule of the clipped mean, for each pixel and its n samples:

1. centre = median of the samples; scale = max(1.4826 MAD, noise floor at the centre's level);
2. a sample is rejected when it lies more than k scales, and half a step of the converter, from the centre: one
   pass, n >= 3 only; the half step is the rounding of a sample, which would cost good ones where noise is coarse;
3. a pixel that loses more than ``max(1, n // 10)`` samples (or than chance allows at a small k) is not struck by
   cosmic hits but unstable (telegraph noise, hot): it keeps all of its samples and is flagged; two that differ by
   more than the limit are two hits;
4. a saturated sample is none: it is left out; a pixel that loses more than ``max(1, n // 10)`` that way is flagged,
   and has the saturation level where all are;
5. the result is the mean of the samples that are left.

Most pixels have nothing to reject.  They are recognised without a median, by ``|median - mean| <= std``: if
``max |x - mean| + std <= k floor + step / 2`` no sample can be rejected.  Only the others (a few percent) are
gathered and judged, so the cost is near that of a mean.
"""

from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from utils.kernels.median_network import median_pair

METHODS = ("sigclip", "median", "mean")
UNSTABLE, SATURATED, NO_DATA = 1, 2, 4
"""Flags of `combine`: kept unclipped, more saturated samples than hits explain, no sample at all."""
EXACT_SUM = 1 << 24
"""Sums of integers up to here are exact in float32."""
FAR_OFF = 64.0
"""Square of a distance from the mean, in variances, up to which float32 sums from there are as good as any."""


@dataclass(frozen=True)
class CombineRule:
    """How samples are combined; levels and variances are in the unit of the stack.

    method : 'sigclip', 'median' or 'mean'.  clip_sigma : k.
    floor_variance : noise variance of a sample at ``zero_level`` [ADU^2]; inverse_gain : its growth with the level
    above zero_level [ADU] (0 for bias).  saturation : samples at or above it are saturated.
    step : one step of the converter [ADU], 0 where samples are continuous.
    """

    method: str = "sigclip"
    clip_sigma: float = 4.0
    floor_variance: float = 0.0
    inverse_gain: float = 0.0
    zero_level: float = 0.0
    saturation: float = float("inf")
    step: float = 0.0

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}")
        if not self.clip_sigma > 0:
            raise ValueError(f"clip_sigma must be positive, got {self.clip_sigma}")

    def floor(self, level):
        """Standard deviation of the noise model at a level, for scalars or arrays."""
        if self.inverse_gain == 0.0:
            return self.floor_variance**0.5
        return np.sqrt(self.floor_variance + self.inverse_gain * np.maximum(level - self.zero_level, 0.0))

    def allowed(self, n):
        """Samples that a steady pixel may lose: to hits, or by chance where k is small (mean and 3 sigma)."""
        chance = n * erfc(self.clip_sigma / sqrt(2.0))
        return np.maximum(np.maximum(1, n // 10), np.floor(chance + 3.0 * np.sqrt(chance)))

    def limit(self, scale):
        """Distance from the centre beyond which a sample is rejected, for a scale."""
        return self.clip_sigma * scale + 0.5 * self.step


def combine(stack, rule, work=None):
    """Combine n samples of m pixels: `combine_quiet`, then `judge` on what it leaves open.

    stack : (n, m) integers or float32, not changed.  In floats NaN = unusable, and +inf = saturated whatever
    ``rule.saturation`` says.  Differences between samples must fit float32 (subtract a pivot from large numbers first).
    work : (n, m) float32 scratch, optional.
    Returns value (m,) float64, that of floats with the error of float32 sums of their distances; variance (m,) float32,
    the scatter of one sample (ddof = 1, of the samples used, not corrected for clipping; NaN for fewer than 2);
    n_used (m,) uint16; flags (m,) uint8.
    The median of n samples is numpy's; its scatter and count are those of the clipped samples.
    """
    value, variance, suspect = combine_quiet(stack, rule, work)
    n, m = stack.shape
    result = (value, variance, np.full(m, n, np.uint16), np.zeros(m, np.uint8))
    if suspect.size:
        where, *judged = judge(stack.take(suspect, axis=1), rule)
        for whole, part in zip(result, judged, strict=True):
            whole[suspect[where]] = part
    return result


def combine_quiet(stack, rule, work=None):
    """Combine the pixels that have nothing to reject; name the others.

    Arguments as in `combine`.  Returns value and variance as there, for pixels that use all of their samples, and
    suspect: indices of the pixels that `judge` must look at.
    """
    n, m = stack.shape
    if m == 1:
        # A lone column would be summed in another order.
        value, variance, suspect = combine_quiet(np.repeat(stack, 2, axis=1), rule)
        return value[:1], variance[:1], suspect[:1]
    integers = stack.dtype.kind in "iu"
    if work is None or work.shape != stack.shape:
        work = np.empty((n, m), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        mean, variance, reach, high = (_of_integers if integers else _of_floats)(stack, work)
        value = _middle(stack) if rule.method == "median" else mean
        # Written so that NaN (an unusable sample) makes a pixel suspect.
        quiet = (high < rule.saturation) & (reach < np.inf)
        if n >= 3 and rule.method != "mean":
            spread = np.sqrt(variance)
            reach += spread
            floor = rule.floor(mean.astype(np.float32) - spread) if rule.inverse_gain else rule.floor(0.0)
            quiet &= reach <= rule.limit(floor)
    return value, variance, np.flatnonzero(~quiet)


def _of_integers(stack, work):
    """Statistics of n integers of m pixels; ``work`` (n, m) is filled with their distances to the rounded mean.

    Returns mean float64, variance and how far the samples reach from the mean float32, and the highest sample, each (m,).
    """
    n = len(stack)
    np.copyto(work, stack, casting="unsafe")
    if _sum_is_exact(n, stack.dtype):
        total = np.add.reduce(work, axis=0)
    else:
        total = np.add.reduce(stack, axis=0, dtype=np.int32 if n < 32768 else np.int64)
    mean = total.astype(np.float64)
    mean /= n
    rounded = mean.astype(np.float32)
    work -= rounded
    low, high = np.minimum.reduce(stack, axis=0), np.maximum.reduce(stack, axis=0)
    variance = _variance(work, (mean - rounded).astype(np.float32), n)
    return mean, variance, np.maximum(high - rounded, rounded - low), high


def _of_floats(stack, work):
    """Statistics of n floats of m pixels; ``work`` (n, m) is filled with their distances to the first one.

    Most distances are as small as the noise, so that float32 sums of them lose nothing.  Where the first sample lies so
    far off that they do, the reach is infinite: such pixels are for `judge`.
    Returns as `_of_integers`.
    """
    n, first = len(stack), stack[0]
    np.subtract(stack, first, out=work, casting="same_kind")
    shift = np.add.reduce(work, axis=0)
    shift *= np.float32(1.0 / n)
    variance = _variance(work, shift, n)
    low, high = np.minimum.reduce(work, axis=0), np.maximum.reduce(work, axis=0)
    reach = np.maximum(high - shift, shift - low)
    high += first
    if n > 2:
        reach[np.square(shift, out=low) > FAR_OFF * variance] = np.inf
    return first + shift.astype(np.float64), variance, reach, high


def _sum_is_exact(n, dtype):
    """Tell whether the sum of n integers of this type is exact in float32."""
    limits = np.iinfo(dtype)
    return n * max(limits.max, -limits.min) <= EXACT_SUM


def judge(samples, rule):
    """Combine pixels (n, c) that may hold an outlier, a saturated sample or a NaN.

    Their medians and the reach of their farthest samples come first: most turn out quiet after all, and what
    `combine_quiet` found for them stands.  What is left is judged sample by sample in float64.
    Returns where: indices (k,) of the pixels with another result, and value, variance, n_used, flags (k,) as in
    `combine`.
    """
    where = np.arange(samples.shape[1])
    if samples.shape[0] >= 3 and rule.method != "mean":
        low, high = np.minimum.reduce(samples, axis=0), np.maximum.reduce(samples, axis=0)
        # A NaN spoils a median; the pixel is told by its extremes, which are NaN too.
        blank = samples.dtype.kind not in "iu" and np.isnan(high).any()
        centre = _middle(np.nan_to_num(samples, nan=0.0) if blank else samples)
        with np.errstate(invalid="ignore"):
            reach = np.maximum(high - centre, centre - low)
            quiet = (reach <= rule.limit(rule.floor(centre))) & (high < rule.saturation)
        where = np.flatnonzero(~quiet)
    return where, *_judge_samples(samples.take(where, axis=1), rule)


def _middle(stack):
    low, high = median_pair(stack)
    return 0.5 * (low.astype(np.float64) + high)


def _variance(away, shift, n):
    """Sample variance from distances (n, m) to some level, whose mean is ``shift`` (m,)."""
    if n < 2:
        return np.full(away.shape[1], np.nan, np.float32)
    squares = np.einsum("ij,ij->j", away, away)
    squares -= np.float32(n) * (shift * shift)
    squares *= np.float32(1.0 / (n - 1))
    return np.maximum(squares, np.float32(0.0), out=squares)


def _judge_samples(samples, rule):
    """Judge every sample of the pixels (n, c), in float64."""
    total = samples.shape[0]
    allowed = max(1, total // 10)
    samples = samples.astype(np.float64)
    full = samples >= rule.saturation
    if np.isinf(rule.saturation):
        full = np.isposinf(samples)
    usable = np.isfinite(samples) & ~full
    n = usable.sum(axis=0)
    centre = _median(samples, usable)
    reject = np.zeros(samples.shape, bool)
    flags = np.zeros(n.size, np.uint8)
    flags[full.sum(axis=0) > allowed] = SATURATED
    if rule.method != "mean" and total >= 3:
        _reject_outliers(reject, flags, samples, usable, centre, rule)
    used = usable & ~reject
    n_used = used.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(used, samples, 0.0).sum(axis=0) / n_used
        deviation = np.where(used, samples - mean, 0.0)
        variance = np.where(n_used > 1, (deviation * deviation).sum(axis=0) / (n_used - 1.0), np.nan)
    value = mean
    if rule.method == "median":
        # A few saturated hits are high samples like others: the median of all is the better one.
        value = np.where(flags & SATURATED, centre, _median(samples, usable | full))
    nothing = n_used == 0
    value = np.where(nothing & full.any(axis=0), rule.saturation, value)
    flags[nothing & ~full.any(axis=0)] |= NO_DATA
    flags[nothing & full.any(axis=0)] |= SATURATED
    return value, variance, n_used, flags


def _reject_outliers(reject, flags, samples, usable, centre, rule):
    """Fill ``reject`` (n, c) and flag the pixels that are unstable."""
    n = usable.sum(axis=0)
    with np.errstate(invalid="ignore"):
        deviation = np.where(usable, np.abs(samples - centre), 0.0)
        floor = np.broadcast_to(rule.floor(centre), centre.shape)
        doubtful = np.flatnonzero((deviation.max(axis=0) > rule.limit(floor)) & (n >= 3))
        deviation, usable, samples = (one.take(doubtful, axis=1) for one in (deviation, usable, samples))
        limit = rule.limit(np.maximum(1.4826 * _median(deviation, usable), floor[doubtful]))
        out = (deviation > limit) & usable
    lost = out.sum(axis=0)
    apart = np.where(out, samples, -np.inf).max(axis=0) - np.where(out, samples, np.inf).min(axis=0)
    unstable = (lost > rule.allowed(n[doubtful])) & ~((lost == 2) & (apart > limit))
    out[:, unstable] = False
    reject[:, doubtful] = out
    flags[doubtful[unstable]] |= UNSTABLE


def _median(samples, usable):
    """Median over axis 0 of the usable samples; NaN where there are none."""
    result = np.full(samples.shape[1], np.nan)
    complete = usable.all(axis=0)
    if complete.any():
        result[complete] = _middle(np.ascontiguousarray(samples[:, complete]))
    gaps = np.flatnonzero(~complete & usable.any(axis=0))
    if gaps.size:
        ordered = np.sort(np.where(usable[:, gaps], samples[:, gaps], np.inf), axis=0)
        count = usable[:, gaps].sum(axis=0)
        place = np.arange(gaps.size)
        result[gaps] = 0.5 * (ordered[(count - 1) // 2, place] + ordered[count // 2, place])
    return result
