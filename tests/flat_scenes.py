"""Simulated flats with known illumination for the kernels of the flat pipeline."""

from dataclasses import dataclass

import numpy as np

from utils.kernels.illumination import RadialModel, radial_model


@dataclass
class FlatScene:
    """truth : radial model; light : its V, (ny, nx).  flat, sigma : float32.  response : pixels and defects, no dust."""

    truth: RadialModel
    light: np.ndarray
    dust: np.ndarray
    response: np.ndarray
    flat: np.ndarray
    sigma: np.ndarray


def dust_spots(shape, rng, count, depth):
    """Transmission of round spots with soft edges, radius 1.5 to 4 % of the diagonal."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    transmission = np.ones(shape)
    for x, y, size, strength in rng.uniform(size=(count, 4)):
        radius = np.hypot(*shape) * (0.015 + 0.025 * size)
        distance = np.hypot(rows - y * shape[0], columns - x * shape[1])
        transmission *= 1 - depth * (0.4 + 0.6 * strength) / (
            1 + np.exp((distance - radius) / (0.1 * radius))
        )
    return transmission


def simulate_flat(
    seed,
    shape,
    k=(-0.25, -0.1, 0.05),
    off=0.1,
    prnu=0.01,
    noise=0.002,
    dust=6,
    depth=0.1,
    defects=1e-3,
    level=1.0,
):
    """One master flat.

    off : the centre lies within this part of width and height from the middle.  noise : relative, at V = 1.  dust : spots
    of up to ``depth``.  defects : fraction of pixels of response 0 to 0.8.
    """
    rng = np.random.default_rng(seed)
    ny, nx = shape
    centre = (0.5 + rng.uniform(-off, off)) * nx - 0.5, (0.5 + rng.uniform(-off, off)) * ny - 0.5
    truth = radial_model(shape, *k, center=centre)
    light = truth.at(np.arange(nx), np.arange(ny)[:, None])
    spots = dust_spots(shape, rng, dust, depth)
    response = 1 + prnu * rng.normal(size=shape)
    bad = rng.random(shape) < defects
    response[bad] = rng.uniform(0, 0.8, bad.sum())
    sigma = noise * np.sqrt(np.maximum(light, 0))
    flat = level * (light * spots * response + sigma * rng.normal(size=shape))
    return FlatScene(
        truth, light, spots, response, flat.astype(np.float32), (level * sigma).astype(np.float32)
    )
