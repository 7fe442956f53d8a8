"""What the tests of the characterisation share: levels of a simulated sensor, measured without the code under test."""

import numpy as np

from utils.kernels import photon_transfer
from utils.kernels.sensor import Sensor, SensorSpec

LEVELS = (60, 150, 300, 600, 900, 1200, 1500, 1800, 2100, 2400, 2700, 3000, 3300, 3600, 4500, 5200)
PER_SECOND = 300.0  # ADU/s of the lamp


def sensor(shape, seed, **terms):
    """A sensor evenly lit, with hot, warm, telegraph and dead pixels, and cosmic hits."""
    even = {"vignetting_k1": 0.0, "vignetting_k2": 0.0, "vignetting_k3": 0.0}
    return Sensor(SensorSpec.preset("12left", shape=shape, seed=seed, **(even | terms)))


def measured(camera, seed, n=2, levels=LEVELS, lamp=0.0):
    """Bias level and flat levels of a camera: base `Ordinary`, signal, variance, error, exposure (arrays).

    lamp : scatter of the light between frames.
    """
    rng = np.random.default_rng(seed)
    bias = camera.to_adu(camera.stack("bias", [0.0] * 20, 1e-5, rng))
    bias -= np.median(bias - bias[0], axis=(1, 2))[:, None, None]
    pedestal, scatter = bias.mean(axis=0), bias.var(axis=0, ddof=1)
    base = photon_transfer.ordinary_pixels(np.zeros(camera.shape), scatter, 19, 0.0, read_only=True)
    good = scatter < 4.0 * base.variance
    rows = []
    for level in levels:
        exposure = level / PER_SECOND
        light = level * (1.0 + lamp * rng.standard_normal(n))
        frames = camera.to_adu(camera.stack("flat", [0.0] * n, exposure, rng, level=light)) - pedestal
        own = np.array([np.median(frame[good] / np.maximum(frames[0][good], 1.0)) for frame in frames])
        frames *= (own.mean() / own)[:, None, None]
        one = photon_transfer.ordinary_pixels(
            frames.mean(axis=0)[good], frames.var(axis=0, ddof=1)[good], n - 1, base.variance
        )
        rows.append((one.signal, one.variance, one.error, exposure))
    return base, *np.array(rows).T


def true_read_noise(camera):
    """Rms over ordinary pixels of the temporal noise without light, rounding taken out [ADU]."""
    spec = camera.spec
    own = np.square(camera.read_noise_map[~camera.telegraph].astype(float)).mean()
    return float(np.sqrt(own + spec.row_noise**2 + spec.column_noise**2))
