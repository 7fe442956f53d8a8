"""What the simulated sensor is: its specification, and the fixed per-pixel maps drawn from it.

Units: levels in product ADU (a step of the converter; 16 stored counts for 12 bits left-justified in 16),
charge in electrons, temperature in degC, time in seconds.
Each layer draws from its own random stream, so that switching one off leaves every other map as it was.
"""

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

# One random stream a layer: append only, a changed number changes every simulated sensor.
_STREAMS = (
    *("bias_a", "bias_b", "read_noise", "dark_a", "dark_tail", "dark_b", "dark_gamma"),
    *("telegraph", "prnu", "dust", "defects"),
)
_POSITIVE = ("gain", "dark_doubling", "glow_scale")
_FRACTIONS = (
    *("hot_fraction", "warm_fraction", "telegraph_fraction", "dead_fraction", "low_qe_fraction"),
    "dust_depth",
)
_ANY_SIGN = (
    *("bias_level", "bias_slope", "dark_t_ref", "dark_gamma", "dark_offset"),
    *("vignetting_k1", "vignetting_k2", "vignetting_k3"),
)
_NOT_SCALAR = (
    *("shape", "seed", "bit_depth", "left_justified", "session_shifts", "vignetting_centre"),
    "dust_count",
)


@dataclass(frozen=True)
class SensorSpec:
    """Everything that defines a simulated sensor; 0 switches a term off.

    The defaults are a 12-bit CMOS camera with left-justified samples; ``preset`` gives the other converters,
    ``bare`` a sensor with every layer off. Raises ValueError for values that no sensor can have.
    """

    shape: tuple = (256, 256)  # rows, columns
    seed: int = 1  # of the fixed maps
    # converter and charge well
    bit_depth: int = 12  # 8 to 16
    left_justified: bool = True  # samples are stored shifted up to 16 bits
    gain: float = 2.0  # e-/ADU
    full_well: float = 7800.0  # e-; 0: no limit but the converter's
    nonlinearity: float = 0.02  # fraction of the signal lost at full well; falls as the 6th power below
    read_noise: float = 1.5  # ADU, 1 sigma, without the quantisation; median over pixels
    read_noise_spread: float = 0.05  # sigma of ln(read noise) over pixels
    row_noise: float = 0.15  # ADU, temporal, common to a row of one frame
    # bias = a + b T + shift of the session
    bias_level: float = 100.0  # ADU at 0 degC
    bias_row: float = 0.8  # ADU, 1 sigma over rows
    bias_column: float = 1.2
    bias_pixel: float = 2.0
    bias_slope: float = 0.30  # ADU/degC
    slope_row: float = 0.004  # ADU/degC, 1 sigma over rows
    slope_column: float = 0.006
    slope_pixel: float = 0.015
    session_shifts: tuple = (0.0, 1.2)  # ADU, zero level of each session; (): none in any session
    # dark rate = A t^gamma exp(B (T - dark_t_ref)) + glow
    dark_rate: float = 0.15  # ADU/s, median A
    dark_spread: float = 0.25  # sigma of ln A over ordinary pixels
    dark_t_ref: float = 0.0  # degC at which A holds
    dark_doubling: float = 6.5  # degC that double the rate: B = ln 2 / doubling
    dark_b_spread: float = 0.03  # relative, 1 sigma over pixels
    dark_gamma: float = 0.02
    dark_gamma_spread: float = 0.01
    hot_fraction: float = 0.002
    hot_factor: float = 100.0  # median A of hot pixels, in dark_rate
    hot_spread: float = 0.7  # sigma of ln A over hot pixels
    warm_fraction: float = 0.01
    warm_factor: float = 8.0
    warm_spread: float = 0.4
    dark_offset: float = 0.0  # ADU, level of dark and flat frames above bias frames at no charge
    glow: float = 0.3  # ADU/s in the amplifier's corner, at any temperature
    glow_scale: float = 0.12  # 1/e length of the glow in frame diagonals
    telegraph_fraction: float = 0.001
    telegraph_amplitude: float = 12.0  # ADU between the two levels, median over telegraph pixels
    # response to light
    prnu: float = 0.01  # 1 sigma over pixels
    dust_count: int = 5  # grains: ring-shaped shadows
    dust_depth: float = 0.06  # of the deepest shadow
    dead_fraction: float = 0.0005  # response 0 to 0.3
    low_qe_fraction: float = 0.002  # response 0.6 to 0.85
    vignetting_k1: float = -0.18  # illumination 1 + k1 r^2 + k2 r^4 + k3 r^6, r = 1 at half the diagonal
    vignetting_k2: float = -0.06
    vignetting_k3: float = 0.02
    vignetting_centre: tuple = (0.54, 0.47)  # x, y in frame widths and heights; (0.5, 0.5) is the middle
    # cosmic hits: tracks of 1 to 4 pixels
    cosmic_rate: float = 2e-6  # hits per pixel and second of exposure
    cosmic_per_frame: float = 2e-5  # hits per pixel and frame whatever the exposure, bias frames too
    cosmic_charge: float = 1500.0  # e-, median of the log-normal charge of a track
    cosmic_spread: float = 0.8  # sigma of ln charge

    def __post_init__(self):
        """Turn lists into tuples and refuse what no sensor can have."""
        for name in ("shape", "session_shifts", "vignetting_centre"):
            value = getattr(self, name)
            _require(isinstance(value, tuple | list), name, value, "a list of numbers")
            object.__setattr__(self, name, tuple(value))
        whole = all(_is_whole(n) and n > 0 for n in self.shape)
        _require(len(self.shape) == 2 and whole, "shape", self.shape, "two positive whole numbers")
        _require(_is_whole(self.seed) and self.seed >= 0, "seed", self.seed, "a whole number, 0 or more")
        _require(
            _is_whole(self.bit_depth) and 8 <= self.bit_depth <= 16, "bit_depth", self.bit_depth, "8 to 16"
        )
        _require(
            isinstance(self.left_justified, bool), "left_justified", self.left_justified, "true or false"
        )
        _require(
            _is_whole(self.dust_count) and self.dust_count >= 0,
            "dust_count",
            self.dust_count,
            "a whole number, 0 or more",
        )
        _require(
            all(map(_is_finite, self.session_shifts)), "session_shifts", self.session_shifts, "finite numbers"
        )
        centre = self.vignetting_centre
        _require(
            len(centre) == 2 and all(map(_is_finite, centre)),
            "vignetting_centre",
            centre,
            "two finite numbers",
        )
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _NOT_SCALAR:
                continue
            _require(_is_finite(value), name, value, "a finite number")
            if name in _POSITIVE:
                _require(value > 0, name, value, "more than 0")
            elif name in _FRACTIONS:
                _require(0 <= value <= 1, name, value, "0 to 1")
            elif name not in _ANY_SIGN:
                _require(value >= 0, name, value, "0 or more")
        for one, other in (("hot_fraction", "warm_fraction"), ("dead_fraction", "low_qe_fraction")):
            both = getattr(self, one) + getattr(self, other)
            _require(both <= 1, f"{one} + {other}", both, "at most 1")
        _require(
            self.dark_gamma > -1,
            "dark_gamma",
            self.dark_gamma,
            "more than -1: charge cannot fall with exposure",
        )
        _require(
            self.nonlinearity <= 0.1,
            "nonlinearity",
            self.nonlinearity,
            "at most 0.1: the signal must rise with charge",
        )
        if self.nonlinearity > 0:
            _require(self.full_well > 0, "full_well", self.full_well, "more than 0 where nonlinearity is on")

    @classmethod
    def preset(cls, name, **changes):
        """Specification of one of the converters in ``PRESETS`` ('12left', '12', '16'), with changes.

        Raises ValueError for an unknown preset, TypeError for an unknown term.
        """
        _require(name in PRESETS, "preset", name, f"one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})

    @classmethod
    def bare(cls, **terms):
        """Specification with every term of ``LAYERS`` off but those given: to look at one layer alone."""
        off = {name: () if name == "session_shifts" else 0 for name in LAYERS}
        return cls(**{**off, **terms})

    @classmethod
    def from_dict(cls, terms, base=None):
        """Specification ``base`` (or the defaults) changed by a mapping from term names, as JSON gives it.

        Raises ValueError naming unknown terms, or for values that no sensor can have.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(terms) - known)
        _require(not unknown, "sensor term", ", ".join(unknown), "a field of SensorSpec")
        return dataclasses.replace(base if base is not None else cls(), **terms)


# The terms that can be switched off; the rest is converter, geometry and the shape of a layer.
LAYERS = (
    *("full_well", "nonlinearity", "read_noise", "read_noise_spread", "row_noise"),
    *("bias_row", "bias_column", "bias_pixel", "bias_slope", "slope_row", "slope_column", "slope_pixel"),
    *("session_shifts", "dark_offset", "glow", "telegraph_fraction", "hot_fraction", "warm_fraction"),
    *("dark_rate", "dark_spread", "dark_b_spread", "dark_gamma", "dark_gamma_spread"),
    *("prnu", "dust_count", "dead_fraction", "low_qe_fraction"),
    *("vignetting_k1", "vignetting_k2", "vignetting_k3", "cosmic_rate", "cosmic_per_frame"),
)

PRESETS = {
    "12left": {},
    "12": {"left_justified": False},
    "16": {
        "bit_depth": 16,
        "left_justified": False,
        "gain": 0.8,
        "full_well": 50000.0,
        "read_noise": 4.5,
        "row_noise": 0.5,
        "bias_level": 1000.0,
        "bias_row": 2.0,
        "bias_column": 3.0,
        "bias_pixel": 6.0,
        "bias_slope": 0.8,
        "slope_row": 0.01,
        "slope_column": 0.02,
        "slope_pixel": 0.05,
        "session_shifts": (0.0, 3.0),
        "dark_rate": 0.4,
        "glow": 0.8,
        "telegraph_amplitude": 40.0,
    },
}


def _is_whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_finite(value):
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))


def _require(condition, name, got, expected):
    if not condition:
        raise ValueError(f"{name}: got {got}, expected {expected}")


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
    return (median * np.exp(spread * stream(spec, layer).standard_normal(spec.shape))).astype(np.float32)


def normal_map(spec, layer, mean, spread):
    """Draw a map normal over pixels: (ny, nx) float32."""
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


def dust_map(spec):
    """Transmission of the dust, ring-shaped shadows, 1 where there is none: (ny, nx) float32."""
    ny, nx = spec.shape
    y, x = np.ogrid[:ny, :nx]
    diagonal = np.hypot(ny, nx)
    transmission = np.ones(spec.shape)
    for grain in stream(spec, "dust").uniform(size=(spec.dust_count, 4)):
        radius = diagonal * (0.015 + 0.025 * grain[2])
        depth = spec.dust_depth * (0.4 + 0.6 * grain[3])
        distance = np.hypot(y - grain[0] * ny, x - grain[1] * nx)
        # Out of focus: a soft disc, lighter in the middle where the pupil's centre is seen.
        disc = 1 / (1 + np.exp((distance - radius) / (0.1 * radius)))
        transmission *= 1 - depth * disc * (1 - 0.6 * np.exp(-((distance / (0.4 * radius)) ** 2)))
    return transmission.astype(np.float32)


def response_maps(spec):
    """Relative response of the pixels to light, and what it is made of.

    Returns response = prnu x dust x defects, prnu, dust ((ny, nx) float32), masks of dead and low-QE pixels.
    """
    # A response below 0 is no response: clipped, should a test ask for a PRNU of tens of per cent.
    prnu = np.maximum(normal_map(spec, "prnu", 1.0, spec.prnu), 0)
    dust = dust_map(spec)
    rng = stream(spec, "defects")
    dead, low_qe = pick_two(rng, spec.shape, spec.dead_fraction, spec.low_qe_fraction)
    uniform = rng.uniform(size=spec.shape)
    defects = np.where(dead, 0.3 * uniform, np.where(low_qe, 0.6 + 0.25 * uniform, 1.0))
    return (prnu * dust * defects).astype(np.float32), prnu, dust, dead, low_qe


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
    _require(
        light.min() > 0, "vignetting", f"illumination {light.min():.3g}", "more than 0 in the whole frame"
    )
    return light.astype(np.float32)
