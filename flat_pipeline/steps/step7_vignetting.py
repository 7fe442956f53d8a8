"""Illumination of every filter from its combined flats (or masters), or as the options give it."""

import numpy as np

from flat_pipeline import illumination, models
from flat_pipeline.frame_files import listed, load_groups, write_frame
from flat_pipeline.products import VIGNETTING, of_filter, setting_cards
from utils.application.log import progress
from utils.domain.frame_groups import FrameGroup
from utils.fits_io.atomic import write_json
from utils.fits_io.naming import counted
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ, header_from_inputs

CHANGED = 1e-3
"""An illumination that differs by more from the one that masters were divided by is said."""


def run(config, context):
    """Find the illumination.

    Reads: the combined flats of step 6; in mode vignetting_only without normalised frames the masters of run.json.
    Writes: vignetting/vignetting_{FILTER}.fits, vignetting_model.json; in mode vignetting_only
    flat_vignetting_corrected/<n>_vigncorr.fits for the normalised frames.  Sets ``context.illumination``.
    """
    record = context.record
    # Before the step begins: what it made in an earlier run is no product of this one.
    flats = _of_combined(context) if context.combined is not None else _of_masters(context)
    with record.step("vignetting") as step:
        names = list(flats)
        summary = {}
        for name, (flat, sigma, usable) in flats.items():
            found = illumination.find_illumination(config, name, flat, sigma, usable)
            path = illumination.illumination_path(config, name, names)
            cards = context.filter_cards[name]
            illumination.write_illumination(config, record, found, cards, path)
            context.illumination[name] = found
            summary[name] = {"file": path.name, "model": found.model, "level": found.level} | found.numbers
            _say(record, name, found)
            _warn_of_change(context, name, found)
        path = record.claim(config.output_dir / VIGNETTING / illumination.SUMMARY)
        write_json(path, summary)
        record.add_product(path, "VIGNETTING_MODEL")
        step.summary = f"illumination of {counted(len(names), 'filter')}"
        if record.mode == "vignetting_only" and context.combined is not None:
            step.summary += f", {counted(write_corrected(config, context), 'frame')} corrected"


def _of_combined(context):
    """Flat, error and usable pixels of each filter from the combined groups."""
    combined = context.combined
    found = {}
    for name in dict.fromkeys(flat.filter for flat in combined.flats):
        own = [flat.frames for flat in combined.flats if flat.filter == name]
        together = FrameGroup(
            [entry for frames in own for entry in frames.entries],
            [image for frames in own for image in frames.images],
        )
        context.filter_cards[name] = {**together.cards(), **setting_cards(context.config, context.setting)}
        flat, sigma = combined.of_filter(name)
        found[name] = flat, sigma, np.isfinite(flat) & ~combined.noise.noisy
    return found


def _of_masters(context):
    """Return the same from the masters of run.json, the illumination that was divided out multiplied back."""
    record = context.record
    known = illumination.load_illuminations(listed(record, "VIGNETTING"))
    found = {}
    for masters in models.open_masters(record, "--mode normalize_only or full"):
        total = np.zeros(masters.shape, np.float32)
        weights = np.zeros(masters.shape, np.float32)
        noisy = np.zeros(masters.shape, bool)
        for index in range(len(masters.paths)):
            value, sigma, dq = masters.one(index)
            good = np.isfinite(value) & np.isfinite(sigma)
            weight = np.float32(1.0 / np.median(np.square(sigma[good])))
            total += np.where(good, value, np.float32(0.0)) * weight
            weights += good * weight
            noisy |= (dq & int(DQ.NOISY)) != 0
        with np.errstate(divide="ignore", invalid="ignore"):
            flat, sigma = total / weights, 1.0 / np.sqrt(weights)
        if masters.headers[0]["VIGNCORR"]:
            factor = context.divided_out[masters.filter] = known[masters.filter].factor()
            flat, sigma = flat * factor, sigma * factor
        context.filter_cards[masters.filter] = {
            **header_from_inputs(masters.headers),
            "CALTYPE": ("FLAT", "kind of the frames"),
            "NCOMBINE": (sum(head["NCOMBINE"] for head in masters.headers), "frames behind the masters"),
        }
        found[masters.filter] = flat, sigma, np.isfinite(flat) & ~noisy
    return found


def _warn_of_change(context, name, found):
    """Say it when masters in this folder were divided by another illumination than the one found now."""
    earlier = context.divided_out.get(name)
    if earlier is None:
        return
    change = float(np.nanmax(np.abs(found.factor() / earlier - 1.0)))
    if change > CHANGED:
        context.record.warn(
            f"masters of filter {name} were divided by another illumination (different by up to {change:.2%}): make them"
            " anew, with --mode full or make_master"
        )


def write_corrected(config, context):
    """Write the normalised frames of run.json divided by the illumination of their filter; returns their number."""
    record, count = context.record, 0
    groups, setting = load_groups(record, record.products("FLAT_NORMALIZED"))
    for flat, numbers in progress(groups, len(groups), "correct flats"):
        found = context.illumination[flat.filter]
        factor = found.factor()
        more = {
            "VIGNFILE": (found.path.name, "the illumination divided out"),
            "FLATNORM": (found.level, "normalised frame = FLATNORM x this x illum."),
        }
        for index, number in enumerate(numbers):
            product = read_product(flat.frames.images[index].path)
            level = {"LEVEL": (float(flat.levels[index]), "[adu] level divided out")}
            with np.errstate(divide="ignore", invalid="ignore"):
                value = product.data / factor
            write_frame(
                config, record, "FLAT_VIGNCORR", number, flat, index, value, product.dq, setting, level | more
            )
            count += 1
    return count


def _say(record, name, found):
    numbers = found.numbers
    section, of = "Illumination", of_filter(name)
    record.value(f"model{of}", found.model, section=section)
    for key, unit in (("k1", ""), ("k2", ""), ("k3", ""), ("x0", "pixel"), ("y0", "pixel")):
        entry = numbers.get(key)
        if isinstance(entry, dict):
            record.value(f"{key}{of}", entry["value"], unit, entry["error"], section=section)
        elif entry is not None:
            record.value(f"{key}{of}", entry, unit, section=section)
    if numbers.get("rms_residual") is not None:
        record.value(f"residual of the bins{of}", 100 * numbers["rms_residual"], "percent", section=section)
        record.value(
            f"expected of noise and PRNU{of}", 100 * numbers["rms_expected"], "percent", section=section
        )
    lowest = float(np.nanmin(found.value))
    record.value(f"lowest illumination{of}", lowest, section=section)
    for note in found.notes:
        record.warn(f"illumination, filter {name}: {note}")
