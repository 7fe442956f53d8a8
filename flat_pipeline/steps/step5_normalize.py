"""Write every flat divided by its level (mode normalize_only)."""

from functools import partial

import numpy as np

from flat_pipeline import frame_files
from flat_pipeline.cleaning import FrameReader, normalised_frames
from flat_pipeline.combining import raw_stack
from flat_pipeline.products import dark_cards
from flat_pipeline.screening import set_levels, warn_of_fields
from utils.application.log import progress
from utils.domain import flat_levels
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.naming import counted
from utils.fits_io.product_reader import read_product


def run(config, context):
    """Normalise.

    Reads: flat_reduced/ of run.json, else (with --basepath) the frames of ``context.flats``.
    Writes: flat_normalized/<n>_normalized.fits; from frames dark_used/ too.
    """
    record = context.record
    with record.step("normalize") as step:
        from_frames = context.flats is not None
        number = (_from_frames if from_frames else _from_files)(config, context)
        step.summary = f"{counted(number, 'flat')} divided by their level ({config.norm_method})"


def _from_frames(config, context):
    record, setting, source = context.record, context.setting, context.dark
    number = 0
    for flat in progress(context.flats, len(context.flats), "normalise flats"):
        pedestal = source.pedestal(flat.temperature, flat.exposure)
        flat.cards = dark_cards(pedestal)
        stack = raw_stack(flat, pedestal, setting, source, config.shared.jobs)
        frame_files.write_pedestal(config, record, flat, pedestal, stack.base, setting)
        with FrameStack(flat.frames.images) as frames:
            reader = FrameReader(
                stack,
                partial(frame_files.reduced_frame, frames, flat, pedestal=pedestal.value, setting=setting),
            )
            numbers = range(number + 1, number + 1 + len(flat.frames))
            number += _write(config, record, numbers, flat, reader, setting)
    return number


def _from_files(config, context):
    record = context.record
    refs = record.products("FLAT_REDUCED")
    groups, setting = frame_files.load_groups(record, refs)
    count = 0
    flats = [flat for flat, _ in groups]
    # Their drift is subtracted already.
    members = [
        flat_levels.LevelGroup(flat.frames.images, np.zeros(len(flat.frames)), np.float32(0.0))
        for flat in flats
    ]
    rows = flat_levels.level_rows(flats[0].frames.images[0].shape)
    set_levels(flats, members, rows, config.norm_method, config.shared.jobs)
    warn_of_fields(flats, record)
    for flat, numbers in progress(groups, len(groups), "normalise flats"):
        images = flat.frames.images
        stack = frame_files.file_stack(record, flat, scales=1.0 / flat.levels)

        def read(index, images=images):
            product = read_product(images[index].path)
            return product.data, product.dq

        count += _write(config, record, numbers, flat, FrameReader(stack, read), setting)
    return count


def _write(config, record, numbers, flat, reader, setting):
    for index, value, dq in normalised_frames(config, flat, reader, setting):
        more = {"LEVEL": (float(flat.levels[index]), "[adu] level divided out")}
        frame_files.write_frame(
            config, record, "FLAT_NORMALIZED", numbers[index], flat, index, value, dq, setting, more
        )
    return len(numbers)
