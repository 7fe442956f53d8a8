"""The value at which a camera's samples end, where its headers do not tell: saturated pixels stick at it.

Samples of 12 bits in 16 end at 4095, not at 65535: hot pixels of darks, few among many, then have one value in all frames.
"""

import math
from dataclasses import dataclass

import numpy as np

from utils.fits_io import cluster
from utils.fits_io.cluster_stack import as_sent
from utils.fits_io.frame_stack import FrameStack
from utils.kernels import saturation

STUCK_SHARE = 0.8
"""Part of the samples of the pixels at the top that must have that very value: a faulty frame may differ."""
MOST_PIXELS = 10000
"""Pixels at the top that are followed through the other frames."""


@dataclass(frozen=True)
class Top:
    """highest : largest value that a pixel keeps in two frames.  pile : the same where samples pile up at it, else inf.

    Both in stored units with BZERO and BSCALE applied; pixels : how many pile up.
    """

    highest: float = -math.inf
    pile: float = math.inf
    pixels: int = 0


def top_of_group(images, lit=False):
    """Look at the largest values of the frames of one group, of which two are read as a whole.

    images : sequence of FitsImage of one shape.  lit : they are flats.  Returns a `Top`.
    """
    ends = [images[0]] if len(images) == 1 else [images[0], images[-1]]
    with FrameStack(ends) as stack:
        low = _values(stack, 0, ends[0])
        if len(ends) > 1:
            np.minimum(low, _values(stack, 1, ends[1]), out=low)
    top, where = saturation.values_at_top(low, len(images) > 1, lit)
    if where.size == 0:
        return Top(top)
    where = where[:: math.ceil(where.size / MOST_PIXELS)]
    if cluster.connected():
        shares = cluster.in_batches(
            _shares_at,
            (where, top),
            as_sent(images),
            low.nbytes,
            what="frames at their top",
            witness=images[0],
        )
        same = [share for _, share in sorted(shares)]
    else:
        same = _shares_at(where, top, images)
    if np.mean(same) < STUCK_SHARE:
        return Top(top)
    return Top(top, top, int(np.count_nonzero(low == top)))


def _shares_at(where, top, images):
    """Part of the pixels at flat indices ``where`` that have the value ``top``, in each frame."""
    with FrameStack(images) as stack:
        return [np.mean(_values(stack, number, image, where) == top) for number, image in enumerate(images)]


def _values(stack, number, image, where=slice(None)):
    """Values of the pixels of one frame at flat indices, blank ones -inf; float32, float64 where that is too coarse."""
    stored = stack.frame_view(number).reshape(-1)[where]
    values = stored.astype(np.float64 if abs(image.bitpix) > 16 else np.float32)
    blank = ~np.isfinite(values) if image.bitpix < 0 else None
    if image.bitpix > 0 and image.blank is not None:
        blank = stored == image.blank
    values *= image.bscale
    values += image.bzero
    if blank is not None:
        values[blank] = -np.inf
    return values


def common_top(tops):
    """Value at which samples pile up in groups (`Top`) of one camera setting, inf where another group goes beyond it."""
    highest = max((top.highest for top in tops), default=-math.inf)
    return min((top.pile for top in tops if top.pile >= highest), default=math.inf)
