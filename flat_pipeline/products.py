"""Masters, illumination and single frames as files, and the way back."""

import math
import re

import numpy as np

from utils.domain import masters
from utils.domain.dark_source import level_of
from utils.fits_io.keywords import NO_FILTER
from utils.fits_io.naming import label, unique_names
from utils.fits_io.plane_writer import computed_planes
from utils.fits_io.products import DQ, write_product, write_products
from utils.kernels import noise

MASTERS, VIGNETTING, MODEL, EVALUATION = "master_flat", "vignetting", "flat_model_fits", "evaluation"
REDUCED, NORMALIZED, CORRECTED, SKY = (
    "flat_reduced",
    "flat_normalized",
    "flat_vignetting_corrected",
    "sky_median",
)
IGNORED = int(DQ.DO_NOT_USE | DQ.NO_DATA | DQ.DEAD | DQ.LOW_QE | DQ.HOT | DQ.SATURATED)
"""Pixels that do not speak for the others."""


def plain(name):
    """Spell a filter as part of a file name."""
    return re.sub(r"[^A-Za-z0-9+-]+", "_", str(name)).strip("_") or "NONE"


def group_names(flats):
    """Name each group: {FILTER}_T{T:.1f}_E{t:g}, told apart where two would be the same."""
    names = [f"{plain(f.filter)}_T{label(f.temperature, 1)}_E{_seconds(f.exposure)}" for f in flats]
    return [f"master_flat_{name}" for name in unique_names(names)]


def _seconds(exposure):
    """Exposure with as many figures as matter: 1.000004 s is 1."""
    return f"{float(f'{exposure:.5g}'):g}"


def of_filter(name):
    """Tail of a number's name that tells its filter, where there is one."""
    return "" if name == NO_FILTER else f", {name}"


def filter_names(names):
    """File-name spelling of each filter: filter -> name, no two alike."""
    names = list(dict.fromkeys(names))
    return dict(zip(names, unique_names([plain(name) for name in names]), strict=True))


def setting_cards(config, setting):
    """Cards that all products of a set carry."""
    shared = config.shared
    return {
        "ADUSCALE": (setting.adu_scale, "stored units per ADU"),
        "LSB": (setting.lsb, "[adu] one step of the converter"),
        "EGAIN": (
            1.0 / setting.inverse_gain if setting.inverse_gain and setting.gain_known else None,
            "[e-/adu] conversion gain",
        ),
        "NOISGAIN": (
            1.0 / setting.inverse_gain if setting.inverse_gain else None,
            "[e-/adu] gain of the noise model",
        ),
        "GAINFROM": (setting.gain_from, "where the gain comes from"),
        "STEP": (setting.step, "[adu] step of the samples, 0: floats"),
        "RNVAR": (setting.read_number, "[adu2] variance of a sample without signal"),
        "SATURATE": (
            setting.saturation if math.isfinite(setting.saturation) else None,
            "[adu] saturation",
        ),
        "SATFROM": (setting.saturation_from, "where the saturation comes from"),
        "COMBINE": (shared.combine, "how frames are combined"),
        "CLIPSIG": (
            shared.clip_sigma if shared.combine == "sigclip" else None,
            "limit of the clipping [sigma]",
        ),
        "TTOL": (shared.temp_tolerance, "[degC] half the largest width of a group"),
        "NORMMETH": (config.norm_method, "level by which a frame is normalised"),
        "FLATTYPE": (config.flat_type, "kind of light"),
    }


def dark_cards(pedestal):
    """Cards that tell what was subtracted."""
    return {
        "DARKFROM": (pedestal.kind, "what was subtracted"),
        "DARKWHAT": (_cut(pedestal.words, 60), "the same in words"),
        "DARKTEMP": (_finite(pedestal.dark_temperature), "[degC] temperature of the dark"),
        "DARKEXP": (_finite(pedestal.dark_exposure), "[s] exposure of the dark"),
        "NDARKS": (len(pedestal.files), "darks behind it, 0: none or a model"),
        "DARKLEV": (_finite(level_of(pedestal.value)), "[adu] median subtracted"),
        "DARKEXTR": (pedestal.extrapolated, "bias or dark outside its fitted range"),
    }


def _cut(words, most):
    return words if len(words) <= most else f"{words[: most - 3]}..."


def _finite(value):
    return float(value) if value is not None and math.isfinite(value) else None


