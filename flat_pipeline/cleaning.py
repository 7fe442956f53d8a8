"""Sky and satellite flats frame by frame: what is not the even light is masked before frames are combined."""

import math
from dataclasses import dataclass

import numpy as np

from flat_pipeline.combining import FlatStack
from flat_pipeline.noise_model import sample_variance
from flat_pipeline.sky import SkyFrames, unpacked
from utils.domain import flat_levels
from utils.domain.cosmic_hits import hit_mask
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.header_scan import scan_header
from utils.fits_io.products import DQ, write_product
from utils.kernels import combine
from utils.kernels.flat_level import frame_level


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

    def read(index):
        value, dq = reader.read(index)
        if flat.fields is not None:
            for parity in (0, 1):
                value[parity::2] /= np.float32(flat.fields[index, parity])
        return value, dq

    found = None
    if config.flat_type == "sky":
        found = SkyFrames(flat, read, plain_median(config, reader.stack), config.norm_method)
    elif config.flat_type == "satellite":
        found = _StruckFrames(config, flat, reader.stack, read, setting)
    if found is not None:
        flat.levels = found.levels
    for index in range(len(reader.stack.images)):
        value, dq = read(index)
        if found is None:
            value /= np.float32(flat.levels[index])
        else:
            value, mask = found.even(index, value)
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


class _StruckFrames:
    """Satellite flats: each frame with a mask of the cosmic hits in it."""

    def __init__(self, config, flat, stack, read, setting):
        self.levels, self._masks = flat.levels.copy(), []
        response = plain_median(config, stack)
        rows = flat_levels.level_rows(response.shape)
        response /= np.float32(frame_level(response[rows], config.norm_method))
        for index, level in enumerate(self.levels):
            value, _ = read(index)
            with np.errstate(divide="ignore", invalid="ignore"):
                even = value / (response * np.float32(level))
            mask = hit_mask(even, level, _variance(setting, stack, response, level, even))
            self._masks.append(np.packbits(mask))

    def even(self, index, value):
        """Frame divided by its level, and what is masked in it."""
        return value / np.float32(self.levels[index]), unpacked(self._masks[index], value.shape)


def plain_median(config, stack):
    """Median of the normalised frames of a group, the first idea of the response, (ny, nx) float32; NaN without light."""
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


def _variance(setting, stack, response, level, even):
    """Variance of a frame divided by the response, in ADU of its level [ADU^2]."""
    variance = sample_variance(setting, stack.base, response, 1.0 / level, 1.0 / level**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance *= np.float32(level * level) / np.square(response)
    usual = float(np.nanmedian(variance[:: max(1, variance.shape[0] // 64)]))
    return np.where(
        np.isfinite(variance) & np.isfinite(even), variance, usual if math.isfinite(usual) else 1.0
    )
