"""The plan of a simulated campaign: what is checked, and the attempts with their temperatures and times.

The plan is a mapping (a JSON file of ``utils.simulate_campaign``); see PLAN_HELP for its entries.
"""

import copy
import math
import re
from dataclasses import dataclass
from numbers import Integral, Real

from utils.errors import OptionError

EPOCH = 1709323200.0  # Unix time of session day 0: 2024-03-01T20:00:00 UTC
DAY = 86400.0

PLAN_HELP = """\
A plan is a JSON object; absent entries have the values in brackets, unknown ones are refused.
  camera               terms of the sensor, by the names in utils/kernels/sensor_spec.py [{}]
  gain_setting         the camera's own gain setting, ExpGain of the logs [120]
  sessions             start of each session in days, at least 1 apart [[0]]
  overhead, settle     seconds between frames [0.8] and before an attempt [900]
  setpoint_scatter     1 sigma of an attempt's mean temperature about its label, degC [0.05]
  temperature_scatter  1 sigma of a frame's temperature about the drift, degC [0.01]
  bias                 list of {temperatures, frames, session [0], drift [0], exposure [1e-5]}
  darks                list of {temperatures, exposures, frames, session [0], drift [0],
                       tree "20Frames" or "ContinuousFrames" ["20Frames"]}
  flats                list of {temperatures, exposures, frames, flux, session [0], drift [0], filter ["VIS"]}
temperatures in degC and exposures in s are lists: each pair is one attempt of that many frames. drift is the
rise of the temperature inside an attempt, degC. flux is the light of a perfect pixel on the optical axis, in
converter ranges per second: 0.25 with 2 s gives half the range. Example:
  {"camera": {"row_noise": 0, "session_shifts": [0, 2.5]}, "sessions": [0, 2],
   "bias": [{"temperatures": [-10, 0, 10], "frames": 20},
            {"temperatures": [0, 10, 20], "frames": 20, "session": 1, "drift": 0.4}],
   "darks": [{"temperatures": [0, 10], "exposures": [1, 30], "frames": 10, "session": 1}]}
The plan that was used, complete, is in OUT/truth/truth.json under "plan"."""

DEFAULT_PLAN = {
    "sessions": [0, 3],
    "bias": [
        {"session": 0, "temperatures": [-15, -10, -5, 0, 5], "frames": 20, "drift": 0.15},
        {"session": 1, "temperatures": [-5, 0, 5, 10, 15], "frames": 20, "drift": -0.1},
    ],
    "darks": [
        {"session": 1, "temperatures": [-5, 5, 15], "exposures": [1, 10, 60], "frames": 8, "drift": 0.1},
        {
            **{"session": 1, "temperatures": [10], "exposures": [10], "frames": 16, "drift": 1.2},
            "tree": "ContinuousFrames",
        },
    ],
    "flats": [
        {"session": 1, "temperatures": [-5, 15], "exposures": [1, 2], "frames": 10, "flux": 0.3},
        {"session": 1, "temperatures": [5], "exposures": [0.5, 4], "frames": 8, "flux": 0.15, "filter": "UV"},
    ],
}

FAULTS = {
    2: "truncated",
    3: "empty",
    4: "oversized",
    5: "no log row",
    6: "NaN temperature",
    7: "garbage log row",
}
_FAULTY_FRAMES = 10

_TREES = ("20Frames", "ContinuousFrames")
_SECTIONS = {"bias": "bias", "darks": "dark", "flats": "flat"}


@dataclass(frozen=True)
class Attempt:
    """Frames taken one after the other in one folder.

    folder : path below the campaign, with '/'.   kind : bias, dark or flat.   exposure : nominal [s].
    label : temperature in the folder's name [degC].   filter, flux [converter ranges/s] : None but for flats.
    temperatures, times, names : of each frame [true degC, Unix s, file name].
    faults : {index of the frame: fault}.
    """

    folder: str
    kind: str
    session: int
    label: float
    exposure: float
    flux: float | None
    filter: str | None
    temperatures: tuple
    times: tuple
    names: tuple
    faults: dict


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
    for section in _SECTIONS:
        groups = full[section]
        full[section] = [
            _complete(g, _GROUPS[section], source, f"{section}[{i}].") for i, g in enumerate(groups)
        ]
        for i, group in enumerate(full[section]):
            if group["session"] >= len(full["sessions"]):
                raise OptionError(
                    f"{source}: {section}[{i}].session: got {group['session']}, "
                    f"expected 0 to {len(full['sessions']) - 1} (sessions has {len(full['sessions'])})"
                )
    if not any(full[section] for section in _SECTIONS):
        raise OptionError(f"{source}: got no frames, expected entries in bias, darks or flats")
    return full


