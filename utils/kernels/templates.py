"""Shapes that new structures have, and planes filtered for them: pixels, spots, rings, up to about 1000 pixels in area."""

from dataclasses import dataclass

import numpy as np

BLOCKS = (1, 2, 3, 4)
"""Sides of squares [pixels]: single pixels, and clusters of damaged ones."""
RADII = (1.0, 2.0, 2.8, 3.9, 5.5, 7.7, 10.8, 15.0)
"""Radii of round spots [pixels]: neighbours match each other to 0.94."""
RINGS = (4.0, 5.8, 8.4, 12.0, 16.5)
"""Outer radii of rings [pixels], shadows of dust that is out of focus."""
HOLE = 0.55
"""Inner radius of a ring over its outer one."""


@dataclass(frozen=True, eq=False)
class Template:
    """A shape.  kind : 'pixel', 'spot', 'ring'.  radius [pixels].  kernel : (k, k) float32, k odd, peak near 1."""

    kind: str
    radius: float
    kernel: np.ndarray


def template_bank(shape):
    """Templates that fit into frames of a shape (ny, nx): none is wider than a quarter of the shorter side."""
    largest = min(shape) / 8.0
    bank = [Template("pixel", 0.57 * side, _square(side)) for side in BLOCKS]
    bank += [Template("spot", r, _disc(r, r)) for r in RADII if r <= largest]
    bank += [Template("ring", r, _disc(r, r) - _disc(HOLE * r, r)) for r in RINGS if r <= largest]
    return bank


def _square(side):
    """Square in a kernel of odd size; one of even side lies half a pixel up and left of its middle."""
    half = side // 2
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    kernel[:side, :side] = 1.0
    return kernel


def _disc(radius, reach):
    """Round spot with an edge as soft as a pixel, in a square that holds a radius ``reach``."""
    half = int(np.ceil(reach + 0.5))
    axis = np.arange(-half, half + 1)
    return np.clip(radius + 0.5 - np.hypot(axis[:, None], axis), 0.0, 1.0).astype(np.float32)


class FilterBank:
    """Filters of all templates for planes of one size.

    shape : (ny, nx) of the planes.  bank : list of `Template`.  jobs : threads.  Beyond the edges there is nothing.
    """

    def __init__(self, shape, bank, jobs=1):
        from scipy import fft

        self.shape, self.bank, self.jobs = tuple(shape), list(bank), jobs
        half = max(template.kernel.shape[0] // 2 for template in bank)
        self.padded = tuple(fft.next_fast_len(size + half, real=True) for size in shape)
        self._of = {}

    def transform(self, planes):
        """Fourier transforms of planes (..., ny, nx) float32."""
        from scipy import fft

        return fft.rfft2(planes, s=self.padded, workers=self.jobs)

    def apply(self, transformed, number, *, squared=False):
        """Correlate transformed planes with template ``number`` (or its square), (..., ny, nx) float32."""
        from scipy import fft

        ny, nx = self.shape
        made = fft.irfft2(transformed * self._kernel(number, squared), s=self.padded, workers=self.jobs)
        return made[..., :ny, :nx]

    def _kernel(self, number, squared):
        from scipy import fft

        if (number, squared) not in self._of:
            kernel = self.bank[number].kernel
            half = kernel.shape[0] // 2
            canvas = np.zeros(self.padded, np.float32)
            canvas[: kernel.shape[0], : kernel.shape[1]] = kernel**2 if squared else kernel
            canvas = np.roll(canvas, (-half, -half), (0, 1))
            self._of[number, squared] = np.conj(fft.rfft2(canvas, workers=self.jobs))
        return self._of[number, squared]
