"""Photon transfer: gain, read noise and full well from the temporal noise of frames at several levels.

Levels come from `ordinary_pixels`: the mean signal of the pixels above bias and the mean of their temporal variances.
A mean of variances is unbiased for any noise, integers of less than one step included; pixels that do not belong (hot,
telegraph, struck) are recognised by a variance that chance does not give, and the small part of the good ones that lies
beyond that limit is known exactly and added back.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import special

LIMIT_SIGMA = 5.0
"""A variance further above its expectation than chance gives at so many sigma is that of no ordinary pixel."""
FIT_PART = 0.7
"""Part of the full well up to which the gain is fitted (EMVA 1288)."""
LOW_PART = 0.03
"""Part of the full well from which levels count for a line that need not meet the variance without light."""
LEAST_PART = 0.3
"""The fit is not made shorter than this part of the full well in search of a straight line."""
CURVED = 9.0
"""The a00 term is kept where it lowers chi-square by more than this (3 sigma)."""
UNLIKELY = 1e-3
"""Probability of chi-square below which a curve does not describe the levels."""


@dataclass(frozen=True)
class Ordinary:
    """Ordinary pixels of one level: signal [ADU], variance of a sample and its error [ADU^2], pixels, part left out."""

    signal: float
    variance: float
    error: float
    pixels: int
    left_out: float


def highest_variance(dof):
    """Largest variance of an ordinary pixel, of its expectation: more than chance gives at ``LIMIT_SIGMA``."""
    return 1.0 + LIMIT_SIGMA * math.sqrt(2.0 / dof) + LIMIT_SIGMA**2 / dof


def ordinary_pixels(signal, variance, dof, base, read_only=False):
    """Mean signal and mean temporal variance of the ordinary pixels of one level.

    signal (m,) [ADU above bias], variance (m,) of n frames [ADU^2], NaN = not usable.  dof : n - 1.
    base : variance without signal [ADU^2]; the rest grows with the signal of a pixel,
    where that is known well enough.  read_only : no pixel has signal.
    Pixels beyond 1 + 5 sqrt(2 / dof) + 25 / dof times their own expectation do not count: for two frames, differences of
    more than about 5 sigma.  Part of chi-square below that limit: F(dof + 2) / F(dof).
    Returns `Ordinary`; NaN where fewer than two pixels are left.
    """
    signal, variance = np.ravel(signal), np.ravel(variance)
    good = np.isfinite(signal) & np.isfinite(variance)
    signal, variance = signal[good].astype(np.float64), variance[good].astype(np.float64)
    if signal.size < 2 or dof < 1:
        return Ordinary(math.nan, math.nan, math.nan, int(signal.size), 0.0)
    shape = np.ones_like(signal)
    limit = highest_variance(dof)
    below = special.chdtr(dof + 2, limit * dof) / special.chdtr(dof, limit * dof)
    mean = max(float(np.median(variance)), float(np.mean(variance[variance <= np.quantile(variance, 0.9)])))
    kept = np.ones(signal.size, bool)
    level = float(np.median(signal))
    for _ in range(30):
        if not read_only and level > 10.0 * math.sqrt(mean / (dof + 1)):
            # Expected variance of each pixel over that of the mean pixel.
            shot = max(0.0, 1.0 - base / mean) if mean > 0 else 0.0
            shape = np.maximum(1.0 + shot * (signal / level - 1.0), 0.05)
        kept = variance <= limit * mean * shape
        if not kept.any():
            break
        level = float(signal[kept].mean())
        updated = float(variance[kept].mean()) / below
        done = abs(updated - mean) <= 1e-7 * max(updated, 1e-30)
        mean = updated
        if done:
            break
    count = int(kept.sum())
    if count < 2:
        return Ordinary(math.nan, math.nan, math.nan, count, 1.0)
    error = mean * math.sqrt(2.0 / (dof * count) * float(np.mean(np.square(shape[kept]))))
    return Ordinary(level, mean, error, count, 1.0 - count / signal.size)


@dataclass(frozen=True)
class Transfer:
    """Photon transfer: ``variance = base + (d m / d x)^2 C(x)``, C of `shot_variance`.

    gain, gain_error [e-/ADU].  base, base_error : variance without signal, LSB^2/12 included [ADU^2].
    a00, a00_error [1/e-] : brighter-fatter term, 0 where the data do not show it.
    used : (n,) bool.  model : (n,) variance [ADU^2], NaN below a line that does not meet ``base``.  chi2, dof.
    scaled : scatter of the levels over what their noise explains, where it is more.
    corrected : the response of `linearity` was taken out.
    offset : variance at no light of a line that need not meet ``base`` [ADU^2], where the gain is that of such a line;
    NaN else.
    """

    gain: float
    gain_error: float
    base: float
    base_error: float
    a00: float
    a00_error: float
    used: np.ndarray
    model: np.ndarray
    chi2: float
    dof: int
    scaled: float = 1.0
    corrected: bool = False
    offset: float = math.nan
    notes: list = field(default_factory=list)


def shot_variance(x, inverse_gain, a00=0.0):
    """Variance of a signal x [ADU] from its electrons [ADU^2].

    ``(exp(2 a00 x g) - 1) / (2 g^2 a00)``, which is x / g without a00: charges already collected push the next ones to the
    neighbours.  Reference: Astier et al. (2019), A&A 629, A36, eq. 20.
    """
    x = np.asarray(x, float)
    if a00 == 0.0:
        return inverse_gain * x
    z = 2.0 * a00 * x / inverse_gain
    return inverse_gain * x * special.exprel(z)


def fit_transfer(signal, variance, error, base, base_error, *, well=math.inf, responses=None):
    """Gain from the levels of flats.

    signal, variance, error (n,) of the levels above bias [ADU, ADU^2]; error : 1 sigma of the variance.
    base, base_error : variance without signal, from bias frames [ADU^2].  well [ADU above bias].
    responses : None, or a list of (x, slope): linear signal (n,) [ADU] and d signal / d x (n,) of the response, the first
    as fitted, the others with one of its parameters off by 1 sigma, whose effects on the gain go into its error.
    Weights are those of the fitted variance, never of the measured.  Fitted up to 70 % of the well; to less where no
    curve describes that.  Where none from the variance without light does at all, the levels from 3 % of the well on may
    lie on a line with an offset of its own; its slope's error has the distance to the slope from the dark in it.  Else
    levels that scatter more than their noise (steps of the converter of unequal width) get a relative error common to
    all, so that the precise ones do not decide alone, and the response is taken out only where it shows beyond that
    scatter.  Returns `Transfer`, gain NaN where no level tells.
    Reference: Janesick (2007), ch. 5; EMVA 1288 Release 4, sec. 6.
    """
    s, v, e = (np.asarray(a, float) for a in (signal, variance, error))
    usable = np.isfinite(s) & np.isfinite(v) & (e > 0) & (s > 0) & (s <= FIT_PART * well * 1.0001)
    straight = (s, np.ones_like(s))
    if not usable.any():
        nan = math.nan
        return Transfer(nan, nan, base, base_error, 0.0, nan, usable, np.full(s.size, nan), nan, 0)
    relative = np.divide(e, v, out=np.full(v.size, np.inf), where=v > 0)
    points = _Points(v, relative, base, base_error)
    choices = [(straight, False)] + ([(responses[0], True)] if responses else [])
    least = LEAST_PART * well if math.isfinite(well) else 0.0
    best = None
    for limit in np.sort(s[usable])[::-1]:
        used = usable & (s <= limit)
        if best is not None and (limit < least or used.sum() < 3):
            break
        found = _simplest(points, choices, used)
        if best is None or found[0].probability > UNLIKELY:
            best = (*found, used)
        if found[0].probability > UNLIKELY:
            return _finished(points, best, straight, responses)
    line = _detached(points, straight, usable, well)
    return _finished(points, best, straight, responses) if line is None else _from_line(line, best[0], points)


class _Points:
    """Levels with their relative errors, the level without light among them."""

    def __init__(self, variance, relative, base, base_error, extra=0.0):
        self.variance, self.relative, self.base, self.base_error = variance, relative, base, base_error
        self.extra = extra

    def scattered(self, pair, used, curved):
        """The same with a relative error common to all levels, the dark one too, that brings chi2 to its expectation."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            points = _Points(self.variance, self.relative, self.base, self.base_error, middle)
            fit = points.fit(pair, used, curved)
            low, high = (middle, high) if fit.chi2 > fit.dof else (low, middle)
        return points, fit

    def fit(self, pair, used, curved):
        """Base, ADU per electron and, where asked, a00 (of ADU: times gain) by reweighted Gauss-Newton."""
        x, slope = pair[0][used], pair[1][used]
        y, relative = self.variance[used], self.relative[used]
        factor = slope**2
        k = float(((y - self.base) * x * factor).sum() / ((x * factor) ** 2).sum())
        k = max(k, 1e-9)
        p = np.array([self.base, k, 0.0])
        free = 3 if curved else 2
        for _ in range(50):
            model = p[0] + factor * shot_variance(x, p[1], p[2] * p[1])
            z = 2.0 * p[2] * x
            # d/dz of exprel: by its own series near 0.
            rise = np.where(
                np.abs(z) < 1e-4, 0.5 + z / 3.0, (np.exp(z) - special.exprel(z)) / np.where(z == 0, 1.0, z)
            )
            design = np.stack(
                [np.ones_like(x), factor * x * special.exprel(z), factor * p[1] * x * 2.0 * x * rise]
            )
            design = design[:free]
            weight = 1.0 / ((relative**2 + self.extra**2) * np.maximum(model, 1e-12) ** 2)
            normal = (design * weight) @ design.T
            right = (design * weight) @ (y - model)
            base_variance = self.base_error**2 + (self.extra * self.base) ** 2
            bias_weight = 1.0 / base_variance if base_variance > 0 else 1e12 / max(self.base, 1e-12) ** 2
            known = int(bias_weight > 0)
            normal[0, 0] += bias_weight
            right[0] += bias_weight * (self.base - p[0])
            scale = 1.0 / np.sqrt(np.diag(normal))
            cov = np.linalg.pinv(normal * np.outer(scale, scale)) * np.outer(scale, scale)
            step = cov @ right
            p[:free] += step
            p[1] = max(p[1], 1e-9)
            p[2] = min(max(p[2], -0.5 / x.max()), 0.5 / x.max())
            if np.all(np.abs(step) <= 1e-10 * np.sqrt(np.diag(cov))):
                break
        model = p[0] + factor * shot_variance(x, p[1], p[2] * p[1])
        residual = np.square(y - model) / ((relative**2 + self.extra**2) * np.square(model))
        chi2 = float(residual.sum()) + (self.base - p[0]) ** 2 * bias_weight
        return _Fit(p, cov, chi2, x.size + known - free)


