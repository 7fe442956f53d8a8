"""Frames combined, sampled and summed at the workers of a cluster: row blocks of a stack, batches of files."""

import os
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from utils.fits_io import cluster
from utils.fits_io.frame_stack import RESULT_KINDS, FrameStack, StackResult

_PIXEL_BYTES = sum(np.dtype(kind).itemsize for kind in RESULT_KINDS)


def as_sent(images, keywords=()):
    """Return images as workers need them: absolute paths, of the cards only those with ``keywords``."""
    return [
        replace(
            image,
            path=os.path.abspath(image.path),
            cards={key: image.cards[key] for key in keywords if key in image.cards},
        )
        for image in images
    ]


def combine_on_cluster(stack, how, pedestal, factor, progress):
    """`FrameStack.combine` in units of rows, about `cluster.RESULT_BYTES` of result each."""
    ny, nx = stack.shape
    height = max(1, min(cluster.RESULT_BYTES // (_PIXEL_BYTES * nx), -(-ny // (2 * cluster.threads()))))
    starts = range(0, ny, height)
    planes = [None if one is None else np.asarray(one, np.float32) for one in (pedestal, factor)]

    def parts():
        for start in starts:
            stop = min(start + height, ny)
            yield start, stop, *(None if one is None else one[start:stop] for one in planes)

    result = StackResult(*(np.empty(stack.shape, kind) for kind in RESULT_KINDS))
    done = cluster.units(
        _rows_at_work,
        (as_sent(stack.images), stack.adu_scale, how),
        parts(),
        what=f"rows of {len(stack.images)} frames",
        total=ny,
        weight=lambda rows: len(rows[0]),
        witness=stack.images[0],
    )
    for number, rows in done:
        for whole, own in zip(vars(result).values(), rows, strict=True):
            whole[starts[number] : starts[number] + len(own)] = own
        if progress is not None:
            progress(len(rows[0]))
    return result


@contextmanager
def _rows_at_work(images, adu_scale, how, memory_limit):
    with FrameStack(images, adu_scale=adu_scale, memory_limit=memory_limit) as stack:

        def work(part):
            start, stop, *planes = part
            placed = [None if rows is None else _placed(rows, start, stack.shape) for rows in planes]
            found = stack.combine_part(start, stop, how, *placed)
            return [plane[start:stop].copy() for plane in vars(found).values()]

        yield work


def _placed(rows, start, shape):
    """Plane of which only some rows are filled: the others are never looked at, and are no more than addresses."""
    plane = np.empty(shape, np.float32)
    plane[start : start + len(rows)] = rows
    return plane
