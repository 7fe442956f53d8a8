"""Structure analysis: what is new on the detector in a campaign of flats - dust, stains, films, damaged pixels.

python structure_analysis.py DIR [--reduce] [--output-dir structure_analysis] [--sigma K] [--show]
"""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent)

from utils.application.command import run_command
from utils.application.options import CommandParser, SharedOptions, add_shared_options, both, positive_number

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


def build_parser():
    """Return the parser of the command line."""
    parser = CommandParser(prog="structure_analysis.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "basepath", metavar="DIR", type=Path, help="folder with the flats (and bias and dark frames)"
    )
    parser.add_argument(
        "--reduce",
        action="store_true",
        help="subtract bias and dark of the flat's own temperature and exposure",
    )
    parser.add_argument(
        "--sigma",
        type=positive_number,
        metavar="K",
        default=argparse.SUPPRESS,
        help="significance of a single pixel that counts as changed (default: one false region in 1000 flats)",
    )
    parser.add_argument(
        "--show", action="store_true", help="open the pictures in windows too, where there is a display"
    )
    parser.add_argument(
        *both("session-gap"),
        type=positive_number,
        default=6.0,
        metavar="H",
        help="pause that starts an epoch [h]",
    )
    parser.add_argument(
        *both("across-exposures"),
        action="store_true",
        help="compare flats of different exposures too (with --reduce): their levels are normalised",
    )
    add_shared_options(parser, SHARED, output_dir=Path("structure_analysis"))
    return parser


def main(argv):
    """Run the analysis; returns the exit status."""
    args = build_parser().parse_args(argv)
    from utils import flat_campaign
    from utils.application import change_report
    from utils.application.log import setup_logging
    from utils.application.run_record import RunRecord

    shared = SharedOptions.from_args(args)
    config = flat_campaign.ChangeConfig(
        shared,
        args.reduce,
        getattr(args, "sigma", None),
        args.show,
        args.session_gap * 3600.0,
        args.across_exposures,
    )
    setup_logging(shared.verbosity, shared.log_file)
    with shared.cluster(), RunRecord.of(shared, "structure", "full", config, argv) as record:

        def analyse(config, campaign):
            flat_campaign.masters(config, record, campaign)
            flat_campaign.levels(config, record, campaign)
            if shared.dry_run:
                return
            flat_campaign.write_masters(config, record, campaign)
            with flat_campaign.spool(config) as store:
                flat_campaign.compare(config, record, campaign, store)
                change_report.write(config, record, campaign)

        campaign = flat_campaign.select(config, record)
        flat_campaign.keep_or_make(record, analyse, config, campaign)
        return record.finish()


if __name__ == "__main__":
    sys.exit(run_command(main))
