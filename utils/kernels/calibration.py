"""A frame less its bias and dark, divided by its flat, with the error of every pixel.

`BiasTerms`, `dark_law.DarkTerms` and `FlatTerms` hold what does not depend on the frame; a `Workspace` the buffers.
"""

import numpy as np

from utils.kernels.pieces import Parabola

REACH = 2
"""Half width of the square over which the signal is averaged for its own shot noise [pixels]."""
_SIDE = 2 * REACH + 1
_BRIGHT = 3.0
"""A sample so many sigma above its surroundings is a source: its own signal tells its shot noise."""


class BiasTerms:
    """The line ``a + b T`` of some pixels and its error, ready for many temperatures.

    a, b [ADU, ADU/K] : (ny, nx).  var_a, var_b, cov : of the rows whose error is wanted; var_b None: a level without a
    known slope.
    """

    def __init__(self, a, b, var_a, var_b=None, cov=None):
        self.a, self.b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        self.fixed, self.error = None, None
        if var_b is None:
            self.fixed = np.asarray(var_a, np.float32)
            return
        self.error = Parabola(var_a.shape)
        planes = [plane.reshape(-1) for plane in (var_a, cov, var_b)]
        for part in self.error.parts():
            self.error.set(part, *(plane[part].astype(np.float64) for plane in planes))

    def level(self, temperature):
        """Bias [ADU] at a temperature [degC], float32."""
        level = np.multiply(self.b, np.float32(temperature))
        level += self.a
        return level

    def variance(self, temperature):
        """Variance [ADU^2] at a temperature [degC], float32."""
        if self.error is None:
            return self.fixed.copy()
        return self.error.at(temperature, np.empty_like(self.error.least))


class FlatTerms:
    """Inverse of a flat, and the variance of its relative error; NaN where the flat is not positive."""

    def __init__(self, flat, sigma):
        self.inverse = np.divide(np.float32(1.0), flat, out=np.full_like(flat, np.nan), where=flat > 0)
        self.relative = np.square(sigma * self.inverse)


class Workspace:
    """Buffers for frames ``nx`` wide, in pieces of at most ``rows`` rows."""

    def __init__(self, rows, nx):
        wide = rows + 2 * REACH
        self.stored = {}
        self.wide = [np.empty((wide, nx), np.float32) for _ in range(4)]
        self.inner = [np.empty((rows, nx), np.float32) for _ in range(5)]
        self.flags = [np.empty((wide, nx), bool) for _ in range(3)]
        self._padded = np.zeros((wide, nx + 2 * REACH), np.float32)
        self._sums = [np.empty((wide, nx + 2 * REACH), np.float32) for _ in range(2)]

    def box(self, plane, above, out):
        """Sum over squares of 5 x 5 pixels; beyond the edges there is nothing.

        plane : rows around those of ``out``, of which ``above`` (at most REACH) come before them.  out : (ny, nx).
        """
        ny, nx = out.shape
        padded = self._padded[: ny + 2 * REACH]
        first = REACH - above
        padded[:first] = 0.0
        padded[first : first + len(plane), REACH:-REACH] = plane
        padded[first + len(plane) :] = 0.0
        # Pairs of neighbours first: three additions each way.  The order never depends on where a piece begins.
        pairs, columns = self._sums[0][: ny + 3], self._sums[1][:ny]
        np.add(padded[:-1], padded[1:], out=pairs)
        np.add(pairs[:ny], pairs[2 : ny + 2], out=columns)
        columns += padded[4:]
        pairs = pairs[:ny]
        np.add(columns[:, :-1], columns[:, 1:], out=pairs[:, :-1])
        np.add(pairs[:, :nx], pairs[:, 2 : nx + 2], out=out)
        out += columns[:, 4:]
        return out


def inverse_count(usable, above, work, out):
    """One over the number of usable pixels in the square around each; 0 where there is none.

    usable : bool, rows around those of ``out`` as in `Workspace.box`.
    """
    count = work.box(usable, above, out)
    return np.divide(np.float32(1.0), count, out=count, where=count > 0)


def shot_signal(signal, bad, above, inverse, noise, inverse_gain, work, variance):
    """Signal that the shot noise of each pixel is taken from: the mean of its surroundings, its own where it stands out.

    signal : float32 above the dark [ADU], bad : bool, rows around those of ``noise`` as in `Workspace.box`.
    inverse : `inverse_count` of what is not bad.  noise : (ny, nx) variance without signal.  variance : set to noise and
    shot noise together.
    A noisy sample by itself makes errors too small where it fluctuated low (science: never from the single sample).
    Returns (ny, nx) float32 of ``work``, never negative.
    """
    near, limit = work.inner[3][: len(noise)], work.inner[4][: len(noise)]
    filled = work.wide[3][: len(signal)]
    np.copyto(filled, signal)
    # Few are bad: their numbers cost less than a mask.
    filled.reshape(-1)[np.flatnonzero(bad)] = 0.0
    work.box(filled, above, near)
    near *= inverse
    np.maximum(near, np.float32(0.0), out=near)
    np.multiply(near, np.float32(inverse_gain), out=variance)
    variance += noise
    own = signal[above : above + len(noise)]
    np.sqrt(variance, out=limit)
    limit *= np.float32(_BRIGHT)
    limit += near
    bright = np.flatnonzero(np.greater(own, limit, out=work.flags[2][: len(noise)]))
    if bright.size:
        light = own.reshape(-1)[bright]
        near.reshape(-1)[bright] = light
        variance.reshape(-1)[bright] = noise.reshape(-1)[bright] + np.float32(inverse_gain) * light
    return near


def calibrate(signal, bad, above, inverse, noise, dark_variance, flat, inverse_gain, work):
    """Value and error of some rows.

    signal : float32 samples less bias and dark [ADU], NaN where there is none; bad : bool, not to be averaged; both with
    ``above`` rows before those wanted.  inverse : as for `shot_signal`.  noise : (ny, nx) variance of a sample without
    light [ADU^2].  dark_variance : (ny, nx) of bias and dark [ADU^2].  flat : `FlatTerms` or None.
    inverse_gain : ADU per electron, 0 unknown.
    Returns value, sigma (ny, nx) float32 [ADU] of ``work``; NaN where a sample or the flat is missing.
    """
    ny = len(noise)
    value, variance = work.inner[1][:ny], work.inner[2][:ny]
    shot_signal(signal, bad, above, inverse, noise, inverse_gain, work, variance)
    variance += dark_variance
    if flat is None:
        np.copyto(value, signal[above : above + ny])
    else:
        np.multiply(signal[above : above + ny], flat.inverse, out=value)
        variance *= flat.inverse
        variance *= flat.inverse
        more = work.inner[4][:ny]
        np.multiply(value, value, out=more)
        more *= flat.relative
        variance += more
    return value, np.sqrt(variance, out=variance)
