"""Every flat of a group read once, and summed by epoch: whole frames here, rows of them at the workers of a cluster."""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from utils.fits_io import cluster
from utils.fits_io.cluster_stack import as_sent
from utils.fits_io.frame_stack import FrameStack
from utils.kernels import changes

PLANES = 4
"""Planes that are summed beside one for each epoch."""


@dataclass(frozen=True, eq=False)
class _Frames:
    """What the sums need of a group: levels, noise, epoch (n,) of each frame, saturation [product ADU]."""

    levels: np.ndarray
    noise: list
    epoch: np.ndarray
    saturation: float
    forgive_step: bool


def average_epochs(group, epoch, flats, *, jobs, memory_limit, progress, reference, forgive_step):
    """Average the frames of one group by epoch; returns `utils.kernels.changes.GroupChange`.

    group : `LikeFlats`.  epoch : (n,) int.  flats : its `FlatSet`.  progress : called with 1 for each frame, or None.
    reference : (ny, nx) of another group, or None.  forgive_step : as `changes.GroupMeans`.
    """
    images = group.frames.images
    frames = _Frames(group.levels, group.noise, epoch, flats.saturation, forgive_step)
    if cluster.connected():
        means, full_count = _from_cluster(images, flats.adu_scale, frames, group.pedestal)
        for _ in images if progress is not None else ():
            progress(1)
    else:
        with FrameStack(images, adu_scale=flats.adu_scale, jobs=jobs, memory_limit=memory_limit) as stack:
            means, full_count = _sums(stack, frames, group.pedestal, slice(0, stack.shape[0]), progress)
    return means.finish(full_count > max(1, len(group) // 10), reference)


def _sums(stack, frames, pedestal, rows, progress=None):
    """`GroupMeans` of all frames of an open stack, and in how many each pixel is saturated; pedestal : of the rows."""
    shape = (rows.stop - rows.start, stack.shape[1])
    means = changes.GroupMeans(shape, frames.noise, frames.epoch, frames.forgive_step)
    full_count = np.zeros(shape, np.uint16)
    for index in range(len(stack.images)):
        frame, full = read_frame(stack, index, pedestal, frames.saturation, rows)
        full_count += full
        frame *= np.float32(1.0 / frames.levels[index])
        means.add(frame)
        if progress is not None:
            progress(1)
    means.flush()
    return means, full_count


def _from_cluster(images, adu_scale, frames, pedestal):
    ny, nx = images[0].shape
    planes = PLANES + np.unique(frames.epoch).size
    height = max(1, min(cluster.RESULT_BYTES // (4 * planes * nx), -(-ny // (2 * cluster.threads()))))
    blocks = [slice(start, min(start + height, ny)) for start in range(0, ny, height)]
    parts = ((rows, pedestal if np.ndim(pedestal) == 0 else pedestal[rows]) for rows in blocks)
    means = changes.GroupMeans((ny, nx), frames.noise, frames.epoch, frames.forgive_step)
    full_count = np.zeros((ny, nx), np.uint16)
    done = cluster.units(
        _sums_at_work, (as_sent(images), adu_scale, frames), parts,
        what=f"rows of {len(images)} flats", total=ny, weight=lambda found: len(found[1]), witness=images[0],
    )  # fmt: skip
    for number, (own, full) in done:
        means.join(blocks[number], own)
        full_count[blocks[number]] = full
    return means, full_count


@contextmanager
def _sums_at_work(images, adu_scale, frames, memory_limit):
    with FrameStack(images, adu_scale=adu_scale, memory_limit=memory_limit) as stack:
        yield lambda part: _sums(stack, frames, part[1], part[0])


def read_frame(stack, index, pedestal, saturation=math.inf, rows=None):
    """Read rows of one frame, all by default: float32 [product ADU] less the pedestal, and which samples are saturated."""
    ny, nx = stack.shape
    start, stop = (0, ny) if rows is None else (rows.start, rows.stop)
    raw = np.empty((stop - start, nx), stack.stored_type(index))
    stack.read_rows(index, start, raw)
    return to_adu(raw, stack.images[index], stack.adu_scale, pedestal, saturation)


def to_adu(raw, image, scale, pedestal, saturation=math.inf):
    """Stored samples in product ADU less the pedestal, float32, and which are saturated."""
    values = raw.astype(np.float32)
    if image.blank is not None and raw.dtype.kind in "iu":
        values[raw == image.blank] = np.nan
    values *= np.float32(image.bscale / scale)
    values += np.float32(image.bzero / scale)
    full = values >= np.float32(saturation)
    values -= pedestal
    return values, full
