"""Headers of many FITS files, read fast: one read of the first blocks per file, the cards parsed here.

astropy builds header-data units, card objects and a parser state for each file; a scan of 10,000 frames
needs only the values. Values are typed as astropy types them (tests/test_header_scan.py compares every
card); commentary cards are left out, a card without value is None, and the first of two equal keywords
counts, as in astropy.
"""

import gzip
import math
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, BinaryIO

from utils.errors import InputError
from utils.fits_io import cluster

BLOCK = 2880
CARD = 80
FIRST_READ = 4 * BLOCK  # holds 144 cards: nearly every camera header comes with one read
LONGEST_HEADER = 512 * BLOCK
MOST_HDUS = 1000
BITPIX_ALLOWED = (8, 16, 32, 64, -32, -64)

BATCH = 64
SENT_BYTES = 64 << 10  # of a file, so that a batch for a cluster has 1024 at most
SLOW_FILE = 0.2e-3  # s per file: a warm one takes a third of it, so beyond it we wait for the disk
THREADS_WHEN_SLOW = 16
MEMO_SIZE = 50_000

# What describes the data unit of the primary HDU says nothing of an image in an extension.
_PRIMARY_ONLY = re.compile(r"(SIMPLE|EXTEND|BITPIX|NAXIS\d*|BZERO|BSCALE|BLANK|CHECKSUM|DATASUM)$")
# What describes the table that holds a tile-compressed image says nothing of the image.
_TABLE_ONLY = re.compile(
    r"(XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TFIELDS|THEAP|CHECKSUM|DATASUM|T(TYPE|FORM|UNIT|DIM|NULL|SCAL|ZERO)\d+)$"
)
_Z_ONLY = re.compile(
    r"(ZIMAGE|ZTENSION|ZSIMPLE|ZEXTEND|ZPCOUNT|ZGCOUNT|ZTILE\d+|ZCMPTYPE|ZQUANTIZ|ZDITHER0|ZMASKCMP|ZBLOCKED|Z(NAME|VAL)\d+)$"
)
_Z_RENAMED = {"ZBITPIX": "BITPIX", "ZNAXIS": "NAXIS", "ZHECKSUM": "CHECKSUM", "ZDATASUM": "DATASUM"}

_STRING = re.compile(r"'((?:[^']|'')*)'")
_NUMBER = re.compile(r"([+-]?) *((?:\.\d+|\d+(?:\.\d*)?) *(?:[deDE] *[+-]? *\d+)?)$")
_COMPLEX = re.compile(r"\( *([^,()]*?) *, *([^,()]*?) *\)")


class UnusableFits(InputError):
    """A file without a usable two-dimensional image; ``prodtype`` is its PRODTYPE card, where it has one.

    ``lasting`` is False where the disk or the permissions failed and not the content.
    """

    prodtype: str | None = None
    lasting = True


@dataclass(frozen=True, slots=True)
class FitsImage:
    """What is needed to read the image of a FITS file without opening it again for its header.

    shape : (ny, nx).   offset : first data byte, -1 where the data cannot be read in place (compressed).
    size : bytes of the file; mtime_ns : its time of change.   cards : keyword -> value (None: card without
    value).
    """

    path: str
    shape: tuple[int, int]
    bitpix: int
    bzero: float
    bscale: float
    blank: int | None
    offset: int
    compressed: bool
    size: int
    mtime_ns: int
    cards: dict[str, Any]


def parse_number(text: str) -> int | float | None:
    """Number as FITS spells it (1D5, + 3., .5E-3); None where the text is none."""
    match = _NUMBER.match(text)
    if match is None:
        return None
    digits = match[1] + match[2].replace(" ", "").replace("d", "E").replace("D", "E")
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _value(body: str) -> Any:
    """Value of the part of a card behind its ``=``; text that FITS does not allow there stays a string."""
    body = body.strip()
    if body.startswith("'"):
        match = _STRING.match(body)
        text = match[1].replace("''", "'") if match else body[1:]
        return text.rstrip()
    text = body.split("/", 1)[0].rstrip()
    if text == "":
        return None
    if text in ("T", "F"):
        return text == "T"
    number = parse_number(text)
    if number is not None:
        return number
    match = _COMPLEX.match(text)
    if match:
        real, imaginary = parse_number(match[1]), parse_number(match[2])
        if real is not None and imaginary is not None:
            return complex(real, imaginary)
    return text


