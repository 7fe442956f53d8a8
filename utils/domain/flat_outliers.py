"""Every flat against the earliest ones, pixel by pixel: outliers at its own temperature and whatever the temperature."""

import math
import pickle
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from utils.domain.epoch_sums import read_frame
from utils.domain.frame_groups import FrameGroup
from utils.fits_io import cluster
from utils.fits_io.cluster_stack import as_sent
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.workers import in_workers
from utils.kernels import changes, film, groups, pixel_damage
from utils.kernels.pieces import in_pieces

FRAMES_AT_ONCE = 64
"""Frames of a group that one worker takes in one go; it reads a neighbour more on each side."""
MOST_OUTLIERS, MOST_LISTED = 0.05, 20_000
"""A flat with more outliers (part of its pixels, number) differs as a whole; its pixels are not listed."""
SAME_EXPOSURE = 0.01


@dataclass(eq=False)
class FlatFacts:
    """What one flat shows.

    place : among the flats of its filter.  mean, spread : of its good pixels above the pedestal [product ADU].
    own : `Outliers` against the earliest flats of its group.  across : against the earliest of its filter and exposure
    at any temperature.  expected, expected_across : scatter of these differences that noise alone gives.  compared,
    compared_across : whether there are others to compare with.
    """

    place: int
    mean: float
    spread: float
    own: object
    across: object
    expected: float
    expected_across: float
    compared: bool
    compared_across: bool


@dataclass(eq=False)
class GroupLink:
    """How a group of like flats is tied to the earliest group of its exposure.

    base : index of that group.  change : (ny, nx) float32 of its reference against that of the base, without its smooth
    part, or None for the base itself.  information : 1 / variance of that at a typical pixel.  extra : (ny, nx) float32
    variance of the subtracted bias and dark, or None.
    """

    base: int
    change: np.ndarray | None = None
    information: float = math.inf
    extra: np.ndarray | None = None


@dataclass(eq=False)
class SetOutliers:
    """Outliers of all flats of one filter.

    changes : `SetChanges`.  limit : [sigma].  links : of `link_groups`.  stage : (groups,) int, groups of one temperature
    share one.  temperatures : of each stage [degC].  facts : list of `FlatFacts` in order of time.
    odd : places of flats that differ as a whole.
    """

    changes: object
    limit: float
    links: list
    stage: np.ndarray
    temperatures: list
    facts: list
    odd: list = field(default_factory=list)


def temperature_stages(sets, tolerance):
    """Tell which groups of all filters and exposures are of one temperature.

    Returns for each set (groups,) int, and the temperature of each stage [degC], coldest first.
    """
    means = [group.frames.temperature for one in sets for group in one.groups]
    counts = [len(group) for one in sets for group in one.groups]
    number, temperatures = np.zeros(len(means), int), []
    for stage, members in enumerate(groups.group_by_gap(means, tolerance)):
        number[members] = stage
        temperatures.append(float(np.average(np.take(means, members), weights=np.take(counts, members))))
    cuts = np.cumsum([len(one.groups) for one in sets])[:-1]
    return np.split(number, cuts), temperatures


def link_groups(made, pedestal_variance=None):
    """Tie the groups of a set of `SetChanges` to the earliest of their exposure; returns a list of `GroupLink`.

    pedestal_variance : function of a `LikeFlats` to the variance of what was subtracted [ADU^2], or None.
    """
    links, flats = [], made.flats.groups
    for index, group in enumerate(flats):
        same = [
            k for k, other in enumerate(flats)
            if abs(other.frames.exposure - group.frames.exposure) <= SAME_EXPOSURE * group.frames.exposure
        ]  # fmt: skip
        base = min(same, key=lambda k: flats[k].order[0])
        links.append(GroupLink(base) if base == index else _tie(made, index, base, pedestal_variance))
    return links


def _tie(made, index, base, pedestal_variance):
    """Reference of one group over that of another."""
    mine, other = made.results[index], made.results[base]
    change = np.empty(made.shape, np.float32)
    for out, a, b, w in in_pieces(change, mine.reference, other.reference, made.weight):
        np.divide(a, b, out=out, where=w > 0)
        out -= np.float32(1.0)
        out[w <= 0] = 0.0
    known = [float(result.information[0]) for result in (mine, other)]
    information = 1.0 / (1.0 / known[0] + 1.0 / known[1])
    size = film.cell_size(made.shape)
    means, weights = film.cell_means(change, made.weight, size)
    surface = film.smooth_part(means, weights * information / float(made.excess.max()) ** 2, made.shape, size)
    change -= surface.rows(0, made.shape[0])
    extra = None
    if pedestal_variance is not None:
        level = [float(np.mean(made.flats.groups[k].levels)) for k in (index, base)]
        extra = sum(
            pedestal_variance(made.flats.groups[k]) / np.float32(one * one)
            for k, one in zip((index, base), level, strict=True)
        ) / np.square(np.maximum(other.reference, np.float32(changes.LEAST_RESPONSE)))
        extra = np.nan_to_num(extra, nan=0.0).astype(np.float32)
    return GroupLink(base, change, information, extra)


