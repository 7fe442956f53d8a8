"""Bias pipeline: master biases, ``bias(T) = a + b T`` per pixel with errors, read noise, synthetic biases.

python bias_pipeline/run_pipeline.py --mode full --basepath DIR --output-dir OUT
"""

import sys
from importlib import import_module
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bias_pipeline.mode_options import honoured
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
    "full": ("select_frames", "make_masters", "fit_model", "synthesize", "evaluate", "report"),
    "make_master": ("select_frames", "make_masters", "report"),
    "fit_model": ("fit_model", "report"),
    "synthetic_only": ("synthesize", "report"),
    "evaluate_model": ("evaluate", "report"),
}


STEPS = {
    "select_frames": "step1_select_frames",
    "make_masters": "step2_make_masters",
    "fit_model": "step3_fit_model",
    "synthesize": "step4_synthesize",
    "evaluate": "step5_evaluate",
    "report": "step6_report",
}


def steps(names=tuple(STEPS)):
    """Name -> function of steps; only what a mode needs is imported, and late, so that --help answers at once."""
    return {name: import_module(f"bias_pipeline.steps.{STEPS[name]}").run for name in names}


def build_parser():
    """Return the parser of the command line."""
    parser = CommandParser(prog="bias_pipeline/run_pipeline.py", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=MODES, default="full", help="what to do (default: full)")
    parser.add_argument(
        *both("temps"), nargs="+", metavar="T", help="temperatures of synthetic biases [degC]"
    )
    parser.add_argument(
        *both("generate-set"), action="store_true", help="synthetic biases on a 1 degC grid too"
    )
    parser.add_argument(
        *both("hot-pixel-mask"), type=Path, metavar="F", help="FITS image of known hot pixels (not 0)"
    )
    parser.add_argument(
        *both("save-eval-fits"), action="store_true", help="write evaluation maps as FITS too"
    )
    parser.add_argument(
        *both("session-gap"),
        type=positive_number,
        default=6.0,
        metavar="H",
        help="pause that starts a new session [h]",
    )
    add_shared_options(parser, output_dir=Path("bias_output"))
    return parser


def main(argv):
    """Run the pipeline; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    refuse_unused(given_options(parser, argv), honoured(MODES[args.mode]), args.mode)
    from bias_pipeline.config import BLOCKS, FIXED_NAMES, BiasConfig
    from bias_pipeline.context import Context
    from bias_pipeline.room import bytes_needed
    from utils.application.log import setup_logging
    from utils.application.resume import run_steps
    from utils.application.run_record import RunRecord

    config = BiasConfig(
        shared=SharedOptions.from_args(args),
        temps=parse_numbers(args.temps) if "temps" in args else None,
        hot_pixel_mask=getattr(args, "hot_pixel_mask", None),
        generate_set=args.generate_set,
        save_eval_fits=args.save_eval_fits,
        session_gap=args.session_gap,
    )
    shared = config.shared
    if "select_frames" in MODES[args.mode]:
        shared.need_basepath()
    setup_logging(shared.verbosity, shared.log_file)
    functions = steps(MODES[args.mode])
    with shared.cluster(), RunRecord.of(shared, "bias", args.mode, config, argv) as record:
        record.refuse_foreign(name for step in MODES[args.mode] for name in FIXED_NAMES.get(step, ()))
        context = Context(record)

        def after(name):
            if name == "select_frames":
                record.check_room(bytes_needed(config, MODES[args.mode], context.groups))

        dry = ("select_frames", "make_masters")
        run_steps(record, MODES[args.mode], BLOCKS, functions, config, context, dry=dry, after=after)
        return record.finish()


if __name__ == "__main__":
    sys.exit(run_command(main))
