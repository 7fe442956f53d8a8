"""The entries of a campaign plan: their defaults, and what is refused."""

import copy
import math
import re
from numbers import Integral

from utils.domain.json_values import is_number, listed
from utils.errors import OptionError

SECTIONS = {"bias": "bias", "darks": "dark", "flats": "flat"}
TREES = ("20Frames", "ContinuousFrames")
FLAT_TREES = {"lab": "Flats", "sky": "SkyFlats", "satellite": "SatelliteFlats"}


def check_plan(plan, source="plan"):
    """Return a complete copy of a plan, absent entries filled in.

    Raises OptionError for unknown or missing entries, for values that make no campaign, for a plan without a
    frame; the line names ``source``, the entry, what was got and expected.
    """
    full = _complete(plan, _TOP, source, "")
    for days, following in zip(full["sessions"], full["sessions"][1:], strict=False):
        if following - days < 1:
            raise OptionError(
                f"{source}: sessions: got {full['sessions']}, expected starts at least 1 day apart"
            )
    for section in SECTIONS:
        groups = full[section]
        full[section] = [
            _complete(g, _GROUPS[section], source, f"{section}[{i}].") for i, g in enumerate(groups)
        ]
        for i, group in enumerate(full[section]):
            if max(sessions_of(group)) >= len(full["sessions"]):
                raise OptionError(
                    f"{source}: {section}[{i}].session: got {group['session']}, "
                    f"expected 0 to {len(full['sessions']) - 1} (sessions has {len(full['sessions'])})"
                )
    for name in ("lamp", "temperature_swing"):
        if full[name] and len(full[name]) != len(full["sessions"]):
            raise OptionError(
                f"{source}: {name}: got {len(full[name])} values, expected one for each of the "
                f"{len(full['sessions'])} sessions, or none"
            )
    for name, fields in (("stars", _STARS), ("led", _LED)):
        full[name] = _complete(full[name], fields, source, f"{name}.")
    full["changes"] = [
        _complete_change(change, source, f"changes[{i}]") for i, change in enumerate(full["changes"])
    ]
    if not any(full[section] for section in SECTIONS):
        raise OptionError(f"{source}: got no frames, expected entries in bias, darks or flats")
    return full


def sessions_of(group):
    """Sessions in which the frames of a group are taken, as a list."""
    session = group["session"]
    return list(session) if isinstance(session, list | tuple) else [session]


def _complete_change(change, source, where):
    kind = change.get("kind") if isinstance(change, dict) else change
    if kind not in tuple(_CHANGES):
        raise OptionError(f"{source}: {where}.kind: got {kind!r}, expected {', '.join(_CHANGES)}")
    return _complete(
        change, {"kind": (kind, lambda x: x == kind, kind), **_CHANGES[kind]}, source, f"{where}."
    )


def _complete(entry, fields, source, where):
    """Copy of one mapping with defaults filled in, each value checked by its field."""
    if not isinstance(entry, dict):
        raise OptionError(f"{source}: {where.rstrip('.') or 'plan'}: got {entry!r}, expected an object")
    unknown = sorted(set(entry) - set(fields))
    if unknown:
        raise OptionError(
            f"{source}: unknown {listed(where + name for name in unknown)}, expected {', '.join(fields)}"
        )
    full = {}
    for name, (default, valid, expected) in fields.items():
        if name not in entry and default is _NEEDED:
            raise OptionError(f"{source}: {where}{name} is missing, expected {expected}")
        value = copy.deepcopy(entry.get(name, default))
        if not valid(value):
            raise OptionError(f"{source}: {where}{name}: got {value!r}, expected {expected}")
        # Adding 0.0 turns -0.0 into 0.0, which would name a second folder of the same temperature.
        full[name] = [x + 0.0 for x in value] if name in ("temperatures", "exposures", "sessions") else value
    return full


def _whole(value, least):
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def _session(value):
    several = isinstance(value, list | tuple) and len(value) > 0
    return all(_whole(x, 0) for x in value) if several else _whole(value, 0)


def _numbers(value, above):
    return (
        isinstance(value, list | tuple) and len(value) > 0 and all(is_number(x) and x > above for x in value)
    )


