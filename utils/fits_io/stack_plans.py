"""How the stored samples of a stack become what the kernels combine: integers as they are, or scaled float32.

A plan gives the buffers of one worker, the place where the rows of a frame are read to, the samples of a chunk in
native order, and the level of a combined sample in the unit of the result.
"""

import math
from dataclasses import replace

import numpy as np


class _Plan:
    """What both plans do with the bytes as stored."""

    def __init__(self, stack):
        self.stack = stack
        self.kinds = stack.stored_types
        self.alike = len(set(self.kinds)) == 1

    def raw_buffer(self, pixels):
        """Room for the stored samples of ``pixels`` pixels of all frames, (n, bytes)."""
        return np.empty((len(self.kinds), pixels * max(kind.itemsize for kind in self.kinds)), np.uint8)

    def rows(self, buffers, index, height):
        """Return the place (height, nx) of the rows of frame ``index``, of its stored type."""
        kind, nx = self.kinds[index], self.stack.shape[1]
        return buffers["raw"][index, : height * nx * kind.itemsize].view(kind).reshape(height, nx)

    def stored(self, part, first, buffers):
        """Return the stored samples of flat pixels ``part``: arrays (n, width), or one (width,) for each frame.

        first : flat pixel at which the block begins.
        """
        place = slice(part.start - first, part.stop - first)
        if self.alike:
            return buffers["raw"].view(self.kinds[0])[:, place]
        return [row.view(kind)[place] for row, kind in zip(buffers["raw"], self.kinds, strict=True)]


class IntegerPlan(_Plan):
    """Samples stay 16-bit integers; scale and zero point are applied to the result."""

    bytes_at_work = 6

    def __init__(self, stack, rule):
        super().__init__(stack)
        self.zero = stack.images[0].bzero
        self.scale = stack.adu_scale
        self.variance_scale = 1.0 / self.scale**2
        self.rule = _stored_rule(rule, self.scale, self.zero)

    def buffers(self, pixels, chunk):
        """Scratch of one worker: blocks of ``pixels``, and ``chunk`` pixels at work."""
        n = len(self.kinds)
        return {
            "raw": self.raw_buffer(pixels),
            "native": np.empty(n * chunk, np.int16),
            "work": np.empty(n * chunk, np.float32),
        }

    def samples(self, part, first, buffers):
        """Return samples (n, width) of flat pixels, and float32 scratch for `combine_quiet`."""
        n, width = len(self.kinds), part.stop - part.start
        native = buffers["native"][: n * width].reshape(n, width)
        stored = self.stored(part, first, buffers)
        if self.alike:
            np.copyto(native, stored, casting="same_kind")
        else:
            for row, values in zip(native, stored, strict=True):
                np.copyto(row, values, casting="same_kind")
        return native, buffers["work"][: n * width].reshape(n, width)

    def level(self, value, where):
        """Return combined samples in the unit of the result; where : slice or indices of the flat pixels."""
        value = value + self.zero
        if self.scale != 1.0:
            value /= self.scale
        return value


