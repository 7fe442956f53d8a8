"""Fit ``flat(T, t) = A + B (T - T_REF) + C (t - E_REF)`` to the masters of each filter, pixel by pixel."""

import numpy as np

from flat_pipeline import models
from utils.fits_io.naming import counted


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
        step.summary = f"model of {counted(len(filters), 'filter')}"


def _say(record, masters, design, coeff, cov, chi2, dq):
    section = f"Model, {masters.filter}"
    for reason in design.reasons:
        record.warn(f"flat model, filter {masters.filter}: {reason}")
    good = models.speaking(dq)
    good = good if good.any() else np.isfinite(coeff[0])
    record.value("T_REF", design.t_ref, "degC", section=section)
    record.value("E_REF", design.e_ref, "s", section=section)
    for number, term in enumerate(models.TERMS):
        if design.fitted[number]:
            unit = models.UNITS[term]
            record.value(
                f"{term} (median pixel)", float(np.nanmedian(coeff[number][good])), unit, section=section
            )
            record.value(
                f"error of {term} (median pixel)", float(np.sqrt(np.nanmedian(cov[number][good]))), unit, section=section
            )  # fmt: skip
    if np.isfinite(chi2[good]).any():
        record.value("reduced chi2 (mean of good pixels)", float(np.nanmean(chi2[good])), section=section)
