"""Combine the flats of every group; the results wait in a spool for illumination and pixel masks."""

import tempfile
from functools import partial
from pathlib import Path

from flat_pipeline import frame_files, illumination, mean_flats
from flat_pipeline.cleaning import FrameReader, masked_stack
from flat_pipeline.combining import CombinedFlats, raw_stack
from flat_pipeline.pictures import draw_levels
from flat_pipeline.products import dark_cards
from utils.application.log import progress
from utils.application.options import PROGRAM_BYTES
from utils.errors import InputError
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.naming import counted
from utils.fits_io.spool import ArraySpool

PIXEL_BYTES = {"lab": 90, "sky": 140, "satellite": 90}
"""Memory of the planes that are worked on, for each pixel."""


def run(config, context):
    """Combine.

    Reads: the frames of ``context.flats``; in later modes flat_vignetting_corrected/ or flat_normalized/ of run.json.
    Writes: mean_flat/mean_flat_{FILTER}.fits, from which the illumination is found; sets ``context.combined``.
    """
    record = context.record
    start = frame_files.start_of(record, config)
    if start is None and record.mode == "vignetting_only":
        return
    with record.step("combine") as step:
        if start is not None:
            groups, context.setting = frame_files.load_groups(record, record.products(start))
            context.flats = [flat for flat, _ in groups]
            draw_levels(config, record, context.flats)
        spool = context.stack.enter_context(ArraySpool(config.output_dir, _room(config, context)))
        combined = CombinedFlats(config, context.setting, spool)
        flats = context.flats
        known = illumination.load_illuminations(frame_files.listed(record, "VIGNETTING")) if start else {}
        # Groups of one temperature and exposure follow each other: their dark is made once.
        order = sorted(range(len(flats)), key=lambda i: (flats[i].exposure, flats[i].temperature))
        for index in progress(order, len(order), "combine flats"):
            flat = flats[index]
            if start is not None:
                factor = _factor(record, known, flat) if start == "FLAT_VIGNCORR" else None
                combined.add(frame_files.file_stack(record, flat, factor))
                continue
            _add_raw(config, context, combined, flat)
        context.dark = None  # its planes are not wanted any more
        combined.finish()
        context.combined = combined
        mean_flats.write(context)
        frames = sum(len(flat.frames) for flat in combined.flats)
        step.summary = (
            f"{counted(len(combined.flats), 'group')} of {counted(frames, 'frame')} ({config.shared.combine})"
        )


def _room(config, context):
    """Memory [bytes] for what waits: what the limit leaves beside the program and the planes that are worked on."""
    ny, nx = context.flats[0].frames.images[0].shape
    return max(0, config.shared.memory_limit - PROGRAM_BYTES - PIXEL_BYTES[config.flat_type] * ny * nx)


def _add_raw(config, context, combined, flat):
    """Combine the raw frames of a group: streamed, or frame by frame where something has to be masked or fields differ."""
    setting = context.setting
    pedestal = context.dark.pedestal(flat.temperature, flat.exposure)
    flat.cards = dark_cards(pedestal)
    stack = raw_stack(flat, pedestal, setting, context.dark, config.shared.jobs)
    if config.flat_type == "lab" and flat.fields is None:
        combined.add(stack)
        return
    with (
        tempfile.TemporaryDirectory(dir=config.output_dir, prefix=".flats-") as folder,
        FrameStack(flat.frames.images) as frames,
    ):
        read = partial(frame_files.reduced_frame, frames, flat, pedestal=pedestal.value, setting=setting)
        combined.add(masked_stack(config, flat, FrameReader(stack, read), setting, Path(folder)))


def _factor(record, known, flat):
    """What was divided out of the corrected frames of a group."""
    if flat.filter not in known:
        raise InputError(
            f"{record.output_dir}: no VIGNETTING of filter {flat.filter}; make it with --mode vignetting_only"
        )
    return known[flat.filter].factor()
