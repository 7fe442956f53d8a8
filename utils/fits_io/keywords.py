"""The one dictionary of FITS keywords: what cameras call kind, temperature, exposure, gain and time.

``describe`` turns the cards of a frame (or a row of fits_index.csv) into one set of names and units. A
value that cannot be meant (``'NAN'``, -273.15, a negative exposure) is None, and ``problems`` says why.
"""

import math
import re
from calendar import timegm
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

# In the order in which they are asked; the first usable value counts. SET-TEMP (what the cooler was asked
# for) and FILETEMP (what a folder is called) are missing on purpose: they are not the temperature of the
# sensor.
ALIASES: dict[str, tuple[str, ...]] = {
    "caltype": ("CALTYPE", "IMAGETYP", "IMAGTYP", "OBSTYPE", "FRAME"),
    "temperature": (  # degC
        "TEMP",
        "CCD-TEMP",
        "CCDTEMP",
        "CCD_TEMP",
        "TEMPERAT",
        "TEMPERATURE",
        "DET-TEMP",
        "DETTEMP",
        "DET_TEMP",
        "CCDTEMPERATURE",
        "CHIPTEMP",
        "SENSTEMP",
        "CAMTEMP",
    ),
    "exposure": ("EXPTIME", "EXPOSURE", "EXP_TIME", "EXP-TIME", "XPOSURE", "REXPTIME"),  # s
    "gain": ("GAIN", "GAINSET", "EXPGAIN"),  # the camera's setting
    "egain": ("EGAIN", "E-GAIN", "E_GAIN"),  # e-/ADU
    "filter": ("FILTER", "FILTER1", "FILTNAM", "FILTNAME", "FILTERID", "INSFLNAM"),
    "xbinning": ("XBINNING", "CCDXBIN", "XBIN", "BINX", "BIN_X"),
    "ybinning": ("YBINNING", "CCDYBIN", "YBIN", "BINY", "BIN_Y"),
    "binning": ("BINNING", "CCDSUM", "BINMODE"),  # '2 2', '2x2' or 2
    "camera": ("INSTRUME", "CAMERA", "CAMNAME", "CAMMODEL", "DETECTOR", "DETNAM"),
    "unix_time": ("TIMESTMP", "TIMESTAMP"),  # s since 1970-01-01 UTC, or a date
    "date": ("DATE-OBS", "DATE_OBS", "DATEOBS", "DATE-BEG"),  # UTC
    "time_of_day": ("TIME-OBS", "TIME_OBS", "UTC-OBS", "UT", "UTC", "UTSTART", "TIME-BEG"),
    "mjd": ("MJD-OBS", "MJD_OBS", "MJD-BEG", "MJD"),
    "jd": ("JD", "JD-OBS", "JD_UTC"),
    "badsize": ("BADSIZE",),
    "saturate": ("SATURATE", "SATLEVEL", "SATURAT"),  # stored ADU; not DATAMAX, which is the largest sample
    "bit_depth": ("BITDEPTH", "BIT_DEPTH", "BIT-DEPTH", "ADCBITS", "BITDEPT"),
    "frame_number": ("FRAMENUM", "FRAMENO", "FRAME_NO", "FRAME-NO", "FRAMEID", "FRAME"),
    "full_width": ("ORIGNX",),
    "full_height": ("ORIGNY",),
    "prodtype": ("PRODTYPE",),
    "datasum": ("DATASUM",),
}

NO_FILTER = "NONE"
TEMPERATURE_SENTINELS = (-273.15, -273.0, -999.0, -9999.0, 999.0, 999.9, 9999.0)
TEMPERATURE_RANGE = (-200.0, 100.0)  # degC; beyond it a card says something else, perhaps kelvin
UNIX_RANGE = (946684800.0, 4102444800.0)  # 2000 to 2100: smaller numbers are a camera's own clock
MJD_RANGE = (40587.0, 88069.0)  # 1970 to 2100
JD_MINUS_MJD = 2400000.5
MJD_1970 = 40587
DAY = 86400.0


