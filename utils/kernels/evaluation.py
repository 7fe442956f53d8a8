"""How well a model describes real maps: errors, chi-square and coverage, summed block by block."""

import math

import numpy as np


class Comparison:
    """Sums over blocks of pixels; read the results with `metrics`."""

    def __init__(self):
        self.pixels = self.excluded = self.inside = 0
        self.absolute = self.relative = self.squares = self.signed = self.chi2 = 0.0

    def add(self, real, residual, sigma):
        """Add a block.

        real : (m,) measured values.  residual : (m,) real minus model.  sigma : (m,) expected 1-sigma scatter of the
        residual.  In float32 where all three are, with sums in float64.  Pixels where one of them is not finite or sigma
        is not positive are left out and not counted.
        """
        given = [np.asarray(a).ravel() for a in (real, residual, sigma)]
        kind = np.float32 if all(one.dtype == np.float32 for one in given) else np.float64
        real, residual, sigma = (one.astype(kind, copy=False) for one in given)
        with np.errstate(invalid="ignore", over="ignore"):
            # A sum that is finite has finite terms only.
            sums = real.sum() + residual.sum() + sigma.sum()
        if not (np.isfinite(sums) and sigma.min(initial=np.inf) > 0):
            good = np.isfinite(real) & np.isfinite(residual) & np.isfinite(sigma) & (sigma > 0)
            real, residual, sigma = real[good], residual[good], sigma[good]
        size, level = np.abs(residual), np.abs(real)
        self.pixels += size.size
        self.absolute += _sum(size)
        self.squares += _sum(np.square(residual))
        self.signed += _sum(residual)
        # Below 3 sigma the level itself is not known: a percentage of it means nothing.
        known = level >= kind(3.0) * sigma
        told = int(np.count_nonzero(known))
        self.excluded += size.size - told
        share = np.divide(size, level, out=level, where=known)
        self.relative += _sum(share if told == size.size else share[known])
        pull = np.divide(size, sigma, out=size)
        self.inside += int(np.count_nonzero(pull <= 3.0))
        self.chi2 += _sum(np.square(pull, out=pull))

    def merge(self, other):
        """Add the sums of another comparison."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def metrics(self, degrees_of_freedom=1.0):
        """Return a dict: mae, mape [%], rmse, mean_error, chi2_red, within_3sigma, pixels, excluded.

        degrees_of_freedom : expected chi-square per pixel (1 when sigma is that of the residual itself).
        All NaN without pixels; mape NaN when all are excluded.
        """
        n = self.pixels or math.nan
        known = (self.pixels - self.excluded) or math.nan
        return {
            "mae": self.absolute / n,
            "mape": 100.0 * self.relative / known,
            "rmse": math.sqrt(self.squares / n) if self.pixels else math.nan,
            "mean_error": self.signed / n,
            "chi2_red": self.chi2 / (n * degrees_of_freedom),
            "within_3sigma": self.inside / n,
            "pixels": self.pixels,
            "excluded": self.excluded,
        }


def sums_side_by_side(real, residual, variance, use):
    """Sums of a block of several maps and their models: many short rows at once, in few operations that stay in the cache.

    real : (n, m) measured values.  residual : (n, m) real minus model.  variance : (n, m) expected of it.  use : (n, m)
    bool, pixels that count; those without a finite residual, or with a variance that is not positive, do not.
    Arrays are contiguous float32, of which what does not count is overwritten.
    Returns (8, n) float64, of any number of blocks added up what `comparisons` takes.
    """
    n, m = real.shape
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        use = use & np.isfinite(residual)
        use &= variance > 0
        lost = np.flatnonzero(~use)
        for values, neutral in ((real, 4.0), (residual, 0.0), (variance, 1.0)):
            values.reshape(-1)[lost] = neutral
        lost = np.bincount(lost // m, minlength=n)
        squares = residual * residual
        # Below 3 sigma the level itself is not known: a percentage of it means nothing.
        faint = real * real < np.float32(9.0) * variance
        size = np.abs(residual)
        relative = size / np.abs(real)
        if faint.any():
            relative[faint] = 0.0
        pulls = np.divide(squares, variance, out=variance)
        inside = pulls <= np.float32(9.0)
    counts = [[np.count_nonzero(row) for row in one] for one in (faint, inside)]
    sums = [one.sum(axis=1) for one in (size, relative, squares, residual, pulls)]
    return np.array([m - lost, counts[0], counts[1] - lost, *sums], np.float64)


def comparisons(sums):
    """`Comparison` of each map from the sums of `sums_side_by_side`."""
    found = []
    for column in sums.T:
        one = Comparison()
        one.pixels, one.excluded, one.inside = (int(number) for number in column[:3])
        one.absolute, one.relative, one.squares, one.signed, one.chi2 = column[3:].tolist()
        found.append(one)
    return found


def _sum(values):
    """Sum in float64: blocks of any size add up to the same."""
    return float(values.sum(dtype=np.float64))


def percentage_error(real, residual, sigma):
    """Absolute error in percent of max(|real|, 3 sigma), for maps; shapes alike."""
    return 100.0 * np.abs(residual) / np.maximum(np.abs(real), 3.0 * sigma)
