"""Pictures of the evaluation, under the names that users know."""

from functools import cache, partial

import numpy as np

from dark_pipeline import figures
from dark_pipeline.captions import CAPTIONS
from dark_pipeline.comparison import percent_error, real_rate, sample_of
from utils.application.figure_style import BlockMeans, celsius
from utils.application.pictures import draw
from utils.fits_io.mapped import drop_pages
from utils.fits_io.naming import label
from utils.kernels import groups as grouping
from utils.kernels.medians import median

SECTION = "Evaluation"
HEAD = ("Temperature (°C)", "Exposure (s)", "MAE [ADU/s]", "MAPE [%]")
CLASSES = (
    ("all", (0.0, np.inf), "all pixels"),
    ("mape_less_100", (0.0, 100.0), "below 100 %"),
    ("mape_100_200", (100.0, 200.0), "100 to 200 %"),
    ("mape_over_200", (200.0, np.inf), "above 200 %"),
)
"""Classes of pixels by the error of the 1-D model [%]: name, limits, in words."""


def median_rates(maps):
    """Median rate of each map and its error, of a regular sample of pixels: (n,), (n,) [ADU/s]."""
    where = sample_of(maps.rates[0].size)
    rates, errors = [], []
    for index in range(len(maps.paths)):
        values = real_rate(maps, index, where).astype(np.float64)
        values = values[np.isfinite(values)]
        rates.append(median(values))
        spread = 1.4826 * median(np.abs(values - rates[-1]))
        errors.append(1.2533 * spread / np.sqrt(max(1, values.size)))
        drop_pages(maps.rates[index], maps.dqs[index])
    return np.array(rates), np.array(errors)


def figures_1d(out, maps, model):
    """Figures of the 1-D model of one exposure, as `draw` takes them.  out : exp_*/ of the output folder."""
    rates, errors = median_rates(maps)
    fitted = median_of(model)
    exposure = float(maps.exposure.mean())
    figure = figures.against_temperature(
        [(exposure, maps.temperature, rates, errors)], lambda t, e: fitted(t, 1.0)
    )
    name = "dark_current_vs_temperature"
    yield out / f"{name}.png", figure, name, SECTION
    hottest = int(np.argmax(maps.temperature))
    percent = percent_error(maps, hottest, model)
    at = f"{celsius(maps.temperature[hottest])}, {exposure:g} s"
    for name, (low, high), words in CLASSES:
        means, count = BlockMeans(percent.shape), 0
        for rows in means.strips():
            with np.errstate(invalid="ignore"):
                inside = (percent[rows] >= low) & (percent[rows] < high)
            means.add(np.where(inside, percent[rows], np.float32(np.nan)))
            count += np.count_nonzero(inside)
        title = f"{at}: {words} ({100.0 * count / percent.size:.3g} % of the pixels)"
        figure = figures.error_map(means.small(), title, low, high)
        yield out / f"model_evaluation_masks_{name}.png", figure, f"masks_{name}", SECTION


def heat_maps(out, maps, rows):
    """Errors and rates over temperature and exposure."""
    members = grouping.group_by_gap(maps.temperature, float(maps.headers[0].get("TTOL", 0.5)))
    exposures = maps.by_exposure()
    temperatures = [float(maps.temperature[m].mean()) for m in members]
    times = [float(f"{maps.exposure[m].mean():.4g}") for m in exposures]
    for key, column, words, unit, log in (
        ("mae", HEAD[2], "Mean absolute error", "ADU/s", True),
        ("mape", HEAD[3], "Mean absolute error in percent", "%", False),
        ("dark_real", "dark_real", "Median dark current, maps", "ADU/s", True),
        ("dark_synthetic", "dark_synthetic", "Median dark current, model", "ADU/s", True),
    ):
        table = np.full((len(members), len(exposures)), np.nan)
        for i, one in enumerate(members):
            for j, other in enumerate(exposures):
                both = np.intersect1d(one, other)
                if both.size:
                    table[i, j] = np.mean([rows[index][column] for index in both])
        figure = figures.heat(table, temperatures, times, unit, words, log)
        yield out / f"heatmap_{key}_2d.png", figure, key, SECTION


def compared(out, maps, model, index):
    """The 2-D model beside one map: pixel by pixel, and sorted."""
    where = sample_of(maps.rates[0].size)
    temperature, exposure = float(maps.temperature[index]), float(maps.exposure[index])
    shift = np.float32(model.offset_of(maps.session[index]) / exposure)
    name = f"T{label(temperature, 1, 'p')}_E{_point(exposure)}"
    for kind, function, pixels in (
        ("scatter", figures.scatter, np.union1d(where, brightest(maps, index))),
        ("line_compare", figures.line_compare, where),
    ):
        real = real_rate(maps, index, pixels)
        synthetic = model.at(pixels, temperature, exposure)[0] + shift
        path = out / "plots_2d_comparison" / f"{kind}_{name}.png"
        yield path, function(real, synthetic, temperature, exposure), kind, SECTION


def draw_1d(config, record, made):
    """Draw the 1-D models.  made : list of (folder, maps, model), one an exposure."""
    tasks = [partial(figures_1d, config.output_dir / folder, maps, model) for folder, maps, model in made]
    draw(config.shared, record, CAPTIONS, tasks, made[0][1].shape if made else (0, 0))


def draw_2d(config, record, maps, model, rows):
    """Draw heat maps over temperature and exposure, and comparisons of single maps."""
    count, out = len(maps.paths), config.output_dir
    order = np.lexsort((maps.exposure, maps.temperature))
    chosen = order[config.shared.pictured(count, maps.shape, (0, count // 2, count - 1))]
    tasks = [partial(heat_maps, out, maps, rows), *(partial(compared, out, maps, model, k) for k in chosen)]
    draw(config.shared, record, CAPTIONS, tasks, maps.shape)


def _point(exposure):
    return label(exposure, 1, "p") if exposure >= 0.1 else f"{exposure:g}".replace(".", "p")


def brightest(maps, index, count=100):
    """Flat indices of the brightest usable pixels of a map."""
    rate = np.nan_to_num(real_rate(maps, index, slice(None)), nan=-np.inf)
    return np.argpartition(rate, -min(count, rate.size))[-count:]


def median_of(model):
    """Return the function (T, t) -> median rate of the model over a regular sample of usable pixels."""
    size = model.dq.size
    where = np.arange(0, size, size // 50_000 | 1)
    a, b, gamma = model.parameters(where)
    params = np.stack([a, b, np.zeros_like(a) if gamma is None else gamma])
    params = params[:, np.isfinite(params).all(axis=0)]

    @cache  # several pictures ask for the same
    def at(temperature, exposure):
        power = params[1] * np.float32(temperature - model.t_min)
        power += params[2] * np.float32(np.log(exposure))
        return float(median(params[0] * np.exp(power, out=power)))

    return at
