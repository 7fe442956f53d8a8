"""Write the FITS products of the pipelines: value, uncertainty, mask, quality bits and the table of inputs.

A product is one file that explains itself: primary image, ``UNCERT``, ``MASK``, ``DQ``, further planes,
``INPUTS``, and headers that hold the model equation, its constants and the options that mattered (given by
the caller). It is valid under fitsverify, opens with ``CCDData.read(path)`` as it is, and appears under its
name only when whole. :mod:`utils.fits_io.product_reader` reads it back.

Everything is serialised here, without astropy: the import alone would take longer than writing a 4-megapixel
product.
"""

import os
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from enum import IntFlag

import numpy as np

from utils.errors import OptionError
from utils.fits_io.fits_cards import BLOCK, card, datasum, finish_header, text_cards
from utils.fits_io.plane_writer import ComputedPlane, ImagesFile, write_images
from utils.fits_io.validity import validity_cards
from utils.version import __version__

PROGRAM = "Calibration Pipelines"


class DQ(IntFlag):
    """Bits of the DQ plane (int16)."""

    DO_NOT_USE = 1
    SATURATED = 2
    DEAD = 4
    HOT = 8
    LOW_QE = 16
    NOISY = 32
    TELEGRAPH = 64
    WARM = 128
    UNRELIABLE_FIT = 256
    NO_DATA = 512


DQ_NAMES = tuple(bit.name for bit in DQ)
DQ_MEANING = {
    DQ.DO_NOT_USE: "not usable: masked",
    DQ.SATURATED: "saturated in at least one input",
    DQ.DEAD: "response below the dead limit",
    DQ.HOT: "dark current above the hot limit",
    DQ.LOW_QE: "response below the low-QE limit",
    DQ.NOISY: "scatter above the noise model",
    DQ.TELEGRAPH: "jumps between two levels",
    DQ.WARM: "dark current above the warm limit",
    DQ.UNRELIABLE_FIT: "the model does not describe the pixel",
    DQ.NO_DATA: "no usable sample: masked",
}
# A pixel with one of these bits, or without a finite value, is masked.
MASKED = DQ.DO_NOT_USE | DQ.NO_DATA

MOST_OPEN = 16
"""Files that are written at a time."""
_OWN_KEYWORDS = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|END|CONTINUE|COMMENT|HISTORY"
    r"|CHECKSUM|DATASUM|EXTNAME|EXTVER|UTYPE|PRODTYPE|BUNIT|DATE|TIMESYS|PROGRAM|PROGVER|DQBIT\d)\Z"
)
_DATE_KEYWORD = re.compile(r"DATE-(OBS|BEG|AVG|END)\Z")
_BITPIX = {"uint8": 8, "int16": 16, "int32": 32, "float32": -32}
_STORED = {np.dtype(bool): np.dtype(np.uint8)} | {
    np.dtype(name): np.dtype(name).newbyteorder(">") for name in _BITPIX
}


def write_product(
    path, data, *, prodtype, unit, cards=None, uncert=None, dq=None, inputs=None, extra=(), history=(), jobs=1
):
    """Write one product, atomically.

    Parameters
    ----------
    path : path of the file; its folder is made.
    data : (ny, nx) float, stored as float32, NaN where there is no value; or uint8/bool, stored as BITPIX 8
        (hot-pixel masks: no MASK and DQ planes unless ``dq`` is given).
    prodtype : str, the value of PRODTYPE (MASTER_BIAS ...), never empty.
    unit : str, BUNIT of data and uncertainty as FITS spells it ('adu', 'adu/s', '' for none).
    cards : mapping keyword -> value or (value, comment), in the order of the header; None leaves the card
        out. With DATE-OBS, DATE-BEG, DATE-AVG and DATE-END (ISO text, UTC) the MJD- card is written too.
        What this function writes itself (structure, PRODTYPE, BUNIT, DATE, TIMESYS, PROGRAM, PROGVER,
        DQBITn, checksums) may not be among them. For which frames the product holds is added from them
        (:mod:`utils.fits_io.validity`).
    uncert : (ny, nx) 1 sigma in the unit of data, or None.
    dq : (ny, nx) integer of :class:`DQ` bits, or None (all 0). NO_DATA is added where data is not finite.
    inputs : list of mappings file, temperature [degC], exposure [s], time [s, Unix, UTC], datasum (str),
        None where unknown; becomes the INPUTS table.
    extra : sequence of (extname, array, unit): further images; floats are stored as float32, uint8, int16
        and int32 as they are.
    history : sequence of str, HISTORY cards of the primary header.
    jobs : workers that serialise and write.

    Any plane may be a :class:`utils.fits_io.plane_writer.ComputedPlane`, computed while it is written.

    Raises
    ------
    ValueError, TypeError: shapes, types, keywords that do not fit (a mistake of the caller).
    OutputError, RefusedOutputError: disk full, read-only; nothing is left under this name then.
    OptionError: SOURCE_DATE_EPOCH is set and is not a number of seconds.
    """
    described = {
        "prodtype": prodtype,
        "unit": unit,
        "cards": cards,
        "uncert": uncert,
        "dq": dq,
        "extra": extra,
    }
    described |= {"inputs": inputs, "history": history}
    write_products([(path, data, described)], jobs)


