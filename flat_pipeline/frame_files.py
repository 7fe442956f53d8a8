"""Single flats as files: reduced, normalised, corrected; and the groups that such files of an earlier run make."""

import math

import numpy as np

from flat_pipeline.combining import FlatStack
from flat_pipeline.products import CORRECTED, NORMALIZED, REDUCED, dark_cards, setting_cards
from flat_pipeline.screening import FlatGroup, Setting
from utils.domain import masters
from utils.domain.frame_groups import FrameGroup
from utils.errors import InputError
from utils.fits_io.header_scan import scan_header
from utils.fits_io.product_reader import read_plane, read_product
from utils.fits_io.products import DQ, write_product

PLACES = {
    "FLAT_REDUCED": (REDUCED, "{:04d}_FLAT_REDUCED_WITH_DARK.fits", "adu"),
    "FLAT_NORMALIZED": (NORMALIZED, "{:04d}_normalized.fits", ""),
    "FLAT_VIGNCORR": (CORRECTED, "{:04d}_vigncorr.fits", ""),
}
"""Kind of file: folder, name, unit."""
DARK_USED = "dark_used"


def write_pedestal(config, record, flat, pedestal, base, setting):
    """Write what is subtracted from the frames of a group, with its error and the noise without light."""
    stem = flat.name.removeprefix("master_flat_")
    path = record.claim(config.output_dir / DARK_USED / f"pedestal_{stem}.fits")
    write_product(
        path,
        pedestal.value,
        prodtype="PEDESTAL",
        unit="adu",
        cards={**flat.frames.cards(), **setting_cards(config, setting), **dark_cards(pedestal)},
        uncert=np.sqrt(pedestal.variance),
        extra=[("BASEVAR", np.broadcast_to(np.asarray(base, np.float32), pedestal.value.shape), "adu2")],
    )
    record.add_product(path, "PEDESTAL", group=flat.name)


def reduced_frame(stack, flat, index, pedestal, setting):
    """Value (x - pedestal - drift) [ADU], float32, and quality bits of one frame of a group; stack : of its raw frames."""
    image, stored = flat.frames.images[index], stack.frame_view(index)
    value = stored.astype(np.float64) * image.bscale + image.bzero
    value /= setting.adu_scale
    full = value >= setting.saturation
    value -= pedestal
    value -= flat.drifts[index]
    value[full] = np.nan
    if image.blank is not None and image.bitpix > 0:
        value[stored == image.blank] = np.nan
    dq = np.zeros(value.shape, np.int16)
    dq[full] |= DQ.SATURATED
    return value.astype(np.float32), dq


def write_frame(config, record, kind, number, flat, index, value, dq, setting, more=None):
    """Write one frame of a group; returns its path."""
    folder, name, unit = PLACES[kind]
    one = flat.frames.subset([index])
    path = record.claim(config.output_dir / folder / name.format(number))
    cards = {
        **one.cards(),
        **setting_cards(config, setting),
        **flat.cards,
        "FILTER": (flat.filter, "filter"),
        "GROUP": (flat.name.removeprefix("master_flat_"), "frames that are combined with this one"),
        "DRIFT": (float(flat.drifts[index]), "[adu] pedestal of the frame above that of its group"),
        **(more or {}),
    }
    write_product(
        path,
        value,
        prodtype=kind,
        unit=unit,
        cards=cards,
        dq=dq,
        inputs=one.inputs(masters.input_datasums(one, 1)),
    )
    record.add_product(path, kind, group=flat.name, number=number, filter=flat.filter)
    return path


STARTS = {
    "normalize_only": ("FLAT_REDUCED",),
    "vignetting_only": ("FLAT_NORMALIZED",),
    "make_master": ("FLAT_VIGNCORR", "FLAT_NORMALIZED"),
}
"""Kinds of files that a mode starts from, the best first."""
TAKES_FRAMES = ("normalize_only", "make_master")
"""Those of them that can take frames instead."""


def start_of(record, config):
    """Kind of file of an earlier run that the mode starts from, None where run.json lists none or the mode takes frames.

    A mode that can take frames takes those below --basepath where it is given.
    """
    if config.shared.basepath is not None and record.mode in TAKES_FRAMES:
        return None
    kinds = {ref.prodtype for ref in listed(record)}
    return next((kind for kind in STARTS.get(record.mode, ()) if kind in kinds), None)


