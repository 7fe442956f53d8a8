"""Exact medians over the first axis of a stack.

Up to ``NETWORK_LIMIT`` samples (``WIDE_LIMIT`` for many columns) a comparator network is used: Batcher's odd-even
merge sort, pruned to the comparators that the middle outputs need.  Every comparator is one ``np.minimum`` and one
``np.maximum`` over whole rows, which run as SIMD.  Longer stacks are partitioned.
Reference: Batcher (1968), AFIPS 32, 307; Knuth, The Art of Computer Programming 3, 5.3.4.
"""

from functools import lru_cache

import numpy as np

NETWORK_LIMIT = 128
"""Samples up to which the network is used for any number of columns."""
WIDE_LIMIT, WIDE = 512, 2048
"""Samples up to which it is used for so many columns or more, which outweigh the calls of its many operations."""


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
    if n > NETWORK_LIMIT and (n > WIDE_LIMIT or stack[0].size < WIDE):
        low, high = (n - 1) // 2, n // 2
        ordered = np.ascontiguousarray(stack.reshape(n, -1).T)
        ordered.partition(sorted({low, high}), axis=1)
        shape = stack.shape[1:]
        return ordered[:, low].reshape(shape), ordered[:, high].reshape(shape)
    program, size, low, high = _program(n)
    lanes = [*stack, *np.empty((size, *stack.shape[1:]), stack.dtype)]
    for operation, a, b, out in program:
        operation(lanes[a], lanes[b], out=lanes[out])
    return lanes[low], lanes[high]


@lru_cache(maxsize=256)
def _program(n):
    """The network as operations on numbered arrays: the n of the stack, which are only read, and ``size`` of scratch.

    Returns (operations, size, low, high) with operations of (ufunc, first, second, out), and low and high the numbers of
    the arrays that hold the result.
    """
    steps, low, high = median_comparators(n)
    place = list(range(n))
    free, size = [], 0
    program = []

    def scratch():
        nonlocal size
        if not free:
            free.append(n + size)
            size += 1
        return free.pop()

    for i, j, need_min, need_max in steps:
        a, b = place[i], place[j]
        owned = [slot for slot in (a, b) if slot >= n]
        if need_min and need_max:
            smaller = scratch()
            larger = owned.pop() if owned else scratch()
            program += [(np.minimum, a, b, smaller), (np.maximum, a, b, larger)]
            place[i], place[j] = smaller, larger
        elif need_min:
            place[i] = owned.pop() if owned else scratch()
            program.append((np.minimum, a, b, place[i]))
        else:
            place[j] = owned.pop() if owned else scratch()
            program.append((np.maximum, a, b, place[j]))
        free += owned
    return tuple(program), size, place[low], place[high]
