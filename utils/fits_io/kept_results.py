"""Results of reading many frames, kept in the output folder until the run has ended.

A run that is killed need not read again what it had read: the next one, with --resume, finds the combined group
or the sample of a group by what it was made from.  What is quicker made than kept is not kept.
"""

import hashlib
import logging
import shutil
import time
import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from utils.errors import OutputError
from utils.fits_io.atomic import atomic_path
from utils.fits_io.free_space import check_room
from utils.version import __version__

FOLDER = ".resume"
SPEED = 5e8
"""Bytes that are kept in a second."""
WORTH, LEAST = 10.0, 1.0
"""A result is kept where making it took so many times longer than keeping it, and so many seconds."""
_LOGGER = logging.getLogger("calibration.resume")
_OF_IMAGES = ("path", "size", "mtime_ns", "shape", "bitpix", "bzero", "bscale", "blank", "offset")
_store = None


class Store:
    """Kept results below a folder.

    take : those of an earlier run are taken.  begin : called before anything is written.
    taken, made : how many results were taken, and made.  reserve : bytes of the disk that stay free for products.
    """

    def __init__(self, folder, *, take, begin):
        self.folder, self.take, self._begin = Path(folder) / FOLDER, take, begin
        self.taken = self.made = self.reserve = 0
        self._full, self._known = False, set()

    def prepare(self):
        """Look at what an earlier run left, now that the folder is ours."""
        if not self.take:
            self.remove()
        for temporary in self.folder.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)
        self._known = {path.stem for path in self.folder.glob("*.npz")}

    def remove(self):
        """Forget all results."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def result(self, facts, make, pack, unpack):
        """Take the result of ``make()`` from the folder, or make it and keep it."""
        key = _key(facts) if self._known else None
        if key in self._known:
            arrays = _load(self.folder / f"{key}.npz")
            if arrays is not None:
                self.taken += 1
                return unpack(arrays)
        start = time.monotonic()
        result = make()
        seconds = time.monotonic() - start
        self.made += 1
        arrays = pack(result)
        if arrays is not None and not self._full and seconds > max(LEAST, WORTH * _bytes(arrays) / SPEED):
            self._keep(self.folder / f"{key or _key(facts)}.npz", arrays)
        return result

    def _keep(self, path, arrays):
        self._begin()
        try:
            check_room(self.folder, _bytes(arrays) + self.reserve)
            with atomic_path(path) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, **arrays)
        except OutputError as error:
            # The products matter more; they need the same disk.
            self._full = True
            _LOGGER.warning("%s: nothing more is kept for --resume", error)


def use(store):
    """Let `remembered` work with a `Store`, or with none; returns the one before."""
    global _store
    before, _store = _store, store
    return before


def remembered(facts, make, pack, unpack):
    """Return ``make()``, or the same as an earlier run has kept it, where a `Store` is in use.

    facts : all that the result depends on: images, arrays, dataclasses, numbers, text, and lists of them.
    pack : result -> dict of arrays, None for one that is not to be kept.  unpack : such a dict -> result.
    """
    return make() if _store is None else _store.result(facts, make, pack, unpack)


def _bytes(arrays):
    return sum(np.asarray(array).nbytes for array in arrays.values())


def _load(path):
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None  # not whole, after a power cut: it is made again


def _key(facts):
    found = hashlib.sha256()
    _feed(found, (__version__, np.__version__, facts))
    return found.hexdigest()


def _feed(found, value):
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        found.update(f"{value.dtype.str}{value.shape}".encode())
        found.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    elif isinstance(value, (list, tuple)):
        found.update(b"(")
        for item in value:
            _feed(found, item)
        found.update(b")")
    elif hasattr(value, "mtime_ns"):
        found.update(repr([getattr(value, name) for name in _OF_IMAGES]).encode("utf-8", "surrogateescape"))
    elif is_dataclass(value):
        _feed(found, [type(value).__name__, *(getattr(value, field.name) for field in fields(value))])
    elif value is None or isinstance(value, (str, bytes, bool, int, float, np.generic)):
        found.update(f"{value!r};".encode("utf-8", "surrogateescape"))
    else:
        raise TypeError(f"{type(value).__name__} cannot be told apart from others: {value!r}")
