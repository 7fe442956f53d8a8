"""The model against every master, in-sample and with all masters of its temperature (or exposure) left out."""

import math
from functools import partial

import numpy as np

from flat_pipeline import left_out, models
from flat_pipeline.products import EVALUATION
from utils.fits_io.atomic import write_csv
from utils.fits_io.mapped import drop_pages, native
from utils.fits_io.naming import counted
from utils.fits_io.plane_writer import computed_planes
from utils.fits_io.products import write_product
from utils.fits_io.workers import in_workers
from utils.kernels import evaluation

SUMMARY = f"{EVALUATION}/evaluation_summary.csv"
METRICS = ("mae", "mape", "rmse", "mean_error", "chi2_red", "within_3sigma", "pixels", "excluded")
COLUMNS = (
    *("master", "filter", "temperature", "exposure", "frames"),
    *METRICS,
    *(f"left_out_{name}" for name in METRICS),
    "left_out_is",
)
MAPS = ("diff", "mae", "mape")


def run(config, context):
    """Evaluate the model.

    Reads: masters, flat_model_fits/.
    Writes: evaluation/evaluation_summary.{csv,png}; <master>_{diff,mae,mape}.png of the first and last master of a filter
    (all with --plots all, and where they are few and small); with --save-eval-fits these maps of all masters as FITS, and
    <master>_synthetic.fits.
    """
    record = context.record
    with record.step("evaluate") as step:
        filters = models.open_masters(record)
        refs = record.products("FLAT_A", made_by="--mode full or fit_model")
        refs = [ref for ref in record.products() if ref.prodtype.startswith("FLAT_")]
        rows, outer, tasks = [], [], []
        for masters in filters:
            model = models.FlatModel.load(refs, masters.filter, masters.shape, masters.paths[0])
            outer.append(left_out.judge(masters))
            rows += _evaluate(masters, model, outer[-1], config.shared.jobs)
            count = len(masters.paths)
            pictured = config.shared.pictured(count, masters.shape, (0, count - 1))
            for index in range(count):
                if config.save_eval_fits:
                    _write_maps(config, record, masters, model, index)
                if index in pictured and count > 1:  # the model of one master is that master
                    tasks.append(partial(_picture_maps, config, masters, model, index))
        path = record.claim(config.output_dir / SUMMARY)
        write_csv(path, rows, COLUMNS)
        record.add_product(path, "EVALUATION_SUMMARY")
        _report(record, rows, outer)
        if config.shared.plots != "none":
            from flat_pipeline.evaluation_pictures import draw, summary_figures

            draw(config, record, [*tasks, partial(summary_figures, config, rows)], filters[0].shape)
        step.summary = f"{counted(len(rows), 'master')}, mean MAE {_mean(rows, 'mae'):.3g}"


def _evaluate(masters, model, judged, jobs):
    """Rows of the masters of one filter."""
    n = len(masters.paths)
    inside = [evaluation.Comparison() for _ in range(n)]

    def work(rows):
        values, sigmas, dqs = masters.block(rows)
        synthetic_at, found = model.of_rows(rows), []
        for index in range(n):
            synthetic, error = synthetic_at(masters.temperature[index], masters.exposure[index])
            # The residual of a datum of the fit scatters less than the datum, by the variance of the fit.
            variance = np.square(sigmas[index])
            least = np.float32(1e-4) * variance
            variance -= np.square(error)
            known = models.speaking(dqs[index]) & (variance > least)
            residual = values[index] - synthetic
            own = evaluation.Comparison()
            own.add(values[index][known], residual[known], np.sqrt(variance[known]))
            found.append(own)
        return found

    # Added in the order of the rows: sums do not depend on the number of workers.
    for found in in_workers(lambda: work, masters.row_blocks(), jobs):
        for index, own in enumerate(found):
            inside[index].merge(own)
    return [_row(masters, index, inside[index], judged) for index in range(n)]


def _row(masters, index, inside, judged):
    head = masters.headers[index]
    row = {
        "master": masters.paths[index].stem,
        "filter": masters.filter,
        "temperature": round(float(head["TEMP"]), 4) + 0.0,
        "exposure": float(head["EXPTIME"]),
        "frames": int(head["NCOMBINE"]),
    }
    metrics = inside.metrics()
    if not inside.pixels:
        metrics["mae"] = 0.0 if len(masters.paths) == 1 else metrics["mae"]
    row |= {name: metrics[name] for name in METRICS}
    outside = judged.compared.get(index, evaluation.Comparison())
    row |= {f"left_out_{name}": value for name, value in outside.metrics().items() if name in METRICS}
    row["left_out_is"] = "not possible"
    if outside.pixels:
        row["left_out_is"] = "extrapolation" if index in judged.outside else "interpolation"
    return row


