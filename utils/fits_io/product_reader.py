"""Read back the products that :mod:`utils.fits_io.products` writes."""

import math
import mmap
from dataclasses import dataclass

import numpy as np

from utils.errors import InputError
from utils.fits_io.fits_cards import BLOCK, CARD, datasum
from utils.fits_io.header_scan import parse_cards
from utils.fits_io.mapped import drop_pages

_END = b"END".ljust(CARD)
_TYPES = {8: np.uint8, 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True, eq=False)
class Product:
    """One product as it stands in its file.

    data : (ny, nx) float32, or uint8 for a mask product.
    uncert : (ny, nx) float32, 1 sigma in ``unit``, or None.   dq : (ny, nx) int16 bits, or None.
    mask : (ny, nx) bool, True = not usable (all False where the file has no MASK).
    header : dict keyword -> value of the primary HDU, typed as astropy does, without HISTORY and COMMENT.
    inputs : list of dict file, temperature, exposure, time, datasum (None where unknown).
    """

    path: str
    prodtype: str
    unit: str
    data: np.ndarray
    uncert: np.ndarray | None
    dq: np.ndarray | None
    mask: np.ndarray
    header: dict
    inputs: list


def read_product(path, *, expect=None):
    """Read one product.

    path : file.   expect : the PRODTYPE it must have, or a tuple of allowed ones; None takes any product.
    Returns a :class:`Product` with arrays in native byte order, which are the caller's own.
    Raises InputError, one line with the file, what was got and what was expected: no such file, not FITS,
    shorter than its header says, data that are not those of its DATASUM, no PRODTYPE or another one.
    """
    hdus = _hdus(path)
    header = hdus[0][0]
    prodtype = header.get("PRODTYPE")
    allowed = (expect,) if isinstance(expect, str) else expect
    if prodtype is None or (allowed is not None and prodtype not in allowed):
        wanted = " or ".join(allowed) if allowed else "a product of these pipelines"
        raise InputError(f"{path}: got PRODTYPE {prodtype or 'missing'}, expected {wanted}")
    hdu_of = {found.get("EXTNAME"): (found, raw) for found, raw in hdus[1:]}
    data = _array(path, header, hdus[0][1])
    planes = {name: _array(path, *hdu_of[name]) for name in ("UNCERT", "DQ", "MASK") if name in hdu_of}
    for name, plane in planes.items():
        if plane.shape != data.shape:
            raise InputError(f"{path}: got {name} of shape {plane.shape}, expected {data.shape} as the data")
    return Product(
        path=str(path),
        prodtype=prodtype,
        unit=header.get("BUNIT", ""),
        data=data,
        uncert=planes.get("UNCERT"),
        dq=planes.get("DQ"),
        mask=planes["MASK"].astype(bool) if "MASK" in planes else np.zeros(data.shape, bool),
        header=header,
        inputs=_inputs(*hdu_of["INPUTS"]) if "INPUTS" in hdu_of else [],
    )


def read_plane(path, extname):
    """Read one image extension of a product by its name: array in native byte order.

    Raises InputError if the file cannot be read or has no such extension.
    """
    hdus = _hdus(path)
    for header, raw in hdus[1:]:
        if header.get("EXTNAME") == extname:
            return _array(path, header, raw)
    names = ", ".join(str(header.get("EXTNAME")) for header, _ in hdus[1:]) or "no extension"
    raise InputError(f"{path}: got {names}, expected an extension {extname}")


def view_planes(path, verify=False):
    """Map the images of a product without reading them: for work in row blocks.

    verify : read them once nevertheless, to hold their data against their DATASUM.
    Returns (header, planes): header of the primary HDU as a dict; planes: extension name ('PRIMARY' for the first) ->
    (ny, nx) read-only array in the file's big-endian order.  Raises InputError as `read_product`.
    """
    hdus = _hdus(path)
    planes = {}
    for header, raw in hdus:
        if header.get("XTENSION", "IMAGE").strip() == "IMAGE" and header["NAXIS"] == 2:
            plane = np.frombuffer(raw, _TYPES[header["BITPIX"]])
            if verify:
                _check_sum(path, header, plane)
                drop_pages(plane)
            planes[header.get("EXTNAME", "PRIMARY")] = plane.reshape(_shape(header))
    return hdus[0][0], planes


def _hdus(path):
    """Split a file into its (header, bytes of the data) pairs."""
    try:
        with open(path, "rb") as stream:
            content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError as error:
        raise InputError(f"{path}: empty file, expected a FITS product") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}, expected a FITS product") from error
    if bytes(content[:9]) != b"SIMPLE  =":
        raise InputError(f"{path}: got no FITS file, expected a FITS product")
    hdus, position = [], 0
    while position < len(content):
        block = _header_block(path, content, position)
        header = parse_cards(block)
        try:
            shape = _shape(header)
            size = math.prod(shape) * abs(header["BITPIX"]) // 8 if shape else 0
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged header at byte {position}, expected BITPIX, NAXIS") from error
        position += len(block)
        if position + size > len(content):
            raise InputError(f"{path}: truncated, got {len(content)} bytes, expected {position + size}")
        hdus.append((header, content[position : position + size]))
        position += -(-size // BLOCK) * BLOCK
    return hdus


def _header_block(path, content, start):
    """Return the header that begins at ``start``: whole blocks of cards, END and its blanks included."""
    for end in range(start + BLOCK, len(content) + 1, BLOCK):
        block = bytes(content[end - BLOCK : end])
        if not block.isascii():
            break
        if any(block[card : card + CARD] == _END for card in range(0, BLOCK, CARD)):
            return bytes(content[start:end])
    raise InputError(f"{path}: got a damaged header at byte {start}, expected FITS cards up to END")


def _shape(header):
    return tuple(header[f"NAXIS{axis}"] for axis in range(header["NAXIS"], 0, -1))


def _array(path, header, raw):
    shape = _shape(header)
    if header["BITPIX"] not in _TYPES or len(shape) < 2:
        raise InputError(f"{path}: got BITPIX {header['BITPIX']} and {len(shape)} axes, expected an image")
    array = np.frombuffer(raw, _TYPES[header["BITPIX"]]).reshape(shape)
    _check_sum(path, header, array)
    return array.astype(array.dtype.newbyteorder("="))


def _check_sum(path, header, array):
    card = str(header.get("DATASUM") or "").strip()
    if card.isascii() and card.isdecimal() and datasum(array) % 0xFFFFFFFF != int(card) % 0xFFFFFFFF:
        name = header.get("EXTNAME", "PRIMARY")
        raise InputError(
            f"{path}: the data of {name} are not those of its DATASUM {card}: damaged, make it anew"
        )


def _inputs(header, raw):
    """Read the INPUTS table: list of dict as :func:`utils.fits_io.products.write_product` takes it."""
    kinds = []
    for column in range(1, header["TFIELDS"] + 1):
        form = header[f"TFORM{column}"]
        kinds.append((header[f"TTYPE{column}"], ">f8" if form == "D" else f"S{form.removesuffix('A')}"))
    table = np.frombuffer(raw, kinds)
    return [
        {
            "file": row["FILE"].decode("ascii"),
            "temperature": _known(row["TEMP"]),
            "exposure": _known(row["EXPTIME"]),
            "time": _known(row["TIME"]),
            "datasum": row["DATASUM"].decode("ascii") or None,
        }
        for row in table
    ]


def _known(value):
    return None if np.isnan(value) else float(value)
