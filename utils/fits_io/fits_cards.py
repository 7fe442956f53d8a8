"""FITS header cards and checksums without astropy: what the product writer needs, at the speed of the disk.

Reference: FITS standard 4.0, sections 4.1 to 4.4 and appendix J (checksums).
"""

import math
import re
import sys

import numpy as np

BLOCK = 2880
CARD = 80
SUM_PIECE = 1 << 17
"""Bytes that are summed at a time: they stay in the cache."""

_KEYWORD = re.compile(r"[A-Z0-9_-]{1,8}\Z")
_CHECKSUM_CARD = "CHECKSUM= '{}'   / HDU checksum"
# Punctuation between the digits and letters of ASCII, which an encoded checksum must not hold.
_EXCLUDED = frozenset(range(0x3A, 0x41)) | frozenset(range(0x5B, 0x61))


def card(keyword, value, comment=""):
    """Write one keyword as one or more 80-character cards.

    keyword : at most 8 of A-Z 0-9 _ -.
    value : bool, int, float, str (also numpy scalars) or None (no value).
    Infinite and NaN floats become the strings 'INF', '-INF', 'NAN' (FITS has no such numbers); strings over
    68 characters go on in CONTINUE cards; characters outside ASCII are written as backslash escapes. A
    comment that does not fit is cut. Raises ValueError for an illegal keyword, TypeError for another type of
    value.
    """
    if not _KEYWORD.match(keyword):
        raise ValueError(f"illegal FITS keyword {keyword!r}: expected 1 to 8 of A-Z, 0-9, _ and -")
    start = f"{keyword:8s}= "
    value = card_value(value)
    comment = _ascii(comment)
    if isinstance(value, str):
        return _string_cards(start, _ascii(value), comment)
    if value is None:
        text = ""
    elif isinstance(value, bool):
        text = f"{'T' if value else 'F':>20s}"
    elif isinstance(value, int):
        text = f"{value:>20d}"
    elif isinstance(value, float):
        text = f"{_float_text(value):>20s}"
    else:
        raise TypeError(f"{keyword}: a {type(value).__name__} cannot be a FITS header value: {value!r}")
    return _with_comment(start + text, comment)


def card_value(value):
    """Value as a card holds it: Python's types for numpy's, 'INF', '-INF' and 'NAN' for what is not finite."""
    if isinstance(value, np.generic):
        # The shortest digits that give the same float32, not its 17-digit double.
        value = float(str(value)) if isinstance(value, np.float32) else value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NAN" if math.isnan(value) else "INF" if value > 0 else "-INF"
    return value


def text_cards(keyword, text):
    """Write ``text`` as COMMENT or HISTORY cards of 72 characters each, broken at spaces where possible."""
    cards = []
    for line in str(text).splitlines() or [""]:
        rest = _ascii(line).rstrip()
        while len(rest) > CARD - 8:
            cut = rest.rfind(" ", 1, CARD - 8 + 1)
            cut = cut if cut > 0 else CARD - 8
            cards.append(f"{keyword:8s}{rest[:cut]}".ljust(CARD))
            rest = rest[cut:].lstrip()
        cards.append(f"{keyword:8s}{rest}".ljust(CARD))
    return "".join(cards)


