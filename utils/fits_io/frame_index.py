"""The table that raw_to_fits leaves beside its frames (fits_index.csv), read instead of their headers."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from utils.fits_io.find_frames import INDEX_NAME, FoundFile
from utils.fits_io.header_scan import BITPIX_ALLOWED, FitsImage, parse_number

# Cells that may look like numbers and are none; every other cell is typed as the card of that name.
_TEXT = {"PATH", "RELPATH", "CALTYPE", "DATASUM", "CHECKSUM", "DATE-OBS", "FILTER", "INSTRUME"}
# What a row needs so that the file need not be opened.
_NEEDED = ("SIZE", "MTIME_NS", "NAXIS1", "NAXIS2", "BITPIX", "DATAOFF")
_NOT_CARDS = {"PATH", "RELPATH", "SIZE", "MTIME_NS", "DATAOFF"}


def indexes_above(base: str | os.PathLike) -> list[str]:
    """Index files in the folders above base, the nearest first: sections share one in their common parent."""
    paths = [str(folder / INDEX_NAME) for folder in Path(os.path.realpath(base)).parents]
    return [path for path in paths if os.path.isfile(path)]


def _typed(column: str, text: str) -> Any:
    if column in _TEXT:
        return text
    if text in ("T", "True", "F", "False"):
        return text.startswith("T")
    number = parse_number(text)
    return text if number is None else number


class FrameIndex:
    """Rows of several index files by the real path of their frame; a damaged index file has no rows."""

    def __init__(self, paths: Iterable[str | os.PathLike]):
        self._rows: dict[str, dict[str, str]] = {}
        self._real: dict[str, str] = {}
        for path in paths:
            folder = os.path.dirname(os.path.realpath(path))
            for row in _rows(path):
                frame = os.path.normpath(os.path.join(folder, row["RELPATH"]))
                self._rows.setdefault(frame, row)

    def get(self, file: FoundFile) -> FitsImage | None:
        """Image as the index describes it, None where its row is missing, incomplete or of an older file."""
        if not self._rows:
            return None
        folder, name = os.path.split(file.path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        row = self._rows.get(os.path.join(self._real[folder], name))
        if row is None or not (
            row.get("SIZE") == str(file.size) and row.get("MTIME_NS") == str(file.mtime_ns)
        ):
            return None
        values = {column: _typed(column, text) for column, text in row.items() if text}
        if any(not isinstance(values.get(column), int) for column in _NEEDED):
            return None
        return _image(values, file)


def _image(values: Mapping[str, Any], file: FoundFile) -> FitsImage | None:
    nx, ny, bitpix, offset = (values[column] for column in ("NAXIS1", "NAXIS2", "BITPIX", "DATAOFF"))
    bzero, bscale = values.get("BZERO", 0.0), values.get("BSCALE", 1.0)
    if bitpix not in BITPIX_ALLOWED or min(nx, ny, offset) <= 0:
        return None
    if not (isinstance(bzero, int | float) and isinstance(bscale, int | float)):
        return None
    if offset + nx * ny * abs(bitpix) // 8 > file.size:
        return None  # the scan says what is wrong with the file
    cards = {column: value for column, value in values.items() if column not in _NOT_CARDS}
    blank = values.get("BLANK")
    return FitsImage(
        path=file.path,
        shape=(ny, nx),
        bitpix=bitpix,
        bzero=float(bzero),
        bscale=float(bscale),
        blank=blank if isinstance(blank, int) else None,
        offset=offset,
        compressed=False,
        size=file.size,
        mtime_ns=file.mtime_ns,
        cards=cards,
    )


def _rows(path: str | os.PathLike) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {column: text for column, text in row.items() if column and isinstance(text, str)}
                for row in csv.DictReader(file)
                if row.get("RELPATH")
            ]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []  # the headers are scanned instead, with the same result