def write_products(products, jobs=1, done=None, together=1):
    """Write several products as `write_product` does: workers, which start once, share the pieces of all of them.

    products : sequence of (path, data, dict of the other parameters).  done : called with the number of each as soon as it
    stands under its name.  together : so many in a row share planes that are computed while they are written.
    """
    most = max(1, MOST_OPEN // together) * together
    for first in range(0, len(products), most):
        with ExitStack() as unfinished:
            files, sources, tails, ends = [], [], [], []
            for path, data, described in products[first : first + most]:
                inputs = described.get("inputs")
                planes = {name: value for name, value in described.items() if name != "inputs"}
                file, source, table_of = begin_product(path, data, **planes)
                ends.append(unfinished.enter_context(ExitStack()))
                files.append(ends[-1].enter_context(file))
                sources.append(source)
                tails.append(table_of(inputs))

            def finish(number, sums, first=first, files=files, tails=tails, ends=ends):
                files[number].finish(sums, tails[number])
                ends[number].close()
                if done is not None:
                    done(first + number)

            write_images(files, sources, finish, jobs, together)


def begin_product(path, data, *, prodtype, unit, cards=None, uncert=None, dq=None, extra=(), history=()):
    """Plan a product that the caller stores piece by piece: what `write_product` does at once, with its parameters.

    Returns the `ImagesFile` to be opened and finished, the function that gives the values of all its images for a slice
    of flat pixels, and the function that makes the tail of the file of the list of inputs.
    """
    if not prodtype:
        raise ValueError("prodtype is empty: a product must say what it is")
    data = _storable(data, "data")
    if data.ndim != 2 or data.size == 0:
        raise ValueError(f"data must be (ny, nx) and not empty, got shape {data.shape}")
    with_quality = dq is not None or data.dtype.kind == "f"
    common = card("PRODTYPE", prodtype, "kind of product")
    user_cards = _user_cards(cards or {})
    user_cards += _user_cards(validity_cards(cards or {}))
    bits = "".join(
        card(f"DQBIT{n}", bit.name, f"DQ {bit.value}: {DQ_MEANING[bit]}") for n, bit in enumerate(DQ)
    )
    head = [
        common,
        card("BUNIT", unit, "unit of the image"),
        user_cards,
        card("TIMESYS", "UTC", "time system of all dates"),
        card("DATE", _now(), "when this file was written"),
        card("PROGRAM", PROGRAM, "what wrote this file"),
        card("PROGVER", __version__, "version of the program"),
        bits if with_quality else "",
        "".join(text_cards("HISTORY", line) for line in history),
    ]
    units = card("BUNIT", unit, "unit of the image")
    planes = [(None, data, "".join(head))]
    if uncert is not None:
        kind = card("UTYPE", "StdDevUncertainty", "1 sigma")
        planes.append(("UNCERT", _storable(uncert, "uncert", data.shape), common + units + kind))
    quality = len(planes)
    if with_quality:
        if dq is not None:
            _check_quality(dq, data.shape)
        text = text_cards("COMMENT", "0: usable, 1: not usable")
        planes.append(("MASK", np.empty(data.shape, np.uint8), common + text))
        planes.append(("DQ", np.empty(data.shape, np.int16), common + bits))
    for name, array, plane_unit in extra:
        of_plane = common + card("BUNIT", plane_unit, "unit of the image")
        planes.append((name, _storable(array, name, data.shape), of_plane))
    sources = [_flat(array) for _, array, _ in planes]
    flags = None if dq is None else _flat(dq)

    def source(part):
        values = [
            None if quality <= n < quality + 2 * with_quality else s[part] for n, s in enumerate(sources)
        ]
        if with_quality:
            values[quality + 1], values[quality] = _quality(values[0], None if flags is None else flags[part])
        return values

    images = [(_image_cards(name, array, cards), _stored_type(array, name)) for name, array, cards in planes]
    return ImagesFile(path, images, data.size), source, lambda rows: _inputs_hdu(rows, common) if rows else ()


def _flat(plane):
    return plane if isinstance(plane, ComputedPlane) else np.ascontiguousarray(plane).reshape(-1)


def _storable(array, name, shape=None):
    """Check an array that becomes a plane; returns it as an array."""
    if not isinstance(array, ComputedPlane):
        array = np.asarray(array)
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape} as the data")
    _stored_type(array, name)
    return array


