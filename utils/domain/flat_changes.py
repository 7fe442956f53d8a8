"""From like flats to what changed: epochs averaged in one pass, smooth part and regions, each region frame by frame."""

import math
from dataclasses import dataclass

import numpy as np

from utils.domain.epoch_sums import average_epochs, to_adu
from utils.fits_io.frame_stack import FrameStack
from utils.kernels import changes, epochs, film, regions, significance, templates, trends

SESSION_GAP = 6 * 3600.0
"""A pause between frames longer than this starts a new session [s]."""
EXCESS_SIDE = 512
"""Side of the part of a frame in which the noise of large shapes is looked at [pixels]."""
FALSE_PER_FLAT = 1e-3
"""False regions that are accepted for each flat."""


@dataclass(eq=False)
class SetChanges:
    """Planes of one filter: the relative change of each group and epoch against the group's first epoch.

    flats : `FlatSet`.  shape (ny, nx).  epoch_of : (n,) of each frame.  owner : (planes,) index of the group.
    group (its family), epoch, information, frames : (planes,).
    results : `GroupChange` of each group (their changes are in the spool).  weight : (ny, nx) float32.  excess :
    (templates,).  surfaces : smooth part of each plane, or None for a group's first epoch.  contrasts, bank : as used.
    spool : `ArraySpool` that holds plane k under (filter, k).
    """

    flats: object
    shape: tuple
    epoch_of: np.ndarray
    owner: np.ndarray
    group: np.ndarray
    epoch: np.ndarray
    information: np.ndarray
    frames: np.ndarray
    results: list
    weight: np.ndarray
    excess: np.ndarray
    surfaces: list
    contrasts: object
    bank: list
    spool: object

    @property
    def count(self):
        """Number of planes."""
        return self.group.size

    @property
    def good_pixels(self):
        """Pixels that are looked at."""
        return int(np.count_nonzero(self.weight))

    def plane(self, number):
        """Relative change of plane ``number`` as measured, (ny, nx) float32."""
        return self.spool.get((self.flats.filter, number))

    def plane_rows(self, number, start, stop):
        """Rows of plane ``number`` as measured, (stop - start, nx) float32."""
        nx = self.shape[1]
        return self.spool.part((self.flats.filter, number), slice(start * nx, stop * nx)).reshape(-1, nx)

    def rows(self, start, stop):
        """Rows of all planes without their smooth part, (count, stop - start, nx) float32."""
        out = np.empty((self.count, stop - start, self.shape[1]), np.float32)
        for number, surface in enumerate(self.surfaces):
            out[number] = self.plane_rows(number, start, stop)
            if surface is not None:
                out[number] -= surface.rows(start, stop)
        return out

    def expected_false(self, threshold):
        """Regions that noise alone makes beyond a threshold."""
        if len(self.contrasts.windows) == 0:
            return 0.0
        return significance.expected_false(
            threshold, self.good_pixels, self.contrasts.scores(), self.information
        )

    def threshold(self, expected=None):
        """Threshold of which noise alone is expected to pass ``expected`` regions (default: FALSE_PER_FLAT a flat)."""
        wanted = FALSE_PER_FLAT * self.flats.count if expected is None else expected
        return significance.threshold_for(wanted, self.good_pixels, self.contrasts.scores(), self.information)


def changes_of(
    flats, spool, *, session_gap=SESSION_GAP, jobs=1, memory_limit=2 << 30, progress=None, forgive_step=False
):
    """Average the epochs of one filter, every frame read once; returns `SetChanges`.

    flats : `FlatSet` with levels.  spool : open `ArraySpool`.  progress : called once for each frame.
    forgive_step : as `changes.GroupMeans`: for those who look at single pixels.
    """
    shape = tuple(flats.groups[0].frames.images[0].shape)
    used = np.sort(np.concatenate([group.order for group in flats.groups]))
    epoch_of = np.full(flats.times.size, -1)
    epoch_of[used] = epochs.cut_epochs(flats.times[used], session_gap if flats.timed else math.inf)
    results, columns = [], ([], [], [], [], [])
    number, reference = 0, {}
    for index, group in enumerate(flats.groups):
        known = reference.get(group.family)
        result = average_epochs(
            group, epoch_of[group.order], flats, jobs=jobs, memory_limit=memory_limit, progress=progress,
            reference=known, forgive_step=forgive_step,
        )  # fmt: skip
        reference.setdefault(group.family, result.reference)
        for k, change in enumerate(result.changes):
            spool.put((flats.filter, number), change)
            number += 1
            row = (
                index,
                group.family,
                int(result.epochs[k]),
                float(result.information[k]),
                int(result.frames[k]),
            )
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        result.changes.clear()
        results.append(result)
    owner, group, epoch, information, frames = (np.array(column) for column in columns)
    weight = _common_weight(results, flats.groups)
    bank = templates.template_bank(shape)
    made = SetChanges(
        flats,
        shape,
        epoch_of,
        owner,
        group,
        epoch,
        information,
        frames,
        results,
        weight,
        _excess(results, weight, bank),
        [],
        epochs.contrasts(group, epoch, information, frames),
        bank,
        spool,
    )
    made.surfaces += [_surface(made, k) for k in range(made.count)]
    for result in results:
        result.quiet = None
    return made


