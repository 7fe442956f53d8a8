"""Pictures of dark-current maps and of the model in temperature and exposure, from what run.json lists."""

from functools import partial

import numpy as np

from dark_pipeline import figures
from dark_pipeline.captions import CAPTIONS
from dark_pipeline.evaluation_pictures import median_of, median_rates
from dark_pipeline.products import MODEL_2D, open_dark_maps
from utils.application.pictures import draw
from utils.domain.dark_model import MAPS_2D, DarkModel
from utils.fits_io.mapped import drop_pages
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ
from utils.kernels import groups as grouping

FIGURES = "figures"
MAPS, MODEL = "Dark current", "Dark model"
"""Sections of the report."""
SHOWN = 6
"""Exposures in one picture."""


def draw_all(config, record):
    """Draw what the products allow."""
    kinds = {product.prodtype for product in record.products()}
    if "DARK_CURRENT" not in kinds:
        return
    folder = config.output_dir / FIGURES
    maps, _, _ = open_dark_maps(config, record)
    order = np.lexsort((maps.exposure, np.round(maps.temperature)))
    cold_level = np.round(maps.temperature[order[0]])
    cold = [i for i in order if np.round(maps.temperature[i]) == cold_level][-1]
    tasks = [
        partial(_map, folder, maps, cold, "cold_map"),
        partial(_map, folder, maps, order[-1], "hot_map"),
        partial(_hot_spectrum, folder, maps, order[-1]),
    ]
    model = DarkModel.load(config.output_dir / MODEL_2D) if "DARK_A_2D" in kinds else None
    if model is not None or np.unique(maps.exposure).size > 1:
        tasks.append(partial(_medians, folder, maps, model))
    if model is not None:
        names = ("a", "b", "doubling") if model.header.get("GFIXED") else ("a", "b", "doubling", "gamma")
        tasks += [partial(_parameter, folder, model, name) for name in names]
        tasks.append(partial(_chi2, folder, config.output_dir / MODEL_2D / MAPS_2D[3]))
    draw(config.shared, record, CAPTIONS, tasks, maps.shape)


def _map(folder, maps, index, name):
    rate = maps.rates[index]
    figure = figures.dark_map(rate, maps.temperature[index], maps.exposure[index])
    yield folder / f"{name}.png", figure, name, MAPS
    drop_pages(rate)


def _hot_spectrum(folder, maps, index):
    header, rate = maps.headers[0], np.asarray(maps.rates[index], np.float32)
    figure = figures.hot_spectrum(rate, header.get("HOTLIM", 0.0), header.get("WARMLIM", 0.0))
    yield folder / "hot_spectrum.png", figure, "hot_spectrum", MAPS
    drop_pages(maps.rates[index])


def _medians(folder, maps, model):
    """Rates of the median pixel against exposure, and against temperature with the model."""
    rates, errors = median_rates(maps)
    if np.unique(maps.exposure).size > 1:
        groups = []
        for member in grouping.group_by_gap(maps.temperature, float(maps.headers[0].get("TTOL", 0.5))):
            if member.size > 1:
                mean = float(maps.temperature[member].mean())
                groups.append((mean, maps.exposure[member], rates[member], errors[member]))
        if groups:
            name = "against_exposure"
            yield folder / f"{name}.png", figures.against_exposure(groups), name, MAPS
    if model is None:
        return
    # As the fit saw them: less the offset of their session.
    rates = rates - np.array([model.offset_of(number) for number in maps.session]) / maps.exposure
    errors = np.hypot(errors, model.common_error / maps.exposure)
    groups, fitted = [], median_of(model)
    for member in _most_telling(maps, maps.by_exposure()):
        exposure = float(f"{maps.exposure[member].mean():.4g}")
        groups.append((exposure, maps.temperature[member], rates[member], errors[member]))
    for name, function in (
        ("against_temperature", figures.against_temperature),
        ("arrhenius", figures.arrhenius),
    ):
        yield folder / f"{name}.png", function(groups, fitted), name, MODEL


def _most_telling(maps, members):
    """Exposures with the widest range of temperatures, at most ``SHOWN`` that a reader can tell apart, in order."""
    wide = sorted(members, key=lambda member: -float(np.ptp(maps.temperature[member])))[:SHOWN]
    return sorted(wide, key=lambda member: maps.exposure[member[0]])


def _parameter(folder, model, name):
    """Map of a parameter, or of the doubling temperature."""
    usable = (model.dq & DQ.NO_DATA) == 0
    plane = model.params[["a", "b", "gamma"].index("b" if name == "doubling" else name)]
    image = np.where(usable, plane, np.float32(np.nan))
    if name == "doubling":
        figure = figures.doubling_map(image)
    else:
        figure = figures.parameter_map(
            image, *{"a": ("A", "ADU/s"), "b": ("B", "1/K"), "gamma": ("GAMMA", "")}[name]
        )
    yield folder / f"{name}_map.png", figure, f"{name}_map", MODEL


def _chi2(folder, path):
    image = view_planes(path)[1]["CHI2_RED"]
    yield folder / "chi2_map.png", figures.chi2_map(image), "chi2_map", MODEL
    drop_pages(image)
