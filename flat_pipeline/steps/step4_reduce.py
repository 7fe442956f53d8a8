"""Write every flat less its bias and dark (mode reduce_only)."""

from flat_pipeline import frame_files
from flat_pipeline.noise_model import base_variance
from flat_pipeline.products import dark_cards
from utils.application.log import progress
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.naming import counted


def run(config, context):
    """Reduce.

    Reads: the frames of ``context.flats``.
    Writes: flat_reduced/<n>_FLAT_REDUCED_WITH_DARK.fits [ADU], dark_used/pedestal_{FILTER}_T{T}_E{t}.fits.
    """
    record, setting, source = context.record, context.setting, context.dark
    with record.step("reduce") as step:
        number = 0
        for flat in progress(context.flats, len(context.flats), "reduce flats"):
            pedestal = source.pedestal(flat.temperature, flat.exposure)
            flat.cards = dark_cards(pedestal)
            base = base_variance(setting, source.read_variance, pedestal.dark, config.shared.jobs)
            frame_files.write_pedestal(config, record, flat, pedestal, base, setting)
            with FrameStack(flat.frames.images) as stack:
                for index in range(len(flat.frames)):
                    value, dq = frame_files.reduced_frame(stack, flat, index, pedestal.value, setting)
                    number += 1
                    frame_files.write_frame(
                        config, record, "FLAT_REDUCED", number, flat, index, value, dq, setting
                    )
        step.summary = f"{counted(number, 'flat')} less bias and dark"
