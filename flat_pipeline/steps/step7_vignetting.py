"""Illumination of every filter from its combined flats (or masters), or as the options give it."""

import numpy as np

from flat_pipeline import illumination, mean_flats
from flat_pipeline.frame_files import listed, load_groups, write_frame
from flat_pipeline.products import VIGNETTING, of_filter
from utils.application.log import progress
from utils.fits_io.atomic import write_json
from utils.fits_io.header_scan import scan_header
from utils.fits_io.naming import counted
from utils.fits_io.product_reader import read_product
from utils.kernels import noise

PIXEL_BYTES = 40
"""Memory for each pixel of a filter at work."""
POOR_FIT = 2.0
"""A reduced chi-square of the bins above this, and beyond 5 sigma of its scatter, is said."""


def run(config, context):
    """Find the illumination.

    Reads: mean_flat/ of run.json.
    Writes: vignetting/vignetting_{FILTER}.fits, vignetting_model.json; in mode vignetting_only
    flat_vignetting_corrected/<n>_vigncorr.fits for the normalised frames.  Sets ``context.illumination``.
    """
    record = context.record
    # Before the step begins: what it made in an earlier run is no product of this one.
    flats = mean_flats.paths(record)
    with record.step("vignetting") as step:
        names = list(flats)
        summary = {}
        at_once = config.shared.tasks_at_once(
            scan_header(flats[names[0]]).shape, PIXEL_BYTES, context.waiting()
        )
        for found, cards in illumination.find_all(config, flats, at_once):
            name, path = found.filter, illumination.illumination_path(config, found.filter, names)
            cards = cards if context.combined is None else mean_flats.cards_of(context, name)
            illumination.write_illumination(config, record, found, cards, path)
            context.illumination[name] = found
            summary[name] = {"file": path.name, "model": found.model, "level": found.level} | found.numbers
            _say(record, name, found)
        path = record.claim(config.output_dir / VIGNETTING / illumination.SUMMARY)
        write_json(path, summary)
        record.add_product(path, "VIGNETTING_MODEL")
        if record.mode == "vignetting_only":
            _warn_of_masters(record, context.illumination)
        step.summary = f"illumination of {counted(len(names), 'filter')}"
        if record.mode == "vignetting_only" and context.combined is not None:
            step.summary += f", {counted(write_corrected(config, context), 'frame')} corrected"


def _warn_of_masters(record, made):
    """Say it where masters in this folder were divided by another illumination than the one found now."""
    sums = {name: found.datasum() for name, found in made.items()}
    other = set()
    for ref in listed(record, "MASTER_FLAT"):
        head = scan_header(str(ref.path)).cards
        name = str(head["FILTER"])
        if head.get("VIGNCORR") and name in sums and head.get("VIGNSUM") != sums[name]:
            other.add(name)
    for name in sorted(other):
        record.warn(
            f"masters of filter {name} were divided by another illumination: make them anew, with --mode full or"
            " make_master"
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


def poor_fit(numbers):
    """Whether the bins of a fit (``numbers`` of an `Illumination`) lie off the model by more than noise and PRNU."""
    numbers = numbers.get("lamps", numbers)
    chi2, dof = numbers.get("chi2_red"), numbers.get("bins", 0) - len(illumination.kernel.PARAMETERS)
    return chi2 is not None and dof > 0 and chi2 > max(POOR_FIT, noise.chi2_limit(dof, 5.0))


def _say(record, name, found):
    numbers = {**found.numbers, **found.numbers.get("lamps", {})}
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
    if poor_fit(numbers):
        record.warn(
            f"illumination, filter {name}: the model does not describe the flat: bins are off by"
            f" {numbers['rms_residual']:.3%} (rms), expected {numbers['rms_expected']:.3%} of noise and PRNU (reduced chi2"
            f" {numbers['chi2_red']:.1f}); what is left stands in the pixel response"
        )
    lowest = float(np.nanmin(found.value))
    record.value(f"lowest illumination{of}", lowest, section=section)
    for note in found.notes:
        record.warn(f"illumination, filter {name}: {note}")