def _stored_type(array, name):
    """Big-endian type in which an array is stored: float32 for all floats."""
    native = array.dtype.newbyteorder("=")
    if native.kind == "f":
        native = np.dtype(np.float32)
    if native not in _STORED:
        raise TypeError(
            f"{name}: {array.dtype} is not stored in products: float, uint8, int16, int32 or bool"
        )
    return _STORED[native]


def _check_quality(dq, shape):
    dtype = dq.dtype if hasattr(dq, "dtype") else np.asarray(dq).dtype
    if np.shape(dq) != shape or dtype.kind not in "iu":
        raise ValueError(f"dq must be integer of shape {shape}, got {dtype} {np.shape(dq)}")


def _quality(data, dq):
    """Return DQ (int16) and MASK (uint8) that agree with each other and with the data."""
    dq = np.zeros(data.shape, np.int16) if dq is None else dq.astype(np.int16, copy=False)
    if data.dtype.kind == "f":
        with np.errstate(over="ignore"):
            finite = np.isfinite(data.astype(np.float32, copy=False))
        if not finite.all():
            dq = np.where(finite, dq, dq | np.int16(DQ.NO_DATA))
    return dq, ((dq & np.int16(MASKED)) != 0).view(np.uint8)


def _image_cards(name, data, cards):
    """Cards of one image."""
    bitpix = _BITPIX[_stored_type(data, name).newbyteorder("=").name]
    if name is None:
        start = card("SIMPLE", True, "conforms to the FITS standard")
    else:
        start = card("XTENSION", "IMAGE", "image extension")
    start += card("BITPIX", bitpix, "bits per value") + card("NAXIS", data.ndim, "number of axes")
    start += "".join(card(f"NAXIS{n}", size) for n, size in enumerate(reversed(data.shape), 1))
    if name is None:
        start += card("EXTEND", True, "there may be extensions")
    else:
        start += card("PCOUNT", 0) + card("GCOUNT", 1) + card("EXTNAME", name, "name of this extension")
    return start + cards


def _inputs_hdu(inputs, cards):
    """Serialise the INPUTS table: one row per frame that went in."""
    rows = [
        (
            _table_text(row.get("file")),
            _table_number(row.get("temperature")),
            _table_number(row.get("exposure")),
            _table_number(row.get("time")),
            _table_text(row.get("datasum")),
        )
        for row in inputs
    ]
    width = max(1, *(len(row[0]) for row in rows))
    columns = [
        ("FILE", f"S{width}", f"{width}A", "", "frame that went in"),
        ("TEMP", ">f8", "D", "", "[degC] sensor temperature, NaN: unknown"),
        ("EXPTIME", ">f8", "D", "s", "exposure time, NaN: unknown"),
        ("TIME", ">f8", "D", "s", "Unix time (UTC), NaN: unknown"),
        ("DATASUM", "S10", "10A", "", "data sum of the frame, blank: unknown"),
    ]
    table = np.array(rows, [(name, kind) for name, kind, *_ in columns])
    start = card("XTENSION", "BINTABLE", "binary table") + card("BITPIX", 8) + card("NAXIS", 2)
    start += card("NAXIS1", table.dtype.itemsize, "bytes per row") + card("NAXIS2", len(table), "rows")
    start += card("PCOUNT", 0) + card("GCOUNT", 1) + card("TFIELDS", len(columns), "columns")
    for n, (name, _, form, unit, comment) in enumerate(columns, 1):
        start += card(f"TTYPE{n}", name, comment) + card(f"TFORM{n}", form)
        start += card(f"TUNIT{n}", unit) if unit else ""
    return _hdu(start + card("EXTNAME", "INPUTS", "name of this extension") + cards, table)


