"""Pixels of a filter that respond unlike their neighbours, and the PRNU of the others."""

from dataclasses import dataclass

import numpy as np

from utils.fits_io.products import DQ
from utils.kernels import pixel_response

SIGNIFICANCE = 5.0
HIGH = 1.1
"""A pixel above this part of its neighbours' response stands out as well: it is hot."""


@dataclass(eq=False)
class Judged:
    """dq : (ny, nx) int16 with DEAD, LOW_QE and HOT.  limits : `DefectLimits`.  prnu : `pixel_response.Prnu`."""

    dq: np.ndarray
    limits: object
    high_limit: float
    prnu: object

    def counts(self):
        """Number of pixels of each kind."""
        bits = {"dead": DQ.DEAD, "low-QE": DQ.LOW_QE, "hot": DQ.HOT}
        return {word: int(np.count_nonzero(self.dq & int(bit))) for word, bit in bits.items()}

    def cards(self):
        """Header cards: limits, numbers, PRNU."""
        counts = self.counts()
        return {
            "DEADLIM": (self.limits.dead, "DEAD below this part of the local median"),
            "LOWQELIM": (self.limits.low_qe, "LOW_QE below this part of the local median"),
            "HOTLIM": (float(self.high_limit), "HOT above this part of the local median"),
            "DEFSIG": (self.limits.significance, "[sigma] least significance of these"),
            "NDEAD": (counts["dead"], "dead pixels"),
            "NLOWQE": (counts["low-QE"], "pixels of low quantum efficiency"),
            "NHOT": (counts["hot"], "hot pixels"),
            "PRNU": (_finite(100.0 * self.prnu.value), "[%] scatter of the response, noise taken out"),
            "PRNUERR": (_finite(100.0 * self.prnu.error), "[%] its error"),
        }


def judge_pixels(flat, sigma, noisy, config):
    """Find dead, low-QE and hot pixels of the mean flat of a filter, and the PRNU.

    flat, sigma : (ny, nx).  noisy : (ny, nx) bool, pixels that do not count for the PRNU.  Returns `Judged`.
    """
    limits = pixel_response.DefectLimits(config.dead_limit, config.low_qe_limit, HIGH, SIGNIFICANCE)
    found = pixel_response.find_defects(flat, sigma, limits=limits)
    dq = np.zeros(flat.shape, np.int16)
    dq[found.dead] |= DQ.DEAD
    dq[found.low_qe] |= DQ.LOW_QE
    dq[found.high] |= DQ.HOT
    prnu = pixel_response.prnu(flat, sigma, found.ordinary & ~noisy)
    return Judged(dq, limits, found.high_limit, prnu)


def _finite(value):
    return float(value) if np.isfinite(value) else None
