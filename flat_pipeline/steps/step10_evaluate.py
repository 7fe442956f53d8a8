"""The model against every master, in-sample and with that master left out."""

import math

import numpy as np

from flat_pipeline import models
from flat_pipeline.products import EVALUATION
from utils.fits_io.atomic import write_csv
from utils.fits_io.frame_sample import spread_rows
from utils.fits_io.mapped import drop_pages, native
from utils.fits_io.naming import counted
from utils.fits_io.plane_writer import computed_planes
from utils.fits_io.products import write_product
from utils.fits_io.workers import in_workers
from utils.kernels import evaluation, flat_model
from utils.kernels import groups as grouping

SUMMARY = f"{EVALUATION}/evaluation_summary.csv"
METRICS = ("mae", "mape", "rmse", "mean_error", "chi2_red", "within_3sigma", "pixels", "excluded")
COLUMNS = (
    *("master", "filter", "temperature", "exposure", "frames"),
    *METRICS,
    *(f"left_out_{name}" for name in METRICS),
    "left_out_is",
)
TRUSTED_CHI2 = 1.5
"""Extrapolation is trusted where the masters at the ends of the range, left out, have a reduced chi-square below this."""
OUTER_PIXELS = 1 << 16
"""Pixels that judge the extrapolation."""
MAPS = ("diff", "mae", "mape")


def run(config, context):
    """Evaluate the model.

    Reads: masters, flat_model_fits/.
    Writes: evaluation/evaluation_summary.{csv,png}; <master>_{diff,mae,mape}.png of the first and last master of a filter
    (all with --plots all); with --save-eval-fits these maps of all masters as FITS, and <master>_synthetic.fits.
    """
    record = context.record
    with record.step("evaluate") as step:
        filters = models.open_masters(record)
        refs = record.products("FLAT_A", made_by="--mode full or fit_model")
        refs = [ref for ref in record.products() if ref.prodtype.startswith("FLAT_")]
        rows, outer = [], {"temperatures": [], "exposures": []}
        for masters in filters:
            model = models.FlatModel.load(refs, masters.filter, masters.shape, masters.paths[0])
            rows += _evaluate(masters, model, config.shared.jobs)
            _outer(masters, outer)
            count = len(masters.paths)
            pictured = {"none": (), "summary": (0, count - 1), "all": range(count)}[config.shared.plots]
            for index in range(count):
                if config.save_eval_fits or index in pictured:
                    _maps(config, record, masters, model, index, index in pictured)
        path = record.claim(config.output_dir / SUMMARY)
        write_csv(path, rows, COLUMNS)
        record.add_product(path, "EVALUATION_SUMMARY")
        _report(record, rows, outer)
        if config.shared.plots != "none":
            from flat_pipeline.evaluation_pictures import draw_summary

            draw_summary(config, record, rows)
        step.summary = f"{counted(len(rows), 'master')}, mean MAE {_mean(rows, 'mae'):.3g}"


def _evaluate(masters, model, jobs):
    """Rows of the masters of one filter."""
    n = len(masters.paths)
    inside = [evaluation.Comparison() for _ in range(n)]
    outside = [evaluation.Comparison() for _ in range(n)]
    design = models.design_of(masters, model.header["T_REF"], model.header["E_REF"])

    def work(rows):
        values, sigmas, dqs = masters.block(rows)
        left, spread = flat_model.left_out_residuals(values, sigmas, design)
        synthetic_at, found = model.of_rows(rows), []
        for index in range(n):
            use = models.speaking(dqs[index]).reshape(-1)
            real, error = values[index].reshape(-1)[use], sigmas[index].reshape(-1)[use]
            synthetic, own = synthetic_at(masters.temperature[index], masters.exposure[index])
            residual = real - synthetic.reshape(-1)[use]
            # The residual of a datum of the fit scatters less than the datum, by the variance of the fit.
            variance = np.square(error) - np.square(own.reshape(-1)[use])
            known = variance > 1e-4 * np.square(error)
            both = evaluation.Comparison(), evaluation.Comparison()
            both[0].add(real[known], residual[known], np.sqrt(variance[known]))
            both[1].add(real, left[index][use], np.sqrt(np.square(error) + spread[index][use]))
            found.append(both)
        return found

    # Added in the order of the rows: sums do not depend on the number of workers.
    for found in in_workers(lambda: work, masters.row_blocks(), jobs):
        for index, (own, left) in enumerate(found):
            inside[index].merge(own)
            outside[index].merge(left)
    return [_row(masters, index, inside[index], outside[index]) for index in range(n)]


