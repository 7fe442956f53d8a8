"""The specification of the simulated sensor: every term with its default, and what is refused.

Units: levels in product ADU (a step of the converter; 16 stored counts for 12 bits left-justified in 16),
charge in electrons, temperature in degC, time in seconds.
"""

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

_POSITIVE = ("gain", "dark_doubling", "glow_scale")
_FRACTIONS = (
    *("hot_fraction", "warm_fraction", "telegraph_fraction", "dead_fraction", "low_qe_fraction"),
    "dust_depth",
)
_AT_MOST_TENTH = ("nonlinearity", "gain_droop")  # together they keep the signal rising with charge
_ANY_SIGN = (
    *("bias_level", "bias_slope", "dark_t_ref", "dark_gamma", "dark_offset"),
    *("vignetting_k1", "vignetting_k2", "vignetting_k3"),
    *("flat_b", "flat_c", "flat_t_ref", "flat_exposure_ref"),
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
    full_well_spread: float = 0.0  # sigma of ln(full well) over pixels
    nonlinearity: float = 0.02  # fraction of the signal lost at full well; falls as the 6th power below
    gain_droop: float = 0.0  # the same, but falls in proportion to the signal
    brighter_fatter: float = 0.0  # 1/e-, a: shot variance of a charge q is (1 - exp(-2 a q)) / (2 a)
    read_noise: float = 1.5  # ADU, 1 sigma, without the quantisation; median over pixels
    read_noise_spread: float = 0.05  # sigma of ln(read noise) over pixels
    row_noise: float = 0.15  # ADU, temporal, common to a row of one frame
    column_noise: float = 0.0  # ADU, temporal, common to a column of one frame
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
    prnu_row: float = 0.0  # 1 sigma over rows
    prnu_column: float = 0.0
    # times 1 + flat_b (T - flat_t_ref) + flat_c (t - flat_exposure_ref), b and c with their spread over pixels
    flat_b: float = 0.0  # 1/degC
    flat_b_spread: float = 0.0  # 1/degC, 1 sigma over pixels
    flat_c: float = 0.0  # 1/s
    flat_c_spread: float = 0.0  # 1/s, 1 sigma over pixels
    flat_t_ref: float = 0.0  # degC
    flat_exposure_ref: float = 1.0  # s
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
            require(isinstance(value, tuple | list), name, value, "a list of numbers")
            object.__setattr__(self, name, tuple(value))
        whole = all(_is_whole(n) and n > 0 for n in self.shape)
        require(len(self.shape) == 2 and whole, "shape", self.shape, "two positive whole numbers")
        require(_is_whole(self.seed) and self.seed >= 0, "seed", self.seed, "a whole number, 0 or more")
        require(
            _is_whole(self.bit_depth) and 8 <= self.bit_depth <= 16, "bit_depth", self.bit_depth, "8 to 16"
        )
        require(isinstance(self.left_justified, bool), "left_justified", self.left_justified, "true or false")
        require(
            _is_whole(self.dust_count) and self.dust_count >= 0,
            "dust_count",
            self.dust_count,
            "a whole number, 0 or more",
        )
        require(
            all(map(_is_finite, self.session_shifts)), "session_shifts", self.session_shifts, "finite numbers"
        )
        centre = self.vignetting_centre
        require(
            len(centre) == 2 and all(map(_is_finite, centre)),
            "vignetting_centre",
            centre,
            "two finite numbers",
        )
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _NOT_SCALAR:
                continue
            require(_is_finite(value), name, value, "a finite number")
            if name in _POSITIVE:
                require(value > 0, name, value, "more than 0")
            elif name in _FRACTIONS:
                require(0 <= value <= 1, name, value, "0 to 1")
            elif name not in _ANY_SIGN:
                require(value >= 0, name, value, "0 or more")
        for one, other in (("hot_fraction", "warm_fraction"), ("dead_fraction", "low_qe_fraction")):
            both = getattr(self, one) + getattr(self, other)
            require(both <= 1, f"{one} + {other}", both, "at most 1")
        require(
            self.dark_gamma > -1,
            "dark_gamma",
            self.dark_gamma,
            "more than -1: charge cannot fall with exposure",
        )
        for name in _AT_MOST_TENTH:
            value = getattr(self, name)
            require(value <= 0.1, name, value, "at most 0.1: the signal must rise with charge")
            if value > 0:
                require(self.full_well > 0, "full_well", self.full_well, f"more than 0 where {name} is on")

    @classmethod
    def preset(cls, name, **changes):
        """Specification of one of the converters in ``PRESETS`` ('12left', '12', '16'), with changes.

        Raises ValueError for an unknown preset, TypeError for an unknown term.
        """
        require(name in PRESETS, "preset", name, f"one of {', '.join(PRESETS)}")
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
        require(not unknown, "sensor term", ", ".join(unknown), "a field of SensorSpec")
        return dataclasses.replace(base if base is not None else cls(), **terms)


# The terms that can be switched off; the rest is converter, geometry and the shape of a layer.
LAYERS = (
    *("full_well", "full_well_spread", "nonlinearity", "gain_droop", "brighter_fatter"),
    *("read_noise", "read_noise_spread", "row_noise", "column_noise"),
    *("bias_row", "bias_column", "bias_pixel", "bias_slope", "slope_row", "slope_column", "slope_pixel"),
    *("session_shifts", "dark_offset", "glow", "telegraph_fraction", "hot_fraction", "warm_fraction"),
    *("dark_rate", "dark_spread", "dark_b_spread", "dark_gamma", "dark_gamma_spread"),
    *("prnu", "prnu_row", "prnu_column", "dust_count", "dead_fraction", "low_qe_fraction"),
    *("flat_b", "flat_b_spread", "flat_c", "flat_c_spread"),
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


def require(condition, name, got, expected):
    """Raise ValueError naming the term, what was got and expected, unless the condition holds."""
    if not condition:
        raise ValueError(f"{name}: got {got}, expected {expected}")