@dataclass(frozen=True)
class _Fit:
    p: np.ndarray
    cov: np.ndarray
    chi2: float
    dof: int

    @property
    def probability(self):
        return float(special.chdtrc(self.dof, self.chi2)) if self.dof > 0 else 1.0


def _simplest(points, choices, used):
    """Fit without a00, or with it where the levels show it."""
    plain = _described(points, choices, used, False)
    if used.sum() < 4:
        return plain
    curved = _described(points, choices, used, True)
    # Charges repel: a00 is negative.
    return curved if _shown(plain[0], curved[0]) and curved[0].p[2] < 0 else plain


def _described(points, choices, used, curved):
    """Fit with the response where one is known and describes the levels, else where they show it."""
    fits = [(points.fit(pair, used, curved), pair, done) for pair, done in choices]
    if len(fits) == 1:
        return fits[0]
    plain, bent = fits
    if bent[0].probability > UNLIKELY:
        return plain if _shown(bent[0], plain[0]) else bent
    # Exposures may bend because the lamp does: levels that scatter have to show the bend themselves.
    return bent if _shown(plain[0], bent[0]) else plain


def _shown(fit, other):
    """Whether the levels show that the other curve is right."""
    return fit.chi2 - other.chi2 > CURVED * max(1.0, other.chi2 / max(other.dof, 1))


