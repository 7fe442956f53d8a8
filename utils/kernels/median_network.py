"""Exact medians over the first axis of a stack.

Up to ``NETWORK_LIMIT`` samples a comparator network is used: Batcher's odd-even merge sort, pruned to the
comparators that the middle outputs need.  Every comparator is one ``np.minimum`` and one ``np.maximum`` over whole
rows, which run as SIMD and without the interpreter lock.  Longer stacks are partitioned.
Reference: Batcher (1968), AFIPS 32, 307; Knuth, The Art of Computer Programming 3, 5.3.4.
"""

from functools import lru_cache

import numpy as np

NETWORK_LIMIT = 128


@lru_cache(maxsize=256)
def median_comparators(n):
    """Comparators that leave the middle order statistics of ``n`` values in their places.

    n : number of values, at least 1.
    Returns (steps, low, high): steps is a tuple of (i, j, need_min, need_max) with i < j, to be done in order;
    low and high are the positions of the two middle values (equal for odd n).
    """
    low, high = (n - 1) // 2, n // 2
    needed = {low, high}
    kept = []
    for i, j in reversed(_odd_even_merge_sort(n)):
        if i in needed or j in needed:
            kept.append((i, j, i in needed, j in needed))
            needed |= {i, j}
    return tuple(reversed(kept)), low, high


def _odd_even_merge_sort(n):
    """Return the comparators (i, j) of Batcher's sort of ``n`` values (any n)."""
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for start in range(k % p, n - k, 2 * k):
                for i in range(start, min(start + k, n - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        pairs.append((i, i + k))
            k //= 2
        p *= 2
    return pairs


def median_pair(stack):
    """Return the two middle order statistics over axis 0 (the same array twice for odd n).

    stack : (n, ...) of integers or floats without NaN; not changed.
    Returns low (...), high (...), of the stack's type.  The median is their mean.
    """
    n = stack.shape[0]
    if n > NETWORK_LIMIT:
        low, high = (n - 1) // 2, n // 2
        ordered = np.ascontiguousarray(stack.reshape(n, -1).T)
        ordered.partition(sorted({low, high}), axis=1)
        shape = stack.shape[1:]
        return ordered[:, low].reshape(shape), ordered[:, high].reshape(shape)
    steps, low, high = median_comparators(n)
    lanes = list(stack)
    owned = [False] * n
    spare = [np.empty(stack.shape[1:], stack.dtype) for _ in range(2)]

    def buffer():
        return spare.pop() if spare else np.empty(stack.shape[1:], stack.dtype)

    for i, j, need_min, need_max in steps:
        a, b = lanes[i], lanes[j]
        if need_min and need_max:
            target = buffer()
            np.minimum(a, b, out=target)
            top = b if owned[j] else (a if owned[i] else buffer())
            np.maximum(a, b, out=top)
            if top is not a and owned[i]:
                spare.append(a)
            lanes[i], lanes[j], owned[i], owned[j] = target, top, True, True
        elif need_min:
            lanes[i] = np.minimum(a, b, out=a if owned[i] else buffer())
            owned[i] = True
        else:
            lanes[j] = np.maximum(a, b, out=b if owned[j] else buffer())
            owned[j] = True
    return lanes[low], lanes[high]
