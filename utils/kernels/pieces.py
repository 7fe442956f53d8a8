"""Maps in pieces that stay in a processor's cache: temporaries of whole maps cost several times as much."""

import numpy as np

PIECE = 1 << 15
"""Pixels in a piece."""
DOUBLES = 1 << 12
"""Pixels of which many float64 maps stay in the cache."""
MEDIAN_PIXELS = 1 << 20
"""Pixels, evenly spaced, from which a median is taken."""


def in_pieces(*maps):
    """Yield tuples of flat views, one per map, piece after piece.

    maps : contiguous arrays of one size; writing into a view writes into its map.
    """
    flat = [np.reshape(one, -1, copy=False) for one in maps]
    for start in range(0, flat[0].size, PIECE):
        yield tuple(one[start : start + PIECE] for one in flat)


def median_of_some(values, most=MEDIAN_PIXELS):
    """Median of the finite values among at most about ``most`` evenly spaced ones; None where there is none.

    Its error from leaving out the others, 1.25 sigma / sqrt(most), is a thousandth of the scatter of the pixels.
    """
    flat = np.reshape(values, -1)
    some = flat[:: flat.size // most | 1]  # an odd step sees all columns of a mosaic
    some = some[np.isfinite(some)]
    return middle(some) if some.size else None


def middle(values):
    """Median of finite values, not empty; `numpy.median` would import masked arrays first."""
    half = values.size // 2
    places = (half - 1, half) if values.size % 2 == 0 else (half,)
    return float(np.mean(np.partition(values, places)[list(places)]))


class Parabola:
    """Values ``c0 + 2 c1 x + c2 x^2`` of many pixels, never negative: variances of lines, and of laws in their exponent.

    They are kept about their minimum, where nothing cancels, so that float32 does.
    """

    def __init__(self, shape):
        self.least, self.centre, self.slope = (np.empty(shape, np.float32) for _ in range(3))

    def parts(self):
        """Slices of flat pixels for `set`."""
        return [slice(start, start + DOUBLES) for start in range(0, self.least.size, DOUBLES)]

    def set(self, part, c0, c1, c2):
        """Set some flat pixels; float64 arrays."""
        centre = -c1 / np.maximum(c2, np.finfo(float).tiny)
        self.least.reshape(-1)[part] = np.maximum(c0 + c1 * centre, 0.0)
        self.centre.reshape(-1)[part] = centre
        self.slope.reshape(-1)[part] = c2

    def at(self, x, out):
        """Values at a number ``x`` into ``out``, float32."""
        np.subtract(np.float32(x), self.centre, out=out)
        out *= out
        out *= self.slope
        out += self.least
        return out
