"""One attempt of raw frames to FITS: first the plan (config, log, row of each file), then the frames."""

import os
import stat
from dataclasses import dataclass, field

from utils.errors import InputError, OptionError
from utils.fits_io.atomic import RefusedOutputError
from utils.fits_io.capture_log import plain_name, read_config, read_log, shown
from utils.fits_io.fits_cards import BLOCK, card_value
from utils.fits_io.frame_cards import (
    HeaderPlan,
    cards_text,
    kind_cards,
    measured_cards,
    plan_header,
    structure_cards,
)
from utils.fits_io.header_scan import scan_header
from utils.fits_io.keywords import ALIASES
from utils.fits_io.log_rows import match_rows
from utils.fits_io.raw_frame import write_frame
from utils.fits_io.raw_tree import look_into, parse_filename_metadata, parse_frame_number
from utils.kernels.raw_decode import PixelFormat, pixel_format

DEFAULT_SIDE = 2048
LARGEST_SIDE = 65535
LARGEST_FRAME = 1 << 30  # pixels: a larger frame is a misprint in the config
# A column is called as the header keyword it holds, so that a row reads like the header.
INDEX_COLUMNS = (
    *("PATH", "RELPATH", "CALTYPE", "FRAMENUM", "EXPTIME", "REXPTIME", "TEMP", "TEMP_0", "GAIN", "FILETEMP"),
    *("EQTEMP", "BADSIZE", "NAXIS1", "NAXIS2", "BITPIX", "BZERO", "BSCALE", "DATAOFF", "DATASUM", "TIMESTMP"),
    *("DATE-OBS", "FILTER", "EGAIN", "XBINNING", "YBINNING", "INSTRUME", "BITDEPTH", "SATURATE"),
    *("SIZE", "MTIME_NS"),
)
ERROR, WARNING = "ERROR", "WARNING"
_BYTE_ORDERS = {"little": "little", "le": "little", "big": "big", "be": "big"}
_KINDS = {"bias": "BIAS", "dark": "DARK", "darks": "DARK", "flat": "FLAT", "flats": "FLAT"}

# Columns only where a frame has them: what else readers ask for, less what repeats a column.
_SAID_ALREADY = frozenset({"IMAGETYP", "CCD-TEMP", "TIMESTAMP"})
INDEX_EXTRAS = tuple(sorted(frozenset().union(*ALIASES.values()) - set(INDEX_COLUMNS) - _SAID_ALREADY))


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of conversion_report.csv; ``detail``: metadata of single frames, printed with --verbose."""

    path: str
    severity: str
    reason: str
    detail: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the frames of an attempt share. ``newest``: mtime [ns] of the younger of config and log."""

    path: str
    calibration: str
    shape: tuple
    pixels: PixelFormat
    byte_order: str
    assumed: bool  # shape or depth are defaults: only a file of that size is converted
    header: HeaderPlan
    newest: int

    @property
    def n_bytes(self):
        """Bytes of the samples of one frame, as a FITS file has them."""
        return self.shape[0] * self.shape[1] * self.pixels.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Frame:
    """One raw file to convert: row is its log row or None."""

    attempt: Attempt
    raw: str
    output: str
    row: tuple | None
    problems: tuple


@dataclass(slots=True)
class Result:
    """What became of a raw file: state 'converted', 'kept' or 'bad' (no FITS), its index row, bytes read.

    reason : why its FITS file was not kept.
    """

    frame: Frame
    state: str
    row: dict | None = None
    problems: list = field(default_factory=list)
    n_bytes: int = 0
    badsize: bool = False
    reason: str = ""


def caltype(calibration):
    """BIAS, DARK or FLAT. Raises OptionError for anything else."""
    try:
        return _KINDS[str(calibration).strip().lower()]
    except KeyError:
        raise OptionError(f"calibration {calibration!r}, expected BIAS, DARK or FLAT") from None


