"""Simulate a campaign of raw camera files with known truth: input of the demo and of the end-to-end tests.

    python -m utils.simulate_campaign OUT [--size H W --frames N --seed S --plan FILE --bits 12left --faults]

Writes the three sections that ``utils.raw_to_fits`` reads, and the truth:

    OUT/Bias/T<temp>/attempt<n>/                           configFile.txt, temperatureLog.csv, frames/*.raw
    OUT/Darks/20Frames/<t>s/T<temp>/attempt<n>/            one set of frames per exposure and temperature
    OUT/Darks/ContinuousFrames/T<temp>/<t>s/attempt<n>/    frames taken through a drift of the temperature
    OUT/Flats/<filter>/T<temp>/<t>s/attempt<n>/
    OUT/SkyFlats, OUT/SatelliteFlats                       the same for sky and satellite flats
    OUT/truth/*.fits                                       the sensor's maps, PRODTYPE = 'TRUTH_...'
    OUT/truth/truth.json                                   plan with the sensor, true values of each frame

The plan (--plan: a name or a JSON file) is described by --help and in ``utils.domain.campaign_plan``.
"""

import argparse
import contextlib
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.application.command import run_command
from utils.application.options import CommandParser
from utils.domain import campaign_plan
from utils.domain.named_plans import DEMO, NAMED_PLANS
from utils.domain.plan_check import sessions_of
from utils.errors import OptionError

LOG_COLUMNS = (
    *("FrameNum", "TimeStamp", "ExpTime", "RealExpTime", "ExpGain", "Temperature", "InitialTemp"),
    *("ExtTemperature", "DeltaTemperature", "PowerCons"),
)
_SHUTTER_EXCESS = 4e-6  # s; the real exposure is longer than the nominal one by a line time
_AMBIENT = 21.0  # degC
_BITS = ("12left", "12", "16")
_PIXEL_FORMATS = {8: "Mono8", 10: "Mono10", 12: "Mono12", 16: "Mono16"}


@dataclass(frozen=True)
class CampaignTruth:
    """What was simulated.   out : Path.   sensor : Sensor.   plan : complete.   frames : one dict a frame.

    A frame: file (below out), kind, session, temperature [degC], label [degC], exposure [s, real],
    time [Unix s], filter, level [ADU], cosmic_pixels, fault (None or one of campaign_plan.FAULTS);
    type (lab, sky, satellite) of flats, dither (dx, dy of the stars [pixels]) and star_scale (signal of a
    star of flux 1 [ADU]) of sky flats, else None.
    """

    out: Path
    sensor: object
    plan: dict
    frames: list


def simulate(out, spec=None, plan=None, seed=None, *, faults=False, progress=False):
    """Write a campaign into the new or empty folder ``out``; returns its CampaignTruth.

    spec : SensorSpec; None: the plan's camera.   plan : mapping; None: the demo campaign.
    seed : of the frames; None: the sensor's.   faults : add an attempt with faulty files.
    progress : show a bar where stderr is a terminal.
    The same spec, plan, seed and faults give the same bytes. On any failure nothing is left in ``out``.
    Raises OptionError for a folder that is not empty, an unusable plan or camera, OutputError for a full
    disk.
    """
    import numpy as np

    from utils.domain.campaign_scenes import CampaignScenes
    from utils.domain.campaign_truth import write_truth
    from utils.kernels.sensor import Sensor, SensorSpec

    out = Path(out)
    _refuse_used(out)
    plan = campaign_plan.check_plan(DEMO if plan is None else plan)
    try:
        spec = SensorSpec.from_dict(plan["camera"]) if spec is None else spec
        sensor = Sensor(spec)
        for section in ("bias", "darks", "flats"):
            for group in plan[section]:
                for session in sessions_of(group):
                    sensor.session_shift(session)
    except ValueError as error:
        raise OptionError(f"camera: {error}") from error
    scenes = CampaignScenes(plan, spec)
    plan = {**plan, "camera": asdict(spec)}
    seed = spec.seed if seed is None else seed
    attempts = campaign_plan.expand_plan(plan, np.random.default_rng([seed, 1]), faults=faults)
    frames = []
    with _staged(out) as staging, _bar(sum(len(a.names) for a in attempts), progress) as bar:
        for number, attempt in enumerate(attempts):
            frames += _write_attempt(staging, sensor, plan, attempt, scenes, [seed, 2, number], bar)
        told = {"seed": seed, "plan": plan, **scenes.truth(), "frames": frames}
        write_truth(staging / "truth", sensor, scenes, told)
    return CampaignTruth(out, sensor, plan, frames)


