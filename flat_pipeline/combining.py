"""Flats of each group combined: streamed, with the noise model around them; the results wait in a spool."""

import math
from dataclasses import dataclass, replace

import numpy as np

from flat_pipeline.noise_model import base_variance, median_variance_factor, sample_variance
from utils.domain import masters
from utils.errors import InputError
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.products import DQ
from utils.fits_io.workers import over_pixels
from utils.kernels import combine, noise
from utils.kernels.medians import median


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


def raw_stack(flat, pedestal, setting, source, jobs=1):
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
        base_variance(setting, source.read_variance, pedestal.dark, jobs),
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
        self.weights, self.pooled = {}, None
        self.commons, self.sources, self._last_common = [], [], None

    def add(self, stack, progress=None):
        """Combine one group."""
        index, setting = len(self.flats), self.setting
        inverse = 1.0 / stack.flat.levels
        mean, square = float(inverse.mean()), float(np.square(inverse).mean())
        base_number = float(median(np.asarray(stack.base).reshape(-1)[::7]))
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
        if stack.saturated is not None:
            # As the stack of raw frames judges it.
            result.flags[stack.saturated > max(1, n // 10)] |= combine.SATURATED
        result.value[result.n_used == 0] = np.nan
        if not np.isfinite(result.value).any():
            raise InputError(f"{stack.flat.name}: no pixel has a value, expected light above bias and dark")
        own = self._judge(stack, result, mean, square)
        some = own.reshape(-1)[::7]
        some = some[np.isfinite(some)]
        weight = np.float32(1.0 / max(float(median(some if some.size else own[np.isfinite(own)])), 1e-30))
        self.weights.setdefault(stack.flat.filter, []).append((index, weight))
        for name, plane in {"value": result.value, "own": own, "flags": result.flags}.items():
            self.spool.put((index, name), plane)
        self.commons.append((self._common_key(stack.common), np.float32(mean * mean)))
        self.sources.append(_source(stack.flat.cards))
        self.flats.append(stack.flat)
        self.rejected.append(1.0 - float(result.n_used.mean(dtype=np.float64)) / n)

    def _common_key(self, plane):
        """Key of the variance of a pedestal, which waits once for groups that share it."""
        if self._last_common is None or self._last_common[1] is not plane:
            key = (len(self.flats), "common")
            self.spool.put(key, np.broadcast_to(np.asarray(plane, np.float32), self.pooled.shape))
            self._last_common = key, plane
        return self._last_common[0]

    def _judge(self, stack, result, mean, square):
        """Variance of the combined values by the noise model, (ny, nx); what the samples have of it goes to the pool."""
        jobs, n = self.options.jobs, len(stack.images)
        own = np.empty(result.value.shape, np.float32)
        clipped = self.options.method != "mean" and n >= 3
        widening = np.float32(noise.clip_factor(self.options.clip_sigma) ** 2 if clipped else 1.0)
        factor = np.float32(median_variance_factor(self.options.method, n))
        values, variances, counts, owns = (
            one.reshape(-1) for one in (result.value, result.variance, result.n_used, own)
        )
        base = np.asarray(stack.base, np.float32)
        bases = np.broadcast_to(base, values.size) if base.ndim == 0 else base.reshape(-1)
        if self.pooled is None:
            self.pooled = masters.PooledNoise(result.value.shape, jobs)
            self.pooled.open()

        def piece(part):
            expected = sample_variance(self.setting, bases[part], values[part], mean, square)
            with np.errstate(divide="ignore", invalid="ignore"):
                seen = variances[part] * widening
                seen /= expected
                self.pooled.add_part(part, seen, counts[part])
                expected /= counts[part]
            np.multiply(expected, factor, out=owns[part])

        over_pixels(piece, values.size, jobs)
        return own

    def finish(self):
        """Moderate the pixels' own scatter; afterwards masters have errors."""
        found = self.pooled.finish(1.0)
        self.pooled = None
        self.noisy, self.prior, self.prior_dof = found.noisy, found.prior, found.prior_dof
        self.ratio = np.empty(found.variance.shape, np.float32)
        planes = (self.ratio, found.variance, found.dof, found.noisy)
        ratios, variances, dofs, noisies = (one.reshape(-1) for one in planes)

        def piece(part):
            scale = noise.expected_variance(dofs[part] + np.float32(found.prior_dof))
            plain = noisies[part] | (found.prior_dof == 0)
            ratios[part] = variances[part] * np.where(plain, np.float32(1.0), scale)

        over_pixels(piece, ratios.size, self.options.jobs)

    @property
    def excess(self):
        """Scatter of ordinary pixels over the noise model, as a standard deviation; NaN where no group tells."""
        return self.prior if self.prior_dof > 0 else math.nan

    def of_filter(self, name):
        """Weighted mean of the flats of a filter and its error, (ny, nx) float32, NaN where none has a value."""
        value, sigma = (np.empty(self.ratio.shape, np.float32) for _ in range(2))
        values, sigmas, ratios = (one.reshape(-1) for one in (value, sigma, self.ratio))

        def piece(part):
            total, weights, variance = (np.zeros_like(ratios[part]) for _ in range(3))
            shares = {}
            for index, weight in self.weights[name]:
                one, own = (self.spool.part((index, kind), part) for kind in ("value", "own"))
                good = np.isfinite(one)
                if good.all():  # as nearly everywhere
                    good = True
                else:
                    one[~good] = own[~good] = 0.0
                one *= weight
                total += one
                weights += good * weight
                # Of each pixel its own: where the light is faint the flat varies less, its ratio to the illumination more.
                own *= weight**2
                variance += own
                key, scale = self.commons[index]
                share = shares.setdefault((self.sources[index], key), np.zeros_like(total))
                share += good * (weight * np.sqrt(scale))
            variance *= ratios[part]
            variance += self._pedestal_variance(shares, part)
            with np.errstate(divide="ignore", invalid="ignore"):
                np.divide(total, weights, out=values[part])
                np.divide(np.sqrt(variance, out=variance), weights, out=sigmas[part])

        over_pixels(piece, values.size, self.options.jobs)
        return value, sigma

    def _pedestal_variance(self, shares, part):
        """Variance that the pedestals leave in a sum of groups.

        shares : (source of a pedestal, key of its variance) -> weight of its groups in the sum.  What comes of one source
        errs alike in all groups, sources err apart from each other.
        """
        errors = {}
        for (source, key), share in shares.items():
            share *= np.sqrt(self.spool.part(key, part))
            errors[source] = share + errors.get(source, np.float32(0.0))
        return sum(np.square(error) for error in errors.values())

    def sky_median(self, index):
        """Median of the sky flats of one group, (ny, nx) float32."""
        return self.spool.get((index, "median"))

    def master(self, index, part):
        """Value, 1 sigma float32 and quality bits (int16) of one group; part : slice of flat pixels."""
        value, flags, sigma = (self.spool.part((index, name), part) for name in ("value", "flags", "own"))
        key, scale = self.commons[index]
        sigma *= self.ratio.reshape(-1)[part]
        sigma += self.spool.part(key, part) * scale
        np.sqrt(sigma, out=sigma)
        lost = ~np.isfinite(value)
        dq = np.multiply(self.noisy.reshape(-1)[part], np.int16(DQ.NOISY), dtype=np.int16)
        for pixels, bit in (((flags & combine.SATURATED) != 0, DQ.SATURATED), (lost, DQ.NO_DATA)):
            if pixels.any():
                dq[pixels] |= bit
        sigma[lost] = np.nan
        return value, sigma, dq


def _source(cards):
    """What the pedestal of a group was made of: one master of darks, or what serves all groups (bias, dark model)."""
    kind, *dark = (cards.get(key) for key in ("DARKFROM", "DARKTEMP", "DARKEXP"))
    return (kind, *dark) if "master dark" in np.ravel(kind) else None
