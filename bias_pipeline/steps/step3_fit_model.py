"""Fit ``bias(T) = a + b T`` to the masters, pixel by pixel."""

import numpy as np

from bias_pipeline.config import PULL_LIMIT
from utils.domain import bias_model
from utils.domain.bias_fit import combined_quality, open_masters
from utils.domain.frame_groups import dates_of_masters
from utils.fits_io.atomic import write_json
from utils.fits_io.naming import counted, label
from utils.fits_io.products import DQ, header_from_inputs, write_product
from utils.kernels import linear_fit
from utils.kernels.pieces import in_pieces, median_of_some

MODEL = "bias_model"


def run(config, context):
    """Fit the model.

    Reads: the master biases named in run.json.
    Writes: bias_model/bias_a_map.fits, bias_b_map.fits, bias_ab_covariance.fits (with the reduced chi-square),
    bias_model.json.
    """
    record = context.record
    with record.step("fit_model") as step:
        masters = recorded_masters(record)
        if np.unique(masters.temperatures).size < 2:
            fit = _constant(masters)
            record.warn(
                f"one temperature ({masters.temperatures[0]:.2f} degC): b = 0 everywhere, flagged; the model holds"
                " there only"
            )
        else:
            fit = _line(masters, config.shared.jobs)
        dq = combined_quality(masters.dqs)
        dq[fit["unreliable"].reshape(dq.shape)] |= DQ.UNRELIABLE_FIT
        cards = _cards(masters, fit)
        folder = config.output_dir / MODEL
        shape = masters.shape
        covariance_unit = "adu2/K"
        for name, prodtype, data, uncert, unit, extra in (
            (bias_model.A_MAP, "BIAS_A", fit["a"], fit["sigma_a"], "adu", ()),
            (bias_model.B_MAP, "BIAS_B", fit["b"], fit["sigma_b"], "adu/K", ()),
            (
                bias_model.COVARIANCE,
                "BIAS_COVARIANCE",
                fit["cov"],
                None,
                covariance_unit,
                [
                    ("CHI2_RED", fit["chi2_red"].reshape(shape), ""),
                    ("NUSED", fit["n_used"].reshape(shape), ""),
                ],
            ),
        ):
            record.claim(folder / name)
            write_product(
                folder / name,
                data.reshape(shape),
                prodtype=prodtype,
                unit=unit,
                cards=cards,
                uncert=None if uncert is None else uncert.reshape(shape),
                dq=dq,
                inputs=_inputs(masters, config.output_dir),
                extra=extra,
            )
            record.add_product(folder / name, prodtype)
        summary = _summary(masters, fit, dq)
        record.claim(folder / bias_model.SUMMARY)
        write_json(folder / bias_model.SUMMARY, summary)
        record.add_product(folder / bias_model.SUMMARY, "BIAS_MODEL")
        _report(record, summary, masters)
        reduced = summary["chi2_red_mean"]
        over = f"{counted(len(masters.paths), 'master')}, {label(summary['t_min'], 1)}"
        if fit["fixed"]:
            step.summary = f"a without b T over {over} degC"
        else:
            step.summary = f"a + b T over {over} to {label(summary['t_max'], 1)} degC"
            step.summary += "" if reduced is None else f", reduced chi2 {reduced:.2f}"


def recorded_masters(record):
    """Open the master biases that run.json lists."""
    found = record.products("MASTER_BIAS", made_by="--mode make_master or full")
    return open_masters([product.path for product in found])


def recorded_model(record):
    """Read the bias model that run.json lists; returns it, its numbers (bias_model.json) and its maps' paths."""
    kinds = ("BIAS_A", "BIAS_B", "BIAS_COVARIANCE", "BIAS_MODEL")
    *maps, summary = (record.products(kind, made_by="--mode fit_model or full")[0].path for kind in kinds)
    model = bias_model.BiasModel.from_maps(*maps, mapped=True)
    return model, bias_model.model_summary(summary.parent), maps