def _refuse_used(out):
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out}: got a file, expected a new or empty folder")
    entries = len(list(out.iterdir())) if out.exists() else 0
    if entries:
        raise OptionError(f"{out}: got a folder with {entries} entries, expected a new or empty folder")


class _staged:
    """Hidden folder inside ``out`` whose entries move up when all is written; removed on any failure."""

    def __init__(self, out):
        self.out = out
        self.made = not out.exists()
        self.staging = out / ".simulate_campaign.tmp"

    def __enter__(self):
        try:
            self.staging.mkdir(parents=True)
        except OSError as error:
            self._translate(error)
            raise
        return self.staging

    def __exit__(self, kind, error, traceback):
        import shutil

        if error is None:
            # The truth last: where it stands, the campaign is whole.
            for entry in sorted(self.staging.iterdir(), key=lambda path: (path.name == "truth", path.name)):
                entry.rename(self.out / entry.name)
            self.staging.rmdir()
            return
        shutil.rmtree(self.staging, ignore_errors=True)
        if self.made:
            with contextlib.suppress(OSError):
                self.out.rmdir()
        if isinstance(error, OSError):
            self._translate(error)

    def _translate(self, error):
        from utils.fits_io.atomic import output_error

        known = output_error(error, self.out)
        if known is not None:
            raise known from error


def _bar(total, show):
    from tqdm import tqdm

    # None: only where stderr is a terminal.
    return tqdm(total=total, unit="frame", desc="simulate", disable=None if show else True)