def _detached(points, straight, usable, well):
    """Line with an offset above the variance without light, and its levels; None where it does not describe them."""
    signal = straight[0]
    used = usable & (signal >= LOW_PART * min(well, signal[usable].max() / FIT_PART))
    if used.sum() < 3:
        return None
    fit = _Points(points.variance, points.relative, points.base, math.inf).fit(straight, used, False)
    return (fit, straight, used) if fit.probability > UNLIKELY and fit.p[0] > points.base else None


def _from_line(line, through, points):
    """`Transfer` of a line with an offset of its own; through : the best fit from the variance without light."""
    fit, (signal, _), used = line
    offset, k = (float(value) for value in fit.p[:2])
    apart = through.p[1] - k
    error = math.hypot(math.sqrt(fit.cov[1, 1] * max(1.0, fit.chi2 / fit.dof)), apart)
    note = (
        "the levels of flats lie on a line that does not meet the variance without light"
        f" ({offset:.3g} ADU² instead of {points.base:.3g}): the gain is that of the line, {1.0 / k:.4g} e-/ADU;"
        f" from that variance it would be {1.0 / through.p[1]:.4g}, and its error says so"
    )
    return Transfer(
        1.0 / k,
        error / k**2,
        points.base,
        points.base_error,
        0.0,
        math.nan,
        used,
        np.where(signal < signal[used].min(), math.nan, offset + k * signal),
        fit.chi2,
        fit.dof,
        offset=offset,
        notes=[note],
    )


