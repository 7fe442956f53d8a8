"""From config entries, a log row and a file name to the header cards of one converted frame.

The meaning of the camera's columns is told here once (``_COLUMNS``). Every other entry gets a keyword of its
own, and never one that a reader would take for a measured temperature, exposure, time or kind.
"""

import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from utils.fits_io.capture_log import as_number, plain_name, shown, typed
from utils.fits_io.fits_cards import CARD, card
from utils.fits_io.keywords import ALIASES
from utils.version import __version__

# Normalised column name (lower case, no blanks, '_' or '-') -> keyword. Earlier names win where two claim
# one keyword.
_COLUMNS = {
    "framenum": "FRAMENUM",
    "timestamp": "TIMESTMP",
    "exptime": "EXPTIME",
    "realexptime": "REXPTIME",
    "expgain": "GAIN",
    "temperature": "TEMP",
    "ccdtemp": "TEMP",
    "ccdtemperature": "TEMP",
    "chiptemp": "TEMP",
    "initialtemp": "TEMP_0",
    "exttemperature": "EQTEMP",
    "deltatemperature": "DELTMP",
    "powercons": "POWCONS",
}
_COMMENTS = {
    "FRAMENUM": "number of the frame in its attempt",
    "TIMESTMP": "time stamp of the camera log",
    "EXPTIME": "[s] exposure time asked for",
    "REXPTIME": "[s] exposure time the camera reports",
    "GAIN": "gain setting of the camera",
    "TEMP": "[degC] temperature of the sensor",
    "TEMP_0": "[degC] temperature at the start",
    "EQTEMP": "[degC] temperature of the equipment",
    "DELTMP": "[K] temperature difference",
    "POWCONS": "power consumption",
}
_NUMERIC = {"FRAMENUM", "EXPTIME", "REXPTIME", "GAIN", "TEMP", "TEMP_0", "EQTEMP"}
# Units of a time in brackets behind the column name (both micro signs): parts of a second.
_SECONDS = {"ns": 1e9, "us": 1e6, "µs": 1e6, "μs": 1e6, "ms": 1e3, "s": 1.0, "sec": 1.0}
# Own spellings of entries whose first 8 characters would say less.
_SHORT = {"bitdepth": "BITDEPTH", "pixelformat": "PIXFMT", "byteorder": "BYTEORDR", "instrument": "INSTRUME"}

# Keywords of the FITS standard with a meaning or type of their own, and of this converter.
_STANDARD = re.compile(
    r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|END|BLOCKED|BZERO|BSCALE|BLANK|BUNIT|DATAM(AX|IN)|XTENSION|PCOUNT|GCOUNT|GROUPS"
    r"|P(TYPE|SCAL|ZERO)\d+|T(FORM|TYPE|UNIT|SCAL|ZERO|NULL|DISP|DIM|BCOL|HEAP|FIELDS)\d*|THEAP|COMMENT|HISTORY"
    r"|CONTINUE|HIERARCH|CHECKSUM|DATASUM|LONGSTRN|EXT(NAME|VER|LEVEL)|INHERIT"
    r"|Z(IMAGE|TENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TILE\d+|CMPTYPE|NAME\d+|VAL\d+|HECKSUM|DATASUM|SIMPLE|EXTEND|BLOCKED)"
    r"|DATE.*|TIMESYS|TIMEUNIT|MJD.*|JD|JDREF.*|TREF\w*|TELAPSE|XPOSURE|T(STOP|START)|EQUINOX|EPOCH|RADE\w*|WCS\w*"
    r"|C(RPIX|RVAL|DELT|TYPE|UNIT|ROTA|RDER|SYER|NAME)\d+\w?|CD\d+_\d+\w?|P[CVS]\d+_\d+\w?|L(ON|AT)POLE\w?|OBSGEO.*"
    r"|RESTFRQ\w?|RESTWAV\w?|SPECSYS\w?|SSYS\w*|VELO\w*|VELANGL\w?"
    r"|CALTYPE|BADSIZE|FILETEMP|RAWFILE|PROGRAM|PRODTYPE|CCD-TEMP|"
    + "|".join(sorted(set(_COLUMNS.values()) - {"GAIN"}))
)
# What readers take for the kind, temperature, exposure, time or number: only the columns above may say that.
_MEASURED = frozenset().union(
    *(
        ALIASES[field]
        for field in ("caltype", "temperature", "exposure", "frame_number", "prodtype", "badsize")
    ),
    *(ALIASES[field] for field in ("unix_time", "date", "time_of_day", "mjd", "jd", "full_width", "datasum")),
    ALIASES["full_height"],
)
# Other words that readers know (filter, camera, e-/ADU ...): for an entry of just that name, not for a
# shortened one.
_KNOWN = frozenset().union(*ALIASES.values())
# Keywords whose value the standard or the readers want as text.
_TEXT = {
    "INSTRUME",
    "TELESCOP",
    "OBSERVER",
    "OBJECT",
    "AUTHOR",
    "REFERENC",
    "ORIGIN",
    "FILTER",
    "CAMERA",
    "DETECTOR",
}


