"""Noise of CMOS frames: pooled scatter, moderated variances, factors of clipping and medians.

All variances and levels are in one unit squared (product ADU unless the caller says otherwise).
"""

from functools import lru_cache
from math import erf, exp, lgamma, log, pi, sqrt

import numpy as np

from utils.kernels import special_functions as special
from utils.kernels.median_network import median_pair
from utils.kernels.pieces import in_pieces

ROBUST_DOF = 1e6
"""Degrees of freedom that stand for "the prior is certain" (all pixels share one noise)."""
CERTAIN = 10.0
"""Zero variances so many times as frequent as chance makes them are those of dead pixels."""


def phase_error(read_noise, lsb=1.0):
    """Error of a mean of quantised samples that averaging does not remove, 1 sigma over all levels.

    read_noise : Gaussian noise before the converter [ADU].  lsb : its step [ADU].
    A level between two steps comes out wrong by up to ``lsb / pi exp(-2 pi^2 (read_noise / lsb)^2)``: 0.014 LSB at a
    noise of 0.4 LSB, nothing at 1.  Returns that amplitude over the root of 2 [ADU].
    Reference: Widrow & Kollar (2008), Quantization Noise, ch. 5.
    """
    return lsb / (pi * sqrt(2.0)) * np.exp(-2.0 * np.square(pi * np.asarray(read_noise) / lsb))


def clip_factor(k):
    """Factor by which a symmetric clip at k sigma makes the scatter of Gaussian samples look too small.

    Returns the correction ``1 / sqrt(1 - 2 k phi(k) / (2 Phi(k) - 1))``, which is 1.014 at k = 3.
    """
    phi = exp(-0.5 * k * k) / sqrt(2 * pi)
    return 1.0 / sqrt(1.0 - 2.0 * k * phi / erf(k / sqrt(2.0)))


@lru_cache(maxsize=1024)
def median_factor(n):
    """Standard error of the median of n Gaussian samples in units of sigma / sqrt(n).

    Exact for every n by integration over the joint density of the middle order statistics:
    1.198 at 5, 1.177 at 10, 1.212 at 20, 1.236 at 50; sqrt(pi / 2) for very many.
    Reference: David & Nagaraja (2003), Order Statistics, ch. 2.
    """
    if n <= 2:
        return 1.0
    k = n // 2
    if n > 2000:
        return sqrt(pi / 2) * (1.0 - ((4.0 if n % 2 else 6.0) - pi) / (4.0 * n))
    half_width = min(8.0, 9.0 * 1.2533 / sqrt(n) + 0.5 * (n < 30) * 4)
    x = np.linspace(-half_width, half_width, 401)
    if n % 2:
        log_norm = lgamma(n + 1) - 2 * lgamma(k + 1)
        density = np.exp(
            log_norm + k * (special.log_normal_cdf(x) + special.log_normal_cdf(-x)) + _log_pdf(x)
        )
    else:
        # Middle values at x - h and x + h; the gap between them shrinks as 1 / n.
        reach = min(8.0, 50.0 / n)
        nodes, weights = np.polynomial.legendre.leggauss(64)
        h = 0.5 * reach * (nodes + 1.0)
        low, high = x[:, None] - h, x[:, None] + h
        log_norm = lgamma(n + 1) - 2 * lgamma(k) + log(2.0)
        joint = (
            (k - 1) * (special.log_normal_cdf(low) + special.log_normal_cdf(-high))
            + _log_pdf(low)
            + _log_pdf(high)
        )
        density = np.exp(log_norm + joint) @ (0.5 * reach * weights)
    return sqrt(n * float(np.sum(density * x * x)) * (x[1] - x[0]))


def _log_pdf(x):
    """Logarithm of the standard normal density."""
    return -0.5 * x * x - 0.5 * log(2 * pi)


