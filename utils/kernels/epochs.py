"""When did it change?  Frames in order of time become epochs, and epochs contrasts: a window of time against the rest."""

from dataclasses import dataclass

import numpy as np

from utils.kernels import groups as grouping

PASSING = 0.96
"""Factor on the significance of changes that went again: there are many more such windows than lasting ones."""
STEADY_SIGMA, STEADY_DEPTH = 3.0, 0.7
"""Significance and part of its depth that a change must keep without the frame that speaks most for it."""
LEAST_FRAMES = 2
"""Frames that a change must have been seen in, and that must have been without it."""


def cut_epochs(times, gap, *, fewest=8, most=16):
    """Number the epochs of frames: sessions, the longest cut while they are few, neighbours joined while they are many.

    times : (n,) finite, in any unit.  gap : a longer pause starts a new session.
    fewest : sessions are cut in halves of equal numbers of frames until there are so many, or single frames.
    most : sessions with the fewest frames are joined to their shorter neighbour until there are so few.
    Returns epoch (n,) int, 0 for the earliest.
    """
    times = np.asarray(times, np.float64)
    order = np.argsort(times, kind="stable")
    session = grouping.sessions_by_time(times, gap)[order]
    parts = np.split(np.arange(times.size), np.flatnonzero(np.diff(session)) + 1)
    while len(parts) > most:
        sizes = np.array([part.size for part in parts])
        first = int(np.argmin(sizes[:-1] + sizes[1:]))
        parts[first : first + 2] = [np.concatenate(parts[first : first + 2])]
    while len(parts) < min(fewest, times.size):
        longest = int(np.argmax([part.size for part in parts]))
        parts[longest : longest + 1] = np.array_split(parts[longest], 2)
    epoch = np.empty(times.size, int)
    for number, part in enumerate(parts):
        epoch[order[part]] = number
    return epoch


@dataclass(frozen=True, eq=False)
class Contrasts:
    """All ways to set the epochs of a window against those outside.

    windows : (m, 2) int, first epoch inside and first one after.  weights : (m, planes) float64, contrast of the planes;
    they sum to 0 over the planes of each group, so that what a group's frames share (its reference, with its noise) drops
    out.  information : (m,), 1 / variance of a contrast where a plane has the variance 1 / its own information.
    """

    windows: np.ndarray
    weights: np.ndarray
    information: np.ndarray

    def unit(self):
        """Weights (m, planes) that give a contrast in its own sigma."""
        return self.weights * np.sqrt(self.information)[:, None]

    def scores(self):
        """Weights (m, planes) that give the score of a contrast: its significance, times PASSING where it went again."""
        lasting = self.windows[:, 1] == self.windows[:, 1].max(initial=0)
        return self.unit() * np.where(lasting, 1.0, PASSING)[:, None]


def contrasts(group, epoch, information, frames):
    """Contrasts of planes, each the mean of the frames of one group in one epoch.

    group, epoch : (planes,) int.  information : (planes,), 1 / variance of the plane.  frames : (planes,) int.
    A window begins after the first epoch; only groups with frames inside and outside speak, each with the weight of what
    it knows.  Windows of fewer than LEAST_FRAMES frames inside or outside are left out, as are repetitions.
    Returns `Contrasts`, with m = 0 where nothing can be compared.
    """
    group, epoch = np.asarray(group), np.asarray(epoch)
    information, frames = np.asarray(information, np.float64), np.asarray(frames)
    count = int(epoch.max()) + 1
    found = {}
    for first in range(1, count):
        for last in range(first + 1, count + 1):
            inside = (epoch >= first) & (epoch < last)
            weights, total = np.zeros(group.size), 0.0
            seen = missing = 0
            for number in np.unique(group[inside]):
                mine = group == number
                within, without = mine & inside, mine & ~inside
                if not without.any():
                    continue
                i, o = information[within].sum(), information[without].sum()
                known = 1.0 / (1.0 / i + 1.0 / o)
                weights[within] = known * information[within] / i
                weights[without] = -known * information[without] / o
                total += known
                seen += int(frames[within].sum())
                missing += int(frames[without].sum())
            if seen >= LEAST_FRAMES and missing >= LEAST_FRAMES:
                found.setdefault(
                    np.round(weights / total, 9).tobytes(), (first, last, weights / total, total)
                )
    if not found:
        return Contrasts(np.zeros((0, 2), int), np.zeros((0, group.size)), np.zeros(0))
    first, last, weights, total = zip(*found.values(), strict=True)
    return Contrasts(np.column_stack([first, last]), np.array(weights), np.array(total))


