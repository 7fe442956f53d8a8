"""Compare the models with the maps: in-sample, and with each temperature and each exposure left out of the fit."""

import math

import numpy as np

from dark_pipeline import evaluation_pictures as pictures
from dark_pipeline.comparison import all_in_sample, bias_variance
from dark_pipeline.products import MODEL_1D, MODEL_2D, folders_of, open_dark_maps
from utils.domain.dark_maps import fit_all, offset_can_be_told, sampled, sensor_of
from utils.domain.dark_model import DarkModel
from utils.errors import InputError
from utils.fits_io.atomic import write_csv
from utils.fits_io.naming import counted
from utils.kernels import dark_law, evaluation
from utils.kernels import groups as grouping

SUMMARY_1D, SUMMARY_2D = "evaluation_model_1d_summary.csv", "evaluation_model_2d_summary.csv"
TRUSTED_CHI2 = 1.5
"""Extrapolation counts as trusted while the left-out ends stay below this reduced chi-square."""
_METRICS = ("rmse", "mean_error", "chi2_red", "within_3sigma", "pixels", "excluded")
HEAD = ("Temperature (°C)", "Exposure (s)", "MAE [ADU/s]", "MAPE [%]")
_LEFT = ("mae", "rmse", "mean_error", "chi2_red")
COLUMNS = (
    *HEAD,
    *_METRICS,
    *("dark_real", "dark_synthetic", "frames"),
    *(f"left_out_T_{name}" for name in _LEFT),
    "left_out_T_is",
    *(f"left_out_t_{name}" for name in _LEFT),
    "left_out_t_is",
)


def run_1d(config, context):
    """Evaluate the 1-D models.

    Reads: dark-current maps, dark_model/exp_*/.
    Writes: evaluation_model_1d_summary.csv; exp_*/dark_current_vs_temperature.png,
    exp_*/model_evaluation_masks_{all,mape_less_100,mape_100_200,mape_over_200}.png.
    """
    record = context.record
    with record.step("evaluate_1d") as step:
        if record.mode == "full" and not any(ref.prodtype == "DARK_A" for ref in record.products()):
            step.summary = "no 1-D model"
            return
        have = {ref.path.parent for ref in record.products("DARK_A", made_by="--mode full")}
        maps, _, _ = open_dark_maps(config, record)
        folders = folders_of(maps.exposure)
        rows, made = [], []
        for member in maps.by_exposure():
            name = folders[member[0]]
            folder = config.output_dir / MODEL_1D / name
            if folder not in have:
                continue
            some = maps.subset(np.sort(member))
            model = _matching(DarkModel.load(folder), some)
            rows += _rows(some, all_in_sample(some, model, two=False, jobs=config.shared.jobs))
            made.append((name, some, model))
        path = record.claim(config.output_dir / SUMMARY_1D)
        write_csv(path, rows, (*HEAD, *_METRICS, "dark_real", "dark_synthetic", "frames"))
        record.add_product(path, "EVALUATION_SUMMARY")
        _report(record, rows, "evaluation, 1-D")
        if config.shared.plots != "none":
            pictures.draw_1d(config, record, made)
        step.summary = f"{counted(len(rows), 'map')}, mean MAE {_mean(rows, HEAD[2]):.3g} ADU/s"


def run_2d(config, context):
    """Evaluate the 2-D model.

    Reads: dark-current maps, dark_model_2d/.
    Writes: evaluation_model_2d_summary.csv, heatmap_{mae,mape,dark_real,dark_synthetic}_2d.png,
    plots_2d_comparison/{scatter,line_compare}_T*_E*.png.
    """
    record = context.record
    with record.step("evaluate_2d") as step:
        if record.mode == "full" and not any(ref.prodtype == "DARK_A_2D" for ref in record.products()):
            step.summary = "no 2-D model"
            return
        record.products("DARK_A_2D", made_by="--mode full or fit_2d_model")
        maps, bright, _ = open_dark_maps(config, record)
        model = _matching(DarkModel.load(config.output_dir / MODEL_2D), maps)
        rows = _rows(maps, all_in_sample(maps, model, two=True, jobs=config.shared.jobs))
        temperatures = grouping.group_by_gap(maps.temperature, float(maps.headers[0].get("TTOL", 0.5)))
        law = _law(maps, bright)
        _leave_out(maps, bright, law, temperatures, rows, "T", maps.temperature)
        _leave_out(maps, bright, law, maps.by_exposure(), rows, "t", maps.exposure)
        path = record.claim(config.output_dir / SUMMARY_2D)
        write_csv(path, rows, COLUMNS)
        record.add_product(path, "EVALUATION_SUMMARY")
        _report(record, rows, "evaluation, 2-D")
        _verdict(record, rows)
        if config.shared.plots != "none":
            pictures.draw_2d(config, record, maps, model, rows)
        step.summary = f"{counted(len(rows), 'map')}, mean MAE {_mean(rows, HEAD[2]):.3g} ADU/s"


