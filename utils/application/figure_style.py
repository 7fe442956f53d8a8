"""What every figure is built of: style, size, PNG, robust limits, and small arrays.

Figures are `matplotlib.figure.Figure` objects drawn without a display; pyplot is never used.
"""

import contextlib
import functools
import gc
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from utils.fits_io.workers import aside
from utils.kernels.medians import median
from utils.kernels.pieces import in_pieces

DPI = 120
MAP_PIXELS = 512
"""Longest side of a map that is kept to be drawn."""
SCREEN_PIXELS = 336
"""Longest side of most maps in a report."""
HISTOGRAM_BINS = 120
_STRIP_PIXELS = 1 << 16

BLUE, RED, GREEN, OCHRE, PURPLE, SKY, GREY = (
    "#0b5fa5",
    "#c8430b",
    "#1a8a63",
    "#c98a00",
    "#a8528b",
    "#4ba3d4",
    "#8a8f98",
)
# Apart from each other for colour-blind readers too.
COLOURS = (BLUE, RED, GREEN, OCHRE, PURPLE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
# Colour maps of values, of signed values and of sizes of errors.
LEVELS, DIFFERENCES, ERRORS = "viridis", "RdBu_r", "magma"

STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "axes.labelcolor": "#333840",
    "axes.edgecolor": "#7b818a",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.titley": 1.0,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.6,
    "xtick.color": "#7b818a",
    "ytick.color": "#7b818a",
    "xtick.labelcolor": "#333840",
    "ytick.labelcolor": "#333840",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def import_ahead():
    """Import matplotlib in a thread, while the steps before the first figure wait for the disk; no fork meanwhile."""

    def load():
        with contextlib.suppress(ImportError):  # the first figure says so
            import matplotlib.backends.backend_agg
            import matplotlib.figure  # noqa: F401

    aside(load)


def styled(function):
    """Draw with the style of the reports, and leave matplotlib's own settings as they were."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        import matplotlib

        collecting = gc.isenabled()
        gc.disable()  # Collections amid the thousands of objects of a figure take a quarter of its time.
        try:
            with matplotlib.rc_context(STYLE):
                return function(*args, **kwargs)
        finally:
            if collecting:
                gc.enable()

    return wrapper


@styled
def png_bytes(figure):
    """Render `figure` to PNG; the same figure gives the same bytes."""
    from utils.application.quick_drawing import QuickRenderer

    renderer = QuickRenderer(*figure.canvas.get_width_height(), figure.dpi)
    figure.draw(renderer)
    return encode_png(np.asarray(renderer.buffer_rgba()), round(figure.dpi))


def encode_png(pixels, dpi=DPI):
    """Encode an opaque picture (ny, nx, 3 or more) uint8 as RGB PNG.

    Without row filters and alpha this takes half the time of matplotlib's way, and maps of noise get smaller.
    Reference: PNG specification, 3rd edition, W3C 2025.
    """
    rows, columns = pixels.shape[:2]
    lines = np.zeros((rows, 1 + 3 * columns), dtype=np.uint8)  # the first byte of a line: no filter
    lines[:, 1:] = pixels[:, :, :3].reshape(rows, -1)
    per_metre = round(dpi / 0.0254)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)),
        (b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
        (b"IDAT", zlib.compress(lines, 1)),
        (b"IEND", b""),
    )
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        parts += [struct.pack(">I", len(content)), kind, content]
        parts.append(struct.pack(">I", zlib.crc32(kind + content)))
    return b"".join(parts)


def new_figure(width, height):
    """Return an empty figure of `width` x `height` [inch]."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI)


def place(figure, left, bottom, width, height, **kwargs):
    """Add axes at a place given in inches from the lower left corner; mark them with `axis_marks.mark`."""
    full_width, full_height = figure.get_size_inches()
    rectangle = (left / full_width, bottom / full_height, width / full_width, height / full_height)
    return figure.add_axes(rectangle, **kwargs)


def head(figure, title):
    """Write `title` into the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 1 - 0.1 / height, title, va="top", weight="bold", size=9.5)


def celsius(temperature, digits=1):
    """Temperature for a title, with a true minus sign and never as -0."""
    rounded = round(float(temperature), digits) + 0.0
    return f"{rounded:.{digits}f} °C".replace("-", "−")


def logarithmic(axes, counts, headroom):
    """Give `axes` a logarithmic axis of counts, up to `headroom` times the highest."""
    axes.set_ylim(0.7, max(10, headroom * counts.max()))
    axes.set_yscale("log")
    axes.minorticks_off()


def sample(values, most=200_000):
    """Finite values of a regular sample of at most about `most` elements of `values`, as float64."""
    flat = np.asarray(values).reshape(-1)
    # An odd step that shares no factor with usual frame widths does not walk down a few columns only.
    step = max(1, flat.size // most) | 1
    chosen = flat[::step].astype(np.float64)
    return chosen[np.isfinite(chosen)]


def robust_limits(values, low=0.5, high=99.5, symmetric=False):
    """Colour or axis limits from percentiles [%] of the finite values; never an empty range.

    symmetric : limits around 0 that hold the same share of the values.
    """
    finite = sample(values)
    if finite.size == 0:
        return (-1.0, 1.0) if symmetric else (0.0, 1.0)
    if symmetric:
        top = float(np.percentile(np.abs(finite), high - low))
        top = top if top > 0 else float(np.abs(finite).max()) or 1.0
        return -top, top
    bottom, top = (float(value) for value in np.percentile(finite, (low, high)))
    if top - bottom <= 1e-9 * max(abs(bottom), abs(top), 1e-30):
        half = 0.05 * abs(bottom) or 0.5
        return bottom - half, top + half
    return bottom, top


@dataclass(frozen=True, eq=False)
class SmallMap:
    """A map as it is drawn.  image : float32, averages of blocks of factor x factor pixels.  shape : (ny, nx) before."""

    image: np.ndarray
    factor: int
    shape: tuple


class BlockMeans:
    """Averages of blocks of f x f pixels of a map that comes in strips of rows: no side is longer than ``most`` then.

    shape : (ny, nx) of the map.  NaN is left out of an average; a block without any finite pixel is NaN.  Blocks at
    the far edges may be smaller.  strip : rows of a strip; they come in order, only the last may be shorter.
    """

    def __init__(self, shape, most=MAP_PIXELS):
        self.shape = tuple(shape)
        self.factor = max(1, -(-max(self.shape) // most))
        self.strip = self.factor * max(1, _STRIP_PIXELS // (self.factor * self.shape[1]))
        self._image = np.empty([-(-size // self.factor) for size in self.shape], np.float32)
        self._rows = 0

    def strips(self):
        """Slices of rows that make up the map."""
        return [slice(first, first + self.strip) for first in range(0, self.shape[0], self.strip)]

    def add(self, strip):
        """Add the next rows, (at most self.strip, nx)."""
        values = np.asarray(strip, dtype=np.float32)
        first, f = self._rows // self.factor, self.factor
        target = self._image[first : first - (-len(values) // f)]
        self._rows += len(values)
        if f == 1:
            target[:] = values
            return
        good = np.isfinite(values)
        if good.all():
            counts = np.outer(*(np.diff([*range(0, size, f), size]) for size in values.shape))
            np.divide(_block_sums(values, f), counts, out=target, casting="same_kind")
            return
        counts = _block_sums(good.astype(np.float32), f)
        total = _block_sums(np.where(good, values, np.float32(0)), f)
        target[:] = np.where(counts > 0, total / np.maximum(counts, 1), np.float32(np.nan))

    def small(self):
        """Return the `SmallMap`, once all rows are in."""
        return SmallMap(self._image, self.factor, self.shape)


def _block_sums(values, factor):
    """Sums of blocks of factor x factor, those at the far edges smaller; sliced sums are quicker than np.add.reduceat."""
    for _ in range(2):  # rows, then columns
        whole = len(values) // factor * factor
        sums = np.zeros((-(-len(values) // factor), values.shape[1]), np.float32)
        for offset in range(factor):
            sums[: whole // factor] += values[offset:whole:factor]
        if whole < len(values):
            sums[-1] = values[whole:].sum(axis=0)
        values = sums.T
    return values


def small_map(image):
    """Return the `SmallMap` of a map (ny, nx); one that is small already as it is."""
    if isinstance(image, SmallMap):
        return image
    image = np.asarray(image)
    means = BlockMeans(image.shape)
    for rows in means.strips():
        means.add(image[rows])
    return means.small()


def averages(values, first, last, count):
    """Averages of rows ``first`` to ``last`` (n, m) over ``count`` equal ranges, whose ends may lie within a row.

    Returns (count, m) float32; single rows where there are no more of them than ranges.  NaN is left out; it is the result
    where it covers more than half.
    """
    ends = np.linspace(first, last, count + 1)
    if count >= last - first:
        # Averages over parts of two pixels would draw a grid of paler lines: each range has the row at its middle.
        middle = np.floor(0.5 * (ends[:-1] + ends[1:]) + 1e-9).astype(int)
        return values[np.clip(middle, 0, len(values) - 1)].astype(np.float32)
    known = np.isfinite(values)
    if not known.all():
        total, share = (
            averages(part, first, last, count)
            for part in (np.where(known, values, np.float32(0)), known.astype(np.float32))
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(share >= 0.5, total / share, np.float32(np.nan))
    low, high = ends[:-1], ends[1:]
    begin = np.floor(low + 1e-9).astype(int)
    found = np.zeros((count, values.shape[1]), np.float32)
    for step in range(int(np.ceil((high - begin - 1e-9).max()))):
        weight = np.minimum(high, begin + step + 1) - np.maximum(low, begin + step)
        weight = (np.maximum(weight, 0) / (high - low)).astype(np.float32)
        found += weight[:, None] * values[np.clip(begin + step, 0, len(values) - 1)]
    return found


def map_limits(image, symmetric=False, floor=None, reach=None):
    """Colour limits of a map as it is drawn; give the same to two maps that are compared.

    Averaging for the screen lowers the noise, so the limits are those of the averages: what is seen is what
    the map can tell at that scale.   floor : fixed lower limit.
    reach : robust standard deviations from the median at most, for maps whose few wild pixels would leave no
    colours to the others.
    """
    drawn = small_map(image).image
    each = max(1.0, max(drawn.shape) / SCREEN_PIXELS)
    for _ in "yx":
        drawn = averages(drawn, 0, len(drawn), max(1, round(len(drawn) / each))).T
    low, high = robust_limits(drawn, symmetric=symmetric)
    if reach is not None:
        middle, scale = robust_scale(drawn)
        if scale > 0:
            low, high = max(low, middle - reach * scale), min(high, middle + reach * scale)
    return (low, high) if floor is None else (floor, max(high, floor + 1e-12))


def count_histogram(values, low, high, bins=HISTOGRAM_BINS):
    """Count values in equal bins; returns (counts, edges, finite values beyond the bins)."""
    counts, finite = np.zeros(bins + 2, np.int64), 0
    low32 = np.float32(low)
    # A value at the upper limit belongs to the last bin.
    scale = np.float32((1 - 1e-6) * bins / (high - low))
    for (piece,) in in_pieces(np.ascontiguousarray(values)):
        flat = piece.astype(np.float32)
        good = np.isfinite(flat)
        whole = np.count_nonzero(good)
        finite += whole
        if whole < flat.size:
            flat = flat[good]
        flat -= low32
        flat *= scale
        flat += np.float32(1)
        # bincount of scaled values is several times quicker than np.histogram on millions of pixels.
        np.clip(flat, 0, bins + 1, out=flat)
        counts += np.bincount(flat.astype(np.intp), minlength=bins + 2)
    inside = counts[1:-1]
    return inside, np.linspace(low, high, bins + 1), finite - int(inside.sum())


def robust_scale(values):
    """Median and 1.4826 x median absolute deviation of the finite values of a sample; NaN without any."""
    finite = sample(values)
    if finite.size == 0:
        return np.nan, np.nan
    middle = float(median(finite))
    return middle, 1.4826 * float(median(np.abs(finite - middle)))