def pooled_scatter(samples, keep=5.0, iterations=10):
    """Pooled standard deviation of many pixels, each sampled n times: one number for ordinary pixels.

    samples : (n, m) [ADU], n >= 2, NaN = unusable.  The mean of the pixels' variances (ddof = 1), pixels left out
    when one of their samples lies more than ``keep`` pooled sigma from the pixel's median or their variance is
    beyond what chi-square allows (hot, telegraph, struck by a cosmic).  A mean of variances, unlike a median
    absolute deviation, is right for integers whose noise is below one step.
    Returns sigma [ADU]; NaN if fewer than two samples or no finite pixel.
    """
    samples = np.asarray(samples)
    n = samples.shape[0]
    if n < 2 or samples.shape[1] == 0:
        return float("nan")
    finite = np.isfinite(samples).all(axis=0)
    samples = samples if finite.all() else samples[:, finite]
    if samples.shape[1] == 0:
        return float("nan")
    variance = samples.var(axis=0, ddof=1, dtype=np.float64)
    low, high = median_pair(samples)
    median = 0.5 * (low.astype(np.float64) + high)
    reach = np.maximum(samples.max(axis=0) - median, median - samples.min(axis=0))
    dof = n - 1
    limit = 1.0 + keep * sqrt(2.0 / dof) + keep * keep / dof
    sigma2 = max(float(np.median(variance)), float(np.mean(variance[variance <= np.quantile(variance, 0.9)])))
    for _ in range(iterations):
        if sigma2 <= 0:
            break
        good = (reach <= keep * sqrt(sigma2)) & (variance <= limit * sigma2)
        if not good.any():
            break
        updated = float(variance[good].mean())
        if abs(updated - sigma2) <= 1e-6 * sigma2:
            sigma2 = updated
            break
        sigma2 = updated
    return sqrt(sigma2)


def chi2_limit(dof, sigma):
    """Chi-square over its degrees of freedom that Gaussian noise exceeds as rarely as a Gaussian its ``sigma`` sigma.

    dof : degrees of freedom, scalar or array, above 0.  Reference: Wilson & Hilferty (1931), PNAS 17, 684.
    """
    share = 2.0 / (9.0 * np.asarray(dof, np.float64))
    return (1.0 - share + sigma * np.sqrt(share)) ** 3


def impossible_zeros(variance, dof, lsb):
    """Whether variances of exactly 0 are too many for live pixels, whose samples may all fall on one integer.

    variance (m,) [ADU^2], NaN is left out.  dof (m,) : degrees of freedom.  lsb : step of the samples [ADU].
    n samples of a live pixel of noise s are one integer with a chance of (lsb / (s sqrt(2 pi)))^(n - 1) / sqrt(n).
    """
    known = np.isfinite(variance)
    living = variance[known & (variance > 0)]
    if living.size == 0 or not np.median(living) > (0.7 * lsb) ** 2:
        return False
    again = lsb / sqrt(2.0 * pi * float(np.median(living)))
    free = dof[known].astype(np.float64)
    by_chance = float(np.sum(again**free / np.sqrt(free + 1.0)))
    return np.count_nonzero(known & (variance == 0)) > CERTAIN * by_chance


def variance_prior(variance, dof):
    """Sensor's own distribution of pixel variances: prior value and its weight in degrees of freedom.

    variance : (m,) sample variances [ADU^2], NaN is left out.  dof : degrees of freedom, scalar or (m,).
    The weight: moments of ln(variance) against those of a scaled F distribution, on the central part so that defects
    do not speak for the sensor.  The value: the mean of ordinary variances, zeros among them, which unlike logarithms
    is right for integers whose noise is a few steps.  Returns (prior [ADU^2], prior_dof); prior_dof is ``ROBUST_DOF``
    where all pixels agree, or where so many variances are zero that their spread cannot be told.
    Reference: Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3, 3.
    """
    variance = np.asarray(variance, dtype=np.float64).ravel()
    dof = np.broadcast_to(np.asarray(dof, dtype=np.float64).ravel(), variance.shape)
    good = np.isfinite(variance) & (dof > 0)
    variance, dof = variance[good], dof[good]
    if np.count_nonzero(variance) < 20:
        return (float(np.mean(variance)) if variance.size else float("nan")), ROBUST_DOF
    mean_dof = float(np.mean(dof))
    zeros = float(np.mean(variance <= 0))
    prior_dof = ROBUST_DOF
    if zeros < 0.05:
        cut = max(0.01, 1.5 * zeros)
        with np.errstate(divide="ignore"):
            log_s2 = np.log(variance) - _of_each(dof, lambda n: special.digamma(n / 2) - np.log(n / 2))
        low, high = np.quantile(log_s2, (cut, 1.0 - cut), method="inverted_cdf")
        inside = (log_s2 >= low) & (log_s2 <= high)
        spread = float(np.var(log_s2[inside])) / _central_part(mean_dof, cut)
        excess = spread - float(np.mean(_of_each(dof, lambda n: special.trigamma(n / 2))))
        if excess > 1e-4:
            prior_dof = min(2.0 * _inverse_trigamma(excess), ROBUST_DOF)
    return _ordinary_mean(variance, mean_dof, prior_dof), prior_dof