def expand_plan(plan, rng, *, faults=False, source="plan"):
    """List the attempts of a plan that ``check_plan`` returned, in the plan's order.

    rng : numpy Generator for the scatter of the temperatures.
    faults : add a last attempt of 10 frames with FAULTS, which leaves the others as they are.
    Raises OptionError where a session lasts into the next.
    """
    starts = [EPOCH + DAY * days for days in plan["sessions"]]
    clock = list(starts)
    attempts, used = [], {}

    def take(kind, group, temperature, exposure, frames, faulty):
        session = group["session"]
        place = _folder(kind, group, temperature, exposure)
        used[place] = used.get(place, 0) + 1
        start = clock[session] + plan["settle"]
        step = exposure + plan["overhead"]
        clock[session] = start + frames * step
        mean = temperature + plan["setpoint_scatter"] * rng.standard_normal()
        # The drift runs through the middle of the attempt, so that its mean stays at the set point.
        along = (rng.standard_normal(frames) * plan["temperature_scatter"]).tolist()
        temperatures = tuple(
            mean + group["drift"] * ((i + 0.5) / frames - 0.5) + along[i] for i in range(frames)
        )
        attempts.append(
            Attempt(
                folder=f"{place}/attempt{used[place]}",
                kind=kind,
                session=session,
                label=temperature,
                exposure=exposure,
                flux=group.get("flux"),
                filter=group.get("filter"),
                temperatures=temperatures,
                times=tuple(round(start + i * step, 3) for i in range(frames)),
                names=tuple(
                    _frame_name(kind, number, temperature, exposure) for number in range(1, frames + 1)
                ),
                faults={number - 1: fault for number, fault in FAULTS.items()} if faulty else {},
            )
        )

    groups = [(kind, group) for section, kind in _SECTIONS.items() for group in plan[section]]
    for kind, group in groups:
        for exposure in _exposures(group):
            for temperature in group["temperatures"]:
                take(kind, group, temperature, exposure, group["frames"], False)
    if faults:
        kind, group = groups[0]
        take(kind, group, group["temperatures"][0], _exposures(group)[0], _FAULTY_FRAMES, True)
    for session, following in enumerate(starts[1:]):
        if clock[session] > following:
            late = (clock[session] - EPOCH) / DAY
            raise OptionError(
                f"{source}: sessions: session {session} ends on day {late:.2f}, expected before session "
                f"{session + 1} starts on day {plan['sessions'][session + 1]:g}"
            )
    return attempts


def with_frames(plan, frames):
    """Copy of a checked plan with this number of frames in every attempt. Raises OptionError below 1."""
    if frames < 1:
        raise OptionError(f"--frames: got {frames}, expected 1 or more")
    plan = copy.deepcopy(plan)
    for section in _SECTIONS:
        for group in plan[section]:
            group["frames"] = frames
    return plan


def _exposures(group):
    return group["exposures"] if "exposures" in group else [group["exposure"]]


def _folder(kind, group, temperature, exposure):
    at = f"T{temperature:g}"
    if kind == "bias":
        return f"Bias/{at}"
    if kind == "flat":
        return f"Flats/{group['filter']}/{at}/{exposure:g}s"
    if group["tree"] == "20Frames":
        return f"Darks/20Frames/{exposure:g}s/{at}"
    return f"Darks/ContinuousFrames/{at}/{exposure:g}s"


def _frame_name(kind, number, temperature, exposure):
    if kind == "bias":
        return f"f{number:04d}_T{temperature:g}.raw"
    # Real cameras write short exposures as exp_1.2e-05s and others as exp0.1s.
    return f"frame{number:04d}_exp{'_' if 'e' in f'{exposure:g}' else ''}{exposure:g}s.raw"


def _complete(entry, fields, source, where):
    """Copy of one mapping with defaults filled in, each value checked by its field."""
    if not isinstance(entry, dict):
        raise OptionError(f"{source}: {where.rstrip('.') or 'plan'}: got {entry!r}, expected an object")
    unknown = sorted(set(entry) - set(fields))
    if unknown:
        raise OptionError(
            f"{source}: unknown {', '.join(where + name for name in unknown)}, expected {', '.join(fields)}"
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


def _number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value, least):
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def _numbers(value, above):
    return isinstance(value, list | tuple) and len(value) > 0 and all(_number(x) and x > above for x in value)


_NEEDED = object()
_ZERO_UP = (lambda x: _number(x) and x >= 0, "a number, 0 or more")
_GROUP = {
    "temperatures": (_NEEDED, lambda x: _numbers(x, -273.15), "a list of temperatures, degC"),
    "frames": (_NEEDED, lambda x: _whole(x, 1), "a whole number, 1 or more"),
    "session": (0, lambda x: _whole(x, 0), "a whole number, 0 or more"),
    "drift": (0.0, _number, "a number, degC"),
}
_EXPOSURES = (_NEEDED, lambda x: _numbers(x, 0), "a list of exposures, s, above 0")
_GROUPS = {
    "bias": {**_GROUP, "exposure": (1e-5, lambda x: _number(x) and x > 0, "an exposure, s, above 0")},
    "darks": {
        **_GROUP,
        "exposures": _EXPOSURES,
        "tree": ("20Frames", lambda x: x in _TREES, " or ".join(_TREES)),
    },
    "flats": {
        **_GROUP,
        "exposures": _EXPOSURES,
        "flux": (_NEEDED, *_ZERO_UP),
        # A folder's name, and a FITS string.
        "filter": (
            "VIS",
            lambda x: isinstance(x, str) and re.fullmatch(r"\w[\w+-]*", x, re.ASCII) is not None,
            "a name of letters, digits, _ + -",
        ),
    },
}
_LIST = ([], lambda x: isinstance(x, list | tuple), "a list")
_TOP = {
    "camera": ({}, lambda x: isinstance(x, dict), "an object"),
    "gain_setting": (120, *_ZERO_UP),
    "sessions": ([0], lambda x: _numbers(x, -1e-9), "a list of days, 0 or more"),
    "overhead": (0.8, *_ZERO_UP),
    "settle": (900.0, *_ZERO_UP),
    "setpoint_scatter": (0.05, *_ZERO_UP),
    "temperature_scatter": (0.01, *_ZERO_UP),
    "bias": _LIST,
    "darks": _LIST,
    "flats": _LIST,
}