def _write_attempt(root, sensor, plan, attempt, scenes, seed, bar):
    """Write config, log and frames of one attempt; returns the truth of each frame."""
    import numpy as np

    folder = root / attempt.folder
    (folder / "frames").mkdir(parents=True)
    (folder / "configFile.txt").write_text(_config(sensor, attempt), encoding="utf-8")
    exposure = attempt.exposure + _SHUTTER_EXCESS
    full_light = sensor.full_scale * exposure  # of flux 1
    rng = np.random.default_rng(seed)
    spec = sensor.spec
    sample = "<u2" if spec.bit_depth > 8 or spec.left_justified else "u1"
    hits = np.zeros(sensor.shape, bool)
    rows, truth = [",".join(LOG_COLUMNS)], []
    for index, (name, temperature) in enumerate(zip(attempt.names, attempt.temperatures, strict=True)):
        fault = attempt.faults.get(index)
        hits[:] = False
        level = None if attempt.fluxes is None else attempt.fluxes[index] * full_light
        scene = scenes.of_frame(attempt, index, full_light)
        terms = {"session": attempt.session, "level": level, "hits": hits, "scene": scene}
        samples = sensor.frame(attempt.kind, temperature, exposure, rng, **terms)
        data = samples.astype(sample).tobytes()
        (folder / "frames" / name).write_bytes(_broken(data, fault))
        rows += _log_row(plan, attempt, index, exposure, fault)
        truth.append(
            {
                "file": f"{attempt.folder}/frames/{name}",
                "kind": attempt.kind,
                "session": attempt.session,
                "temperature": temperature,
                "label": attempt.label,
                "exposure": exposure,
                "time": attempt.times[index],
                "filter": attempt.filter,
                "type": attempt.type,
                "level": level,
                "dither": None if attempt.dithers is None else list(attempt.dithers[index]),
                "star_scale": None if attempt.dithers is None else attempt.flux * full_light,
                "cosmic_pixels": int(hits.sum()),
                "fault": fault,
            }
        )
        bar.update()
    (folder / "temperatureLog.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return truth


def _broken(data, fault):
    """Bytes of a raw file with its fault."""
    if fault == "truncated":
        return data[: len(data) * 3 // 5]
    if fault == "empty":
        return b""
    if fault == "oversized":
        return data + bytes(1000)
    return data


def _config(sensor, attempt):
    """Text of configFile.txt: what the samples are, and e-/count of the samples as stored."""
    spec = sensor.spec
    stored_bits = 16 if spec.left_justified else spec.bit_depth
    ny, nx = sensor.shape
    lines = [
        "# Simulated camera",
        "INSTRUME=Simulated CMOS",
        f"WIDTH={nx}",
        f"HEIGHT={ny}",
        f"BIT_DEPTH={stored_bits}",
        "BYTE_ORDER=little",
        f"EGAIN={spec.gain / sensor.adu_scale:g}",
    ]
    if stored_bits in _PIXEL_FORMATS:
        lines.append(f"PIXEL_FORMAT={_PIXEL_FORMATS[stored_bits]}")
    if attempt.filter is not None:
        lines.append(f"FILTER={attempt.filter}")
    return "\n".join(lines) + "\n"


def _log_row(plan, attempt, index, exposure, fault):
    """Rows of temperatureLog.csv for one frame: one, or none where the fault is a missing row."""
    if fault == "no log row":
        return []
    if fault == "garbage log row":
        return ["x7f;;??,-,0x1f"]
    first, temperature = attempt.temperatures[0], attempt.temperatures[index]
    ambient = _AMBIENT + 0.02 * index
    shown = "NaN" if fault == "NaN temperature" else f"{temperature:.2f}"
    power = 1.8 + 0.11 * abs(ambient - temperature)
    return [
        f"{index + 1},{attempt.times[index]:.3f},{_microseconds(attempt.exposure)},{_microseconds(exposure)},"
        f"{plan['gain_setting']:g},{shown},{first:.2f},{ambient:.2f},{temperature - first:.2f},{power:.2f}"
    ]


def _microseconds(seconds):
    return f"{seconds * 1e6:.3f}".rstrip("0").rstrip(".")


def _parser():
    parser = CommandParser(
        prog="python -m utils.simulate_campaign",
        description="Simulate a campaign of raw camera files with known truth.",
        epilog=campaign_plan.PLAN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="new or empty folder")
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("H", "W"), help="rows and columns of the sensor (256 256)"
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="frames of every attempt, in place of the plan's"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="seed of the sensor and of the frames (1)")
    parser.add_argument(
        "--plan",
        metavar="PLAN",
        help=f"{', '.join(NAMED_PLANS)}, or a JSON file, see below (demo)",
    )
    parser.add_argument(
        "--bits",
        choices=_BITS,
        help="converter: 12 bits left-justified in 16 (the default), 12 bits as they are, or 16",
    )
    parser.add_argument(
        "--faults", action="store_true", help="add one attempt with faulty files and log rows"
    )
    return parser


def _read_plan(name):
    import json

    if name is None or name in NAMED_PLANS:
        return campaign_plan.check_plan(NAMED_PLANS[name or "demo"])
    try:
        plan = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(
            f"{name}: got {error}, expected a plan in JSON, or one of {', '.join(NAMED_PLANS)}"
        ) from error
    return campaign_plan.check_plan(plan, name)


def _camera(plan, options):
    """SensorSpec: the preset of --bits, changed by the plan's camera, changed by the options given."""
    from utils.kernels.sensor import SensorSpec

    base = SensorSpec.preset(options.bits or _BITS[0])
    changes = (
        {} if options.bits is None else {"bit_depth": base.bit_depth, "left_justified": base.left_justified}
    )
    if options.size is not None:
        changes["shape"] = tuple(options.size)
    if options.seed is not None:
        changes["seed"] = options.seed
    try:
        spec = SensorSpec.from_dict(plan["camera"], base)
        return replace(spec, **changes)
    except ValueError as error:
        raise OptionError(f"{options.plan or 'options'}: camera: {error}") from error


def main(argv=None):
    """Run the command; returns the exit status, raises CalibrationError for what the user can mend."""
    import time

    options = _parser().parse_args(argv)
    begin = time.perf_counter()
    _refuse_used(options.out)
    plan = _read_plan(options.plan)
    if options.frames is not None:
        plan = campaign_plan.with_frames(plan, options.frames)
    truth = simulate(options.out, _camera(plan, options), plan, faults=options.faults, progress=True)
    spec = truth.sensor.spec
    bits = f"{spec.bit_depth} bits{' left-justified' if spec.left_justified else ''}"
    faulty = sum(frame["fault"] is not None for frame in truth.frames)
    print(
        f"simulated {len(truth.frames)} frames ({faulty} with a fault) of {spec.shape[0]} x {spec.shape[1]}, "
        f"{bits}, in {time.perf_counter() - begin:.1f} s: {options.out} (truth in {options.out / 'truth'})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
