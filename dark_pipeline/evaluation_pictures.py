"""Pictures of the evaluation, under the names that users know."""

import numpy as np

from dark_pipeline.captions import CAPTIONS
from utils.fits_io.atomic import write_bytes
from utils.fits_io.naming import label
from utils.fits_io.products import DQ
from utils.kernels import evaluation
from utils.kernels import groups as grouping

HEAD = ("Temperature (°C)", "Exposure (s)", "MAE [ADU/s]", "MAPE [%]")
_UNUSABLE = int(DQ.SATURATED | DQ.NO_DATA | DQ.DO_NOT_USE)


def draw(record, path, figure, caption, section):
    """Write one figure and list it."""
    from utils.application.figure_style import png_bytes

    record.claim(path)
    write_bytes(path, [png_bytes(figure)])
    record.add_figure(path, CAPTIONS[caption], section=section)


def median_rates(maps):
    """Median rate of each map and its error, of a regular sample of pixels: (n,), (n,) [ADU/s]."""
    step = max(1, maps.rates[0].size // 200000)
    rates, errors = [], []
    for plane, dq in zip(maps.rates, maps.dqs, strict=True):
        values = plane.reshape(-1)[::step][(dq.reshape(-1)[::step] & _UNUSABLE) == 0].astype(np.float64)
        values = values[np.isfinite(values)]
        rates.append(np.median(values) if values.size else np.nan)
        spread = 1.4826 * np.median(np.abs(values - rates[-1])) if values.size else np.nan
        errors.append(1.2533 * spread / np.sqrt(max(1, values.size)))
    return np.array(rates), np.array(errors)


def draw_1d(config, record, folder, maps, model, rows):
    """Pictures of the 1-D model of one exposure, in exp_*/."""
    from dark_pipeline import figures

    section, out = "Evaluation", config.output_dir / folder
    rates, errors = median_rates(maps)
    fitted = median_of(model, maps)
    exposure = float(maps.exposure.mean())
    figure = figures.against_temperature(
        [(exposure, maps.temperature, rates, errors)], lambda t, e: fitted(t, 1.0)
    )
    draw(record, out / "dark_current_vs_temperature.png", figure, "dark_current_vs_temperature", section)
    hottest = int(np.argmax(maps.temperature))
    real = _real(maps, hottest)
    synthetic, sigma, _ = model.evaluate(float(maps.temperature[hottest]), 1.0)
    percent = evaluation.percentage_error(real, synthetic - real, sigma)
    at = f"{label(maps.temperature[hottest], 1)} °C, {exposure:g} s"
    for name, low, high, words in (
        ("all", -1.0, np.inf, "all pixels"),
        ("mape_less_100", -1.0, 100.0, "below 100 %"),
        ("mape_100_200", 100.0, 200.0, "100 to 200 %"),
        ("mape_over_200", 200.0, np.inf, "above 200 %"),
    ):
        with np.errstate(invalid="ignore"):
            inside = (percent >= low) & (percent < high) if high < np.inf else percent >= low
        image = np.where(inside, percent, np.nan)
        share = 100.0 * np.count_nonzero(inside) / percent.size
        figure = figures.error_map(image, f"{at}: {words} ({share:.3g} % of the pixels)")
        draw(record, out / f"model_evaluation_masks_{name}.png", figure, f"masks_{name}", section)


def draw_2d(config, record, maps, model, rows):
    """Heat maps over temperature and exposure, and comparisons of single maps."""
    from dark_pipeline import figures

    section, out = "Evaluation", config.output_dir
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
        draw(record, out / f"heatmap_{key}_2d.png", figure, key, section)
    count = len(maps.paths)
    order = np.lexsort((maps.exposure, maps.temperature))
    chosen = order if config.shared.plots == "all" else order[sorted({0, count // 2, count - 1})]
    for index in chosen:
        temperature, exposure = float(maps.temperature[index]), float(maps.exposure[index])
        real = _real(maps, index)
        synthetic = model.evaluate(temperature, exposure)[0] + np.float32(model.offset / exposure)
        name = f"T{label(temperature, 1, 'p')}_E{_point(exposure)}"
        folder = out / "plots_2d_comparison"
        draw(
            record,
            folder / f"scatter_{name}.png",
            figures.scatter(real, synthetic, temperature, exposure),
            "scatter",
            section,
        )
        figure = figures.line_compare(real, synthetic, temperature, exposure)
        draw(record, folder / f"line_compare_{name}.png", figure, "line_compare", section)


def _point(exposure):
    return label(exposure, 1, "p") if exposure >= 0.1 else f"{exposure:g}".replace(".", "p")


def _real(maps, index):
    """One map as measured, NaN where it is not usable."""
    rate = np.asarray(maps.rates[index], np.float32)
    return np.where((np.asarray(maps.dqs[index]) & _UNUSABLE) == 0, rate, np.float32(np.nan))


def median_of(model, maps):
    """Return the function (T, t) -> median rate of the model over a regular sample of usable pixels."""
    size = model.dq.size
    step = max(1, size // 50000)
    params = model.params.reshape(3, -1)[:, ::step].astype(np.float64)
    params = params[:, np.isfinite(params).all(axis=0)]

    def at(temperature, exposure):
        if params.shape[1] == 0:
            return np.nan
        return float(
            np.median(
                params[0] * np.exp(params[1] * (temperature - model.t_min) + params[2] * np.log(exposure))
            )
        )

    return at
