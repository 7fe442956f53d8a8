"""Fit ``flat(T, t) = A + B (T - T_REF) + C (t - E_REF)`` to the masters of each filter, pixel by pixel."""

import numpy as np

from flat_pipeline import models
from flat_pipeline.products import of_filter
from utils.fits_io.naming import counted
from utils.kernels.medians import nan_median


def run(config, context):
    """Fit the model.

    Reads: the masters of run.json.
    Writes: flat_model_fits/flat_{A,B,C}_map.fits, flat_covariance.fits (names end with the filter where there are several).
    """
    record = context.record
    with record.step("fit_model") as step:
        filters = models.open_masters(record)
        paths = models.model_paths(config, [masters.filter for masters in filters])
        for masters in filters:
            design = models.design_of(masters, config.t_ref, config.exp_ref)
            fit = models.fit_masters(masters, design, config.shared.jobs)
            models.write_model(config, record, masters, design, *fit, paths[masters.filter])
            _say(record, masters, design, *fit)
            del fit  # before that of the next filter
        step.summary = f"model of {counted(len(filters), 'filter')}"


def _say(record, masters, design, coeff, cov, chi2, dq):
    section, of = "Flat model", of_filter(masters.filter)
    for reason in design.reasons:
        record.warn(f"flat model, filter {masters.filter}: {reason}")
    good = models.speaking(dq)
    good = good if good.any() else np.isfinite(coeff[0])
    record.value(f"T_REF{of}", design.t_ref, "degC", section=section)
    record.value(f"E_REF{of}", design.e_ref, "s", section=section)
    for number, term in enumerate(models.TERMS):
        if design.fitted[number]:
            unit = models.UNITS[term]
            value = float(nan_median(coeff[number][good]))
            error = float(np.sqrt(nan_median(cov[number][good])))
            record.value(f"{term} (median pixel){of}", value, unit, section=section)
            record.value(f"error of {term} (median pixel){of}", error, unit, section=section)
    if np.isfinite(chi2[good]).any():
        record.value(
            f"reduced chi2 (mean of good pixels){of}", float(np.nanmean(chi2[good])), section=section
        )
