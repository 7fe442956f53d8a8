"""Options of the dark pipeline, checked before any file is opened."""

import math
from dataclasses import dataclass
from pathlib import Path

from utils.application.options import SharedOptions
from utils.application.resume import COMBINING, Block
from utils.errors import OptionError

FEW_FRAMES = 5
"""Below so many frames a group's own scatter says little; errors come from the noise model anyway."""
WARM_SIGMA = 5.0
"""WARM from so many robust sigma above the median."""
ASSUMED_B = math.log(2.0) / 7.0
"""Coefficient of temperature for the drift inside a group where the set does not tell one [1/degC]."""
DRIFT_MATTERS = 0.005
"""Change of the dark current inside a group that is worth correcting."""
MOST_CANDIDATES = 20000
"""Pixels whose levels are searched for telegraph noise."""

_MAPS = ("bias", "dark_maps")
_FITS = ("fit_1d", "fit_2d")
_SYNTHETIC = ("synthesize_1d", "synthesize_2d", "synthesize_single")
_EVALUATIONS = ("evaluate_1d", "evaluate_2d")
BLOCKS = (
    Block(
        _MAPS,
        (*COMBINING, "session_gap", "bias_model", "no_bias", "hot_sigma", "hot_threshold", "save_corrected"),
        frames=True,
    ),
    Block(("fit_1d",), reads=_MAPS),
    Block(("fit_2d",), reads=_MAPS),
    Block(
        ("synthesize_1d",), ("temps", "unit", "add_bias", "model_dir", "bias_model"), reads=(*_MAPS, "fit_1d")
    ),
    Block(
        ("synthesize_2d",),
        ("temps", "exptimes", "unit", "add_bias", "model_dir", "bias_model"),
        reads=(*_MAPS, "fit_2d"),
    ),
    Block(
        ("synthesize_single",),
        ("temp_single", "exptime_single", "unit", "add_bias", "model_dir", "bias_model"),
        reads=(*_MAPS, "fit_2d"),
    ),
    Block(("evaluate_1d",), ("plots",), reads=(*_MAPS, "fit_1d")),
    Block(("evaluate_2d",), ("plots",), reads=(*_MAPS, "fit_2d")),
    Block(("report",), ("plots",), reads=(*_MAPS, *_FITS, *_SYNTHETIC, *_EVALUATIONS), told=True),
)
"""What --resume keeps or makes as a whole, and from what."""


@dataclass(frozen=True)
class DarkConfig:
    """Options of one run.

    shared : options that all pipelines know.  model_dir : folder of the 1-D model, None = all in the output folder.
    bias_model : folder of a bias model.  no_bias : subtract no bias.  temps [degC], exptimes [s] : of synthetic darks,
    None = those of the maps.  temp_single, exptime_single : of the single synthetic dark.  unit : of synthetic darks.
    add_bias : synthetic darks with their bias.  hot_sigma : limit of hot pixels [robust sigma].
    hot_threshold : the same as a rate [ADU/s].  save_corrected : write each dark less its bias.
    """

    shared: SharedOptions
    model_dir: Path | None = None
    bias_model: Path | None = None
    no_bias: bool = False
    temps: tuple | None = None
    exptimes: tuple | None = None
    temp_single: float | None = None
    exptime_single: float | None = None
    unit: str = "adu/s"
    add_bias: bool = False
    hot_sigma: float = 8.0
    hot_threshold: float | None = None
    save_corrected: bool = False
    session_gap: float = 6.0

    def __post_init__(self):
        for option, temperatures in (("--temps", self.temps), ("--temp_single", _one(self.temp_single))):
            for temperature in temperatures or ():
                if not -273.15 < temperature <= 200:
                    raise OptionError(
                        f"{option}: got {temperature:g}, expected degrees Celsius from -273.15 to 200"
                    )
        for option, exposures in (
            ("--exptimes", self.exptimes),
            ("--exptime_single", _one(self.exptime_single)),
        ):
            for exposure in exposures or ():
                if not (math.isfinite(exposure) and exposure > 0):
                    raise OptionError(f"{option}: got {exposure:g}, expected seconds above 0")
        if self.no_bias and self.bias_model is not None:
            raise OptionError(f"--no-bias: got --bias-model {self.bias_model} too, expected one of them")
        if self.add_bias and self.no_bias:
            raise OptionError("--add-bias: got --no-bias too, expected a bias to add")
        if self.add_bias and self.unit != "adu":
            raise OptionError(f"--add-bias: got --unit {self.unit}, expected --unit adu")
        if not self.hot_sigma > WARM_SIGMA:
            raise OptionError(
                f"--hot-sigma: got {self.hot_sigma:g}, expected more than {WARM_SIGMA:g} (warm pixels)"
            )
        for option, folder in (("--bias-model", self.bias_model), ("--model_dir", self.model_dir)):
            if folder is not None and not folder.is_dir():
                raise OptionError(f"{option} {folder}: no such folder, expected the maps of a model")

    @property
    def output_dir(self):
        """Folder of all products."""
        return self.shared.output_dir

    @property
    def stored_scale(self):
        """Stored units per product ADU, or None to find it from the frames."""
        return None if self.shared.adu_scale == "auto" else float(self.shared.adu_scale)

    @property
    def saturation(self):
        """Saturation level [product ADU], or None to find it from the frames."""
        return None if self.shared.saturation == "auto" else float(self.shared.saturation)

    def need_single(self):
        """OptionError where the temperature or exposure of the single dark was not given."""
        for option, value in (("--temp_single", self.temp_single), ("--exptime_single", self.exptime_single)):
            if value is None:
                raise OptionError(f"{option}: got none, expected a number for the single synthetic dark")


def _one(value):
    return None if value is None else (value,)
