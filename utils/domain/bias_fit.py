"""Masters side by side: their planes mapped, their weights, in row blocks."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from utils.errors import InputError
from utils.fits_io.mapped import drop_pages
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ
from utils.kernels import linear_fit
from utils.kernels.pieces import in_pieces
from utils.kernels.special_functions import f_tail

BLOCK_PIXELS = 32768
"""Pixels fitted at a time: float64 work arrays stay in cache."""
PARTS = 8
"""Parts of a map for threads: more than usual cores, so that none waits long for the last."""
COMMON_CHANCE = 1e-3
"""Levels that scatter about the line as much as this fraction of lines would by chance have a common error."""


@dataclass(frozen=True, eq=False)
class MasterSet:
    """Master biases of one model, coldest first.

    paths; headers : list of dict.  values, sigmas : lists of (ny, nx) mapped arrays [ADU].  dqs : list.
    temperatures, shifts (n,) : mean temperature [degC] and mean session shift [ADU] of each.
    common_error [ADU] : error that all pixels of one master share (zero-level scatter beyond that of the frames).
    """

    paths: list
    headers: list
    values: list
    sigmas: list
    dqs: list
    temperatures: np.ndarray
    shifts: np.ndarray
    common_error: float

    @property
    def shape(self):
        """(ny, nx) of the masters."""
        return self.values[0].shape

    def parts(self, function, jobs):
        """Call ``function(rows)`` for parts of the rows in ``jobs`` threads; returns what it returned, in order.

        The parts are the same for any number of threads, and so are sums over them.
        """
        edges = [round(k * self.shape[0] / PARTS) for k in range(PARTS + 1)]
        rows = [slice(first, last) for first, last in pairwise(edges) if last > first]
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            return list(pool.map(function, rows))

    def blocks(self, rows=slice(None)):
        """Yield (rows, values (n, m), variances (n, m)) in row blocks; values have the session shift taken out.

        rows : those of a part.  The arrays may be changed; the next block comes in the same memory.
        """
        ny, nx = self.shape
        first, last, _ = rows.indices(ny)
        step = max(1, BLOCK_PIXELS // nx)
        work = np.empty((2, len(self.paths), min(step, last - first) * nx))
        for start in range(first, last, step):
            rows = slice(start, min(start + step, last))
            values, variances = work[:, :, : (rows.stop - start) * nx]
            for target, planes in ((values, self.values), (variances, self.sigmas)):
                for row, plane in zip(target, planes, strict=True):
                    row[:] = plane[rows].reshape(-1)
                    drop_pages(plane[rows])
            values -= self.shifts[:, None]
            variances *= variances
            variances += self.common_error**2
            yield rows, values, variances


def open_masters(paths):
    """Open master biases for a fit.

    Raises InputError where one is missing, has no uncertainty, or differs from the first in shape, ADU scale or gain.
    """
    opened = [(path, *view_planes(path)) for path in paths]
    opened.sort(key=lambda one: one[1]["TEMP"])
    first_path, first, planes = opened[0]
    for path, header, own in opened:
        if header.get("PRODTYPE") != "MASTER_BIAS" or "UNCERT" not in own or "DQ" not in own:
            raise InputError(f"{path}: got {header.get('PRODTYPE')}, expected MASTER_BIAS with UNCERT and DQ")
        if own["PRIMARY"].shape != planes["PRIMARY"].shape:
            raise InputError(
                f"{path}: shape {own['PRIMARY'].shape}, expected {planes['PRIMARY'].shape} as in {first_path}"
            )
        for key in ("ADUSCALE", "GAIN", "XBINNING", "YBINNING"):
            if header.get(key) != first.get(key):
                raise InputError(
                    f"{path}: {key} {header.get(key)}, expected {first.get(key)} as in {first_path}"
                )
    headers = [header for _, header, _ in opened]
    temperatures = np.array([header["TEMP"] for header in headers], dtype=np.float64)
    shifts = np.array([header.get("ZSHIFT", 0.0) for header in headers], dtype=np.float64)
    return MasterSet(
        [path for path, _, _ in opened],
        headers,
        [own["PRIMARY"] for _, _, own in opened],
        [own["UNCERT"] for _, _, own in opened],
        [own["DQ"] for _, _, own in opened],
        temperatures,
        shifts,
        _common_error(headers, temperatures, shifts),
    )


def _common_error(headers, temperatures, shifts):
    """Error common to all pixels of a master [ADU]: levels that a line does not describe, sessions not told apart."""
    level = np.array([header["LEVEL"] for header in headers]) - shifts
    error = np.array([header["LEVELERR"] for header in headers])
    found = 0.0
    if np.unique(temperatures).size > 2:
        error = np.maximum(error, 1e-6 * (1.0 + np.abs(level)))
        _, _, chi2, n = linear_fit.fit_line(level[:, None], 1.0 / error[:, None] ** 2, temperatures)
        frames = max(1, sum(header["NCOMBINE"] - 1 for header in headers))
        # The errors are themselves measured, from so many frames: an F test and no chi-square.
        if f_tail(n[0] - 2, frames, chi2[0] / (n[0] - 2)) < COMMON_CHANCE:
            flat = np.polyfit(temperatures, level, 1)
            residual = level - np.polyval(flat, temperatures)
            found = math.sqrt(float(residual @ residual) / (level.size - 2))
    if not all(header.get("ZSEPAR", True) for header in headers):
        found = max(found, *(float(header["ZSCATTER"]) for header in headers))
    return found


def combined_quality(dqs):
    """DQ of a model from those of its masters: bits of any, except that masked pixels need all masters masked."""
    lost = np.int16(DQ.DO_NOT_USE | DQ.NO_DATA)
    found = np.empty(dqs[0].shape, np.int16)
    step = max(1, (1 << 20) // found.shape[1])
    for start in range(0, len(found), step):
        strips = [dq[start : start + step] for dq in dqs]
        for target, first, *others in in_pieces(found[start : start + step], *strips):
            any_bits = all_bits = first.astype(np.int16)
            for dq in others:
                any_bits, all_bits = any_bits | dq, all_bits & dq
            target[:] = (any_bits & ~lost) | (all_bits & lost)
        drop_pages(*strips)
    return found
