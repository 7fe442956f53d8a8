"""For which frames a product holds: temperature, exposure and dates, as cards of its header.

``VALTMIN``, ``VALTMAX`` [degC], ``VALEMIN``, ``VALEMAX`` [s], ``VALDBEG``, ``VALDEND`` (UTC): a side without a card
has no limit. A product holds for the range that its frames span, widened by what counts as the same (the temperature
tolerance of the run, 1 % of the exposure), from a year before its first frame until a year after its last.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

DAYS = 365
"""A calibration holds so long before its first and after its last frame."""
_SAME_EXPOSURE = 0.01


@dataclass(frozen=True)
class Validity:
    """Ranges (low, high), infinite where there is no limit: temperature [degC], exposure [s], dates (ISO text)."""

    temperature: tuple = (-math.inf, math.inf)
    exposure: tuple = (-math.inf, math.inf)
    dates: tuple = ("", "9999")

    @classmethod
    def of(cls, header):
        """Read the cards of a product; absent ones set no limit."""
        return cls(
            (_number(header, "VALTMIN", -math.inf), _number(header, "VALTMAX", math.inf)),
            (_number(header, "VALEMIN", -math.inf), _number(header, "VALEMAX", math.inf)),
            (str(header.get("VALDBEG") or ""), str(header.get("VALDEND") or "9999")),
        )

    def outside(self, temperature=None, exposure=None, date=None):
        """Name what of a frame lies outside, as a list of text; what is None is not asked."""
        found = []
        for name, value, (low, high), unit in (
            ("temperature", temperature, self.temperature, " degC"),
            ("exposure", exposure, self.exposure, " s"),
            ("date", date, self.dates, ""),
        ):
            if value is not None and not low <= value <= high:
                shown = f"{value:g}" if unit else str(value)
                found.append(f"{name} {shown}{unit} outside {_range(low, high)}{unit}")
        return found

    def apart(self, other):
        """Name the ranges that have nothing in common with those of another product; dates may differ."""
        found = []
        for name in ("temperature", "exposure"):
            (low, high), (lowest, highest) = getattr(self, name), getattr(other, name)
            if high < lowest or highest < low:
                found.append(f"{name} {_range(low, high)} against {_range(lowest, highest)}")
        return found


def _number(header, key, otherwise):
    value = header.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise


def _range(low, high):
    ends = [f"{end:g}" if isinstance(end, float) else end[:10] for end in (low, high)]
    return f"{ends[0]} to {ends[1]}"


def validity_cards(cards):
    """Derive the cards from what a product says of its frames.

    cards : mapping keyword -> value or (value, comment) with T_MIN/T_MAX, else TEMPMIN/TEMPMAX, else TEMP; TTOL;
    for darks E_MIN/E_MAX, else EXPTIME (bias and flats hold for any exposure); DATE-BEG, DATE-END.
    Returns a dict of cards; empty where nothing is known, and what ``cards`` itself has is left to it.
    """
    values = {key: entry[0] if isinstance(entry, tuple) else entry for key, entry in cards.items()}
    found = {}
    tolerance = values.get("TTOL") or 0.0
    low, high = _ends(values, ("T_MIN", "T_MAX"), ("TEMPMIN", "TEMPMAX"), ("TEMP", "TEMP"))
    if low is not None:
        found["VALTMIN"] = (low - tolerance, "[degC] holds from this temperature")
        found["VALTMAX"] = (high + tolerance, "[degC] holds to this temperature")
    if values.get("CALTYPE") == "DARK":
        low, high = _ends(values, ("E_MIN", "E_MAX"), ("EXPTIME", "EXPTIME"))
        if low is not None:
            found["VALEMIN"] = (low * (1.0 - _SAME_EXPOSURE), "[s] holds from this exposure")
            found["VALEMAX"] = (high * (1.0 + _SAME_EXPOSURE), "[s] holds to this exposure")
    first, last = _ends(values, ("DATE-BEG", "DATE-END"), ("DATE-OBS", "DATE-OBS"))
    if first is not None:
        since, until = datetime.fromisoformat(first), datetime.fromisoformat(last)
        for key, date, what in (
            ("VALDBEG", since - timedelta(days=DAYS), "holds from this date"),
            ("VALDEND", until + timedelta(days=DAYS), "holds until this date"),
        ):
            found[key] = (date.isoformat(timespec="seconds"), what)
    return {key: card for key, card in found.items() if key not in cards}


def _ends(values, *pairs):
    for low, high in pairs:
        if values.get(low) is not None and values.get(high) is not None:
            return values[low], values[high]
    return None, None