def listed(record, prodtype=None):
    """Products that run.json lists, of one kind or all; an empty list where there are none."""
    try:
        found = record.products()
    except InputError as error:
        if "the file is gone" in str(error):
            raise
        return []
    return [ref for ref in found if prodtype in (None, ref.prodtype)]


def load_groups(record, refs):
    """Groups of the frames in files of an earlier run: list of (FlatGroup, numbers), and the `Setting`."""
    members = {}
    for ref in refs:
        members.setdefault(ref.facts["group"], []).append(ref)
    groups, heads = [], []
    for name, own in members.items():
        entries, images, levels, drifts = [], [], [], []
        for ref in sorted(own, key=lambda ref: ref.facts["number"]):
            image = scan_header(str(ref.path))
            row = read_product(ref.path, expect=ref.prodtype).inputs[0]
            head = image.cards
            entries.append(
                {
                    "original_path": row["file"],
                    "temperature": row["temperature"],
                    "exposure": row["exposure"],
                    "timestamp": row["time"],
                    "datasum": row["datasum"],
                    "caltype": "flat",
                    "filter": str(head["FILTER"]),
                }
            )
            images.append(image)
            levels.append(float(head.get("LEVEL", math.nan)))
            drifts.append(float(head.get("DRIFT", 0.0)))
            heads.append((ref.path, head))
        flat = FlatGroup(FrameGroup(entries, images), None, np.array(levels), np.array(drifts), name)
        flat.cards = {key: head[key] for key in _DARK_CARDS if key in head}
        groups.append((flat, sorted(ref.facts["number"] for ref in own)))
    _same_setting(heads)
    return groups, setting_of(heads[0][1])


_DARK_CARDS = ("DARKFROM", "DARKWHAT", "DARKTEMP", "DARKEXP", "NDARKS", "DARKLEV", "DARKEXTR")


def _same_setting(heads):
    first_path, first = heads[0]
    for path, head in heads:
        for key in ("ADUSCALE", "GAIN", "XBINNING", "NOISGAIN", "NAXIS1", "NAXIS2", "FLATTYPE", "NORMMETH"):
            if head.get(key) != first.get(key):
                raise InputError(
                    f"{path}: {key} {head.get(key)}, expected {first.get(key)} as in {first_path}"
                )


def setting_of(head):
    """`Setting` as the header of one of its products tells it."""
    return Setting(
        float(head["ADUSCALE"]),
        float(head["LSB"]),
        not head["STEP"],
        float(head.get("SATURATE", math.inf)),
        str(head.get("SATFROM", "")),
        1.0 / float(head["NOISGAIN"]) if head.get("NOISGAIN") else 0.0,
        str(head.get("GAINFROM", "")),
        math.nan,
        float(head["RNVAR"]),
    )


def file_stack(record, flat, factor=None, scales=None):
    """Stack of frames in files: corrected ones with the ``factor`` that was divided out, reduced ones with scales.

    Reads: the PEDESTAL of the group in run.json, for the errors.
    """
    refs = [ref for ref in record.products("PEDESTAL") if ref.facts.get("group") == flat.name]
    if not refs:
        raise InputError(f"{record.output_dir}: no PEDESTAL for {flat.name}; make it with --mode reduce_only")
    pedestal = read_product(refs[0].path, expect="PEDESTAL")
    base = read_plane(refs[0].path, "BASEVAR")
    images = flat.frames.images
    return FlatStack(
        flat,
        images,
        1.0,
        scales,
        None,
        None,
        factor,
        base,
        np.square(pedestal.uncert),
        math.inf,
        saturated_samples(images),
    )


def saturated_samples(images):
    """Number of frames in which each pixel is saturated, (ny, nx) uint16, as the files' quality bits tell."""
    count = None
    for image in images:
        dq = read_plane(image.path, "DQ")
        full = (dq & DQ.SATURATED) != 0
        if count is None:
            count = np.zeros(full.shape, np.uint16)
        count += full
    return count