def _line(masters, jobs):
    """Straight line through the masters; flat float32 maps."""
    size = masters.shape[0] * masters.shape[1]
    fit = {name: np.empty(size, np.float32) for name in ("a", "b", "sigma_a", "sigma_b", "cov", "chi2_red")}
    fit["n_used"] = np.empty(size, np.int16)
    fit["unreliable"] = np.empty(size, bool)
    nx = masters.shape[1]
    limits = _chi2_limits(len(masters.paths), _noise_dof(masters))

    def fit_rows(some):
        for rows, values, variances in masters.blocks(some):
            part = slice(rows.start * nx, rows.stop * nx)
            weights = np.divide(1.0, variances, out=variances)
            coeff, cov, chi2, n_used = linear_fit.fit_line(values, weights, masters.temperatures)
            fit["a"][part], fit["b"][part] = coeff
            fit["cov"][part] = cov[2]
            fit["sigma_a"][part], fit["sigma_b"][part] = np.sqrt(cov[:2], out=cov[:2])
            fit["n_used"][part] = n_used
            fit["unreliable"][part] = ~np.isfinite(coeff[0]) | (chi2 > limits[n_used])
            with np.errstate(divide="ignore", invalid="ignore"):
                fit["chi2_red"][part] = np.where(n_used > 2, chi2 / (n_used - 2.0), np.nan)

    masters.parts(fit_rows, jobs)
    fit["fixed"] = False
    return fit


def _chi2_limits(most, noise_dof):
    """Chi-square beyond which a line does not describe a pixel, for 0 to ``most`` points; infinite for two and fewer.

    Wilson and Hilferty: the cube root of chi2 / dof is nearly Gaussian.  noise_dof : the noise is itself measured.
    """
    dof = np.arange(1, most - 1, dtype=np.float64)
    middle, width = 1.0 - 2.0 / (9.0 * dof), np.sqrt(2.0 / (9.0 * dof) + 2.0 / (9.0 * noise_dof))
    return np.concatenate([np.full(3, np.inf), dof * (middle + PULL_LIMIT * width) ** 3])


