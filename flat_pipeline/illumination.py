"""Illumination of each filter: fitted, or given by a lens profile or a file; as a product, and the way back."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flat_pipeline import mean_flats
from flat_pipeline.products import VIGNETTING, filter_names
from utils.domain.lens_profiles import EmpiricalProfile
from utils.errors import InputError
from utils.fits_io.header_scan import scan_header
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import write_product
from utils.fits_io.workers import in_workers, shared_empty
from utils.kernels import illumination as kernel
from utils.kernels.illumination_surfaces import fit_polynomial

SUMMARY = "vignetting_model.json"
LED_DEGREE = 6
"""Degree of the polynomial that takes lamp pattern and vignetting of satellite flats together."""


@dataclass(eq=False)
class Illumination:
    """Illumination of one filter.

    value, sigma : (ny, nx) float32, 1 at its centre.  level : the flat (of level 1) is level x response x value.
    model : in words.  numbers : what the JSON summary tells.  path : its file.
    """

    filter: str
    value: np.ndarray
    sigma: np.ndarray
    level: float
    model: str
    numbers: dict = field(default_factory=dict)
    notes: tuple = ()
    path: Path | None = None

    def factor(self):
        """What a flat is divided by to be the pixel response, (ny, nx) float32."""
        return self.value * np.float32(self.level)

    def datasum(self):
        """DATASUM of its file, by which masters name it."""
        return str(scan_header(str(self.path)).cards["DATASUM"])


def find_all(config, flats, at_once=1):
    """Illuminations of mean flats, several filters at once in workers.

    flats : filter -> file of its mean flat.  Returns a list of (`Illumination`, header cards of the flat), in their order.
    Raises InputError where a flat does not allow one.
    """
    planes = {name: shared_empty((2, *scan_header(path).shape), np.float32) for name, path in flats.items()}

    def work(name):
        mean = mean_flats.read(flats[name])
        found = find_illumination(config, name, mean)
        planes[name][:] = found.value, found.sigma
        return replace(found, value=None, sigma=None), mean.cards

    return [
        (replace(found, value=planes[found.filter][0], sigma=planes[found.filter][1]), cards)
        for found, cards in in_workers(lambda: work, flats, at_once)
    ]


def find_illumination(config, name, mean):
    """Illumination of the mean flat (`MeanFlat`) of one filter, as the options ask for it.

    Returns `Illumination`.  Raises InputError where the flat does not allow it.
    """
    profile, flat, sigma, usable = config.illumination, mean.flat, mean.sigma, mean.usable
    empirical = isinstance(profile, EmpiricalProfile)
    if mean.flat_type == "satellite" and not empirical:
        return _satellite(name, flat, sigma, usable, profile)
    if profile is None:
        return _radial(name, flat, sigma, usable)
    if empirical:
        fit = _fitting(name, profile.fit, flat, sigma, usable)
        numbers = {"model": profile.method, "amount": profile.amount} | _of_quality(fit.quality)
        words = f"{profile.words} of the flat"
        return Illumination(name, fit.value, fit.sigma, fit.quality.level, words, numbers, fit.quality.notes)
    model = profile.model(flat.shape)
    value, error = model.evaluate()
    ratio = np.where(usable, flat / value, np.nan)
    level = float(np.nanmedian(ratio))
    return Illumination(name, value, error, level, profile.words, _of_profile(model), notes=profile.notes)


def _of_profile(model):
    numbers = {"model": "pa", "equation": kernel.EQUATION}
    return numbers | {key: float(getattr(model, key)) for key in kernel.PARAMETERS}


def _fitting(name, function, *arguments, **words):
    try:
        return function(*arguments, **words)
    except ValueError as error:
        raise InputError(f"illumination of filter {name}: {error}") from error


def _radial(name, flat, sigma, usable):
    fit = _fitting(name, kernel.fit_radial, flat, sigma, usable)
    value, error = fit.model.evaluate()
    numbers = {"model": "pa", "equation": kernel.EQUATION}
    parameters = (fit.model.k1, fit.model.k2, fit.model.k3, fit.model.x0, fit.model.y0)
    for key, one, its_error, fitted in zip(
        kernel.PARAMETERS, parameters, fit.model.sigma, fit.fitted, strict=True
    ):
        numbers[key] = {"value": float(one), "error": float(its_error) if fitted else None, "fitted": fitted}
    numbers["covariance"] = fit.model.cov.tolist()
    numbers |= _of_quality(fit.quality)
    return Illumination(
        name, value, error, fit.quality.level, "radial model, fitted", numbers, fit.quality.notes
    )


def _of_quality(quality):
    return {
        "level": quality.level,
        "chi2_red": quality.chi2_red,
        "rms_residual": quality.rms_residual,
        "rms_expected": quality.rms_expected,
        "masked_fraction": quality.masked,
        "bins": int(quality.used.sum()),
        "notes": list(quality.notes),
    }


def _satellite(name, flat, sigma, usable, profile):
    """Pattern of the lamps, large scale, together with the vignetting; a given one stays apart."""
    vignetting = None
    if profile is not None:
        model = profile.model(flat.shape)
        vignetting = model.evaluate()[0]
        flat, sigma = flat / vignetting, sigma / vignetting
    fit = _fitting(name, fit_polynomial, flat, sigma, usable, degree=LED_DEGREE)
    lamps = {"model": "polynomial", "degree": LED_DEGREE, "of": "lamp pattern"} | _of_quality(fit.quality)
    level, notes = fit.quality.level, fit.quality.notes
    if vignetting is None:
        lamps["of"] = "lamp pattern and vignetting together"
        words = "polynomial of lamp pattern and vignetting together"
        return Illumination(name, fit.value, fit.sigma, level, words, lamps, notes)
    words = f"{profile.words}, times polynomial of the lamp pattern"
    numbers = _of_profile(model) | {"lamps": lamps}
    notes = (*notes, *profile.notes)
    return Illumination(name, fit.value * vignetting, fit.sigma * vignetting, level, words, numbers, notes)


def write_illumination(config, record, found, cards, path):
    """Write the illumination of one filter and list it."""
    path = record.claim(path)
    numbers = found.numbers
    constants = {}
    for number, key in enumerate(kernel.PARAMETERS):
        entry = numbers.get(key)
        value = entry["value"] if isinstance(entry, dict) else entry
        error = entry["error"] if isinstance(entry, dict) else None
        name, unit = (key.upper(), "" if number < 3 else "[pixel], first pixel is 0, ")
        if value is not None:
            constants[name] = (float(value), f"{unit}coefficient" if number < 3 else f"{unit}centre")
            constants[f"{name}ERR"] = (error, "its error")
    write_product(
        path,
        found.value,
        prodtype="VIGNETTING",
        unit="",
        cards={
            **cards,
            "FILTER": (found.filter, "filter"),
            "MODEL": (found.model[:60], "where it comes from"),
            "EQUATION": (numbers.get("equation"), "r = 1: half the diagonal"),
            **constants,
            "FLATNORM": (found.level, "flat of level 1 = FLATNORM x response x this"),
            "CHI2RED": (_finite(numbers.get("chi2_red")), "of the bins"),
            "RMSRES": (_finite(numbers.get("rms_residual")), "relative, bins around the model"),
        },
        uncert=found.sigma,
        jobs=config.shared.jobs,
    )
    found.path = path
    record.add_product(path, "VIGNETTING", filter=found.filter, level=found.level)


def _finite(value):
    return value if value is not None and math.isfinite(value) else None


def load_illuminations(refs):
    """Illuminations that run.json lists: filter -> `Illumination`."""
    found = {}
    for ref in refs:
        product = read_product(ref.path, expect="VIGNETTING")
        head = product.header
        found[head["FILTER"]] = Illumination(
            head["FILTER"], product.data, product.uncert, float(head["FLATNORM"]), head.get("MODEL", ""), path=ref.path
        )  # fmt: skip
    return found


def illumination_path(config, name, names):
    """Place of the illumination of a filter; names : all filters."""
    return config.output_dir / VIGNETTING / f"vignetting_{filter_names(names)[name]}.fits"
