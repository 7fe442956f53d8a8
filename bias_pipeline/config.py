"""Options of the bias pipeline, checked before any file is opened."""

from dataclasses import dataclass
from pathlib import Path

from utils.application.options import SharedOptions
from utils.application.resume import COMBINING, Block
from utils.domain.bias_model import A_MAP, B_MAP, COVARIANCE, SUMMARY
from utils.errors import OptionError

FEW_FRAMES = 5
"""Below so many frames a group's own scatter says little: errors are pooled over the sensor."""
GRID_STEP = 1.0
"""Step of --generate-set [degC]."""
PULL_LIMIT = 5.0
"""A pixel whose chi-square lies so many sigma above its expectation is not described by a line."""

FIXED_NAMES = {
    "make_masters": ("bias_grouped_by_temp/frame_levels.csv", "read_noise/read_noise.fits"),
    "fit_model": tuple(f"bias_model/{name}" for name in (A_MAP, B_MAP, COVARIANCE, SUMMARY)),
    "evaluate": tuple(
        f"evaluation/{name}" for name in ("evaluation_summary.csv", "evaluation_summary.png", "pulls.png")
    ),
}
"""Products of each step whose names do not depend on the frames: refused at the start where others have them."""

BLOCKS = (
    Block(("make_masters",), (*COMBINING, "hot_pixel_mask", "session_gap"), frames=True),
    Block(("fit_model",), reads=("make_masters",)),
    Block(("synthesize",), ("temps", "generate_set"), reads=("fit_model",)),
    Block(("evaluate",), ("hot_pixel_mask", "save_eval_fits", "plots"), reads=("make_masters", "fit_model")),
    Block(("report",), ("plots",), reads=("make_masters", "fit_model", "synthesize", "evaluate"), told=True),
)
"""What --resume keeps or makes as a whole, and from what."""


@dataclass(frozen=True)
class BiasConfig:
    """Options of one run.

    shared : options that all pipelines know.  temps : temperatures of synthetic biases [degC], None = those of the
    masters.  hot_pixel_mask : FITS image, not 0 = hot.  generate_set : synthetic biases on a 1 degC grid over the
    fitted range.  save_eval_fits : write the evaluation maps as FITS too.  session_gap : pause that starts a new
    session [h].
    """

    shared: SharedOptions
    temps: tuple | None = None
    hot_pixel_mask: Path | None = None
    generate_set: bool = False
    save_eval_fits: bool = False
    session_gap: float = 6.0

    def __post_init__(self):
        if self.hot_pixel_mask is not None and not self.hot_pixel_mask.is_file():
            raise OptionError(f"--hot-pixel-mask {self.hot_pixel_mask}: no such file, expected a FITS image")
        for temperature in self.temps or ():
            if not -273.15 <= temperature <= 200:
                raise OptionError(
                    f"--temps: got {temperature:g}, expected degrees Celsius from -273.15 to 200"
                )

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
