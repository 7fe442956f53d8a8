"""Maps in pieces that stay in a processor's cache: temporaries of whole maps cost several times as much."""

import numpy as np

PIECE = 1 << 15
"""Pixels in a piece."""


def in_pieces(*maps):
    """Yield tuples of flat views, one per map, piece after piece.

    maps : contiguous arrays of one size; writing into a view writes into its map.
    """
    flat = [np.reshape(one, -1, copy=False) for one in maps]
    for start in range(0, flat[0].size, PIECE):
        yield tuple(one[start : start + PIECE] for one in flat)
