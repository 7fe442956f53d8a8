"""Figures of the dark pipeline: functions from arrays to a `matplotlib.figure.Figure`; no files, no pyplot.

Rates are in ADU/s, temperatures in degC, exposures in s, maps (ny, nx) with NaN where there is no value.
"""

import numpy as np

from utils.application.figure_style import BLUE, ERRORS, RED, celsius
from utils.application.plots import (
    Panel,
    Series,
    fit_figure,
    heat_map,
    map_figure,
    map_with_histogram,
    panels_figure,
)

TEMPERATURE = "temperature [°C]"
SHOWN = 4000
"""Points of a scatter plot."""
_K_EV = 8.617333e-5
SIGNIFICANT = 3.0
"""Rates below so many sigma have no logarithm worth showing."""


def dark_map(rate, temperature, exposure, what="Dark current"):
    """Dark-current map [ADU/s], with histogram."""
    title = f"{what} at {celsius(temperature, 2)}, {exposure:g} s"
    return map_with_histogram(rate, label="dark current [ADU/s]", title=title)


def parameter_map(image, name, unit):
    """Map of one parameter of the model, with histogram."""
    return map_with_histogram(image, label=f"{name} [{unit}]" if unit else name, title=f"Model: {name}")


def chi2_map(chi2):
    """Reduced chi-square of the model, with histogram."""
    return map_with_histogram(chi2, label="reduced χ²", title="Model: reduced χ²", cmap=ERRORS, floor=0.0)