def _parse_card(card: bytes) -> tuple[str, Any] | None:
    """(keyword, value), or None for a commentary card."""
    text = card.decode("latin-1")
    if text[8] == "=":
        keyword, body = text[:8], text[9:]
    elif text.startswith("HIERARCH ") and "=" in text:
        keyword, body = text[9:].split("=", 1)
    elif text.startswith("CONTINUE"):
        keyword, body = "CONTINUE", text[8:]
    elif 0 < text.find("= ") < 8:  # a short keyword without the blanks behind it
        keyword, body = text.split("= ", 1)
    else:
        return None
    keyword = keyword.strip().upper()
    if keyword in ("", "COMMENT", "HISTORY"):
        return None
    return keyword, _value(body)


_memo: dict[bytes, tuple[str, Any] | None] = {}


def parse_cards(block: bytes) -> dict[str, Any]:
    """Keyword -> value of the 80-character cards in block (without END), CONTINUE cards joined."""
    # Most cards of a campaign are the same in each frame: a parsed card is remembered by its bytes.
    if len(_memo) > MEMO_SIZE:
        _memo.clear()
    cards: dict[str, Any] = {}
    last = ""
    for start in range(0, len(block) - CARD + 1, CARD):
        card = block[start : start + CARD]
        try:
            parsed = _memo[card]
        except KeyError:
            parsed = _memo[card] = _parse_card(card)
        if parsed is None:
            last = ""
            continue
        keyword, value = parsed
        if keyword == "CONTINUE":
            before = cards.get(last)
            if isinstance(before, str) and before.endswith("&") and isinstance(value, str):
                cards[last] = before[:-1] + value
        elif keyword in cards:
            last = ""
        else:
            cards[keyword] = value
            last = keyword
    return cards


def _find_end(block: bytes) -> int:
    """Start of the END card, -1 where there is none."""
    position = block.find(b"END     ")
    while position >= 0 and position % CARD:
        position = block.find(b"END     ", position + 1)
    return position


