"""Pictures of all products of the output folder, and the report of the run."""

import numpy as np

from dark_pipeline.captions import KINDS
from dark_pipeline.evaluation_pictures import draw, median_of, median_rates
from dark_pipeline.products import MODEL_2D, open_dark_maps
from dark_pipeline.steps.step7_evaluate import HEAD, SUMMARY_2D
from utils.application.report import context_of, csv_table, write_report
from utils.application.run_record import REPORT
from utils.domain.dark_model import MAPS_2D, DarkModel
from utils.fits_io.product_reader import read_plane
from utils.fits_io.products import DQ
from utils.kernels import groups as grouping

FIGURES = "figures"
TABLE = "Errors of the 2-D model [ADU/s]; no T, no t: that temperature or exposure left out of the fit"
SHOWN = 6
"""Exposures in one picture."""
SECTIONS = (
    ("Dark current", "Maps of the rate above bias, and the pixels that stand out."),
    (
        "Dark model",
        "rate = A t^gamma exp(B (T − T_MIN)) for every pixel, faint ones supported by the sensor's own values.",
    ),
    ("Evaluation", "The models against the maps they were fitted to, and against maps left out of the fit."),
)


def run(config, context):
    """Draw the pictures and write the report.

    Reads: what run.json lists. Writes: figures/*.png, report.html.
    """
    record = context.record
    with record.step("report") as step:
        kinds = {product.prodtype for product in record.products()}
        if config.shared.plots != "none" and "DARK_CURRENT" in kinds:
            maps, _, _ = open_dark_maps(config, record)
            _draw_maps(config, record, maps)
            if "DARK_A_2D" in kinds:
                _draw_model(config, record, maps)
        path = record.claim(config.output_dir / REPORT)
        context = context_of(
            record,
            title="Dark calibration",
            program="dark_pipeline/run_pipeline.py",
            sections=SECTIONS,
            tables=_tables(config),
            kinds=KINDS,
        )
        write_report(path, context)
        record.add_product(path, "REPORT")
        step.summary = str(path)


def _draw_maps(config, record, maps):
    from dark_pipeline import figures

    section, folder = SECTIONS[0][0], config.output_dir / FIGURES
    order = np.lexsort((maps.exposure, np.round(maps.temperature)))
    cold_level = np.round(maps.temperature[order[0]])
    cold = [i for i in order if np.round(maps.temperature[i]) == cold_level][-1]
    for name, index in (("cold_map", cold), ("hot_map", order[-1])):
        rate = np.asarray(maps.rates[index], np.float32)
        figure = figures.dark_map(rate, maps.temperature[index], maps.exposure[index])
        draw(record, folder / f"{name}.png", figure, name, section)
    header = maps.headers[0]
    rate = np.asarray(maps.rates[order[-1]], np.float32)
    figure = figures.hot_spectrum(rate, header.get("HOTLIM", 0.0), header.get("WARMLIM", 0.0))
    draw(record, folder / "hot_spectrum.png", figure, "hot_spectrum", section)
    if np.unique(maps.exposure).size > 1:
        rates, errors = median_rates(maps)
        groups = []
        for member in grouping.group_by_gap(maps.temperature, float(header.get("TTOL", 0.5))):
            if member.size > 1:
                mean = float(maps.temperature[member].mean())
                groups.append((mean, maps.exposure[member], rates[member], errors[member]))
        if groups:
            draw(
                record,
                folder / "against_exposure.png",
                figures.against_exposure(groups),
                "against_exposure",
                section,
            )


def _draw_model(config, record, maps):
    from dark_pipeline import figures

    section, folder = SECTIONS[1][0], config.output_dir / FIGURES
    model = DarkModel.load(config.output_dir / MODEL_2D)
    rates, errors = median_rates(maps)
    fitted = median_of(model)
    # As the fit saw them: less the offset of their session.
    rates = rates - np.array([model.offset_of(number) for number in maps.session]) / maps.exposure
    errors = np.hypot(errors, model.common_error / maps.exposure)
    groups = []
    for member in _most_telling(maps, maps.by_exposure()):
        e = float(maps.exposure[member].mean())
        groups.append((float(f"{e:.4g}"), maps.temperature[member], rates[member], errors[member]))
    for name, function in (
        ("against_temperature", figures.against_temperature),
        ("arrhenius", figures.arrhenius),
    ):
        draw(record, folder / f"{name}.png", function(groups, fitted), name, section)
    usable = (model.dq & DQ.NO_DATA) == 0
    a, b, gamma = (np.where(usable, plane, np.float32(np.nan)) for plane in model.params)
    draw(record, folder / "a_map.png", figures.parameter_map(a, "A", "ADU/s"), "a_map", section)
    draw(record, folder / "b_map.png", figures.parameter_map(b, "B", "1/K"), "b_map", section)
    draw(record, folder / "doubling_map.png", figures.doubling_map(b), "doubling_map", section)
    if not model.header.get("GFIXED"):
        draw(
            record, folder / "gamma_map.png", figures.parameter_map(gamma, "GAMMA", ""), "gamma_map", section
        )
    chi2 = read_plane(config.output_dir / MODEL_2D / MAPS_2D[3], "CHI2_RED")
    draw(record, folder / "chi2_map.png", figures.chi2_map(chi2), "chi2_map", section)


def _most_telling(maps, members):
    """Exposures with the widest range of temperatures, at most ``SHOWN`` that a reader can tell apart, in order."""
    wide = sorted(members, key=lambda member: -float(np.ptp(maps.temperature[member])))[:SHOWN]
    return sorted(wide, key=lambda member: maps.exposure[member[0]])


def _tables(config):
    """Table of the 2-D evaluation for the report."""
    path = config.output_dir / SUMMARY_2D
    columns = {
        HEAD[0]: "T [°C]",
        HEAD[1]: "t [s]",
        HEAD[2]: "MAE",
        HEAD[3]: "MAPE [%]",
        "mean_error": "mean error",
        "chi2_red": "χ²/dof",
        "within_3sigma": "in 3 σ",
        "left_out_T_mae": "MAE, no T",
        "left_out_T_chi2_red": "χ²/dof, no T",
        "left_out_t_mae": "MAE, no t",
        "left_out_t_chi2_red": "χ²/dof, no t",
    }
    return csv_table(
        path,
        columns,
        section="Evaluation",
        title="Errors of the 2-D model [ADU/s]; no T, no t: with that temperature, exposure left out of the fit",
    )