def _planes(masters, model, index):
    """Maps of one master against the model, computed piece after piece."""
    head = masters.headers[index]
    kinds = dict.fromkeys((*MAPS, "synthetic", "error"), np.float32)
    nx = masters.shape[1]

    def piece(part):
        # Whole rows around the pixels: that is how model and masters are read.
        top = part.start // nx
        rows = slice(top, -(-part.stop // nx))
        own = slice(part.start - top * nx, part.stop - top * nx)
        real, sigma = (
            plane[rows].astype(np.float32) for plane in (masters.values[index], masters.sigmas[index])
        )
        synthetic, error = model.of_rows(rows)(head["TEMP"], head["EXPTIME"])
        difference = real - synthetic
        percent = evaluation.percentage_error(real, difference, np.hypot(sigma, error))
        maps = {
            "diff": difference,
            "mae": np.abs(difference),
            "mape": percent,
            "synthetic": synthetic,
            "error": error,
        }
        drop_pages(masters.values[index][rows], masters.sigmas[index][rows])
        return {name: one.reshape(-1)[own] for name, one in maps.items()}

    return computed_planes(masters.shape, kinds, piece)


def _write_maps(config, record, masters, model, index):
    """Maps of one master, and the model at its place, as FITS."""
    head, planes = masters.headers[index], _planes(masters, model, index)
    cards = {key: head[key] for key in _FROM_MASTER if key in head}
    cards |= {"MODEL": (models.EQUATION, "what the master is compared with")}
    cards |= {"EXTRAP": (model.extrapolates(head["TEMP"], head["EXPTIME"]), "outside the fitted range")}
    inputs = [{"file": masters.paths[index].name, "datasum": head.get("DATASUM")}]
    for kind, unit in (("diff", ""), ("mae", ""), ("mape", "percent"), ("synthetic", "")):
        path = record.claim(config.output_dir / EVALUATION / f"{masters.paths[index].stem}_{kind}.fits")
        write_product(
            path,
            planes[kind],
            prodtype=f"EVALUATION_{kind.upper()}",
            unit=unit,
            cards=cards,
            uncert=planes["error"] if kind == "synthetic" else None,
            dq=native(masters.dqs[index]),
            inputs=inputs,
            jobs=config.shared.jobs,
        )
        record.add_product(path, f"EVALUATION_{kind.upper()}")


def _picture_maps(config, masters, model, index):
    """Figures of the maps of one master."""
    from flat_pipeline.evaluation_pictures import map_figures

    folder, name = config.output_dir / EVALUATION, masters.paths[index].stem
    yield from map_figures(folder, name, masters.headers[index], _planes(masters, model, index))


_FROM_MASTER = (
    *("CAMERA", "INSTRUME", "GAIN", "FILTER", "CALTYPE", "NCOMBINE", "TEMP", "TEMPSTD", "TEMPMIN", "TEMPMAX"),
    *("EXPTIME", "ADUSCALE", "EGAIN", "SATURATE", "VIGNCORR", "DATE-BEG", "DATE-AVG", "DATE-END"),
)


def _report(record, rows, outer):
    section = "Evaluation"
    for key, name, unit in (
        ("mae", "MAE, in-sample", ""),
        ("mape", "MAPE, in-sample", "percent"),
        ("mean_error", "mean signed error, in-sample", ""),
        ("chi2_red", "reduced chi2, in-sample", ""),
        ("left_out_mae", "MAE, masters of its temperature left out", ""),
        ("left_out_chi2_red", "reduced chi2, masters of its temperature left out", ""),
    ):
        value = _mean(rows, key)
        if math.isfinite(value):
            record.value(name, value, unit, section=section)
    for what in left_out.AXES:
        record.value(f"extrapolation to other {what}", left_out.verdict(what, outer), section=section)


def _mean(rows, name):
    values = [row[name] for row in rows if row[name] is not None and math.isfinite(row[name])]
    return sum(values) / len(values) if values else math.nan