def _read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    parts = []
    while count > 0:
        part = file.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _read_header(file: BinaryIO, path: str, offset: int, block: bytes) -> tuple[dict[str, Any], int]:
    """Cards of the header at offset, and the first byte behind it; block holds the bytes read already."""
    end = _find_end(block)
    while end < 0:
        more = _read_at(file, offset + len(block), max(len(block), FIRST_READ))
        if not more or len(block) > LONGEST_HEADER:
            raise UnusableFits(f"{path}: header at byte {offset} has no END card in {len(block)} bytes")
        block += more
        end = _find_end(block)
    return parse_cards(block[:end]), offset + -(-(end + CARD) // BLOCK) * BLOCK


def _integer(cards: Mapping[str, Any], keyword: str, path: str, default: int | None = None) -> int:
    value = cards.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UnusableFits(f"{path}: {keyword} = {value!r}, expected a whole number of at least 0")
    return value


def _real(cards: Mapping[str, Any], keyword: str, path: str, default: float) -> float:
    value = cards.get(keyword)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UnusableFits(f"{path}: {keyword} = {value!r}, expected a finite number")
    return float(value)


def _axes(cards: Mapping[str, Any], path: str, letter: str = "") -> tuple[int, ...]:
    """(NAXIS1, NAXIS2, ...), or the ZNAXISn of a compressed image with letter = "Z"."""
    count = _integer(cards, f"{letter}NAXIS", path)
    return tuple(_integer(cards, f"{letter}NAXIS{n + 1}", path) for n in range(min(count, 999)))


def _bitpix(cards: Mapping[str, Any], path: str, keyword: str = "BITPIX") -> int:
    value = cards.get(keyword)
    if value not in BITPIX_ALLOWED or isinstance(value, bool):
        raise UnusableFits(f"{path}: {keyword} = {value!r}, expected one of {BITPIX_ALLOWED}")
    return value


def _image_cards(cards: dict[str, Any], primary: Mapping[str, Any], compressed: bool) -> dict[str, Any]:
    """Cards of an image in an extension; the primary header, where exposures stand, fills the gaps."""
    if compressed:
        image = {
            key: value for key, value in cards.items() if not (_TABLE_ONLY.match(key) or _Z_ONLY.match(key))
        }
        for key in [key for key in image if key in _Z_RENAMED or re.match(r"ZNAXIS\d+$", key)]:
            image[_Z_RENAMED.get(key, key[1:])] = image.pop(key)
    else:
        image = cards
    return {**{key: value for key, value in primary.items() if not _PRIMARY_ONLY.match(key)}, **image}


def _stored_bytes(cards: Mapping[str, Any], axes: Sequence[int], bitpix: int, path: str) -> int:
    """Bytes of the data unit, without the padding."""
    if not axes:
        return 0
    elements = math.prod(axes) + _integer(cards, "PCOUNT", path, 0)
    return abs(bitpix) // 8 * _integer(cards, "GCOUNT", path, 1) * elements


def _two_dimensional(axes: tuple[int, ...], path: str) -> tuple[int, int]:
    while len(axes) > 2 and axes[-1] == 1:
        axes = axes[:-1]
    if len(axes) != 2:
        raise UnusableFits(
            f"{path}: not two-dimensional, the image has the axes {' x '.join(map(str, axes))}"
        )
    return axes[1], axes[0]


def _scan_file(file: BinaryIO, path: str, block: bytes, stat: os.stat_result, gzipped: bool) -> FitsImage:
    """Find the first image of an open file; block holds its first (unpacked) bytes."""
    if not block:
        raise UnusableFits(f"{path}: empty file, expected FITS")
    if not block.startswith(b"SIMPLE  ="):
        raise UnusableFits(f"{path}: not a FITS file, it starts with {block[:9]!r}, expected b'SIMPLE  ='")
    offset, primary = 0, {}
    for number in range(MOST_HDUS):
        cards, data = _read_header(file, path, offset, block)
        if number == 0:
            primary = cards
            if cards.get("SIMPLE") is not True:
                raise UnusableFits(f"{path}: SIMPLE = {cards.get('SIMPLE')!r}, expected T")
        try:
            axes, bitpix = _axes(cards, path), _bitpix(cards, path)
            table = cards.get("XTENSION") == "BINTABLE" and cards.get("ZIMAGE") is True
            image = number == 0 or cards.get("XTENSION") == "IMAGE" or table
            stored = _stored_bytes(cards, axes, bitpix, path)
            if image and stored > 0:
                shape = _two_dimensional(_axes(cards, path, "Z") if table else axes, path)
                length = _unpacked_length(path, stat.st_size, data + stored) if gzipped else stat.st_size
                if length < data + stored:
                    raise UnusableFits(
                        f"{path}: truncated, {max(length - data, 0)} bytes of data,"
                        f" expected {stored} for {shape[0]} rows of {shape[1]} pixels"
                    )
                merged = _image_cards(cards, primary if number else {}, table)
                blank = cards.get("ZBLANK" if table and "BLANK" not in cards else "BLANK")
                return FitsImage(
                    path=path,
                    shape=shape,
                    bitpix=_bitpix(cards, path, "ZBITPIX") if table else bitpix,
                    bzero=_real(cards, "BZERO", path, 0.0),
                    bscale=_real(cards, "BSCALE", path, 1.0),
                    blank=blank if isinstance(blank, int) and not isinstance(blank, bool) else None,
                    offset=-1 if table or gzipped else data,
                    compressed=table or gzipped,
                    size=stat.st_size,
                    mtime_ns=stat.st_mtime_ns,
                    cards=merged,
                )
        except UnusableFits as error:
            prodtype = cards.get("PRODTYPE", primary.get("PRODTYPE"))
            error.prodtype = prodtype if isinstance(prodtype, str) else None
            raise
        offset = data + -(-stored // BLOCK) * BLOCK
        block = _read_at(file, offset, FIRST_READ)
        if not block.startswith(b"XTENSION="):
            break
    raise UnusableFits(f"{path}: no image in the file")


def _unpacked_length(path: str, size: int, expected: int) -> int:
    """Bytes that a gzip file holds: its last four bytes tell, where they do not fit it is read to its end."""
    with open(path, "rb") as raw:
        raw.seek(max(size - 4, 0))
        told = int.from_bytes(raw.read(4), "little")
    if told >= expected and told % BLOCK == 0:
        return told
    count = 0
    with gzip.open(path) as file:
        try:
            while part := file.read(1 << 20):
                count += len(part)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return count
    return count


def scan_header(path: str | os.PathLike) -> FitsImage:
    """Header of the first image of a FITS file: plain, gzipped or tile-compressed, told by its content.

    The primary HDU counts where it holds an image, else the first image extension, whose cards the cards of
    the primary header complete. Trailing axes of length 1 are dropped. Raises InputError, one line, for a
    file that is not FITS, cannot be read, has a truncated or damaged header, no image, an image that is not
    two-dimensional, or fewer bytes of data than its header says.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb", buffering=0) as file:
            stat = os.fstat(file.fileno())
            block = file.read(FIRST_READ)
            if block.startswith(b"\x1f\x8b"):
                file.seek(0)
                with gzip.GzipFile(fileobj=file) as unpacked:
                    block = unpacked.read(FIRST_READ)
                    return _scan_file(unpacked, path, block, stat, gzipped=True)
            return _scan_file(file, path, block, stat, gzipped=False)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnusableFits(f"{path}: damaged gzip file ({error})") from error
    except OSError as error:
        failed = UnusableFits(f"{path}: cannot be read ({error.strerror or error})")
        failed.lasting = False
        raise failed from error


def _scan_or_error(path: str | os.PathLike) -> FitsImage | InputError:
    try:
        return scan_header(path)
    except InputError as error:
        return error.with_traceback(None)


def _scan_batches(paths: Sequence[str | os.PathLike], jobs: int | None) -> Iterator[FitsImage | InputError]:
    """Scan in order. Parsing holds the interpreter lock, so threads pay only while the disk makes us wait."""
    threads = 1 if jobs is None else jobs
    with ThreadPoolExecutor(max(threads, THREADS_WHEN_SLOW if jobs is None else 1)) as pool:
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            began = time.perf_counter()
            yield from map(_scan_or_error, batch) if threads == 1 else pool.map(_scan_or_error, batch)
            if jobs is None and time.perf_counter() - began > SLOW_FILE * len(batch):
                threads = THREADS_WHEN_SLOW


def _scan_all(paths: Sequence[str]) -> list[FitsImage | InputError]:
    return list(_scan_batches(paths, None))


def scan_headers(
    paths: Iterable[str | os.PathLike],
    jobs: int | None = None,
    progress: Callable[[Iterable, int, str], Iterable] | None = None,
) -> list[FitsImage | InputError]:
    """scan_header of each path, in order; an unusable file gives its InputError in its place.

    jobs : number of threads; None: one, and 16 from the first files on that come slowly (cold disk, network).
    progress : called as progress(results, number of files, "headers"), gives the results back one by one.
    """
    paths = list(paths)
    if cluster.connected() and paths:
        sent = [os.path.abspath(path) for path in paths]
        done = cluster.in_batches(_scan_all, (), sent, SENT_BYTES, what="headers", witness=sent[0])
        return [found for _, found in sorted(done, key=itemgetter(0))]
    results: Iterable[FitsImage | InputError] = _scan_batches(paths, jobs)
    if progress is not None:
        results = progress(results, len(paths), "headers")
    return list(results)
