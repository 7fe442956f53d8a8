"""How the stored samples of a stack become what the kernels combine: integers as they are, or scaled float32."""

import math
from dataclasses import replace

import numpy as np


class IntegerPlan:
    """Samples stay 16-bit integers; scale and zero point are applied to the result."""

    def __init__(self, stack, rule):
        self.stack = stack
        self.zero = stack.images[0].bzero
        self.scale = stack.adu_scale
        self.variance_scale = 1.0 / self.scale**2
        self.type = np.dtype(np.int16)
        self.rule = _stored_rule(rule, self.scale, self.zero)

    def buffers(self, n, pixels, chunk):
        """Scratch of one thread: blocks of ``pixels``, and ``chunk`` pixels at work, of ``n`` frames."""
        raw = {kind: np.empty((n, pixels), kind) for kind in set(self.stack.stored_types)}
        return {"raw": raw, "native": np.empty(n * chunk, np.int16), "work": np.empty(n * chunk, np.float32)}

    def load(self, start, height, buffers):
        """Read ``height`` rows of every frame from row ``start``."""
        nx = self.stack.shape[1]
        for index, kind in enumerate(self.stack.stored_types):
            rows = buffers["raw"][kind][index, : height * nx].reshape(height, nx)
            self.stack.read_rows(index, start, rows)

    def samples(self, part, buffers):
        """Return samples (n, width) of a slice of the block, the rule, and float32 scratch for `combine_quiet`."""
        n, width = len(self.stack.images), part.stop - part.start
        native = buffers["native"][: n * width].reshape(n, width)
        if len(buffers["raw"]) == 1:
            (raw,) = buffers["raw"].values()
            np.copyto(native, raw[:, part], casting="same_kind")
        else:
            for index, kind in enumerate(self.stack.stored_types):
                np.copyto(native[index], buffers["raw"][kind][index, part], casting="same_kind")
        return native, self.rule, buffers["work"][: n * width].reshape(n, width)

    def level(self, value, where):
        """Return combined samples in the unit of the result; where : slice or indices of the flat pixels."""
        return (value + self.zero) / self.scale


class FloatPlan:
    """Samples become float32 about a base, moved and scaled frame by frame and pixel by pixel."""

    def __init__(self, stack, rule, offsets, scales, pedestal, factor):
        self.stack = stack
        n = len(stack.images)
        self.offsets = np.zeros(n) if offsets is None else np.asarray(offsets, dtype=np.float64)
        self.scales = np.ones(n) if scales is None else np.asarray(scales, dtype=np.float64)
        if self.offsets.shape != (n,) or self.scales.shape != (n,):
            raise ValueError(f"offsets and scales need one value for each of {n} frames")
        self.pedestal, self.factor = _plane(stack, pedestal, "pedestal"), _plane(stack, factor, "factor")
        # Subtracting a whole number near the level first keeps float32 exact for integers.
        self.pivot = _pivot(stack)
        self.levels = [(self.pivot * i.bscale + i.bzero) / stack.adu_scale for i in stack.images]
        with_planes = self.pedestal is not None or self.factor is not None
        self.base = 0.0 if with_planes else self.levels[0] * self.scales[0] + self.offsets[0]
        self.variance_scale = 1.0
        self.saturation = rule.saturation
        # Saturated samples are marked as they are read: scaled ones say nothing of the converter.
        self.rule = replace(_stored_rule(rule, 1.0, self.base), saturation=math.inf)

    def buffers(self, n, pixels, chunk):
        """Scratch of one thread: blocks of ``pixels``, and ``chunk`` pixels at work, of ``n`` frames."""
        raw = {kind: np.empty(pixels, kind) for kind in set(self.stack.stored_types)}
        return {
            "raw": raw,
            "values": np.empty((n, pixels), np.float32),
            "work": np.empty(n * chunk, np.float32),
            "shift": None if self.pedestal is None else np.empty(pixels, np.float32),
        }

    def load(self, start, height, buffers):
        """Read ``height`` rows of every frame from row ``start``."""
        stack, nx = self.stack, self.stack.shape[1]
        part = slice(start * nx, (start + height) * nx)
        factor = None if self.factor is None else self.factor[part]
        lost = self._lost(part)
        shifted = None
        for index, (image, kind) in enumerate(zip(stack.images, stack.stored_types, strict=True)):
            raw = buffers["raw"][kind][: height * nx]
            stack.read_rows(index, start, raw.reshape(height, nx))
            values = buffers["values"][index, : height * nx]
            if kind.itemsize <= 2 or kind == np.dtype(">f4"):
                np.copyto(values, raw, casting="same_kind")
                np.subtract(values, np.float32(self.pivot), out=values)
            else:
                values[:] = raw.astype(np.float64) - self.pivot
            level, scale = self.levels[index], self.scales[index]
            step = image.bscale / stack.adu_scale
            if self.pedestal is None and factor is None:
                _to_units(values, step * scale, level * scale + self.offsets[index] - self.base)
            else:
                if self.pedestal is None:
                    _to_units(values, step, level)
                else:
                    _to_units(values, step, 0.0)
                    if shifted != level:
                        shift, shifted = buffers["shift"][: height * nx], level
                        shift[:] = level - self.pedestal[part].astype(np.float64)
                    np.add(values, shift, out=values)
                if factor is not None:
                    np.multiply(values, factor, out=values)
                _to_units(values, scale, self.offsets[index])
            if image.blank is not None and kind.kind in "iu":
                values[raw == image.blank] = np.nan
            if kind.kind == "f":
                values[np.isinf(values)] = np.nan
            if math.isfinite(self.saturation):
                limit = (self.saturation * stack.adu_scale - image.bzero) / image.bscale
                values[raw >= limit] = np.inf
            if lost is not None:
                values[lost] = np.nan

    def _lost(self, part):
        """Pixels of the part that the planes leave without a sample, or None."""
        lost = None
        for plane in (self.pedestal, self.factor):
            if plane is not None and not np.isfinite(plane[part]).all():
                unknown = ~np.isfinite(plane[part])
                lost = unknown if lost is None else lost | unknown
        return lost

    def samples(self, part, buffers):
        """Return samples (n, width) of a slice of the block, the rule, and float32 scratch for `combine_quiet`."""
        n, width = len(self.stack.images), part.stop - part.start
        work = buffers["work"][: n * width].reshape(n, width)
        return buffers["values"][:, part], self.rule, work

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


def _to_units(values, factor, shift):
    """Multiply and shift float32 values in place."""
    if factor != 1.0:
        np.multiply(values, np.float32(factor), out=values)
    if shift != 0.0:
        np.add(values, np.float32(shift), out=values)


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
    row = np.empty((1, stack.shape[1]), stack.stored_types[0])
    stack.read_rows(0, stack.shape[0] // 2, row)
    values = row.astype(np.float64)
    values = values[np.isfinite(values)]
    return float(np.round(np.median(values))) if values.size else 0.0
