"""The fixed per-pixel maps drawn from a sensor's specification.

Units as in ``sensor_spec``: levels in product ADU, charge in electrons, degC, seconds.
Each layer draws from its own random stream, so that switching one off leaves every other map as it was.
"""

import numpy as np

from utils.kernels.sensor_spec import require

# One random stream a layer: append only, a changed number changes every simulated sensor.
_STREAMS = (
    *("bias_a", "bias_b", "read_noise", "dark_a", "dark_tail", "dark_b", "dark_gamma"),
    *("telegraph", "prnu", "dust", "defects"),
    *("prnu_lines", "full_well", "flat_b", "flat_c"),
)


def stream(spec, layer):
    """Random generator of one layer of the fixed maps."""
    return np.random.default_rng([spec.seed, _STREAMS.index(layer)])


def patterned_map(spec, layer, level, row, column, pixel):
    """Level plus row, column and pixel pattern (normal, 1 sigma each): (ny, nx) float32."""
    ny, nx = spec.shape
    rng = stream(spec, layer)
    rows, columns, pixels = (
        rng.standard_normal((ny, 1)),
        rng.standard_normal((1, nx)),
        rng.standard_normal((ny, nx)),
    )
    return (level + row * rows + column * columns + pixel * pixels).astype(np.float32)


def lognormal_map(spec, layer, median, spread):
    """Log-normal over pixels with this median and sigma of the logarithm: (ny, nx) float32."""
    if spread == 0:
        return np.full(spec.shape, median, np.float32)
    return (median * np.exp(spread * stream(spec, layer).standard_normal(spec.shape))).astype(np.float32)


def normal_map(spec, layer, mean, spread):
    """Draw a map normal over pixels: (ny, nx) float32."""
    if spread == 0:
        return np.full(spec.shape, mean, np.float32)
    return (mean + spread * stream(spec, layer).standard_normal(spec.shape)).astype(np.float32)


def pick_two(rng, shape, first, second):
    """Two disjoint boolean maps of round(fraction x pixels) pixels each.

    One comes from the front and one from the back of a shuffle: neither depends on the other's fraction.
    """
    size = shape[0] * shape[1]
    order = rng.permutation(size)
    n_first = round(first * size)
    n_second = min(round(second * size), size - n_first)
    maps = np.zeros((2, size), bool)
    maps[0, order[:n_first]] = True
    maps[1, order[size - n_second :]] = True
    return maps.reshape(2, *shape)


def dark_a_map(spec):
    """Dark rate A [ADU/s at dark_t_ref and 1 s] with hot and warm tail, and the masks of both."""
    rate = lognormal_map(spec, "dark_a", spec.dark_rate, spec.dark_spread)
    rng = stream(spec, "dark_tail")
    hot, warm = pick_two(rng, spec.shape, spec.hot_fraction, spec.warm_fraction)
    tail = rng.standard_normal(spec.shape)
    rate[hot] = spec.dark_rate * spec.hot_factor * np.exp(spec.hot_spread * tail[hot])
    rate[warm] = spec.dark_rate * spec.warm_factor * np.exp(spec.warm_spread * tail[warm])
    return rate, hot, warm


def glow_map(spec):
    """Amplifier glow [ADU/s], falling exponentially from the last row's last pixel: (ny, nx) float32."""
    ny, nx = spec.shape
    y, x = np.ogrid[:ny, :nx]
    distance = np.hypot(ny - 1 - y, nx - 1 - x)
    return (spec.glow * np.exp(-distance / (spec.glow_scale * np.hypot(ny, nx)))).astype(np.float32)


def telegraph_maps(spec):
    """Telegraph pixels: rows, columns, step between the two levels [ADU], probability of the upper one."""
    rng = stream(spec, "telegraph")
    mask, _ = pick_two(rng, spec.shape, spec.telegraph_fraction, 0.0)
    rows, columns = np.nonzero(mask)
    step = spec.telegraph_amplitude * np.exp(0.4 * rng.standard_normal(rows.size))
    duty = rng.uniform(0.2, 0.8, rows.size)
    return rows, columns, step.astype(np.float32), duty