def _constant(masters):
    """One temperature: the weighted mean of the masters, slope 0 with unknown error."""
    size = masters.shape[0] * masters.shape[1]
    fit = {name: np.zeros(size, np.float32) for name in ("a", "b", "sigma_a")}
    fit |= {name: np.full(size, np.nan, np.float32) for name in ("sigma_b", "cov", "chi2_red")}
    fit["n_used"] = np.empty(size, np.int16)
    nx = masters.shape[1]
    for rows, values, variances in masters.blocks():
        part = slice(rows.start * nx, rows.stop * nx)
        usable = np.isfinite(values) & np.isfinite(variances)
        weight = np.where(usable, 1.0 / variances, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            fit["a"][part] = (weight * np.where(usable, values, 0.0)).sum(axis=0) / weight.sum(axis=0)
            fit["sigma_a"][part] = 1.0 / np.sqrt(weight.sum(axis=0))
        fit["n_used"][part] = usable.sum(axis=0)
    fit["unreliable"] = np.ones(size, bool)
    fit["fixed"] = True
    return fit


def _noise_dof(masters):
    """Degrees of freedom behind the masters' uncertainties: frames of all, and the sensor's prior."""
    frames = sum(header["NCOMBINE"] - 1 for header in masters.headers)
    return max(1.0, frames + float(masters.headers[0].get("PRIORDOF") or 0.0))


def _inputs(masters, folder):
    """Rows of the INPUTS table; paths from the output folder, so that it can be moved."""
    return [
        {
            "file": path.relative_to(folder).as_posix(),
            "temperature": header["TEMP"],
            "exposure": header.get("EXPTIME"),
            "time": None,
            "datasum": header.get("DATASUM"),
        }
        for path, header in zip(masters.paths, masters.headers, strict=True)
    ]


def _cards(masters, fit):
    """Cards of the model: enough to evaluate it without this code."""
    headers, temperatures = masters.headers, masters.temperatures
    frames = np.array([h["NCOMBINE"] for h in headers], dtype=np.float64)
    mean = float(np.average(temperatures, weights=frames))
    scatter = np.array([h["TEMPSTD"] for h in headers])
    spread = np.average((temperatures - mean) ** 2 + scatter**2, weights=frames)
    cards = {
        **header_from_inputs(headers),
        "CALTYPE": ("BIAS", "kind of the frames"),
        "MODEL": (bias_model.EQUATION, "a, b: the two maps"),
        "ERRMODEL": ("UNCERT(T)^2 = sa^2 + 2 T cov + T^2 sb^2", "sa, sb: UNCERT of the maps"),
        "T_REF": (0.0, "[degC] a is the bias at this temperature"),
        "T_MIN": (float(temperatures.min()), "[degC] lowest temperature fitted"),
        "T_MAX": (float(temperatures.max()), "[degC] highest temperature fitted"),
        "BFIXED": (fit["fixed"], "one temperature only: b = 0, not measured"),
        "NMASTER": (len(headers), "masters fitted"),
        "NCOMBINE": (int(sum(h["NCOMBINE"] for h in headers)), "frames behind the masters"),
        "TEMP": (mean, "[degC] mean temperature of the frames"),
        "TEMPSTD": (float(np.sqrt(spread)), "[degC] scatter"),
        "TEMPMIN": (min(h["TEMPMIN"] for h in headers), "[degC] lowest frame"),
        "TEMPMAX": (max(h["TEMPMAX"] for h in headers), "[degC] highest frame"),
        "EXPTIME": (headers[0].get("EXPTIME"), "[s] exposure time"),
        "COMMONER": (masters.common_error, "[adu] error shared by all pixels of a master"),
    }
    return cards | dates_of_masters(headers)


def _summary(masters, fit, dq):
    """Return the numbers of bias_model.json."""
    header = masters.headers[0]
    return {
        "equation": bias_model.EQUATION,
        "a_unit": "adu",
        "b_unit": "adu/K",
        "shape": list(masters.shape),
        "adu_scale": header.get("ADUSCALE"),
        "egain": header.get("EGAIN"),
        "t_min": float(masters.temperatures.min()),
        "t_max": float(masters.temperatures.max()),
        "temperatures": [float(t) for t in masters.temperatures],
        "frames": [int(h["NCOMBINE"]) for h in masters.headers],
        "masters": [path.name for path in masters.paths],
        "session_shift_adu": [float(s) for s in masters.shifts],
        "common_error_adu": masters.common_error,
        "slope_measured": not fit["fixed"],
        "a_median": median_of_some(fit["a"]),
        "sigma_a_median": median_of_some(fit["sigma_a"]),
        "b_median": median_of_some(fit["b"]),
        "sigma_b_median": median_of_some(fit["sigma_b"]),
        "chi2_red_mean": _mean_chi2(fit["chi2_red"], dq),
        "pixels": int(dq.size),
        "unreliable_pixels": int(np.count_nonzero(dq & DQ.UNRELIABLE_FIT)),
        "noisy_pixels": int(np.count_nonzero(dq & DQ.NOISY)),
        "maps": {"a": bias_model.A_MAP, "b": bias_model.B_MAP, "covariance": bias_model.COVARIANCE},
    }


def _mean_chi2(reduced, dq):
    """Mean reduced chi-square of pixels without a flag (a median would lie below 1 for few masters), or None."""
    total, count = 0.0, 0
    for values, flags in in_pieces(reduced, dq):
        good = values[np.isfinite(values) & (flags == 0)]
        total, count = total + float(good.sum(dtype=np.float64)), count + good.size
    return total / count if count else None


def _report(record, summary, masters):
    separable = all(header.get("ZSEPAR", True) for header in masters.headers)
    if masters.common_error and separable:
        record.warn(
            f"levels of the masters scatter by {masters.common_error:.3g} ADU about the line, more than their frames"
            " explain: included in the errors of a and b"
        )
    record.value(
        "a (median pixel)", summary["a_median"], "adu", summary["sigma_a_median"], section="bias model"
    )
    if summary["slope_measured"]:
        record.value(
            "b (median pixel)", summary["b_median"], "adu/K", summary["sigma_b_median"], section="bias model"
        )
        if summary["chi2_red_mean"] is not None:
            record.value("reduced chi2 (mean of good pixels)", summary["chi2_red_mean"], section="bias model")
        name = "pixels that a line does not describe"
        record.value(name, summary["unreliable_pixels"], "pixels", section="bias model")
