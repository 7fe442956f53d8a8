"""The few special functions of the noise model, without the 0.1 s that scipy.special takes to import.

That is a quarter of a whole short run.  All are tested against scipy.  Numbers in, numbers out, in float64.
References: Abramowitz & Stegun (1964), 6.1.41, 6.3.18, 6.4.11, 26.2.12, 26.5, 26.6, 26.7; Press et al. (2007), Numerical
Recipes, 6.4 (continued fraction of the incomplete beta function, after Lentz).
"""

import math

import numpy as np

_SHIFT = 10
"""Arguments are raised by so much before an asymptotic series is used."""
_NODES = 4001
"""Numbers beyond which the normal distribution function is interpolated."""


def gammaln(x):
    """Logarithm of the gamma function for x > 0, an array."""
    x = np.asarray(x, dtype=np.float64)
    product = np.ones_like(x)
    for step in range(_SHIFT):
        product *= x + step
    z = x + _SHIFT
    w = 1.0 / (z * z)
    series = (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w / 1188)))) / z
    return (z - 0.5) * np.log(z) - z + 0.5 * math.log(2.0 * math.pi) + series - np.log(product)


def digamma(x):
    """Derivative of `gammaln` for x > 0, an array."""
    x = np.asarray(x, dtype=np.float64)
    lower = sum(1.0 / (x + step) for step in range(_SHIFT))
    z = x + _SHIFT
    w = 1.0 / (z * z)
    series = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w / 132))))
    return np.log(z) - 0.5 / z - series - lower


def trigamma(x):
    """Second derivative of `gammaln` for x > 0, an array."""
    x = np.asarray(x, dtype=np.float64)
    lower = sum(1.0 / (x + step) ** 2 for step in range(_SHIFT))
    z = x + _SHIFT
    w = 1.0 / (z * z)
    series = w * (1 / 6 - w * (1 / 30 - w * (1 / 42 - w * (1 / 30 - w * 5 / 66))))
    return 1.0 / z + 0.5 * w + series / z + lower


def tetragamma(x):
    """Third derivative of `gammaln` for x > 0, an array."""
    x = np.asarray(x, dtype=np.float64)
    lower = sum(-2.0 / (x + step) ** 3 for step in range(_SHIFT))
    z = x + _SHIFT
    w = 1.0 / (z * z)
    series = w * w * (1 / 2 - w * (1 / 6 - w * (1 / 6 - w * (3 / 10 - w * 5 / 6))))
    return -w - w / z - series + lower


def log_normal_cdf(x):
    """Logarithm of the standard normal distribution function, an array."""
    x = np.asarray(x, dtype=np.float64)
    if x.size <= _NODES:
        return np.array([_log_normal_cdf(value) for value in x.ravel().tolist()]).reshape(x.shape)
    # Many values: cubic pieces through exact values and slopes.
    nodes = np.linspace(x.min(), x.max(), _NODES)
    level = log_normal_cdf(nodes)
    step = nodes[1] - nodes[0]
    slope = step * np.exp(-0.5 * nodes * nodes - level) / math.sqrt(2.0 * math.pi)
    place = (x - nodes[0]) / step
    left = np.minimum(place.astype(np.intp), _NODES - 2)
    t = place - left
    rise = level[left + 1] - level[left]
    first, second = slope[left] - rise, rise - slope[left + 1]
    return level[left] + t * rise + t * (1.0 - t) * (first * (1.0 - t) + second * t)


def _log_normal_cdf(x):
    if x > 0.0:
        return math.log1p(-0.5 * math.erfc(x / math.sqrt(2.0)))
    if x > -30.0:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2.0)))
    w = 1.0 / (x * x)
    tail = 1.0 - w * (1.0 - w * (3.0 - w * 15.0))
    return -0.5 * x * x - math.log(-x) - 0.5 * math.log(2.0 * math.pi) + math.log(tail)


def beta_cdf(a, b, x):
    """Regularised incomplete beta function I_x(a, b) of numbers a, b > 0 and x in 0 ... 1."""
    return _beta_cdf(a, b, x, 1.0 - x)


def _beta_cdf(a, b, x, rest):
    """Same with ``rest`` = 1 - x, which the caller may know better."""
    if x <= 0.0:
        return 0.0
    if rest <= 0.0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, rest) / b


def _beta_fraction(a, b, x):
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 100_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            c = 1.0 + numerator / c
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def f_cdf(dof, other, x):
    """Distribution function of F with ``dof`` and ``other`` degrees of freedom at x >= 0."""
    whole = dof * x + other
    return _beta_cdf(0.5 * dof, 0.5 * other, dof * x / whole, other / whole)


def f_tail(dof, other, x):
    """Chance that F with ``dof`` and ``other`` degrees of freedom exceeds x >= 0."""
    whole = dof * x + other
    return _beta_cdf(0.5 * other, 0.5 * dof, other / whole, dof * x / whole)


def t_quantile(dof, tail):
    """Value that Student's t with ``dof`` degrees of freedom exceeds with the chance ``tail`` < 0.5."""

    def chance(t):
        whole = dof + t * t
        return 0.5 * _beta_cdf(0.5 * dof, 0.5, dof / whole, t * t / whole)

    low, high = 0.0, 1.0
    while chance(high) > tail:
        low, high = high, 2.0 * high
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if chance(middle) > tail else (low, middle)
    return 0.5 * (low + high)


def log_gamma_quantiles(a, chances):
    """Quantiles of the logarithm of a gamma variate of shape ``a`` and scale 1, by its integrated density.

    chances : (m,) between 1e-6 and 1 - 1e-6.  Right to 1e-6.
    """
    # Left tail exp(a t), right tail exp(-exp(t)), a bell of width 1 / sqrt(a) where a is large.
    middle, width = math.log(a), 1.0 / math.sqrt(a)
    t = np.linspace(middle - 9.0 * width - 16.0 / a, middle + math.log1p(9.0 * width + 16.0 / a), 40_001)
    density = np.exp(a * t - np.exp(t) - math.lgamma(a))
    cumulated = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(t))])
    rising = np.concatenate([[True], np.diff(cumulated) > 0])
    return np.interp(chances, cumulated[rising] / cumulated[-1], t[rising])