def write_masters(record, config, combined, illuminations, defects, cards, done=None):
    """Write the master flats of all groups.

    illuminations : filter -> `Illumination` that is divided out, if any.  defects, cards : filter -> quality bits (ny, nx),
    cards of the set.  done : called after each.
    """
    planned = []
    for index, flat in enumerate(combined.flats):
        name = flat.filter
        own = illuminations.get(name), defects[name], cards[name]
        planned.append(_planned_master(record, config, combined, index, *own))

    def written(index):
        flat = combined.flats[index]
        record.add_product(
            planned[index][0],
            "MASTER_FLAT",
            temperature=flat.temperature,
            exposure=flat.exposure,
            filter=flat.filter,
            corrected=flat.filter in illuminations,
        )
        if done is not None:
            done()

    write_products(planned, config.shared.jobs, written)


def _planned_master(record, config, combined, index, illumination, defects, cards):
    """One master as `write_products` takes it."""
    flat = combined.flats[index]
    planes = _planes(combined, index, illumination, defects)
    frames = flat.frames
    path = record.claim(config.output_dir / MASTERS / f"{flat.name}.fits")
    levels = flat.levels
    described = dict(
        prodtype="MASTER_FLAT",
        unit="",
        cards={
            **frames.cards(),
            **cards,
            "FILTER": (flat.filter, "filter, NONE where the frames tell none"),
            **flat.cards,
            **dict.fromkeys(("GROUP", "DRIFT")),
            "LEVEL": (float(levels.mean()), "[adu] mean level of the frames above the dark"),
            "LEVELMIN": (float(levels.min()), "[adu] lowest"),
            "LEVELMAX": (float(levels.max()), "[adu] highest"),
            "REJFRAC": (combined.rejected[index], "fraction of samples rejected"),
            "NOISEFAC": (_finite(combined.excess), "scatter of the frames over the noise model"),
            "VIGNCORR": (illumination is not None, "illumination divided out"),
            "VIGNFILE": (None if illumination is None else illumination.path.name, "the illumination"),
            "VIGNSUM": (None if illumination is None else illumination.datasum(), "DATASUM of its data"),
            "FLATNORM": (
                None if illumination is None else illumination.level,
                "flat = FLATNORM x this x illum.",
            ),
        },
        uncert=planes["sigma"],
        dq=planes["dq"],
        inputs=frames.inputs(masters.input_datasums(frames, config.shared.jobs)),
    )
    return path, planes["value"], described


def sky_names(name, count):
    """Files of the sky median of one group of ``count``: in ADU, and normalised."""
    tail = "" if count == 1 else f"_{name.removeprefix('master_flat_')}"
    return [f"master_flat_sky_median{what}{tail}.fits" for what in ("", "_normalized")]


def _planes(combined, index, illumination, defects):
    """Value, 1 sigma and quality of one master, computed while they are written."""
    bits = defects.reshape(-1)
    light = None if illumination is None else illumination.value.reshape(-1)

    def piece(part):
        value, sigma, dq = combined.master(index, part)
        if light is not None:
            factor = light[part] * np.float32(illumination.level)
            with np.errstate(divide="ignore", invalid="ignore"):
                value /= factor
                sigma /= factor
        dq |= bits[part]
        return {"value": value, "sigma": sigma, "dq": dq}

    return computed_planes(defects.shape, {"value": np.float32, "sigma": np.float32, "dq": np.int16}, piece)


def write_sky_median(record, config, combined, index, cards):
    """Write the median of the sky flats of one group, in ADU and normalised."""
    flat = combined.flats[index]
    value = combined.sky_median(index)
    _, sigma, dq = (one.reshape(value.shape) for one in combined.master(index, slice(0, value.size)))
    sigma *= np.float32(noise.median_factor(len(flat.frames)) if config.shared.combine != "median" else 1.0)
    frames, level = flat.frames, float(flat.levels.mean())
    names = sky_names(flat.name, len(combined.flats))
    sums = masters.input_datasums(frames, config.shared.jobs)
    for name, scale, unit in zip(names, (level, 1.0), ("adu", ""), strict=True):
        path = record.claim(config.output_dir / SKY / name)
        write_product(
            path,
            value * np.float32(scale),
            prodtype="SKY_MEDIAN",
            unit=unit,
            cards={
                **frames.cards(),
                **cards,
                "FILTER": (flat.filter, "filter"),
                **flat.cards,
                "LEVEL": (level, "[adu] mean level of the frames above the dark"),
                "VIGNCORR": (False, "illumination divided out"),
                **dict.fromkeys(("GROUP", "DRIFT", "VIGNFILE", "FLATNORM", "VIGNSUM")),
            },
            uncert=sigma * np.float32(scale),
            dq=dq,
            inputs=frames.inputs(sums),
            jobs=config.shared.jobs,
        )
        record.add_product(path, "SKY_MEDIAN", filter=flat.filter)
