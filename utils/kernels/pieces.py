"""Maps in pieces that stay in a processor's cache: temporaries of whole maps cost several times as much."""

import numpy as np

PIECE = 1 << 15
"""Pixels in a piece."""
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
    return float(np.median(some)) if some.size else None
