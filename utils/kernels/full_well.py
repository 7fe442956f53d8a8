"""End of the range of a camera: full well and saturation from the collapse of the temporal noise of flats."""

import math
from dataclasses import dataclass

import numpy as np

COLLAPSED = 0.2
"""A variance below this part of the expected is that of a full well."""
TURNED = 0.8
"""A variance below this part of the expected, at the top of the range, is that of a well that begins to be full."""
TURN_RANGE = 0.7
"""Part of the range below its turn from which the expected variance is taken."""
STUCK_LEVELS, STUCK_EXPOSURES, STUCK_ABOVE, FEWEST_STUCK = 0.05, 1.2, 0.8, 3
"""Levels this near to the highest, over exposures of at least this ratio, are full wells; above so many below this part."""
AGREE = 9.0
"""Levels of full wells are one where chi-square is not larger than expected by more than this."""


@dataclass(frozen=True)
class Well:
    """End of the range.

    value [ADU above bias], error : NaN where not reached.  how : 'plateau', 'turn', 'no brighter' or 'not reached'.
    turn : signal of the largest variance, the saturation of EMVA 1288 [ADU above bias], NaN where that tells none.
    top : highest signal seen.  full : (n,) bool, levels whose wells are full or begin to be.
    """

    value: float
    error: float
    how: str
    turn: float
    top: float
    full: np.ndarray


def full_well(signal, variance, base, spread=None):
    """End of the range from the collapse of the temporal variance.

    signal, variance (n,) of the levels [ADU above bias, ADU^2].  base : variance without signal [ADU^2].
    spread : (n,) scatter of the levels' means [ADU], for the error of a plateau.
    Where variances collapse all the way, the full well is the mean of those levels, or the highest where they differ by
    more than their scatter; where they only turn over, it lies between the last level that has not and the first that has.
    Returns `Well`.
    Reference: Janesick (2007), Photon Transfer, ch. 5; EMVA 1288 Release 4, sec. 6.6 (largest variance).
    """
    order = np.argsort(signal)
    s, v = np.asarray(signal, float)[order], np.asarray(variance, float)[order]
    nothing = np.zeros(s.size, bool)
    if s.size == 0 or not (v - base > 0).any():
        return Well(
            math.nan, math.nan, "not reached", math.nan, float(s.max()) if s.size else math.nan, nothing
        )
    turn = int(np.argmax(v))
    slope = _first_slope(s, v, base, s[turn])
    expected = base + slope * s
    bright = s >= 0.5 * s[-1]
    turned = bright & (v < TURNED * expected) & (np.arange(s.size) > turn)
    # Everything beyond the first full level is full.
    first = int(np.argmax(turned)) if turned.any() else s.size
    full = np.arange(s.size) >= first
    flags = nothing.copy()
    flags[order] = full
    collapsed = full & (v < COLLAPSED * expected)
    if collapsed.any():
        value, error = _plateau(
            s[collapsed], None if spread is None else np.asarray(spread)[order][collapsed]
        )
        return Well(value, error, "plateau", float(s[turn]), float(s[-1]), flags)
    if turned.any():
        low, high = s[first - 1], s[first]
        half = 0.5 * (high - low)
        return Well(
            float(low + half), float(half / math.sqrt(3.0)), "turn", float(s[turn]), float(s[-1]), flags
        )
    return Well(math.nan, math.nan, "not reached", float(s[turn]), float(s[-1]), flags)


def no_brighter(exposure, signal):
    """Full well of single frames, whose variance is not known: levels that grow no more with exposure.

    exposure (n,) [s], signal (n,) [ADU above bias].  At least three levels within 5 % of the highest over exposures that
    differ by 20 %, above three that did grow.  Returns value and error [ADU], NaN where the levels do not show it.
    """
    t, s = np.asarray(exposure, float), np.asarray(signal, float)
    top = s >= (1.0 - STUCK_LEVELS) * s.max(initial=-math.inf)
    below = ~top & (s > 0) & (s < STUCK_ABOVE * s.max(initial=-math.inf))
    if top.sum() < FEWEST_STUCK or below.sum() < FEWEST_STUCK:
        return math.nan, math.nan
    apart = t[top].max() / t[top].min() >= STUCK_EXPOSURES and t[below].max() < t[top].max()
    return (float(s[top].mean()), float(s[top].std(ddof=1))) if apart else (math.nan, math.nan)


def _plateau(own, spread):
    """Level of full wells and its error: the mean of the levels, or the highest where they rise, as far as they do."""
    if spread is not None and (spread > 0).all():
        weight = 1.0 / np.square(spread)
        value, error = float((weight * own).sum() / weight.sum()), float(1.0 / math.sqrt(weight.sum()))
        if (weight * np.square(own - value)).sum() <= AGREE + own.size - 1:
            return value, error
    scatter = float(own.std(ddof=1)) if own.size > 1 else 0.0
    return float(own.max()), scatter


def _first_slope(s, v, base, top):
    """ADU per electron from the lower half of the range, roughly."""
    usable = (s > 0) & (s <= TURN_RANGE * top)
    if not usable.any():
        usable = (s > 0) & (s <= top)
    s, v = s[usable], v[usable]
    return float(((v - base) * s).sum() / (s * s).sum())
