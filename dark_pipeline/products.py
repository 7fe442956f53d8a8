"""Dark-current maps, hot-pixel masks and corrected frames as files, and the way back."""

import math

import numpy as np

from dark_pipeline.config import DarkConfig
from dark_pipeline.steps.step2_bias import BIAS
from utils.domain import bias_source, masters
from utils.domain.dark_maps import EXPOSURE_TOLERANCE, open_maps
from utils.domain.dark_model import HOT_MAP
from utils.errors import InputError
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.naming import exposure_folder, exposure_label, label, unique_names
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ, header_from_inputs, write_product
from utils.kernels import groups as grouping

MAPS, MODEL_1D, MODEL_2D, CORRECTED = (
    "dark_masks_by_temp",
    "dark_model",
    "dark_model_2d",
    "bias_corrected_darks",
)


def folders_of(exposures):
    """Name the folder of each exposure (n,) [s]; exposures within a percent share one."""
    exposures = np.asarray(exposures, np.float64)
    members = grouping.group_by_gap(np.log(exposures), EXPOSURE_TOLERANCE)
    names = unique_names([exposure_folder(np.mean(exposures[member])) for member in members])
    result = [""] * exposures.size
    for member, name in zip(members, names, strict=True):
        for index in member:
            result[index] = name
    return result


def map_names(groups):
    """(folder, file name) of the map of each group."""
    folders = folders_of([group.exposure for group in groups])
    names = [
        f"{folder}/dark_mask_t{label(group.temperature, 2)}_e{exposure_label(group.exposure)}"
        for group, folder in zip(groups, folders, strict=True)
    ]
    return [tuple(f"{name}.fits".split("/")) for name in unique_names(names)]


def claim_map(maker, folder, name):
    """Announce one dark-current map; returns its path."""
    return maker.record.claim(maker.config.output_dir / MAPS / folder / name)


def write_map(maker, group, path, rate, sigma, dq, rejected, misfit):
    """Write one dark-current map; threads may call it."""
    frames = group.frames.frames
    write_product(
        path,
        rate,
        prodtype="DARK_CURRENT",
        unit="adu/s",
        cards={
            **frames.cards(),
            **set_cards(maker),
            "EFFRAMES": (maker.weight(group), "frames of a mean as certain as this"),
            "SESSION": (group.session, "number of the session of the frames"),
            "REJFRAC": (rejected, "fraction of samples rejected"),
            "DRIFTCOR": (group.corrected, "frames brought to one temperature"),
            "MISFIT": (misfit, "does not fit the other maps, not in the models"),
            "BIASLEV": (group.bias_level, "[adu] median bias subtracted"),
        },
        uncert=sigma,
        dq=dq,
        inputs=frames.inputs(masters.input_datasums(frames, 1)),
    )


def add_map(maker, group, path, folder, misfit):
    """List one dark-current map that was written."""
    maker.record.add_product(
        path,
        "DARK_CURRENT",
        temperature=group.temperature,
        exposure=group.exposure,
        folder=folder,
        misfit=misfit,
    )


def set_cards(maker):
    """Cards that all maps of the set carry."""
    shared, screening = maker.config.shared, maker.screening
    egain = None if maker.inverse_gain is None else 1.0 / maker.inverse_gain
    full = maker.full_well if math.isfinite(maker.full_well) else None
    return {
        "ADUSCALE": (screening.adu_scale, "stored units per ADU of this product"),
        "LSB": (screening.lsb, "[adu] one step of the converter"),
        "EGAIN": (egain, "[e-/adu] conversion gain"),
        "INVGAIN": (maker.inverse_gain or 0.0, "[adu/e-] shot noise of the model, 0: unknown"),
        "RNVAR": (maker.read_number, "[adu2] variance of a sample without signal"),
        "SATURATE": (
            screening.saturation if math.isfinite(screening.saturation) else None,
            "[adu] saturation",
        ),
        "FULLWELL": (full, "[adu] signal at which the scatter collapses"),
        "COMBINE": (shared.combine, "how frames were combined"),
        "CLIPSIG": (shared.clip_sigma if shared.combine != "mean" else None, "limit of the clipping [sigma]"),
        "TTOL": (shared.temp_tolerance, "[degC] half the largest width of a group"),
        "BIASFROM": ("none" if maker.bias is None else maker.bias.origin[-60:], "where the bias came from"),
        "NOBIAS": (maker.bias is None, "no bias was subtracted"),
        "DRIFTB": (maker.b, "[1/K] growth of dark current, for drift"),
        **hot_cards(maker),
    }