@dataclass(frozen=True, eq=False)
class Lifetime:
    """When a change was there.  first, last : indices of the first and last frame with it, in the order given.

    depth, sigma : its size and 1 sigma.  significance : depth / sigma.  frames : number of frames with it.
    without_best, depth_left : significance, and part of the depth, that is left without the frame that speaks most for
    it, be it one with the change or one without.
    """

    first: int
    last: int
    depth: float
    sigma: float
    significance: float
    frames: int
    without_best: float
    depth_left: float
    shown: np.ndarray

    @property
    def steady(self):
        """Whether more than one frame shows the change, and more than one is without it."""
        return self.without_best >= STEADY_SIGMA and self.depth_left >= STEADY_DEPTH


def lifetime(values, variance, group, start, stop, rounds=6):
    """Most likely first and last frame of a step in a series, begun from a first guess.

    values, variance : (n,), in order of time.  group : (n,) int, series with levels of their own.
    start, stop : frames [start, stop) of the first guess.  Both ends are moved in turn to where the step explains most.
    Returns `Lifetime`, or None where no step of LEAST_FRAMES frames is left.
    """
    values, weight = np.asarray(values, np.float64), 1.0 / np.asarray(variance, np.float64)
    n = values.size
    best = (start, stop)
    for _ in range(rounds):
        before = best
        # Of equal gains the shorter step: frames that cannot tell are no part of it.
        begins = np.arange(best[1] - 1, -1, -1)
        gains = _gains(values, weight, group, begins, np.full(begins.size, best[1]))
        best = (int(begins[_first_best(gains)]), best[1])
        ends = np.arange(best[0] + 1, n + 1)
        gains = _gains(values, weight, group, np.full(ends.size, best[0]), ends)
        best = (best[0], int(ends[_first_best(gains)]))
        if best == before:
            break
    inside = np.zeros(n, bool)
    inside[best[0] : best[1]] = True
    for number in np.unique(group):
        if inside[group == number].all():
            inside[group == number] = False
    depth, information = _step(values, weight, group, inside)
    if not information > 0 or inside.sum() < LEAST_FRAMES:
        return None
    score = depth * np.sqrt(information)
    least = left = np.inf
    for side in (inside, ~inside):
        # How far each frame of one side stands from the level of the other.
        away = np.sign(score) * (values - _levels(values, weight, group, ~side)) * np.sqrt(weight)
        leave = int(np.argmax(np.where(side, away if side is inside else -away, -np.inf)))
        kept = np.arange(n) != leave
        rest, known = _step(values[kept], weight[kept], group[kept], inside[kept])
        least = min(least, float(np.sign(score) * rest * np.sqrt(known)))
        left = min(left, float(rest / depth))
    return Lifetime(
        int(np.flatnonzero(inside)[0]),
        int(np.flatnonzero(inside)[-1]),
        float(depth),
        float(1.0 / np.sqrt(information)),
        float(score),
        int(inside.sum()),
        least,
        left,
        inside,
    )


def _first_best(gains):
    """Index of the first gain that no later one exceeds by more than rounding."""
    return int(np.argmax(gains >= gains.max() * (1.0 - 1e-9)))


def _gains(values, weight, group, begins, ends):
    """Squared significance of steps between pairs of frames, (k,)."""
    numerator, total = np.zeros(begins.size), np.zeros(begins.size)
    for number in np.unique(group):
        mine = group == number
        w, s = np.r_[0.0, np.cumsum(weight * mine)], np.r_[0.0, np.cumsum(weight * values * mine)]
        inside, found = w[ends] - w[begins], s[ends] - s[begins]
        outside, other = w[-1] - inside, s[-1] - found
        usable = (inside > 0) & (outside > 1e-9 * w[-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            known = np.where(usable, inside * outside / w[-1], 0.0)
            difference = np.where(usable, found / inside - other / outside, 0.0)
        numerator += known * difference
        total += known
    return np.where(total > 0, numerator**2 / np.where(total > 0, total, 1.0), -np.inf)


def _step(values, weight, group, inside):
    """Depth of a step and its information."""
    numerator = total = 0.0
    for number in np.unique(group[inside]):
        within, without = inside & (group == number), ~inside & (group == number)
        if without.any():
            i, o = weight[within].sum(), weight[without].sum()
            known = i * o / (i + o)
            difference = np.average(values[within], weights=weight[within]) - np.average(
                values[without], weights=weight[without]
            )
            numerator += known * difference
            total += known
    return (numerator / total if total > 0 else 0.0), total


def _levels(values, weight, group, outside):
    """Level of each frame's group outside the step, (n,); 0 for a group that has none."""
    level = np.zeros(values.size)
    for number in np.unique(group):
        mine = group == number
        if (mine & outside).any():
            level[mine] = np.average(values[mine & outside], weights=weight[mine & outside])
    return level
