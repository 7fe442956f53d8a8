"""Masters with error and quality of every pixel: the pixel response, or the whole flat where no illumination is known."""

import numpy as np

from flat_pipeline import defects, illumination
from flat_pipeline.frame_files import listed
from flat_pipeline.products import of_filter, setting_cards, write_master, write_sky_median
from utils.application.log import progress
from utils.fits_io.naming import counted


def run(config, context):
    """Judge pixels and write the masters.

    Reads: the combined flats of step 6, the illumination of step 7 (in mode make_master: vignetting/ of run.json).
    Writes: master_flat/master_flat_{FILTER}_T{T}_E{t}.fits; of sky flats sky_median/ too.
    """
    record, combined = context.record, context.combined
    with record.step("masters") as step:
        found = context.illumination
        if record.mode == "make_master":
            found = illumination.load_illuminations(listed(record, "VIGNETTING"))
        judged = {}
        for name in dict.fromkeys(flat.filter for flat in combined.flats):
            judged[name] = _judge(config, record, combined, name, found.get(name))
        cards = setting_cards(config, context.setting)
        cards = {name: {**cards, **one.cards()} for name, one in judged.items()}
        for index in progress(range(len(combined.flats)), len(combined.flats), "masters"):
            name = combined.flats[index].filter
            write_master(
                record,
                config,
                combined,
                index,
                illumination=found.get(name),
                defects=judged[name].dq,
                cards=cards[name],
            )
            if combined.sky:
                write_sky_median(record, config, combined, index, cards[name])
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


def _judge(config, record, combined, name, found):
    flat, sigma = combined.of_filter(name)
    if found is not None:
        factor = found.factor()
        with np.errstate(divide="ignore", invalid="ignore"):
            flat = flat / factor
            sigma = sigma / factor
    judged = defects.judge_pixels(flat, sigma, combined.noisy, config)
    section, of = "Master flats", of_filter(name)
    record.value(f"PRNU{of}", 100 * judged.prnu.value, "percent", 100 * judged.prnu.error, section=section)
    for word, number in judged.counts().items():
        record.value(f"{word} pixels{of}", number, "pixels", section=section)
    return judged
