"""Combine each group of darks, take the bias off, and judge pixels: dark-current maps, hot and unstable pixels."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from dark_pipeline import hot_pixels, products
from dark_pipeline.config import ASSUMED_B, DRIFT_MATTERS
from dark_pipeline.screening import law_of_levels, screen_darks, take_out_drift
from utils.application.log import LOGGER, progress
from utils.domain import bias_source, masters
from utils.fits_io.naming import counted, label
from utils.fits_io.products import DQ
from utils.fits_io.spool import ArraySpool
from utils.kernels import combine, dark_noise, noise
from utils.kernels.pieces import PIECE, in_pieces

TRANSFER_PIXELS, TRANSFER_BRIGHT = 20000, 3000
"""Pixels of each group from which gain and full well are found: of all kinds, and the brightest."""
GAIN_OFF = 1.3
"""A given gain that differs by this factor from what the darks show is worth a word."""


def run(config, context):
    """Make the maps.

    Reads: the frames of ``context.groups``, bias_used/.
    Writes: dark_masks_by_temp/exp_*/dark_mask_t{T}_e{t}.fits, dark_model/exp_*/hot_pixels.fits,
    dark_model_2d/hot_pixels.fits, with --save-corrected bias_corrected_darks/.
    """
    shared, record, bias = config.shared, context.record, context.bias
    with record.step("dark_maps") as step:
        groups, screening = screen_darks(context.groups, config, bias, record)
        if bias is not None:
            entry, image = groups[0].frames.frames.entries[0], groups[0].frames.frames.images[0]
            bias_source.check_match(
                bias, image, entry, screening.adu_scale, f"the dark {entry['original_path']}"
            )
        if record.rejected:
            record.warn(f"{counted(len(record.rejected), 'frame')} left out, see rejected_frames.csv")
        names = products.map_names(groups)
        if shared.dry_run:
            step.summary = f"would write {counted(len(groups), 'map')}: " + ", ".join(
                f"{a}/{b}" for a, b in names
            )
            return
        maker = MapMaker(config, record, bias, groups, screening)
        with ArraySpool(config.output_dir) as spool:
            maker.combine_all(spool)
            maker.judge(spool)
            maker.write_all(spool, names)
        if config.save_corrected:
            products.write_corrected(config, record, bias, groups, screening)
        # What follows reads the products: the memory of the bias is worth more than its second reading.
        context.bias = None
        frames = sum(len(group.frames.frames) for group in groups)
        step.summary = f"{counted(len(groups), 'map')} of {counted(frames, 'frame')} ({shared.combine})"


class MapMaker:
    """What the groups of one set share on the way from frames to maps."""

    def __init__(self, config, record, bias, groups, screening):
        self.config, self.record, self.bias = config, record, bias
        self.groups, self.screening = groups, screening
        self.shape = groups[0].frames.frames.images[0].shape
        self.read_variance = None if bias is None else bias.read_variance
        self.options = masters.CombineOptions(
            config.shared.combine, config.shared.clip_sigma, config.shared.jobs, config.shared.memory_limit
        )
        self.inverse_gain = self._gain_from_user()
        self.gain_given = self.inverse_gain is not None
        self.full_well = math.inf
        self.transfer = None
        self._settle_read_noise()
        b, self.misfit = law_of_levels(groups, [self._pixel_variance(group) for group in groups])
        self.b = ASSUMED_B if b is None else b

    def _gain_from_user(self):
        """ADU per electron: --gain, --detector, the frames' headers, the bias's; None where none tells."""
        first = self.groups[0].frames.frames.entries[0]
        egain = self.config.shared.egain(first["egain"], self.screening.adu_scale)
        if egain is None and self.bias is not None and self.bias.model.header.get("EGAIN"):
            egain = float(self.bias.model.header["EGAIN"])
        return None if egain is None else 1.0 / egain

    def _settle_read_noise(self):
        """One number for the read noise: the map of the bias, else the detector's, else the quietest group."""
        if self.read_variance is not None:
            self.read_number = float(np.median(self.read_variance))
            return
        least = self.screening.lsb**2 / 12.0
        detector = self.config.shared.load_detector()
        if detector is not None and detector.read_noise is not None:
            self.read_number = detector.read_noise.value**2 + least
            return
        known = [g.frames.within**2 for g in self.groups if math.isfinite(g.frames.within)]
        if known:
            self.read_number = max(min(known), least)
        else:
            self.read_number = max(min(g.frames.spatial for g in self.groups) ** 2, least)
            self.record.warn(
                "no group has two frames and the bias tells no read noise: taken from neighbouring pixels"
                f" ({math.sqrt(self.read_number):.3g} ADU)"
            )

    def _pixel_variance(self, group):
        """Variance of a pixel in the mean of a group [ADU^2]."""
        own = group.frames.within**2 if math.isfinite(group.frames.within) else 0.0
        return max(own, self.read_number) / len(group.frames.frames)

    def take_bias_off(self, group, value):
        """Subtract the bias of the group's temperature from its level (ny, nx) [ADU], in place; returns it."""
        if self.bias is not None:
            model, t = self.bias.model, np.float32(group.temperature)
            for level, a, b in in_pieces(value, model.a, model.b):
                level -= a
                level -= b * t
        return value

    def combine_all(self, spool):
        """Combine every group; signals wait in the spool with their scatter."""
        self._first_look()
        found = []
        for index in progress(range(len(self.groups)), len(self.groups), "dark maps"):
            group = self.groups[index]
            result = self._combine(group, self.options)
            signal = self.take_bias_off(group, result.value)
            if len(group.frames.frames) > 1:
                found.append(_transfer_sample(signal, result))
            for name, array in (("signal", signal), ("n_used", result.n_used), ("flags", result.flags)):
                spool.put((index, name), array)
            spool.put((index, "variance"), result.variance)
        if found:
            self.transfer = dark_noise.photon_transfer(
                *(np.concatenate(column) for column in zip(*found, strict=True))
            )
            self.full_well = min(self.full_well, self.transfer.full_well)
        if not self.gain_given and self.transfer is not None and math.isfinite(self.transfer.inverse_gain):
            self.inverse_gain = self.transfer.inverse_gain
        self._say_noise()

    def _combine(self, group, options, correct=True):
        scales = None
        change = self.b * np.abs(group.frames.frames.temperatures - group.temperature).max()
        group.corrected = bool(correct and change > DRIFT_MATTERS)
        group.frames.offsets = None
        if group.corrected:
            scales = take_out_drift(group, self.b, self.bias)
        options = masters.CombineOptions(
            options.method, options.clip_sigma, options.jobs, options.memory_limit, self.inverse_gain or 0.0
        )
        sigma = max(
            group.frames.within if math.isfinite(group.frames.within) else 0.0, math.sqrt(self.read_number)
        )
        return masters.combine_group(group.frames, self.screening, sigma, options, scales=scales)

    def _first_look(self):
        """Full well, from the group with the most signal without clipping, and a first gain.

        The full well shows where the scatter collapses, which a correction of drift would hide.  Without a gain the
        clipping would take shot noise of bright pixels for outliers.
        """
        several = [group for group in self.groups if len(group.frames.frames) > 1]
        if not several:
            return
        if self.inverse_gain is None:
            self.inverse_gain = dark_noise.gain_of_levels(
                [group.signal for group in several],
                [group.frames.within**2 for group in several],
                self.read_number,
            )
        brightest = max(several, key=lambda group: group.signal)
        plain = masters.CombineOptions("mean", 4.0, self.options.jobs, self.options.memory_limit)
        result = self._combine(brightest, plain, correct=False)
        signal = self.take_bias_off(brightest, result.value)
        first = dark_noise.photon_transfer(*_transfer_sample(signal, result), self.read_number)
        self.full_well = first.full_well
        if self.inverse_gain is None and math.isfinite(first.inverse_gain):
            self.inverse_gain = first.inverse_gain

    def _say_noise(self):
        record = self.record
        if self.inverse_gain is None:
            record.warn(
                "gain [e-/ADU] unknown (no --gain, no EGAIN, frames do not tell): the scatter of ordinary pixels serves"
            )
        else:
            record.value("gain used", 1.0 / self.inverse_gain, "e-/adu", section="camera")
        t = self.transfer
        if t is not None and math.isfinite(t.inverse_gain):
            error = t.error / t.inverse_gain**2
            record.value(
                "gain from the scatter of darks", 1.0 / t.inverse_gain, "e-/adu", error, section="camera"
            )
            off = t.inverse_gain / self.inverse_gain
            if self.gain_given and not 1.0 / GAIN_OFF < off < GAIN_OFF:
                record.warn(
                    f"gain {1.0 / self.inverse_gain:.3g} e-/adu (EGAIN, --gain or --detector) is used, scatter of the darks"
                    f" says {1.0 / t.inverse_gain:.3g} +- {error:.1g}: is it that of stored units?"
                )
        if math.isfinite(self.full_well):
            record.value("full well above bias", self.full_well, "adu", section="camera")
        record.value("read noise used (median pixel)", math.sqrt(self.read_number), "adu", section="camera")

    def sample_variance(self, group, signal, read):
        """Expected variance of one sample at a signal, float32 [ADU^2]; read : variance without signal."""
        if self.inverse_gain is None:
            own = group.frames.within**2 if math.isfinite(group.frames.within) else 0.0
            return np.maximum(read, np.float32(own)) + np.zeros_like(signal)
        shot = np.fmax(signal, np.float32(0.0))
        shot *= np.float32(self.inverse_gain)
        shot += read
        return shot

    def ordinary_variance(self, spool, index, where):
        """The same for pixels of the sensor's ordinary read noise: what unstable ones are judged by."""
        signal = _stored(spool, (index, "signal"), where)
        return self.sample_variance(self.groups[index], signal, np.float32(self.read_number))

    def planes(self, spool, index, where):
        """Rate and sigma [ADU/s], saturated, of some pixels of one group (slice or flat indices), (m,) each."""
        group = self.groups[index]
        signal, n_used, flags = (
            _stored(spool, (index, name), where) for name in ("signal", "n_used", "flags")
        )
        saturated = (flags & combine.SATURATED) != 0
        if math.isfinite(self.full_well):
            saturated |= signal > np.float32(dark_noise.LINEAR_RANGE * self.full_well)
        read = np.float32(self.read_number)
        if self.read_variance is not None:
            read = self.read_variance.reshape(-1)[where]
        shot = signal
        if self.inverse_gain is not None:
            ordinary = read + np.float32(self.inverse_gain * max(group.signal, 0.0))
            shot = dark_noise.shot_signal(
                signal, group.signal, ordinary / np.float32(len(group.frames.frames))
            )
        variance = self.sample_variance(group, shot, read)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance /= n_used * np.float32(self.weight(group) / len(group.frames.frames))
        if self.bias is not None:
            variance += self.bias.model.variance(group.temperature, where).astype(np.float32)
        t = np.float32(group.exposure)
        return signal / t, np.sqrt(variance) / t, saturated

    def weight(self, group):
        """Frames of a mean that is as certain as this combination."""
        n = len(group.frames.frames)
        return n / noise.median_factor(n) ** 2 if self.config.shared.combine == "median" else float(n)

    def judge(self, spool):
        """Find hot, warm, noisy and telegraph pixels."""
        scatter = hot_pixels.Scatter(self.shape)

        def add(part):
            for index in range(len(self.groups)):
                variance, n_used = (spool.part((index, name), part) for name in ("variance", "n_used"))
                scatter.add(part, variance, self.ordinary_variance(spool, index, part), n_used)

        with ThreadPoolExecutor(max(1, self.config.shared.jobs)) as pool:
            list(pool.map(add, self._parts()))
        self.noisy = scatter.noisy()
        self.hot = hot_pixels.find_hot(self.groups, partial(self.planes, spool), self.config, self.b)
        self.telegraph = hot_pixels.find_telegraph(
            self.groups, self.noisy, self.screening, partial(self.ordinary_variance, spool)
        )
        record, at = self.record, self.hot
        record.value("hot pixels", int(at.hot.sum()), "pixels", section="pixels")
        record.value("limit of hot pixels", at.limit, "adu/s", section="pixels")
        where = f"{label(at.temperature, 1)} degC, {at.exposure:g} s"
        record.value("hot pixels judged at", where, section="pixels")
        record.value("warm pixels", int(at.warm.sum()), "pixels", section="pixels")
        record.value("noisy pixels", int(self.noisy.sum()), "pixels", section="pixels")
        record.value("telegraph candidates", int(self.telegraph.sum()), "pixels", section="pixels")
        if self.misfit.any():
            shown = ", ".join(
                f"{label(g.temperature, 1)} degC {g.exposure:g} s ({g.signal / g.exposure:.3g} adu/s)"
                for g, bad in zip(self.groups, self.misfit, strict=True)
                if bad
            )
            record.warn(
                f"dark current does not fit that of the other groups, kept out of the models: {shown}"
            )

    def _parts(self):
        size = math.prod(self.shape)
        return [slice(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]

    def write_all(self, spool, names):
        """Write the maps, threads one each, and the hot-pixel masks."""
        common = np.zeros(self.shape, np.int16)
        for where, bit in (
            (self.noisy, DQ.NOISY),
            (self.telegraph, DQ.TELEGRAPH),
            (self.hot.hot, DQ.HOT),
            (self.hot.warm, DQ.WARM),
        ):
            common[where] |= bit
        paths = [products.claim_map(self, *name) for name in names]

        def write(index):
            if self.record.stands(paths[index]):
                return
            rate, sigma = np.empty(self.shape, np.float32), np.empty(self.shape, np.float32)
            dq, used = common.copy(), 0
            for part in self._parts():
                rate.reshape(-1)[part], sigma.reshape(-1)[part], saturated = self.planes(spool, index, part)
                flags, bits = spool.part((index, "flags"), part), dq.reshape(-1)[part]
                bits[saturated] |= DQ.SATURATED | DQ.DO_NOT_USE
                bits[(flags & combine.NO_DATA) != 0] |= DQ.NO_DATA
                used += int(spool.part((index, "n_used"), part).sum(dtype=np.int64))
            group = self.groups[index]
            rejected = 1.0 - used / (rate.size * len(group.frames.frames))
            products.write_map(self, group, paths[index], rate, sigma, dq, rejected, bool(self.misfit[index]))

        with ThreadPoolExecutor(max(1, self.config.shared.jobs)) as pool:
            list(pool.map(write, range(len(self.groups))))
        for group, path, (folder, _), misfit in zip(self.groups, paths, names, self.misfit, strict=True):
            products.add_map(self, group, path, folder, bool(misfit))
        products.write_hot(self, [folder for folder, _ in names])
        LOGGER.debug("coefficient of temperature for drift: %.4f 1/degC", self.b)


def _stored(spool, key, where):
    """Some elements of a stored map, flat: those of a slice, or at indices."""
    return spool.part(key, where) if isinstance(where, slice) else spool.pick(key, where)


def _transfer_sample(signal, result):
    """Signal, scatter and degrees of freedom of ordinary pixels and of bright ones, without saturated samples.

    Ordinary pixels all count at their median signal: binned by their own, noise would sort them and flatten the line.
    """
    flat = signal.reshape(-1)
    usable = (result.flags.reshape(-1) & (combine.SATURATED | combine.NO_DATA)) == 0
    where = np.arange(0, flat.size, max(1, flat.size // TRANSFER_PIXELS) | 1)
    where = where[usable[where]]
    middle = float(np.median(flat[where])) if where.size else 0.0
    spread = 1.4826 * float(np.median(np.abs(flat[where] - middle))) if where.size else 0.0
    where = where[np.abs(flat[where] - middle) < 4.0 * spread]
    bright = np.flatnonzero(usable & (flat > middle + 8.0 * spread))
    bright = bright[:: max(1, bright.size // TRANSFER_BRIGHT)]
    found = np.concatenate([np.full(where.size, middle), flat[bright]])
    where = np.concatenate([where, bright])
    return found, result.variance.reshape(-1)[where], result.n_used.reshape(-1)[where] - 1.0