@dataclass(slots=True)
class HeaderPlan:
    """What all frames of an attempt share.

    columns : (keyword, factor, kelvin, comment) or None for each log column.   constant : (keyword, value,
    comment) of the config.   problems : texts.   decimal_comma : of the log.
    """

    columns: tuple
    constant: tuple
    problems: list
    decimal_comma: bool

    def index_of(self, keyword):
        """Position of the log column that gives ``keyword``, or None."""
        return next((i for i, column in enumerate(self.columns) if column[0] == keyword), None)


def plan_header(config, log, bit_depth):
    """Give every config entry and log column its keyword.

    config : Config or None.   log : CaptureLog or None.   bit_depth : significant bits of the samples, for
    BITDEPTH.
    Returns a HeaderPlan.
    """
    taken, problems = {"BITDEPTH"}, []
    names = log.columns if log else ()
    known, claims = {}, {}
    for position, name in enumerate(names):
        column, unit = _split_unit(name)
        if column in _COLUMNS:
            known[position] = unit
            claims.setdefault(_COLUMNS[column], []).append((list(_COLUMNS).index(column), position))
    columns = [None] * len(names)
    for keyword, claimants in claims.items():
        winner = min(claimants)[1]
        taken.add(keyword)
        unit = known[winner]
        factor = _SECONDS.get(unit, 1e6) if keyword in ("EXPTIME", "REXPTIME") else 1.0
        columns[winner] = (keyword, factor, unit in ("k", "kelvin"), _COMMENTS[keyword])
    constant = [("BITDEPTH", bit_depth, "significant bits of a sample")]
    for key, value in (config or {}).items():
        if plain_name(key) == "bitdepth" and value == bit_depth:
            continue
        keyword = _free_keyword(key, taken)
        constant.append((keyword, _fitting(keyword, value), f"config {config.spelling[key]}"))
    for position, name in enumerate(names):
        if columns[position] is None:
            keyword = _free_keyword(_split_unit(name)[0] if position in known else name, taken)
            columns[position] = (keyword, None, False, f"log {name}")
            if position in known:
                claimed = _COLUMNS[_split_unit(name)[0]]
                winner = names[min(claims[claimed])[1]]
                text = (
                    f"columns {winner!r} and {name!r} both claim {claimed}: the second is kept as {keyword}"
                )
                problems.append(text)
    return HeaderPlan(tuple(columns), tuple(constant), problems, bool(log and log.decimal_comma))


def _split_unit(name):
    """Normalised column name and the unit in brackets behind it ('' if none)."""
    match = re.match(r"(.*?)\s*[\[(]\s*([^\])]*?)\s*[\])]\s*\Z", name, re.DOTALL)
    return (plain_name(match[1]), match[2].lower()) if match else (plain_name(name), "")


def _free_keyword(name, taken):
    """Legal keyword of at most 8 characters, like ``name``, not yet in ``taken`` (it is added there)."""
    if plain_name(name) in _SHORT:
        letters = _SHORT[plain_name(name)]
    else:
        letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii").upper()
        letters = re.sub(r"[^A-Z0-9_-]", "", re.sub(r"\s+", "_", letters.strip()))
        if len(letters) > 8:
            letters = letters.replace("_", "").replace("-", "")
    letters = letters.strip("-_") or "KEY"
    keyword, number = letters[:8], 0
    while (
        keyword in taken
        or keyword in _MEASURED
        or _STANDARD.fullmatch(keyword)
        or (keyword in _KNOWN and keyword not in (letters, *_SHORT.values()))
    ):
        number += 1
        keyword = f"{letters[: 8 - len(str(number))]}{number}"
    taken.add(keyword)
    return keyword


def _fitting(keyword, value):
    """Value as text where the keyword wants text."""
    if keyword in _TEXT and not isinstance(value, str):
        return str(value)
    return value


