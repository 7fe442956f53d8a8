"""Pictures of all products of the output folder, and the report of the run."""

import csv

import numpy as np

from bias_pipeline.captions import CAPTIONS, KINDS
from bias_pipeline.steps.step2_make_masters import FRAMES
from utils.application.report import context_of, csv_table, write_report
from utils.application.run_record import REPORT
from utils.domain.bias_fit import open_masters
from utils.fits_io.atomic import write_bytes
from utils.fits_io.mapped import drop_pages
from utils.fits_io.naming import label, unique_names
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ

FIGURES = "figures"
SLOPES = 200_000
"""Pixels, evenly spaced, among whose slopes a low, a middle and a high one are chosen."""
KEY_NUMBERS = (
    "read noise (median pixel)",
    "a (median pixel)",
    "b (median pixel)",
    "reduced chi2 (mean of good pixels)",
    "RMSE, in-sample",
    "RMSE, temperature left out",
    "extrapolation beyond the fitted range",
)
SECTIONS = (
    (
        "Master biases",
        "Combined frames, one per temperature; the noise of single frames and how steady they are.",
    ),
    ("Bias model", "bias(T) = a + b T for every pixel, with the errors that the masters' scatter allows."),
    (
        "Evaluation",
        "The model against the masters it was fitted to, and against masters left out of the fit.",
    ),
)


def run(config, context):
    """Draw the pictures and write the report.

    Reads: what run.json lists. Writes: figures/*.png, report.html.
    """
    record = context.record
    with record.step("report") as step:
        if config.shared.plots != "none":
            kinds = {product.prodtype for product in record.products()}
            if "MASTER_BIAS" in kinds:
                _draw_masters(config, record)
            if {"BIAS_A", "BIAS_B", "BIAS_COVARIANCE", "MASTER_BIAS"} <= kinds:
                _draw_model(config, record)
        path = record.claim(config.output_dir / REPORT)
        context = context_of(
            record,
            title="Bias calibration",
            program="bias_pipeline/run_pipeline.py",
            sections=SECTIONS,
            tables=_tables(config),
            kinds=KINDS,
        )
        context["values"] = [*context["values"], *_key_numbers(record.values)]
        write_report(path, context)
        record.add_product(path, "REPORT")
        step.summary = str(path)


def _key_numbers(values):
    """Return the numbers that stand on top of the report, too."""
    return [{**value, "section": ""} for value in values if value["name"] in KEY_NUMBERS]


def _plot(config, record, name, figure, caption, section):
    from utils.application.figure_style import png_bytes

    path = record.claim(config.output_dir / FIGURES / f"{name}.png")
    write_bytes(path, [png_bytes(figure)])
    record.add_figure(path, caption, section=section)


