"""Room on a disk: asked for before a long run, not found missing at its end."""

import os
import shutil
from pathlib import Path

from utils.fits_io.atomic import RefusedOutputError

PRODUCT = 11
"""Bytes per pixel of a product: value, UNCERT, MASK, DQ."""
PLANE = 4
"""Bytes per pixel of one float32 map."""
_BESIDE, _EACH_FRAME = 2 << 20, 2000  # bytes: report, tables and pictures; lines about one frame


def product_bytes(shape, per_pixel, frames):
    """Bytes that a run writes: ``per_pixel`` of all its products together, and tables about its frames."""
    return shape[0] * shape[1] * per_pixel + _BESIDE + _EACH_FRAME * frames


def check_room(folder, needed, replaced=0):
    """Refuse where the disk of a folder, which need not be there yet, cannot hold so many bytes more.

    replaced : bytes of files that make room as they are written anew.
    Raises RefusedOutputError with needed and free.
    """
    place = Path(os.path.abspath(folder))
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free + replaced
    if needed > free:
        raise RefusedOutputError(
            f"{folder}: about {shown(needed)} will be written, {shown(free)} free on its disk, expected room for all of it"
        )


def shown(n_bytes):
    """Bytes for people: 3.2 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes / 1000:.0f} kB"
