"""Connected regions that changed: found at their most significant place, shape and time, outlined, taken out, repeated."""

import math
from dataclasses import dataclass

import numpy as np

from utils.kernels.significance import best_scores
from utils.kernels.templates import FilterBank

BAND_PIXELS = 1 << 19
"""Pixels of a frame that are filtered together."""
ROUNDS = 8
"""A region hides weaker ones around it until it is taken out: so often."""
MOST_REGIONS = 5000
JOINED_DEPTH = 3.0
"""Outlines that touch are one region where their depths differ by less than this factor."""
OUTLINE_SIGMA = 5.0
"""A region is outlined at half its depth in a plane smoothed until that depth is so significant."""
PIXELS, STAIN = 4, 350
"""Regions up to so many pixels are called pixels, above so many stains."""
SMOOTHING = (0.5, 1.0, 1.45, 2.0, 2.8, 3.9, 5.5, 7.7, 10.8, 15.0)


@dataclass(eq=False)
class Region:
    """Pixels that changed together.

    rows, columns : (k,) int.  x, y : centre, weighted by depth [pixels, the first pixel's centre is 0].  depth : mean part
    of the light lost (negative: gained) in the window, sigma its error.  significance : of the template that found it, with
    the sign of depth.  window : (first, after) epochs.  kind : 'pixel', 'spot', 'ring', 'stain'.
    """

    rows: np.ndarray
    columns: np.ndarray
    x: float
    y: float
    depth: float
    sigma: float
    significance: float
    window: tuple
    kind: str

    @property
    def area(self):
        """Number of pixels."""
        return self.rows.size


class Planes:
    """Planes in memory as a source for `find_regions`: shape (ny, nx), count, rows(start, stop)."""

    def __init__(self, planes):
        self.planes = np.asarray(planes, np.float32)
        self.count, self.shape = self.planes.shape[0], self.planes.shape[1:]

    def rows(self, start, stop):
        """Return rows of all planes, (count, stop - start, nx) float32."""
        return self.planes[:, start:stop]


def find_regions(source, weight, contrasts, bank, threshold, *, excess=None, jobs=1, progress=None):
    """Find the regions that changed beyond a threshold.

    source : `Planes` or alike: relative change in each group and epoch, what is smooth taken out.  weight : (ny, nx)
    float32, inverse variance where that of the typical pixel is 1; 0 = bad.  contrasts : `utils.kernels.epochs.Contrasts`.
    bank : list of `Template`.  threshold : score (significance with the handicap of its template).  excess : noise of each
    template over the expected.  progress : called once for each band of each round.
    Returns a list of `Region`, the most significant first.
    """
    finder = _Finder(source, weight.astype(np.float32), contrasts, bank, threshold, excess, jobs, progress)
    found = finder.run()
    return sorted(_join(found, source.shape), key=lambda region: -abs(region.significance))