def _draw_masters(config, record):
    from bias_pipeline import figures

    section = SECTIONS[0][0]
    masters = open_masters([product.path for product in record.products("MASTER_BIAS")])
    names = unique_names([label(t, 1) for t in masters.temperatures])
    # Masters of one sensor look alike; what differs with temperature is in the model's pictures.
    count = len(masters.paths)
    for index in range(count) if config.shared.plots == "all" else [count // 2]:
        figure = figures.master_map(
            masters.values[index], masters.temperatures[index], masters.headers[index]["NCOMBINE"]
        )
        drop_pages(masters.values[index])
        _plot(config, record, f"master_bias_{names[index]}C", figure, CAPTIONS["master_map"], section)
    noise = {product.path.name: product for product in record.products("READ_NOISE")}
    if "read_noise.fits" in noise:
        _, planes = view_planes(noise.pop("read_noise.fits").path)
        figure = figures.read_noise_map(planes["PRIMARY"])
        drop_pages(planes["PRIMARY"])
        _plot(config, record, "read_noise", figure, CAPTIONS["read_noise_map"], section)
    if len(noise) > 1:
        at = [product.facts["temperature"] for product in noise.values()]
        figure = figures.read_noise_against_temperature(
            at, [product.facts["median"] for product in noise.values()]
        )
        caption = CAPTIONS["read_noise_against_temperature"]
        _plot(config, record, "read_noise_against_temperature", figure, caption, section)
    groups = _frame_levels(config.output_dir / FRAMES)
    if groups:
        figure = figures.level_against_frame(groups)
        _plot(config, record, "level_against_frame", figure, CAPTIONS["level_against_frame"], section)


def _frame_levels(path):
    """Levels and noise of the frames by group, in order of time, from the table of step 2."""
    if not path.is_file():
        return []
    groups = {}
    with open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            groups.setdefault(row["master"], []).append(row)
    found = []
    for rows in groups.values():
        temperature, level, noise = (
            np.array([float(row[key] or "nan") for row in rows]) for key in ("temperature", "level", "noise")
        )
        found.append((float(temperature.mean()), np.arange(1, len(rows) + 1), level, noise))
    return found


def _draw_model(config, record):
    from bias_pipeline import figures

    section = SECTIONS[1][0]
    paths = {
        product.prodtype: product.path
        for product in record.products()
        if product.prodtype.startswith("BIAS_")
    }
    maps = {kind: view_planes(paths[kind])[1] for kind in ("BIAS_A", "BIAS_B", "BIAS_COVARIANCE")}
    header = view_planes(paths["BIAS_A"])[0]
    a, b = (maps[kind]["PRIMARY"] for kind in ("BIAS_A", "BIAS_B"))
    _plot(config, record, "a_map", figures.intercept_map(a), CAPTIONS["intercept_map"], section)
    drop_pages(a)
    if header.get("BFIXED"):
        return
    _plot(config, record, "b_map", figures.slope_map(b), CAPTIONS["slope_map"], section)
    masters = open_masters([product.path for product in record.products("MASTER_BIAS")])
    used, chi2 = (maps["BIAS_COVARIANCE"][name] for name in ("NUSED", "CHI2_RED"))
    if used.max() > 2:
        _plot(config, record, "chi2_map", figures.chi2_map(chi2, used - 2), CAPTIONS["chi2_map"], section)
        drop_pages(used, chi2)
    pixels = _example_pixels(maps["BIAS_A"]["DQ"], b)
    drop_pages(maps["BIAS_A"]["DQ"], b)
    at = tuple(np.array(pixels).T)
    values = np.array([plane[at] for plane in masters.values]) - masters.shifts[:, None]
    sigmas = np.array([plane[at] for plane in masters.sigmas])
    figure = figures.pixel_fits(masters.temperatures, values, sigmas, a[at], b[at], pixels)
    _plot(config, record, "pixel_fits", figure, CAPTIONS["pixel_fits"], section)
    levels = np.array([header["LEVEL"] for header in masters.headers])
    errors = np.array([header["LEVELERR"] for header in masters.headers])
    line = np.polyfit(masters.temperatures, levels - masters.shifts, 1)
    model = np.polyval(line, masters.temperatures)
    levels = levels - masters.shifts
    figure = figures.level_against_temperature(masters.temperatures, levels, errors, model)
    caption = CAPTIONS["level_against_temperature"]
    _plot(config, record, "level_against_temperature", figure, caption, section)


def _example_pixels(dq, b):
    """Four pixels for the picture of fits: of low, middle and high slope, and one that a line does not describe."""
    shape, dq, b = dq.shape, dq.reshape(-1), b.reshape(-1)
    some = np.arange(0, dq.size, dq.size // SLOPES | 1)
    good = some[(dq[some] == 0) & np.isfinite(b[some])]
    if good.size == 0:
        good = some
    order = good[np.argsort(b[good], kind="stable")]
    chosen = [order[int(f * (order.size - 1))] for f in (0.05, 0.5, 0.95)]
    poor = np.flatnonzero((dq & DQ.UNRELIABLE_FIT) != 0)
    if poor.size:
        chosen.append(poor[poor.size // 2])
    return [tuple(int(k) for k in np.unravel_index(p, shape)) for p in dict.fromkeys(chosen)]


def _tables(config):
    """Table of the evaluation for the report."""
    path = config.output_dir / "evaluation" / "evaluation_summary.csv"
    columns = {
        "temperature": "T [°C]",
        "frames": "frames",
        "mae": "MAE [ADU]",
        "rmse": "RMSE [ADU]",
        "mean_error": "mean error [ADU]",
        "chi2_red": "reduced χ²",
        "within_3sigma": "within 3 σ",
        "left_out_rmse": "RMSE, left out [ADU]",
        "left_out_mean_error": "mean error, left out [ADU]",
        "left_out_chi2_red": "reduced χ², left out",
        "left_out_is": "left out is",
    }
    return csv_table(path, columns, section="Evaluation", title="Errors at each temperature")
