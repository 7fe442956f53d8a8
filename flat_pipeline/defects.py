"""Pixels of a filter that respond unlike their neighbours, and the PRNU of the others."""

from dataclasses import dataclass, replace

import numpy as np

from flat_pipeline import mean_flats
from utils.fits_io.header_scan import scan_header
from utils.fits_io.products import DQ
from utils.fits_io.workers import in_workers, shared_empty
from utils.kernels import pixel_response

SIGNIFICANCE = 5.0
HIGH = 1.1
"""A pixel above this part of its neighbours' response stands out as well: it is hot."""


@dataclass(eq=False)
class Judged:
    """dq : (ny, nx) int16 with DEAD (and DO_NOT_USE), LOW_QE and HOT.  limits : `DefectLimits`.

    prnu : `pixel_response.Prnu`.  counts : number of pixels that are 'dead', 'low-QE' and 'hot'.
    """

    dq: np.ndarray
    limits: object
    high_limit: float
    prnu: object
    counts: dict

    def cards(self):
        """Header cards: limits, numbers, PRNU."""
        return {
            "DEADLIM": (self.limits.dead, "DEAD below this part of the local median"),
            "LOWQELIM": (self.limits.low_qe, "LOW_QE below this part of the local median"),
            "HOTLIM": (float(self.high_limit), "HOT above this part of the local median"),
            "DEFSIG": (self.limits.significance, "[sigma] least significance of these"),
            "NDEAD": (self.counts["dead"], "dead pixels"),
            "NLOWQE": (self.counts["low-QE"], "pixels of low quantum efficiency"),
            "NHOT": (self.counts["hot"], "hot pixels"),
            "PRNU": (_finite(100.0 * self.prnu.value), "[%] scatter of the response, noise taken out"),
            "PRNUERR": (_finite(100.0 * self.prnu.error), "[%] its error"),
        }


def judge_pixels(flat, sigma, noisy, config):
    """Find dead, low-QE and hot pixels of the mean flat of a filter, and the PRNU.

    flat, sigma : (ny, nx).  noisy : (ny, nx) bool, pixels that do not count for the PRNU.  Returns `Judged`.
    """
    limits = pixel_response.DefectLimits(config.dead_limit, config.low_qe_limit, HIGH, SIGNIFICANCE)
    found = pixel_response.find_defects(flat, sigma, limits=limits)
    dq, counts = np.zeros(flat.shape, np.int16), {}
    for word, bit, pixels in (
        ("dead", DQ.DEAD | DQ.DO_NOT_USE, found.dead),
        ("low-QE", DQ.LOW_QE, found.low_qe),
        ("hot", DQ.HOT, found.high),
    ):
        dq[pixels] |= bit
        counts[word] = int(np.count_nonzero(pixels))
    prnu = pixel_response.prnu(flat, sigma, found.ordinary & ~noisy)
    return Judged(dq, limits, found.high_limit, prnu, counts)


def judge_all(config, flats, illuminations, at_once=1):
    """Judge the pixels of several filters, ``at_once`` of them in workers.

    flats : filter -> file of its mean flat.  illuminations : filter -> `Illumination` that is divided out, if any.
    Returns a dict filter -> `Judged`.
    """
    quality = {name: shared_empty(scan_header(path).shape, np.int16) for name, path in flats.items()}

    def work(name):
        mean = mean_flats.read(flats[name])
        if name in illuminations:
            factor = illuminations[name].factor()
            with np.errstate(divide="ignore", invalid="ignore"):
                mean.flat /= factor
                mean.sigma /= factor
        judged = judge_pixels(mean.flat, mean.sigma, ~mean.usable, config)
        quality[name][:] = judged.dq
        return name, replace(judged, dq=None)

    return {name: replace(one, dq=quality[name]) for name, one in in_workers(lambda: work, flats, at_once)}


def _finite(value):
    return float(value) if np.isfinite(value) else None
