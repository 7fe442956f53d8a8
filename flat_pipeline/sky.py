"""Sky flats of a group: the stars that move over the sensor are found in all frames together and taken out of each."""

import numpy as np

from utils.domain import flat_levels
from utils.domain.sky_sources import sky_mesh, sky_surface, source_mask
from utils.kernels import star_light
from utils.kernels.flat_level import frame_level, level_against

FEWEST = 3
"""Frames of one field from which its stars are known; in fewer they are masked only."""
MODEL_ERROR = 0.3
"""Stars are masked where the error of their model reaches this part of a pixel's noise."""


class SkyFrames:
    """Frames of a group without stars.

    flat : `FlatGroup`.  read : function (index) -> value (ny, nx) float32 [ADU] of its own, dq.  response : (ny, nx) first
    idea of the response, changed here.  norm_method : level that is 1.
    levels : (n,) [ADU] of the sky.  fields : lists of frames that show the same stars.
    Every frame is read three times, and once more by `even`: 4 s of one core a frame and megapixel in all.  Memory: 140
    bytes a pixel at the peak, and a bit for each pixel and frame.
    """

    def __init__(self, flat, read, response, norm_method):
        self.levels, self._read = flat.levels.copy(), read
        self._rows, self._method = flat_levels.level_rows(response.shape), norm_method
        self._response = response
        self._masks, self._meshes = [None] * len(self.levels), [None] * len(self.levels)
        self._stars = {}
        self.fields = self._find()
        self._model()
        self._mask_again()

    def even(self, index, value):
        """Frame divided by its level without stars and what of its sky is not that of the others, and its mask."""
        return self._even(index, value), unpacked(self._masks[index], value.shape)

    def _even(self, index, value):
        value = value / np.float32(self.levels[index])
        if index in self._stars:
            value -= self._response * self._light(index)
        if self._meshes[index] is not None:
            value /= np.float32(1.0) + sky_surface(self._meshes[index] - self._mean_mesh, value.shape)
        return value

    def _light(self, index):
        stars, shift, part = self._stars[index]
        return stars.light(shift, part)

    def _find(self):
        """Mask stars frame by frame and find out which frames show the same; the response becomes the masked mean."""
        mean, shape = _Mean(self._response), self._response.shape
        self._response /= np.float32(frame_level(self._response[self._rows], self._method))
        fields, self._shifts, first = [], np.zeros((len(self.levels), 2)), None
        for index in range(len(self.levels)):
            value, _ = self._read(index)
            even = self._over_response(value / np.float32(self.levels[index]))
            mask, mesh = source_mask(even, self._response)
            sky = np.float32(1.0) if mesh is None else sky_surface(mesh, shape)
            stars = star_light.contrast(even - sky)
            same = False
            if first is not None:
                self._shifts[index], same = star_light.find_shift(first, stars)
            if same:
                fields[-1].append(index)
            else:
                fields.append([index])
                self._shifts[index] = 0
                first = star_light.matched_spectrum(stars)
            self._masks[index] = np.packbits(mask)
            value[mask] = np.nan
            self.levels[index] = level_against(value[self._rows], self._response[self._rows])
            # Where few frames are left, their own light must not pass for the response.
            mean.add(value / (np.float32(self.levels[index]) * sky))
        self._response = mean.finish()
        self._response /= np.float32(frame_level(self._response[self._rows], self._method))
        return fields

    def _model(self):
        """Sky of every frame, and the stars of every field with frames enough."""
        for own in self.fields:
            enough = len(own) >= FEWEST
            field = star_light.StarField(self._response.shape, self._shifts[own]) if enough else None
            for index in own:
                value, _ = self._read(index)
                even = self._over_response(value / np.float32(self.levels[index]))
                mask = unpacked(self._masks[index], value.shape) | ~np.isfinite(even)
                if mask.all():
                    continue
                self._meshes[index] = sky_mesh(even, mask)
                if enough:
                    even -= sky_surface(self._meshes[index], even.shape)
                    field.add(even, self._shifts[index], self.levels[own[0]] / self.levels[index])
            if enough:
                stars = field.model()
                for index in own:
                    part = self.levels[own[0]] / self.levels[index]
                    self._stars[index] = stars, self._shifts[index], part
        known = [mesh for mesh in self._meshes if mesh is not None]
        self._mean_mesh = np.mean(known, axis=0) if known else None

    def _mask_again(self):
        """Mask what is left in the frames without stars; their levels are those of the sky beside it."""
        for index in range(len(self.levels)):
            value, _ = self._read(index)
            value = self._even(index, value)
            even = self._over_response(value)
            poor = np.zeros(value.shape, bool)
            if index in self._stars:
                stars = self._stars[index][0]
                poor = stars.error * self._light(index) > MODEL_ERROR * stars.sigma
                even[poor] = np.nan
            mask = source_mask(even, self._response)[0] | poor
            self._masks[index] = np.packbits(mask)
            value[mask] = np.nan
            self.levels[index] *= level_against(value[self._rows], self._response[self._rows])

    def _over_response(self, value):
        with np.errstate(divide="ignore", invalid="ignore"):
            return value / self._response


class _Mean:
    """Mean of frames without masked samples; ``fallback`` where there is no sample."""

    def __init__(self, fallback):
        self.fallback = fallback
        self.total, self.count = (np.zeros(fallback.shape, np.float32) for _ in range(2))

    def add(self, value):
        good = np.isfinite(value)
        self.total += np.where(good, value, np.float32(0.0))
        self.count += good

    def finish(self):
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.total / self.count
        return np.where((self.count > 0) & (mean > 0), mean, self.fallback)


def unpacked(mask, shape):
    """Boolean mask (ny, nx) of its packed form."""
    return np.unpackbits(mask, count=shape[0] * shape[1]).reshape(shape).astype(bool)