def _ordinary_mean(variance, dof, prior_dof):
    """Scale of a scaled F distribution from the mean of its samples below a limit that defects exceed."""
    heavy = max(prior_dof, 4.5)
    limit = 1.0 + 5.0 * sqrt(2.0 / dof + 2.0 / heavy) + 25.0 / dof
    below = special.f_cdf(dof, heavy, limit)
    # Mean of F(d, p) below L: p / (p - 2) of the distribution F(d + 2, p - 2) lies below L d (p - 2) / (p (d + 2)).
    part = special.f_cdf(dof + 2.0, heavy - 2.0, limit * dof * (heavy - 2.0) / (heavy * (dof + 2.0)))
    expected = heavy / (heavy - 2.0) * part / below
    scale = max(float(np.median(variance)), float(np.mean(variance[variance <= np.quantile(variance, 0.9)])))
    for _ in range(20):
        updated = float(np.mean(variance[variance <= limit * scale])) / expected
        if abs(updated - scale) <= 1e-6 * scale:
            break
        scale = updated
    return float(updated)


def _central_part(dof, cut):
    """Part of the variance of ln(chi-square) between its quantiles ``cut`` and 1 - cut (Gaussian, 1 %: 0.8735)."""
    inside = np.linspace(cut, 1.0 - cut, 2001)
    return float(np.var(special.log_gamma_quantiles(dof / 2, inside)) / special.trigamma(dof / 2))


def _of_each(dof, function):
    """Values of a function of degrees of freedom (m,), of which few differ."""
    if dof.min() == dof.max():
        return function(dof[:1])
    values, place = np.unique(dof, return_inverse=True)
    return function(values)[place]