def hot_cards(maker):
    """Cards that tell how hot pixels were judged."""
    hot, config = maker.hot, maker.config
    return {
        "HOTSIG": (
            config.hot_sigma if config.hot_threshold is None else None,
            "limit of hot pixels [robust sigma]",
        ),
        "HOTLIM": (hot.limit, "[adu/s] hot above this"),
        "WARMLIM": (hot.warm_limit, "[adu/s] warm above this"),
        "HOTTEMP": (hot.temperature, "[degC] of the map judged"),
        "HOTEXP": (hot.exposure, "[s] exposure of the map judged"),
    }


def write_hot(maker, folders):
    """Write the hot-pixel mask (0/1) beside every model."""
    config, record = maker.config, maker.record
    frames = maker.groups[0].frames.frames
    images = [image for group in maker.groups for image in group.frames.frames.images]
    cards = {**header_from_inputs(images), "CALTYPE": frames.cards()["CALTYPE"], **set_cards(maker)}
    cards |= {
        "NCOMBINE": (len(images), "frames behind the mask"),
        "TEMP": (maker.hot.temperature, "[degC] of the map judged"),
        "EXPTIME": (maker.hot.exposure, "[s] exposure of the map judged"),
        "NHOT": (int(maker.hot.hot.sum()), "hot pixels"),
    }
    for folder in [f"{MODEL_1D}/{name}" for name in dict.fromkeys(folders)] + [MODEL_2D]:
        path = record.claim(config.output_dir / folder / HOT_MAP)
        write_product(path, maker.hot.hot.astype(np.uint8), prodtype="HOT_PIXELS", unit="", cards=cards)
        record.add_product(path, "HOT_PIXELS")


def write_corrected(config, record, bias, groups, screening):
    """Write every dark less the bias of its own temperature, with that bias as an extension."""
    folders = folders_of([group.exposure for group in groups])
    numbers = {}
    for group, folder in zip(groups, folders, strict=True):
        frames = group.frames.frames
        with FrameStack(frames.images) as stack:
            for index, (entry, image) in enumerate(zip(frames.entries, frames.images, strict=True)):
                stored = stack.frame_view(index).astype(np.float64) * image.bscale + image.bzero
                value = stored / screening.adu_scale
                level = np.zeros(value.shape, np.float32)
                if bias is not None:
                    level = bias.model.evaluate(entry["temperature"])[0]
                numbers[folder] = numbers.get(folder, 0) + 1
                path = config.output_dir / CORRECTED / folder / f"dark_corrected_{numbers[folder]:04d}.fits"
                record.claim(path)
                one = frames.subset([index])
                write_product(
                    path,
                    value - level,
                    prodtype="DARK_CORRECTED",
                    unit="adu",
                    cards={
                        **one.cards(),
                        "ADUSCALE": (screening.adu_scale, "stored units per ADU of this product"),
                    },
                    inputs=one.inputs(masters.input_datasums(one, 1)),
                    extra=[("BIAS_MAP", level, "adu")],
                )
                record.add_product(path, "DARK_CORRECTED")


def open_dark_maps(config: DarkConfig, record):
    """Open the dark-current maps that run.json lists, without those that do not fit, and the hot and warm pixels.

    Returns `DarkMaps`, bright (ny, nx) bool, and the headers of maps that were left out.
    """
    refs = record.products("DARK_CURRENT", made_by="--mode full")
    headers = {ref.path: view_planes(ref.path)[0] for ref in refs}
    used = [ref.path for ref in refs if not headers[ref.path].get("MISFIT")]
    bias, variance = None, None
    if not headers[used[0]].get("NOBIAS"):
        source = bias_source.load_bias(config.output_dir / BIAS)
        bias, variance = source.model, source.read_variance
    maps = open_maps(used, bias, variance)
    if bias is not None and bias.a.shape != maps.shape:
        raise InputError(
            f"{config.output_dir / BIAS}: shape {bias.a.shape}, expected {maps.shape} as in {maps.paths[0]}"
        )
    bright = np.zeros(maps.shape, bool)
    bright |= (np.asarray(maps.dqs[0]) & int(DQ.HOT | DQ.WARM)) != 0
    return maps, bright, [headers[ref.path] for ref in refs if headers[ref.path].get("MISFIT")]


def hot_header(maps):
    """Cards of hot pixels as the maps carry them."""
    keys = ("HOTSIG", "HOTLIM", "WARMLIM", "HOTTEMP", "HOTEXP")
    return {key: maps.headers[0][key] for key in keys if key in maps.headers[0]}
