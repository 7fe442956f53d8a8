"""One map of bad pixels from the quality bits of bias, dark and flat products."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.fits_io.product_reader import read_product, view_planes
from utils.fits_io.products import DQ

KINDS = (
    *("BIAS_A", "READ_NOISE", "DARK_A_2D", "DARK_A", "DARK_CURRENT"),
    *("MASTER_FLAT", "PIXEL_RESPONSE", "FLAT_A", "BAD_PIXELS"),
)
"""Products whose DQ tells about pixels."""
BETTER = {"DARK_A": ("DARK_A_2D",), "DARK_CURRENT": ("DARK_A_2D", "DARK_A")}
"""A product is left out where one of these tells the same of all its frames."""
DEFAULT_BITS = ("DO_NOT_USE", "DEAD", "HOT", "LOW_QE", "NOISY", "TELEGRAPH", "NO_DATA")
SAME = ("INSTRUME", "XBINNING", "YBINNING")


@dataclass(eq=False)
class BadPixels:
    """Merged quality.

    dq : (ny, nx) int16, all bits of all products.  bad : (ny, nx) bool, with one of the chosen bits.
    rows : list of dict product, kind, bit, pixels.  paths : products merged.  cards : what they share.
    """

    dq: np.ndarray
    bad: np.ndarray
    rows: list = field(default_factory=list)
    paths: list = field(default_factory=list)
    cards: dict = field(default_factory=dict)

    def counts(self):
        """Pixels with each bit in the merged map, and how many have no other: list of dict."""
        kinds = self.dq.astype(np.uint16)
        lone = self.bad & ((kinds & (kinds - np.uint16(1))) == 0)
        found = []
        for bit in DQ:
            has = (self.dq & bit) != 0
            if has.any():
                found.append(
                    {
                        "bit": bit.name,
                        "pixels": int(has.sum()),
                        "bad": int((has & self.bad).sum()),
                        "only": int((has & lone).sum()),
                    }
                )
        return found

    def pixels(self):
        """Rows of the bad pixels: x, y (first pixel 1, as DS9 counts) and reasons."""
        y, x = np.nonzero(self.bad)
        names = _reason_names(self.dq[y, x])
        return [
            {"x": int(column) + 1, "y": int(row) + 1, "reasons": reasons}
            for column, row, reasons in zip(x, y, names, strict=True)
        ]


def merge(paths, bits):
    """Merge the DQ of products.

    paths : list of FITS products.  bits : names of the `DQ` bits that make a pixel bad.
    Returns `BadPixels`.  Raises InputError for another shape or camera, naming both files, and for products without DQ.
    """
    chosen = np.int16(sum(DQ[name] for name in bits))
    merged, first = None, None
    for path in paths:
        header, planes = view_planes(path, verify=True)
        kind = header.get("PRODTYPE")
        if kind not in KINDS or "DQ" not in planes:
            raise InputError(f"{path}: got {kind or 'no product'}, expected a product with a DQ plane")
        dq = planes["DQ"].astype(np.int16)
        if merged is None:
            merged, first = BadPixels(dq, np.zeros(dq.shape, bool), cards=dict(_common(header))), path
        else:
            _refuse_other_camera(path, header, dq.shape, first, merged)
            merged.dq |= dq
        merged.paths.append(Path(path))
        for bit in DQ:
            count = int(np.count_nonzero(dq & bit))
            if count:
                merged.rows.append({"product": str(path), "kind": kind, "bit": bit.name, "pixels": count})
    merged.bad = (merged.dq & chosen) != 0
    return merged


def _common(header):
    return ((key, header[key]) for key in SAME if key in header)


def _refuse_other_camera(path, header, shape, first, merged):
    if shape != merged.dq.shape:
        raise InputError(f"{path}: shape {shape}, expected {merged.dq.shape} as in {first}")
    for key, value in _common(header):
        if merged.cards.setdefault(key, value) != value:
            raise InputError(f"{path}: {key} {value}, expected {merged.cards[key]} as in {first}")


def choose(products):
    """Choose among the products of one output folder (objects with ``path`` and ``prodtype``) those to merge."""
    kinds = {product.prodtype for product in products}
    wanted = {kind for kind in kinds & set(KINDS) if not kinds & set(BETTER.get(kind, ()))}
    return [product.path for product in products if product.prodtype in wanted]


def changes(now, path):
    """Pixels that became bad or good since an earlier map (a BAD_PIXELS product): list of dict.

    Raises InputError where it is no such map, or one of another shape or camera.
    """
    earlier = read_product(path, expect="BAD_PIXELS")
    if earlier.data.shape != now.bad.shape:
        raise InputError(f"{path}: shape {earlier.data.shape}, expected {now.bad.shape} as in {now.paths[0]}")
    for key, value in now.cards.items():
        if earlier.header.get(key, value) != value:
            raise InputError(f"{path}: {key} {earlier.header[key]}, expected {value} as in {now.paths[0]}")
    then = earlier.data.astype(bool)
    old_dq = earlier.dq if earlier.dq is not None else np.zeros(then.shape, np.int16)
    rows = []
    for what, where, dq in (("new", now.bad & ~then, now.dq), ("gone", then & ~now.bad, old_dq)):
        y, x = np.nonzero(where)
        for column, row, reasons in zip(x, y, _reason_names(dq[y, x]), strict=True):
            rows.append({"change": what, "x": int(column) + 1, "y": int(row) + 1, "reasons": reasons})
    return rows


def _reason_names(values):
    """Names of the bits of each value, with ';' between them."""
    known = {int(value): ";".join(bit.name for bit in DQ if int(value) & bit) for value in np.unique(values)}
    return [known[int(value)] for value in values]
