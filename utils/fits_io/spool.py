"""Arrays that wait for a later pass: in memory as far as that is allowed, further ones in one unnamed temporary file."""

import math
import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np

from utils.fits_io import cluster
from utils.fits_io.atomic import make_folder, output_error


class ArraySpool:
    """Append-only store of arrays; a context manager, the file vanishes with it.

    folder : where the temporary file lives (the output folder: the disk that is meant to be filled).
    memory : bytes of arrays that are kept as they are, not copied: whoever puts one must not change it later.
    """

    def __init__(self, folder, memory=0):
        self._folder = folder
        self._places, self._kept, self._room = {}, {}, memory

    def __enter__(self):
        make_folder(self._folder)
        # Workers of a cluster open it by its name.
        temporary = tempfile.NamedTemporaryFile if cluster.connected() else tempfile.TemporaryFile
        # Unbuffered: what a full disk did not take would be tried again, and fail again, when the file is closed.
        self._file = temporary(dir=self._folder, prefix=f".spool-{os.getpid()}-", buffering=0)
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Forget all arrays and give their memory back."""
        self._places.clear()
        self._kept.clear()
        self._file.close()

    def put(self, key, array):
        """Store an array under a key (any hashable).  Raises OutputError on a full disk."""
        array = np.ascontiguousarray(array)
        if key in self._kept:
            self._room += self._kept.pop(key).nbytes
        if array.nbytes <= self._room:
            self._room -= array.nbytes
            self._kept[key] = array
            return
        try:
            place = self._file.seek(0, 2)
            view = memoryview(array).cast("B")
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            known = output_error(error, self._folder)
            if known is None:
                raise
            raise known from error
        self._places[key] = (place, array.dtype, array.shape)

    def get(self, key):
        """Return a fresh copy of the array stored under the key."""
        if key in self._kept:
            return self._kept[key].copy()
        place, dtype, shape = self._places[key]
        self._file.seek(place)
        array = np.empty(shape, dtype)
        target = memoryview(array).cast("B")
        while target:
            got = self._file.readinto(target)
            if not got:
                raise OSError(f"temporary file in {self._folder} is shorter than what was written")
            target = target[got:]
        return array

    def part(self, key, part):
        """Return a copy of some of the array under the key, by a slice of its flat elements; workers may call it."""
        if key in self._kept:
            return self._kept[key].reshape(-1)[part].copy()
        return _part(self._file.fileno(), self._places[key], part, self._folder)

    def pick(self, key, indices):
        """Return a copy of some of the array under the key, by indices of its flat elements."""
        if key in self._kept:
            return self._kept[key].reshape(-1)[indices]
        first, dtype, shape = self._places[key]
        skipped = first % mmap.ALLOCATIONGRANULARITY
        size = math.prod(shape)
        length = skipped + size * dtype.itemsize
        with mmap.mmap(
            self._file.fileno(), length, access=mmap.ACCESS_READ, offset=first - skipped
        ) as content:
            whole = np.frombuffer(content, dtype, size, skipped)
            found = whole[indices]
            del whole  # A map that an array still sees cannot be closed.
        return found

    @property
    def in_memory(self):
        """Bytes of the arrays that are kept as they are."""
        return sum(array.nbytes for array in self._kept.values())

    @property
    def folder(self):
        """Folder of the temporary file."""
        return self._folder

    def as_sent(self, keys):
        """Return what workers of a cluster read the arrays of some keys with: `SpoolFile`."""
        os.fsync(self._file.fileno())
        return SpoolFile(os.path.abspath(self._file.name), {key: self._places[key] for key in keys})


@dataclass(frozen=True)
class SpoolFile:
    """The file of an `ArraySpool` on another machine.  path : absolute.  places : key -> (first byte, dtype, shape)."""

    path: str
    places: dict

    def part(self, key, part):
        """As `ArraySpool.part`."""
        with open(self.path, "rb", buffering=0) as file:
            return _part(file.fileno(), self.places[key], part, self.path)


def _part(descriptor, place, part, where):
    first, dtype, shape = place
    start, stop, _ = part.indices(math.prod(shape))
    array = np.empty(stop - start, dtype)
    target, position = memoryview(array).cast("B"), first + start * dtype.itemsize
    while target:
        got = os.preadv(descriptor, [target], position)
        if got == 0:
            raise OSError(f"temporary file {where} is shorter than what was written")
        target, position = target[got:], position + got
    return array
