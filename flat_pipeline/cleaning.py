"""Sky and satellite flats frame by frame: what is not the even light is masked before frames are combined."""

import math
from dataclasses import dataclass

import numpy as np

from flat_pipeline.combining import FlatStack
from flat_pipeline.noise_model import sample_variance
from utils.domain import flat_levels
from utils.domain.cosmic_hits import hit_mask
from utils.domain.sky_sources import source_mask
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.header_scan import scan_header
from utils.fits_io.products import DQ, write_product
from utils.fits_io.spool import ArraySpool
from utils.kernels import combine
from utils.kernels.flat_level import frame_level, level_against

ROUNDS = {"sky": 2, "satellite": 1}
"""How often frames are searched: the first time with the plain median as the response, then with the masked mean."""


@dataclass(eq=False)
class FrameReader:
    """Reduced frames of a group, and the stack that combines them normalised.

    stack : `FlatStack`.  read : function (index) -> value (ny, nx) float32 [ADU] of its own, dq int16.
    """

    stack: object
    read: object


def normalised_frames(config, flat, reader, setting):
    """Yield index, value / level (ny, nx) float32 and quality bits of each frame of a group.

    What is not even light is NaN, with DO_NOT_USE; the levels of the group become those without it.
    """
    masks = None
    if config.flat_type in ROUNDS:
        masks, flat.levels = _clean(config, flat, reader, setting)
    for index in range(len(reader.stack.images)):
        value, dq = reader.read(index)
        value /= np.float32(flat.levels[index])
        if flat.fields is not None:
            for parity in (0, 1):
                value[parity::2] /= np.float32(flat.fields[index, parity])
        if masks is not None:
            mask = _unpack(masks[index], value.shape)
            value[mask] = np.nan
            dq = dq.copy()
            dq[mask] |= DQ.DO_NOT_USE
        yield index, value, dq


def masked_stack(config, flat, reader, setting, folder):
    """Stack of the normalised, masked frames of a group, which are written to a temporary folder."""
    images, saturated = [], None
    for index, value, dq in normalised_frames(config, flat, reader, setting):
        path = folder / f"{index:05d}.fits"
        write_product(path, value, prodtype="TEMPORARY", unit="")
        images.append(scan_header(str(path)))
        full = (dq & DQ.SATURATED) != 0
        saturated = full.astype(np.uint16) if saturated is None else saturated + full
    own = reader.stack
    return FlatStack(flat, images, 1.0, None, None, None, None, own.base, own.common, math.inf, saturated)


def _clean(config, flat, reader, setting):
    """Masks of the frames of a group, packed, and the levels (n,) [ADU] of the frames without what is masked."""
    with ArraySpool(config.output_dir) as spool:
        return _search(config, flat, reader, setting, spool)


def _search(config, flat, reader, setting, spool):
    kind, stack = config.flat_type, reader.stack
    n = len(stack.images)
    rows = flat_levels.level_rows(stack.images[0].shape)
    response = _plain_median(config, stack)
    levels, masks = flat.levels.copy(), [None] * n
    for attempt in range(ROUNDS[kind]):
        response /= np.float32(frame_level(response[rows], config.norm_method))
        for index in range(n):
            value, _ = reader.read(index)
            with np.errstate(divide="ignore", invalid="ignore"):
                even = value / (response * np.float32(levels[index]))
            if kind == "sky":
                mask = source_mask(even)
            else:
                mask = hit_mask(even, levels[index], _variance(setting, stack, response, levels[index], even))
            masks[index] = np.packbits(mask)
            value[mask] = np.nan
            if kind == "sky":
                levels[index] = level_against(value[rows], response[rows])
            if attempt + 1 < ROUNDS[kind]:
                spool.put((flat.name, index), value / np.float32(levels[index]))
        if attempt + 1 < ROUNDS[kind]:
            response = _masked_mean(spool, flat.name, n, response)
    return masks, levels


def _unpack(mask, shape):
    """Boolean mask (ny, nx) of its packed form."""
    return np.unpackbits(mask, count=shape[0] * shape[1]).reshape(shape).astype(bool)


def _plain_median(config, stack):
    rule = combine.CombineRule("median")
    shared = config.shared
    with FrameStack(
        stack.images, adu_scale=stack.adu_scale, jobs=shared.jobs, memory_limit=shared.memory_limit
    ) as frames:
        value = frames.combine(rule, stack.offsets, stack.scales, stack.pedestal, stack.factor).value
    if len(stack.images) < 3:
        # Two frames share the blame: neighbours tell what belongs to the sensor at large.
        from scipy import ndimage

        value = ndimage.median_filter(value, 5, mode="nearest")
    value[~(value > 0)] = np.nan
    return value


def _masked_mean(spool, name, n, fallback):
    """Mean of the frames without masked samples; ``fallback`` where there is no sample."""
    total, count = np.zeros(fallback.shape, np.float32), np.zeros(fallback.shape, np.float32)
    for index in range(n):
        value = spool.get((name, index))
        good = np.isfinite(value)
        total += np.where(good, value, np.float32(0.0))
        count += good
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / count
    return np.where((count > 0) & (mean > 0), mean, fallback)


def _variance(setting, stack, response, level, even):
    """Variance of a frame divided by the response, in ADU of its level [ADU^2]."""
    variance = sample_variance(setting, stack.base, response, 1.0 / level, 1.0 / level**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance *= np.float32(level * level) / np.square(response)
    usual = float(np.nanmedian(variance[:: max(1, variance.shape[0] // 64)]))
    return np.where(
        np.isfinite(variance) & np.isfinite(even), variance, usual if math.isfinite(usual) else 1.0
    )