class FloatPlan(_Plan):
    """Samples become float32 about a base, moved and scaled frame by frame and pixel by pixel."""

    bytes_at_work = 8
    variance_scale = 1.0

    def __init__(self, stack, rule, offsets, scales, pedestal, factor):
        super().__init__(stack)
        n = len(stack.images)
        self.offsets = np.zeros(n) if offsets is None else np.asarray(offsets, dtype=np.float64)
        self.scales = np.ones(n) if scales is None else np.asarray(scales, dtype=np.float64)
        if self.offsets.shape != (n,) or self.scales.shape != (n,):
            raise ValueError(f"offsets and scales need one value for each of {n} frames")
        self.pedestal, self.factor = _plane(stack, pedestal, "pedestal"), _plane(stack, factor, "factor")
        # Subtracting a whole number near the level first keeps float32 exact for integers.
        self.pivot = _pivot(stack)
        zeros = np.array([image.bzero for image in stack.images])
        steps = np.array([image.bscale for image in stack.images])
        levels = (self.pivot * steps + zeros) / stack.adu_scale
        steps = steps / stack.adu_scale
        if self.pedestal is None and self.factor is None:
            self.base = levels[0] * self.scales[0] + self.offsets[0]
            self.first = (steps * self.scales, levels * self.scales + self.offsets - self.base)
        else:
            # The pedestal is subtracted from a level of all frames, which keeps the small numbers exact.
            self.base = 0.0
            self.middle = levels[0]
            self.first = (steps, levels - self.middle)
            self.last = (self.scales, self.offsets)
        self.saturation = rule.saturation
        self.limits = [(rule.saturation * stack.adu_scale - i.bzero) / i.bscale for i in stack.images]
        # Saturated samples are marked as they are read: scaled ones say nothing of the converter.
        self.rule = replace(_stored_rule(rule, 1.0, self.base), saturation=math.inf)

    def buffers(self, pixels, chunk):
        """Scratch of one worker: blocks of ``pixels``, and ``chunk`` pixels at work."""
        n = len(self.kinds)
        return {
            "raw": self.raw_buffer(pixels),
            "values": np.empty(n * chunk, np.float32),
            "work": np.empty(n * chunk, np.float32),
        }

    def samples(self, part, first, buffers):
        """Return samples (n, width) of flat pixels, and float32 scratch for `combine_quiet`."""
        n, width = len(self.kinds), part.stop - part.start
        values = buffers["values"][: n * width].reshape(n, width)
        stored = self.stored(part, first, buffers)
        self._about_pivot(values, stored)
        full = self._saturated(values, stored)
        _move(values, *self.first)
        if self.base == 0.0 and (self.pedestal is not None or self.factor is not None):
            self._through_planes(values, part)
        for index, image in enumerate(self.stack.images):
            if image.blank is not None and self.kinds[index].kind in "iu":
                values[index][stored[index] == image.blank] = np.nan
            elif self.kinds[index].kind == "f":
                values[index][np.isinf(values[index])] = np.nan
        for index, pixels in full:
            values[index, pixels] = np.inf
        for plane in (self.pedestal, self.factor):
            if plane is not None and not np.isfinite(plane[part]).all():
                values[:, ~np.isfinite(plane[part])] = np.nan
        return values, buffers["work"][: n * width].reshape(n, width)

    def _about_pivot(self, values, stored):
        """Fill values (n, width) with the stored samples less the pivot."""
        exact = all(kind.itemsize <= 2 or kind == np.dtype(">f4") for kind in self.kinds)
        if self.alike and exact:
            np.copyto(values, stored, casting="same_kind")
            values -= np.float32(self.pivot)
            return
        for row, samples in zip(values, stored, strict=True):
            row[:] = samples.astype(np.float64) - self.pivot

    def _saturated(self, values, stored):
        """List (frame, pixels) of the stored samples at the converter's end; values : less the pivot."""
        if not math.isfinite(self.saturation):
            return []
        found = []
        with np.errstate(invalid="ignore"):
            # float32 may round up to the limit what is just below it; the samples themselves decide.
            near = np.array(self.limits) - self.pivot - 1e-6 * np.abs(self.limits)
            if np.fmax.reduce(values, axis=None) < near.min():
                return []
            for index, limit in enumerate(self.limits):
                pixels = np.flatnonzero(stored[index] >= limit)
                if pixels.size:
                    found.append((index, pixels))
        return found

    def _through_planes(self, values, part):
        """Subtract the pedestal, multiply the factor, then scale and move each frame."""
        if self.pedestal is None:
            values += np.float32(self.middle)
        else:
            values += (self.middle - self.pedestal[part].astype(np.float64)).astype(np.float32)
        if self.factor is not None:
            values *= self.factor[part]
        _move(values, *self.last)

    def level(self, value, where):
        """Return combined samples in the unit of the result; where : slice or indices of the flat pixels."""
        value = value + self.base
        full = np.flatnonzero(np.isposinf(value))
        if full.size:
            pixels = np.arange(where.start, where.stop)[full] if isinstance(where, slice) else where[full]
            top = np.full(full.size, self.saturation)
            if self.pedestal is not None:
                top -= self.pedestal[pixels]
            if self.factor is not None:
                top *= self.factor[pixels]
            value[full] = top * self.scales.mean() + self.offsets.mean()
        return value


def _plane(stack, plane, name):
    """Return a plane flat and as float32, or None; ValueError where its shape is another."""
    if plane is None:
        return None
    if np.shape(plane) != stack.shape:
        raise ValueError(f"{name} has shape {np.shape(plane)}, expected {stack.shape} as the frames")
    return np.ascontiguousarray(plane, dtype=np.float32).reshape(-1)


def _move(values, factors, shifts):
    """Multiply and shift float32 values (n, m) in place; factors, shifts : (n,)."""
    if (factors != 1.0).any():
        values *= factors.astype(np.float32)[:, None]
    if (shifts != 0.0).any():
        values += shifts.astype(np.float32)[:, None]


def _stored_rule(rule, scale, zero):
    """Return the rule with its levels in stored units, counted from ``zero``."""
    return replace(
        rule,
        floor_variance=rule.floor_variance * scale * scale,
        inverse_gain=rule.inverse_gain * scale,
        zero_level=rule.zero_level * scale - zero,
        saturation=rule.saturation * scale - zero,
        step=rule.step * scale,
    )


def _pivot(stack):
    """Return a whole number near the level of the frames, in stored units: the same whatever the blocks are."""
    row = np.empty((1, stack.shape[1]), stack.stored_type(0))
    stack.read_rows(0, stack.shape[0] // 2, row)
    values = row.astype(np.float64)
    values = values[np.isfinite(values)]
    return float(np.round(np.median(values))) if values.size else 0.0
