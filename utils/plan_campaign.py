"""Plan a calibration campaign: the errors that a plan of frames allows, and the cheapest plan for a wanted error.

python -m utils.plan_campaign --temps "-20 -10 0" --exptimes "1 10 60" --bias-frames 20 --dark-frames 10
"""

import math
import sys
from pathlib import Path

from utils.application.command import run_command
from utils.application.options import CommandParser, both, parse_numbers, positive_integer, positive_number
from utils.domain.campaign_errors import (
    STEP_VARIANCE,
    TYPICAL,
    Camera,
    Frames,
    cheapest,
    expected_errors,
    information,
    known,
)
from utils.errors import OptionError

COLUMNS = {
    "product": "product",
    "pixel": "pixel",
    "temperature": "T [°C]",
    "exposure": "t [s]",
    "value": "expected",
    "error": "1 sigma",
    "unit": "unit",
    "relative_percent": "relative [%]",
}
PLAN_COLUMNS = {
    "kind": "kind",
    "temperature": "T [°C]",
    "exposure": "t [s]",
    "frames": "frames",
    "hours": "hours",
}


def main(argv=None):
    """Print the errors of the plan, and the cheapest plan where an error is wanted; returns the exit status."""
    args = _parser().parse_args(argv)
    temps = parse_numbers(args.temps)
    exptimes = parse_numbers(args.exptimes, "--exptimes")
    if min(exptimes) <= 0 or min(temps) < -273.15:
        raise OptionError(
            f"--temps {temps}, --exptimes {exptimes}: expected degrees Celsius and seconds above 0"
        )
    camera = camera_of(args)
    plan = Frames(
        temps, exptimes, args.bias_frames, args.dark_frames, args.flat_frames, args.flat_level, args.overhead
    )
    at = _evaluated(args, plan)
    wanted = {"bias": args.want_bias, "dark": args.want_dark, "flat": args.want_flat}
    if args.output_dir is None:
        print(f"camera: {_camera_line(camera)}")
        _print_table(expected_errors(camera, plan, at), COLUMNS)
        status = 0
        if any(wanted.values()):
            rows, reasons = cheapest(camera, plan, at, wanted)
            _print_cheapest(rows, reasons, plan)
            status = 1 if reasons else 0
        return status
    return _recorded(args, argv, camera, plan, at, wanted)


def _parser():
    parser = CommandParser(prog="python -m utils.plan_campaign", description=__doc__.splitlines()[0])
    camera = parser.add_argument_group("camera (default: a typical cooled CMOS camera)")
    camera.add_argument("--detector", type=Path, metavar="FILE", help="detector.json of the camera")
    for name, unit, what in (
        ("gain", "E/ADU", "conversion gain"),
        ("read-noise", "ADU", "read noise"),
        ("full-well", "ADU", "full well above bias"),
        ("rate", "ADU/s", "dark current of an ordinary pixel"),
        ("doubling", "DEGC", "temperature that doubles the dark current"),
    ):
        camera.add_argument(*both(name), type=positive_number, metavar=unit, help=what, default=None)
    camera.add_argument(*both("rate-temp"), type=float, metavar="DEGC", help="temperature of --rate")
    plan = parser.add_argument_group("plan")
    plan.add_argument("--temps", nargs="+", required=True, metavar="T", help="temperatures [degC]")
    plan.add_argument("--exptimes", nargs="+", required=True, metavar="t", help="exposures of darks [s]")
    plan.add_argument(
        *both("bias-frames"), type=positive_integer, default=20, metavar="N", help="at each temperature"
    )
    plan.add_argument(
        *both("dark-frames"),
        type=positive_integer,
        default=10,
        metavar="N",
        help="at each temperature and exposure",
    )
    plan.add_argument(
        *both("flat-frames"), type=positive_integer, default=20, metavar="N", help="of each master flat"
    )
    plan.add_argument(
        *both("flat-level"),
        type=positive_number,
        metavar="ADU",
        default=None,
        help="level of the flats (half the full well)",
    )
    plan.add_argument(
        "--overhead", type=positive_number, default=1.0, metavar="S", help="seconds between frames"
    )
    at = parser.add_argument_group("where errors are told (default: ends and middle of the plan)")
    at.add_argument(*both("at-temps"), nargs="+", metavar="T", default=None, help="temperatures [degC]")
    at.add_argument(*both("at-exptimes"), nargs="+", metavar="t", default=None, help="exposures [s]")
    want = parser.add_argument_group(
        "wanted errors, 1 sigma of an ordinary pixel: the cheapest plan that meets them"
    )
    want.add_argument(*both("want-bias"), type=positive_number, metavar="ADU", default=None)
    want.add_argument(*both("want-dark"), type=positive_number, metavar="ADU/S", default=None)
    want.add_argument(*both("want-flat"), type=positive_number, metavar="PERCENT", default=None)
    parser.add_argument(
        *both("output-dir"), type=Path, metavar="OUT", help="write tables and report.html here", default=None
    )
    parser.add_argument("--overwrite", action="store_true", help="write over files that no earlier run made")
    return parser


