"""Compare the model with the masters: in-sample, and with each temperature left out of the fit."""

import math
from functools import partial

import numpy as np

from bias_pipeline.captions import CAPTIONS
from bias_pipeline.steps.step3_fit_model import recorded_masters, recorded_model
from utils.application.pictures import draw
from utils.domain.bias_model import EQUATION, unusable
from utils.domain.pixel_mask import read_pixel_mask
from utils.errors import InputError
from utils.fits_io.atomic import write_csv
from utils.fits_io.mapped import drop_pages
from utils.fits_io.naming import counted, label, unique_names
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ, write_product
from utils.kernels import evaluation, linear_fit

EVALUATION = "evaluation"
PULLS = 1 << 20
"""Residuals, of evenly spaced pixels, in the histogram against the expected noise."""
TRUSTED_CHI2 = 1.5
"""Extrapolation counts as trusted while the left-out end temperatures stay below this reduced chi-square."""
FROM_MASTER = (
    *("INSTRUME", "GAIN", "XBINNING", "YBINNING", "CALTYPE", "NCOMBINE", "EXPTIME", "ADUSCALE", "EGAIN"),
    *("SATURATE", "TEMP", "TEMPSTD", "TEMPMIN", "TEMPMAX", "DATE-BEG", "DATE-AVG", "DATE-END"),
)
_METRICS = ("mae", "mape", "rmse", "mean_error", "chi2_red", "within_3sigma", "pixels", "excluded")
COLUMNS = ("temperature", "frames", *_METRICS, *(f"left_out_{name}" for name in _METRICS), "left_out_is")


def run(config, context):
    """Evaluate the model.

    Reads: the master biases and the maps of the model named in run.json.
    Writes: evaluation/evaluation_summary.csv and .png, pulls.png, maps {real_bias,synthetic_bias,mae,mape}_{T}C.png of the
    coldest and warmest temperature (all with --plots all), the same as FITS with --save-eval-fits.
    """
    record = context.record
    with record.step("evaluate") as step:
        masters = recorded_masters(record)
        model, _, maps = recorded_model(record)
        _check_pair(model, maps[0], masters)
        ignored = unusable(model.dq) | ((model.dq & DQ.HOT) != 0)
        if config.hot_pixel_mask:
            ignored |= read_pixel_mask(config.hot_pixel_mask, masters.shape)
        found = _Part(len(masters.paths))
        for part in masters.parts(lambda some: _compare(masters, model, ignored, some), config.shared.jobs):
            found.merge(part)
        rows = _table(masters, found)
        folder = config.output_dir / EVALUATION
        path = record.claim(folder / "evaluation_summary.csv")
        write_csv(path, rows, COLUMNS)
        record.add_product(path, "EVALUATION_SUMMARY")
        _report(record, rows)
        names = unique_names([label(t, 1) for t in masters.temperatures])
        if config.save_eval_fits:
            for index, name in enumerate(names):
                _write_fits(config, record, masters, model, maps, index, name)
        if config.shared.plots != "none":
            _draw(config, record, masters, model, names, rows, found.pulls)
        step.summary = counted(len(rows), "temperature")
        if _can_be_judged(rows):
            inside, left_out = _mean(rows, "rmse"), _mean(rows, "left_out_rmse")
            step.summary += f", RMSE {inside:.3g} ADU in-sample, {left_out:.3g} ADU left out"
        else:
            step.summary += ": too few to judge the model, which passes through them"


def _check_pair(model, path, masters):
    """Refuse a model of another shape, ADU scale or gain than the masters."""
    if model.a.shape != masters.shape:
        raise InputError(f"{path}: shape {model.a.shape}, expected {masters.shape} as {masters.paths[0]}")
    for key in ("ADUSCALE", "GAIN"):
        got, expected = model.header.get(key), masters.headers[0].get(key)
        if got != expected:
            raise InputError(f"{path}: {key} {got}, expected {expected} as {masters.paths[0]}")


class _Part:
    """Comparison of some rows with the model: in-sample, and with a fit without the master.

    pulls : (prediction - master) / sigma of the latter, of a regular sample of pixels.
    """

    def __init__(self, count):
        self.inside = [evaluation.Comparison() for _ in range(count)]
        self.left_out = [evaluation.Comparison() for _ in range(count)]
        self.pulls = []

    def merge(self, other):
        """Add another part."""
        for mine, others in ((self.inside, other.inside), (self.left_out, other.left_out)):
            for one, its in zip(mine, others, strict=True):
                one.merge(its)
        self.pulls += other.pulls


def _compare(masters, model, ignored, some):
    """Compare masters and model in some rows; returns a `_Part`."""
    count, temperatures = len(masters.paths), masters.temperatures
    found, enough = _Part(count), np.unique(temperatures).size > 2
    thin = masters.shape[0] * masters.shape[1] * count // PULLS | 1
    for rows, values, variances in masters.blocks(some):
        if ignored[rows].any():
            values[:, ignored[rows].ravel()] = np.nan
        a, b, var_a, var_b, cov = (
            plane[rows].ravel().astype(np.float64)
            for plane in (model.a, model.b, model.var_a, model.var_b, model.cov_ab)
        )
        drop_pages(model.a[rows], model.b[rows], model.cov_ab[rows])
        for index, temperature in enumerate(temperatures):
            fitted = var_a if model.fixed_slope else var_a + 2 * temperature * cov + temperature**2 * var_b
            # A residual of the fit's own data scatters less than the datum, by the variance of the fit.
            own = np.sqrt(np.maximum(variances[index] - fitted, 1e-3 * variances[index]))
            found.inside[index].add(values[index], values[index] - a - b * temperature, own)
        if not enough:
            continue
        residual, predicted = linear_fit.left_out_residuals(values, 1.0 / variances, temperatures)
        predicted += variances
        sigma = np.sqrt(predicted, out=predicted)
        for index in range(count):
            found.left_out[index].add(values[index], residual[index], sigma[index])
        found.pulls.append((-residual[:, ::thin] / sigma[:, ::thin]).astype(np.float32).ravel())
    return found


