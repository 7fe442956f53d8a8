"""Pictures of masters, read noise and model, from what run.json lists, and of the evaluation."""

import csv
from functools import partial

import numpy as np

from bias_pipeline import figures
from bias_pipeline.captions import CAPTIONS
from utils.application.figure_style import BlockMeans, map_limits
from utils.application.pictures import draw
from utils.domain.bias_fit import open_masters
from utils.fits_io.mapped import drop_pages
from utils.fits_io.naming import label, unique_names
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ

FIGURES = "figures"
MASTERS, MODEL, EVALUATION = "Master biases", "Bias model", "Evaluation"
"""Sections of the report."""
SLOPES = 200_000
"""Pixels, evenly spaced, among whose slopes a low, a middle and a high one are chosen."""


def draw_all(config, record, frames):
    """Draw what the products allow.  frames : CSV file with level and noise of every frame."""
    folder, listed = config.output_dir / FIGURES, {}
    for product in record.products():
        listed.setdefault(product.prodtype, []).append(product)
    if "MASTER_BIAS" not in listed:
        return
    masters = open_masters([product.path for product in listed["MASTER_BIAS"]])
    # Masters of one sensor look alike; what differs with temperature is in the model's pictures.
    count = len(masters.paths)
    shown = range(count) if config.shared.plots == "all" else [count // 2]
    tasks = [partial(_master, folder, masters, index) for index in shown]
    tasks += [partial(_read_noise, folder, listed.get("READ_NOISE", [])), partial(_stability, folder, frames)]
    kinds = ("BIAS_A", "BIAS_B", "BIAS_COVARIANCE")
    if listed.keys() >= set(kinds):
        header, a = view_planes(listed["BIAS_A"][-1].path)
        b, covariance = (view_planes(listed[kind][-1].path)[1] for kind in kinds[1:])
        tasks.append(partial(_intercept, folder, a["PRIMARY"]))
        if not header.get("BFIXED"):
            tasks += [
                partial(_slope, folder, b["PRIMARY"]),
                partial(_chi2, folder, covariance["NUSED"], covariance["CHI2_RED"]),
                partial(_pixel_fits, folder, masters, a, b["PRIMARY"]),
                partial(_levels, folder, masters),
            ]
    draw(config.shared, record, CAPTIONS, tasks, masters.shape)


def _master(folder, masters, index):
    name = unique_names([label(t, 1) for t in masters.temperatures])[index]
    image, frames = masters.values[index], masters.headers[index]["NCOMBINE"]
    figure = figures.master_map(image, masters.temperatures[index], frames)
    yield folder / f"master_bias_{name}C.png", figure, "master_map", MASTERS
    drop_pages(image)


def _read_noise(folder, products):
    """Map of the pooled read noise, and that of each group against temperature."""
    noise = {product.path.name: product for product in products}
    if "read_noise.fits" in noise:
        image = view_planes(noise.pop("read_noise.fits").path)[1]["PRIMARY"]
        yield folder / "read_noise.png", figures.read_noise_map(image), "read_noise_map", MASTERS
        drop_pages(image)
    if len(noise) > 1:
        at, values = ([product.facts[key] for product in noise.values()] for key in ("temperature", "median"))
        figure, name = figures.read_noise_against_temperature(at, values), "read_noise_against_temperature"
        yield folder / f"{name}.png", figure, name, MASTERS


def _stability(folder, path):
    groups = _frame_levels(path)
    if groups:
        figure, name = figures.level_against_frame(groups), "level_against_frame"
        yield folder / f"{name}.png", figure, name, MASTERS


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


def _intercept(folder, a):
    yield folder / "a_map.png", figures.intercept_map(a), "intercept_map", MODEL
    drop_pages(a)


def _slope(folder, b):
    yield folder / "b_map.png", figures.slope_map(b), "slope_map", MODEL
    drop_pages(b)


def _chi2(folder, used, chi2):
    if used.max() > 2:
        yield folder / "chi2_map.png", figures.chi2_map(chi2, used - 2), "chi2_map", MODEL
    drop_pages(used, chi2)


def _pixel_fits(folder, masters, a, b):
    pixels = _example_pixels(a["DQ"], b)
    drop_pages(a["DQ"], b)
    at = tuple(np.array(pixels).T)
    values = np.array([plane[at] for plane in masters.values]) - masters.shifts[:, None]
    sigmas = np.array([plane[at] for plane in masters.sigmas])
    figure = figures.pixel_fits(masters.temperatures, values, sigmas, a["PRIMARY"][at], b[at], pixels)
    yield folder / "pixel_fits.png", figure, "pixel_fits", MODEL


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


def _levels(folder, masters):
    levels, errors = (np.array([head[key] for head in masters.headers]) for key in ("LEVEL", "LEVELERR"))
    levels = levels - masters.shifts
    model = np.polyval(np.polyfit(masters.temperatures, levels, 1), masters.temperatures)
    figure = figures.level_against_temperature(masters.temperatures, levels, errors, model)
    yield folder / "level_against_temperature.png", figure, "level_against_temperature", MODEL


def evaluation_maps(folder, masters, index, name, compared):
    """Master, model and their difference at one temperature, as `draw` takes them.

    name : of the temperature in file names.  compared : function of a slice of rows -> maps of these by kind.
    """
    means = {kind: BlockMeans(masters.shape) for kind in ("real_bias", "synthetic_bias", "mae", "mape")}
    for rows in means["mae"].strips():
        for kind, strip in compared(rows).items():
            means[kind].add(strip)
        drop_pages(masters.values[index][rows], masters.sigmas[index][rows])
    maps = {kind: one.small() for kind, one in means.items()}
    temperature, limits = masters.temperatures[index], map_limits(maps["real_bias"])
    drawn = {
        "real_bias": figures.real_bias_map(maps["real_bias"], temperature, limits),
        "synthetic_bias": figures.synthetic_bias_map(maps["synthetic_bias"], temperature, limits),
        "mae": figures.mae_map(maps["mae"], temperature),
        "mape": figures.mape_map(maps["mape"], temperature),
    }
    for kind, figure in drawn.items():
        yield folder / f"{kind}_{name}C.png", figure, kind, EVALUATION


def evaluation_summary(folder, rows):
    """Errors of all temperatures: rows of the table."""

    def series(prefix):
        keys = {"mae": "mae", "rmse": "rmse", "bias": "mean_error", "chi2": "chi2_red"}
        return {key: [row[prefix + column] for row in rows] for key, column in keys.items()}

    temperatures = [row["temperature"] for row in rows]
    figure = figures.evaluation_summary(temperatures, series(""), series("left_out_"))
    yield folder / "evaluation_summary.png", figure, "evaluation_summary", EVALUATION


def evaluation_pulls(folder, pulls):
    """Histogram of the pulls of masters left out."""
    yield folder / "pulls.png", figures.pulls(pulls), "pulls", EVALUATION