def _row(masters, index, inside, outside):
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
    row |= {f"left_out_{name}": value for name, value in outside.metrics().items() if name in METRICS}
    at_end = _at_end(masters.temperature, index, masters.tolerance()) or _at_end(
        masters.exposure, index, models.EXPOSURE_TOLERANCE * masters.exposure.max()
    )
    possible = outside.pixels > 0
    row["left_out_is"] = ("extrapolation" if at_end else "interpolation") if possible else "not possible"
    return row


def _at_end(values, index, tolerance):
    """Whether the model without this master would not reach its temperature or exposure."""
    rest = np.delete(values, index)
    return rest.size > 0 and not rest.min() - tolerance <= values[index] <= rest.max() + tolerance


def _maps(config, record, masters, model, index, pictures):
    """Maps of one master as FITS and PNG, as far as they are wanted."""
    head, dq = masters.headers[index], masters.dqs[index]
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

    planes = computed_planes(masters.shape, kinds, piece)
    name = masters.paths[index].stem
    folder = config.output_dir / EVALUATION
    if config.save_eval_fits:
        cards = {key: head[key] for key in _FROM_MASTER if key in head}
        cards |= {"MODEL": (models.EQUATION, "what the master is compared with")}
        cards |= {"EXTRAP": (model.extrapolates(head["TEMP"], head["EXPTIME"]), "outside the fitted range")}
        inputs = [{"file": masters.paths[index].name, "datasum": head.get("DATASUM")}]
        for kind, unit in (("diff", ""), ("mae", ""), ("mape", "percent"), ("synthetic", "")):
            path = record.claim(folder / f"{name}_{kind}.fits")
            write_product(
                path,
                planes[kind],
                prodtype=f"EVALUATION_{kind.upper()}",
                unit=unit,
                cards=cards,
                uncert=planes["error"] if kind == "synthetic" else None,
                dq=native(dq),
                inputs=inputs,
                jobs=config.shared.jobs,
            )
            record.add_product(path, f"EVALUATION_{kind.upper()}")
    if pictures:
        from flat_pipeline.evaluation_pictures import draw_maps

        draw_maps(record, folder, name, head, planes)


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
        ("left_out_mae", "MAE, master left out", ""),
        ("left_out_chi2_red", "reduced chi2, master left out", ""),
    ):
        value = _mean(rows, key)
        if math.isfinite(value):
            record.value(name, value, unit, section=section)
    for what, ends in outer.items():
        if not ends:
            verdict = f"cannot be judged: fewer than three {what}"
        elif np.median(ends) <= TRUSTED_CHI2:
            verdict = f"trusted: the outer {what} are predicted within their errors when left out"
        else:
            verdict = f"not trusted: the outer {what} are missed by more than their errors when left out"
        record.value(f"extrapolation to other {what}", verdict, section=section)


def _outer(masters, outer):
    """Add the reduced chi-square of the outer temperatures and exposures, each predicted by a fit without them.

    outer : {'temperatures': list, 'exposures': list}.  Some rows of the frame tell.
    """
    ny, nx = masters.shape
    rows = spread_rows(ny, max(1, OUTER_PIXELS // nx))
    for what, axis, tolerance in (
        ("temperatures", masters.temperature, masters.tolerance()),
        ("exposures", np.log(masters.exposure), models.EXPOSURE_TOLERANCE),
    ):
        members = grouping.group_by_gap(axis, tolerance)
        if len(members) < 3:
            continue
        for member in (members[0], members[-1]):
            rest = masters.subset(np.setdiff1d(np.arange(axis.size), member))
            design = models.design_of(rest)
            fit = flat_model.fit_flat_model(*rest.block(rows)[:2], design)
            values, sigmas, dqs = masters.subset(member).block(rows)
            compared = evaluation.Comparison()
            for index, master in enumerate(member):
                at = masters.temperature[master], masters.exposure[master]
                predicted, error = flat_model.predict(fit.coeff, fit.cov, design, *at)
                use = models.speaking(dqs[index]).reshape(-1)
                real = values[index].reshape(-1)[use]
                sigma = np.hypot(sigmas[index].reshape(-1)[use], error[use])
                compared.add(real, real - predicted[use], sigma)
            outer[what].append(compared.metrics()["chi2_red"])


def _mean(rows, name):
    values = [row[name] for row in rows if row[name] is not None and math.isfinite(row[name])]
    return sum(values) / len(values) if values else math.nan
