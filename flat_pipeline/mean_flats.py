"""The mean flat of each filter, in which illumination and defects are found: as a product, and the way back."""

from dataclasses import dataclass

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


def cards_of(context, name):
    """Header cards of all combined frames of a filter together."""
    own = [flat.frames for flat in context.combined.flats if flat.filter == name]
    together = FrameGroup(
        [entry for frames in own for entry in frames.entries],
        [image for frames in own for image in frames.images],
    )
    return {**together.cards(), **setting_cards(context.config, context.setting)}


def write(context):
    """Write the mean flat of each filter: mean_flat/mean_flat_{FILTER}.fits."""
    config, record, combined = context.config, context.record, context.combined
    names = filter_names(flat.filter for flat in combined.flats)
    for name, spelled in names.items():
        path = record.claim(config.output_dir / FOLDER / f"mean_flat_{spelled}.fits")
        flat, sigma = combined.of_filter(name)
        dq = np.zeros(flat.shape, np.int16)
        dq[combined.noisy] |= DQ.NOISY
        write_product(
            path,
            flat,
            prodtype="MEAN_FLAT",
            unit="",
            cards={**cards_of(context, name), "FILTER": (name, "filter, NONE where the frames tell none")},
            uncert=sigma,
            dq=dq,
            jobs=config.shared.jobs,
        )
        record.add_product(path, "MEAN_FLAT", filter=name)


def paths(record):
    """Filter -> file of the mean flat that run.json lists.  Raises InputError where there is none."""
    refs = record.products("MEAN_FLAT", made_by="--mode normalize_only or full")
    return {ref.facts["filter"]: ref.path for ref in refs}


def read(path):
    """`MeanFlat` of a file."""
    product = read_product(path, expect="MEAN_FLAT")
    head = product.header
    cards = {**header_from_inputs([head]), **{key: head[key] for key in DATES if key in head}}
    usable = np.isfinite(product.data) & ((product.dq & int(DQ.NOISY)) == 0)
    return MeanFlat(product.data, product.uncert, usable, cards, str(head["FLATTYPE"]))
