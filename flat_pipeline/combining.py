"""Flats of each group combined: streamed, with the noise model around them; the results wait in a spool."""

import math
from dataclasses import dataclass, replace

import numpy as np

from flat_pipeline.noise_model import base_variance, median_variance_factor, sample_variance
from utils.domain import masters
from utils.fits_io.frame_stack import FrameStack, StackResult
from utils.fits_io.products import DQ
from utils.kernels import combine, noise


@dataclass(eq=False)
class FlatStack:
    """Frames of one group on their way to a master.

    flat : `FlatGroup`, whose levels are those of the raw frames.  images : what is read.  adu_scale : stored units per unit
    of ``pedestal``.  scales, offsets : (n,), pedestal, factor : (ny, nx) or None, as `FrameStack.combine` takes them.
    base : variance of a raw sample without light [ADU^2].  common : variance of the pedestal [ADU^2].
    saturation [product ADU].  saturated : (ny, nx) frames in which a pixel is saturated, of files, or None.
    """

    flat: object
    images: list
    adu_scale: float
    scales: np.ndarray | None
    offsets: np.ndarray | None
    pedestal: np.ndarray | None
    factor: np.ndarray | None
    base: object
    common: object
    saturation: float
    saturated: np.ndarray | None = None


def raw_stack(flat, pedestal, setting, source):
    """Stack of the raw frames of a group: ``(x - pedestal - drift) / level``."""
    scales = 1.0 / flat.levels
    return FlatStack(
        flat,
        flat.frames.images,
        setting.adu_scale,
        scales,
        -scales * flat.drifts if np.any(flat.drifts) else None,
        pedestal.value,
        None,
        base_variance(setting, source.read_variance, pedestal.dark),
        pedestal.variance,
        setting.saturation,
    )


class CombinedFlats:
    """All groups combined: `add` each, then `finish`, then `master` gives value, error and quality of one.

    Values, errors and flags wait in ``spool``.  Pixels are judged by the scatter of all groups together.
    """

    def __init__(self, config, setting, spool):
        shared = config.shared
        self.setting, self.spool = setting, spool
        self.options = masters.CombineOptions(
            shared.combine, shared.clip_sigma, shared.jobs, shared.memory_limit
        )
        self.sky = config.flat_type == "sky"
        self.flats, self.rejected = [], []
        self.sums, self.pooled, self.noise = {}, None, None

    def add(self, stack, progress=None):
        """Combine one group."""
        index, setting = len(self.flats), self.setting
        inverse = 1.0 / stack.flat.levels
        mean, square = float(inverse.mean()), float(np.square(inverse).mean())
        base_number = float(np.median(np.asarray(stack.base).reshape(-1)[::7]))
        n = len(stack.images)
        rule = combine.CombineRule(
            self.options.method,
            self.options.clip_sigma,
            base_number * square,
            setting.inverse_gain * mean,
            0.0,
            stack.saturation,
            setting.step * mean,
        )
        with FrameStack(
            stack.images,
            adu_scale=stack.adu_scale,
            jobs=self.options.jobs,
            memory_limit=self.options.memory_limit,
        ) as frames:
            how = (stack.offsets, stack.scales, stack.pedestal, stack.factor)
            result = frames.combine(rule, *how, progress)
            if self.sky:
                self.spool.put((index, "median"), frames.combine(replace(rule, method="median"), *how).value)
        if self.options.method != "mean" and n >= 3:
            result.variance *= np.float32(noise.clip_factor(self.options.clip_sigma) ** 2)
        if stack.saturated is not None:
            # As the stack of raw frames judges it.
            result.flags[stack.saturated > max(1, n // 10)] |= combine.SATURATED
        result.value[result.n_used == 0] = np.nan
        expected = sample_variance(setting, stack.base, result.value, mean, square)
        self._pool(result, expected)
        with np.errstate(divide="ignore"):
            own = expected / result.n_used
        own *= np.float32(median_variance_factor(self.options.method, n))
        common = np.asarray(stack.common, np.float32) * np.float32(mean * mean)
        self._sum(stack.flat.filter, result.value, own)
        self.spool.put((index, "value"), result.value)
        self.spool.put((index, "own"), own)
        self.spool.put((index, "common"), np.broadcast_to(common, result.value.shape))
        self.spool.put((index, "flags"), result.flags)
        self.flats.append(stack.flat)
        self.rejected.append(1.0 - float(result.n_used.mean(dtype=np.float64)) / n)

    def _pool(self, result, expected):
        """Add the scatter of one group in units of the noise model."""
        if self.pooled is None:
            self.pooled = masters.PooledNoise(result.value.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = result.variance / expected
        ratio[~np.isfinite(ratio)] = np.nan
        self.pooled.add(StackResult(result.value, ratio, result.n_used, result.flags), 1.0)

    def _sum(self, name, value, own):
        """Add one group to the weighted mean of its filter."""
        weight = np.float32(1.0 / max(float(np.nanmedian(own.reshape(-1)[::7])), 1e-30))
        if name not in self.sums:
            self.sums[name] = (np.zeros(value.shape, np.float32), np.zeros(value.shape, np.float32), [])
        total, weights, each = self.sums[name]
        good = np.isfinite(value)
        total += np.where(good, value, np.float32(0.0)) * weight
        weights += good * weight
        each.append(weight)

    def finish(self):
        """Moderate the pixels' own scatter; afterwards masters have errors."""
        self.noise = self.pooled.finish(1.0)
        scale = noise.expected_variance(self.noise.dof + np.float32(self.noise.prior_dof))
        scale = np.where(self.noise.noisy | (self.noise.prior_dof == 0), np.float32(1.0), scale)
        self.ratio = self.noise.variance * scale
        self.pooled = None

    @property
    def excess(self):
        """Scatter of ordinary pixels over the noise model, as a standard deviation; NaN where no group tells."""
        return self.noise.prior if self.noise.prior_dof > 0 else math.nan

    def of_filter(self, name):
        """Weighted mean of the flats of a filter and its error, (ny, nx) float32, NaN where none has a value."""
        total, weights, _ = self.sums[name]
        with np.errstate(divide="ignore", invalid="ignore"):
            return total / weights, np.sqrt(self.ratio / weights)

    def sky_median(self, index):
        """Median of the sky flats of one group, (ny, nx) float32."""
        return self.spool.get((index, "median"))

    def master(self, index):
        """Value, 1 sigma (ny, nx) float32 and quality bits (int16) of one group."""
        value, flags = self.spool.get((index, "value")), self.spool.get((index, "flags"))
        sigma = self.spool.get((index, "own"))
        sigma *= self.ratio
        sigma += self.spool.get((index, "common"))
        np.sqrt(sigma, out=sigma)
        dq = np.zeros(value.shape, np.int16)
        dq[self.noise.noisy] |= DQ.NOISY
        dq[(flags & combine.SATURATED) != 0] |= DQ.SATURATED
        lost = ~np.isfinite(value)
        dq[lost] |= DQ.NO_DATA
        sigma[lost] = np.nan
        return value, sigma, dq