def _ascii(text):
    """Keep the printable ASCII characters; line breaks and tabs become spaces, others backslash escapes."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", str(text))
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _float_text(value):
    """Shortest text that reads back as the same double, with a point or exponent, as FITS wants it."""
    text = repr(value).upper()
    return text if "." in text or "E" not in text else text.replace("E", ".0E")


def _with_comment(text, comment):
    if comment and len(text) + 4 <= CARD:
        text = f"{text.ljust(30)} / {comment}"
    return text[:CARD].ljust(CARD)


def _string_cards(start, value, comment):
    escaped = value.replace("'", "''")
    if len(escaped) <= CARD - 12:
        return _with_comment(f"{start}'{escaped:8s}'" if escaped else f"{start}''", comment)
    # Long string: pieces that end in '&' (never inside a doubled quote), continued on the next card.
    pieces, piece = [], ""
    for letter in value:
        letter = "''" if letter == "'" else letter
        if len(piece) + len(letter) > CARD - 13:
            pieces.append(piece)
            piece = ""
        piece += letter
    pieces.append(piece)
    cards = [f"{start}'{pieces[0]}&'"] + [f"CONTINUE  '{piece}&'" for piece in pieces[1:-1]]
    cards.append(_with_comment(f"CONTINUE  '{pieces[-1]}'", comment))
    return "".join(line.ljust(CARD) for line in cards)


def datasum(buffer, start=0):
    """Return the FITS data sum of a buffer: one's complement sum of its big-endian 32-bit words.

    buffer : bytes or C-contiguous array as it stands in the file, without the padding (zeros add nothing;
    only the last of several buffers that are summed through ``start`` may have a length not divisible by 4).
    Returns an int below 2**32.
    """
    data = np.frombuffer(buffer, np.uint8) if isinstance(buffer, (bytes, bytearray, memoryview)) else buffer
    data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    whole = len(data) // 4 * 4
    halves = np.empty(min(whole, SUM_PIECE) // 2, np.uint16)
    sums = [int(start), int.from_bytes(data[whole:].tobytes().ljust(4, b"\0"), "big")]
    for first in range(0, whole, SUM_PIECE):
        stored = data[first : min(first + SUM_PIECE, whole)].view(">u2")
        native = halves[: stored.size]
        np.copyto(native, stored)
        sums.append(stored_sum(native))
    return add_sums(sums)


def stored_sum(values):
    """Return the FITS data sum that native values have once they are stored big-endian, without swapping them.

    values : contiguous; only the last of several arrays may hold a number of bytes not divisible by 4.
    """
    values = values.reshape(-1)
    size = values.dtype.itemsize
    if size == 1 or values.nbytes % 4:
        return datasum(values.astype(values.dtype.newbyteorder(">"))) if size > 1 else _sum_of_bytes(values)
    total = int(np.add.reduce(values.view(np.uint32), dtype=np.uint64))
    # Two native halves stand in the wrong order in their word: a rotation by 16 bits, here a multiplication.
    return add_sums([total << 16 if size == 2 and sys.byteorder == "little" else total])


def _sum_of_bytes(values):
    """Data sum of single bytes, four of which are a word."""
    values = values.view(np.uint8)
    whole = values[: values.size // 4 * 4]
    total = int(np.add.reduce(whole.view(">u4"), dtype=np.uint64))
    return add_sums([total, int.from_bytes(values[whole.size :].tobytes().ljust(4, b"\0"), "big")])


def add_sums(sums):
    """Add data sums as one's complement numbers of 32 bits."""
    total = sum(sums)
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encode_checksum(value):
    """Encode a 32-bit sum as the 16 characters of a CHECKSUM card (give the complement of the HDU's sum)."""
    columns = []
    for byte in int(value).to_bytes(4, "big"):
        quotient, remainder = divmod(byte, 4)
        letters = [quotient + 48 + remainder, quotient + 48, quotient + 48, quotient + 48]
        while any(letter in _EXCLUDED for letter in letters):
            for pair in (0, 2):
                if letters[pair] in _EXCLUDED or letters[pair + 1] in _EXCLUDED:
                    letters[pair] += 1
                    letters[pair + 1] -= 1
        columns.append(letters)
    text = "".join(chr(columns[byte][letter]) for letter in range(4) for byte in range(4))
    # The value begins in column 12 of its card: one byte before a word boundary.
    return text[-1] + text[:-1]


def finish_header(cards, data_sum):
    """Add LONGSTRN (where needed), DATASUM, CHECKSUM and END to ``cards`` and return the header's bytes.

    cards : text of 80-character cards.
    data_sum : the data sum of this HDU's data (:func:`datasum`).
    """
    if any(cards.startswith("CONTINUE", first) for first in range(0, len(cards), CARD)):
        cards += card("LONGSTRN", "OGIP 1.0", "long strings go on in CONTINUE cards")
    body = cards + card("DATASUM", str(data_sum), "data unit checksum")
    blank = body + _CHECKSUM_CARD.format("0" * 16).ljust(CARD) + "END".ljust(CARD)
    blank = blank.ljust(-(-len(blank) // BLOCK) * BLOCK)
    total = datasum(blank.encode("ascii"), data_sum)
    start = len(body) + _CHECKSUM_CARD.index("{")
    return (blank[:start] + encode_checksum(~total & 0xFFFFFFFF) + blank[start + 16 :]).encode("ascii")
