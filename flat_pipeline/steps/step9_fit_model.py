"""Fit ``flat(T, t) = A + B (T - T_REF) + C (t - E_REF)`` to the masters of each filter, pixel by pixel."""

import math

import numpy as np

from flat_pipeline import models
from flat_pipeline.products import of_filter
from utils.fits_io.mapped import native
from utils.fits_io.naming import counted
from utils.fits_io.workers import in_workers
from utils.kernels.medians import nan_median

PIXEL_BYTES = 60
"""Memory for each pixel of a map whose median is taken."""


def run(config, context):
    """Fit the model.

    Reads: the masters of run.json.
    Writes: flat_model_fits/flat_{A,B,C}_map.fits, flat_covariance.fits (names end with the filter where there are several).
    """
    record = context.record
    with record.step("fit_model") as step:
        fitted = [
            (masters, models.design_of(masters, config.t_ref, config.exp_ref))
            for masters in models.open_masters(record)
        ]
        models.write_models(config, record, fitted)
        _say(config, record, fitted)
        step.summary = f"model of {counted(len(fitted), 'filter')}"


def _say(config, record, fitted):
    refs, section = record.products(), "Flat model"
    opened = [models.FlatModel.load(refs, masters) for masters, _ in fitted]
    tasks = [(model, number) for model in opened for number in range(4)]
    numbers = in_workers(
        lambda: _median_pixel, tasks, config.shared.tasks_at_once(opened[0].shape, PIXEL_BYTES)
    )
    for masters, design in fitted:
        own, numbers, of = numbers[:4], numbers[4:], of_filter(masters.filter)
        for reason in design.reasons:
            record.warn(f"flat model, filter {masters.filter}: {reason}")
        record.value(f"T_REF{of}", design.t_ref, "degC", section=section)
        record.value(f"E_REF{of}", design.e_ref, "s", section=section)
        for term, is_fitted, (value, error) in zip(models.TERMS, design.fitted, own, strict=False):
            if is_fitted:
                unit = models.UNITS[term]
                record.value(f"{term} (median pixel){of}", value, unit, section=section)
                record.value(f"error of {term} (median pixel){of}", error, unit, section=section)
        if math.isfinite(own[3]):
            record.value(f"reduced chi2 (mean of good pixels){of}", own[3], section=section)


def _median_pixel(task):
    """Medians of a term and of its error over good pixels, or (number 3) their mean reduced chi-square, NaN: none."""
    model, number = task
    good = models.speaking(native(model.dq))
    if not good.any():
        good = np.isfinite(native(model.terms[0]))
    if number == 3:
        chi2 = native(model.chi2)[good]
        chi2 = chi2[np.isfinite(chi2)]
        return float(chi2.mean(dtype=np.float64)) if chi2.size else math.nan
    return tuple(float(nan_median(native(plane[number])[good])) for plane in (model.terms, model.sigmas))