def _finished(points, best, straight, responses):
    fit, pair, corrected, used = best
    notes = []
    curved = fit.cov.shape[0] == 3
    scaled = 1.0
    if fit.dof > 0 and fit.probability < UNLIKELY:
        scaled = math.sqrt(fit.chi2 / fit.dof)
        points, fit = points.scattered(pair, used, curved)
        notes.append(
            f"the levels scatter about the photon transfer curve {scaled:.1f} times more than their noise explains:"
            f" an error of {100.0 * points.extra:.2g} % is added to each"
        )
    k = fit.p[1]
    var_k = fit.cov[1, 1]
    if corrected:
        for other in responses[1:]:
            var_k += (points.fit(other, used, curved).p[1] - k) ** 2
    model = fit.p[0] + pair[1] ** 2 * shot_variance(pair[0], k, fit.p[2] * k if curved else 0.0)
    a00, a00_error = 0.0, math.nan
    if curved:
        # Fitted per ADU; an electron is k ADU.
        a00 = float(fit.p[2] * k)
        gradient = np.array([0.0, fit.p[2], k])
        a00_error = float(math.sqrt(gradient @ fit.cov @ gradient))
        if not corrected and responses is None:
            notes.append("a00 may be non-linearity: no series of exposures tells the two apart")
    return Transfer(
        1.0 / k,
        math.sqrt(var_k) / k**2,
        float(fit.p[0]),
        math.sqrt(fit.cov[0, 0]),
        a00,
        a00_error,
        used,
        model,
        fit.chi2,
        fit.dof,
        scaled,
        corrected,
        notes=notes,
    )


def read_noise(base, base_error, lsb):
    """Read noise and its error [ADU] from the variance without signal, LSB^2/12 taken out.

    NaN where the variance is not above that of the rounding: the converter hides the noise.
    EMVA 1288 Release 4 does not trust a value from a variance below 0.24 LSB^2; neither does `trusted_read_noise`.
    """
    left = base - lsb**2 / 12.0
    if not left > 0:
        return math.nan, math.nan
    value = math.sqrt(left)
    return value, base_error / (2.0 * value)


def trusted_read_noise(base, lsb):
    """Whether the variance without signal is enough for a read noise (EMVA 1288 Release 4: 0.24 LSB^2)."""
    return base >= 0.24 * lsb**2
