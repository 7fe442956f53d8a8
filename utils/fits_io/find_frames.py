"""FITS files below a folder, each once: links are followed, circles and second ways to a file are not."""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from utils.errors import InputError

FITS_NAME = re.compile(r"\.(?:fits?|fts)(?:\.gz|\.fz)?$|\.fz$", re.IGNORECASE)
INDEX_NAME = "fits_index.csv"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file below the base folder: relpath with slashes, and what tells whether it has changed."""

    path: str
    relpath: str
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass
class FoundFrames:
    """Files by relpath, index files met, what could not be looked at, number of second ways to a file."""

    files: list[FoundFile] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    duplicates: int = 0


def _skip(name: str) -> bool:
    """Hidden files and folders, and those that editors and half-finished copies leave."""
    return name.startswith((".", "~")) or name.endswith(("~", ".tmp", ".part"))


def find_fits(base: str | os.PathLike, exclude: Iterable[str | os.PathLike] = ()) -> FoundFrames:
    """All FITS files below base, outside the folders of exclude (those that hold base itself do not count).

    Raises InputError where base is not a folder that can be listed.
    """
    base = os.path.abspath(base)
    if not os.path.isdir(base):
        what = "not a folder" if os.path.exists(base) else "no such folder"
        raise InputError(f"{base}: {what}, expected a folder with FITS files")
    real_base = os.path.realpath(base)
    shut = {os.path.realpath(path) for path in exclude}
    shut = {path for path in shut if os.path.commonpath([path, real_base]) != path}
    found = FoundFrames()
    seen_folders: set[tuple[int, int]] = set()
    seen_files: set[tuple[int, int]] = set()
    # Real folders first: a file that can be reached in two ways keeps its real path.
    folders, linked_folders, linked_files = [base], [], []
    while folders or linked_folders:
        folder = folders.pop() if folders else linked_folders.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen_folders:
                continue
            seen_folders.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if folder == base:
                raise InputError(f"{base}: cannot be listed ({error.strerror})") from error
            found.unreadable.append(_failed(folder, error))
            continue
        for entry in entries:
            if _skip(entry.name):
                continue
            try:
                if entry.is_dir():
                    if not shut or os.path.realpath(entry.path) not in shut:
                        (linked_folders if entry.is_symlink() else folders).append(entry.path)
                elif entry.name == INDEX_NAME:
                    found.indexes.append(entry.path)
                elif FITS_NAME.search(entry.name):
                    if entry.is_symlink():
                        linked_files.append(entry.path)
                    else:
                        _take(found, base, entry.path, entry.stat(), seen_files)
            except OSError as error:
                found.unreadable.append(_failed(entry.path, error))
    for path in linked_files:
        try:
            if not any(os.path.realpath(path).startswith(folder + os.sep) for folder in shut):
                _take(found, base, path, os.stat(path), seen_files)
        except OSError as error:
            found.unreadable.append(_failed(path, error))
    found.files.sort(key=lambda file: file.relpath)
    return found


def _failed(path: str, error: OSError) -> dict[str, str]:
    return {"path": path, "reason": f"cannot be read ({error.strerror or error})"}


def _take(found: FoundFrames, base: str, path: str, status: os.stat_result, seen: set) -> None:
    if not stat.S_ISREG(status.st_mode):
        found.unreadable.append({"path": path, "reason": "not a regular file"})
        return
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        found.duplicates += 1
        return
    seen.add(identity)
    relpath = path[len(base) :].lstrip(os.sep).replace(os.sep, "/")
    found.files.append(FoundFile(path, relpath, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
