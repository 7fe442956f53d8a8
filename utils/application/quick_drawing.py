"""Parts of matplotlib made quick for reports.

Texts are drawn once and copied, maps are averaged to the pixels of the picture.
To be imported where a figure is made, as matplotlib itself.
"""

import functools
import math

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import RendererAgg

from utils.application.figure_style import averages

KEPT = 1024
"""Texts that are remembered, and their sizes."""
COLOURS = 256
_ROOM = 2  # around a text, whose letters may lean over its ends [pixels]


class QuickRenderer(RendererAgg):
    """Renderer of pixels.  Most texts of a report come again, on axes and in legends: each is drawn by matplotlib once.

    Texts begin at whole pixels.
    """

    def get_text_width_height_descent(self, s, prop, ismath):
        """Width, height and depth below the baseline of a text [pixels]."""
        return _measured(s, prop.copy(), ismath, self.dpi)

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        """Draw a text whose baseline begins at (x, y), y downwards [pixels]."""
        pixels, left, bottom = _drawn(s, prop.copy(), float(angle), ismath, tuple(gc.get_rgb()), self.dpi)
        self.draw_image(gc, round(x) + left, self.height - round(y) + bottom, pixels)


@functools.lru_cache(KEPT)
def _measured(text, prop, ismath, dpi):
    return RendererAgg(1, 1, dpi).get_text_width_height_descent(text, prop, ismath)


@functools.lru_cache(KEPT)
def _drawn(text, prop, angle, ismath, colour, dpi):
    """Pixels (ny, nx, 4) of a text from bottom to top, and where they begin, from the begin of the baseline: x, y."""
    width, height, depth = _measured(text, prop, ismath, dpi)
    along = np.exp(1j * math.radians(angle))
    corners = along * np.array([0, width, 1j * (height - depth), width + 1j * (height - depth)])
    corners = np.concatenate([corners, corners - 1j * depth * along])
    left, bottom = (math.floor(side.min()) - _ROOM for side in (corners.real, corners.imag))
    right, top = (math.ceil(side.max()) + _ROOM for side in (corners.real, corners.imag))
    canvas = RendererAgg(right - left, top - bottom, dpi)
    pen = canvas.new_gc()
    pen.set_foreground(colour, isRGBA=True)
    canvas.draw_text(pen, -left, top, text, prop, angle, ismath)
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[::-1]), left, bottom


class AveragedMap(Artist):
    """A map that fills its axes: every pixel of the picture has the colour of the average over what it covers.

    values : (ny, nx), row 0 at the bottom.  extent : (left, right, bottom, top) of the map in the axes, which show
    nothing beyond it.  limits : of the colours.  Where more than half of a pixel has no value it is ``bad``.
    """

    def __init__(self, values, extent, limits, cmap, bad):
        super().__init__()
        self._values, self._extent, self._limits = np.asarray(values, np.float32), extent, limits
        self._colours = _colour_table(cmap, bad)

    def draw(self, renderer):
        """Draw it, as the axes ask for it."""
        box, view, (left, right, bottom, top) = self.axes.bbox, self.axes.viewLim, self._extent
        x0, y0, x1, y1 = (round(edge) for edge in box.extents)
        values = self._values
        for seen, begin, end, pixels in (
            (view.intervaly, bottom, top, y1 - y0),
            (view.intervalx, left, right, x1 - x0),
        ):
            share = (np.asarray(seen) - begin) / (end - begin)
            values = averages(values, *(share * len(values)), max(1, pixels)).T
        low, high = self._limits
        known = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            level = np.clip((values - low) * (COLOURS / (high - low)), 0, COLOURS - 1)
        index = np.where(known, level, COLOURS).astype(np.intp)
        pen = renderer.new_gc()
        renderer.draw_image(pen, x0, y0, self._colours[index])
        pen.restore()


@functools.lru_cache(64)
def _colour_table(cmap, bad):
    """Colours of a map, (COLOURS + 1, 4) uint8, that of no value at the end."""
    from matplotlib.colors import to_rgba_array

    colours = matplotlib.colormaps[cmap](np.linspace(0, 1, COLOURS), bytes=True)
    return np.vstack([colours, np.round(255 * to_rgba_array(bad)).astype(np.uint8)])
