"""Convert the raw frames of a campaign to FITS, with an index and a report.

    python -m utils.raw_to_fits BIAS DARK FLAT [--skip-bias] [--skip-dark] [--skip-flat] [--search-depth N]

Each ``<attempt>/frames/*.raw`` becomes ``<attempt>/fits/*.fits``; ``fits_index.csv`` and
``conversion_report.csv`` are written to the folder that holds the sections. Raw files, configs and logs are
never changed.
"""

import contextlib
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.application.command import run_command
from utils.application.log import LOGGER, progress, setup_logging
from utils.application.options import CommandParser, add_shared_options, both, positive_integer, usable_cores
from utils.errors import InputError, OptionError
from utils.fits_io import cluster
from utils.fits_io.atomic import RefusedOutputError, writable
from utils.fits_io.capture_log import read_config
from utils.fits_io.raw_tree import (
    find_attempts,
    gather_attempts,
    parse_filename_metadata,
    parse_frame_number,
)

__all__ = [
    "convert_attempt",
    "convert_many",
    "gather_attempts",
    "main",
    "parse_filename_metadata",
    "parse_frame_number",
    "read_config",
]

INDEX_NAME = "fits_index.csv"
REPORT_NAME = "conversion_report.csv"
SEARCH_DEPTH = 6
BIAS_DEPTH = 2  # T<temp>/attempt<n>: found however small the search depth
KINDS = ("BIAS", "DARK", "FLAT")
_HEADER_BYTES = 3 * 2880  # header and padding of a FITS file, and its lines in the tables


@dataclass(slots=True)
class Conversion:
    """What a run did.

    converted, kept : paths of FITS files.   reasons : why those that were converted were not kept, with counts.
    not_converted, badsize : numbers of raw files.   rows : of the
    index.
    problems : Problem list.   index, report : paths.   n_bytes : read.   seconds : taken.
    """

    converted: list = field(default_factory=list)
    kept: list = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)
    not_converted: int = 0
    badsize: int = 0
    rows: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    index: str = ""
    report: str = ""
    n_bytes: int = 0
    seconds: float = 0.0

    @property
    def status(self):
        """1 where something named is missing (a frame not converted or BADSIZE, an empty section), else 0."""
        return int(any(problem.severity == "ERROR" for problem in self.problems))


def convert_attempt(attempt_path, calibration, raw_subdir="frames", index_rows=None):
    """Convert the raw frames of one attempt; FITS files that are up to date are kept.

    calibration : 'BIAS', 'DARK' or 'FLAT'.   raw_subdir : folder of the raw files; where it has none, they
    are looked for in the attempt itself.   index_rows : list to which the rows of fits_index.csv are added.
    Returns the paths of the FITS files, in the natural order of the raw files. What is wrong with single
    frames is logged. Raises OptionError for another calibration, InputError for a folder that is not there,
    OutputError when the disk is full.
    """
    from utils.fits_io.conversion_tables import portable
    from utils.fits_io.raw_attempt import plan_attempt
    from utils.fits_io.raw_batches import converted

    attempt_path = os.fspath(attempt_path)
    if not os.path.isdir(attempt_path):
        raise InputError(f"{attempt_path}: no such folder, expected an attempt with raw frames")
    run = Conversion()
    frames, run.problems = plan_attempt(attempt_path, calibration, raw_subdir)
    for result in converted(frames, jobs=usable_cores()):
        _note(run, result)
    _tell(run.problems, verbose=True)
    if index_rows is not None:
        index_rows.extend({**row, "RELPATH": portable(row["PATH"], attempt_path)} for row in run.rows)
    return [row["PATH"] for row in run.rows]


def convert_many(
    bias_root, dark_root, flat_root, search_depth=6, skip_bias=False, skip_dark=False, skip_flat=False
):
    """Convert all attempts of the sections that are not skipped; write the index and the report.

    Both files go to the common parent of these sections. Rows of the index for other FITS files that still
    exist (a section skipped now) are kept.
    Returns a Conversion. A section that is missing or has no attempt is an error in the report, unless all
    are:
    InputError, nothing written. Raises OptionError for unusable arguments, OutputError when the disk is full,
    RefusedOutputError where the index cannot be written.
    """
    roots = (bias_root, dark_root, flat_root)
    skipped = (skip_bias, skip_dark, skip_flat)
    sections = [(kind, root) for kind, root, skip in zip(KINDS, roots, skipped, strict=True) if not skip]
    run = _convert_sections(sections, search_depth)
    _tell(run.problems, verbose=False)
    return run