class _Finder:
    def __init__(self, source, weight, contrasts, bank, threshold, excess, jobs, progress):
        self.source, self.weight, self.contrasts, self.bank = source, weight, contrasts, bank
        self.threshold, self.jobs, self.progress = threshold, jobs, progress
        self.excess = np.ones(len(bank)) if excess is None else excess
        self.unit, self.scores = contrasts.unit(), contrasts.scores()
        self.halo = max(template.kernel.shape[0] // 2 for template in bank)
        ny, nx = source.shape
        height = max(4 * self.halo, BAND_PIXELS // nx)
        count = max(1, ny // height)
        self.bands = [(ny * k // count, ny * (k + 1) // count) for k in range(count)]
        self.filters = {}

    def run(self):
        found, active = [], set(range(len(self.bands)))
        for _ in range(ROUNDS):
            peaks = [peak for band in sorted(active) for peak in self._peaks(*self.bands[band])]
            chosen = self._apart(peaks)
            for peak in chosen:
                # An outline of this round may have taken the place of a later peak.
                if self.weight[peak[0], peak[1]] > 0:
                    found.append(self._outline(*peak))
            if not chosen or len(found) > MOST_REGIONS:
                break
            touched = {y + d for y, *_ in chosen for d in (-self.halo, self.halo)}
            active = {
                k
                for k, (a, b) in enumerate(self.bands)
                if any(a - self.halo <= y < b + self.halo for y in touched)
            }
        return found

    def _peaks(self, start, stop):
        """Local maxima beyond the threshold in rows start to stop: (y, x, template, score)."""
        from scipy import ndimage

        ny, nx = self.source.shape
        top, bottom = max(0, start - self.halo), min(ny, stop + self.halo)
        shape = (bottom - top, nx)
        if shape not in self.filters:
            self.filters[shape] = FilterBank(shape, self.bank, self.jobs)
        planes = self.source.rows(top, bottom)
        score, template = best_scores(
            planes, self.weight[top:bottom], self.scores, self.filters[shape], self.excess
        )
        if self.progress is not None:
            self.progress(1)
        own = slice(start - top, stop - top)
        high = score[own] > self.threshold
        if not high.any():
            return []
        high &= score[own] == ndimage.maximum_filter(score, 3)[own]
        rows, columns = np.nonzero(high)
        return [
            (int(y) + start, int(x), int(template[own][y, x]), float(score[own][y, x]))
            for y, x in zip(rows, columns, strict=True)
        ]

    def _apart(self, peaks):
        """Keep peaks that no higher one overlaps: the others may be its flanks."""
        kept, cells, size = [], {}, 2 * self.halo + 4
        for peak in sorted(peaks, key=lambda one: -one[3]):
            y, x, t, _ = peak
            cell = (y // size, x // size)
            near = [
                one
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                for one in cells.get((cell[0] + dy, cell[1] + dx), ())
            ]
            reach = self.bank[t].radius + 2.0
            if all((y - v) ** 2 + (x - u) ** 2 > (reach + self.bank[s].radius) ** 2 for v, u, s, _ in near):
                kept.append(peak)
                cells.setdefault(cell, []).append(peak)
        return kept

    def _outline(self, y, x, number, _score):
        """Best window of a peak, and the pixels that belong to it; they are taken out of the weights."""
        template = self.bank[number]
        half = int(2.5 * template.radius) + 6
        ny, nx = self.source.shape
        top, bottom, left, right = (
            max(0, y - half),
            min(ny, y + half + 1),
            max(0, x - half),
            min(nx, x + half + 1),
        )
        planes = self.source.rows(top, bottom)[:, :, left:right].astype(np.float64)
        weight = self.weight[top:bottom, left:right].astype(np.float64)
        kernel = _placed(template.kernel, (y - top, x - left), weight.shape)
        norm = math.sqrt(float((kernel**2 * weight).sum()))
        filtered = (planes * (kernel * weight)).sum(axis=(1, 2)) / (norm * self.excess[number])
        best = int(np.argmax(np.abs(self.scores @ filtered)))
        z = float(self.unit[best] @ filtered)
        change = np.tensordot(self.contrasts.weights[best], planes, 1)
        amplitude = float((change * kernel * weight).sum()) / norm**2
        inside = self._extent(change * np.sign(amplitude), weight, kernel, abs(amplitude), best)
        if not inside.any():
            inside[y - top, x - left] = True
        rows, columns = np.nonzero(inside)
        rows, columns = rows + top, columns + left
        return Candidate(self, rows, columns, change[inside], weight[inside], z, best, template.kind)

    def _extent(self, change, weight, kernel, amplitude, window):
        """Pixels at more than half the depth, in the finest smoothing in which that depth is significant."""
        from scipy import ndimage

        information = self.contrasts.information[window]
        support = kernel > 0.5
        good = weight[support & (weight > 0)]
        typical = float(np.median(good)) if good.size else 1.0
        for radius in SMOOTHING:
            disc = _disc(radius)
            if amplitude * math.sqrt(information * typical * disc.sum()) >= OUTLINE_SIGMA:
                break
        spread = ndimage.correlate(weight, disc, mode="constant")
        smooth = ndimage.correlate(change * weight, disc, mode="constant") / np.maximum(
            spread, 1e-6 * typical
        )
        inside = (smooth > 0.5 * amplitude) & (weight > 0)
        labels, _ = ndimage.label(inside, np.ones((3, 3)))
        mine = np.unique(labels[support & inside])
        inside = np.isin(labels, mine[mine > 0])
        if not inside.any():
            inside = support & (weight > 0)
        return inside


class Candidate:
    """One outlined peak, before neighbours are joined."""

    def __init__(self, finder, rows, columns, change, weight, z, window, kind):
        self.rows, self.columns, self.change, self.weight = rows, columns, change, weight
        self.z, self.kind = float(z), kind
        self.window = tuple(int(epoch) for epoch in finder.contrasts.windows[window])
        self.information = float(finder.contrasts.information[window])
        finder.weight[rows, columns] = 0.0
        # The rim of a region is part of it, not another one.
        ny, nx = finder.source.shape
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)) if kind != "pixel" else ():
            finder.weight[np.clip(rows + dy, 0, ny - 1), np.clip(columns + dx, 0, nx - 1)] = 0.0


def _join(candidates, shape):
    """Join candidates of one sign that touch (rims included) to regions."""
    from scipy import ndimage

    regions = []
    for sign in (1, -1):
        mine = [one for one in candidates if np.sign(one.z) == sign]
        if not mine:
            continue
        image = np.zeros(shape, bool)
        for one in mine:
            image[one.rows, one.columns] = True
        labels, _ = ndimage.label(ndimage.binary_dilation(image), np.ones((3, 3)))
        touching = {}
        for one in sorted(mine, key=lambda one: -abs(one.z)):
            clusters = touching.setdefault(int(labels[one.rows[0], one.columns[0]]), [])
            near = next((parts for parts in clusters if _alike(parts[0], one)), None)
            if near is None:
                clusters.append([one])
            else:
                near.append(one)
        regions += [_region(parts) for clusters in touching.values() for parts in clusters]
    return regions


def _alike(one, other):
    """Whether two that touch are parts of one region: of like depth, and come at about the same time."""
    depths = sorted(abs(float(np.average(part.change, weights=part.weight))) for part in (one, other))
    return depths[1] < JOINED_DEPTH * depths[0] and abs(one.window[0] - other.window[0]) <= 1


def _region(parts):
    strongest = max(parts, key=lambda one: abs(one.z))
    rows, columns, change, weight = (
        np.concatenate([getattr(one, name) for one in parts])
        for name in ("rows", "columns", "change", "weight")
    )
    total = weight.sum()
    depth = float((change * weight).sum() / total)
    pull = np.maximum(change * np.sign(depth), 0.0) + 1e-12
    return Region(
        rows,
        columns,
        float((columns * pull).sum() / pull.sum()),
        float((rows * pull).sum() / pull.sum()),
        -depth,
        1.0 / math.sqrt(total * strongest.information),
        -strongest.z,
        strongest.window,
        _kind(rows.size, strongest.kind),
    )


def _kind(area, of_strongest):
    """Tell what a region looks like from its area and the template that found it."""
    if area <= PIXELS:
        return "pixel"
    if area > STAIN:
        return "stain"
    return "ring" if of_strongest == "ring" else "spot"


def _placed(kernel, centre, shape):
    """Put a kernel with its middle at ``centre`` into an array of zeros; what lies outside is cut."""
    half = kernel.shape[0] // 2
    out = np.zeros(shape)
    top, left = centre[0] - half, centre[1] - half
    own = tuple(
        slice(max(0, -start), max(0, size - start)) for start, size in zip((top, left), shape, strict=True)
    )
    part = kernel[own]
    out[max(0, top) : max(0, top) + part.shape[0], max(0, left) : max(0, left) + part.shape[1]] = part
    return out


def _disc(radius):
    half = int(np.ceil(radius))
    axis = np.arange(-half, half + 1)
    disc = np.clip(radius + 0.5 - np.hypot(axis[:, None], axis), 0.0, 1.0)
    return disc if radius > 0.5 else np.ones((1, 1))