def plan_attempt(path, calibration, raw_subdir="frames"):
    """Read config and log of an attempt and give each raw file its log row.

    Returns (frames, problems). A config that describes no frame leaves no frames: each raw file is listed.
    """
    calibration = caltype(calibration)
    path = os.fspath(path)
    try:
        folder = look_into(path)
        subfolder = folder.named(raw_subdir)
        raws = look_into(subfolder).raws if subfolder else ()
    except OSError as error:
        return [], [Problem(path, ERROR, f"folder cannot be read ({error.strerror})")]
    problems = []
    if raws and folder.raws:
        text = f"{len(folder.raws)} raw files beside {raw_subdir}/ are not converted"
        problems.append(Problem(path, WARNING, text))
    raws = raws or folder.raws
    if not raws:
        return [], [Problem(path, WARNING, "no raw file")]
    config = _read(read_config, folder.config, problems)
    log = _read(read_log, folder.log, problems)
    if folder.config is None:
        text = f"no configFile.txt: {DEFAULT_SIDE} x {DEFAULT_SIDE} pixels of 16 bits where the size fits"
        problems.append(Problem(path, WARNING, text))
    if folder.log is None:
        problems.append(Problem(path, WARNING, "no temperatureLog.csv: frames without temperature"))
    try:
        shape, pixels, byte_order, depth, assumed = _geometry(config or {}, folder.config, problems)
    except InputError as error:
        return [], problems + [Problem(raw, ERROR, f"not converted: {error}") for raw in raws]
    header = plan_header(config, log, depth)
    problems += [Problem(folder.log, WARNING, text) for text in header.problems]
    newest = max((os.stat(file).st_mtime_ns for file in (folder.config, folder.log) if file), default=0)
    attempt = Attempt(path, calibration, shape, pixels, byte_order, assumed, header, newest)
    rows, notes, details = match_rows(raws, log, header)
    problems += [Problem(path, WARNING, text) for text in notes]
    problems += [Problem(folder.log, WARNING, text, detail=True) for text in details]
    frames, outputs = [], {}
    for raw, (row, notes) in zip(raws, rows, strict=True):
        output = os.path.join(path, "fits", os.path.splitext(os.path.basename(raw))[0] + ".fits")
        other = outputs.setdefault(output, raw)
        if other != raw:
            text = f"not converted: {os.path.basename(other)} has the same name in fits/"
            problems.append(Problem(raw, ERROR, text))
            continue
        frames.append(Frame(attempt, raw, output, row, notes))
    return frames, problems


def _read(reader, path, problems):
    """Config or log with its problems listed; None where absent or unreadable."""
    if path is None:
        return None
    try:
        content = reader(path)
    except InputError as error:
        problems.append(Problem(path, WARNING, str(error).removeprefix(f"{path}: ")))
        return None
    problems += [Problem(path, WARNING, text, detail=True) for text in content.problems]
    return content


def _geometry(config, path, problems):
    """Shape, PixelFormat, byte order, bit depth, whether defaults are in it; InputError if impossible."""
    sides = []
    for key in ("HEIGHT", "WIDTH"):
        side = config.get(key, DEFAULT_SIDE)
        if isinstance(side, float) and side.is_integer():
            side = int(side)
        if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= LARGEST_SIDE:
            raise InputError(f"{key} is {shown(str(side))}, expected 1 to {LARGEST_SIDE}")
        sides.append(side)
    if sides[0] * sides[1] > LARGEST_FRAME:
        raise InputError(f"{sides[1]} x {sides[0]} pixels, expected at most {LARGEST_FRAME}")
    name, depth = config.get("PIXEL_FORMAT"), config.get("BIT_DEPTH")
    try:
        pixels = pixel_format(name, 16 if depth is None else depth)
    except ValueError as error:
        raise InputError(str(error)) from None
    if name is None or pixels.name == "Mono16":
        valid = isinstance(depth, int) and not isinstance(depth, bool) and 1 <= depth <= 16
        bits = depth if valid else pixels.bits
    else:
        bits = pixels.bits
    if depth is not None and depth != bits:
        text = f"BIT_DEPTH is {shown(str(depth))}, but PIXEL_FORMAT {pixels.name} has {bits} bits"
        problems.append(Problem(path, WARNING, text))
    told = str(config.get("BYTE_ORDER", "little"))
    if (byte_order := _BYTE_ORDERS.get(plain_name(told).removesuffix("endian"))) is None:
        raise InputError(f"BYTE_ORDER is {shown(told)}, expected little or big")
    missing = [key for key in ("WIDTH", "HEIGHT") if key not in config]
    if path is not None and missing:
        text = f"no {' and '.join(missing)}: {DEFAULT_SIDE} where the file size fits it"
        problems.append(Problem(path, WARNING, text))
    return tuple(sides), pixels, byte_order, bits, bool(missing)