def _table_text(value):
    return b"" if value is None else str(value).encode("ascii", "backslashreplace")


def _table_number(value):
    return np.nan if value is None else float(value)


def _hdu(cards, data):
    flat = data.reshape(-1).view(np.uint8)
    return [finish_header(cards, datasum(flat)), flat, bytes(-len(flat) % BLOCK)]


def _user_cards(cards):
    lines = []
    for keyword, entry in cards.items():
        value, comment = entry if isinstance(entry, tuple) else (entry, "")
        if _OWN_KEYWORDS.match(keyword):
            raise ValueError(f"{keyword} is written by write_product itself and may not be given")
        if value is None:
            continue
        lines.append(card(keyword, value, comment))
        if _DATE_KEYWORD.match(keyword) and f"MJD{keyword[4:]}" not in cards:
            # Readers that know WCS (CCDData) would add this card themselves, with a warning each time.
            lines.append(
                card(f"MJD{keyword[4:]}", _mjd(keyword, value), f"{keyword} as modified Julian date")
            )
    return "".join(lines)


def _mjd(keyword, text):
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is not None:
        raise ValueError(f"{keyword}: expected YYYY-MM-DDThh:mm:ss[.sss] in UTC without a zone, got {text!r}")
    return round((moment - datetime(1858, 11, 17)) / timedelta(days=1), 10)


def _now():
    """Date of writing: now, or SOURCE_DATE_EPOCH (reproducible builds), as FITS writes it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        seconds = int(epoch) if epoch else int(time.time())
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        raise OptionError(f"SOURCE_DATE_EPOCH: got {epoch!r}, expected seconds since 1970") from None


def iso_time(seconds):
    """Write a Unix time [s, UTC] as FITS writes dates, to the millisecond: '2024-01-02T03:04:05.678'."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=round(float(seconds) * 1000))
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


# Cards that say something about one frame, its storage or the sky, not about what the frames have in common.
_NOT_COMMON = re.compile(
    r"(DATE|TIME|MJD|JD|UT|LST|LOCTIM|TELAPSE|EPOCH|EQUINOX|RADES|RADECSYS|OBSGEO).*\Z"
    r"|(RA|DEC|OBJCTRA|OBJCTDEC|PLTSOLVD|FRAMENUM|FILENAME|ORIGFILE|BADSIZE|LONGSTRN|CREATOR)\Z"
    r"|(DATAMIN|DATAMAX|CBLACK|CWHITE)\Z"
    r"|(CTYPE|CRVAL|CRPIX|CDELT|CROTA|CUNIT|CNAME|WCS|LONPOLE|LATPOLE|SPECSYS|VELO|VELREF|REST|SSYS).*\Z"
    r"|(PC|CD|PV|PS)\d+_\d+[A-Z]?\Z|(A|B|AP|BP)_(\d_\d|ORDER|DMAX)\Z"
)


def header_from_inputs(images):
    """Collect the cards that are equal in all inputs and worth keeping (camera, gain, filter ...).

    images : header mappings, or objects with ``.cards`` (FitsImage). Returns a dict for
    ``write_product(cards=...)``: join it with what was done, ``{**header_from_inputs(images), **own}``.
    Structure, checksums, dates, WCS and what belongs to a single frame are left out; so are values that are
    not finite numbers, text or truth values.
    """
    headers = [image if isinstance(image, Mapping) else image.cards for image in images]
    if not headers:
        return {}
    first, others = headers[0], headers[1:]
    common = {}
    for keyword, value in first.items():
        legal = re.match(r"[A-Z0-9_-]{1,8}\Z", keyword) and not _OWN_KEYWORDS.match(keyword)
        if not legal or _NOT_COMMON.match(keyword) or not isinstance(value, (str, bool, int, float)):
            continue
        if isinstance(value, float) and not np.isfinite(value):
            continue
        if all(type(other.get(keyword)) is type(value) and other[keyword] == value for other in others):
            common[keyword] = value
    return common