# --- kind -----------------------------------------------------------------------------------------

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PATH_KIND = re.compile(
    r"(?:master|super|sky|dome|lab|twilight|twi|lamp|led|screen|satellite|raw|auto)?"
    r"(?:(?P<bias>bias|biases)|(?P<dark>darks?|darkflats?|flatdarks?|darkcurrent)|(?P<flat>flats?))"
    r"(?:frames?|fields?|images?|imgs?|lib|library|sets?|cal)?$"
)
_EXTENSION = re.compile(r"\.(?:fits?|fts)(?:\.gz|\.fz)?$|\.fz$", re.IGNORECASE)
_HEADER_KINDS = (  # the first that is found; a dark flat is a dark, a twilight flat no light frame
    ("dark", re.compile(r"dark")),
    ("flat", re.compile(r"flat|twilight")),
    ("bias", re.compile(r"bias|^zero|^offset")),
    ("light", re.compile(r"light|object|science|target|standard|^sci$|^obs$|^expose|acqui|^sky$")),
)


def kind_of_header_text(text: Any) -> str | None:
    """'bias', 'dark', 'flat' or 'light' for the text of a kind card ('zero', 'Dark Flat'), else None."""
    if not isinstance(text, str):
        return None
    text = text.strip().lower()
    return next((kind for kind, pattern in _HEADER_KINDS if pattern.search(text)), None)


def kind_of_name(name: str) -> str | None:
    """Kind that a file or folder name tells by a word of its own, else None.

    Words end at a capital letter, a digit or a sign: 'Bias-0001.fit' and 'DarkFrames' have one, 'biased' and
    'inflation' have none. Flat beside dark is a dark for flats; other mixtures ('bias_and_darks') tell
    nothing.
    """
    kinds = set()
    for word in _WORDS.findall(_EXTENSION.sub("", name)):
        match = _PATH_KIND.match(word.lower())
        if match:
            kinds.add(match.lastgroup)
        elif word.lower() in ("light", "lights"):
            kinds.add("light")
    if kinds == {"dark", "flat"}:
        return "dark"
    return kinds.pop() if len(kinds) == 1 else None


def is_kind_alone(name: str) -> bool:
    """Whether a name says a kind and nothing else ('Flats', 'BIAS', 'darks_2'; not 'flat_campaign')."""
    return len(_WORDS.findall(name)) == 1 and kind_of_name(name) is not None


def kind_of_path(path: str | PurePath) -> tuple[str | None, str]:
    """(kind, where it was found): the file's name, then its folders from the inner to the outer."""
    parts = PurePath(path).parts
    for depth, part in enumerate(reversed(parts)):
        kind = kind_of_name(part)
        if kind is not None:
            return kind, "file name" if depth == 0 else f"folder {part}"
    return None, ""


def _kind(cards: Mapping[str, Any], path: str | PurePath) -> tuple[str | None, str, bool]:
    """(kind, where from, whether a card calls it a master of other software)."""
    for keyword in ALIASES["caltype"]:
        text = cards.get(keyword)
        kind = kind_of_header_text(text)
        if kind is None:
            continue
        if kind == "light":
            named, where = kind_of_path(path)
            if named == "flat":
                return named, where, False
        return kind, keyword, "master" in text.lower()
    return *kind_of_path(path), False


# --- light frames -------------------------------------------------------------------------------

MODES = ("vis", "uv")
LONGEST_UV_EXPOSURE = 1.5  # s: a light frame that neither its name nor its filter tells is uv up to here
_MODE_WORDS = {
    "uv": re.compile(r"[nf]?uv"),
    "vis": re.compile(r"vis|visible|visual"),
}
_MODE_FILTERS = {
    "uv": re.compile(r"[nf]?uv\w*|u'?"),
    "vis": re.compile(r"vis\w*|[bvrigzylc]'?|red|green|blue|clear|lum(?:inance)?"),
}
_NO_FIELD = re.compile(r"(?:vis|visible|uv|fits?|frames?|lights?|raw|attempt\W?\d*)$", re.IGNORECASE)


