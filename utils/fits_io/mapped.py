"""Memory of mapped files: what has been read through a map counts as the process's own until it is given back."""

import contextlib
import mmap

import numpy as np

AROUND = 1 << 16
"""Linux maps pages of so many bytes around one that is asked for: they are given back too."""


def drop_pages(*arrays):
    """Give back the memory of arrays, or parts of them, that view a mapped file; read again they are as before.

    arrays : contiguous views as `utils.fits_io.product_reader.view_planes` makes them.  Arrays of other memory, and
    systems without madvise, are left as they are.
    """
    for array in arrays:
        whole = _map_of(array)
        if whole is None or not hasattr(whole, "madvise"):
            continue
        start = np.frombuffer(whole, np.uint8).__array_interface__["data"][0]
        first = array.__array_interface__["data"][0] - start
        aligned = max(0, first - AROUND)
        aligned -= aligned % mmap.PAGESIZE
        end = min(len(whole), first + array.nbytes + AROUND)
        with contextlib.suppress(OSError):
            whole.madvise(mmap.MADV_DONTNEED, aligned, end - aligned)


class Squares:
    """Squares of a mapped plane (float32), plus a number, computed where they are read: ``squares[rows]``."""

    def __init__(self, plane, plus=0.0):
        self.shape, self._plane, self._plus = plane.shape, plane, np.float32(plus)

    def __getitem__(self, rows):
        values = self._plane[rows].astype(np.float32)
        values *= values
        values += self._plus
        return values

    def reshape(self, *shape):
        """Return the same in another shape."""
        return Squares(self._plane.reshape(*shape), self._plus)


def native(plane):
    """Copy a mapped plane into memory in native byte order, and give back its pages."""
    copy = plane.astype(plane.dtype.newbyteorder("="))
    drop_pages(plane)
    return copy


def _map_of(array):
    """Return the read-only `mmap.mmap` under an array, or None."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    whole = base.obj if isinstance(base, memoryview) else base
    # Dropped pages of a private map would lose what was written into it.
    return whole if isinstance(whole, mmap.mmap) and memoryview(whole).readonly else None
