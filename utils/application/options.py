"""Options that all pipelines share: one spelling, one meaning, one check, before any file is opened."""

import argparse
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from utils.errors import OptionError
from utils.version import __version__

COMBINE = ("sigclip", "median", "mean")
PLOTS = ("all", "summary", "none")
CLIP_SIGMA = 4.0
FEW_GROUPS, SMALL_GROUPS = 12, 4 << 20
"""Groups, and their pixels together, of which every one is drawn without being asked for."""
PROGRAM_BYTES = 200 << 20
"""Memory of the program and its packages."""
_BYTES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_BINARY_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SMALLEST_MEMORY = 16 * 1000**2
_NUMBERS = ("clip_sigma", "temp_tolerance", "adu_scale", "saturation", "gain", "jobs", "memory_limit")


class CommandParser(argparse.ArgumentParser):
    """The parser of every command: a mistake is one line on stderr and status 2; --version is built in.

    Options are never abbreviated: what works today must not become ambiguous with tomorrow's option.
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message):
        """Print one line and leave with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (--help tells the options)\n")


def both(name):
    """Give the two spellings of an option: both("output-dir") is ("--output-dir", "--output_dir")."""
    dashed = "--" + name.replace("_", "-")
    underscored = "--" + name.replace("-", "_")
    return (dashed,) if dashed == underscored else (dashed, underscored)


def given_options(parser, argv):
    """Names of the options that the command line gives, as 'norm-method'; defaults are not given.

    argv : what ``parser`` has parsed without a mistake.
    """
    absent = object()
    preset = argparse.Namespace()
    for action in parser._actions:
        if action.default is not argparse.SUPPRESS:
            setattr(preset, action.dest, absent)
    parsed = vars(parser.parse_args(argv, preset))
    return {name.replace("_", "-") for name, value in parsed.items() if value is not absent}


def refuse_unused(given, used, mode):
    """Raise OptionError for an option that was given and the mode cannot honour; names as of `given_options`."""
    idle = sorted(set(given) - set(used))
    if idle:
        names = ", ".join(f"--{name}" for name in idle)
        raise OptionError(
            f"{names}: got --mode {mode}, which does not use {'it' if len(idle) == 1 else 'them'}"
        )


# --- values: each raises ArgumentTypeError, which argparse turns to its one line -------------------------


def positive_number(text):
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return value


def positive_integer(text):
    """Parse a whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number above 0")
    return value


def auto_or_number(text):
    """Parse 'auto' or a finite number above 0."""
    return "auto" if text.strip().lower() == "auto" else positive_number(text)


def byte_count(text):
    """Parse an amount of memory: '2GB', '512 MiB', '1.5g', '800000000' (bytes)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(I?)B?\s*", text.upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an amount of memory as 2GB or 512MB")
    return int(float(match[1]) * (_BINARY_BYTES if match[3] else _BYTES)[match[2]])


def key_value(text):
    """Check the form KEY=VALUE."""
    key, equal, value = text.partition("=")
    if not (key.strip() and equal and value.strip()):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KEY=VALUE")
    return text


def parse_numbers(words, option="--temps"):
    """Turn the words of an option to numbers: one string "T1 T2", several words, or commas between them.

    Returns a tuple of floats in the order given, without repetitions; None stays None.
    Raises OptionError that names the option for anything that is not a finite number, and for none at all.
    """
    if words is None:
        return None
    words = [words] if isinstance(words, str) else words
    pieces = [piece for word in words for piece in re.split(r"[\s,;]+", str(word)) if piece]
    numbers = []
    for piece in pieces:
        try:
            number = float(piece)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise OptionError(f"{option}: got {piece!r}, expected numbers")
        numbers.append(number)
    if not numbers:
        raise OptionError(f"{option}: got no number")
    return tuple(dict.fromkeys(numbers))


def usable_cores():
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- the options ----------------------------------------------------------------------------------------