def _inverse_trigamma(y):
    """Solve trigamma(x) = y by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    x = 0.5 + 1.0 / y
    for _ in range(50):
        trigamma = float(special.trigamma(x))
        step = trigamma * (1.0 - trigamma / y) / float(special.tetragamma(x))
        x += step
        if -step / x < 1e-8:
            break
    return x


def moderate_variance(variance, dof, prior, prior_dof, outlier_sigma=5.0):
    """Shrink each pixel's variance to the sensor's by the degrees of freedom of both.

    variance : float32 [ADU^2], NaN or zero degrees of freedom take the prior.  dof : integers, of each variance.
    prior, prior_dof : from `variance_prior`.  A pixel whose variance lies more than ``outlier_sigma`` (in the
    Wilson-Hilferty sense) above the prior is not of the prior's population: it keeps its own variance.
    Returns (moderated variance float32, noisy) with noisy the boolean map of those pixels.  The moderated variance is the
    scale of the posterior; `expected_variance` makes an error of it.
    """
    variance = np.asarray(variance, dtype=np.float32)
    dof = np.broadcast_to(np.asarray(dof), variance.shape)
    alike = dof.size > 0 and dof.min() == dof.max()
    # Degrees of freedom are few different numbers: what depends on them is looked up, or one number.
    place = 0 if alike else dof.astype(np.int32, copy=False)
    n = np.floor(dof[..., :1].reshape(-1)[:1]) if alike else np.arange(int(dof.max(initial=0)) + 1)
    n = n.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(2.0 / (9.0 * n) + 2.0 / np.float64(9.0 * prior_dof))
        limit = np.where(n > 0, prior * (1.0 - 2.0 / (9.0 * n) + outlier_sigma * spread) ** 3, np.inf)
    known = np.isfinite(variance)
    known &= dof > 0
    weight = (n / np.maximum(n + prior_dof, 1e-30)).astype(np.float32)[place]
    with np.errstate(invalid="ignore"):
        noisy = variance > limit.astype(np.float32)[place]
        noisy &= known
        moderated = variance - np.float32(prior)
        moderated *= weight
        moderated += np.float32(prior)
    np.copyto(moderated, variance, where=noisy)
    if not known.all():
        moderated[~known] = prior
    return moderated, noisy


def expected_variance(dof):
    """Mean of sigma^2 over its scale, ``n / (n - 2)``, where the scale has ``dof`` degrees of freedom (Smyth 2004).

    dof : own and prior degrees of freedom together.  Below 5 the factor stays at that of 5: the mean is hardly defined.
    """
    n = np.maximum(dof, np.float32(5.0))
    return n / (n - np.float32(2.0))


def expected_noise(dof):
    """Mean of sigma over the root of its scale: ``sqrt(n/2) Gamma((n-1)/2) / Gamma(n/2)``, by ``1 + 3/4n + 25/32n^2``.

    dof : own and prior degrees of freedom together, float32 stays float32.  Exact below 8.
    """
    dof = np.atleast_1d(np.asarray(dof))
    inverse = 1.0 / (dof if dof.dtype == np.float32 else dof.astype(np.float64))
    factor = 1.0 + inverse * (0.75 + 0.78125 * inverse)
    few = dof < 8
    if few.any():
        n = np.maximum(dof[few].astype(np.float64), 2.0)
        factor[few] = np.sqrt(n / 2.0) * np.exp(special.gammaln((n - 1) / 2) - special.gammaln(n / 2))
    return factor


def scatter_bias(dof):
    """Return c4: the mean of the sample standard deviation over sigma, for ``dof`` degrees of freedom (dof >= 1).

    dof : any shape; float32 stays float32.  Exact below 5, beyond by the series ``1 - 1/4n + 1/32n^2 + 5/128n^3``,
    right to 3e-5.
    """
    dof = np.atleast_1d(np.asarray(dof))
    inverse = 1.0 / (dof if dof.dtype == np.float32 else dof.astype(np.float64))
    factor = 1.0 - inverse * (0.25 - inverse * (0.03125 + 0.0390625 * inverse))
    few = dof < 5
    if few.any():
        n = dof[few].astype(np.float64)
        factor[few] = np.sqrt(2.0 / n) * np.exp(special.gammaln((n + 1) / 2) - special.gammaln(n / 2))
    return factor


def read_noise(variance, dof, lsb, *, common=0.0, prior_dof=0.0, noisy=None):
    """Read noise of every pixel and its error, from the variance of samples.

    variance : float32 [ADU^2], moderated with ``prior_dof`` except where ``noisy``.  dof : own degrees of freedom, float32
    of the same shape, values below 1 count as 1.  lsb : converter step [ADU], whose ``lsb^2 / 12`` is taken out.
    common : variance that all pixels of a frame share (jitter of the frames' levels), taken out too [ADU^2].
    Returns (read noise, error), float32 [ADU]; the bias of the root is corrected.
    """
    read, error = np.empty_like(variance), np.empty_like(variance)
    noisy = np.ones(variance.shape, bool) if noisy is None else noisy
    other = np.float32(lsb * lsb / 12.0 + common)
    for v, n, alone, r, e in in_pieces(variance, dof, noisy, read, error):
        total = np.maximum(n, np.float32(1.0)) + np.where(alone, np.float32(0.0), np.float32(prior_dof))
        least = np.maximum(v, other)
        np.sqrt(least - other, out=r)
        # d RN = d(variance) / 2 RN, and d(variance) = variance sqrt(2 / n); sqrt(variance) stands in for RN = 0.
        e[:] = least * np.sqrt(0.5 / total) / np.where(r > 0, r, np.sqrt(least))
        # A pixel's own scatter underestimates it; a moderated one is the root of a mean, below the mean of roots.
        r *= np.where(alone, 1.0 / scatter_bias(total), expected_noise(total))
    return read, error


def median_rounding(n, lsb):
    """Error of the median of n integers from their rounding, which averaging does not remove, 1 sigma.

    The median of an odd number of integers is one of them: ``lsb / sqrt(12)``; of an even number it stands on half steps.
    Noise well below one step leaves it larger still.
    """
    return lsb / np.sqrt(np.where(np.asarray(n) % 2, 12.0, 24.0))