def _matching(model, maps):
    if model.shape != maps.shape:
        raise InputError(
            f"{model.paths[0]}: shape {model.shape}, expected {maps.shape} as in {maps.paths[0]}"
        )
    return model


def _rows(maps, found):
    """Rows of the table from the metrics of the maps."""
    rows = []
    for index, metrics in enumerate(found):
        row = {HEAD[0]: float(maps.temperature[index]), HEAD[1]: float(maps.exposure[index])}
        row |= {HEAD[2]: metrics["mae"], HEAD[3]: metrics["mape"]}
        row |= {name: metrics[name] for name in (*_METRICS, "dark_real", "dark_synthetic")}
        rows.append(row | {"frames": int(maps.headers[index]["NCOMBINE"])})
    return rows


def _law(maps, bright, known=None):
    """What the pixels share, by the exposures and temperatures of these maps."""
    several = bool(np.ptp(np.log(maps.exposure)) > 0.05)
    free = maps.bias is not None and several and offset_can_be_told(maps)
    return sensor_of(maps, bright, gamma_free=several, offset_free=free, thorough=False, known=known)


def _leave_out(maps, bright, whole, members, rows, letter, values):
    """Refit without each temperature (or exposure) and add the errors of its prediction to the rows.

    whole : law of all maps; the places of glow that it brings are not looked for again.
    """
    where = sampled(maps, bright, 4)
    for row in rows:
        row[f"left_out_{letter}_is"] = "not possible"
        row |= {f"left_out_{letter}_{name}": math.nan for name in _LEFT}
    if len(members) < 3:
        return
    ends = (float(values.min()), float(values.max()))
    for member in members:
        rest = maps.subset(np.setdiff1d(np.arange(len(maps.paths)), member))
        if np.ptp(rest.temperature) < 1.0:
            continue
        law = _law(rest, bright, whole)
        t_min = float(rest.temperature.min())
        fit = fit_all(rest, law, bright, t_min, where=where)
        mine = maps.subset(np.sort(member))
        signal, read = mine.signal(where), mine.noise(where)
        extreme = bool(np.any(np.isin(values[member], ends)))
        for place, index in enumerate(np.sort(member)):
            t, e = float(mine.temperature[place]), float(mine.exposure[place])
            predicted, sigma = dark_law.rate(fit.params, fit.cov.astype(np.float64), t - t_min, e)
            known = np.flatnonzero(np.unique(rest.session) == mine.session[place])
            offset = law.offset[known[0]] if known.size else np.mean(law.offset)
            real = (signal[place] - float(offset)) / e
            variance = (read + mine.inverse_gain * np.maximum(predicted * e, 0.0)) / mine.frames[place]
            variance = variance + bias_variance(mine, place, where) + law.design.common_variance.max()
            one = evaluation.Comparison()
            one.add(real, real - predicted, np.sqrt(variance / e**2 + sigma**2))
            metrics = one.metrics()
            rows[index] |= {f"left_out_{letter}_{name}": metrics[name] for name in _LEFT}
            rows[index][f"left_out_{letter}_is"] = "extrapolation" if extreme else "interpolation"


def _report(record, rows, section):
    for key, name, unit in (
        (HEAD[2], "MAE, in-sample", "adu/s"),
        (HEAD[3], "MAPE, in-sample", "percent"),
        ("mean_error", "mean signed error, in-sample", "adu/s"),
        ("chi2_red", "reduced chi2, in-sample", ""),
    ):
        record.value(name, _mean(rows, key), unit, section=section)


def _verdict(record, rows):
    """Say whether extrapolation can be trusted, in temperature and in exposure."""
    for letter, what in (("T", "temperatures"), ("t", "exposures")):
        ends = [
            row[f"left_out_{letter}_chi2_red"]
            for row in rows
            if row[f"left_out_{letter}_is"] == "extrapolation"
        ]
        if not ends:
            verdict = f"cannot be judged: fewer than three {what}"
        elif np.nanmedian(ends) <= TRUSTED_CHI2:
            verdict = f"trusted: the outer {what} are predicted within their errors when left out"
        else:
            verdict = f"not trusted: the outer {what} are missed by more than their errors when left out"
        record.value(f"extrapolation to other {what}", verdict, section="evaluation, 2-D")
        mean = _mean(rows, f"left_out_{letter}_mae")
        if math.isfinite(mean):
            record.value(f"MAE, {what} left out", mean, "adu/s", section="evaluation, 2-D")


def _mean(rows, name):
    values = [row[name] for row in rows if math.isfinite(row[name])]
    return sum(values) / len(values) if values else math.nan
