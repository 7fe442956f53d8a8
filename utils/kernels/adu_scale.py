"""Converter samples stored left-justified: the power of two that all values share."""

import numpy as np

LARGEST = 256
"""8 bits stored left-justified in 16."""


def sample_bits(samples, ceiling=None):
    """Bitwise OR of the samples of one frame: its vote on the stored step.

    samples : integers, any shape, as stored (offset applied so that zero is zero).  ceiling : value that means
    saturated; such samples do not count.
    Returns the OR as int, or None where the frame has no vote: constant, or more than half saturated.
    """
    samples = np.asarray(samples)
    if samples.dtype.kind not in "iu":
        return None
    values = samples.ravel()
    if ceiling is not None:
        inside = values < ceiling
        if inside.sum() * 2 < values.size:
            return None
        values = values[inside]
    if values.size == 0 or values.min() == values.max():
        return None
    return int(np.bitwise_or.reduce(values))


def shared_factor(votes):
    """Largest power of two that divides every sample of all voting frames.

    votes : results of `sample_bits`, None = no vote.  Returns 1 where nobody votes, or where the factor exceeds
    ``LARGEST``: so few different values are no evidence.
    """
    bits = 0
    for vote in votes:
        if vote is not None:
            bits |= vote
    factor = bits & -bits if bits else 1
    return factor if factor <= LARGEST else 1