_OPTIONS = {
    "basepath": dict(type=Path, metavar="DIR", help="folder with the frames"),
    "output-dir": dict(type=Path, metavar="OUT", help="folder for the products"),
    "select": dict(
        action="append",
        type=key_value,
        metavar="KEY=VALUE",
        help="take only these frames; repeatable; keys: gain, binning, filter, camera, shape",
    ),
    "combine": dict(choices=COMBINE, default="sigclip", help="how frames are combined to a master"),
    "clip-sigma": dict(
        type=positive_number, metavar="K", help=f"limit of the clipped mean (default: {CLIP_SIGMA:g})"
    ),
    "temp-tolerance": dict(
        type=positive_number,
        default=0.5,
        metavar="DEGC",
        help="half the largest width of a temperature group",
    ),
    "adu-scale": dict(
        type=auto_or_number,
        default="auto",
        metavar="{auto,NUMBER}",
        help="divisor from stored samples to ADU (16 for 12 bits stored left-justified in 16)",
    ),
    "saturation": dict(
        type=auto_or_number, default="auto", metavar="{auto,NUMBER}", help="saturation level [product ADU]"
    ),
    "gain": dict(type=positive_number, metavar="NUMBER", help="conversion gain [e-/ADU]"),
    "detector": dict(type=Path, metavar="FILE", help="detector.json: gain and read noise of this camera"),
    "jobs": dict(type=positive_integer, metavar="N", help="parallel jobs (default: the usable cores)"),
    "memory-limit": dict(
        type=byte_count, default="2GB", metavar="SIZE", help="memory for blocks of frames, as 2GB or 512MB"
    ),
    "scheduler": dict(
        metavar="ADDRESS",
        help="work on a Dask cluster: tcp://HOST:PORT, the JSON file of its scheduler, or local[:N] for N workers here",
    ),
    "overwrite": dict(action="store_true", help="write over files that no earlier run made"),
    "resume": dict(
        action="store_true", help="keep what earlier runs made from the same, make what is missing or stale"
    ),
    "dry-run": dict(action="store_true", help="print the groups and what would be written, write nothing"),
    "plots": dict(choices=PLOTS, default="summary", help="which pictures are made"),
    "verbose": dict(action="store_true", help="say more"),
    "quiet": dict(action="store_true", help="print warnings and errors only"),
    "log-file": dict(type=Path, metavar="FILE", help="append the log, with times, to this file"),
}
SHARED_OPTIONS = tuple(_OPTIONS)
ALWAYS = frozenset(
    (
        *("mode", "basepath", "output-dir", "jobs", "memory-limit", "overwrite", "resume", "dry-run"),
        *("plots", "verbose", "quiet", "log-file"),
    )
)
"""Where things are and how a run is made, which no number depends on: every mode of a pipeline takes these."""


def add_shared_options(parser, names=SHARED_OPTIONS, **defaults):
    """Add the shared options called ``names`` (as 'output-dir') to ``parser``, each in both spellings.

    defaults : other defaults for this command, as output_dir="bias_output".
    Raises ValueError for a name that is not a shared option.
    """
    unknown = set(names) - set(_OPTIONS) | {key for key in defaults if key.replace("_", "-") not in names}
    if unknown:
        raise ValueError(f"not shared options: {', '.join(sorted(unknown))}")
    group = parser.add_argument_group("shared options")
    loudness = group.add_mutually_exclusive_group()
    for name in names:
        settings = dict(_OPTIONS[name])
        settings.setdefault("default", argparse.SUPPRESS)  # no "(default: None)" in the help
        key = name.replace("-", "_")
        if key in defaults:
            settings["default"] = defaults[key]
        (loudness if name in ("verbose", "quiet") else group).add_argument(*both(name), dest=key, **settings)