def doubling_map(b):
    """Temperature that doubles the dark current [degC] of every pixel."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return map_with_histogram(
            np.where(b > 0, np.log(2.0) / b, np.nan),
            label="doubling temperature [°C]",
            title="Doubling temperature",
        )


def against_temperature(groups, model=None):
    """Dark current of the median pixel against temperature, one series an exposure, with the fit.

    groups : list of (exposure, temperatures, rates, sigmas).   model : function (T, t) -> rate, or None.
    """
    series = []
    for exposure, temperatures, rates, sigmas in groups:
        order = np.argsort(temperatures)
        x, y = np.asarray(temperatures)[order], np.asarray(rates)[order]
        fitted, line = None, None
        if model is not None:
            fitted = np.array([model(t, exposure) for t in x])
            span = np.linspace(x.min(), x.max(), 50)
            line = (span, np.array([model(t, exposure) for t in span]))
        series.append(
            Series(x, y, sigma=np.asarray(sigmas)[order], model=fitted, line=line, label=f"{exposure:g} s")
        )
    return fit_figure(
        series,
        xlabel=TEMPERATURE,
        ylabel="dark current of the\nmedian pixel [ADU/s]",
        residual_label="residual [ADU/s]",
        title="Dark current against temperature",
    )


def arrhenius(groups, model=None):
    """Logarithm of the dark current against 1 / kT, with the fit; groups and model as in `against_temperature`."""
    series = []
    for exposure, temperatures, rates, sigmas in groups:
        order = np.argsort(temperatures)
        t, y, s = (np.asarray(values, np.float64)[order] for values in (temperatures, rates, sigmas))
        good = y > SIGNIFICANT * s
        if not good.any():
            continue
        t, y, s = t[good], y[good], s[good]
        x = 1.0 / (_K_EV * (t + 273.15))
        fitted = line = None
        if model is not None:
            span = np.linspace(t.min(), t.max(), 50)
            fitted = np.log([model(one, exposure) for one in t])
            line = (1.0 / (_K_EV * (span + 273.15)), np.log([model(one, exposure) for one in span]))
        series.append(Series(x, np.log(y), sigma=s / y, model=fitted, line=line, label=f"{exposure:g} s"))
    return fit_figure(
        series,
        xlabel="1 / kT [1/eV]",
        ylabel="ln(dark current)",
        residual_label="residual",
        title="Arrhenius plot",
    )


def against_exposure(groups):
    """Rate of the median pixel against exposure, one series a temperature; falls or rises with an offset or gamma.

    groups : list of (temperature, exposures, rates, sigmas).
    """
    series = []
    for temperature, exposures, rates, sigmas in groups:
        order = np.argsort(exposures)
        series.append(
            Series(
                np.log10(np.asarray(exposures)[order]),
                np.asarray(rates)[order] / np.asarray(rates)[order][-1],
                sigma=np.asarray(sigmas)[order] / abs(np.asarray(rates)[order][-1]),
                label=celsius(temperature),
                joined=True,
            )
        )
    panel = Panel("rate / rate of the\nlongest exposure", tuple(series), reference=1.0)
    return panels_figure([panel], xlabel="log10(exposure [s])", title="Rate against exposure", height=2.4)


def hot_spectrum(rate, limit, warm_limit):
    """Number of pixels above each rate: the hot-pixel spectrum."""
    values = np.sort(rate[np.isfinite(rate) & (rate > 0)])
    if values.size == 0:
        values = np.array([1.0])
    above = np.arange(values.size, 0, -1)
    pick = np.unique(np.geomspace(1, values.size, 300).astype(int)) - 1
    pick = values.size - 1 - pick
    x = np.log10(values[pick])
    series = [Series(x, np.log10(above[pick]), joined=True, colour=BLUE, marker=".", label="pixels")]
    for value, name in ((warm_limit, "warm"), (limit, "hot")):
        if value > 0:
            span = np.log10([value, value])
            line = (span, np.array([0.0, np.log10(values.size)]))
            series.append(
                Series(span[:1], np.array([0.0]), line=line, label=f"limit of {name} pixels", marker="|")
            )
    panel = Panel("log10(pixels above)", tuple(series))
    return panels_figure(
        [panel], xlabel="log10(dark current [ADU/s])", title="Hot-pixel spectrum", height=2.4
    )


def heat(values, temperatures, exposures, label, title, log=False):
    """Heat map over temperature and exposure; values (len(temperatures), len(exposures))."""
    return heat_map(
        values,
        rows=[f"{t:.1f}" for t in temperatures],
        columns=[f"{t:g}" for t in exposures],
        label=label,
        row_label=TEMPERATURE,
        column_label="exposure [s]",
        title=title,
        log=log,
    )


def scatter(real, synthetic, temperature, exposure):
    """Model against map, pixel by pixel: a regular sample and the brightest; real, synthetic (m,)."""
    good = np.flatnonzero(np.isfinite(real) & np.isfinite(synthetic))
    bright = good[np.argsort(real[good])[-100:]]
    pick = np.union1d(good[:: good.size // SHOWN | 1], bright)
    x, y = synthetic[pick], real[pick]
    span = np.array([x.min(), x.max()]) if x.size else np.array([0.0, 1.0])
    series = (
        Series(x, y, label="pixels", colour=BLUE, marker="."),
        Series(span, span, joined=True, colour=RED, marker=",", label="equal"),
    )
    title = f"Model against map at {celsius(temperature)}, {exposure:g} s"
    return panels_figure([Panel("map [ADU/s]", series)], xlabel="model [ADU/s]", title=title, height=3.0)


def line_compare(real, synthetic, temperature, exposure):
    """Sorted values of map and model: their distributions side by side."""
    good = np.isfinite(real) & np.isfinite(synthetic)
    r, s = np.sort(real[good]), np.sort(synthetic[good])
    pick = np.unique(np.linspace(0, r.size - 1, 400).astype(int)) if r.size else np.array([], int)
    share = 100.0 * pick / max(1, r.size - 1)

    def level(values):
        return np.arcsinh(values / max(float(np.median(np.abs(values))) if values.size else 1.0, 1e-9))

    series = (
        Series(share, level(r)[pick], joined=True, colour=BLUE, marker=".", label="map"),
        Series(share, level(s)[pick], joined=True, colour=RED, marker=",", label="model"),
    )
    title = f"Sorted values at {celsius(temperature)}, {exposure:g} s"
    return panels_figure(
        [Panel("arcsinh(rate / median)", series)], xlabel="share of the pixels [%]", title=title, height=2.6
    )


def error_map(image, title, low, high):
    """Error of the model in percent for the class of pixels from low to high [%]; the others are grey.

    image : `figure_style.SmallMap`.
    """
    limits = None
    if low > 0 and np.isfinite(high):
        limits = low, high
    elif not np.isfinite(image.image).any():
        limits = low, 2.0 * low + 1.0
    return map_figure(
        image, label="|model − map| / map [%]", title=title, limits=limits, floor=low, cmap=ERRORS
    )