def _convert_sections(
    sections, search_depth, *, jobs=None, overwrite=False, dry_run=False, resume=False, watch=None
):
    """Do the work of :func:`convert_many` for [(kind, root)]; watch(iterable, total, what) shows progress."""
    from utils.fits_io.conversion_tables import with_earlier_rows, write_tables
    from utils.fits_io.raw_attempt import ERROR, plan_attempt
    from utils.fits_io.raw_batches import converted

    start = time.perf_counter()
    if not sections:
        raise OptionError("nothing to convert: all sections are skipped")
    run = Conversion()
    attempts = _attempts(sections, search_depth, run.problems)
    folder = _common_parent([root for _, root in sections])
    if not dry_run and not os.access(folder, os.W_OK):
        raise RefusedOutputError(f"{os.path.join(folder, INDEX_NAME)}: cannot write, no permission to write")
    run.index, run.report = os.path.join(folder, INDEX_NAME), os.path.join(folder, REPORT_NAME)
    planned = [(kind, path, *plan_attempt(path, kind)) for kind, path in attempts]
    frames = [frame for _, _, found, _ in planned for frame in found]
    for _, _, _, problems in planned:
        run.problems += problems
    # A config that describes no frame leaves none, but each of its raw files is listed.
    listed = [problem for problem in run.problems if problem.severity == ERROR and _is_raw(problem.path)]
    run.not_converted = len(listed)
    if not frames and not listed:
        folders = ", ".join(os.fspath(root) for _, root in sections)
        raise InputError(f"{folders}: {len(attempts)} attempts without a raw file, expected frames/*.raw")
    if not dry_run:
        _check_room(frames, folder)
    with contextlib.nullcontext() if dry_run else _alone(folder, frames):
        results = converted(frames, overwrite, dry_run, resume, jobs=jobs or usable_cores())
        for result in watch(results, len(frames), "frames") if watch else results:
            _note(run, result)
        if dry_run:
            _print_plan(planned, run)
        else:
            write_tables(run, with_earlier_rows(run, folder, [root for _, root in sections]))
    run.seconds = time.perf_counter() - start
    return run


@contextlib.contextmanager
def _alone(folder, frames):
    """Keep a second conversion out of the folder of the index, and clear away what a killed one left half-written."""
    from utils.application.run_journal import Journal, check_alone

    killed = check_alone(folder)
    lock = Journal(folder)
    try:
        if killed:
            LOGGER.info("%s: %s did not finish and holds no lock any more", folder, killed)
            for place in {os.path.dirname(frame.output) for frame in frames} | {folder}:
                for pattern in (".*.fits.*.tmp", f".{INDEX_NAME}.*.tmp", f".{REPORT_NAME}.*.tmp"):
                    for temporary in Path(place).glob(pattern):
                        temporary.unlink(missing_ok=True)
        yield
    finally:
        lock.close(remove=True)


def _attempts(sections, search_depth, problems):
    """[(kind, attempt path)] of all sections; what was not found goes to ``problems``."""
    from utils.fits_io.raw_attempt import ERROR, Problem

    found, owner, empty = [], {}, []
    for kind, root in sections:
        root = os.fspath(root)
        if not os.path.isdir(root):
            empty.append(Problem(root, ERROR, f"no such folder, expected the {kind} section"))
            continue
        depth = max(search_depth, BIAS_DEPTH) if kind == "BIAS" else search_depth
        paths, unreadable = find_attempts(root, depth)
        problems += [Problem(path, ERROR, reason) for path, reason in unreadable]
        if not paths:
            text = f"no attempt found down to {depth} levels below it: try --search-depth {depth + 2}"
            empty.append(Problem(root, ERROR, text))
        for path in paths:
            other = owner.setdefault(os.path.realpath(path), kind)
            if other != kind:
                raise OptionError(f"{path}: in both sections {other} and {kind}, expected separate folders")
            found.append((kind, path))
    if not found:
        raise InputError("; ".join(f"{problem.path}: {problem.reason}" for problem in empty))
    problems += empty
    return found


def _common_parent(roots):
    """Folder that holds all sections, as the user wrote it: relative where the sections are."""
    parents = [os.path.dirname(os.path.abspath(root)) for root in roots]
    folder = os.path.commonpath(parents)
    if all(os.path.isabs(root) for root in roots):
        return folder
    return os.path.relpath(folder)


def _check_room(frames, folder):
    """RefusedOutputError where the disk cannot hold the FITS files; those that stand there make room."""
    from utils.fits_io.free_space import check_room

    needed = sum(frame.attempt.n_bytes + _HEADER_BYTES for frame in frames)
    try:
        check_room(folder, needed)
    except RefusedOutputError:
        there = sum(os.path.getsize(frame.output) for frame in frames if os.path.isfile(frame.output))
        check_room(folder, needed, there)


def _note(run, result):
    """Add the result of one frame to the run."""
    run.problems += result.problems
    run.n_bytes += result.n_bytes
    if result.state == "bad":
        run.not_converted += 1
        return
    (run.converted if result.state == "converted" else run.kept).append(result.frame.output)
    run.badsize += result.badsize
    if result.reason:
        run.reasons[result.reason] += 1
    if result.row is not None:
        run.rows.append(result.row)


