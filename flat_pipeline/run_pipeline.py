"""Flat pipeline: master flats at the photon limit, illumination and pixel response, a model of every pixel with errors.

python flat_pipeline/run_pipeline.py --mode full --basepath DIR --output-dir OUT
"""

import argparse
import contextlib
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from flat_pipeline.mode_options import honoured
from utils.application.command import run_command
from utils.application.options import (
    COMBINE,
    CommandParser,
    SharedOptions,
    add_shared_options,
    both,
    given_options,
    positive_number,
    refuse_unused,
)

FROM_FRAMES = ("select_frames", "dark", "levels")
MODES = {
    "full": (*FROM_FRAMES, "combine", "vignetting", "masters", "fit_model", "evaluate", "report"),
    "full_no_vignetting": (*FROM_FRAMES, "combine", "masters", "fit_model", "evaluate", "report"),
    "reduce_only": (*FROM_FRAMES, "reduce", "report"),
    "normalize_only": (*FROM_FRAMES, "normalize", "report"),
    "vignetting_only": ("combine", "vignetting", "report"),
    "make_master": (*FROM_FRAMES, "combine", "masters", "report"),
    "fit_model": ("fit_model", "report"),
    "evaluate_model": ("evaluate", "report"),
    "characterize": ("select_frames", "dark", "characterize", "report"),
}
OPTIONS = {
    "flat-type": dict(choices=("lab", "sky", "satellite"), default="lab", help="kind of light"),
    "dark-files-json": dict(type=Path, metavar="FILE", help="list of darks, instead of those found"),
    "dark-model": dict(type=Path, metavar="DIR", help="dark model, instead of the darks found"),
    "bias-model": dict(type=Path, metavar="DIR", help="bias model, instead of the bias frames found"),
    "no-dark": dict(
        action="store_true", default=False, help="subtract no dark (the bias only, where there is one)"
    ),
    "norm-method": dict(
        choices=("median", "mean", "max"), default="median", help="level by which a frame is normalised"
    ),
    "lensfun-json": dict(type=Path, metavar="FILE", help="vignetting of a lens, or its pa coefficients"),
    "radial-json": dict(type=Path, metavar="FILE", help="vignetting as k1, k2, k3 and centre"),
    "empirical-json": dict(type=Path, metavar="FILE", help="vignetting as a smooth surface of the flat"),
    "t-ref": dict(type=float, metavar="T", help="reference of the model [degC] (default: mean of the set)"),
    "exp-ref": dict(type=float, metavar="t", help="reference of the model [s] (default: mean of the set)"),
    "dead-limit": dict(
        type=positive_number,
        default=0.5,
        metavar="PART",
        help="dead below this part of the neighbours' response",
    ),
    "low-qe-limit": dict(
        type=positive_number,
        default=0.9,
        metavar="PART",
        help="low QE below this part of the neighbours' response",
    ),
    "save-eval-fits": dict(action="store_true", default=False, help="maps of the evaluation as FITS too"),
}


def steps():
    """Name -> function of every step; imported here so that --help answers at once."""
    from flat_pipeline.steps import (
        step1_select_frames,
        step2_dark,
        step3_levels,
        step4_reduce,
        step5_normalize,
        step6_combine,
        step7_vignetting,
        step8_masters,
        step9_fit_model,
        step10_evaluate,
        step11_report,
        step12_characterize,
    )

    return {
        "select_frames": step1_select_frames.run,
        "dark": step2_dark.run,
        "levels": step3_levels.run,
        "reduce": step4_reduce.run,
        "normalize": step5_normalize.run,
        "combine": step6_combine.run,
        "vignetting": step7_vignetting.run,
        "masters": step8_masters.run,
        "fit_model": step9_fit_model.run,
        "evaluate": step10_evaluate.run,
        "report": step11_report.run,
        "characterize": step12_characterize.run,
    }


def build_parser():
    """Return the parser of the command line."""
    parser = CommandParser(prog="flat_pipeline/run_pipeline.py", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=MODES, default="full", help="what to do (default: full)")
    for name, settings in OPTIONS.items():
        parser.add_argument(
            *both(name), dest=name.replace("-", "_"), **{"default": argparse.SUPPRESS, **settings}
        )
    add_shared_options(parser, output_dir=Path("flat_output"))
    older = parser.add_argument_group("older names")
    older.add_argument(
        *both("master-method"),
        dest="combine",
        choices=COMBINE,
        default=argparse.SUPPRESS,
        help="as --combine",
    )
    older.add_argument(
        *both("no-save-plots"), dest="plots", action="store_const", const="none", default=argparse.SUPPRESS,
        help="as --plots none",
    )  # fmt: skip
    return parser


def _as_files_tell(config, record, wanted, given):
    """Options of the files that a mode starts from; what it will write is checked before it does."""
    from flat_pipeline.frame_files import start_of

    if "select_frames" in wanted and start_of(record, config) is None:
        return config
    from flat_pipeline.plan import check_plan, told_by_files

    config = config.told(*told_by_files(config, record, wanted, given))
    check_plan(config, record, wanted)
    return config


def main(argv):
    """Run the pipeline; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    given = given_options(parser, argv)
    refuse_unused(given, honoured(args.mode, "basepath" in given), args.mode)
    from flat_pipeline.config import BLOCKS, FlatConfig
    from flat_pipeline.context import Context
    from flat_pipeline.room import bytes_needed
    from utils.application.log import setup_logging
    from utils.application.resume import run_steps
    from utils.application.run_record import RunRecord

    own = {name.replace("-", "_"): getattr(args, name.replace("-", "_"), None) for name in OPTIONS}
    config = FlatConfig(shared=SharedOptions.from_args(args), **own)
    config.check_mode(args.mode)
    shared = config.shared
    setup_logging(shared.verbosity, shared.log_file)
    functions = steps()
    with (
        shared.cluster(),
        RunRecord.of(shared, "flat", args.mode, config, argv) as record,
        contextlib.ExitStack() as stack,
    ):
        wanted = MODES[args.mode]
        if args.mode in ("full", "full_no_vignetting"):
            record.retire(kept=("characterize",))
        config = _as_files_tell(config, record, wanted, given)
        context = Context(config, record, stack, wanted)

        def after(name):
            if name == "select_frames" and context.groups is not None:
                record.check_room(bytes_needed(config, MODES[args.mode], context.groups))

        run_steps(record, wanted, BLOCKS, functions, config, context, dry=FROM_FRAMES, after=after)
        return record.finish()


if __name__ == "__main__":
    sys.exit(run_command(main))
