"""What the camera software wrote beside the frames: the config file and the log with one row per frame.

Both come from other people's programs, so nothing in them can end a run: a line that cannot be used is kept
in a list of problems with its number, and everything else is read.
"""

import csv
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import InputError

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?\Z")
# The C runtime of Windows writes 1.#INF, -1.#IND and 1.#QNAN.
_NOT_A_NUMBER = re.compile(r"[+-]?(nan(\(.*\))?|1\.#(ind|qnan|snan)[0-9]*)\Z", re.IGNORECASE)
_INFINITE = re.compile(r"([+-]?)(inf|infinity|1\.#inf[0-9]*)\Z", re.IGNORECASE)
# Config keys that say how a frame is stored come in several spellings (GenICam: PixelFormat).
_LAYOUT_KEYS = {
    "width": "WIDTH",
    "height": "HEIGHT",
    "bitdepth": "BIT_DEPTH",
    "byteorder": "BYTE_ORDER",
    "pixelformat": "PIXEL_FORMAT",
}
_DELIMITERS = ",;\t|"
_INTEGERS = range(-(2**63), 2**63)  # what 64 bits hold: others stay text, which no reader can change
_MOST_DIGITS = 19  # of these; Python refuses to convert thousands


def typed(text, decimal_comma=False):
    """Type of a cell or config value: int, float (also nan, inf), bool (true, false), else the text itself.

    Numbers with leading zeros (serial numbers) and integers too long for 64 bits stay text: nothing of them
    is lost.
    """
    text = text.strip()
    if _INTEGER.match(text):
        short = len(text.lstrip("+-")) <= _MOST_DIGITS
        return int(text) if short and int(text) in _INTEGERS else text
    if decimal_comma and _DECIMAL_COMMA.match(text):
        text = text.replace(",", ".")
    if _FLOAT.match(text):
        # Digits only, but no integer by the rule above: leading zeros.
        return text if text.lstrip("+-").isdigit() else float(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _NOT_A_NUMBER.match(text):
        return math.nan
    if infinite := _INFINITE.match(text):
        return -math.inf if infinite[1] == "-" else math.inf
    return text


def as_number(text, decimal_comma=False):
    """Number in the cell of a column that holds numbers (also '0007', nan, inf), or None."""
    value = typed(re.sub(r"\A([+-]?)0+(?=[0-9])", r"\1", text.strip()), decimal_comma)
    return None if isinstance(value, (str, bool)) else value


def read_text(path):
    """Read a text file of unknown encoding: UTF-8 or UTF-16 by its byte order mark, UTF-8, else Latin-1.

    Raises InputError if the file cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _lines(text):
    """Lines by line feeds and returns only: str.splitlines would also cut at characters inside a cell."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def plain_name(name):
    """Name without blanks, '_' and '-', in lower case: what spellings of one name share."""
    return re.sub(r"[\s_\-]+", "", name).lower()


def _key(name):
    """Key of an entry: upper case, blanks as '_'; for the layout of a frame one key for all spellings."""
    return _LAYOUT_KEYS.get(plain_name(name), re.sub(r"\s+", "_", name).upper())


class Config(dict):
    """Typed entries of a config file by their upper-case key, found in any case.

    WIDTH, HEIGHT, BIT_DEPTH, BYTE_ORDER and PIXEL_FORMAT are found in other spellings too (BitDepth,
    byte-order).
    ``spelling`` : key -> as the file spells it.   ``problems`` : one text for each line that could not be
    used.
    """

    def __init__(self):
        super().__init__()
        self.spelling = {}
        self.problems = []

    def __getitem__(self, key):
        return super().__getitem__(_key(key))

    def __contains__(self, key):
        return isinstance(key, str) and super().__contains__(_key(key))

    def get(self, key, default=None):
        """Value of ``key`` in any case, or ``default``."""
        return super().get(_key(key), default)


def read_config(path):
    """Read ``key=value`` or ``key: value`` lines; ``#`` begins a comment, quotes around a value go.

    Returns a Config. A key that comes again: the last value counts. Raises InputError if the file cannot be
    read.
    """
    config = Config()
    for number, line in enumerate(_lines(read_text(path)), 1):
        line = line.strip().strip("\x00").strip()
        if not line or line.startswith(("#", ";")) or re.fullmatch(r"\[[^\]=:]*\]", line):
            continue
        match = re.match(r"([^=:]*[^=:\s])\s*[=:](.*)\Z", line, re.DOTALL)
        if not match:
            config.problems.append(f"line {number} is not key=value: {shown(line)}")
            continue
        spelling, value = match[1].strip().strip("\"'"), match[2]
        quoted = re.match(r"\s*(\"([^\"]*)\"|'([^']*)')\s*(#.*)?\Z", value, re.DOTALL)
        value = quoted[1][1:-1] if quoted else _uncommented(value)
        key = _key(spelling)
        if not key:
            config.problems.append(f"line {number} is not key=value: {shown(line)}")
            continue
        if key in config and config[key] != value:
            config.problems.append(f"line {number}: {spelling} comes again, {value!r} counts")
        config[key] = value
        config.spelling[key] = spelling
    return config


def _uncommented(text):
    """Value without the comment behind it; a ``#`` within a word (a colour, a name) belongs to the value."""
    value = typed(re.sub(r"\s#.*\Z", "", text, flags=re.DOTALL))
    if isinstance(value, str) and "#" in value:
        number = typed(value.partition("#")[0])
        return value if isinstance(number, str) else number
    return value


@dataclass(slots=True)
class CaptureLog:
    """A log: column names as written, one tuple of texts per row (None where the row could not be used)."""

    path: str
    columns: tuple = ()
    rows: list = field(default_factory=list)
    decimal_comma: bool = False
    problems: list = field(default_factory=list)


def read_log(path):
    """Read a delimited log whose first line names the columns.

    The delimiter is the one of comma, semicolon, tab and bar that fits header and rows best, blanks where
    only they do, and the comma where that cannot be told. With another delimiter than the comma, a comma in
    a number is its decimal point. Rows with fewer cells than columns are filled with empty ones; rows with
    more cells, or without any, cannot be used: they keep their place as None and are listed.
    Returns a CaptureLog. Raises InputError if the file cannot be read.
    """
    log = CaptureLog(str(path))
    lines = enumerate(_lines(read_text(path)), 1)
    lines = [(number, line) for number, line in lines if line.strip(" \t\x00")]
    if lines and lines[0][1].lstrip().startswith("#") and len(lines) > 1 and not _is_comment(lines[1]):
        lines[0] = (lines[0][0], lines[0][1].lstrip(" #\t"))  # numpy.savetxt comments its header out
    lines = [line for line in lines if not _is_comment(line)]
    if not lines:
        log.problems.append("the log is empty")
        return log
    delimiter = _sniff([line for _, line in lines[:50]])
    log.decimal_comma = delimiter != ","
    log.columns = tuple(_cells(lines[0][1], delimiter) or ())
    while log.columns and not log.columns[-1]:
        log.columns = log.columns[:-1]
    width = len(log.columns)
    for number, line in lines[1:]:
        cells = _cells(line, delimiter)
        while cells and len(cells) > width and not cells[-1]:
            cells.pop()
        if cells is None or len(cells) > width or not any(cells):
            log.problems.append(f"line {number} does not fit the {width} columns: {shown(line)}")
            log.rows.append(None)
            continue
        if len(cells) < width:
            log.problems.append(f"line {number} has {len(cells)} of {width} cells: {shown(line)}")
        log.rows.append(tuple(cells) + ("",) * (width - len(cells)))
    return log


def _is_comment(numbered_line):
    return numbered_line[1].lstrip().startswith("#")


def _sniff(lines):
    """Tell the delimiter from the first lines (header first)."""

    def fits(delimiter):
        counts = [len(_cells(line, delimiter) or ()) for line in lines]
        return counts[0] > 1, sum(count == counts[0] for count in counts), counts[0]

    best = max(_DELIMITERS, key=fits)
    if fits(best)[0]:
        return best
    header, agreeing, _ = fits(" ")
    # A single column named in two words is not a table with blanks: all rows must have the header's cells.
    return " " if header and agreeing == len(lines) > 1 else ","


def _cells(line, delimiter):
    """Cells of one line, or None where its quotes cannot be understood."""
    if delimiter == " ":
        return line.split()
    try:
        line = line.replace("\x00", "")
        rows = list(csv.reader([line], delimiter=delimiter, skipinitialspace=delimiter != "\t"))
    except csv.Error:
        return None
    return [cell.strip() for cell in rows[0]] if rows else []


def shown(text, longest=60):
    """A piece of foreign text for a message: one line, no control characters, not too long."""
    text = "".join(letter if letter.isprintable() else " " for letter in text.strip())
    return repr(text if len(text) <= longest else text[: longest - 3] + "...")
