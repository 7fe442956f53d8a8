"""Headers remembered between runs: a second scan of an unchanged tree opens no FITS file.

One JSON file per base folder in the user's cache folder (or one that the caller names), never in the input
tree. A file counts as unchanged while its size and both its times are the same. The first line holds the
checksum of the rest: a damaged, half-written or older cache is as good as none. It is replaced in one step,
so that two processes leave the cache of one of them, whole.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.fits_io.atomic import atomic_path
from utils.fits_io.find_frames import FoundFile
from utils.fits_io.header_scan import FitsImage, UnusableFits
from utils.version import __version__

FORMAT = 1


def user_cache_folder() -> Path:
    """$XDG_CACHE_HOME (or ~/.cache) / calibration-pipelines."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):
        root = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "calibration-pipelines"


def _encode(value: Any) -> Any:
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    raise TypeError(f"{type(value).__name__} in a header")


def _decode(mapping: dict[str, Any]) -> Any:
    return complex(*mapping["complex"]) if mapping.keys() == {"complex"} else mapping


class ScanCache:
    """Scan results of the files below one base folder; path is the file they are kept in."""

    def __init__(self, base: str | os.PathLike, folder: str | os.PathLike):
        real = os.path.realpath(base)
        self.path = Path(folder) / f"headers-{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}.json"
        self._head = {"format": FORMAT, "version": __version__, "base": real}
        self._files: dict[str, list] = {}
        self._keywords: list[list[str]] = []
        self._load()

    def _load(self) -> None:
        try:
            first, body = self.path.read_bytes().split(b"\n", 1)
            head = json.loads(first)
            if head != {**self._head, "checksum": zlib.crc32(body)}:
                return
            content = json.loads(body, object_hook=_decode)
        except (OSError, ValueError):
            return
        self._keywords, self._files = content["keywords"], content["files"]

    def get(self, file: FoundFile) -> FitsImage | UnusableFits | None:
        """What an earlier scan of this file gave; None where there was none or the file has changed since."""
        row = self._files.get(file.relpath)
        if row is None or row[:3] != [file.size, file.mtime_ns, file.ctime_ns]:
            return None
        if len(row) == 5:
            error = UnusableFits(f"{file.path}: {row[3]}")
            error.prodtype = row[4]
            return error
        ny, nx, bitpix, bzero, bscale, blank, offset, compressed, keywords, values = row[3:]
        cards = dict(zip(self._keywords[keywords], values, strict=True))
        return FitsImage(
            file.path, (ny, nx), bitpix, bzero, bscale, blank, offset, compressed, row[0], row[1], cards
        )

    def save(self, results: Iterable[tuple[FoundFile, FitsImage | UnusableFits]]) -> None:
        """Keep these results in place of those that were there.

        A result of a file that changed between listing and scan is left out, and so are failures of the disk.
        Raises OutputError where the cache folder cannot be written.
        """
        order: dict[tuple[str, ...], int] = {}
        files: dict[str, list] = {}
        for file, result in results:
            stamp = [file.size, file.mtime_ns, file.ctime_ns]
            if isinstance(result, UnusableFits):
                if result.lasting:
                    files[file.relpath] = [
                        *stamp,
                        str(result).removeprefix(f"{file.path}: "),
                        result.prodtype,
                    ]
            elif (result.size, result.mtime_ns) == (file.size, file.mtime_ns):
                # Frames of one camera share their keywords: they are written once.
                number = order.setdefault(tuple(result.cards), len(order))
                image = [*result.shape, result.bitpix, result.bzero, result.bscale, result.blank]
                place = [result.offset, result.compressed, number, list(result.cards.values())]
                files[file.relpath] = stamp + image + place
        content = {"keywords": [list(keywords) for keywords in order], "files": files}
        body = json.dumps(content, separators=(",", ":"), default=_encode).encode()
        head = json.dumps({**self._head, "checksum": zlib.crc32(body)}).encode()
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(head + b"\n" + body)