def measured_cards(plan, row, file_exposure=None, file_temperature=None, file_number=None):
    """Cards of one frame that come from its log row and its name.

    row : tuple of texts, or None where the log has no row.   file_* : what the name tells, or None.
    Returns (cards, problems): (keyword, value, comment) and texts. A value that should be a number and is
    none is left out and told; infinite and NaN are written as 'INF' and 'NAN' and told for the temperature.
    """
    cards, problems, values = [], [], {}
    cells = row if row is not None else ()
    for column, cell in zip(plan.columns, cells, strict=False):
        keyword, factor, kelvin, comment = column
        if not cell:
            continue
        if factor is None or keyword not in _NUMERIC:
            value = typed(cell, plan.decimal_comma)
            values[keyword] = value
            cards.append((keyword, _fitting(keyword, value), comment))
            continue
        value = as_number(cell, plan.decimal_comma)
        if value is None:
            problems.append(f"{keyword} left out, the log says {shown(cell)}")
            continue
        if keyword == "FRAMENUM":
            if not math.isfinite(value) or value != int(value):
                problems.append(f"{keyword} left out, the log says {shown(cell)}")
                continue
            value = int(value)
        elif factor != 1.0:
            value = value / factor
        elif kelvin:
            value = round(value - 273.15, 6)
        values[keyword] = value
        cards.append((keyword, value, comment))
    if "FRAMENUM" not in values and file_number is not None:
        # More digits than 64 bits hold are kept as text.
        number = file_number if abs(file_number) < 10**18 else str(file_number)
        cards.append(("FRAMENUM", number, "number of the frame, from the file name"))
    if "EXPTIME" not in values and file_exposure is not None:
        cards.append(("EXPTIME", file_exposure, "[s] exposure time, from the file name"))
    if file_temperature is not None:
        cards.append(("FILETEMP", file_temperature, "[degC] temperature, from the file name"))
    if "TEMP" in values:
        cards.append(("CCD-TEMP", values["TEMP"], "[degC] the same as TEMP"))
    if not math.isfinite(values.get("TEMP", 0.0)):
        problems.append(f"temperature is {values['TEMP']}")
    elif "TEMP" not in values and row is not None:
        problems.append("no temperature in the log")
    if (date := utc_text(values.get("TIMESTMP"))) is not None:
        cards.append(("DATE-OBS", date, "UTC, from TIMESTMP"))
        cards.append(("TIMESYS", "UTC", "time scale"))
    return cards, problems


def utc_text(stamp):
    """UTC as ISO text of a Unix time (s, ms, us or ns) of 2000 to 2100 or of an ISO text with zone, or None.

    >>> utc_text(1700000000.25)
    '2023-11-14T22:13:20.250000'
    """
    if isinstance(stamp, bool) or stamp is None:
        return None
    if isinstance(stamp, str):
        try:
            moment = datetime.fromisoformat(stamp)
            return _iso(moment.astimezone(UTC)) if moment.tzinfo else None
        except (ValueError, OverflowError):
            return None
    for per_second in (1, 10**3, 10**6, 10**9):
        if 946684800 * per_second <= stamp < 4102444800 * per_second:
            whole, rest = divmod(stamp, per_second)
            since = timedelta(seconds=int(whole), microseconds=round(rest / per_second * 1e6))
            return _iso(datetime(1970, 1, 1, tzinfo=UTC) + since)
    return None


def _iso(moment):
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds" if moment.microsecond else "seconds")


def structure_cards(shape, bits):
    """Cards that open the primary HDU of an integer image: shape (ny, nx), 8 or 16 bits a sample."""
    cards = [
        ("SIMPLE", True, "FITS standard 4.0"),
        ("BITPIX", bits, "bits of a stored sample"),
        ("NAXIS", 2, "number of axes"),
        ("NAXIS1", shape[1], "columns"),
        ("NAXIS2", shape[0], "rows"),
    ]
    if bits == 16:
        cards += [("BZERO", 32768, "samples are unsigned"), ("BSCALE", 1, "no scaling")]
    return cards


def kind_cards(calibration, badsize, raw_name):
    """Cards of the kind of the frame and where it came from."""
    return [
        ("CALTYPE", calibration, "kind of calibration frame"),
        ("IMAGETYP", calibration, "kind of calibration frame"),
        ("BADSIZE", badsize, "raw file was not of the expected size"),
        ("RAWFILE", raw_name, "file this frame was converted from"),
        ("PROGRAM", f"raw_to_fits {__version__}", "program that wrote this file"),
    ]


def cards_text(cards):
    """Text of 80-character cards; TIMESTMP is followed by its older spelling HIERARCH TIMESTAMP."""
    parts = []
    for keyword, value, comment in cards:
        parts.append(card(keyword, value, comment))
        if keyword == "TIMESTMP":
            older = f"HIERARCH TIMESTAMP = {card(keyword, value)[10:].strip()}"
            if len(older) <= CARD:
                parts.append(older.ljust(CARD))
    return "".join(parts)
