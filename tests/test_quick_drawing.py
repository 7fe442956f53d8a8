"""What is drawn in a quicker way looks as matplotlib draws it."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from utils.application import figure_style, quick_drawing
from utils.application.plots import show_map

RNG = np.random.default_rng(8)


def pixels_of(figure, renderer):
    canvas = renderer(*figure.canvas.get_width_height(), figure.dpi)
    figure.draw(canvas)
    return np.asarray(canvas.buffer_rgba())[:, :, :3].astype(int)


@pytest.mark.parametrize("angle", [0, 90, 30])
@pytest.mark.parametrize("text", ["row [pixel]", "−12.5", "reduced χ²", "Äg", " "])
def test_text_at_whole_pixels_is_that_of_matplotlib(text, angle):
    drawn = []
    for renderer in (RendererAgg, quick_drawing.QuickRenderer):
        canvas = renderer(240, 200, 120)
        np.asarray(canvas.buffer_rgba())[:] = 255
        for x, y in ((60, 150), (70, 190), (60, 150)):  # the second and third are copies
            pen = canvas.new_gc()
            pen.set_foreground("#334080")
            canvas.draw_text(pen, x, y, text, FontProperties(size=9), angle)
        drawn.append(np.asarray(canvas.buffer_rgba()).astype(int))
    expected, found = drawn
    assert (expected.min() < 120) == (text != " ")
    # Half transparent edges of letters that touch are blended twice, each time rounded to levels of 255.
    assert np.abs(expected - found).max() <= 8
    sizes = [
        renderer(10, 10, 120).get_text_width_height_descent(text, FontProperties(size=9), False)
        for renderer in (RendererAgg, quick_drawing.QuickRenderer)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("count", [1, 7, 30, 40])
def test_averages_keep_the_mean_and_follow_what_they_cover(count):
    values = RNG.normal(size=(40, 3)).astype(np.float32)
    found = figure_style.averages(values, 0, 40, count)
    assert found.shape == (count, 3)
    np.testing.assert_allclose(found.mean(axis=0), values.mean(axis=0), atol=1e-5)
    fine = np.repeat(values, count, axis=0).reshape(count, 40, 3).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(found, fine, atol=1e-5)
    part = figure_style.averages(values, 2.5, 4.0, 1)
    np.testing.assert_allclose(part[0], (0.5 * values[2] + values[3]) / 1.5, atol=1e-6)


def test_rows_wider_than_a_range_are_not_mixed():
    values = RNG.normal(size=(40, 3)).astype(np.float32)
    found = figure_style.averages(values, 0, 40, 100)
    np.testing.assert_array_equal(found, values[((np.arange(100) + 0.5) * 0.4).astype(int)])
    seen = figure_style.averages(values, 10.5, 12.5, 4)
    np.testing.assert_array_equal(seen, values[[10, 11, 11, 12]])


def test_averages_leave_nan_out_where_it_covers_less_than_half():
    values = np.arange(6, dtype=np.float32)[:, None]
    values[[0, 3, 4]] = np.nan
    found = figure_style.averages(values, 0, 6, 2)[:, 0]
    np.testing.assert_array_equal(found, [1.5, np.nan])


def test_map_has_the_colours_of_its_averages():
    figure = figure_style.new_figure(2, 2)
    axes = figure_style.place(figure, 0.5, 0.5, 1.0, 1.0)  # 120 pixels
    image = np.zeros((60, 240), np.float32)
    image[:30] = np.tile([0.0, 1.0], (30, 120))  # stripes that a picture cannot hold
    image[30:, :100] = 10.0
    image[30:, 100:200] = np.nan
    show_map(axes, image, limits=(-1.0, 2.0), cmap="viridis")
    seen = pixels_of(figure, quick_drawing.QuickRenderer)[60:180, 60:180]
    colours = matplotlib.colormaps["viridis"]
    for place, colour in (
        ((100, 30), colours(0.5)),
        ((100, 100), colours(0.5)),
        ((20, 20), colours(1.0)),
        ((20, 75), matplotlib.colors.to_rgba("#b9bdc4")),
        ((20, 115), colours(1 / 3)),
    ):
        assert np.abs(seen[place] - 255 * np.array(colour[:3])).max() <= 2