def _common_weight(results, groups):
    """Weight of every pixel over all groups; bad in one group is bad in all."""
    total = np.zeros(results[0].weight.shape, np.float32)
    bad = np.zeros(total.shape, bool)
    share = np.array([result.information.sum() for result in results])
    for result, part in zip(results, share / share.sum(), strict=True):
        total += np.float32(part) * result.weight
        bad |= result.weight <= 0
        result.weight = None
    total[bad] = 0.0
    return total


def _excess(results, weight, bank):
    """Noise of the templates over the expected, from the group whose quiet difference knows most."""
    best = min((r for r in results if r.quiet_variance > 0), key=lambda r: r.quiet_variance, default=None)
    if best is None:
        return np.ones(len(bank))
    middle = tuple(slice(max(0, (n - EXCESS_SIDE) // 2), (n + EXCESS_SIDE) // 2) for n in weight.shape)
    part = np.ascontiguousarray(best.quiet[middle])
    own = np.ascontiguousarray(weight[middle])
    surface = _smooth(part, own, 1.0 / best.quiet_variance)
    part = part - surface.rows(0, part.shape[0])
    return significance.excess_noise(part, best.quiet_variance, own, templates.FilterBank(part.shape, bank))


def _smooth(change, weight, information):
    size = film.cell_size(change.shape)
    means, known = film.cell_means(change, weight, size)
    return film.smooth_part(means, known * information, change.shape, size)


def _surface(made, number):
    mine = made.group == made.group[number]
    first = np.flatnonzero(mine)[0]
    if number == first:
        return None
    information = 1.0 / (1.0 / made.information[number] + 1.0 / made.information[first])
    return _smooth(made.plane(number), made.weight, information / float(made.excess.max()) ** 2)


@dataclass(eq=False)
class FoundRegion:
    """A region with its history.

    region : `utils.kernels.regions.Region`.  life : `utils.kernels.epochs.Lifetime` over the frames of the filter in order
    of time.  values, sigmas : (n,) change of each frame (NaN where the frame is not used) and its error.
    """

    region: object
    life: object
    values: np.ndarray
    sigmas: np.ndarray

    def present(self):
        """Frames that show the change, (n,) bool."""
        shown = np.zeros(self.values.size, bool)
        shown[np.flatnonzero(np.isfinite(self.values))] = self.life.shown
        return shown


def find(made, threshold, *, jobs=1, progress=None):
    """Find the regions of one filter and follow them through its frames.

    Returns a list of `FoundRegion`, the most significant first, and the number of places that one frame alone showed.
    """
    if len(made.contrasts.windows) == 0:
        return [], 0
    found = regions.find_regions(
        made, made.weight, made.contrasts, made.bank, threshold, excess=made.excess, jobs=jobs
    )
    if not found:
        return [], 0
    values, sigmas = _series(made, found, progress)
    group_of = np.full(made.flats.times.size, -1)
    for group in made.flats.groups:
        group_of[group.order] = group.family
    known = np.flatnonzero(made.epoch_of >= 0)
    kept, single = [], 0
    for index, region in enumerate(found):
        y, s = values[index, known], sigmas[index, known]
        inside = (made.epoch_of[known] >= region.window[0]) & (made.epoch_of[known] < region.window[1])
        first, last = np.flatnonzero(inside)[[0, -1]]
        life = epochs.lifetime(y, s**2, group_of[known], int(first), int(last) + 1)
        if life is None or not life.steady:
            single += 1
            continue
        kept.append(FoundRegion(region, life, values[index], sigmas[index]))
    return kept, single


def _series(made, found, progress):
    """Change of every region in every frame against its group's first epoch, and its error: (regions, n) each."""
    n = made.flats.times.size
    values, sigmas = np.full((len(found), n), np.nan), np.full((len(found), n), np.nan)
    boxes = [_Box(region, made) for region in found]
    number = 0
    for result, group in zip(made.results, made.flats.groups, strict=True):
        planes = {}
        for epoch in result.epochs:
            planes[int(epoch)] = [box.cut(made, number, result.reference) for box in boxes]
            number += 1
        with FrameStack(group.frames.images, adu_scale=made.flats.adu_scale) as stack:
            for index, place in enumerate(group.order):
                near = planes[int(made.epoch_of[place])]
                scale = result.noise_ratio**2
                for k, (box, (reference, change, smooth)) in enumerate(zip(boxes, near, strict=True)):
                    raw = np.empty((box.bottom - box.top, made.shape[1]), stack.stored_type(index))
                    stack.read_rows(index, box.top, raw)
                    pedestal = group.pedestal if np.ndim(group.pedestal) == 0 else group.pedestal[box.area()]
                    part, _ = to_adu(
                        raw[:, box.left : box.right], stack.images[index], stack.adu_scale, pedestal
                    )
                    y = part[box.inside] / (group.levels[index] * reference) - 1.0
                    variance = scale * group.noise[index].variance / box.weight
                    # A hit is no part of the region's change.
                    y = np.where(np.square(y - change) > changes.HIT_SIGMA**2 * variance, change, y) - smooth
                    values[k, place] = float((y * box.weight).sum() / box.weight.sum())
                    sigmas[k, place] = math.sqrt(scale * group.noise[index].variance / box.weight.sum())
                if progress is not None:
                    progress(1)
    return values, sigmas


class _Box:
    """Rectangle around a region."""

    def __init__(self, region, made):
        self.top, self.bottom = int(region.rows.min()), int(region.rows.max()) + 1
        self.left, self.right = int(region.columns.min()), int(region.columns.max()) + 1
        self.inside = (region.rows - self.top, region.columns - self.left)
        self.pixels = (region.rows, region.columns)
        self.weight = np.maximum(made.weight[self.pixels].astype(np.float64), 1e-12)

    def area(self):
        """Slices of the rectangle."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def cut(self, made, number, reference):
        """Reference, change and smooth part of a plane at the region's pixels."""
        change = made.plane_rows(number, self.top, self.bottom)[:, self.left : self.right]
        smooth = np.zeros(change.shape, np.float32)
        if made.surfaces[number] is not None:
            smooth = made.surfaces[number].rows(self.top, self.bottom)[:, self.left : self.right]
        return reference[self.pixels].astype(np.float64), change[self.inside], smooth[self.inside]


@dataclass(eq=False)
class FilmHistory:
    """Smooth loss of light over the epochs of one filter.

    epochs : (k,) with a map.  maps : list of `utils.kernels.film.FilmMap`, against the first epoch.  cell : side [pixels].
    depth, sigma : (k,) mean loss of the cells that lose most in all epochs together.
    """

    epochs: np.ndarray
    maps: list
    cell: int
    depth: np.ndarray
    sigma: np.ndarray


def film_history(made, found, cell=None):
    """Measure the smooth loss in every epoch; the pixels of regions that were found are left out.

    found : list of `FoundRegion`.  cell : side of the cells [pixels], None = an eighth of the shorter side, 16 at least.
    Returns `FilmHistory`, or None where nothing can be compared.
    """
    from scipy import ndimage

    if made.count < 2 or np.unique(made.epoch).size < 2:
        return None
    cell = cell or max(16, min(made.shape) // 8)
    taken = np.zeros(made.shape, bool)
    for one in found:
        taken[one.region.rows, one.region.columns] = True
    weight = np.where(ndimage.binary_dilation(taken, iterations=3), np.float32(0.0), made.weight)
    means = [film.cell_means(made.plane(k), weight, cell)[0] for k in range(made.count)]
    total = film.cell_means(weight, weight, cell)[1]
    level, cov = trends.epoch_levels(np.array(means), made.group, made.epoch, made.information)
    cov = cov * float(made.excess.max()) ** 2
    known = [e for e in range(1, len(level)) if np.isfinite(cov[e, e]) and cov[e, e] > 0]
    if not known:
        return None
    # Zero and deepest part are chosen by all epochs together: the noise of one must not choose its own.
    shape = _mean_surface(made)
    maps = [film.film_map(level[e], total / cov[e, e], shape, cell) for e in known]
    smooth = shape.at_cells(total.shape, cell)
    deepest = (total > 0) & (smooth <= np.quantile(smooth[total > 0], 0.1))
    depth, sigma = [], []
    for one in maps:
        inside = deepest & np.isfinite(one.loss)
        w = total[inside]
        depth.append(float(np.average(one.loss[inside], weights=w)))
        sigma.append(float(np.sqrt(np.square(w * one.sigma[inside]).sum()) / w.sum()))
    return FilmHistory(np.array(known), maps, cell, np.array(depth), np.array(sigma))


def _mean_surface(made):
    """Mean of the smooth parts of all planes."""
    heights = {}
    surfaces = [one for one in made.surfaces if one is not None]
    for one in surfaces:
        for wave, height in zip(one.terms, one.heights, strict=True):
            heights[tuple(wave)] = heights.get(tuple(wave), 0.0) + height / len(surfaces)
    return film.Surface(np.array(list(heights)), np.array(list(heights.values())), made.shape)
