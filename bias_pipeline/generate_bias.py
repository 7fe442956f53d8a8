"""Make one synthetic bias from the maps of a bias model.

python bias_pipeline/generate_bias.py --a-map A --b-map B --temperature T --output FILE_OR_DIR
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.application.command import run_command
from utils.application.options import CommandParser, both


def build_parser():
    """Return the parser of the command line."""
    parser = CommandParser(prog="bias_pipeline/generate_bias.py", description=__doc__.splitlines()[0])
    parser.add_argument(*both("a-map"), type=Path, required=True, help="bias_a_map.fits")
    parser.add_argument(*both("b-map"), type=Path, required=True, help="bias_b_map.fits")
    parser.add_argument("--covariance", type=Path, help="bias_ab_covariance.fits (default: beside the a map)")
    parser.add_argument("--temperature", type=float, required=True, help="temperature of the bias [degC]")
    parser.add_argument(
        "--output", type=Path, required=True, help="file, or folder for synthetic_bias_{T}C.fits"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over an existing file")
    return parser


def main(argv):
    """Write the bias; prints its mean and standard deviation."""
    args = build_parser().parse_args(argv)
    import math

    import numpy as np

    from bias_pipeline.steps.step4_synthesize import write_synthetic
    from utils.domain.bias_model import COVARIANCE, BiasModel
    from utils.errors import InputError, OptionError
    from utils.fits_io.naming import label

    if not (math.isfinite(args.temperature) and -273.15 <= args.temperature <= 200):
        raise OptionError(
            f"--temperature: got {args.temperature}, expected degrees Celsius from -273.15 to 200"
        )
    beside = args.a_map.parent / COVARIANCE
    covariance = args.covariance or (beside if beside.is_file() else None)
    model = BiasModel.from_maps(args.a_map, args.b_map, covariance)
    target = args.output
    if target.is_dir() or target.suffix.lower() not in (".fits", ".fit", ".fts"):
        target = target / f"synthetic_bias_{label(args.temperature, 1)}C.fits"
    if target.exists() and not args.overwrite:
        raise InputError(f"{target}: exists, expected a new name or --overwrite")
    maps = [path for path in (args.a_map, args.b_map, covariance) if path is not None]
    value = write_synthetic(target, model, args.temperature, {str(path): path for path in maps})
    if model.extrapolates(args.temperature):
        print(
            f"warning: {args.temperature:g} degC is outside the fitted range {model.t_min:.1f} to {model.t_max:.1f}"
            " degC: extrapolated",
            file=sys.stderr,
        )
    print(
        f"{target}: mean {np.nanmean(value, dtype=np.float64):.4f} adu, std {np.nanstd(value, dtype=np.float64):.4f} adu"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
