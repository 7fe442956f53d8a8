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


class ImagesFile:
    """A file of images of one size under way, atomic; a context manager.

    Pieces may be stored in any order and by any forked process, each once; then `finish` writes the headers.
    path : of the file.  images : list of (cards, stored big-endian type).  pixels : of an image.
    """

    def __init__(self, path, images, pixels):
        self.pixels = pixels
        self.kinds = tuple(kind for _, kind in images)
        self.bytes = pixels * sum(kind.itemsize for kind in self.kinds)
        self._images, self._places, self._end = images, [], 0
        for cards, kind in images:
            start = self._end + len(finish_header(cards, 0))
            self._places.append((self._end, start))
            self._end = start + -(-pixels * kind.itemsize // BLOCK) * BLOCK
        self._atomic = atomic_path(path)
        self._descriptor = None

    def __enter__(self):
        temporary = self._temporary = self._atomic.__enter__()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
            self._descriptor = os.open(temporary, flags, 0o666)
        except BaseException as error:
            self._atomic.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *exc):
        os.close(self._descriptor)
        return self._atomic.__exit__(*exc)

    def room(self, most):
        """Return buffers of ``most`` pixels for `store`, one for each process."""
        return [np.empty(min(most, self.pixels), kind) for kind in self.kinds]

    def store(self, part, values, room):
        """Store the values of every image for a slice of flat pixels; returns their data sums."""
        sums = []
        for own, stored, (_, start) in zip(values, room, self._places, strict=True):
            kind = stored.dtype.newbyteorder("=")
            with np.errstate(over="ignore"):
                # A float64 beyond the float32 range becomes infinite, which is masked.
                own = np.ascontiguousarray(own, kind).reshape(-1)
            stored = stored[: own.size]
            np.copyto(stored, own)
            sums.append(stored_sum(own))
            self._write(stored, start + part.start * kind.itemsize)
        return sums

    def finish(self, sums, tail=()):
        """Write the headers, with the data sums of all pieces, and the buffers that follow the images."""
        for number, ((cards, _), (header, _)) in enumerate(zip(self._images, self._places, strict=True)):
            self._write(finish_header(cards, add_sums(one[number] for one in sums)), header)
        end = self._end
        for buffer in tail:
            end += self._write(buffer, end)
        os.ftruncate(self._descriptor, end)

    def _write(self, buffer, position):
        """Write a buffer at a place of the file; returns its size."""
        buffer = buffer.view(np.uint8) if isinstance(buffer, np.ndarray) else buffer
        view = memoryview(buffer).cast("B")
        size = len(view)
        try:
            while view:
                done = os.pwrite(self._descriptor, view, position)
                view, position = view[done:], position + done
        except OSError as error:
            error.filename = os.fspath(self._temporary)  # of several files that are open
            raise
        return size


def write_images(files, sources, finish, jobs=1, together=1):
    """Fill the images of several `ImagesFile`s piece after piece.

    sources : for each file a function of a slice of flat pixels that returns the values of every image.  finish : called
    here with the number of each file that is full and the data sums of its pieces, as `ImagesFile.finish` takes them.
    jobs : workers, which share the pieces of all files.  together : so many files in a row, of one size, get each piece at
    one time: their planes are computed together.
    """
    parts = [
        (range(number, number + together), slice(first, min(first + PIECE, file.pixels)))
        for number, file in list(enumerate(files))[::together]
        for first in range(0, file.pixels, PIECE)
    ]
    sums = [[] for _ in files]

    def prepare():
        rooms = {}

        def work(part):
            numbers, own = part
            found = []
            for number in numbers:
                file = files[number]
                if file.kinds not in rooms:
                    rooms[file.kinds] = file.room(PIECE)
                found.append((number, file.store(own, sources[number](own), rooms[file.kinds])))
            return found

        return work

    def stored(result):
        for number, found in result:
            sums[number].append(found)
            if len(sums[number]) == -(-files[number].pixels // PIECE):
                finish(number, sums[number])

    in_workers(prepare, parts, max(1, min(jobs, sum(file.bytes for file in files) // WORTH_A_WORKER)), stored)