@dataclass(frozen=True)
class SharedOptions:
    """Values of the shared options, checked alone and together.

    Raises OptionError, one line, for a value that cannot be used.
    """

    basepath: Path | None = None
    output_dir: Path | None = None
    select: tuple[str, ...] = ()
    combine: str = "sigclip"
    clip_sigma: float = CLIP_SIGMA
    temp_tolerance: float = 0.5  # degC
    adu_scale: float | str = "auto"  # stored samples per product ADU
    saturation: float | str = "auto"  # product ADU
    gain: float | None = None  # e-/ADU
    detector: Path | None = None  # detector.json
    jobs: int | None = None  # None: the usable cores
    memory_limit: int = 2 * 1000**3  # bytes
    scheduler: str | None = None  # address of a Dask scheduler, or local[:N]
    overwrite: bool = False
    resume: bool = False
    dry_run: bool = False
    plots: str = "summary"
    verbosity: int = 0  # -1 quiet, 0 one line per step, 1 verbose
    log_file: Path | None = None

    def __post_init__(self):
        for name in ("basepath", "output_dir", "log_file", "detector"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Path(value))
        object.__setattr__(self, "select", tuple(self.select))
        if self.jobs is None:
            object.__setattr__(self, "jobs", usable_cores())
        self._check_values()
        self._check_folders()
        self.load_detector()

    @classmethod
    def from_args(cls, args):
        """Take the shared options out of a parsed command line; what the parser lacks keeps its default."""
        given = vars(args)
        names = [name for name in cls.__dataclass_fields__ if given.get(name) is not None]
        values = {name: given[name] for name in names}
        if "clip_sigma" in values and values.get("combine", "sigclip") != "sigclip":
            raise OptionError(f"--clip-sigma: works with --combine sigclip only, got {values['combine']}")
        values["verbosity"] = bool(given.get("verbose")) - bool(given.get("quiet"))
        return cls(**values)

    def _check_values(self):
        for name, allowed in (("combine", COMBINE), ("plots", PLOTS)):
            if getattr(self, name) not in allowed:
                choices = ", ".join(allowed)
                raise OptionError(f"{_flag(name)}: got {getattr(self, name)!r}, expected one of {choices}")
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is None and name == "gain":
                continue
            if value == "auto" and name in ("adu_scale", "saturation"):
                continue
            if isinstance(value, (str, bool)) or not (math.isfinite(value) and value > 0):
                raise OptionError(f"{_flag(name)}: got {value!r}, expected a number above 0")
        if self.clip_sigma < 1:
            raise OptionError(f"--clip-sigma: got {self.clip_sigma:g}, expected 1 or more")
        if self.memory_limit < _SMALLEST_MEMORY:
            least = f"{_SMALLEST_MEMORY // 10**6}MB"
            raise OptionError(f"--memory-limit: got {self.memory_limit} bytes, expected at least {least}")

    def _check_folders(self):
        if self.basepath is not None and not self.basepath.is_dir():
            what = "a file" if self.basepath.exists() else "no such folder"
            raise OptionError(f"--basepath {self.basepath}: got {what}, expected the folder with the frames")
        if self.output_dir is None:
            return
        if self.output_dir.exists() and not self.output_dir.is_dir():
            raise OptionError(f"--output-dir {self.output_dir}: got a file, expected a folder")
        if self.basepath is not None and self.basepath.resolve().is_relative_to(self.output_dir.resolve()):
            raise OptionError(
                f"--output-dir {self.output_dir}: holds --basepath {self.basepath}, expected another folder "
                "(what lies in the output folder is never taken for input)"
            )

    def cluster(self):
        """Context in which the work goes to the cluster of --scheduler; nothing happens where it was not given."""
        from utils.application.log import progress
        from utils.fits_io.cluster import connect

        return connect(self.scheduler, memory_limit=self.memory_limit, jobs=self.jobs, show=progress)

    def pictured(self, count, shape, summary):
        """Indices of ``count`` groups of frames (ny, nx) that get pictures of their own.

        All with --plots all, and with --plots summary where they are few and small; else those of ``summary``; or none.
        """
        if self.plots == "none":
            return []
        few = count <= FEW_GROUPS and count * shape[0] * shape[1] <= SMALL_GROUPS
        return list(range(count)) if self.plots == "all" or few else sorted(set(summary))

    def tasks_at_once(self, shape, pixel_bytes, waiting=0):
        """How many tasks may be under way, by --jobs and --memory-limit: at least 1.

        pixel_bytes : memory of a task for each pixel of a map of ``shape``.  waiting : bytes that are kept meanwhile.
        """
        room = (self.memory_limit - PROGRAM_BYTES - waiting) // max(1, pixel_bytes * math.prod(shape))
        return max(1, min(self.jobs, room))

    def load_detector(self):
        """Return the `Detector` of --detector, or None where it was not given; InputError where it is unusable."""
        if self.detector is None:
            return None
        from utils.domain.detector import Detector

        return Detector.load(self.detector)

    def egain(self, header, adu_scale):
        """Conversion gain [e-/product ADU]: --gain, else --detector, else the frames' EGAIN, else None.

        header : EGAIN of the frames, per stored unit, or None.  adu_scale : stored units per product ADU.
        Raises InputError where the detector's ADU scale is not that of the frames.
        """
        if self.gain is not None:
            return self.gain
        detector = self.load_detector()
        if detector is not None:
            detector.check_scale(adu_scale, "the frames")
            return detector.gain.value
        return header * adu_scale if header else None

    def need_basepath(self):
        """Return basepath; OptionError where it was not given (for the modes that read frames)."""
        if self.basepath is None:
            raise OptionError("--basepath: got none, expected the folder with the frames")
        return self.basepath


def _flag(name):
    return "--" + name.replace("_", "-")
