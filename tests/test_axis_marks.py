"""Ticks and their numbers."""

import numpy as np
import pytest

from utils.application import axis_marks, figure_style


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (-22, 22, 9, [-20, -15, -10, -5, 0, 5, 10, 15, 20]),
        (0.0, 0.8, 9, np.arange(9) / 10),
        (0.51, 1.64, 5, [0.6, 0.8, 1.0, 1.2, 1.4, 1.6]),
        (984.1, 1016.2, 5, [990, 1000, 1010]),
        (-1e-7, 3e-7, 4, [-1e-7, 0, 1e-7, 2e-7, 3e-7]),
        (1e9, 1e9 + 1, 2, [1e9, 1e9 + 0.5, 1e9 + 1]),
    ],
)
def test_steps_are_round_and_few(low, high, most, expected):
    np.testing.assert_allclose(axis_marks.steps(low, high, most), expected, rtol=1e-12, atol=1e-20)


@pytest.mark.parametrize("span", np.geomspace(1e-12, 1e12, 97))
@pytest.mark.parametrize("most", [1, 3, 5, 9])
def test_any_range_has_at_most_the_steps_allowed_and_all_inside(span, most):
    low = -0.37 * span
    values = axis_marks.steps(low, low + span, most)
    assert 1 <= values.size <= most + 1
    assert values.min() >= low - 1e-6 * span
    assert values.max() <= low + span * (1 + 1e-6)
    texts, _ = axis_marks.numbers_of(values)
    assert len(set(texts)) == values.size


def test_whole_numbers_where_asked():
    np.testing.assert_array_equal(axis_marks.steps(-0.5, 2.5, 5, whole=True), [0, 1, 2])
    np.testing.assert_array_equal(axis_marks.steps(-0.5, 2047.5, 5, whole=True), [0, 500, 1000, 1500, 2000])
    np.testing.assert_array_equal(axis_marks.steps(0, 12, 5, whole=True), [0, 5, 10])


def test_a_range_without_width_has_one_value_or_none():
    np.testing.assert_array_equal(axis_marks.steps(3.0, 3.0, 5), [3.0])
    assert axis_marks.steps(np.nan, np.nan, 5).size == 0


@pytest.mark.parametrize(
    ("values", "texts", "factor"),
    [
        ([-20, 0, 20], ["−20", "0", "20"], ""),
        ([-0.0, 2.5, 5.0], ["0.0", "2.5", "5.0"], ""),
        ([0.25, 0.5, 0.75], ["0.25", "0.50", "0.75"], ""),
        ([0.001, 0.002], ["0.001", "0.002"], ""),
        ([-2e-5, 0, 2e-5], ["−2", "0", "2"], "× 10⁻⁵"),
        ([0, 2.5e6, 5e6], ["0.0", "2.5", "5.0"], "× 10⁶"),
        ([65535.0], ["65535"], ""),
        ([0.0], ["0"], ""),
        ([], [], ""),
    ],
)
def test_numbers_have_the_decimals_of_their_step(values, texts, factor):
    assert axis_marks.numbers_of(values) == (texts, factor)


def test_powers_of_ten():
    np.testing.assert_allclose(axis_marks.powers_of_ten(0.7, 2e5, 6), [1, 10, 100, 1e3, 1e4, 1e5])
    np.testing.assert_allclose(axis_marks.powers_of_ten(1e-3, 1e9, 4), [1e-3, 10, 1e5, 1e9])


@pytest.mark.parametrize("far", [False, True])
def test_numbers_stand_at_their_values_and_clear_of_the_label(far):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = figure_style.new_figure(4, 3)
    axes = figure_style.place(figure, 1, 1, 2, 1)
    axes.set(xlim=(0, 4), ylim=(-1000, 2000), xlabel="x [s]", ylabel="y [ADU]")
    axis_marks.mark(axes, "x", most=4)
    axis_marks.mark(axes, "y", most=3, far=far)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}  # both axes have a 0
    assert list(boxes) == ["0", "1", "2", "3", "4", "−1000", "1000", "2000"]
    dpi = figure.dpi
    one = boxes["1"]
    assert 0.5 * (one.x0 + one.x1) == pytest.approx(dpi * 1.5, abs=1.5)
    top = boxes["2000"]
    assert 0.5 * (top.y0 + top.y1) == pytest.approx(dpi * 2, abs=3)
    label = axes.yaxis.label.get_window_extent(renderer)
    if far:
        assert top.x0 > dpi * 3
        assert boxes["−1000"].x1 < label.x0 < boxes["−1000"].x1 + 12
    else:
        assert top.x1 < dpi
        assert boxes["−1000"].x0 - 12 < label.x1 < boxes["−1000"].x0
    below = axes.xaxis.label.get_window_extent(renderer)
    assert one.y0 - 12 < below.y1 < one.y0