def camera_of(args):
    """Camera from the options, then --detector, then typical values."""
    known, origin = dict(TYPICAL), "typical values"
    if args.detector is not None:
        from utils.domain.detector import Detector

        sheet = Detector.load(args.detector)
        known |= {"gain": sheet.gain.value}
        known |= {
            key: getattr(sheet, key).value for key in ("read_noise", "full_well") if getattr(sheet, key)
        }
        dark, doubling = sheet.more.get("dark_current") or {}, sheet.more.get("doubling_temperature") or {}
        for name, entry, key in (
            ("rate", dark, "value"),
            ("rate_temp", dark, "temperature"),
            ("doubling", doubling, "value"),
        ):
            if isinstance(entry.get(key), (int, float)):
                known[name] = float(entry[key])
        origin = str(args.detector)
    given = {key: getattr(args, key) for key in TYPICAL if getattr(args, key) is not None}
    if given:
        origin += " and options"
    known |= given
    if not known["rate"] > 0 or not math.isfinite(known["rate_temp"]):
        raise OptionError(
            f"{origin}: dark current {known['rate']}, expected a rate above 0 at a temperature (--rate)"
        )
    return Camera(**known, origin=origin)


def _camera_line(camera):
    return (
        f"gain {camera.gain:g} e-/adu, read noise {camera.read_noise:g} adu, full well {camera.full_well:g} adu, "
        f"dark current {camera.rate:g} adu/s at {camera.rate_temp:g} degC, doubled by"
        f" {camera.doubling:g} degC ({camera.origin})"
    )


def _evaluated(args, plan):
    """Temperatures and exposures where errors are told."""
    temps = parse_numbers(args.at_temps, "--at-temps") or _ends(plan.temps, lambda a, b: (a + b) / 2)
    exptimes = parse_numbers(args.at_exptimes, "--at-exptimes") or _ends(
        plan.exptimes, lambda a, b: math.sqrt(a * b)
    )
    if min(exptimes) <= 0:
        raise OptionError(f"--at-exptimes: got {min(exptimes):g}, expected seconds above 0")
    return temps, exptimes


def _ends(values, middle):
    low, high = min(values), max(values)
    return tuple(dict.fromkeys((low, round(middle(low, high), 3), high)))


