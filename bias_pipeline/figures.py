"""Figures of the bias pipeline: functions from arrays to a `matplotlib.figure.Figure`; no files, no pyplot.

Levels are in product ADU, temperatures in degC, maps (ny, nx) with NaN where there is no value.
Render a figure with `utils.application.figure_style.png_bytes`.
"""

import math

import numpy as np

from utils.application.figure_style import (
    BLUE,
    COLOURS,
    ERRORS,
    MARKERS,
    RED,
    celsius,
    map_limits,
    robust_limits,
)
from utils.application.plots import (
    Panel,
    Series,
    fit_figure,
    map_figure,
    map_with_histogram,
    panels_figure,
    pull_figure,
)
from utils.kernels.pieces import in_pieces

TEMPERATURE = "temperature [°C]"


def master_map(image, temperature, n_frames):
    """Master bias [ADU] at the mean `temperature` [degC] of its `n_frames` frames, with histogram."""
    title = f"Master bias at {celsius(temperature, 2)}, {n_frames} frames"
    return map_with_histogram(image, label="master bias [ADU]", title=title)


def intercept_map(a):
    """Bias at 0 degC, `a` [ADU], with histogram."""
    return map_with_histogram(a, label="bias at 0 °C, a [ADU]", title="Model: level a at 0 °C")


def slope_map(b):
    """Change of the bias with temperature, `b` [ADU/K], with histogram; blue falls, red rises."""
    # Colours around zero tell signs; slopes far from zero everywhere need a range of their own.
    low, high = robust_limits(b)
    crosses = low < 0 < high
    return map_with_histogram(
        b, label="slope of the bias, b [ADU/K]", title="Model: slope b", symmetric=crosses
    )


def chi2_map(chi2, degrees):
    """Reduced chi-square of the line, with histogram against its expected distribution.

    chi2 : (ny, nx), chi-square by its degrees of freedom.   degrees : of freedom, one number or (ny, nx).
    """
    counts = np.zeros(1, np.int64)
    for (piece,) in in_pieces(np.atleast_1d(degrees)):
        known = np.maximum(piece[np.isfinite(piece)], 0).astype(np.intp)
        found = np.bincount(known, minlength=counts.size)
        found[: counts.size] += counts
        counts = found
    kinds = [(k, int(n)) for k, n in enumerate(counts) if k > 0 and n > 0]
    expected = None
    if kinds:
        total = sum(n for _, n in kinds)

        def density(value):
            return sum(n / total * _reduced_chi2_density(value, k) for k, n in kinds)

        common = max(kinds, key=lambda kind: kind[1])[0]
        expected = (density, f"expected, {common} degrees of freedom")
    return map_with_histogram(
        chi2,
        label="reduced χ²",
        title="Model: reduced χ²",
        cmap=ERRORS,
        floor=0.0,
        expected=expected,
    )


def _reduced_chi2_density(value, degrees):
    """Density of chi-square by its degrees of freedom, without the 0.6 s that scipy.stats takes to import."""
    half = 0.5 * degrees
    with np.errstate(divide="ignore"):
        power = (half - 1.0) * np.log(half * value) if degrees != 2 else 0.0
    return half * np.exp(power - half * value - math.lgamma(half))


