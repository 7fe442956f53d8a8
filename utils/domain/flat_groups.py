"""Flats to compare: like with like, each frame with its level and its noise; what cannot be compared is named."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from utils.domain.frame_groups import FrameGroup, group_entries
from utils.domain.screening import converter_maximum
from utils.errors import InputError
from utils.fits_io.frame_sample import sample_group
from utils.kernels import adu_scale as stored_step
from utils.kernels import saturation as saturation_kernel
from utils.kernels import screen
from utils.kernels.changes import FrameNoise
from utils.kernels.flat_level import frame_level

ODD_FLAT = 10.0
"""A flat whose scatter lies so many robust sigma above that of its group is named."""
LEAST_SIGNAL = 10.0
"""A flat whose level is below so many sigma of its pixels is too dark to compare."""


@dataclass(eq=False)
class LikeFlats:
    """Flats of one filter, exposure and temperature, in order of time.

    frames : `FrameGroup`.  order : (n,) place of each frame among all flats of its filter.  family : groups of one number
    are compared with each other.  pedestal : (ny, nx) float32 or
    a number, what a frame holds without light [product ADU].  origin : where it is from, in words.  levels : (n,) above it
    [product ADU].  scatter : (n,) robust spread of a frame over its level.  saturated : (n,) share of sampled pixels.
    noise : list of `FrameNoise`.
    """

    frames: FrameGroup
    order: np.ndarray
    family: int = 0
    pedestal: object = 0.0
    origin: str = "nothing"
    levels: np.ndarray = None
    scatter: np.ndarray = None
    saturated: np.ndarray = None
    noise: list = field(default_factory=list)

    def __len__(self):
        return len(self.frames)

    def subset(self, keep):
        """Return the flats at the indices ``keep``."""
        arrays = (None if one is None else one[keep] for one in (self.levels, self.scatter, self.saturated))
        noise = [self.noise[i] for i in keep] if self.noise else []
        return LikeFlats(
            self.frames.subset(keep),
            self.order[keep],
            self.family,
            self.pedestal,
            self.origin,
            *arrays,
            noise,
        )


@dataclass(eq=False)
class FlatSet:
    """All flats of one filter that can be compared with others.

    groups : list of `LikeFlats`.  times : (n,) of all its frames in order of time: Unix seconds, or numbers of files.
    timed : False where the order of the files stands for time.  adu_scale : stored units per product ADU.
    """

    filter: str
    groups: list
    times: np.ndarray
    timed: bool
    adu_scale: float = 1.0
    saturation: float = math.inf

    @property
    def count(self):
        """Number of frames."""
        return sum(len(group) for group in self.groups)


def sets_of_flats(entries, images, temp_tolerance, *, across_exposures=False):
    """Group flats by filter, exposure and temperature.

    entries : ObservationManager entries of flats of one camera setting.  images : path -> FitsImage.
    across_exposures : groups of one temperature are one family whatever their exposure, else each group is its own.
    Where a frame tells no time, the order of the files stands for time in its whole filter.
    Returns a list of `FlatSet`, and for each kind of time stamp (keyword, or 'file order') how many frames have it.
    """
    sets, sources = [], {}
    for name in sorted({entry["filter"] for entry in entries}):
        mine = [entry for entry in entries if entry["filter"] == name]
        timed = all(entry["timestamp"] is not None for entry in mine)
        key = (lambda e: (e["timestamp"], e["original_path"])) if timed else (lambda e: e["identifier"])
        mine.sort(key=key)
        for entry in mine:
            source = entry["time_source"] if timed else "file order"
            sources[source] = sources.get(source, 0) + 1
        place = {entry["original_path"]: number for number, entry in enumerate(mine)}
        times = np.array(
            [entry["timestamp"] for entry in mine] if timed else np.arange(len(mine)), np.float64
        )
        groups = []
        for family, members in enumerate(_families(mine, images, temp_tolerance, across_exposures)):
            for group in members:
                order = np.array([place[entry["original_path"]] for entry in group.entries])
                keep = np.argsort(order)
                groups.append(LikeFlats(group.subset(keep), order[keep], family))
        # The earliest group of a family comes first: it is the reference.
        groups.sort(key=lambda group: (group.family, group.order[0]))
        sets.append(FlatSet(name, groups, times, timed))
    return sets, sources


def _families(entries, images, temp_tolerance, across_exposures):
    """Groups of like flats, those that are compared with each other together."""
    if not across_exposures:
        return [
            [one] for one in group_entries(entries, images, temp_tolerance=temp_tolerance, by_exposure=True)
        ]
    return [
        group_entries(one.entries, images, temp_tolerance=3.0 * temp_tolerance, by_exposure=True)
        for one in group_entries(entries, images, temp_tolerance=temp_tolerance)
    ]


@dataclass
class Measured:
    """What measuring the levels found.  rejected : list of (path, reason).  notes : list of str.  inverse_gain [ADU/e-]."""

    rejected: list
    notes: list
    inverse_gain: float
    adu_scale: float


def measure_levels(
    sets, pedestal_of, *, read_variance=0.0, inverse_gain=None, adu_scale=None, saturation=None, jobs=1
):
    """Measure level and noise of every flat from its sampled rows; frames that cannot be compared are taken out.

    pedestal_of : (LikeFlats, adu_scale) -> (plane or number [product ADU], words).  read_variance : of one sample [ADU^2].
    inverse_gain : ADU per electron, None = from differences of successive frames.  adu_scale, saturation : None = found.
    Returns `Measured`; empty groups and sets are dropped.  Raises InputError where no frame is left.
    """
    result = Measured([], [], 0.0, 1.0)
    samples = _samples(sets, jobs, result)
    groups = [group for one in sets for group in one.groups]
    factor = stored_step.shared_factor(vote for sample in samples for vote in sample.votes)
    scale = float(factor if adu_scale is None else adu_scale)
    full = (
        converter_maximum([group.frames for group in groups], scale)
        if saturation is None
        else float(saturation)
    )
    result.adu_scale = scale
    if saturation is None:
        full = _saturation(groups, samples, scale, full, result)
    rows_of, kept_of = {}, {}
    for group, sample in zip(groups, samples, strict=True):
        group.pedestal, group.origin = pedestal_of(group, scale)
        rows_of[id(group)] = _measure(group, sample, scale, full)
        kept_of[id(group)] = _judge(group, sample, result)
    result.inverse_gain = (
        _inverse_gain(groups, rows_of, kept_of, read_variance) if inverse_gain is None else inverse_gain
    )
    for one in sets:
        one.adu_scale, one.saturation = scale, full
        left = []
        for group in one.groups:
            group.noise = [
                FrameNoise(read_variance / level**2, result.inverse_gain / level) if level > 0 else None
                for level in group.levels
            ]
            keep = [i for i in kept_of[id(group)] if _bright(group, i, result)]
            if keep:
                left.append(group.subset(np.array(keep)))
        one.groups = left
    sets[:] = [one for one in sets if one.groups]
    if not sets:
        path, reason = result.rejected[0]
        raise InputError(f"no flat can be used, the first was {path} ({reason})")
    return result


def _samples(sets, jobs, result):
    """Sample every group in turn; frames whose bytes are of no use leave it, with a line in ``result.rejected``."""
    samples = []
    for one in sets:
        left = []
        for group in one.groups:
            sample = sample_group(group.frames.images, jobs, ceiling=65535)
            for index, fault in sorted(sample.faults.items()):
                result.rejected.append((group.frames.entries[index]["original_path"], fault))
            keep = [index for index in range(len(group)) if index not in sample.faults]
            if keep:
                left.append(group.subset(np.array(keep)) if sample.faults else group)
                samples.append(sample.at(keep) if sample.faults else sample)
        one.groups = left
    if not samples:
        path, reason = result.rejected[0]
        raise InputError(f"{path}: {reason}; none of {len(result.rejected)} flats can be used")
    return samples


def odd_flats(sets):
    """Flats that are far more uneven than the others of their group: (path, what is odd); they are kept.

    A change that one flat alone shows is no structure, but worth a look: light that moved, a cloud, a lamp that flickered.
    """
    found = []
    for group in (group for one in sets for group in one.groups):
        if len(group) < 5:
            continue
        middle = float(np.median(group.scatter))
        spread = max(1.4826 * float(np.median(np.abs(group.scatter - middle))), 0.02 * middle)
        for index in np.flatnonzero(group.scatter > middle + ODD_FLAT * spread):
            path = group.frames.entries[index]["original_path"]
            found.append(
                (path, f"scatter {group.scatter[index]:.2%} of its level, {middle:.2%} in flats like it")
            )
    return found


def _saturation(groups, samples, scale, full, result):
    """Level of saturation, from the frames where they show one below the converter's maximum."""
    tops = [
        saturation_kernel.describe_frame(rows / np.float32(scale))
        for sample in samples
        for rows in sample.rows
    ]
    exposures = np.array([entry["exposure"] or 0.0 for group in groups for entry in group.frames.entries])
    found = saturation_kernel.saturation_level(tops, full, exposures)
    if found.level < full:
        result.notes.append(f"saturation at {found.level:.0f} ADU: {found.reason}")
        return found.level
    return full


