"""Hot pixels over the sessions of a mission, from its darks, at one temperature: a warm day makes none."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from utils.domain.dark_source import FEWEST_DARKS
from utils.domain.frame_groups import group_entries
from utils.fits_io.naming import counted, label
from utils.kernels import groups, hot_ledger
from utils.kernels.pieces import in_pieces, median_of_some

MOST_APART = 15.0
"""Darks so far from the common temperature are not moved to it [degC]."""
SAMPLE = 1 << 20


@dataclass(eq=False)
class HotHistory:
    """Ledger of hot pixels.  times : (epochs,) mean Unix time of the darks [s].  temperatures : (epochs,) theirs [degC].

    exposures : list of text.  common : temperature that all rates are given for [degC].  limit : [ADU/s] above the
    sensor's median.  growth : `hot_ledger.Growth` or None; growth_from : in words.  pixels : (k,) flat indices of all
    pixels that were ever hot.  rates, sigmas : (epochs, k) [ADU/s] above the sensor's median.  ledger : of them.
    medians : (epochs,) of all pixels [ADU/s] as measured.  notes : list of str.
    """

    times: np.ndarray
    temperatures: np.ndarray
    exposures: list
    common: float
    limit: float
    growth: object
    growth_from: str
    pixels: np.ndarray
    rates: np.ndarray
    sigmas: np.ndarray
    ledger: object
    medians: np.ndarray
    notes: list = field(default_factory=list)


def hot_history(
    source, entries, images, spool, *, model=None, tolerance=0.5, session_gap=6 * 3600.0, progress=None
):
    """Follow the hot pixels through the sessions of darks.

    source : `DarkSource` of the camera, for its bias and how frames are combined.  entries, images : of the darks.
    spool : open `ArraySpool`.  model : `DarkModel` that tells each pixel's growth with temperature, or None: found from
    the darks.  Returns `HotHistory`, or None and the reason where there are not two sessions to compare.
    """
    timed = [entry for entry in entries if entry["timestamp"] is not None]
    if len(timed) < len(entries):
        return None, f"{counted(len(entries) - len(timed), 'dark')} without a time"
    sessions = _sessions(entries, images, tolerance, session_gap)
    if len(sessions) < 2:
        return None, f"darks of {counted(len(sessions), 'session')}, expected two or more"
    common = _common_temperature(sessions, tolerance)
    made = _Maker(source, spool, progress)
    growth, spread, words = _growth(made, sessions, model)
    notes, used = [], []
    for members in sessions:
        nearest = min(members, key=lambda group: abs(group.temperature - common))
        apart = abs(nearest.temperature - common)
        when = f"darks of {np.mean(nearest.times):.0f}"
        if apart > tolerance and (growth is None or apart > MOST_APART):
            notes.append(f"{when}: {apart:.1f} degC from the common temperature, left out")
            continue
        used.append([g for g in members if abs(g.temperature - nearest.temperature) <= tolerance])
    if len(used) < 2:
        return None, "darks of fewer than two sessions at temperatures that can be compared"
    medians, limits = [], []
    for number, members in enumerate(used):
        rate, sigma = made.rate(members)
        difference = common - float(np.mean([g.temperature for g in members]))
        if growth is not None:
            for r, s, *own in in_pieces(rate, sigma, *(() if np.ndim(growth) == 0 else (growth,))):
                value = own[0] if own else np.float32(growth)
                r[:], s[:] = hot_ledger.at_temperature(r, s, value, spread, difference)
        middle = median_of_some(rate) or 0.0
        medians.append(middle)
        rate -= np.float32(middle)
        limits.append(hot_ledger.hot_limit(rate.reshape(-1)[:: rate.size // SAMPLE | 1]))
        spool.put(("hot", number), rate)
        spool.put(("hot sigma", number), sigma)
    limit = max(limits)
    pixels = _ever_hot(spool, len(used), limit)
    rates = np.array([spool.get(("hot", n)).reshape(-1)[pixels] for n in range(len(used))])
    sigmas = np.array([spool.get(("hot sigma", n)).reshape(-1)[pixels] for n in range(len(used))])
    rates, sigmas = (one.reshape(len(used), pixels.size).astype(np.float64) for one in (rates, sigmas))
    history = HotHistory(
        np.array([np.mean(np.concatenate([g.times for g in one])) for one in used]),
        np.array([np.mean([g.temperature for g in one]) for one in used]),
        [", ".join(f"{g.exposure:g} s" for g in one) for one in used],
        common,
        limit,
        made.growth,
        words,
        pixels,
        rates,
        sigmas,
        hot_ledger.keep_ledger(rates, sigmas, limit),
        np.array(medians),
        notes + made.notes,
    )
    return history, ""


def _sessions(entries, images, tolerance, session_gap):
    """Groups of darks of each session, in order of time; those of too few frames are left away."""
    number = groups.sessions_by_time(np.array([e["timestamp"] for e in entries], float), session_gap)
    found = []
    for session in range(int(number.max()) + 1 if number.size else 0):
        mine = [entry for entry, own in zip(entries, number, strict=True) if own == session]
        members = group_entries(mine, images, temp_tolerance=tolerance, by_exposure=True)
        members = [group for group in members if len(group) >= FEWEST_DARKS and group.exposure > 0]
        if members:
            found.append(members)
    return found


def _common_temperature(sessions, tolerance):
    """Temperature that most sessions have darks of; of equals the warmest."""
    of = [(group.temperature, number) for number, members in enumerate(sessions) for group in members]
    best = (0, -math.inf)
    for members in groups.group_by_gap([one for one, _ in of], tolerance):
        mean = float(np.mean([of[k][0] for k in members]))
        best = max(best, (len({of[k][1] for k in members}), mean))
    return best[1]


class _Maker:
    """Rates of groups of darks, each made once."""

    def __init__(self, source, spool, progress):
        self.source, self.spool, self.progress = source, spool, progress
        self.known, self.notes, self.growth = set(), [], None

    def rate(self, members):
        """Rate and 1 sigma [ADU/s] of darks of one temperature, all exposures together, (ny, nx) float32 each."""
        total, weight = np.zeros((2, *self.source.shape), np.float32)
        for group in members:
            self._make(group)
            rate, sigma = self.spool.get(("rate", id(group))), self.spool.get(("rate sigma", id(group)))
            for t, w, r, s in in_pieces(total, weight, rate, sigma):
                with np.errstate(divide="ignore"):
                    own = np.where(np.isfinite(r) & (s > 0), 1.0 / np.square(s), 0.0).astype(np.float32)
                t += own * np.nan_to_num(r)
                w += own
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(weight > 0, total / weight, np.nan), np.where(
                weight > 0, 1.0 / np.sqrt(weight), np.nan
            )

    def _make(self, group):
        if id(group) in self.known:
            return
        source = replace(self.source, darks=[group], model=None, no_dark=False, rejected=[], _kept={})
        pedestal = source.pedestal(group.temperature, group.exposure)
        dark = pedestal.dark
        if dark is None:
            # Without a bias the fixed pattern stays, the same in all sessions.
            dark = pedestal.value - np.float32(median_of_some(pedestal.value) or 0.0)
        seconds = np.float32(group.exposure)
        self.spool.put(("rate", id(group)), (dark / seconds).astype(np.float32))
        self.spool.put(("rate sigma", id(group)), (np.sqrt(pedestal.variance) / seconds).astype(np.float32))
        self.known.add(id(group))
        self.notes += [f"{path}: {reason}" for path, reason in source.rejected]
        if self.progress is not None:
            self.progress(len(group))


def _growth(made, sessions, model):
    """Growth with temperature [1/K]: of each pixel by the model, else of all from the darks; its spread; words."""
    if model is not None:
        own = np.array(model.params[1], np.float32)
        typical = median_of_some(own) or 0.0
        own[~np.isfinite(own)] = typical
        spread = median_of_some(np.asarray(model.sigmas[1], np.float32)) or hot_ledger.TYPICAL_SPREAD
        made.growth = hot_ledger.Growth(typical, float(spread), own.size)
        return own, np.float32(spread), "the dark model, each pixel its own"
    for members in sorted(sessions, key=lambda one: -np.ptp([g.temperature for g in one])):
        cold, warm = (pick(members, key=lambda g: g.temperature) for pick in (min, max))
        difference = warm.temperature - cold.temperature
        if difference < 3.0:
            break
        longest = [
            max((g for g in members if abs(g.temperature - one.temperature) < 0.5), key=lambda g: g.exposure)
            for one in (cold, warm)
        ]
        rates = [made.rate([group]) for group in longest]
        found = hot_ledger.growth_of(*(one.reshape(-1) for pair in rates for one in pair), difference)
        if found is not None:
            made.growth = found
            words = f"darks at {label(cold.temperature, 1)} and {label(warm.temperature, 1)} degC"
            return np.float32(found.value), np.float32(found.spread), words
    return None, None, "not known"


def _ever_hot(spool, count, limit):
    """Flat indices of the pixels that are hot in some epoch."""
    hot = None
    for number in range(count):
        rate, sigma = spool.get(("hot", number)), spool.get(("hot sigma", number))
        mine = (rate > limit) & (rate > hot_ledger.HOT_SIGMA * sigma)
        hot = mine if hot is None else hot | mine
    return np.flatnonzero(hot)
