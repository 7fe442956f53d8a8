"""Figures of the sheet: from results to matplotlib figures."""

import math

import numpy as np

from utils.application.figure_style import BLUE, GREEN, GREY, OCHRE, RED, head, new_figure, place, styled
from utils.application.plots import Panel, Series, panels_figure
from utils.application.report import measure
from utils.kernels.photon_transfer import FIT_PART


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
    figure = new_figure(7.2, 4.3)
    upper = place(figure, 0.92, 1.62, 6.08, 2.3)
    lower = place(figure, 0.92, 0.48, 6.08, 1.0, sharex=upper)
    other = ~transfer.used & ~well.full
    # A full well may have no noise at all: shown at the lower edge.
    floor = 0.3 * min(transfer.base, float(variance[~well.full].min()))
    for mask, colour, label in (
        (transfer.used, BLUE, "levels of the fit"),
        (other, GREY, "above the range of the fit"),
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
    gain = measure(transfer.gain, transfer.gain_error)
    head(figure, f"Photon transfer: gain {gain} e⁻/ADU, from levels up to {FIT_PART:.0%} of the full well")
    return figure


def deviation(camera):
    """Deviation from a straight line in percent, and that of EMVA 1288."""
    response, standard = camera.response, camera.standard
    used = response.used
    series = [
        Series(
            response.signal[used],
            100.0 * response.deviation[used],
            sigma=100.0 * response.deviation_error[used],
            line=(response.curve()[0], 100.0 * response.curve()[1]),
            label="against the slope at little light",
            colour=BLUE,
        )
    ]
    if standard is not None:
        own = standard.used
        series.append(
            Series(
                response.signal[own], standard.deviation[own], label="by EMVA 1288", colour=OCHRE, hollow=True
            )
        )
    return panels_figure(
        [Panel("deviation [%]", tuple(series), reference=0.0)],
        xlabel="signal of the light [ADU]",
        title="Linearity",
        height=2.4,
    )


@styled
def spectra(found, unit, title):
    """Power of the row and column patterns against frequency, with the level that pixels alone would give."""
    figure = new_figure(7.2, 2.9)
    for number, (name, (frequency, power, white)) in enumerate(found.spectra.items()):
        axes = place(figure, 0.92 + number * 3.2, 0.5, 2.75, 1.9)
        axes.plot(frequency, np.maximum(power, 1e-12), color=BLUE, linewidth=0.7)
        axes.axhline(white, color=RED, linewidth=1.0, linestyle=(0, (4, 3)), label="pixels and noise left")
        axes.set(yscale="log", xlabel="cycles per pixel", xlim=(0, 0.5))
        low, high = max(white / 30.0, float(np.quantile(power, 0.02))), float(power.max()) * 2.0
        axes.set_ylim(min(low, white / 3.0), max(high, white * 3.0))
        axes.set_title(f"{name} means", size=8.5, weight="normal")
        if number == 0:
            axes.set_ylabel(f"power [{unit}]")
            axes.legend(loc="upper right")
    head(figure, title)
    return figure