def follow(made, links, stage, temperatures, *, write=None, look=None, jobs=1, progress=None):
    """Look at every flat of one filter once more, and find its outliers.

    made : `SetChanges`.  links : of `link_groups`.  stage, temperatures : of `temperature_stages`.
    write : called with (place, value, sigma, saturated) of each normalised flat, in the worker; None: not wanted.
    look : called there with (place, across, change (ny, nx), `Outliers`), across = whatever the temperature; or None.
    Both have ``only(places)``, the same for some flats, which can be sent to another machine.
    Returns `SetOutliers`.
    """
    limit = pixel_damage.outlier_limit(made.good_pixels)
    told = None if progress is None else (lambda found: progress(len(found)))
    if cluster.connected():
        facts = _follow_on_cluster(made, links, limit, write, look, told)
    else:
        parts = [
            (index, *cut)
            for index, group in enumerate(made.flats.groups)
            for cut in _cuts(len(group), max(jobs, 1))
        ]

        def prepare():
            return lambda part: list(_Follower(made, links, limit, part[0], write, look).facts(*part[1:]))

        facts = [one for found in in_workers(prepare, parts, jobs, told) for one in found]
    facts.sort(key=lambda one: one.place)
    result = SetOutliers(made, limit, links, stage, temperatures, facts)
    most = min(MOST_OUTLIERS * made.good_pixels, MOST_LISTED)
    result.odd = [
        one.place for one in facts if max(one.own.pixels.size, one.across.pixels.size) > max(most, 20)
    ]
    return result


