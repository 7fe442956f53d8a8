"""Masters with error and quality of every pixel: the pixel response, or the whole flat where no illumination is known."""

from flat_pipeline import defects, illumination, mean_flats
from flat_pipeline.frame_files import listed
from flat_pipeline.products import of_filter, setting_cards, write_masters, write_sky_median
from utils.application.log import progress
from utils.fits_io.naming import counted

PIXEL_BYTES = 40
"""Memory for each pixel of a filter that is judged."""


def run(config, context):
    """Judge pixels and write the masters.

    Reads: the combined flats and mean_flat/ of step 6, the illumination of step 7 (in mode make_master: vignetting/ of
    run.json).
    Writes: master_flat/master_flat_{FILTER}_T{T}_E{t}.fits; of sky flats sky_median/ too.
    """
    record, combined = context.record, context.combined
    with record.step("masters") as step:
        found = context.illumination
        if record.mode == "make_master":
            found = illumination.load_illuminations(listed(record, "VIGNETTING"))
        flats = mean_flats.paths(record)
        at_once = config.shared.tasks_at_once(combined.noisy.shape, PIXEL_BYTES, context.waiting())
        judged = defects.judge_all(config, flats, found, at_once)
        for name, one in judged.items():
            _say(record, name, one)
        cards = setting_cards(config, context.setting)
        cards = {name: {**cards, **one.cards()} for name, one in judged.items()}
        count = len(combined.flats)
        ticks = iter(progress(range(count), count, "masters"))
        quality = {name: one.dq for name, one in judged.items()}
        write_masters(record, config, combined, found, quality, cards, lambda: next(ticks, None))
        if combined.sky:
            for index, flat in enumerate(combined.flats):
                write_sky_median(record, config, combined, index, cards[flat.filter])
        combined.spool.close()
        context.combined = None
        words = "pixel response" if found else "response and illumination"
        context.illumination = {}
        record.value("scatter over the noise model", combined.excess, section="Frames")
        if config.flat_type == "satellite" and record.mode == "full_no_vignetting":
            record.warn(
                "satellite flats in --mode full_no_vignetting: the pattern of the lamps stays in the masters with the"
                " vignetting; --mode full divides it out"
            )
        step.summary = f"{counted(len(combined.flats), 'master')} ({words})"


def _say(record, name, judged):
    section, of = "Master flats", of_filter(name)
    record.value(f"PRNU{of}", 100 * judged.prnu.value, "percent", 100 * judged.prnu.error, section=section)
    for word, number in judged.counts.items():
        record.value(f"{word} pixels{of}", number, "pixels", section=section)
