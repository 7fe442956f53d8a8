"""Which dark serves a frame best: a map of its own temperature, one between two maps, or the model.

Each candidate is judged by the error that it leaves in a frame: its own, and what the difference of temperature does.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.domain.dark_model import DarkModel
from utils.errors import InputError
from utils.fits_io.frame_sample import spread_rows
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ
from utils.kernels.pieces import middle

SAME_EXPOSURE = 0.01
"""Exposures that differ by less than this part are one."""
JUDGED = 1 << 16
"""Pixels by which candidates are judged, in whole rows."""
FEWEST_ROWS = 16
"""Rows that are judged at least."""
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

    kind : 'master', 'interpolated' or 'model'.  words : which.  signal : function of pixels (slice or indices of the flat
    maps), ``inner`` (slice of those whose error is wanted) and ``once`` -> dark signal in the frame [ADU], (m,) float32,
    and its variance [ADU^2] of the inner pixels; ``once(key, make)`` keeps what is read of the maps for other frames.
    offset : level of darks above bias that signal lacks [ADU].
    lost : function of pixels -> bool, not usable.  expected : rms error that it leaves in a typical pixel [ADU].
    """

    kind: str
    words: str
    signal: object
    offset: float
    lost: object
    expected: float = math.inf


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
        self._kept = {}
        ny, nx = model.shape
        rows = spread_rows(ny, max(FEWEST_ROWS, JUDGED // nx))
        self._some = (rows[:, None] * nx + np.arange(nx)).reshape(-1)

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

    def mapped(self):
        """Yield the planes (ny, nx) that stay in their files."""
        model = self.model
        yield from (plane for plane in (*model.params, *model.sigmas, *model.mixed) if plane is not None)
        for one in self.maps:
            yield from (plane.reshape(model.shape) for plane in (one.rate, one.sigma, one.dq))

    def _of_model(self, temperature, exposure):
        model = self.model
        words = f"model {model.paths[0].parent}"
        if model.extrapolates(temperature, None if model.params[2] is None else exposure):
            words += ", extrapolated"

        def signal(part, inner, once):
            terms = once(("model", exposure), lambda: model.terms(part, exposure, inner))
            return model.signal(terms, part, temperature, exposure)

        def lost(part):
            return (model.dq.reshape(-1)[part] & LOST) != 0

        return self._judged(Candidate("model", words, signal, model.offset, lost))

    def _of_map(self, one, temperature, exposure):
        away = abs(math.expm1(self.b * (temperature - one.temperature)))

        def signal(part, inner, once):
            rate, sigma = _read(one, part, once)
            variance = _variance(rate[inner], np.square(sigma[inner]), away, exposure)
            return rate * np.float32(exposure), variance

        def lost(part):
            return (one.dq[part] & LOST) != 0

        words = f"master {one.path.name} at {one.temperature:.2f} degC"
        return self._judged(Candidate("master", words, signal, 0.0, lost))

    def _between(self, low, high, temperature, exposure):
        """Between two maps of one exposure, in the exponential of the sensor's own B."""
        span = high.temperature - low.temperature
        part_of = temperature - low.temperature
        weight = math.expm1(self.b * part_of) / math.expm1(self.b * span)
        lower, upper = np.float32(1.0 - weight), np.float32(weight)
        # A pixel of another B than the sensor's leaves d rate = rate * dB * T-like term, largest in the middle.
        away = 0.5 * self.b_scatter * abs(self.b) * part_of * (span - part_of)

        def signal(part, inner, once):
            below, above = _read(low, part, once), _read(high, part, once)
            rate = lower * below[0] + upper * above[0]
            variance = np.square(lower * below[1][inner]) + np.square(upper * above[1][inner])
            return rate * np.float32(exposure), _variance(rate[inner], variance, away, exposure)

        def lost(part):
            return ((low.dq[part] | high.dq[part]) & LOST) != 0

        words = f"between {low.path.name} and {high.path.name}"
        return self._judged(Candidate("interpolated", words, signal, 0.0, lost))

    def _judged(self, candidate):
        """Add the median over pixels of the error left in a frame [ADU]."""
        signal, variance = candidate.signal(self._some, slice(None), self._once)
        good = ~candidate.lost(self._some) & np.isfinite(signal) & np.isfinite(variance)
        if not good.any():
            return candidate
        return replace(candidate, expected=math.sqrt(middle(variance[good])))

    def _once(self, key, make):
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def _read(one, part, once):
    """Rate and sigma of a map [ADU/s], float32."""
    return once(one.path, lambda: (one.rate[part].astype(np.float32), one.sigma[part].astype(np.float32)))


def _variance(rate, variance, away, exposure):
    """Variance in a frame [ADU^2]; variance : of the rate, away : relative error of the rate by its temperature."""
    variance += np.square(np.float32(away) * rate)
    variance *= np.float32(exposure * exposure)
    return variance
