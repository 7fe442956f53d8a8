"""Fit ``rate(T, t) = A t^gamma exp(B (T - T_MIN))`` to all maps, pixel by pixel."""

import numpy as np

from dark_pipeline.models import gamma_is_loose, temperature_numbers, unconstrained, write_global, write_model
from dark_pipeline.products import MODEL_2D, open_dark_maps
from utils.application.log import LOGGER
from utils.domain.dark_maps import fit_all, offset_can_be_told, sensor_of
from utils.domain.dark_model import EQUATION_2D, GLOBAL_2D, MAPS_2D, SUMMARY_2D
from utils.fits_io.atomic import write_json
from utils.fits_io.naming import counted
from utils.fits_io.products import DQ

SECTION = "2-D model"


def run(config, context):
    """Fit the 2-D model.

    Reads: the dark-current maps of run.json, bias_used/.
    Writes: dark_model_2d/A_map_2D.fits, B_map_2D.fits, GAMMA_map_2D.fits, covariance_2D.fits, global_params_2d.npz,
    dark_model_2d.json; nothing where all maps are at one temperature, which is said (status 1).
    """
    record = context.record
    with record.step("fit_2d") as step:
        maps, bright, left_out = open_dark_maps(config, record)
        if np.ptp(maps.temperature) < 2.0 * float(maps.headers[0].get("TTOL", 0.5)):
            record.missing(MODEL_2D, f"all darks are at one temperature ({maps.temperature.mean():.1f} degC)")
            step.summary = "no model"
            return
        several = np.ptp(np.log(maps.exposure)) > 0.05
        if not several:
            record.warn(f"darks of one exposure ({maps.exposure.mean():g} s): GAMMA = 0, held and flagged")
        offset_free = maps.bias is not None and several and offset_can_be_told(maps)
        if several and not offset_free and maps.bias is not None:
            record.warn(
                "an offset between dark and bias level cannot be told from GAMMA: some session has no two temperatures and"
                " exposures; none is fitted"
            )
        law = sensor_of(maps, bright, gamma_free=bool(several), offset_free=offset_free)
        reason = unconstrained(law, maps, bright)
        if reason:
            record.missing(MODEL_2D, reason)
            step.summary = "no model"
            return
        if gamma_is_loose(law):
            record.warn(
                f"exposures from {maps.exposure.min():g} to {maps.exposure.max():g} s do not tell GAMMA"
                f" ({law.gamma.mean:+.2g} +- {law.gamma.error:.2g}): GAMMA = 0, held and flagged"
            )
            law = sensor_of(maps, bright, gamma_free=False, offset_free=offset_free)
        t_min = float(maps.temperature.min())
        fit = fit_all(maps, law, bright, t_min, jobs=config.shared.jobs)
        _, a_g, dq = write_model(config, record, MODEL_2D, maps, law, fit, t_min, two=True)
        write_global(
            config,
            record,
            f"{MODEL_2D}/{GLOBAL_2D}",
            A_g=a_g,
            B_g=law.b.mean,
            gamma_g=law.gamma.mean,
            t_min=t_min,
        )
        summary = _summary(maps, law, fit, dq, a_g, t_min, left_out)
        path = record.claim(config.output_dir / MODEL_2D / SUMMARY_2D)
        write_json(path, summary)
        record.add_product(path, "DARK_MODEL_2D")
        _report(record, law, summary)
        step.summary = (
            f"A t^gamma exp(B dT) over {counted(len(maps.paths), 'map')}, doubling in"
            f" {summary['doubling_temperature_degc']:.2f} degC, gamma {law.gamma.mean:+.4f}"
        )


