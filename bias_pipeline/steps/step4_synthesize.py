"""Synthetic bias frames at any temperature, from the model alone."""

import math

import numpy as np

from bias_pipeline.config import GRID_STEP
from bias_pipeline.steps.step3_fit_model import recorded_model
from utils.application.figure_style import import_ahead
from utils.domain.bias_model import EQUATION
from utils.fits_io.naming import label, unique_names
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import write_product

SYNTHETIC = "bias_masks_by_temp"
_FROM_MODEL = (
    "CAMERA",
    "INSTRUME",
    "GAIN",
    "XBINNING",
    "YBINNING",
    "EGAIN",
    "SATURATE",
    "NCOMBINE",
    "EXPTIME",
)


def run(config, context):
    """Make synthetic biases at --temps, else at the temperatures of the masters; --generate-set adds a grid.

    Reads: the maps of the model and bias_model.json, named in run.json.
    Writes: bias_masks_by_temp/synthetic_bias_{T}C.fits.
    """
    record = context.record
    with record.step("synthesize") as step:
        if config.shared.plots != "none":
            import_ahead()
        model, summary, maps = recorded_model(record)
        maps = {path.relative_to(config.output_dir).as_posix(): path for path in maps}
        wanted = _temperatures(config, model, summary)
        names = unique_names([f"synthetic_bias_{label(t, 1)}C" for t in wanted])
        outside = [t for t in wanted if model.extrapolates(t)]
        if outside:
            shown = ", ".join(label(t, 1) for t in outside)
            record.warn(
                f"{shown} degC outside the fitted range {label(model.t_min, 1)} to {label(model.t_max, 1)} degC:"
                " extrapolated"
            )
        for temperature, name in zip(wanted, names, strict=True):
            path = config.output_dir / SYNTHETIC / f"{name}.fits"
            record.claim(path)
            if not record.stands(path):
                write_synthetic(path, model, temperature, maps)
            record.add_product(path, "SYNTHETIC_BIAS", temperature=temperature)
        step.summary = f"{len(wanted)} synthetic bias{'' if len(wanted) == 1 else 'es'}"


def write_synthetic(path, model, temperature, maps):
    """Write the bias that the model gives at one temperature [degC]; returns its value (ny, nx) [ADU].

    maps : paths of the model's maps by their names in the product's INPUTS table.
    """
    value, uncert, dq = model.evaluate(temperature)
    cards = {key: model.header[key] for key in _FROM_MODEL if key in model.header}
    cards |= {
        "CALTYPE": ("BIAS", "kind of the frame"),
        "TEMP": (float(temperature), "[degC] temperature of this bias"),
        "TEMPSTD": (0.0, "[degC] scatter"),
        "TEMPMIN": (float(temperature), "[degC] lowest"),
        "TEMPMAX": (float(temperature), "[degC] highest"),
        "ADUSCALE": (model.adu_scale, "stored units per ADU of this product"),
        "MODEL": (EQUATION, "what was evaluated"),
        "T_MIN": (model.t_min, "[degC] lowest temperature fitted"),
        "T_MAX": (model.t_max, "[degC] highest temperature fitted"),
        "EXTRAP": (bool(model.extrapolates(temperature)), "outside the fitted range"),
    }
    for key in ("DATE-BEG", "DATE-AVG", "DATE-END"):
        if key in model.header:
            cards[key] = (model.header[key], "UTC, frames behind the model")
    headers = {name: view_planes(place)[0] for name, place in maps.items()}
    inputs = [{"file": name, "datasum": header.get("DATASUM")} for name, header in headers.items()]
    write_product(
        path, value, prodtype="SYNTHETIC_BIAS", unit="adu", cards=cards, uncert=uncert, dq=dq, inputs=inputs
    )
    return value


def _temperatures(config, model, summary):
    """Temperatures wanted [degC], coldest first; those of the masters as their labels tell them."""
    wanted = (
        [float(label(t, 1)) for t in summary["temperatures"]] if config.temps is None else [*config.temps]
    )
    if config.generate_set:
        first, last = math.ceil(model.t_min / GRID_STEP), math.floor(model.t_max / GRID_STEP)
        wanted += [GRID_STEP * k for k in range(first, last + 1)]
    return [float(t) + 0.0 for t in np.unique(wanted)]
