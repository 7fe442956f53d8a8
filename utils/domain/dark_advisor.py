"""Which dark serves a frame best: a map of its own temperature, one between two maps, or the model.

Each candidate is judged by the error that it leaves in a frame: its own, what the difference of temperature does, and how
far the level of the model was from the maps around, or the levels of maps scatter by themselves.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
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
OWN_TEMPERATURE = 0.02
"""A frame so near to a map, in parts of the distance to the next, needs no map between the two."""
FEWEST_MAPS = 4
"""Maps that the model's level is compared with at least: fewer have no degree of freedom to show a misfit."""
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
            edges = [abs(m.temperature - temperature) for m in pair]
            if min(edges) > OWN_TEMPERATURE * sum(edges):
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

        level = self._misfit(temperature, exposure)
        return self._judged(Candidate("model", words, signal, model.offset, lost), level)

    def _of_map(self, one, temperature, exposure):
        away = abs(math.expm1(self.b * (temperature - one.temperature)))

        def signal(part, inner, once):
            rate, sigma = _read(one, part, once)
            variance = _variance(rate[inner], np.square(sigma[inner]), away, exposure)
            return rate * np.float32(exposure), variance

        def lost(part):
            return (one.dq[part] & LOST) != 0

        words = f"master {one.path.name} at {one.temperature:.2f} degC"
        return self._judged(Candidate("master", words, signal, 0.0, lost), self._levels[1])

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
        level = self._levels[1] * math.hypot(lower, upper)
        return self._judged(Candidate("interpolated", words, signal, 0.0, lost), level)

    @cached_property
    def _levels(self):
        """Level of the model above each map [ADU/s], median pixel, (n,); and the error of a map's level by itself [ADU].

        A law that does not hold misses by a part of the signal, or by an offset; by what maps of the least signal differ
        from one another is their own.
        """
        if len(self.maps) < FEWEST_MAPS:
            return np.zeros(len(self.maps)), 0.0
        away, signal, chance = np.zeros((3, len(self.maps)))
        for index, one in enumerate(self.maps):
            rate, _ = self.model.at(self._some, one.temperature, one.exposure)
            left = rate + self.model.offset / one.exposure - one.rate[self._some]
            left = left[(one.dq[self._some] & LOST) == 0]
            left = left[np.isfinite(left)]
            if left.size:
                away[index] = middle(left)
                spread = 1.4826 * float(middle(np.abs(left - away[index])))
                chance[index] = 1.2533 * spread / math.sqrt(left.size) * one.exposure
            signal[index] = abs(float(middle(rate))) * one.exposure
        faint = np.argsort(signal)[: max(FEWEST_MAPS - 1, len(self.maps) // 3)]
        exposure = np.array([one.exposure for one in self.maps])
        own = float(np.var((away * exposure)[faint], ddof=1) - np.mean(np.square(chance[faint])))
        return away, math.sqrt(max(own, 0.0))

    def _misfit(self, temperature, exposure):
        """Level by which the model is off at a temperature and exposure [ADU], beyond the errors of the maps' levels."""
        if not self.maps:
            return 0.0
        away, own = self._levels
        nearest = min((m.exposure for m in self.maps), key=lambda e: abs(math.log(e / exposure)))
        near = [i for i, m in enumerate(self.maps) if abs(m.exposure - nearest) <= SAME_EXPOSURE * nearest]
        near.sort(key=lambda i: self.maps[i].temperature)
        # Squares: between two maps of opposite signs the law is not right either.
        square = np.interp(temperature, [self.maps[i].temperature for i in near], np.square(away[near]))
        return math.sqrt(max(float(square) * exposure**2 - own * own, 0.0))

    def _judged(self, candidate, level):
        """Add the error left in a frame [ADU]: of the median pixel, and of the ``level`` that all share."""
        signal, variance = candidate.signal(self._some, slice(None), self._once)
        good = ~candidate.lost(self._some) & np.isfinite(signal) & np.isfinite(variance)
        if not good.any():
            return candidate
        return replace(candidate, expected=math.hypot(math.sqrt(middle(variance[good])), level))

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
