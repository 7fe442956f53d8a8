"""What the flats of two real cameras show: wells that are full, and two fields of rows (frames are not distributed)."""

from dataclasses import dataclass

import numpy as np
from astropy.io import fits

SHARES = (1, 50, 99)
"""Pixels below which so many percent of the others lie."""


@dataclass
class Plateau:
    """exposures (n,) [s], levels (n, 3) [ADU] of the pixels at ``SHARES``, of one lamp."""

    exposures: np.ndarray
    levels: np.ndarray


def plateaus(folder):
    """`Plateau` of both series of the ST-7XE."""
    found = {}
    for name, place, pattern in (
        ("first lamp", "Bergeson", "flat*.FIT"),
        ("second lamp", "Langford", "Pencil*.FIT"),
    ):
        rows = []
        for path in (folder / "st7_astr480_uw" / place).glob(pattern):
            with fits.open(path) as opened:
                rows.append((opened[0].header["EXPOSURE"], *np.percentile(opened[0].data, SHARES)))
        rows = np.array(sorted(rows))
        found[name] = Plateau(rows[:, 0], rows[:, 1:])
    return found


def field_ratios(folder):
    """Ratio of the medians of even and odd rows above the bias in each flat of the Orion G3, (n,)."""
    place = folder / "orion_g3_astroluminance"
    bias = np.mean([fits.getdata(path).astype(float) for path in (place / "Bias").iterdir()], axis=0)
    ratios = []
    for path in sorted((place / "Flats").iterdir()):
        light = fits.getdata(path) - bias
        ratios.append(np.median(light[0::2]) / np.median(light[1::2]))
    return np.array(ratios)