def _cuts(count, workers):
    """(start, stop) of the flats of a group that one worker takes in one go."""
    step = min(FRAMES_AT_ONCE, max(4, -(-count // workers)))
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _follow_on_cluster(made, links, limit, write, look, told):
    """List of `FlatFacts` from the workers of a cluster, one group after the other.

    What the flats of a group share is several planes: it goes by a file beside the spool of the changes.
    """
    facts = []
    for index, group in enumerate(made.flats.groups):
        places = [int(place) for place in group.order]
        shared = (
            _of_group(made, index), {index: links[index]}, limit, index,
            *(None if one is None else one.only(places) for one in (write, look)),
        )  # fmt: skip
        with cluster.shared_file(made.spool.folder, shared) as path:
            done = cluster.units(
                _followers_at_work, (path,), _cuts(len(group), 2 * cluster.threads()),
                what="flats, pixel by pixel", total=len(group), weight=len, witness=path,
            )  # fmt: skip
            for _, found in done:
                facts += found
                if told is not None:
                    told(found)
    return facts


def _of_group(made, index):
    """The part of `SetChanges` that the flats of one group need, as it is sent."""
    group = made.flats.groups[index]
    sent = replace(group, frames=FrameGroup(group.frames.entries, as_sent(group.frames.images)))
    nothing = replace(group, frames=FrameGroup([], []), pedestal=0.0)
    groups = [sent if k == index else nothing for k in range(len(made.flats.groups))]
    results = [
        result if k == index else replace(result, reference=None) for k, result in enumerate(made.results)
    ]
    keys = [(made.flats.filter, int(number)) for number in np.flatnonzero(made.owner == index)]
    return replace(
        made, flats=replace(made.flats, groups=groups), results=results, spool=made.spool.as_sent(keys),
        contrasts=None, bank=[],
    )  # fmt: skip


@contextmanager
def _followers_at_work(path, memory_limit):
    with open(path, "rb") as stream:
        made, links, limit, index, write, look = pickle.load(stream)
    yield lambda cut: list(_Follower(made, links, limit, index, write, look).facts(*cut))


class _Follower:
    """Flats of one group, one after the other."""

    def __init__(self, made, links, limit, index, write, look):
        self.made, self.link, self.limit = made, links[index], limit
        self.write, self.look = write, look
        self.group, self.result, self.index = made.flats.groups[index], made.results[index], index
        self.ratio2 = self.result.noise_ratio**2
        self.good, self.typical = made.good_pixels, pixel_damage.typical_noise(made.weight)
        self.more = 0.0
        if self.link.extra is not None:
            self.more = float(self.link.extra.sum(dtype=np.float64)) / max(self.good, 1)
        self.inverse = np.zeros(made.shape, np.float32)
        np.divide(np.float32(1.0), self.result.reference, out=self.inverse, where=made.weight > 0)
        self._epoch = None

    def facts(self, start, stop):
        """Yield `FlatFacts` of the frames start to stop."""
        n = len(self.group)
        with FrameStack(self.group.frames.images, adu_scale=self.made.flats.adu_scale) as stack:
            window = {}
            for index in range(start, stop):
                near = _neighbours(index, n)
                window = {k: window[k] if k in window else self._read(stack, k) for k in (index, *near)}
                frame, full = window[index]
                if self.write is not None:
                    self.write(int(self.group.order[index]), *self._normalised(index, frame, full))
                frame = frame.copy()
                frame[~np.isfinite(frame)] = 0.0
                mean, spread = self._level(frame, index)
                if len(near) == 2:
                    changes.clean_hits(frame, *(window[k][0] for k in near), self.group.noise[index])
                yield self._judge(index, frame, mean, spread)

    def _read(self, stack, index):
        frame, full = read_frame(stack, index, self.group.pedestal, self.made.flats.saturation)
        frame *= np.float32(1.0 / self.group.levels[index])
        return frame, full

    def _normalised(self, index, frame, full):
        noise = self.group.noise[index]
        value = np.where(full, np.float32(np.nan), frame)
        sigma = np.sqrt(
            np.float32(noise.read) + np.float32(noise.photon) * np.maximum(frame, np.float32(0.0))
        )
        return value, sigma, full

    def _level(self, frame, index):
        """Mean and standard deviation over the good pixels [product ADU]."""
        total = squares = 0.0
        for x, m in in_pieces(frame, self.inverse):
            lit = np.where(m > 0, x, np.float32(1.0)) - np.float32(1.0)
            total, squares = total + float(lit.sum()), squares + float((lit * lit).sum())
        mean = total / max(self.good, 1)
        level = float(self.group.levels[index])
        return (1.0 + mean) * level, math.sqrt(max(squares / max(self.good, 1) - mean * mean, 0.0)) * level

    def _judge(self, index, frame, mean, spread):
        made, place = self.made, int(self.group.order[index])
        self._enter(int(made.epoch_of[place]))
        for x, m, s in in_pieces(frame, self.inverse, self.smooth):
            x *= m
            x -= s
        own = self.ratio2 * self.group.noise[index].variance
        earliest = 1.0 / float(self.result.information[0])
        # A flat of the reference itself: its own noise is part of that mean.
        noise = max(own - earliest, 0.0) if self.first else own + earliest
        variance = max(noise, 1e-3 * own)
        found = pixel_damage.find_outliers(
            frame, made.weight, variance, self.limit, good=self.good, shown=self.shown
        )
        expected = expected_across = math.sqrt(noise * self.typical)
        across, compared, linked = found, len(self.result.epochs) > 1, self.link.change is not None
        if self.look is not None and compared:
            self.look(place, False, frame, found)
        if linked:
            frame += self.link.change
            # The group's own reference cancels: the flat stands against that of the earliest group.
            variance = own + 1.0 / float(made.results[self.link.base].information[0])
            across = pixel_damage.find_outliers(
                frame, made.weight, variance, self.limit,
                good=self.good, shown=self.shown_across, extra=self.link.extra,
            )  # fmt: skip
            expected_across = math.sqrt(variance * self.typical + self.more)
        if self.look is not None and (compared or linked):
            self.look(place, True, frame, across)
        return FlatFacts(
            place, mean, spread, found, across, expected, expected_across, compared, compared or linked
        )

    def _enter(self, epoch):
        """Make ready what all frames of an epoch share."""
        if epoch == self._epoch:
            return
        self._epoch = epoch
        made, shape = self.made, self.made.shape
        number = int(np.flatnonzero((made.owner == self.index) & (made.epoch == epoch))[0])
        surface = made.surfaces[number]
        smooth = np.zeros(shape, np.float32) if surface is None else surface.rows(0, shape[0])
        smooth[made.weight <= 0] = 0.0
        change = made.plane_rows(number, 0, shape[0]) - smooth
        # A flat over the reference is 1 where nothing changed.
        self.smooth = smooth + (made.weight > 0).astype(np.float32)
        self.first = epoch == self.result.epochs[0]
        self.shown = self.shown_across = None
        known = 1.0 / float(made.information[number])
        if not self.first:
            variance = known + 1.0 / float(self.result.information[0])
            self.shown = pixel_damage.find_outliers(change, made.weight, variance, self.limit, good=self.good)
        if self.link.change is not None:
            change += self.link.change
            variance = known + 1.0 / float(made.results[self.link.base].information[0])
            self.shown_across = pixel_damage.find_outliers(
                change, made.weight, variance, self.limit, good=self.good, extra=self.link.extra
            )


def _neighbours(index, count):
    """The two frames that tell a hit from a change: before and after; two on one side at the ends."""
    if count < 3:
        return ()
    if index == 0:
        return (1, 2)
    return (index - 1, index - 2) if index == count - 1 else (index - 1, index + 1)