MOST_FRAMES = 1_000_000
"""Frames in one attempt: more is a misprint."""
_NEEDED = object()
_ZERO_UP = (lambda x: is_number(x) and x >= 0, "a number, 0 or more")
_GROUP = {
    "temperatures": (_NEEDED, lambda x: _numbers(x, -273.15), "a list of temperatures, degC"),
    "frames": (
        _NEEDED,
        lambda x: _whole(x, 1) and x <= MOST_FRAMES,
        f"a whole number, 1 or more and at most {MOST_FRAMES}",
    ),
    "session": (0, _session, "a whole number, 0 or more, or a list of them"),
    "drift": (0.0, is_number, "a number, degC"),
}
_EXPOSURES = (_NEEDED, lambda x: _numbers(x, 0), "a list of exposures, s, above 0")
_GROUPS = {
    "bias": {**_GROUP, "exposure": (1e-5, lambda x: is_number(x) and x > 0, "an exposure, s, above 0")},
    "darks": {
        **_GROUP,
        "exposures": _EXPOSURES,
        "tree": ("20Frames", lambda x: x in TREES, " or ".join(TREES)),
    },
    "flats": {
        **_GROUP,
        "exposures": _EXPOSURES,
        "flux": (_NEEDED, *_ZERO_UP),
        "type": ("lab", lambda x: x in tuple(FLAT_TREES), ", ".join(FLAT_TREES)),
        "light_drift": (0.0, lambda x: is_number(x) and abs(x) < 2, "a number between -2 and 2"),
        "light_scatter": (0.0, *_ZERO_UP),
        "cosmic": (0.0, *_ZERO_UP),
        # A folder's name, and a FITS string.
        "filter": (
            "VIS",
            lambda x: isinstance(x, str) and re.fullmatch(r"\w[\w+-]*", x, re.ASCII) is not None,
            "a name of letters, digits, _ + -",
        ),
    },
}
_NUMBER = (is_number, "a number")
_POSITIVE = (lambda x: is_number(x) and x > 0, "a number above 0")
_LATER = (None, lambda x: x is None or is_number(x), "a day, or null")
_SERIES = (lambda x: _numbers(x, -math.inf), "a list of numbers")
_STARS = {
    "count": (300, lambda x: _whole(x, 0), "a whole number, 0 or more"),
    "faintest": (0.5, *_POSITIVE),
    "brightest": (100.0, *_POSITIVE),
    "slope": (1.0, *_POSITIVE),
    "fwhm": (3.0, *_POSITIVE),
    "psf": ("moffat", lambda x: x in ("moffat", "gaussian"), "moffat or gaussian"),
    "dither": (15.0, *_ZERO_UP),
}
_LED = {
    "tilt": (0.08, *_NUMBER),
    "bumps": (3, lambda x: _whole(x, 0), "a whole number, 0 or more"),
    "height": (0.12, *_NUMBER),
    "width": (0.35, *_POSITIVE),
}
_COUNT = (_NEEDED, lambda x: _whole(x, 1), "a whole number, 1 or more")
_CHANGES = {
    "dust": {
        **dict.fromkeys(("day", "x", "y", "radius", "depth"), (_NEEDED, *_NUMBER)),
        "form": ("ring", lambda x: x in ("ring", "spot"), "ring or spot"),
        "gone": _LATER,
    },
    "film": {
        **dict.fromkeys(("days", "depths"), (_NEEDED, *_SERIES)),
        "profile": ("edge", lambda x: x in ("edge", "patches"), "edge or patches"),
    },
    "damage": {
        **dict.fromkeys(("day", "drop"), (_NEEDED, *_NUMBER)),
        "count": _COUNT,
        "size": (1, lambda x: _whole(x, 1), "a whole number, 1 or more"),
    },
    "hot_pixels": {
        **dict.fromkeys(("day", "rate"), (_NEEDED, *_NUMBER)),
        "count": _COUNT,
        "spread": (0.3, *_ZERO_UP),
        "anneal_day": _LATER,
        "annealed": (1.0, *_ZERO_UP),
    },
}
_OBJECT = ({}, lambda x: isinstance(x, dict), "an object")
_LIST = ([], lambda x: isinstance(x, list | tuple), "a list")
_TOP = {
    "camera": _OBJECT,
    "gain_setting": (120, *_ZERO_UP),
    "sessions": ([0], lambda x: _numbers(x, -1e-9), "a list of days, 0 or more"),
    "overhead": (0.8, *_ZERO_UP),
    "settle": (900.0, *_ZERO_UP),
    "setpoint_scatter": (0.05, *_ZERO_UP),
    "temperature_scatter": (0.01, *_ZERO_UP),
    "bias": _LIST,
    "darks": _LIST,
    "flats": _LIST,
    "stars": _OBJECT,
    "led": _OBJECT,
    "lamp": ([], lambda x: x == [] or _numbers(x, 0), "a list of numbers above 0"),
    "temperature_swing": ([], lambda x: x == [] or _numbers(x, -math.inf), "a list of temperatures, degC"),
    "changes": _LIST,
}