def mode_of(path: str | PurePath, filter_name: str, exposure: float) -> str:
    """'vis' or 'uv': by a word of the name or of the nearest folder, else by FILTER, else by EXPTIME."""
    for part in reversed(PurePath(path).parts):
        words = [word.lower() for word in _WORDS.findall(_EXTENSION.sub("", part))]
        modes = {mode for mode, pattern in _MODE_WORDS.items() if any(map(pattern.fullmatch, words))}
        if len(modes) == 1:
            return modes.pop()
    for mode, pattern in _MODE_FILTERS.items():
        if pattern.fullmatch(filter_name.lower()):
            return mode
    return "uv" if exposure <= LONGEST_UV_EXPOSURE else "vis"


def field_of(path: str | PurePath) -> str | None:
    """Innermost folder that is not called after a mode, a format or an attempt; None without one."""
    folders = PurePath(path).parts[:-1]
    return next((name for name in reversed(folders) if not _NO_FIELD.match(name)), None)


# --- numbers --------------------------------------------------------------------------------------


def _present(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and value.strip() == "")


def as_number(value: Any) -> float | None:
    """A finite float from a card's value (number, or text that spells one), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


class _Reader:
    """Values of one frame by field, with the reason for each that could not be used."""

    def __init__(self, cards: Mapping[str, Any]):
        self.cards = cards
        self.problems: dict[str, str] = {}

    def text(self, field: str) -> str | None:
        for keyword in ALIASES[field]:
            value = self.cards.get(keyword)
            if _present(value):
                return str(value).strip()
        return None

    def number(self, field: str, refuse=None) -> float | None:
        """First usable number; refuse(value) -> reason or None."""
        for keyword in ALIASES[field]:
            value = self.cards.get(keyword)
            if not _present(value):
                continue
            number = as_number(value)
            reason = "not a number" if number is None else refuse(number) if refuse else None
            if reason is None:
                self.problems.pop(field, None)
                return number
            self.problems.setdefault(field, f"{keyword} = {value} is {reason}")
        return None

    def whole(self, field: str) -> int | None:
        number = self.number(field, lambda value: None if value == int(value) else "not a whole number")
        return None if number is None else int(number)


def _refuse_temperature(value: float) -> str | None:
    if any(abs(value - sentinel) < 1e-6 for sentinel in TEMPERATURE_SENTINELS):
        return "a mark for no temperature"
    low, high = TEMPERATURE_RANGE
    if not low <= value <= high:
        return f"outside {low:g} to {high:g} degC" + (" (kelvin?)" if high < value < 400 else "")
    return None


def _refuse_negative(value: float) -> str | None:
    return "negative" if value < 0 else None


def _refuse_not_positive(value: float) -> str | None:
    return "not positive" if value <= 0 else None


def _binning(read: _Reader) -> str:
    x, y = read.whole("xbinning"), read.whole("ybinning")
    if x is None and y is None:
        found = re.findall(r"\d+", read.text("binning") or "")
        x, y = (int(found[0]), int(found[-1])) if found else (1, 1)
    x, y = x or y or 1, y or x or 1
    return f"{x}x{y}"


# --- time -----------------------------------------------------------------------------------------

_DATE = re.compile(r"(?:(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})|(\d{1,2})/(\d{1,2})/(\d{2}))(?!\d)")
_TIME = re.compile(
    r"(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?\s*(Z|UTC?|[+-]\d{2}:?\d{2})?$", re.IGNORECASE
)


def _time_of_day(text: str) -> float | None:
    """Seconds since midnight UTC of 'hh:mm:ss.s', with an offset such as +02:00 taken off."""
    match = _TIME.match(text)
    if match is None:
        return None
    hours, minutes, seconds = int(match[1]), int(match[2]), float(match[3] or 0)
    if hours > 24 or minutes > 59 or seconds >= 61:
        return None
    zone = match[4] or ""
    ahead = 0
    if zone[:1] in ("+", "-"):
        ahead = int(zone[0] + "1") * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return hours * 3600 + minutes * 60 + seconds - ahead


def parse_date(text: str, time_text: str | None = None) -> tuple[float, bool] | None:
    """(Unix UTC seconds, whether a time of day was told) of a FITS date as cameras spell it.

    '2022-10-14T21:28:28.89', '2021-09-17 T10:17:09', '2019/05/01', the '31/12/98' of before 1999. The time
    of day comes from time_text where the date has none. None where the text is not a date.
    """
    match = _DATE.match(text.strip())
    if match is None:
        return None
    if match[1]:
        year, month, day = int(match[1]), int(match[2]), int(match[3])
    else:
        year, month, day = 1900 + int(match[6]), int(match[5]), int(match[4])
    try:
        midnight = float(timegm(datetime(year, month, day, tzinfo=UTC).timetuple()))
    except ValueError:
        return None
    rest = text.strip()[match.end() :].strip().lstrip("Tt_,; ")
    seconds = _time_of_day(rest)
    if rest and seconds is None:
        return None
    if seconds is None and time_text is not None:
        seconds = _time_of_day(time_text.strip())
    return midnight + (seconds or 0.0), seconds is not None


def _timestamp(read: _Reader) -> tuple[float | None, str | None]:
    """(Unix UTC seconds, keyword): a Unix time, a date with a time, MJD, JD, at last a date alone."""
    cards = read.cards
    for keyword in ALIASES["unix_time"]:
        value = cards.get(keyword)
        number = as_number(value)
        if number is not None and UNIX_RANGE[0] <= number <= UNIX_RANGE[1]:
            return number, keyword
        parsed = parse_date(value) if isinstance(value, str) else None
        if parsed is not None and parsed[1]:
            return parsed[0], keyword
    day_only: tuple[float | None, str | None] = (None, None)
    time_text = read.text("time_of_day")
    for keyword in ALIASES["date"]:
        value = cards.get(keyword)
        parsed = parse_date(value, time_text) if isinstance(value, str) else None
        if parsed is None:
            continue
        if parsed[1]:
            return parsed[0], keyword
        if day_only[0] is None:
            day_only = parsed[0], keyword
    for field, zero in (("mjd", 0.0), ("jd", JD_MINUS_MJD)):
        for keyword in ALIASES[field]:
            number = as_number(cards.get(keyword))
            if number is not None and MJD_RANGE[0] <= number - zero <= MJD_RANGE[1]:
                return (number - zero - MJD_1970) * DAY, keyword
    return day_only


# --- all together ---------------------------------------------------------------------------------


def describe(cards: Mapping[str, Any], path: str | PurePath = "") -> dict[str, Any]:
    """What a frame is, in one set of names and units, from its cards and its path below the base folder.

    Parameters
    ----------
    cards : mapping keyword -> value, from header_scan or from a row of fits_index.csv.
    path : only this part of the path may tell the kind: hand over the part below the base folder.

    Returns
    -------
    dict with caltype ('bias', 'dark', 'flat', 'light' or None), kind_source (keyword, 'file name' or
    'folder X'), foreign_master (True: a card calls the frame a master), temperature [degC], exposure [s],
    filter ('NONE' where it is not told), gain (camera setting), egain [e-/ADU], timestamp [Unix s, UTC],
    time_source (its keyword), binning ('1x1'), camera, badsize, saturate [stored ADU], bit_depth, prodtype,
    frame_number, full_shape (rows and columns of the frame that this one was cut from) and datasum; None
    where the cards do not tell. ``problems`` holds field -> reason for values that are there and cannot be
    used.
    """
    read = _Reader(cards)
    caltype, kind_source, master = _kind(cards, path)
    timestamp, time_source = _timestamp(read)
    width, height = read.whole("full_width"), read.whole("full_height")
    return {
        "caltype": caltype,
        "kind_source": kind_source,
        "foreign_master": master,
        "temperature": read.number("temperature", _refuse_temperature),
        "exposure": read.number("exposure", _refuse_negative),
        "filter": read.text("filter") or NO_FILTER,
        "gain": read.number("gain"),
        "egain": read.number("egain", _refuse_not_positive),
        "timestamp": timestamp,
        "time_source": time_source,
        "binning": _binning(read),
        "camera": read.text("camera") or "",
        "badsize": str(cards.get("BADSIZE")).strip().upper() in ("TRUE", "T", "1"),
        "saturate": read.number("saturate", _refuse_not_positive),
        "bit_depth": read.whole("bit_depth"),
        "prodtype": read.text("prodtype"),
        "frame_number": read.whole("frame_number"),
        "full_shape": (height, width) if width and height else None,
        "datasum": read.text("datasum"),
        "problems": read.problems,
    }