def _measure(group, sample, scale, full):
    """Set levels, scatter and saturated share of a group; returns its rows less the pedestal (n, r, nx)."""
    rows = sample.rows / np.float32(scale)
    with np.errstate(invalid="ignore"):
        lit = rows >= full
    group.saturated = lit.mean(axis=(1, 2))
    pedestal = group.pedestal
    rows -= pedestal if np.ndim(pedestal) == 0 else pedestal[sample.where]
    # Pixels that one frame lacks take no part in any: all levels are of the same pixels.
    good = np.isfinite(rows).all(axis=0) & ~lit.any(axis=0)
    if good.mean() < 0.5:
        good = np.isfinite(rows).all(axis=0)
    rows[:, ~good] = np.nan
    group.levels = np.array([frame_level(one, "mean") for one in rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        group.scatter = np.array([screen.robust_level(one)[1] for one in rows]) / group.levels
    return rows


def _judge(group, sample, result):
    """Indices of the frames that can be used; the others go to ``result.rejected``."""
    found, _ = screen.judge_rows(sample.zero, sample.frozen)
    limit = screen.ScreenLimits().saturated_fraction
    for index in np.flatnonzero(group.saturated > limit):
        found[int(index)] = ("SATURATED", f"{group.saturated[index]:.1%} of the sampled pixels")
    for index in np.flatnonzero(~np.isfinite(group.levels)):
        found[int(index)] = ("NO_DATA", "no finite sample")
    for index in np.flatnonzero(group.levels <= 0):
        found.setdefault(int(index), ("TOO_DARK", f"level {group.levels[index]:.1f} ADU above the pedestal"))
    for index, (code, detail) in sorted(found.items()):
        result.rejected.append((group.frames.entries[index]["original_path"], f"{code}: {detail}"))
    return [i for i in range(len(group)) if i not in found]


def _bright(group, index, result):
    noise = group.noise[index]
    if noise is not None and noise.variance * LEAST_SIGNAL**2 < 1.0:
        return True
    level = f"level {group.levels[index]:.1f} ADU, expected more than {LEAST_SIGNAL:g} sigma of its pixels"
    result.rejected.append((group.frames.entries[index]["original_path"], f"TOO_DARK: {level}"))
    return False


def _inverse_gain(groups, rows_of, kept_of, read_variance):
    """ADU per electron from the scatter of differences of successive frames; of neighbouring pixels without any pair."""
    found, spatial = [], []
    for group in groups:
        keep, rows, level = kept_of[id(group)], rows_of[id(group)], group.levels
        for first, second in itertools.pairwise(keep):
            difference = rows[second] / level[second] - rows[first] / level[first]
            difference = difference[np.isfinite(difference)]
            if difference.size == 0:
                continue
            variance = (1.4826 * float(np.median(np.abs(difference - np.median(difference))))) ** 2
            read = read_variance * (1.0 / level[first] ** 2 + 1.0 / level[second] ** 2)
            found.append(max(variance - read, 0.05 * variance) / (1.0 / level[first] + 1.0 / level[second]))
        for index in keep[:1]:
            steps = np.diff(rows[index], axis=1)
            steps = steps[np.isfinite(steps)]
            spatial.append(
                (1.4826 * float(np.median(np.abs(steps)))) ** 2 / 2.0 / level[index] if steps.size else 0.0
            )
    value = float(np.median(found)) if found else float(np.median(spatial)) if spatial else 0.0
    return value if value > 0 else 1e-3