RING_PEAK = 0.9295722  # of ring_shadow, whatever its radius


def spot_shadow(shape, x, y, radius):
    """Soft disc, nearly 1 inside the radius [pixels] around (x, y) and 0 outside: (ny, nx) float64."""
    return _soft_disc(_distance(shape, x, y), radius)


def ring_shadow(shape, x, y, radius):
    """Shadow of a grain out of focus: a soft disc, lighter in the middle where the pupil's centre is seen.

    Up to RING_PEAK on the ring, 0.4 at its centre (x, y) [pixels]: (ny, nx) float64.
    """
    distance = _distance(shape, x, y)
    return _soft_disc(distance, radius) * (1 - 0.6 * np.exp(-((distance / (0.4 * radius)) ** 2)))


def _distance(shape, x, y):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - y, columns - x)


def _soft_disc(distance, radius):
    # Far outside the exponent is held where the disc is 0 to double precision anyway.
    return 1 / (1 + np.exp(np.minimum((distance - radius) / (0.1 * radius), 700)))


def dust_map(spec):
    """Transmission of the dust, ring-shaped shadows, 1 where there is none: (ny, nx) float32."""
    ny, nx = spec.shape
    diagonal = np.hypot(ny, nx)
    transmission = np.ones(spec.shape)
    for grain in stream(spec, "dust").uniform(size=(spec.dust_count, 4)):
        radius = diagonal * (0.015 + 0.025 * grain[2])
        depth = spec.dust_depth * (0.4 + 0.6 * grain[3])
        transmission *= 1 - depth * ring_shadow(spec.shape, grain[1] * nx, grain[0] * ny, radius)
    return transmission.astype(np.float32)


def response_maps(spec):
    """Relative response of the pixels to light, and what it is made of.

    Returns response = prnu x dust x defects, prnu, dust ((ny, nx) float32), masks of dead and low-QE pixels.
    """
    # A response below 0 is no response: clipped, should a test ask for a PRNU of tens of per cent.
    prnu = np.maximum(normal_map(spec, "prnu", 1.0, spec.prnu) + _prnu_lines(spec), 0)
    dust = dust_map(spec)
    rng = stream(spec, "defects")
    dead, low_qe = pick_two(rng, spec.shape, spec.dead_fraction, spec.low_qe_fraction)
    uniform = rng.uniform(size=spec.shape)
    defects = np.where(dead, 0.3 * uniform, np.where(low_qe, 0.6 + 0.25 * uniform, 1.0))
    return (prnu * dust * defects).astype(np.float32), prnu, dust, dead, low_qe


def _prnu_lines(spec):
    """Row and column part of the PRNU around 0: (ny, nx) float32, or 0 where it has none."""
    if spec.prnu_row == spec.prnu_column == 0:
        return 0
    return patterned_map(spec, "prnu_lines", 0.0, spec.prnu_row, spec.prnu_column, 0.0)


def vignetting_centre_pixels(spec):
    """Optical centre (x, y) in pixels; the first pixel's centre is 0."""
    ny, nx = spec.shape
    return spec.vignetting_centre[0] * nx - 0.5, spec.vignetting_centre[1] * ny - 0.5


def illumination_map(spec):
    """Illumination 1 + k1 r^2 + k2 r^4 + k3 r^6 around the optical centre: (ny, nx) float32.

    Raises ValueError where the coefficients make it zero or negative inside the frame.
    """
    ny, nx = spec.shape
    x0, y0 = vignetting_centre_pixels(spec)
    y, x = np.ogrid[:ny, :nx]
    r2 = ((x - x0) ** 2 + (y - y0) ** 2) / (0.25 * (nx**2 + ny**2))
    light = 1 + r2 * (spec.vignetting_k1 + r2 * (spec.vignetting_k2 + r2 * spec.vignetting_k3))
    require(
        light.min() > 0, "vignetting", f"illumination {light.min():.3g}", "more than 0 in the whole frame"
    )
    return light.astype(np.float32)
