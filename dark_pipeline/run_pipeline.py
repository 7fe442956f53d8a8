"""Dark pipeline: dark-current maps, hot pixels, models in temperature and exposure with errors, synthetic darks.

python dark_pipeline/run_pipeline.py --mode full --basepath DIR --output_dir OUT
"""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dark_pipeline.mode_options import honoured
from utils.application.command import run_command
from utils.application.options import (
    CommandParser,
    SharedOptions,
    add_shared_options,
    both,
    given_options,
    parse_numbers,
    positive_number,
    refuse_unused,
)

MODES = {
    "full": (
        *("select_frames", "bias", "dark_maps", "fit_1d", "fit_2d"),
        *("synthesize_1d", "synthesize_2d", "synthesize_single", "evaluate_1d", "evaluate_2d", "report"),
    ),
    "synthetic_only": ("synthesize_1d", "report"),
    "evaluation_only": ("evaluate_1d", "evaluate_2d", "report"),
    "evaluate_dark_current": ("evaluate_1d", "report"),
    "fit_2d_model": ("fit_2d", "report"),
    "evaluate_2d_model": ("evaluate_2d", "report"),
    "synthetic_2d": ("synthesize_2d", "report"),
    "synthetic_2d_single": ("synthesize_single", "report"),
}
OPTIONS = {
    "model_dir": dict(type=Path, metavar="DIR", help="folder of the dark model (default: those in OUT)"),
    "bias-model": dict(type=Path, metavar="DIR", help="bias model, instead of the bias frames found"),
    "no-bias": dict(action="store_true", default=False, help="subtract no bias (frames that hold none)"),
    "temps": dict(nargs="+", metavar="T", help="temperatures of synthetic darks [degC]"),
    "exptimes": dict(nargs="+", metavar="t", help="exposures of synthetic 2-D darks [s]"),
    "temp_single": dict(type=float, metavar="T", help="temperature of the single synthetic dark [degC]"),
    "exptime_single": dict(type=float, metavar="t", help="exposure of the single synthetic dark [s]"),
    "unit": dict(choices=("adu/s", "adu"), default="adu/s", help="unit of synthetic darks"),
    "add-bias": dict(action="store_true", default=False, help="synthetic darks with their bias (--unit adu)"),
    "hot-sigma": dict(
        type=positive_number, default=8.0, metavar="K", help="limit of hot pixels [robust sigma]"
    ),
    "hot-threshold": dict(type=positive_number, metavar="RATE", help="limit of hot pixels [adu/s] instead"),
    "save-corrected": dict(action="store_true", default=False, help="write each dark less its bias too"),
    "session-gap": dict(
        type=positive_number, default=6.0, metavar="H", help="pause that starts a session [h]"
    ),
}


def steps():
    """Name -> function of every step; imported here so that --help answers at once."""
    from dark_pipeline.steps import (
        step1_select_frames,
        step2_bias,
        step3_dark_maps,
        step4_fit_1d,
        step5_fit_2d,
        step6_synthesize,
        step7_evaluate,
        step8_report,
    )

    return {
        "select_frames": step1_select_frames.run,
        "bias": step2_bias.run,
        "dark_maps": step3_dark_maps.run,
        "fit_1d": step4_fit_1d.run,
        "fit_2d": step5_fit_2d.run,
        "synthesize_1d": step6_synthesize.run_1d,
        "synthesize_2d": step6_synthesize.run_2d,
        "synthesize_single": step6_synthesize.run_single,
        "evaluate_1d": step7_evaluate.run_1d,
        "evaluate_2d": step7_evaluate.run_2d,
        "report": step8_report.run,
    }


def build_parser():
    """Return the parser of the command line."""
    parser = CommandParser(prog="dark_pipeline/run_pipeline.py", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=MODES, default="full", help="what to do (default: full)")
    for name, settings in OPTIONS.items():
        parser.add_argument(
            *both(name), dest=name.replace("-", "_"), **{"default": argparse.SUPPRESS, **settings}
        )
    add_shared_options(parser, output_dir=Path("dark_output"))
    return parser


def main(argv):
    """Run the pipeline; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    refuse_unused(given_options(parser, argv), honoured(args.mode, MODES[args.mode]), args.mode)
    from dark_pipeline.config import BLOCKS, DarkConfig
    from dark_pipeline.context import Context
    from dark_pipeline.room import bytes_needed
    from utils.application.log import setup_logging
    from utils.application.resume import run_steps
    from utils.application.run_record import RunRecord

    given = {name.replace("-", "_"): getattr(args, name.replace("-", "_"), None) for name in OPTIONS}
    given["temps"] = parse_numbers(given["temps"])
    given["exptimes"] = parse_numbers(given["exptimes"], "--exptimes")
    config = DarkConfig(shared=SharedOptions.from_args(args), **given)
    shared = config.shared
    if "select_frames" in MODES[args.mode]:
        shared.need_basepath()
    if args.mode == "synthetic_2d_single":
        config.need_single()
    setup_logging(shared.verbosity, shared.log_file)
    functions = steps()
    with shared.cluster(), RunRecord.of(shared, "dark", args.mode, config, argv) as record:
        context = Context(record)

        def after(name):
            if name == "select_frames":
                record.check_room(bytes_needed(config, context.groups))

        dry = ("select_frames", "bias", "dark_maps")
        run_steps(record, MODES[args.mode], BLOCKS, functions, config, context, dry=dry, after=after)
        return record.finish()


if __name__ == "__main__":
    sys.exit(run_command(main))
