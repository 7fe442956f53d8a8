"""Write every flat divided by its level (mode normalize_only)."""

import math

import numpy as np

from flat_pipeline import frame_files
from flat_pipeline.noise_model import base_variance
from flat_pipeline.products import dark_cards
from utils.application.log import progress
from utils.domain import flat_levels
from utils.errors import InputError
from utils.fits_io.naming import counted
from utils.fits_io.product_reader import read_product


def run(config, context):
    """Normalise.

    Reads: flat_reduced/ of run.json, else (with --basepath) the frames of ``context.flats``.
    Writes: flat_normalized/<n>_normalized.fits; from frames dark_used/ too.
    """
    record = context.record
    with record.step("normalize") as step:
        if context.flats is not None:
            number = _from_frames(config, context)
        else:
            number = _from_files(config, context)
        step.summary = f"{counted(number, 'flat')} divided by their level ({config.norm_method})"


def _from_frames(config, context):
    record, setting, source = context.record, context.setting, context.dark
    number = 0
    for flat in progress(context.flats, len(context.flats), "normalise flats"):
        pedestal = source.pedestal(flat.temperature, flat.exposure)
        flat.cards = dark_cards(pedestal)
        base = base_variance(setting, source.read_variance, pedestal.dark)
        frame_files.write_pedestal(config, record, flat, pedestal, base, setting)
        for index, value, dq in frame_files.reduced_frames(flat, pedestal.value, setting):
            number += 1
            _write(config, record, number, flat, index, value, dq, setting)
    return number


def _from_files(config, context):
    record = context.record
    refs = record.products("FLAT_REDUCED", made_by="--mode reduce_only, or give --basepath")
    groups, setting = frame_files.load_groups(record, refs)
    count = 0
    for flat, numbers in progress(groups, len(groups), "normalise flats"):
        images = flat.frames.images
        rows = flat_levels.level_rows(images[0].shape)
        flat.levels = flat_levels.levels_of(images, 1.0, np.float32(0.0), rows, config.norm_method)
        for index, number in enumerate(numbers):
            product = read_product(images[index].path)
            _write(config, record, number, flat, index, product.data, product.dq, setting)
            count += 1
    return count


def _write(config, record, number, flat, index, value, dq, setting):
    level = float(flat.levels[index])
    if not (math.isfinite(level) and level > 0):
        path = flat.frames.entries[index]["original_path"]
        raise InputError(f"{path}: level {level:g} ADU, expected light above bias and dark")
    value /= np.float32(level)
    more = {"LEVEL": (level, "[adu] level divided out")}
    frame_files.write_frame(config, record, "FLAT_NORMALIZED", number, flat, index, value, dq, setting, more)
