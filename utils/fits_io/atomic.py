"""Files that stand under their final name only when they are whole.

Every writer of the project goes through :func:`atomic_path`: the bytes go to a hidden file in the same
folder, which takes the final name in one step. A killed process leaves at most a hidden ``.name.pid.tmp``.
The data are not forced to the disk (no fsync): the guarantee is against a killed process, not against a power
cut.
"""

import csv
import errno
import json
import math
import os
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import OutputError


class RefusedOutputError(OutputError):
    """The place cannot or must not be written: read-only, a folder in the way, somebody else's file."""

    status = 2


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EROFS: "read-only file system",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
    errno.EISDIR: "a folder stands there",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a part of the path is a file",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "symbolic links in a circle",
}


def output_error(error, path):
    """Translate an OSError met while writing ``path`` to a one-line OutputError; None if unknown."""
    if error.errno in _FULL:
        what = "file size limit reached" if error.errno == errno.EFBIG else "disk full"
        return OutputError(f"{path}: {what} while writing, nothing was left under this name")
    if error.errno in _REFUSED:
        return RefusedOutputError(f"{path}: cannot write, {_REFUSED[error.errno]}")
    return None


def make_folder(folder):
    """Make a folder with its parents; RefusedOutputError where the system has none there, as below /proc."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise RefusedOutputError(f"{folder}: the system lets no folder be made there") from error


def check_writable(folder):
    """Refuse a folder that cannot be made or written, before the work and without writing anything."""
    place = Path(os.path.abspath(folder))
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise RefusedOutputError(f"{folder}: {place} is a file, expected a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RefusedOutputError(f"{folder}: {place} cannot be written, expected a writable output folder")


@contextmanager
def atomic_path(path):
    """Give a temporary path beside ``path``: renamed to ``path`` on success, removed on any failure.

    Parent folders are made. An existing file of this name is replaced in one step, or stays as it was.
    Raises OutputError (disk full) or RefusedOutputError (read-only, a folder in the way), one line each.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        make_folder(path.parent)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            # Also Ctrl-C and SystemExit: nothing half-written may stay behind.
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        known = output_error(error, path) if _concerns(error, path, temporary) else None
        if known is None:
            raise
        raise known from error


def _concerns(error, path, temporary):
    """Tell whether an OSError is about this output: an input that cannot be read inside the block is not."""
    if error.filename is None:
        return True
    name = Path(os.fsdecode(error.filename))
    return name in (path, temporary) or name in path.parents


def write_bytes(path, chunks):
    """Write the buffers of ``chunks`` (bytes, C-contiguous uint8 arrays) in turn to ``path``, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb", buffering=0) as stream:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            while view:
                # A raw write may take only a part of a large buffer (2 GB on Linux, less on a full disk).
                view = view[stream.write(view) :]


def write_text(path, text):
    """Write ``text`` as UTF-8 to ``path``, atomically; see :func:`writable` for what UTF-8 cannot hold."""
    with atomic_path(path) as temporary:
        temporary.write_text(writable(text), encoding="utf-8", newline="\n")


def writable(text):
    """Text that UTF-8 can hold: bytes of a file name that are no UTF-8 become escapes (backslash, u, dc, byte).

    Where the locale knows no UTF-8, names that are UTF-8 nevertheless come out as what they are.
    """
    with suppress(UnicodeEncodeError):  # halves of characters come from no file name
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path, value):
    """Write ``value`` as JSON to ``path``, atomically; NaN and infinities become null (see :func:`plain`)."""
    write_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path, rows, columns):
    """Write ``rows`` (mappings) to a comma-separated file with the given columns, atomically.

    None and absent entries are empty cells, floats are written so that they read back exactly.
    Raises ValueError for a row that has an entry outside ``columns``.
    """
    rows = [{name: _cell(value) for name, value in row.items()} for row in rows]
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, columns, restval="", extrasaction="raise", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _cell(value):
    value = plain(value)
    return writable(value) if isinstance(value, str) else value


def plain(value):
    """Reduce ``value`` to what JSON knows: dict, list, str, int, float, bool, None.

    Paths, dates and enums become text, numpy scalars and arrays Python values, NaN and infinities None.
    Raises TypeError for anything else.
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        # The shortest digits that give the same float32, not its 17-digit double.
        return plain(
            float(str(value)) if str(value.dtype) == "float32" and not value.shape else value.tolist()
        )
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