def _is_raw(path):
    return path.lower().endswith(".raw")


def _line(text):
    """One line that every terminal can show."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in writable(text))


def _tell(problems, verbose):
    """Log each problem in a line; the metadata of single frames only when asked (the report has them all)."""
    for problem in problems:
        if problem.severity == "ERROR" or verbose or not problem.detail:
            LOGGER.warning(_line(f"{problem.path}: {problem.reason}"))


def _print_plan(planned, run):
    """Tell what would be done, one line per attempt."""
    kept = set(run.kept)
    for kind, path, frames, _ in planned:
        current = sum(frame.output in kept for frame in frames)
        if frames:
            attempt = frames[0].attempt
            size = f"{attempt.shape[1]} x {attempt.shape[0]} pixels {attempt.pixels.name}"
            LOGGER.info(_line(f"{kind} {path}: {len(frames)} frames, {size}, {current} up to date"))
        else:
            LOGGER.info(_line(f"{kind} {path}: no frame to convert"))


def _summary(run, dry_run):
    bad = f"{run.badsize} BADSIZE, {run.not_converted} not converted"
    if dry_run:
        counts = f"{len(run.converted)} would be converted, {len(run.kept)} kept, {bad}"
        return f"dry run, nothing written: {counts}; the index would be {run.index}"
    counts = f"{len(run.converted)} converted, {len(run.kept)} kept, {bad}"
    rate = f" ({run.n_bytes / 1e6 / run.seconds:.0f} MB/s)" if run.n_bytes else ""
    text = f"{counts} in {run.seconds:.1f} s{rate}; index {run.index}"
    if run.problems:
        text += f"; {len(run.problems)} lines in {run.report}"
    return text


def _parser():
    parser = CommandParser(
        prog="raw_to_fits",
        description="Convert the raw frames of a campaign to FITS, with an index and a report.",
        epilog="--verbose also prints the warnings about the metadata of single frames, which the report "
        "always has. Status: 0 all converted, 1 a frame not converted or BADSIZE, 2 refused, 130 Ctrl-C.",
    )
    parser.add_argument("bias", metavar="BIAS", help="section with T<temp>/attempt<n>")
    parser.add_argument("dark", metavar="DARK", help="section of the darks, any folders between")
    parser.add_argument("flat", metavar="FLAT", help="section of the flats, any folders between")
    parser.add_argument(
        *both("search-depth"),
        type=positive_integer,
        default=SEARCH_DEPTH,
        metavar="N",
        help="levels of folders below a section in which attempts are looked for",
    )
    for kind in KINDS:
        name = kind.lower()
        parser.add_argument(*both(f"skip-{name}"), action="store_true", help=f"leave the {kind} section out")
    parser.add_argument("--overwrite", action="store_true", help="convert up-to-date FITS files again, too")
    add_shared_options(parser, ("resume", "jobs", "scheduler", "dry-run", "verbose", "quiet", "log-file"))
    return parser


def _run(argv):
    options = _parser().parse_args(argv)
    verbose = bool(getattr(options, "verbose", False))
    quiet = bool(getattr(options, "quiet", False))
    setup_logging(verbose - quiet, getattr(options, "log_file", None))
    sections = [
        (kind, getattr(options, kind.lower()))
        for kind in KINDS
        if not getattr(options, f"skip_{kind.lower()}")
    ]
    for kind, root in sections:
        if not os.path.isdir(root):
            raise InputError(f"{root}: no such folder, expected the {kind} section (--skip-{kind.lower()})")
    dry_run, resume = bool(getattr(options, "dry_run", False)), bool(getattr(options, "resume", False))
    if resume and options.overwrite:
        raise OptionError(
            "--resume: got --overwrite too, which converts everything again; expected one of them"
        )
    jobs = getattr(options, "jobs", None) or usable_cores()
    with cluster.connect(getattr(options, "scheduler", None), jobs=jobs, show=progress):
        run = _convert_sections(
            sections,
            options.search_depth,
            jobs=jobs,
            overwrite=options.overwrite,
            dry_run=dry_run,
            resume=resume,
            watch=progress,
        )
    _tell(run.problems, verbose)
    if resume:
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in run.reasons.most_common())
            or "none missing or stale"
        )
        LOGGER.info(
            "resume: %d of %d FITS files kept (%s)",
            len(run.kept),
            len(run.kept) + len(run.converted),
            reasons,
        )
    LOGGER.info(_line(_summary(run, dry_run)))
    return run.status


def main(argv=None):
    """Run the command with ``argv`` (default: the command line) and return its exit status."""
    return run_command(_run, argv)


if __name__ == "__main__":
    sys.exit(main())
