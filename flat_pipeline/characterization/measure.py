"""Mean and temporal noise of groups of frames, streamed; the light's changes from frame to frame taken out."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from utils.fits_io.frame_stack import FrameStack
from utils.kernels.combine import CombineRule
from utils.kernels.emva import CLIP_SIGMA
from utils.kernels.screen import robust_level

LEVEL_VALUES = 1 << 18
"""Values of a frame from which its level against the first of its group is found."""
STRETCH = 16
"""Pixels of a row whose mean tells a pattern from noise."""
BLOCK_VALUES = 1 << 20


@dataclass(frozen=True)
class Reading:
    """How samples become product ADU, and what may be used for it."""

    adu_scale: float
    jobs: int
    memory_limit: int


@dataclass(eq=False)
class Stack:
    """Frames of one group about their pedestal, brought to one level.

    images; pedestal (ny, nx) or None.  value, variance (ny, nx) float32: mean, and scatter of one sample [ADU, ADU^2].
    levels (n,) of the frames above the pedestal [ADU].  scales, offsets (n,) : what they were brought to one level with.
    """

    images: list
    pedestal: np.ndarray | None
    value: np.ndarray
    variance: np.ndarray
    levels: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray

    @property
    def dof(self):
        """Degrees of freedom of the variance of a pixel."""
        return len(self.images) - 1

    @property
    def scatter(self):
        """Scatter of the frames' levels [ADU], that of noise included; NaN for one frame."""
        return float(self.levels.std(ddof=1)) if self.dof > 0 else math.nan


def frame_levels(images, pedestal, reading):
    """Level of each frame above the pedestal (n,) [ADU], from a fixed sample of rows.

    The first frame's own, and the robust mean of the difference of each other from it: pixels that are struck, or jump,
    count no more than others.
    """
    levels, first, start = [], None, None
    for rows, values in _samples(images, reading):
        if first is None:
            first = values if pedestal is None else values - pedestal[rows]
            start = values
            levels.append(robust_level(first)[0])
        else:
            levels.append(levels[0] + robust_level(values - start)[0])
    return np.array(levels)


def moving_light(images, pedestal, levels, reading):
    """Variance that a pattern of light which differs between the frames adds to that of a sample, and its error [ADU^2].

    levels : (n,) of the frames [ADU].  From means of stretches of rows of the same sample: noise of pixels averages
    there, a pattern does not.  Rows that differ in temporal noise count too.
    """
    means, noise, start = [], [], None
    for (rows, values), level in zip(_samples(images, reading), levels, strict=True):
        light = (values if pedestal is None else values - pedestal[rows]) * np.float32(levels.mean() / level)
        start = light if start is None else start
        left = light - start
        middle, spread = robust_level(left)
        left = np.clip(np.nan_to_num(left - middle), -CLIP_SIGMA * spread, CLIP_SIGMA * spread)
        width = min(STRETCH, left.shape[1])
        cells = left[:, : left.shape[1] // width * width].reshape(-1, width)
        means.append(cells.mean(axis=1, dtype=np.float64))
        noise.append(float(cells.var(axis=1, ddof=1).mean(dtype=np.float64)))
    means, frames = np.array(means), len(means)
    # Each difference to the first frame holds the noise of two.
    expected = 0.5 * float(np.mean(noise[1:])) / width
    between = float(means.var(axis=0, ddof=1).mean())
    return between - expected, expected * math.sqrt(2.0 / ((frames - 1) * means.shape[1]))


def _samples(images, reading):
    """Rows of the sample (r,) and their values [ADU], (r, nx), frame after frame."""
    with FrameStack(images) as stack:
        ny, nx = stack.shape
        count = min(ny, max(16, LEVEL_VALUES // nx))
        rows = np.arange(ny) if count >= ny else np.linspace(0, ny - 1, count + 2)[1:-1].astype(int)
        for index, image in enumerate(images):
            yield rows, _adu(np.asarray(stack.frame_view(index)[rows]), image, reading)


def _adu(stored, image, reading):
    """Product ADU of stored samples, float32; blank samples NaN."""
    values = stored.astype(np.float64) * (image.bscale / reading.adu_scale) + image.bzero / reading.adu_scale
    if image.blank is not None and image.bitpix > 0:
        values[stored == image.blank] = np.nan
    return values.astype(np.float32)


def measure(images, pedestal, reading, *, light, levels=None):
    """Combine the frames of one group; returns a `Stack`.

    light : frames are brought to one level by a factor, as a lamp changes them; else by an offset, as a zero level does.
    With that the difference of the levels of a pair, (mu_A - mu_B)^2 / 2 of EMVA 1288, does not enter the variance.
    """
    levels = frame_levels(images, pedestal, reading) if levels is None else levels
    ones, zeros = np.ones(levels.size), np.zeros(levels.size)
    mean = float(levels.mean())
    scales = mean / levels if light else ones
    offsets = zeros if light else mean - levels
    with FrameStack(
        images, adu_scale=reading.adu_scale, jobs=reading.jobs, memory_limit=reading.memory_limit
    ) as stack:
        result = stack.combine(
            CombineRule("mean"), None if light else offsets, scales if light else None, pedestal
        )
    variance = result.variance
    if light:
        # A sample of a level L has the variance L/g, and was multiplied by mean/L.
        variance /= np.float32(np.mean(scales))
    return Stack(list(images), pedestal, result.value, variance, levels, scales, offsets)


def profiles(stack, good, sigma, reading):
    """Means of rows (n, ny) and columns (n, nx) of each frame less those of the stack, over good pixels.

    sigma : (ny, nx) or a number, noise of a sample [ADU]; residuals beyond 5 of it do not count.
    """
    ny, nx = stack.value.shape
    sums = np.zeros((len(stack.images), ny)), np.zeros((len(stack.images), nx))
    sigma = np.broadcast_to(np.float32(CLIP_SIGMA) * np.asarray(sigma, np.float32), (ny, nx))
    height = max(1, BLOCK_VALUES // nx)
    with FrameStack(stack.images) as frames:

        def one(index):
            image = stack.images[index]
            view = frames.frame_view(index)
            for top in range(0, ny, height):
                part = slice(top, top + height)
                left = _adu(np.asarray(view[part]), image, reading)
                if stack.pedestal is not None:
                    left -= stack.pedestal[part]
                left *= np.float32(stack.scales[index])
                left += np.float32(stack.offsets[index])
                left -= stack.value[part]
                with np.errstate(invalid="ignore"):
                    left[~(good[part] & (np.abs(left) <= sigma[part]))] = 0.0
                sums[0][index, part] = left.sum(axis=1)
                sums[1][index] += left.sum(axis=0)

        with ThreadPoolExecutor(reading.jobs) as pool:
            list(pool.map(one, range(len(stack.images))))
    rows = sums[0] / np.maximum(good.sum(axis=1), 1)
    return rows, sums[1] / np.maximum(good.sum(axis=0), 1)
