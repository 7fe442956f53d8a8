"""Degradation analysis: damaged pixels, hot pixels and films in a campaign of flats (and darks) over time.

python dark_pipeline/steps/outgasing_destruction_analysis.py DIR --calibrate --output_dir OUT
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from utils.application.command import run_command
from utils.application.options import CommandParser, add_shared_options, both, positive_number

__all__ = [
    *(
        "build_parser",
        "classify_outliers",
        "find_closest_dark",
        "generate_bias_maps",
        "generate_dark_maps",
        "main",
    ),
    "run_command",
]
SHARED = (
    *(
        "output-dir",
        "select",
        "combine",
        "clip-sigma",
        "temp-tolerance",
        "adu-scale",
        "saturation",
        "gain",
        "detector",
    ),
    *(
        "jobs",
        "memory-limit",
        "scheduler",
        "overwrite",
        "resume",
        "dry-run",
        "plots",
        "verbose",
        "quiet",
        "log-file",
    ),
)
FUNCTIONS = {
    "classify_outliers": "utils.kernels.pixel_damage",
    "find_closest_dark": "utils.domain.calibration_maps",
    "generate_bias_maps": "utils.domain.calibration_maps",
    "generate_dark_maps": "utils.domain.calibration_maps",
}


def __getattr__(name):
    """Import the functions for notebooks when they are asked for: the command starts without them."""
    if name not in FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(FUNCTIONS[name]), name)


def build_parser():
    """Return the parser of the command line."""
    parser = CommandParser(prog="outgasing_destruction_analysis.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "basepath", metavar="DIR", type=Path, help="folder with the flats (and bias and dark frames)"
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="subtract bias and dark of the flat's own temperature and exposure",
    )
    for name, words in (
        ("bias-model", "bias model instead of the bias frames found"),
        ("dark-model", "dark model instead of the darks found; it also brings hot pixels to one temperature"),
    ):
        parser.add_argument(*both(name), type=Path, metavar="DIR", help=words)
    parser.add_argument(
        *both("reference-csv"),
        type=Path,
        metavar="FILE",
        help="time,level of the lamp: adds the uniform part of a loss",
    )
    parser.add_argument(
        *both("session-gap"),
        type=positive_number,
        default=6.0,
        metavar="H",
        help="pause that starts an epoch [h]",
    )
    parser.add_argument(*both("no-norm-files"), action="store_true", help="do not keep the normalised flats")
    add_shared_options(parser, SHARED, output_dir=Path("outgasing_analysis"))
    return parser


def main(argv):
    """Run the analysis; returns the exit status."""
    args = build_parser().parse_args(argv)
    from utils import detector_damage

    return detector_damage.run(detector_damage.config_of(args), argv)


if __name__ == "__main__":
    sys.exit(run_command(main))
