"""The mean flat of each filter, from which its illumination is found: as a product, and the way back."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from flat_pipeline.products import filter_names, setting_cards
from utils.domain.frame_groups import FrameGroup
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ, header_from_inputs, write_product

FOLDER = "mean_flat"
DATES = ("DATE-BEG", "DATE-AVG", "DATE-END")


@dataclass(eq=False)
class MeanFlat:
    """flat, sigma : (ny, nx) float32, level about 1, illumination and response together.  usable : (ny, nx) bool.

    cards : header cards of its frames.  flat_type : kind of light.
    """

    flat: np.ndarray
    sigma: np.ndarray
    usable: np.ndarray
    cards: dict
    flat_type: str


def of_combined(context):
    """Filter -> function that makes the `MeanFlat` of the combined groups: one at a time is in memory."""
    names = dict.fromkeys(flat.filter for flat in context.combined.flats)
    return {name: partial(_of_filter, context, name) for name in names}


def _of_filter(context, name):
    combined = context.combined
    own = [flat.frames for flat in combined.flats if flat.filter == name]
    together = FrameGroup(
        [entry for frames in own for entry in frames.entries],
        [image for frames in own for image in frames.images],
    )
    cards = {**together.cards(), **setting_cards(context.config, context.setting)}
    flat, sigma = combined.of_filter(name)
    usable = np.isfinite(flat) & ~combined.noisy
    return MeanFlat(flat, sigma, usable, cards, str(cards["FLATTYPE"][0]))


def write(context):
    """Write the mean flat of each filter: mean_flat/mean_flat_{FILTER}.fits."""
    config, record = context.config, context.record
    flats = of_combined(context)
    names = filter_names(flats)
    for name, make in flats.items():
        mean = make()
        path = record.claim(config.output_dir / FOLDER / f"mean_flat_{names[name]}.fits")
        dq = np.zeros(mean.flat.shape, np.int16)
        dq[~np.isfinite(mean.flat)] |= DQ.NO_DATA
        dq[context.combined.noisy] |= DQ.NOISY
        cards = {**mean.cards, "FILTER": (name, "filter, NONE where the frames tell none")}
        write_product(
            path,
            mean.flat,
            prodtype="MEAN_FLAT",
            unit="",
            cards=cards,
            uncert=mean.sigma,
            dq=dq,
            jobs=config.shared.jobs,
        )
        record.add_product(path, "MEAN_FLAT", filter=name)


def load(record, made_by):
    """Mean flats that run.json lists: filter -> function that reads it.  Raises InputError where there is none."""
    refs = record.products("MEAN_FLAT", made_by=made_by)
    return {ref.facts["filter"]: partial(_read, ref.path) for ref in refs}


def _read(path):
    product = read_product(path, expect="MEAN_FLAT")
    head = product.header
    cards = {**header_from_inputs([head]), **{key: head[key] for key in DATES if key in head}}
    usable = np.isfinite(product.data) & ((product.dq & int(DQ.NOISY)) == 0)
    return MeanFlat(product.data, product.uncert, usable, cards, str(head["FLATTYPE"]))
