"""What a file holds, in one short text: to see later that it still stands as it was written.

Of a FITS file the headers are read, and not the data: their DATASUM cards stand for them.  The date of writing
does not count, so that a product made again from the same has the same digest.
"""

import hashlib
import math
import re
from pathlib import Path

import numpy as np

from utils.fits_io.fits_cards import BLOCK, add_sums, datasum

PIECE = 1 << 22
MOST_BLOCKS = 2000
"""Blocks of a header that is one of ours."""
_NOT_CONTENT = re.compile(r"(DATE    |CHECKSUM)=")
_SIZE = re.compile(r"(BITPIX|NAXIS\d*|PCOUNT|GCOUNT|DATASUM) *= *'?([-+\d]+)")


def digest(path):
    """Return the digest of a file (hexadecimal).  Raises OSError, and ValueError for a FITS file that is damaged."""
    return _digest(path, check=False)


def stands(path, expected):
    """Whether a file is whole and holds what the digest says; the data of FITS files are summed for that."""
    try:
        return _digest(path, check=True) == expected
    except (OSError, ValueError):
        return False


def _digest(path, *, check):
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        if Path(path).suffix != ".fits":
            while piece := stream.read(PIECE):
                found.update(piece)
            return found.hexdigest()
        size = stream.seek(0, 2)
        stream.seek(0)
        while stream.tell() < size:
            cards = _header(stream)
            found.update("".join(card for card in cards if not _NOT_CONTENT.match(card)).encode("latin-1"))
            numbers = {match[1]: int(match[2]) for match in map(_SIZE.match, cards) if match}
            axes = [numbers[f"NAXIS{n}"] for n in range(1, numbers.get("NAXIS", 0) + 1)]
            pixels = math.prod(axes) + numbers.get("PCOUNT", 0) if axes else 0
            length = (
                -(-abs(numbers.get("BITPIX", 8)) // 8 * pixels * numbers.get("GCOUNT", 1) // BLOCK) * BLOCK
            )
            if stream.tell() + length > size:
                raise ValueError(f"{path}: shorter than its header says")
            if not check:
                stream.seek(length, 1)
            elif _sum(stream, length) % 0xFFFFFFFF != numbers.get("DATASUM", 0) % 0xFFFFFFFF:
                raise ValueError(f"{path}: the data are not those of their DATASUM")
    return found.hexdigest()


def _header(stream):
    """Cards of the header that begins here."""
    cards = []
    for _ in range(MOST_BLOCKS):
        block = stream.read(BLOCK).decode("latin-1")
        if len(block) < BLOCK:
            break
        cards += [block[start : start + 80] for start in range(0, BLOCK, 80)]
        if any(card.rstrip() == "END" for card in cards[-36:]):
            return cards
    raise ValueError("no END card")


def _sum(stream, length):
    piece, sums = np.empty(min(length, PIECE), np.uint8), []
    while length > 0:
        view = memoryview(piece)[: min(length, PIECE)]
        filled = 0
        while filled < len(view) and (got := stream.readinto(view[filled:])):
            filled += got
        if filled < len(view):
            raise ValueError("data end early")
        sums.append(datasum(piece[:filled]))
        length -= filled
    return add_sums(sums) if sums else 0
