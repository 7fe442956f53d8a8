"""Trends of numbers and of maps over time and temperature: weighted lines whose errors know the scatter about them."""

import math
from dataclasses import dataclass

import numpy as np

from utils.kernels import linear_fit

APART = 0.95
"""Two causes whose correlation is beyond this cannot be told apart."""


@dataclass(frozen=True)
class Trend:
    """y = level + slope (x - origin).  level and slope with their errors; chi2_red about the line; n points.

    scatter : weighted standard deviation about the line.  Errors are widened by sqrt(chi2_red) where that is above 1.
    """

    origin: float
    level: float
    level_error: float
    slope: float
    slope_error: float
    chi2_red: float
    scatter: float
    n: int

    @property
    def significance(self):
        """Slope over its error."""
        return self.slope / self.slope_error if self.slope_error > 0 else 0.0

    def at(self, x):
        """Value of the line."""
        return self.level + self.slope * (np.asarray(x) - self.origin)


def fit_trend(x, y, sigma):
    """Weighted straight line through points, or None for fewer than 3 of them or a single x.

    x, y, sigma : (n,); points that are not finite, or whose sigma is not above 0, are left out.
    """
    x, y, sigma = (np.asarray(one, np.float64) for one in (x, y, sigma))
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(sigma) & (sigma > 0)
    x, y, weight = x[good], y[good], 1.0 / sigma[good] ** 2
    if x.size < 3 or np.unique(x).size < 2:
        return None
    origin = float(np.average(x, weights=weight))
    coeff, cov, chi2, _ = linear_fit.fit_line(y[:, None], weight[:, None], x, origin)
    reduced = float(chi2[0]) / (x.size - 2)
    wider = math.sqrt(max(1.0, reduced))
    residual = y - coeff[0, 0] - coeff[1, 0] * (x - origin)
    scatter = math.sqrt(float(np.average(residual**2, weights=weight)) * x.size / (x.size - 2))
    return Trend(
        origin,
        float(coeff[0, 0]),
        float(np.sqrt(cov[0, 0])) * wider,
        float(coeff[1, 0]),
        float(np.sqrt(cov[1, 0])) * wider,
        reduced,
        scatter,
        int(x.size),
    )


@dataclass(frozen=True)
class TwoCauses:
    """y = level + slopes . (x - origins): slopes (2,), errors (2,), correlation of the two slopes, chi2_red, n."""

    slopes: np.ndarray
    errors: np.ndarray
    correlation: float
    chi2_red: float
    n: int


def fit_two_causes(first, second, y, sigma):
    """Line in two variables (time and temperature), or None where they are too few or cannot be told apart."""
    columns = [np.asarray(one, np.float64) for one in (first, second, y, sigma)]
    good = np.logical_and.reduce([np.isfinite(one) for one in columns]) & (columns[3] > 0)
    first, second, y, sigma = (one[good] for one in columns)
    if y.size < 5 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    if abs(np.corrcoef(first, second)[0, 1]) > APART:
        return None
    scale = [first.std(), second.std()]
    design = np.column_stack(
        [np.ones(y.size), (first - first.mean()) / scale[0], (second - second.mean()) / scale[1]]
    )
    design = design / sigma[:, None]
    inverse = np.linalg.inv(design.T @ design)
    coeff = inverse @ design.T @ (y / sigma)
    chi2 = float(np.square(y / sigma - design @ coeff).sum()) / (y.size - 3)
    error = np.sqrt(np.diag(inverse) * max(1.0, chi2))
    return TwoCauses(
        coeff[1:] / scale,
        error[1:] / scale,
        float(inverse[1, 2] / math.sqrt(inverse[1, 1] * inverse[2, 2])),
        chi2,
        int(y.size),
    )


def fit_maps(values, variance, x):
    """Line of every pixel over x.  values (n, m), NaN = unusable.  variance (n, m) or (n, 1).  x (n,).

    Returns slope and its error, chi2_red, (m,) each; errors as the variances say, chi2_red tells whether they hold.
    """
    coeff, cov, chi2, used = linear_fit.fit_line(values, 1.0 / variance, x, float(np.mean(x)))
    with np.errstate(divide="ignore", invalid="ignore"):
        reduced = np.where(used > 2, chi2 / np.maximum(used - 2, 1), np.nan)
    return coeff[1], np.sqrt(cov[1]), reduced


def epoch_levels(values, group, epoch, information):
    """Level of every epoch against the first, from planes of several groups that share no zero point.

    values : (planes, ...) one number or map a plane; NaN nowhere.  group, epoch : (planes,) int.  information : (planes,),
    1 / variance.  Model: value = level[epoch] + own zero point of the group, least squares.
    Returns level (E, ...), with level 0 for the first epoch, and covariance (E, E) of a plane of unit information.
    Epochs that no group ties to the first one are NaN.
    """
    group, epoch = np.unique(group, return_inverse=True)[1], np.asarray(epoch)
    count, groups = int(epoch.max()) + 1, int(group.max()) + 1
    tied = _tied(group, epoch)
    design = np.zeros((group.size, count + groups))
    design[np.arange(group.size), epoch] = 1.0
    design[np.arange(group.size), count + group] = 1.0
    first = int(epoch.min())
    free = np.array([k for k in range(count + groups) if k != first and design[:, k].any()])
    weight = np.asarray(information, np.float64)
    normal = design[:, free].T @ (design[:, free] * weight[:, None])
    inverse = np.linalg.pinv(normal, hermitian=True)
    solve = inverse @ (design[:, free] * weight[:, None]).T
    shape = np.shape(values)[1:]
    found = np.tensordot(solve, np.asarray(values, np.float64), 1)
    level, cov = np.full((count, *shape), np.nan), np.full((count, count), np.nan)
    level[first] = 0.0
    place = {int(k): n for n, k in enumerate(free)}
    known = [e for e in range(count) if e in place and tied[e]]
    for e in known:
        level[e] = found[place[e]]
    cov[first, :] = cov[:, first] = 0.0
    for e in known:
        for other in known:
            cov[e, other] = inverse[place[e], place[other]]
    return level, cov


def _tied(group, epoch):
    """Whether groups in common tie each epoch to the first, (E,) bool."""
    count = int(epoch.max()) + 1
    tied = np.zeros(count, bool)
    tied[int(epoch.min())] = True
    while True:
        reached = np.isin(group, np.unique(group[tied[epoch]]))
        more = np.zeros(count, bool)
        more[epoch[reached]] = True
        if (more == tied).all():
            return tied
        tied = more | tied
