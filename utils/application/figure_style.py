"""What every figure is built of: style, size, PNG, robust limits, and small arrays.

Figures are `matplotlib.figure.Figure` objects drawn without a display; pyplot is never used.
"""

import functools
import gc
import struct
import zlib

import numpy as np

DPI = 120
MAP_PIXELS = 512
HISTOGRAM_BINS = 120

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
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return encode_png(np.asarray(canvas.buffer_rgba()), round(figure.dpi))


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
    """Add axes at a place given in inches from the lower left corner."""
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
    """Give `axes` a logarithmic axis of counts, up to `headroom` times the highest.

    The labels are plain text, which costs a tenth of matplotlib's set formulas.
    """
    axes.set_ylim(0.7, max(10, headroom * counts.max()))
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(_power_of_ten)


def _power_of_ten(value, _position=None):
    power = round(np.log10(value))
    if -2 < power < 4:
        return f"{value:g}"
    digits = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}"


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


def shrink(image, most=MAP_PIXELS):
    """Average blocks of f x f pixels so that no side is longer than `most`; returns (image, f).

    NaN is left out of an average; a block without any finite pixel is NaN.  Blocks at the far edges may be
    smaller.
    """
    image = np.asarray(image)
    factor = -(-max(image.shape) // most)
    if factor <= 1:
        return image.astype(np.float32), 1
    starts = [np.arange(0, size, factor) for size in image.shape]

    def block_sums(values):
        return np.add.reduceat(np.add.reduceat(values, starts[0], axis=0), starts[1], axis=1)

    values = image.astype(np.float32)
    good = np.isfinite(values)
    if good.all():
        counts = np.outer(*(np.diff([*start, size]) for start, size in zip(starts, image.shape, strict=True)))
        return block_sums(values) / counts.astype(np.float32), factor
    counts = block_sums(good.astype(np.float32))
    total = block_sums(np.where(good, values, np.float32(0)))
    return np.where(counts > 0, total / np.maximum(counts, 1), np.float32(np.nan)), factor


def map_limits(image, symmetric=False, floor=None):
    """Colour limits of a map as it is drawn; give the same to two maps that are compared.

    Averaging for the screen lowers the noise, so the limits are those of the averages: what is seen is what
    the map can tell at that scale.   floor : fixed lower limit.
    """
    low, high = robust_limits(shrink(image)[0], symmetric=symmetric)
    return (low, high) if floor is None else (floor, max(high, floor + 1e-12))


def count_histogram(values, low, high, bins=HISTOGRAM_BINS):
    """Count values in equal bins; returns (counts, edges, finite values beyond the bins)."""
    flat = np.asarray(values, dtype=np.float32).reshape(-1)
    inside = flat[(flat >= low) & (flat <= high)]
    # bincount of scaled values is several times quicker than np.histogram on millions of pixels.
    index = ((inside - np.float32(low)) * np.float32(bins / (high - low))).astype(np.int32)
    counts = np.bincount(np.clip(index, 0, bins - 1), minlength=bins)
    return counts, np.linspace(low, high, bins + 1), int(np.isfinite(flat).sum()) - inside.size


def robust_scale(values):
    """Median and 1.4826 x median absolute deviation of the finite values of a sample; NaN without any."""
    finite = sample(values)
    if finite.size == 0:
        return np.nan, np.nan
    median = float(np.median(finite))
    return median, 1.4826 * float(np.median(np.abs(finite - median)))