def _print_table(rows, columns):
    table = [list(columns.values())] + [[_cell(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return "not determined" if math.isinf(value) else f"{value:.4g}"
    return str(value)


def _print_cheapest(rows, reasons, plan):
    for reason in reasons:
        print(f"no such plan: {reason}", file=sys.stderr)
    if rows:
        total = sum(row["hours"] for row in rows)
        print(f"cheapest plan, {sum(row['frames'] for row in rows)} frames, {total:.2f} h:")
        _print_table(rows, PLAN_COLUMNS)


def _recorded(args, argv, camera, plan, at, wanted):
    """The same with tables, a picture and a report in a folder."""
    from utils.application.log import setup_logging
    from utils.application.report import context_of, csv_table, write_report
    from utils.application.run_record import REPORT, RunRecord
    from utils.fits_io.atomic import write_bytes, write_csv

    setup_logging(0, None)
    argv = sys.argv[1:] if argv is None else argv
    with RunRecord(args.output_dir, "plan", "plan", vars(args), argv, overwrite=args.overwrite) as record:
        tables = []
        with record.step("plan") as step:
            errors = expected_errors(camera, plan, at)
            path = record.claim(args.output_dir / "plan_errors.csv")
            write_csv(path, errors, tuple(COLUMNS))
            record.add_product(path, "PLAN_ERRORS", what="errors to expect")
            tables += csv_table(
                path,
                COLUMNS,
                section="Errors to expect",
                title="Errors of the proposed plan, 1 sigma of a pixel",
            )
            if any(wanted.values()):
                rows, reasons = cheapest(camera, plan, at, wanted)
                path = record.claim(args.output_dir / "cheapest_plan.csv")
                write_csv(path, rows, tuple(PLAN_COLUMNS))
                record.add_product(
                    path, "CHEAPEST_PLAN", what="frames that meet the wanted errors in the least time"
                )
                tables += csv_table(path, PLAN_COLUMNS, section="Cheapest plan", title="Frames to take")
                for reason in reasons:
                    record.missing("cheapest plan", reason)
                record.value("time of the cheapest plan", sum(row["hours"] for row in rows), "h")
            hours = sum(n * c for n, c in zip(plan.counts(), plan.cost(), strict=True)) / 3600.0
            record.value("time of the proposed plan", hours, "h")
            from utils.application.figure_style import png_bytes

            path = record.claim(args.output_dir / "figures" / "errors_against_temperature.png")
            write_bytes(path, [png_bytes(_figure(camera, plan, at))])
            record.add_figure(path, _CAPTION, section="Errors to expect")
            step.summary = f"{len(errors)} errors of {sum(plan.counts())} frames, {hours:.2f} h"
        with record.step("report"):
            path = record.claim(args.output_dir / REPORT)
            context = context_of(
                record,
                title="Campaign plan",
                program="python -m utils.plan_campaign",
                inputs=_camera_line(camera),
                sections=_SECTIONS,
                tables=tables,
            )
            write_report(path, context)
            record.add_product(path, "REPORT")
        return record.finish()


_CAPTION = (
    "Errors of a dark of the model (bias and dark current together) against temperature, for each exposure; solid: ordinary"
    " pixel. The lines without marks are the noise of a single frame of the same exposure: well below them, the"
    " calibration does not limit an image."
)
_SECTIONS = (
    (
        "Errors to expect",
        "Cramer-Rao bounds of a single pixel from the Fisher information of the frames: no fit of each pixel by itself"
        " can do better. Faint pixels gain beyond this from the shrinkage of B and gamma to those of the sensor.",
    ),
    (
        "Cheapest plan",
        "The numbers of frames that meet the wanted errors everywhere they were asked for, in the least time.",
    ),
)


def _figure(camera, plan, at):
    """Error of bias + dark [ADU] against temperature, beside the noise of single frames."""
    import numpy as np
    from matplotlib.ticker import LogLocator, NullFormatter

    from utils.application.figure_style import COLOURS
    from utils.application.plots import Panel, Series, panels_figure
    from utils.kernels import plan_errors

    temps = np.linspace(min(*plan.temps, *at[0]), max(*plan.temps, *at[0]), 25)
    terms, law = information(camera, plan)
    root = plan_errors.known_root(np.tensordot(np.array(plan.counts(), float), terms, 1)[None], known(camera))
    series = []
    for number, e in enumerate(at[1]):
        directions = [e * plan_errors.dark_direction(law, t, e) + np.array([0, 0, 0, 1.0, t]) for t in temps]
        error = np.array([plan_errors.error_along(root, d)[0] for d in directions])
        noise = np.sqrt(camera.read_noise**2 + STEP_VARIANCE + e * law.rate(temps, e) / camera.gain)
        colour = COLOURS[number % len(COLOURS)]
        series.append(
            Series(temps, error, label=f"error of the model, {e:.3g} s", colour=colour, joined=True)
        )
        series.append(Series(temps[:0], temps[:0], line=(temps, noise), colour=colour))
    figure = panels_figure(
        [Panel("1 sigma [ADU]", tuple(series))],
        xlabel="temperature [°C]",
        title="Error of bias and dark of the model (points), noise of a frame (lines)",
        height=3.2,
    )
    axes = figure.axes[0]
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    return figure


if __name__ == "__main__":
    sys.exit(run_command(main))
