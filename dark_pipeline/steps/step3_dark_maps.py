"""Combine each group of darks, take the bias off, and judge pixels: dark-current maps, hot and unstable pixels."""

import math

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

TRANSFER_PIXELS, TRANSFER_BRIGHT = 20000, 3000
"""Pixels of each group from which gain and full well are found: of all kinds, and the brightest."""


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
        self._planes = None

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

    def bias_at(self, group):
        """Bias and its error at the group's temperature, (ny, nx) [ADU], or zeros."""
        if self.bias is None:
            return np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32)
        value, sigma, _ = self.bias.model.evaluate(group.temperature)
        return value, sigma

    def combine_all(self, spool):
        """Combine every group; signals wait in the spool with their scatter."""
        self._first_look()
        found = []
        for index in progress(range(len(self.groups)), len(self.groups), "dark maps"):
            group = self.groups[index]
            result = self._combine(group, self.options)
            signal = result.value - self.bias_at(group)[0]
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
        level = self.bias_at(brightest)[0]
        result = self._combine(brightest, plain, correct=False)
        first = dark_noise.photon_transfer(*_transfer_sample(result.value - level, result), self.read_number)
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
        if math.isfinite(self.full_well):
            record.value("full well above bias", self.full_well, "adu", section="camera")
        record.value("read noise used (median pixel)", math.sqrt(self.read_number), "adu", section="camera")

    def sample_variance(self, group, signal):
        """Expected variance of one sample at a signal, (ny, nx) float32 [ADU^2]."""
        base = self.read_number if self.read_variance is None else self.read_variance
        if self.inverse_gain is None:
            own = group.frames.within**2 if math.isfinite(group.frames.within) else 0.0
            return np.maximum(base, np.float32(own)) + np.zeros_like(signal)
        return base + np.float32(self.inverse_gain) * np.maximum(np.nan_to_num(signal), np.float32(0.0))

    def ordinary_variance(self, index, spool):
        """The same for pixels of the sensor's ordinary read noise: what unstable ones are judged by."""
        own = self.read_variance
        self.read_variance = None
        expected = self.sample_variance(self.groups[index], spool.get((index, "signal")))
        self.read_variance = own
        return expected

    def planes(self, spool, index):
        """Rate, sigma [ADU/s], saturated, expected variance of one group (the last one asked for is kept)."""
        if self._planes is None or self._planes[0] != index:
            group = self.groups[index]
            signal, n_used, flags = (spool.get((index, name)) for name in ("signal", "n_used", "flags"))
            saturated = (flags & combine.SATURATED) != 0
            if math.isfinite(self.full_well):
                saturated |= signal > np.float32(dark_noise.LINEAR_RANGE * self.full_well)
            expected = self.sample_variance(group, signal)
            with np.errstate(divide="ignore", invalid="ignore"):
                variance = expected / (n_used * np.float32(self.weight(group) / len(group.frames.frames)))
            variance += np.square(self.bias_at(group)[1])
            t = np.float32(group.exposure)
            self._planes = index, (signal / t, np.sqrt(variance) / t, saturated, expected)
        return self._planes[1]

    def weight(self, group):
        """Frames of a mean that is as certain as this combination."""
        n = len(group.frames.frames)
        return n / noise.median_factor(n) ** 2 if self.config.shared.combine == "median" else float(n)

    def judge(self, spool):
        """Find hot, warm, noisy and telegraph pixels."""
        scatter = hot_pixels.Scatter(self.shape)
        for index in range(len(self.groups)):
            expected = self.ordinary_variance(index, spool)
            scatter.add(spool.get((index, "variance")), expected, spool.get((index, "n_used")))
        self.noisy = scatter.noisy()
        self.hot = hot_pixels.find_hot(
            self.groups,
            lambda i: self.planes(spool, i)[0],
            lambda i: self.planes(spool, i)[1],
            lambda i: self.planes(spool, i)[2],
            self.config,
            self.b,
        )
        self.telegraph = hot_pixels.find_telegraph(
            self.groups, self.noisy, self.screening, lambda i: self.ordinary_variance(i, spool)
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

    def write_all(self, spool, names):
        """Write the maps and the hot-pixel masks."""
        for index, (group, (folder, name)) in enumerate(zip(self.groups, names, strict=True)):
            rate, sigma, saturated, _ = self.planes(spool, index)
            flags, n_used = spool.get((index, "flags")), spool.get((index, "n_used"))
            dq = np.zeros(self.shape, np.int16)
            dq[self.noisy] |= DQ.NOISY
            dq[self.telegraph] |= DQ.TELEGRAPH
            dq[self.hot.hot] |= DQ.HOT
            dq[self.hot.warm] |= DQ.WARM
            dq[saturated] |= DQ.SATURATED | DQ.DO_NOT_USE
            dq[(flags & combine.NO_DATA) != 0] |= DQ.NO_DATA
            rejected = 1.0 - float(n_used.mean(dtype=np.float64)) / len(group.frames.frames)
            products.write_map(self, group, folder, name, rate, sigma, dq, rejected, bool(self.misfit[index]))
        products.write_hot(self, [folder for folder, _ in names])
        LOGGER.debug("coefficient of temperature for drift: %.4f 1/degC", self.b)


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
