"""Figures of the dark part of docs/validation.md: functions from results to a `matplotlib.figure.Figure`."""

import numpy as np

from utils.application.figure_style import COLOURS, GREY, MARKERS, head, new_figure, place, styled


@styled
def error_against_temperature(found, campaigns, truths):
    """Rms error over the bound at each temperature and exposure, normal and hot pixels, for one truth."""
    figure = new_figure(7.2, 4.9)
    truth = truths[-1]
    head(figure, "Error of the dark model over the bound of a free fit")
    names = list(campaigns)[:2]
    for row, (kind, limit) in enumerate((("normal", 1.05), ("hot", 1.15))):
        for column, name in enumerate(names):
            axes = place(figure, 0.62 + 3.5 * column, 2.75 - 2.3 * row, 2.95, 1.6)
            axes.set_title(f"{name}, {kind} pixels", fontsize=8, weight="normal")
            campaign, one = campaigns[name][0], found[name, truth]
            found_ratio, best = one.ratio(kind), one.ratio(kind, "best")
            for colour, marker, t in zip(COLOURS, MARKERS, campaign.exposure_at, strict=False):
                at = [i for i, pair in enumerate(campaign.at) if pair[1] == t]
                axes.plot(campaign.temperature_at, best[at], color=colour, lw=1)
                label = f"{t:g} s"
                axes.plot(campaign.temperature_at, found_ratio[at], marker, color=colour, ms=4, label=label)
            axes.axhline(limit, color=GREY, lw=1, ls=":")
            axes.set_ylim(0, 1.3)
            axes.set_xlabel("temperature [°C]")
            if column == 0:
                axes.set_ylabel("rms error / bound")
            axes.legend(loc="lower right", ncols=3)
    return figure


@styled
def pull_histograms(found, campaigns):
    """Histograms of pulls of normal and of hot pixels, all truths of a campaign together."""
    figure = new_figure(7.2, 2.7)
    head(figure, "Pulls of the dark model, error / quoted error")
    edges = np.linspace(-6, 6, 49)
    middle = 0.5 * (edges[1:] + edges[:-1])
    for column, kind in enumerate(("normal", "hot")):
        axes = place(figure, 0.62 + 3.5 * column, 0.5, 2.95, 1.65)
        axes.set_title(f"{kind} pixels", fontsize=8.5, weight="normal")
        for colour, marker, name in zip(COLOURS, MARKERS, campaigns, strict=False):
            parts = [one for (campaign, _), one in found.items() if campaign == name]
            values = np.concatenate([(o.error / o.quoted)[:, o.kinds[kind]].ravel() for o in parts])
            share = np.histogram(values, edges)[0] / (values.size * np.diff(edges))
            share[share == 0] = np.nan
            axes.plot(middle, share, marker, ms=2.6, color=colour, label=name)
        axes.plot(middle, np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi), color=GREY, lw=1, label="Gaussian")
        axes.set_yscale("log")
        axes.set_ylim(1e-5, 1e4)
        axes.set_yticks([1e-4, 1e-2, 1])
        axes.minorticks_off()
        axes.set_xlabel("pull")
        axes.set_ylabel("density")
        if column == 0:
            axes.legend(loc="upper left", fontsize=6.5)
    return figure


@styled
def shared_numbers(found):
    """Gamma and offset of the sensor in each run, less their true values, with their errors."""
    figure = new_figure(7.2, 2.7)
    head(figure, "γ of the sensor and offset of the darks, less their truth")
    for column, (key, error, true, label) in enumerate(
        (
            ("gamma_g", "gamma_g_error", "true_gamma", "γ − truth"),
            ("offset_adu", "offset_error_adu", "true_offset", "offset − truth [ADU]"),
        )
    ):
        axes = place(figure, 0.75 + 3.5 * column, 0.5, 2.8, 1.75)
        for colour, with_offset, text in (
            (COLOURS[0], 0.0, "no offset"),
            (COLOURS[1], 1.0, "offset of 1 ADU"),
        ):
            runs = [
                (number, one)
                for number, one in enumerate(n for judged in found.values() for n in judged.shared)
                if one["true_offset"] == with_offset
            ]
            value = [np.atleast_1d(one[key])[0] - one[true] for _, one in runs]
            sigma = [np.atleast_1d(one[error])[0] for _, one in runs]
            place_of = [number for number, _ in runs]
            axes.errorbar(place_of, value, sigma, fmt="o", ms=3, color=colour, lw=1, label=text)
        axes.axhline(0, color=GREY, lw=1)
        axes.set_xlabel("run")
        axes.set_ylabel(label)
        if column == 0:
            axes.legend(loc="upper right", ncols=2)
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.25 * (high - low))
    return figure