def _summary(maps, law, fit, dq, a_g, t_min, left_out):
    """Return the numbers of dark_model_2d.json."""
    good = np.isfinite(fit.chi2_red) & (dq.ravel() == 0)
    return {
        "equation": EQUATION_2D,
        "gamma_definition": "rate",
        "a_unit": "adu/s",
        "b_unit": "1/K",
        "shape": list(maps.shape),
        "adu_scale": maps.headers[0].get("ADUSCALE"),
        "egain": maps.headers[0].get("EGAIN"),
        "t_min": t_min,
        "t_max": float(maps.temperature.max()),
        "temperatures": [float(t) for t in maps.temperature],
        "exposures": [float(t) for t in maps.exposure],
        "maps": [path.name for path in maps.paths],
        "left_out": [{"temperature": h["TEMP"], "exposure": h["EXPTIME"]} for h in left_out],
        "A_g": a_g,
        "B_g": law.b.mean,
        "B_g_error": _finite(law.b.error),
        "B_scatter_over_pixels": law.b.sigma,
        "gamma_g": law.gamma.mean,
        "gamma_g_error": _finite(law.gamma.error),
        "gamma_scatter_over_pixels": law.gamma.sigma,
        "gamma_measured": law.gamma_free,
        "bright_pixels_apart": law.b != law.b_bright or law.gamma != law.gamma_bright,
        "B_g_bright": law.b_bright.mean,
        "gamma_g_bright": law.gamma_bright.mean,
        "offset_adu": [float(o) for o in law.offset],
        "offset_error_adu": [_finite(float(e)) for e in law.offset_error],
        "offset_fitted": law.separable,
        "hypotheses": {
            name: {"chi2": chi2, "degrees_of_freedom": dof, "chi2_red": chi2 / dof if dof > 0 else None}
            for name, (chi2, dof) in law.hypotheses.items()
        },
        "error_shared_by_pixels_adu": float(np.sqrt(law.design.common_variance.max())),
        "mean_residual_of_maps_adu": [float(value) for value in law.common],
        "chi2_red_mean": float(fit.chi2_red[good].mean(dtype=np.float64)) if good.any() else None,
        "pixels": int(dq.size),
        "unreliable_pixels": int(np.count_nonzero(dq & DQ.UNRELIABLE_FIT)),
        "hot_pixels": int(np.count_nonzero(dq & DQ.HOT)),
        "files": {"A": MAPS_2D[0], "B": MAPS_2D[1], "gamma": MAPS_2D[2], "covariance": MAPS_2D[3]},
        **temperature_numbers(law),
    }


def _finite(value):
    return value if np.isfinite(value) else None


def _report(record, law, summary):
    record.value("A_g", summary["A_g"], "adu/s", section=SECTION)
    record.value("B_g", law.b.mean, "1/degC", law.b.error, section=SECTION)
    if law.gamma_free:
        record.value("gamma_g", law.gamma.mean, "", law.gamma.error, section=SECTION)
    error = summary["doubling_temperature_error_degc"]
    record.value("doubling temperature", summary["doubling_temperature_degc"], "degC", error, section=SECTION)
    error = summary["activation_energy_error_ev"]
    record.value("apparent activation energy", summary["activation_energy_ev"], "eV", error, section=SECTION)
    record.value("temperature law that fits better", summary["better_temperature_law"], section=SECTION)
    record.value("chi2, exponential law", law.exponential_chi2, section=SECTION)
    record.value("chi2, Arrhenius law", law.arrhenius_chi2, section=SECTION)
    for name, (chi2, dof) in law.hypotheses.items():
        if dof > 0:
            record.value(f"reduced chi2, {name}", chi2 / dof, section="offset and gamma")
    for number, (offset, error) in enumerate(zip(law.offset, law.offset_error, strict=True)):
        if law.separable:
            record.value(
                f"offset of darks, session {number}", offset, "adu", error, section="offset and gamma"
            )
    if summary["chi2_red_mean"] is not None:
        record.value("reduced chi2 (mean of good pixels)", summary["chi2_red_mean"], section=SECTION)
    record.value("pixels flagged UNRELIABLE_FIT", summary["unreliable_pixels"], "pixels", section=SECTION)
    if law.regions is not None:
        top, bottom, left, right = law.regions.box
        record.warn(
            f"dark current grows otherwise in {law.regions.part:.0%} of the frame (rows {top} to {bottom}, columns {left}"
            f" to {right}), as glow of an amplifier does: not in B_g and gamma_g, errors hold what the law misses"
        )
    shared = summary["error_shared_by_pixels_adu"]
    if shared:
        record.warn(f"levels of the maps scatter by {shared:.3g} ADU about the model: included in the errors")
    LOGGER.debug("pivot of the fit: %.2f degC, %.3g s", law.design.pivot_t, law.design.pivot_e)
