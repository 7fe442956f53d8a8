"""Screen the flats, and find the level of each above its pedestal, saturation and e-/ADU."""

import math

from flat_pipeline.noise_model import settle_noise
from flat_pipeline.pictures import draw_levels
from flat_pipeline.plan import check_plan
from flat_pipeline.products import group_names
from flat_pipeline.screening import describe_group, screen_flats, set_levels, warn_of_fields
from flat_pipeline.steps.step2_dark import write_tables
from utils.application.log import progress
from utils.domain import flat_levels
from utils.fits_io.naming import counted


def run(config, context):
    """Screen and measure.

    Reads: a sample of rows of the frames of step 1.
    Writes: dark_sources.csv, auto_dark_files.json.  Sets ``context.flats`` and ``context.setting``; frames left out go to
    the run record.
    """
    if context.groups is None:
        return
    shared, record, source = config.shared, context.record, context.dark
    with record.step("levels") as step:
        flats, setting = screen_flats(context.groups, config, source, record, progress)
        rows = flat_levels.level_rows(source.shape)
        at_rows = source.at_rows(rows)
        members = []
        for flat in flats:
            pedestal = at_rows.pedestal(flat.temperature, flat.exposure)
            flat.drifts = pedestal.slope * (flat.frames.temperatures - flat.temperature)
            members.append(
                flat_levels.LevelGroup(
                    flat.frames.images, flat.drifts, pedestal.value, setting.adu_scale, setting.saturation
                )
            )
        set_levels(flats, members, rows, config.norm_method, shared.jobs)
        warn_of_fields(flats, record)
        for flat, name in zip(flats, group_names(flats), strict=True):
            flat.name = name
        settle_noise(flats, setting, source, config, record)
        context.flats, context.setting = flats, setting
        left = sum(len(flat.frames) for flat in flats)
        if record.rejected:
            record.warn(f"{counted(len(record.rejected), 'frame')} left out, see rejected_frames.csv")
        for note in setting.notes:
            record.warn(note)
        single = [flat for flat in flats if len(flat.frames) == 1]
        if single:
            record.warn(
                f"{counted(len(single), 'group')} of one flat ({describe_group(single[0])}): hits cannot be told from"
                " light there, errors are those of the noise model"
            )
        record.value("flats used", left, "frames", section="Frames")
        if math.isfinite(setting.saturation):
            record.value(
                f"saturation ({setting.saturation_from})", setting.saturation, "adu", section="Frames"
            )
        step.summary = f"{counted(left, 'flat')} in {counted(len(flats), 'group')}"
        check_plan(config, record, context.steps, flats)
        if not shared.dry_run:
            write_tables(config, context)
            draw_levels(config, record, flats)
