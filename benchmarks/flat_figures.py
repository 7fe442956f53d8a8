"""Figures of the flat part of docs/validation.md: functions from results to a `matplotlib.figure.Figure`."""

import numpy as np

from utils.application.figure_style import COLOURS, GREY, MARKERS, head, new_figure, place, styled


@styled
def pull_histograms(pulls):
    """Histograms of pulls; pulls : {label: list of arrays}."""
    figure = new_figure(7.2, 3.0)
    head(figure, "Pulls of master flats, error / quoted error")
    axes = place(figure, 0.62, 0.5, 4.3, 2.05)
    axes.grid(visible=True)
    edges = np.linspace(-6, 6, 61)
    middle = 0.5 * (edges[1:] + edges[:-1])
    for colour, marker, (label, values) in zip(COLOURS, MARKERS, pulls.items(), strict=False):
        values = np.concatenate(values)
        share = np.histogram(values, edges)[0] / (values.size * np.diff(edges))
        share[share == 0] = np.nan
        axes.plot(middle, share, marker, ms=3, color=colour, label=f"{label}: width {np.std(values):.3f}")
    axes.plot(middle, np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi), color=GREY, lw=1, label="Gaussian")
    axes.set_yscale("log")
    axes.set_ylim(1e-6, 1)
    axes.minorticks_off()
    axes.set_xlabel("pull")
    axes.set_ylabel("density")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


@styled
def skies(nights, usual):
    """Scatter of every run of sky flats, and the mean error of tenths of the pixels by the star light that they saw.

    nights : {label: list of `Judged`}.  usual : {label: list of `Judged`}, the runs whose tenths are shown.
    """
    figure = new_figure(7.2, 3.9)
    head(figure, "Sky flats: scatter over the limit, and what stars leave behind")
    axes = place(figure, 2.05, 0.55, 2.05, 2.85)
    axes.grid(visible=True, axis="x")
    for row, runs in enumerate(nights.values()):
        ratio = [float(one.error.std()) for one in runs]
        axes.plot(ratio, np.full(len(ratio), row), "o", ms=3.5, color=COLOURS[0], alpha=0.6)
    axes.axvline(1.2, color=GREY, lw=1, ls=":")
    axes.set_yticks(range(len(nights)), list(nights))
    axes.set_ylim(len(nights) - 0.5, -0.5)
    axes.set_xlim(left=0.95)
    axes.set_xlabel("scatter / limit of all frames")
    axes = place(figure, 4.95, 0.55, 2.1, 2.85)
    axes.grid(visible=True)
    for colour, marker, (label, runs) in zip(COLOURS, MARKERS, usual.items(), strict=False):
        tenths = np.array([one.tenths for one in runs])
        spread = tenths.std(axis=0)
        at = np.arange(1, 11)
        axes.errorbar(
            at, tenths.mean(axis=0), spread, fmt=marker, ms=3.5, lw=1, color=colour, label=label, capsize=0
        )
    for limit in (-0.1, 0.1):
        axes.axhline(limit, color=GREY, lw=1, ls=":")
    axes.set_ylim(-0.25, 0.25)
    axes.set_xticks([1, 4, 7, 10])
    axes.set_xlabel("tenth of pixels, by star light")
    axes.set_ylabel("mean error / limit")
    axes.legend(loc="lower right")
    return figure


@styled
def real_cameras(plateaus, saturation, ratios):
    """Left: where pixels of the ST-7XE stop following the light.  Right: even over odd rows of the Orion G3.

    plateaus : {label: `real_flats.Plateau`}.  saturation : level from which flats are left out [ADU].  ratios : (n,).
    """
    figure = new_figure(7.2, 3.0)
    head(figure, "Real cameras: full wells of the ST-7XE, fields of the Orion G3")
    axes = place(figure, 0.75, 0.5, 2.85, 1.95)
    axes.grid(visible=True)
    for colour, marker, (label, one) in zip(COLOURS, MARKERS, plateaus.items(), strict=False):
        low, middle, high = 1e-3 * one.levels.T
        axes.errorbar(
            one.exposures,
            middle,
            (middle - low, high - middle),
            fmt=marker,
            ms=3,
            lw=0.8,
            color=colour,
            label=label,
        )
    axes.axhline(1e-3 * saturation, color=GREY, lw=1, ls=":", label=f"limit found, {saturation:.0f} ADU")
    axes.set_xlabel("exposure [s]")
    axes.set_ylabel("median, 1 and 99 % [1000 ADU]")
    axes.legend(loc="lower right", fontsize=6.5)
    axes = place(figure, 4.3, 0.5, 2.7, 1.95)
    axes.grid(visible=True)
    axes.plot(np.arange(1, ratios.size + 1), ratios, "o", ms=3.5, color=COLOURS[0])
    axes.axhline(1.0, color=GREY, lw=1)
    axes.set_xlabel("flat")
    axes.set_ylabel("even rows / odd rows")
    return figure
