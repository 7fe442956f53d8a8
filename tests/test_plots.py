"""Figures: what they show is checked on their artists, how they read was checked by eye."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bias_pipeline import figures
from utils.application import figure_style, plots

RNG = np.random.default_rng(5)
TEMPERATURES = np.array([10.0, -10.0, 0.0, 20.0])


def an_image(shape=(40, 60)):
    image = RNG.normal(300.0, 5.0, shape).astype(np.float32)
    image[3, 4] = np.nan
    return image


def errors(scale=1.0):
    return {key: scale * RNG.uniform(0.5, 1.5, TEMPERATURES.size) for key in ("mae", "rmse", "bias", "chi2")}


def fit_of_pixels():
    a, b = np.array([300.0, 310.0]), np.array([0.3, -0.2])
    values = a + b * TEMPERATURES[:, None] + RNG.normal(0, 0.1, (4, 2))
    return figures.pixel_fits(TEMPERATURES, values, np.full((4, 2), 0.1), a, b, [(1, 2), (3, 4)])


def level_fit():
    level = 300 + 0.3 * TEMPERATURES
    return figures.level_against_temperature(
        TEMPERATURES, level, np.full(4, 0.01), level, ["a", "b", "a", "b"]
    )


def stability():
    frames = np.arange(6)
    groups = [(t, frames, 300 + RNG.normal(0, 1, 6), RNG.normal(2, 0.1, 6)) for t in TEMPERATURES]
    return figures.level_against_frame(groups)


FIGURES = {
    "master": lambda: figures.master_map(an_image(), -5.0, 10),
    "a": lambda: figures.intercept_map(an_image()),
    "b": lambda: figures.slope_map(an_image()),
    "b around zero": lambda: figures.slope_map(an_image() - 300),
    "chi2": lambda: figures.chi2_map(RNG.chisquare(3, (40, 60)) / 3, np.full((40, 60), 3)),
    "pixels": fit_of_pixels,
    "level": level_fit,
    "read noise": lambda: figures.read_noise_map(an_image()),
    "read noise of a group": lambda: figures.read_noise_map(an_image(), temperature=-0.04),
    "read noise against T": lambda: figures.read_noise_against_temperature(TEMPERATURES, np.ones(4)),
    "frames": stability,
    "real": lambda: figures.real_bias_map(an_image(), 0.0),
    "synthetic": lambda: figures.synthetic_bias_map(an_image(), 0.0, (290.0, 310.0)),
    "mae": lambda: figures.mae_map(np.abs(an_image() - 300), 0.0),
    "mape": lambda: figures.mape_map(np.abs(an_image() - 300) / 3, 0.0),
    "pulls": lambda: figures.pulls(RNG.normal(size=5000)),
    "summary": lambda: figures.evaluation_summary(TEMPERATURES, errors(), errors(1.2)),
    "summary without left out": lambda: figures.evaluation_summary(TEMPERATURES, errors()),
}
WITHOUT_UNIT = ("pixels", "reduced χ²", "frame number", "(synthetic − real) / σ")


def labels_of(figure):
    """Labels of the axes a reader sees."""
    found = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_visible() and axis.get_label_text():
                found.append(axis.get_label_text().replace("\n", " "))
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_with_title_and_units(name):
    figure = FIGURES[name]()
    content = figure_style.png_bytes(figure)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert figure.texts[0].get_text()
    labels = labels_of(figure)
    assert len(labels) >= 2
    for label in labels:
        assert "[" in label or label in WITHOUT_UNIT, label


@pytest.mark.parametrize("name", ["master", "pixels", "summary", "frames", "pulls"])
def test_nothing_is_drawn_outside_the_picture(name):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = FIGURES[name]()
    figure_style.png_bytes(figure)
    width, height = figure.canvas.get_width_height()
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_visible() and axis.get_label_text():
                box = axis.label.get_window_extent(renderer)
                assert box.x0 >= 0
                assert box.y0 >= 0
                assert box.x1 <= width
                assert box.y1 <= height


NAN = np.full(3, np.nan)
SCARCE = {
    "map without a value": lambda: figures.slope_map(np.full((8, 9), np.nan)),
    "constant map": lambda: figures.slope_map(np.zeros((8, 9))),
    "map of one row": lambda: figures.master_map(RNG.normal(size=(1, 700)), 0.0, 1),
    "no degrees of freedom": lambda: figures.chi2_map(np.full((8, 9), np.nan), np.zeros((8, 9))),
    "nothing to average": lambda: figures.mae_map(np.full((600, 600), np.nan), 0.0),
    "one temperature": lambda: figures.evaluation_summary([1.0], {k: [1.0] for k in errors()}),
    "nothing left out": lambda: figures.evaluation_summary(
        np.arange(3.0), {k: np.ones(3) for k in errors()}, dict.fromkeys(errors(), NAN)
    ),
    "one group": lambda: figures.level_against_frame([(0.0, [1, 2], [300.0, 301.0], [2.0, 2.0])]),
    "one level": lambda: figures.level_against_temperature([0.0], [300.0], [0.1], [300.0]),
    "one pixel at one temperature": lambda: figures.pixel_fits(
        [0.0], [[300.0]], [[0.1]], [300.0], [0.0], [(0, 0)]
    ),
    "no pulls": lambda: figures.pulls(NAN),
}


@pytest.mark.parametrize("name", SCARCE)
def test_scarce_data_are_drawn_without_a_warning(name):
    assert figure_style.png_bytes(SCARCE[name]()).startswith(b"\x89PNG")


def test_same_figure_same_bytes_and_settings_untouched():
    import matplotlib

    before = dict(matplotlib.rcParams)
    first, second = (
        figure_style.png_bytes(plots.map_figure(np.eye(9), label="x [ADU]", title="t")) for _ in range(2)
    )
    assert first == second
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 4), (64, 33, 3)])
def test_png_holds_the_pixels(shape, tmp_path):
    from matplotlib.image import imread

    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "picture.png"
    path.write_bytes(figure_style.encode_png(pixels))
    np.testing.assert_array_equal(np.rint(255 * imread(path)).astype(np.uint8), pixels[:, :, :3])


@pytest.mark.parametrize("shape", [(7, 5), (512, 300), (1025, 513), (1024, 2048), (1543, 1539)])
def test_small_maps_average_blocks(shape):
    image = RNG.normal(size=shape).astype(np.float32)
    found = figure_style.small_map(image)
    small, factor = found.image, found.factor
    assert max(small.shape) <= figure_style.MAP_PIXELS
    assert found.shape == shape
    assert factor == -(-max(shape) // figure_style.MAP_PIXELS)
    for row, column in ((0, 0), (5, -1), (small.shape[0] // 2, 3), (small.shape[0] - 1, small.shape[1] - 1)):
        column %= small.shape[1]
        block = image[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        assert small[row, column] == pytest.approx(block.mean(dtype=np.float64), abs=1e-5)


def test_small_maps_leave_nan_out_of_averages():
    image = np.ones((1024, 1024))
    image[0, 0] = np.nan
    image[2:4, 2:4] = np.nan
    found = figure_style.small_map(image)
    small, factor = found.image, found.factor
    assert factor == 2
    assert small[0, 0] == 1.0
    assert np.isnan(small[1, 1])
    assert np.isnan(small).sum() == 1
    assert np.isnan(image).sum() == 5  # the input is left as it was


def test_robust_limits_ignore_outliers_and_never_collapse():
    image = np.linspace(0, 1, 100_000)
    image[:50] = 1e9
    low, high = figure_style.robust_limits(image)
    assert 0 <= low < 0.01
    assert 0.99 < high <= 1.0
    low, high = figure_style.robust_limits(image - 0.5, symmetric=True)
    assert low == -high
    for flat in (np.zeros(10), np.full(10, 300.0), np.full(10, np.nan), np.array([])):
        low, high = figure_style.robust_limits(flat)
        assert low < high
        low, high = figure_style.robust_limits(flat, symmetric=True)
        assert low < high


def test_wild_pixels_leave_the_colours_to_the_others():
    rng = np.random.default_rng(5)
    noise = rng.normal(4.5, 0.1, (300, 300))
    noise[rng.random(noise.shape) < 0.02] = 40.0
    assert figure_style.map_limits(noise)[1] == 40.0
    low, high = figure_style.map_limits(noise, reach=8.0)
    assert 4.1 < low < 4.3
    # The wild pixels widen the robust scatter by 2.6 %.
    assert high == pytest.approx(4.5 + 8 * 0.1026, abs=0.01)
    assert figure_style.map_limits(np.zeros((9, 9)), reach=8.0) == figure_style.map_limits(np.zeros((9, 9)))


def test_histogram_counts_as_numpy_does():
    values = RNG.normal(size=20_000).astype(np.float32)
    values[:3] = np.nan, np.inf, 50.0
    counts, edges, outside = figure_style.count_histogram(values, -3.0, 3.0, 50)
    expected, _ = np.histogram(values[np.isfinite(values)].astype(np.float64), bins=edges)
    # A value on an edge may fall to either side in float32.
    assert np.abs(counts - expected).max() <= 2
    inside = np.abs(values) <= 3
    assert counts.sum() == inside.sum()
    assert outside == np.isfinite(values).sum() - inside.sum()


def test_residuals_are_point_minus_model():
    series = plots.Series(np.arange(3.0), np.array([1.0, 2.0, 4.0]), model=np.array([1.0, 2.5, 3.0]))
    figure = plots.fit_figure([series], xlabel="x [s]", ylabel="y [ADU]", residual_label="r [ADU]", title="t")
    drawn = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, [0.0, -0.5, 1.0])


def test_expected_chi2_density_is_that_of_the_degrees_of_freedom():
    degrees = np.full((100, 100), 4)
    degrees[:50] = 2
    values = np.where(degrees == 2, RNG.chisquare(2, (100, 100)) / 2, RNG.chisquare(4, (100, 100)) / 4)
    figure = figures.chi2_map(values, degrees)
    histogram = figure.axes[2]
    expected = histogram.lines[0].get_ydata()
    counts = histogram.patches[0].get_data().values
    chi2 = np.sum((counts - expected)[expected > 10] ** 2 / expected[expected > 10])
    n = (expected > 10).sum()
    assert abs(chi2 - n) < 5 * np.sqrt(2 * n)


def test_heat_map_writes_values_and_leaves_missing_cells_empty():
    figure = plots.heat_map(
        [[1.0, 10.0], [100.0, np.nan]],
        rows=[-10.0, 0.0],
        columns=[0.1, 1.0],
        label="MAE [ADU/s]",
        row_label="temperature [°C]",
        column_label="exposure [s]",
        title="MAE",
        log=True,
    )
    figure_style.png_bytes(figure)
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1", "10", "100"]
    assert labels_of(figure) == ["exposure [s]", "temperature [°C]", "log10 of MAE [ADU/s]"]


def test_celsius_has_no_negative_zero():
    assert figure_style.celsius(-0.04) == "0.0 °C"
    assert figure_style.celsius(-5) == "−5.0 °C"


def test_matplotlib_is_imported_ahead_and_its_absence_told_by_the_first_figure_only():
    program = (
        "import sys, threading\n{}from utils.application.figure_style import import_ahead\nimport_ahead()\n"
        "[one.join() for one in threading.enumerate() if one is not threading.current_thread()]\n"
        "print(bool(sys.modules.get('matplotlib.figure')))"
    )
    for before, expected in (("", "True"), ("sys.modules['matplotlib'] = None\n", "False")):
        done = subprocess.run(
            [sys.executable, "-c", program.format(before)],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected
        assert not done.stderr