def convert_frame(frame, overwrite=False, dry_run=False, resume=False):
    """Convert one raw file, or keep its FITS file where that is up to date; ``dry_run``: only tell which.

    resume : a FITS file is kept only where its header is what this version would write from config and log.
    Returns a Result; whatever is wrong with this frame is in its problems. Raises OutputError when the disk
    is full.
    """
    result = Result(frame, "bad")
    try:
        if not stat.S_ISREG(os.stat(frame.raw).st_mode):
            # A pipe called *.raw would be waited for for ever.
            raise OSError("not a regular file")
        with open(frame.raw, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            result.reason = "" if overwrite else _keep(frame, status, result, resume)
            if result.state == "kept":
                return result
            _convert(frame, stream, status.st_size, dry_run, result)
    except RefusedOutputError as error:
        result.problems.append(Problem(frame.raw, ERROR, f"not converted: {error}"))
    except OSError as error:
        result.problems.append(Problem(frame.raw, ERROR, f"not converted: {error.strerror or error}"))
    return result


def _convert(frame, stream, size, dry_run, result):
    """Read, decode and write one frame, and note in ``result`` what became of it."""
    attempt = frame.attempt
    ny, nx = attempt.shape
    sizes = _sizes(attempt)
    expected = " or ".join(map(str, sizes))
    if size not in sizes and attempt.assumed:
        text = f"not converted: frame size not told, and {size} bytes are not {nx} x {ny} pixels ({expected})"
        result.problems.append(Problem(frame.raw, ERROR, text))
        return
    result.badsize = size not in sizes
    if result.badsize:
        how = "padded with zeros" if size < sizes[0] else "cut"
        text = f"BADSIZE: {size} bytes, expected {expected} ({nx} x {ny}, {attempt.pixels.name}): {how}"
        result.problems.append(Problem(frame.raw, ERROR, text))
    if dry_run:
        result.state = "converted"
        return
    bits = 8 * attempt.pixels.dtype.itemsize
    cards, notes = frame_cards(frame, result.badsize, bits)
    data_sum, offset = write_frame(
        stream, frame.output, cards_text(cards), attempt.shape, attempt.pixels, attempt.byte_order
    )
    written = os.stat(frame.output)
    result.state, result.n_bytes = "converted", size
    values = {keyword: value for keyword, value, _ in cards}
    values.update(DATASUM=str(data_sum), DATAOFF=offset)
    values.update(SIZE=written.st_size, MTIME_NS=written.st_mtime_ns)
    result.row = index_row(frame.output, values)
    result.problems += _detail(frame, notes)


def _sizes(attempt):
    """Sizes [bytes] that a raw file of the attempt may have."""
    ny, nx = attempt.shape
    return attempt.pixels.frame_sizes(ny * nx)


def _keep(frame, raw_status, result, exact):
    """Keep a FITS file that is newer than raw file, config and log, whole, of the same kind and shape.

    exact : its header must be what would be written now.  Returns why it is not kept, else an empty text.
    """
    try:
        written = os.stat(frame.output)
    except OSError:
        return "missing"
    if written.st_mtime_ns <= max(raw_status.st_mtime_ns, frame.attempt.newest):
        return "older than raw file, config or log"
    try:
        image = scan_header(frame.output)
    except InputError:
        return "damaged"
    ny, nx = frame.attempt.shape
    bits = 8 * frame.attempt.pixels.dtype.itemsize
    padded = -(-ny * nx * bits // 8 // BLOCK) * BLOCK
    if not (image.shape == (ny, nx) and image.bitpix == bits and image.size == image.offset + padded):
        return "damaged"
    sizes = _sizes(frame.attempt)
    badsize = raw_status.st_size not in sizes
    same = image.cards.get("CALTYPE") == frame.attempt.calibration
    if not same or bool(image.cards.get("BADSIZE")) != badsize:
        return "other kind"
    cards, notes = frame_cards(frame, badsize, bits)
    if exact and not _begins_with(frame.output, cards_text(cards)):
        return "other header"
    result.state = "kept"
    values = {**image.cards, "DATAOFF": image.offset, "SIZE": image.size, "MTIME_NS": image.mtime_ns}
    result.row = index_row(frame.output, values)
    result.badsize = badsize
    if badsize:
        expected = " or ".join(map(str, sizes))
        text = f"BADSIZE: {raw_status.st_size} bytes, expected {expected} (kept as it was)"
        result.problems.append(Problem(frame.raw, ERROR, text))
    result.problems += _detail(frame, notes)
    return ""


def _begins_with(path, text):
    with open(path, "rb", buffering=0) as stream:
        return stream.read(len(text)) == text.encode("latin-1")


def _detail(frame, notes):
    return [Problem(frame.raw, WARNING, text, detail=True) for text in (*frame.problems, *notes)]


def frame_cards(frame, badsize, bits):
    """All cards of a frame as (keyword, value, comment), and the problems of its metadata."""
    header = frame.attempt.header
    exposure, temperature = parse_filename_metadata(frame.raw)
    measured, notes = measured_cards(header, frame.row, exposure, temperature, parse_frame_number(frame.raw))
    cards = structure_cards(frame.attempt.shape, bits)
    cards += kind_cards(frame.attempt.calibration, badsize, os.path.basename(frame.raw))
    return [*cards, *measured, *header.constant], notes


def index_row(path, values):
    """Row of fits_index.csv from header values (RELPATH is filled in by the writer of the index)."""
    return {
        "PATH": path,
        **{name: card_value(values[name]) for name in (*INDEX_COLUMNS, *INDEX_EXTRAS) if name in values},
    }