def pixel_fits(temperatures, values, sigma, a, b, pixels):
    """Lines of single pixels: level against temperature, model, residuals.

    temperatures : (n,) [degC].   values, sigma : (n, m) [ADU], the masters at m pixels.
    a, b : (m,) [ADU, ADU/K].   pixels : m pairs (row, column).
    Levels are shown relative to each pixel's model at the mean temperature: pixels differ by more than the
    temperature changes them.
    """
    temperatures = np.asarray(temperatures, dtype=np.float64)
    values, sigma = np.asarray(values, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    middle = float(temperatures.mean())
    span = np.array([temperatures.min(), temperatures.max()])
    # Markers side by side: errors of several pixels at one temperature would hide each other.
    step = 0.006 * (float(np.ptp(span)) or 1.0)
    series = []
    for number, (row, column) in enumerate(pixels):
        zero = a[number] + b[number] * middle
        at = temperatures + step * (number - 0.5 * (len(pixels) - 1))
        series.append(
            Series(
                at,
                values[:, number] - zero,
                sigma=sigma[:, number],
                model=b[number] * (temperatures - middle),
                line=(span, b[number] * (span - middle)),
                label=f"row {row}, column {column}: a = {a[number]:.2f} ADU, b = {b[number]:+.4f} ADU/K",
            )
        )
    return fit_figure(
        series,
        xlabel=TEMPERATURE,
        ylabel=f"bias minus model\nat {celsius(middle)} [ADU]",
        residual_label="residual [ADU]",
        title="Single pixels against temperature",
    )


def level_against_temperature(temperatures, levels, sigma, model, sessions=None):
    """Mean level of each master against temperature, by session, with the fit and its residuals.

    temperatures, levels, sigma, model : (n,) [degC, ADU, ADU, ADU]; model is the fit at those temperatures,
    with the zero-level shift of each session in it.   sessions : (n,) labels; None for one session.
    """
    temperatures, levels, sigma, model = (
        np.asarray(values, dtype=np.float64) for values in (temperatures, levels, sigma, model)
    )
    sessions = np.zeros(len(levels)) if sessions is None else np.asarray(sessions)
    names = list(dict.fromkeys(sessions.tolist()))
    series = []
    for name in names:
        chosen = np.flatnonzero(sessions == name)
        chosen = chosen[np.argsort(temperatures[chosen], kind="stable")]
        series.append(
            Series(
                temperatures[chosen],
                levels[chosen],
                sigma=sigma[chosen],
                model=model[chosen],
                line=(temperatures[chosen], model[chosen]),
                label=f"session {name}" if len(names) > 1 else "masters and fit",
            )
        )
    return fit_figure(
        series,
        xlabel=TEMPERATURE,
        ylabel="mean level [ADU]",
        residual_label="residual [ADU]",
        title="Mean bias level against temperature",
    )


def read_noise_map(noise, *, temperature=None):
    """Read noise [ADU], pooled over all temperatures, or at one [degC], with histogram."""
    where = "pooled over all temperatures" if temperature is None else f"at {celsius(temperature)}"
    # Rows and columns of the ordinary noise are what to see; noisy pixels are bright on any scale.
    limits = map_limits(noise, reach=8.0)
    return map_with_histogram(
        noise, label="read noise [ADU]", title=f"Read noise, {where}", cmap=ERRORS, limits=limits
    )


def read_noise_against_temperature(temperatures, noise, sigma=None):
    """Read noise of each group (n,) [ADU] against temperature [degC]."""
    order = np.argsort(temperatures, kind="stable")
    sigma = None if sigma is None else np.asarray(sigma)[order]
    series = Series(np.asarray(temperatures)[order], np.asarray(noise)[order], sigma=sigma, joined=True)
    panel = Panel("read noise [ADU]", (series,))
    return panels_figure([panel], xlabel=TEMPERATURE, title="Read noise against temperature", height=2.0)


def level_against_frame(groups):
    """Level of every frame minus the mean of its group, and its noise, against the frame number.

    groups : list of (temperature [degC], frame numbers (n,), levels (n,) [ADU], noises (n,) [ADU]).
    """
    import matplotlib

    temperatures = [group[0] for group in groups]
    limits = robust_limits(temperatures, 0, 100)
    colours = matplotlib.colormaps["plasma"]
    levels, noises = [], []
    for temperature, frames, level, noise in groups:
        # The last tenth of the colour map is too pale for thin lines on white.
        colour = colours(0.9 * (temperature - limits[0]) / (limits[1] - limits[0]))
        level = np.asarray(level, dtype=np.float64)
        levels.append(Series(frames, level - np.nanmean(level), colour=colour, marker="o", joined=True))
        noises.append(Series(frames, np.asarray(noise), colour=colour, marker="o", joined=True))
    panels = [
        Panel("level minus mean\nof its group [ADU]", tuple(levels), reference=0.0),
        Panel("noise in\nthe frame [ADU]", tuple(noises)),
    ]
    scale = (limits, "plasma", TEMPERATURE)
    return panels_figure(panels, xlabel="frame number", title="Stability over the frames", colours=scale)


def real_bias_map(image, temperature, limits=None):
    """Master bias [ADU] as measured; give `synthetic_bias_map` the same limits.

    limits : (low, high), as `utils.application.figure_style.map_limits` finds them.
    """
    return map_figure(image, label="bias [ADU]", title=f"Real bias at {celsius(temperature)}", limits=limits)


def synthetic_bias_map(image, temperature, limits=None):
    """Bias of the model [ADU] at `temperature` [degC]."""
    return map_figure(
        image, label="bias [ADU]", title=f"Synthetic bias at {celsius(temperature)}", limits=limits
    )


def mae_map(error, temperature):
    """Absolute difference of synthetic and real bias [ADU]."""
    title = f"Absolute error at {celsius(temperature)}"
    return map_figure(error, label="|synthetic − real| [ADU]", title=title, floor=0.0, cmap=ERRORS)


def mape_map(percent, temperature):
    """Absolute difference of synthetic and real bias, in per cent of the real one."""
    title = f"Relative error at {celsius(temperature)}"
    return map_figure(percent, label="|synthetic − real| / real [%]", title=title, floor=0.0, cmap=ERRORS)


def pulls(values):
    """Histogram of (synthetic - real) / sigma of masters left out of the fit, against the Gaussian of width 1."""
    return pull_figure(values, label="(synthetic − real) / σ", title="Left out of the fit, in units of sigma")


def evaluation_summary(temperatures, in_sample, left_out=None):
    """Errors of the model against temperature: in-sample, and with each temperature left out of the fit.

    temperatures : (n,) [degC].   in_sample, left_out : mapping with keys mae, rmse, bias (mean signed error)
    [ADU] and chi2 (reduced), each (n,), NaN where the data do not allow it.
    """
    order = np.argsort(temperatures, kind="stable")
    x = np.asarray(temperatures, dtype=np.float64)[order]

    def both(key, name, number=0):
        found = []
        for source, where, hollow in ((in_sample, "in-sample", False), (left_out, "left out", True)):
            if source is not None:
                y = np.asarray(source[key], dtype=np.float64)[order]
                label = f"{name}{where}"
                colour = COLOURS[number] if name else (RED if hollow else BLUE)
                look = {"colour": colour, "marker": MARKERS[number], "hollow": hollow, "joined": True}
                found.append(Series(x, y, label=label, **look))
        return tuple(found)

    panels = [
        Panel("error [ADU]", both("mae", "MAE, ", 0) + both("rmse", "RMSE, ", 1)),
        Panel("mean signed error [ADU]", both("bias", ""), reference=0.0),
        Panel("reduced χ²", both("chi2", ""), reference=1.0),
    ]
    return panels_figure(
        panels, xlabel=TEMPERATURE, title="Synthetic against real bias", height=2.3, side_by_side=True
    )
