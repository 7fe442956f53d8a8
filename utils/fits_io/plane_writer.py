"""Images written piece after piece to one FITS file: swapped, summed and stored while a piece is in the cache.

The places of all headers and planes are known before; their data sums are not, so headers come last.  Workers share
the pieces.  A plane is an array, or a map that is computed while it is written (`computed_planes`) and never whole in
memory.
"""

import os

import numpy as np

from utils.fits_io.atomic import atomic_path
from utils.fits_io.fits_cards import BLOCK, add_sums, finish_header, stored_sum
from utils.fits_io.workers import in_workers

PIECE = 1 << 16
"""Pixels in a piece."""
WORTH_A_WORKER = 4 << 20
"""Bytes from which one more worker is worth its start."""


class ComputedPlane:
    """One map that is computed in pieces; indexed by slices of flat pixels.  shape : (ny, nx).  dtype : of its values."""

    def __init__(self, shape, dtype, name, pieces):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape))
        self._name, self._pieces = name, pieces

    def __getitem__(self, part):
        return self._pieces(part)[self._name]


def computed_planes(shape, kinds, compute):
    """Planes that are computed together, piece after piece, while they are written.

    kinds : dict name -> dtype.  compute : function of a slice of flat pixels, returns a dict name -> values.
    Returns a dict name -> `ComputedPlane`, to be given to `utils.fits_io.products.write_product`.
    """
    last = {}

    def pieces(part):
        key = (part.start, part.stop)
        if key not in last:
            last.clear()
            last[key] = compute(part)
        return last[key]

    return {name: ComputedPlane(shape, kind, name, pieces) for name, kind in kinds.items()}


def write_images(path, images, source, pixels, tail=(), jobs=1):
    """Write images of one size to a file, atomically.

    images : list of (cards, stored big-endian type).  source : function of a slice of flat pixels, returns the values
    of every image.  pixels : of an image.  tail : buffers that follow the images.  jobs : workers.
    """
    places, end = [], 0
    for cards, kind in images:
        start = end + len(finish_header(cards, 0))
        places.append((end, start))
        end = start + -(-pixels * kind.itemsize // BLOCK) * BLOCK
    size = pixels * sum(kind.itemsize for _, kind in images)
    jobs = max(1, min(jobs, size // WORTH_A_WORKER))
    parts = [slice(first, min(first + PIECE, pixels)) for first in range(0, pixels, PIECE)]
    with atomic_path(path) as temporary:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666
        )
        try:

            def prepare():
                room = [np.empty(min(PIECE, pixels), kind) for _, kind in images]

                def store(part):
                    sums = []
                    for values, stored, (_, start) in zip(source(part), room, places, strict=True):
                        kind = stored.dtype.newbyteorder("=")
                        with np.errstate(over="ignore"):
                            # A float64 beyond the float32 range becomes infinite, which is masked.
                            values = np.ascontiguousarray(values, kind)
                        stored = stored[: values.size]
                        np.copyto(stored, values)
                        sums.append(stored_sum(values))
                        _write(descriptor, stored, start + part.start * kind.itemsize)
                    return sums

                return store

            sums = in_workers(prepare, parts, jobs)
            for number, ((cards, _), (header, _)) in enumerate(zip(images, places, strict=True)):
                _write(descriptor, finish_header(cards, add_sums(one[number] for one in sums)), header)
            for buffer in tail:
                end += _write(descriptor, buffer, end)
            os.ftruncate(descriptor, end)
        finally:
            os.close(descriptor)


def _write(descriptor, buffer, position):
    """Write a buffer at a place of the file; returns its size."""
    view = (
        memoryview(buffer).cast("B")
        if not isinstance(buffer, np.ndarray)
        else memoryview(buffer.view(np.uint8))
    )
    size = len(view)
    while view:
        done = os.pwrite(descriptor, view, position)
        view, position = view[done:], position + done
    return size
