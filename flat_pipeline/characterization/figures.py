"""Figures of the sheet: from results to matplotlib figures."""

import math

import numpy as np

from utils.application.figure_style import BLUE, GREEN, GREY, OCHRE, RED, head, new_figure, place, styled
from utils.application.report import measure

WIDTH, HEIGHT, SPECTRA = 4.3, 3.6, 2.6
"""Of a figure: two stand side by side on the sheet [inch]."""


@styled
def photon_transfer(camera):
    """Variance against signal with the fit, both logarithmic, and the residual of the levels in percent."""
    from matplotlib.ticker import LogLocator, NullFormatter

    several = [level for level in camera.flats if level.frames > 1 and math.isfinite(level.found.variance)]
    signal, variance, error = (
        np.array([getattr(level.found, name) for level in several])
        for name in ("signal", "variance", "error")
    )
    transfer, well = camera.transfer, camera.well
    figure = new_figure(WIDTH, HEIGHT)
    upper = place(figure, 0.72, 1.52, WIDTH - 0.87, HEIGHT - 1.92)
    lower = place(figure, 0.72, 0.48, WIDTH - 0.87, 0.95, sharex=upper)
    other = ~transfer.used & ~well.full
    # A full well may have no noise at all: shown at the lower edge.
    floor = 0.3 * min(transfer.base, float(variance[~well.full].min()))
    for mask, colour, label in (
        (transfer.used, BLUE, "levels of the fit"),
        (other, GREY, "outside the range of the fit"),
        (well.full, RED, "full wells"),
    ):
        if mask.any():
            upper.errorbar(
                signal[mask],
                np.maximum(variance[mask], floor),
                error[mask],
                fmt="o",
                ms=4,
                color=colour,
                label=label,
            )
    order = np.argsort(signal)
    order = order[~well.full[order] & np.isfinite(transfer.model[order])]
    upper.plot(signal[order], transfer.model[order], color=OCHRE, linewidth=1.0, zorder=2)
    upper.axhline(transfer.base, color=GREEN, linewidth=0.9, linestyle=(0, (4, 3)), label="without light")
    if math.isfinite(well.value):
        upper.axvline(well.value, color=RED, linewidth=0.8, linestyle=":", label="full well")
    upper.set(xscale="log", yscale="log", ylabel="variance [ADU²]")
    upper.legend(loc="best")
    upper.tick_params(labelbottom=False, which="both")
    shown = ~well.full & np.isfinite(transfer.model)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = 100.0 * (variance / transfer.model - 1.0)
        sigma = 100.0 * error / transfer.model
    for mask, colour in ((shown & transfer.used, BLUE), (shown & ~transfer.used, GREY)):
        lower.errorbar(signal[mask], left[mask], sigma[mask], fmt="o", ms=4, color=colour)
    lower.axhline(0.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    lower.set(xlabel="signal above bias [ADU]", ylabel="residual [%]")
    lower.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    lower.xaxis.set_major_formatter("{x:g}")
    lower.xaxis.set_minor_formatter(NullFormatter())
    head(figure, f"Photon transfer: {measure(transfer.gain, transfer.gain_error)} e⁻/ADU")
    return figure


@styled
def deviation(camera):
    """Deviation from a straight line in percent, and that of EMVA 1288."""
    response, standard = camera.response, camera.standard
    used = response.used
    figure = new_figure(WIDTH, HEIGHT)
    axes = place(figure, 0.72, 0.48, WIDTH - 0.87, HEIGHT - 0.88)
    axes.grid(visible=True)
    axes.axhline(0.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    curve = response.curve()
    axes.plot(curve[0], 100.0 * curve[1], color=BLUE, linewidth=1.0)
    values = 100.0 * response.deviation[used], 100.0 * response.deviation_error[used]
    axes.errorbar(
        response.signal[used], *values, fmt="o", ms=4, color=BLUE, label="against the slope at little light"
    )
    if standard is not None:
        own = standard.used
        axes.plot(
            response.signal[own], standard.deviation[own], "s", ms=4, mfc="none", color=OCHRE,
            label="against the line of EMVA 1288",
        )  # fmt: skip
    axes.set(xlabel="signal of the light [ADU]", ylabel="deviation [%]")
    axes.margins(y=0.12)
    axes.legend(loc="best")
    head(figure, "Linearity")
    return figure


@styled
def spectra(found, unit, title):
    """Power of the row and column patterns against frequency, with the level that pixels alone would give."""
    figure = new_figure(WIDTH, SPECTRA)
    axes = place(figure, 0.72, 0.48, WIDTH - 0.87, SPECTRA - 0.88)
    low, high = math.inf, 0.0
    for colour, (name, (frequency, power, white)) in zip((BLUE, OCHRE), found.spectra.items(), strict=True):
        axes.plot(frequency, np.maximum(power, 1e-12), color=colour, linewidth=0.8, label=f"{name} means")
        axes.axhline(white, color=colour, linewidth=1.0, linestyle=(0, (4, 3)))
        low = min(low, max(float(np.quantile(power, 0.02)), white / 30.0), white / 3.0)
        high = max(high, 6.0 * float(power.max()), 3.0 * white)
    axes.plot([], [], color=GREY, linewidth=1.0, linestyle=(0, (4, 3)), label="pixels and noise left")
    axes.set(
        yscale="log", xlabel="cycles per pixel", ylabel=f"power [{unit}]", xlim=(0, 0.5), ylim=(low, high)
    )
    axes.legend(loc="upper right", ncols=3, columnspacing=0.8, handlelength=1.0, fontsize=7)
    head(figure, title)
    return figure
