"""The plan of a simulated campaign: what is checked, and the attempts with their temperatures and times.

The plan is a mapping (a JSON file of ``utils.simulate_campaign``); see PLAN_HELP for its entries.
"""

import copy
from dataclasses import dataclass

from utils.domain.plan_check import FLAT_TREES, SECTIONS, check_plan, sessions_of
from utils.errors import OptionError

__all__ = ["FAULTS", "PLAN_HELP", "Attempt", "check_plan", "expand_plan", "with_frames"]

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
  flats                list of {temperatures, exposures, frames, flux, session [0], drift [0], filter ["VIS"],
                       type "lab", "sky" or "satellite" ["lab"], light_drift [0], light_scatter [0], cosmic [0]}
  stars                of sky flats: {count [300], faintest [0.5], brightest [100], slope [1], fwhm [3],
                       psf "moffat" or "gaussian" ["moffat"], dither [15]}
  led                  pattern of satellite flats: {tilt [0.08], bumps [3], height [0.12], width [0.35]}
  lamp                 light of each session, relative [[]: 1 in all]
  temperature_swing    degC that each session is off its labels [[]: none]
  changes              what befalls the sensor, list of [[]]
                       {kind "dust", day, x, y, radius, depth, form "ring" or "spot" ["ring"], gone [null]},
                       {kind "film", days, depths, profile "edge" or "patches" ["edge"]},
                       {kind "damage", day, count, drop, size [1]},
                       {kind "hot_pixels", day, count, rate, spread [0.3], anneal_day [null], annealed [1]}
temperatures in degC and exposures in s are lists: each pair is one attempt of that many frames, in each session
where session is a list. drift is the rise of the temperature inside an attempt, degC. flux is the light of a perfect
pixel on the optical axis, in converter ranges per second: 0.25 with 2 s gives half the range. light_drift is its
relative rise inside an attempt, light_scatter 1 sigma from frame to frame, cosmic the hits per pixel and frame beside
the camera's. Stars are as bright as that many pixels of sky, fwhm and dither (the largest, each way) in pixels.
x and y of dust in frame widths and heights, radius in frame diagonals; depth and drop are the fraction of light lost,
depths those of a film's thickest place on its days; rate in ADU/s; annealed is the fraction that is cured.
Sky and satellite flats stand in OUT/SkyFlats and OUT/SatelliteFlats. Example:
  {"camera": {"row_noise": 0, "session_shifts": [0, 2.5]}, "sessions": [0, 2],
   "bias": [{"temperatures": [-10, 0, 10], "frames": 20},
            {"temperatures": [0, 10, 20], "frames": 20, "session": 1, "drift": 0.4}],
   "darks": [{"temperatures": [0, 10], "exposures": [1, 30], "frames": 10, "session": 1}],
   "flats": [{"temperatures": [10], "exposures": [2], "frames": 5, "flux": 0.2, "session": [0, 1]}],
   "changes": [{"kind": "dust", "day": 1, "x": 0.3, "y": 0.6, "radius": 0.03, "depth": 0.05}]}