def _table(masters, found):
    """One row per master: in-sample metrics, and those of the prediction by a fit without it."""
    temperatures = masters.temperatures
    enough = np.unique(temperatures).size > 2
    ends = (temperatures.min(), temperatures.max())
    table = []
    for index, temperature in enumerate(temperatures):
        row = {"temperature": float(temperature), "frames": int(masters.headers[index]["NCOMBINE"])}
        row |= found.inside[index].metrics()
        row |= {f"left_out_{name}": value for name, value in found.left_out[index].metrics().items()}
        row["left_out_is"] = (
            ("extrapolation" if temperature in ends else "interpolation") if enough else "not possible"
        )
        table.append(row)
    return table


def _report(record, rows):
    """Numbers and the verdict on extrapolation."""
    section = "evaluation"
    shown = {"MAE": "mae", "RMSE": "rmse", "mean signed error": "mean_error", "reduced chi2": "chi2_red"}
    for name, column in shown.items() if _can_be_judged(rows) else ():
        unit = "" if column == "chi2_red" else "adu"
        left_out = _mean(rows, f"left_out_{column}")
        record.value(f"{name}, in-sample", _mean(rows, column), unit, section=section)
        record.value(f"{name}, temperature left out", left_out, unit, section=section)
    ends = [row for row in rows if row["left_out_is"] == "extrapolation"]
    if not ends:
        verdict = "cannot be judged: fewer than three temperatures"
    elif max(row["left_out_chi2_red"] for row in ends) <= TRUSTED_CHI2:
        verdict = "trusted: the end temperatures are predicted within their errors when left out"
    else:
        verdict = "not trusted: an end temperature is missed by more than its error when left out"
    record.value("extrapolation beyond the fitted range", verdict, section=section)


def _can_be_judged(rows):
    return math.isfinite(_mean(rows, "left_out_rmse"))


def _mean(rows, name):
    values = [row[name] for row in rows if math.isfinite(row[name])]
    return sum(values) / len(values) if values else math.nan


def _draw(config, record, masters, model, names, rows, pulls):
    """Pictures of single temperatures, of all, and of the pulls."""
    from bias_pipeline import pictures

    folder, count, tasks = config.output_dir / EVALUATION, len(names), []
    for index in config.shared.pictured(count, masters.shape, (0, count - 1)):
        compared = partial(_compared, masters, model, index)
        tasks.append(partial(pictures.evaluation_maps, folder, masters, index, names[index], compared))
    tasks.append(partial(pictures.evaluation_summary, folder, rows))
    if pulls:
        tasks.append(partial(pictures.evaluation_pulls, folder, np.concatenate(pulls)))
    draw(config.shared, record, CAPTIONS, tasks, masters.shape)


def _compared(masters, model, index, rows=slice(None)):
    """Master and model of one temperature side by side, of some rows or all: kind -> float32 map [ADU or per cent]."""
    real = masters.values[index][rows].astype(np.float32) - np.float32(masters.shifts[index])
    synthetic, uncert, _ = model.evaluate(masters.temperatures[index], rows)
    sigma = np.hypot(masters.sigmas[index][rows].astype(np.float32), uncert)
    return {
        "real_bias": real,
        "synthetic_bias": synthetic,
        "mae": np.abs(synthetic - real),
        "mape": evaluation.percentage_error(real, synthetic - real, sigma),
    }


def _write_fits(config, record, masters, model, maps, index, name):
    """Maps of one temperature as FITS."""
    for kind, image in _compared(masters, model, index).items():
        path = record.claim(config.output_dir / EVALUATION / f"{kind}_{name}C.fits")
        write_product(
            path,
            image,
            prodtype=f"EVALUATION_{kind.upper()}",
            unit="percent" if kind == "mape" else "adu",
            cards=_cards(masters.headers[index], model),
            dq=model.dq,
            inputs=_inputs(config, [masters.paths[index], *maps]),
        )
        record.add_product(path, f"EVALUATION_{kind.upper()}", temperature=float(masters.temperatures[index]))


def _cards(master, model):
    """Cards of one master that its evaluation shares, and the range of the model."""
    cards = {key: master[key] for key in FROM_MASTER if key in master}
    return cards | {
        "MODEL": (EQUATION, "what the master is compared with"),
        "T_MIN": (model.t_min, "[degC] lowest temperature fitted"),
        "T_MAX": (model.t_max, "[degC] highest temperature fitted"),
    }


def _inputs(config, paths):
    """Rows of the INPUTS table: products by their path from the output folder."""
    return [
        {
            "file": path.relative_to(config.output_dir).as_posix(),
            "datasum": view_planes(path)[0].get("DATASUM"),
        }
        for path in paths
    ]
