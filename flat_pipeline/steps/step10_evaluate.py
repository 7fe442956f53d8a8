"""The model against every master, in-sample and with all masters of its temperature (or exposure) left out."""

import math
from functools import partial

import numpy as np

from flat_pipeline import left_out, models
from flat_pipeline.captions import CAPTIONS
from flat_pipeline.products import EVALUATION
from utils.application.pictures import draw
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
SHARE, BLOCK = 1 << 16, 1 << 16
"""Pixels that a worker takes at a time, and those that are compared at a time, of all masters together."""


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
        pairs = [(masters, models.FlatModel.load(refs, masters)) for masters in filters]
        compared = _compare(pairs, config.shared.jobs)
        rows, outer, tasks = [], [], []
        for (masters, model), (inside, judged) in zip(pairs, compared, strict=True):
            outer.append(judged)
            count = len(masters.paths)
            rows += [_row(masters, index, inside[index], judged) for index in range(count)]
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
            from flat_pipeline.evaluation_pictures import summary_figures

            tasks.append(partial(summary_figures, config, rows))
            draw(config.shared, record, CAPTIONS, tasks, filters[0].shape)
        step.summary = f"{counted(len(rows), 'master')}, mean MAE {_mean(rows, 'mae'):.3g}"


def _compare(pairs, jobs):
    """Compare masters and models, of all filters, in workers.

    pairs : list of (`Masters`, `FlatModel`).  Returns for each a list of the `Comparison` of every master, in-sample, and
    what fits without some of them tell (`left_out.Judged`).
    """
    # The longest first.
    parts = [(number, None) for number in range(len(pairs))]
    for number, (masters, _) in enumerate(pairs):
        size = math.prod(masters.shape)
        parts += [(number, slice(first, min(first + SHARE, size))) for first in range(0, size, SHARE)]

    def work(part):
        masters, model = pairs[part[0]]
        return left_out.judge(masters) if part[1] is None else _inside(masters, model, part[1])

    found = in_workers(lambda: work, parts, jobs)
    sums = [0.0] * len(pairs)
    # Added in the order of the pixels: sums do not depend on the number of workers.
    for (number, _), own in zip(parts[len(pairs) :], found[len(pairs) :], strict=True):
        sums[number] = sums[number] + own
    return [
        (evaluation.comparisons(own), judged) for own, judged in zip(sums, found[: len(pairs)], strict=True)
    ]


def _inside(masters, model, part):
    """Sums over some flat pixels of every master compared with the model that they made (`evaluation.comparisons`)."""
    sums = 0.0
    for one in _blocks(part, len(masters.paths)):
        values, sigmas, dqs = masters.block(one)
        synthetic, of_fit = model.side_by_side(one, masters.temperature, masters.exposure)
        # The residual of a datum of the fit scatters less than the datum, by the variance of the fit.
        sigmas *= sigmas
        variance = sigmas - of_fit.astype(np.float32)
        sigmas *= np.float32(1e-4)
        known = models.speaking(dqs)
        known &= variance > sigmas
        np.subtract(values, synthetic, out=synthetic)
        sums = sums + evaluation.sums_side_by_side(values, synthetic, variance, known)
    masters.drop(part)
    model.drop(part)
    return sums


def _blocks(part, count):
    """Slices of some flat pixels, of which maps of ``count`` masters stay in a processor's cache."""
    size = min(max(BLOCK // count, 1 << 10), 1 << 14)
    for first in range(part.start, part.stop, size):
        yield slice(first, min(first + size, part.stop))


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
    kinds = dict.fromkeys((*MAPS, "synthetic", "error"), np.float32)
    values, sigmas = (planes[index].reshape(-1) for planes in (masters.values, masters.sigmas))
    at = masters.temperature[[index]], masters.exposure[[index]]

    def piece(part):
        maps = {name: np.empty(part.stop - part.start, kind) for name, kind in kinds.items()}
        for one in _blocks(part, 1):
            real, sigma = values[one].astype(np.float32), sigmas[one].astype(np.float32)
            synthetic, variance = (plane[0] for plane in model.side_by_side(one, *at))
            difference, error = real - synthetic, np.sqrt(variance).astype(np.float32)
            percent = evaluation.percentage_error(real, difference, np.hypot(sigma, error))
            own = slice(one.start - part.start, one.stop - part.start)
            for name, plane in zip(
                kinds, (difference, np.abs(difference), percent, synthetic, error), strict=True
            ):
                maps[name][own] = plane
        drop_pages(values[part], sigmas[part])
        model.drop(part)
        return maps

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