The plan that was used, complete, is in OUT/truth/truth.json under "plan"."""

FAULTS = {
    2: "truncated",
    3: "empty",
    4: "oversized",
    5: "no log row",
    6: "NaN temperature",
    7: "garbage log row",
}
_FAULTY_FRAMES = 10


@dataclass(frozen=True)
class Attempt:
    """Frames taken one after the other in one folder.

    folder : path below the campaign, with '/'.   kind : bias, dark or flat.   exposure : nominal [s].
    label : temperature in the folder's name [degC].   filter, type (lab, sky, satellite) and
    flux (mean light, lamp of the session included [converter ranges/s]) : None but for flats.
    temperatures, times, names : of each frame [true degC, Unix s, file name].
    fluxes : of each frame [converter ranges/s], None but for flats; dithers : its (dx, dy) [pixels], None but
    for sky flats.   cosmic : hits per pixel and frame beside the camera's.
    faults : {index of the frame: fault}.
    """

    folder: str
    kind: str
    session: int
    label: float
    exposure: float
    filter: str | None
    type: str | None
    flux: float | None
    temperatures: tuple
    times: tuple
    names: tuple
    fluxes: tuple | None
    dithers: tuple | None
    cosmic: float
    faults: dict


def expand_plan(plan, rng, *, faults=False, source="plan"):
    """List the attempts of a plan that ``check_plan`` returned, in the plan's order.

    rng : numpy Generator for the scatter of the temperatures; a child of it gives that of the light.
    faults : add a last attempt of 10 frames with FAULTS, which leaves the others as they are.
    Raises OptionError where a session lasts into the next.
    """
    starts = [EPOCH + DAY * days for days in plan["sessions"]]
    clock = list(starts)
    attempts, used = [], {}
    (light,) = rng.spawn(1)

    def take(kind, group, session, temperature, exposure, frames, faulty):
        place = _folder(kind, group, temperature, exposure)
        used[place] = used.get(place, 0) + 1
        start = clock[session] + plan["settle"]
        step = exposure + plan["overhead"]
        clock[session] = start + frames * step
        mean = temperature + plan["setpoint_scatter"] * rng.standard_normal()
        mean += plan["temperature_swing"][session] if plan["temperature_swing"] else 0.0
        lit = _light_of(plan, group, session, frames, light) if kind == "flat" else {}
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
                filter=group.get("filter"),
                type=group.get("type"),
                temperatures=temperatures,
                times=tuple(round(start + i * step, 3) for i in range(frames)),
                names=tuple(
                    _frame_name(kind, number, temperature, exposure) for number in range(1, frames + 1)
                ),
                flux=lit.get("flux"),
                fluxes=lit.get("fluxes"),
                dithers=lit.get("dithers"),
                cosmic=group.get("cosmic", 0.0),
                faults={number - 1: fault for number, fault in FAULTS.items()} if faulty else {},
            )
        )

    groups = [(kind, group) for section, kind in SECTIONS.items() for group in plan[section]]
    for kind, group in groups:
        for session in sessions_of(group):
            for exposure in _exposures(group):
                for temperature in group["temperatures"]:
                    take(kind, group, session, temperature, exposure, group["frames"], False)
    if faults:
        kind, group = groups[0]
        place = sessions_of(group)[0], group["temperatures"][0], _exposures(group)[0]
        take(kind, group, *place, _FAULTY_FRAMES, True)
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
    for section in SECTIONS:
        for group in plan[section]:
            group["frames"] = frames
    return plan


def _light_of(plan, group, session, frames, rng):
    """Flux of an attempt of flats, of each of its frames, and their dithers (sky flats only)."""
    flux = group["flux"] * (plan["lamp"][session] if plan["lamp"] else 1.0)
    scatter = rng.standard_normal(frames)
    along = [1 + group["light_drift"] * ((i + 0.5) / frames - 0.5) for i in range(frames)]
    fluxes = tuple(
        max(0.0, flux * rise * (1 + group["light_scatter"] * float(off)))
        for rise, off in zip(along, scatter, strict=True)
    )
    lit = {"flux": flux, "fluxes": fluxes}
    if group["type"] == "sky":
        dithers = rng.uniform(-1, 1, (frames, 2)) * plan["stars"]["dither"]
        lit["dithers"] = tuple(map(tuple, dithers.tolist()))
    return lit


def _exposures(group):
    return group["exposures"] if "exposures" in group else [group["exposure"]]


def _folder(kind, group, temperature, exposure):
    at = f"T{temperature:g}"
    if kind == "bias":
        return f"Bias/{at}"
    if kind == "flat":
        return f"{FLAT_TREES[group['type']]}/{group['filter']}/{at}/{exposure:g}s"
    if group["tree"] == "20Frames":
        return f"Darks/20Frames/{exposure:g}s/{at}"
    return f"Darks/ContinuousFrames/{at}/{exposure:g}s"


def _frame_name(kind, number, temperature, exposure):
    if kind == "bias":
        return f"f{number:04d}_T{temperature:g}.raw"
    # Real cameras write short exposures as exp_1.2e-05s and others as exp0.1s.
    return f"frame{number:04d}_exp{'_' if 'e' in f'{exposure:g}' else ''}{exposure:g}s.raw"
