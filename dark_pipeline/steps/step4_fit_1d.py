"""Fit ``rate(T) = A exp(B (T - T_MIN))`` to the maps of each exposure, pixel by pixel."""

import numpy as np

from dark_pipeline.models import unconstrained, write_global, write_model
from dark_pipeline.products import MODEL_1D, folders_of, open_dark_maps
from utils.domain.dark_maps import fit_all, sensor_of
from utils.domain.dark_model import GLOBAL_1D
from utils.fits_io.naming import counted, exposure_label


def run(config, context):
    """Fit the 1-D models.

    Reads: the dark-current maps of run.json, bias_used/.
    Writes: dark_model/exp_*/A_map.fits, B_map.fits, AB_covariance.fits, global_params.npz; an exposure at one temperature
    has none, which is said (status 1), as where the temperatures do not tell the growth.
    """
    record = context.record
    with record.step("fit_1d") as step:
        maps, bright, _ = open_dark_maps(config, record)
        folders = folders_of(maps.exposure)
        made = 0
        for member in maps.by_exposure():
            some = maps.subset(np.sort(member))
            folder = f"{MODEL_1D}/{folders[member[0]]}"
            if np.ptp(some.temperature) < 2.0 * float(some.headers[0].get("TTOL", 0.5)):
                at = f"{exposure_label(some.exposure.mean())} s is at one temperature ({some.temperature.mean():.1f} degC)"
                record.missing(folder, f"{at}, a model needs two")
                continue
            made += _fit_one(config, record, some, bright, folder)
        step.summary = f"A exp(B dT) for {counted(made, 'exposure')}"


def _fit_one(config, record, maps, bright, folder):
    """Fit and write the model of one exposure; returns whether its temperatures tell one."""
    law = sensor_of(maps, bright, gamma_free=False, offset_free=False, thorough=False)
    reason = unconstrained(law, maps, bright)
    if reason:
        record.missing(folder, reason)
        return False
    t_min = float(maps.temperature.min())
    fit = fit_all(maps, law, bright, t_min, jobs=config.shared.jobs)
    exposure = float(maps.exposure.mean())
    _, a_g, _ = write_model(config, record, folder, maps, law, fit, t_min, two=False, exposure=exposure)
    write_global(config, record, f"{folder}/{GLOBAL_1D}", A_g=a_g, B_g=law.b.mean, t_min=t_min)
    at = f"{exposure_label(exposure)} s"
    record.value(f"A_g, {at}", a_g, "adu/s", section="1-D models")
    record.value(f"B_g, {at}", law.b.mean, "1/degC", law.b.error, section="1-D models")
    return True
