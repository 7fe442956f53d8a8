"""Which dark serves a frame best: a map of its own temperature, one between two maps, or the model.

Each candidate is judged by the error that it leaves in a frame: its own, and what the difference of temperature does.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.domain.dark_model import DarkModel
from utils.errors import InputError
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ

SAME_EXPOSURE = 0.01
"""Exposures that differ by less than this part are one."""
JUDGED = 1 << 16
"""Pixels by which candidates are judged."""
LOST = int(DQ.NO_DATA | DQ.SATURATED | DQ.DO_NOT_USE)


@dataclass(frozen=True, eq=False)
class DarkMap:
    """A dark-current map of the dark pipeline, mapped from its file; rate, sigma [ADU/s], dq: flat, big-endian."""

    path: Path
    temperature: float
    exposure: float
    rate: np.ndarray
    sigma: np.ndarray
    dq: np.ndarray


@dataclass(frozen=True, eq=False)
class Candidate:
    """A dark for one frame.

    kind : 'master', 'interpolated' or 'model'.  words : which.  expected : rms error it leaves in a typical pixel [ADU].
    at : function of a slice or indices of the flat maps -> rate, 1 sigma [ADU/s].  lost : the same -> bool, not usable.
    """

    kind: str
    words: str
    expected: float
    at: object
    lost: object


class DarkAdvisor:
    """Chooses darks for frames.

    folder : a dark model (dark_model_2d, dark_model/exp_*) in an output folder of the dark pipeline, or that output
    folder; its dark-current maps are found by run.json.  maps : list of (path, facts) of those maps.
    Raises InputError where there is no model.
    """

    def __init__(self, model: DarkModel, maps):
        self.model = model
        self.maps = [self._open(path) for path in maps]
        self.b = float(model.header.get("B_G") or 0.0)
        self.b_scatter = float(model.header.get("B_GSIG") or 0.0)
        size = model.dq.size
        self._some = np.arange(0, size, max(1, size // JUDGED) | 1)

    def _open(self, path):
        header, planes = view_planes(path)
        if header.get("PRODTYPE") != "DARK_CURRENT" or planes["PRIMARY"].shape != self.model.shape:
            raise InputError(
                f"{path}: {header.get('PRODTYPE')} of shape {planes['PRIMARY'].shape}, expected DARK_CURRENT of shape"
                f" {self.model.shape} as in {self.model.paths[0]}"
            )
        flat = (planes[name].reshape(-1) for name in ("PRIMARY", "UNCERT", "DQ"))
        return DarkMap(Path(path), float(header["TEMP"]), float(header["EXPTIME"]), *flat)

    def candidates(self, temperature, exposure):
        """All darks that may serve a frame, best first.

        temperature [degC], exposure [s] : of the frame.  Returns a list of `Candidate`, never empty.
        """
        found = [self._of_model(temperature, exposure)]
        same = [m for m in self.maps if abs(m.exposure - exposure) <= SAME_EXPOSURE * exposure]
        if same:
            nearest = min(same, key=lambda m: abs(m.temperature - temperature))
            found.append(self._of_map(nearest, temperature, exposure))
        below = [m for m in same if m.temperature <= temperature]
        above = [m for m in same if m.temperature > temperature]
        if below and above and self.b:
            pair = max(below, key=lambda m: m.temperature), min(above, key=lambda m: m.temperature)
            found.append(self._between(*pair, temperature, exposure))
        return sorted(found, key=lambda candidate: candidate.expected)

    def _of_model(self, temperature, exposure):
        model = self.model
        two = model.params[2] is not None
        words = f"model {model.paths[0].parent}"
        if model.extrapolates(temperature, exposure if two else None):
            words += ", extrapolated"

        def at(part):
            return model.at(part, temperature, exposure if two else 1.0)

        def lost(part):
            return (model.dq.reshape(-1)[part] & LOST) != 0

        return Candidate("model", words, self._expected(at, lost, exposure), at, lost)

    def _of_map(self, one, temperature, exposure):
        def at(part):
            return one.rate[part].astype(np.float32), one.sigma[part].astype(np.float32)

        def lost(part):
            return (one.dq[part] & LOST) != 0

        away = abs(math.expm1(self.b * (temperature - one.temperature)))
        words = f"master {one.path.name} at {one.temperature:.2f} degC"
        return Candidate("master", words, self._expected(at, lost, exposure, away), at, lost)

    def _between(self, low, high, temperature, exposure):
        """Between two maps of one exposure, in the exponential of the sensor's own B."""
        span = high.temperature - low.temperature
        part_of = temperature - low.temperature
        weight = np.float32(math.expm1(self.b * part_of) / math.expm1(self.b * span))

        def at(part):
            rate = (1 - weight) * low.rate[part].astype(np.float32) + weight * high.rate[part].astype(
                np.float32
            )
            sigma = np.hypot(
                (1 - weight) * low.sigma[part].astype(np.float32),
                weight * high.sigma[part].astype(np.float32),
            )
            return rate, sigma

        def lost(part):
            return ((low.dq[part] | high.dq[part]) & LOST) != 0

        # A pixel of another B than the sensor's leaves d rate = rate * dB * T-like term, largest in the middle.
        away = 0.5 * self.b_scatter * abs(self.b) * part_of * (span - part_of)
        words = f"between {low.path.name} and {high.path.name}"
        return Candidate("interpolated", words, self._expected(at, lost, exposure, away), at, lost)

    def _expected(self, at, lost, exposure, away=0.0):
        """Median over pixels of the rms error left in a frame [ADU]; away : relative error of the rate."""
        rate, sigma = at(self._some)
        good = ~lost(self._some) & np.isfinite(rate) & np.isfinite(sigma)
        if not good.any():
            return math.inf
        error = np.hypot(sigma[good], away * rate[good])
        return exposure * float(np.median(error))
