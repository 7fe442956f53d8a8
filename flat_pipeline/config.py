"""Options of the flat pipeline, checked before any frame is opened."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from utils.application.options import SharedOptions
from utils.application.resume import COMBINING, Block
from utils.domain import lens_profiles
from utils.errors import OptionError

FLAT_TYPES = ("lab", "sky", "satellite")
NORM_METHODS = ("median", "mean", "max")
UNDEREXPOSED = 0.05
"""A flat whose level lies below this part of the range is left out: read noise and dark would weigh."""
SATURATED_FRACTION = 0.005
"""A flat with more saturated pixels than this is left out; fewer are hot pixels and hits."""
FEW_FRAMES = 5
"""Below so many frames a group's own scatter says little."""
SESSION_GAP = 6 * 3600.0
"""A pause between frames longer than this starts a new session [s]."""
NEED_FRAMES = ("full", "full_no_vignetting", "reduce_only", "characterize")
"""Modes that cannot do without --basepath."""
DEAD_LIMIT, LOW_QE_LIMIT = 0.5, 0.9
"""A pixel below this part of its neighbours' response is dead, or of low quantum efficiency."""

_FRAMES = ("dark", "levels", "reduce", "normalize", "combine", "vignetting", "masters", "characterize")
BLOCKS = (
    Block(
        _FRAMES,
        (
            *COMBINING,
            *("flat_type", "dark_files_json", "dark_model", "bias_model", "no_dark", "norm_method", "plots"),
            *("lensfun_json", "radial_json", "empirical_json", "dead_limit", "low_qe_limit"),
        ),
        frames=True,
        reads=("reduce", "normalize", "vignetting"),
    ),
    Block(("fit_model",), ("t_ref", "exp_ref"), reads=("masters",)),
    Block(("evaluate",), ("save_eval_fits", "plots"), reads=("masters", "fit_model")),
    Block(("report",), ("plots",), reads=(*_FRAMES, "fit_model", "evaluate"), told=True),
)
"""What --resume keeps or makes as a whole, and from what."""


@dataclass(frozen=True)
class FlatConfig:
    """Options of one run.

    shared : options that all pipelines know.  flat_type : 'lab', 'sky' or 'satellite'.  dark_files_json : list of darks.
    dark_model, bias_model : folders of models.  no_dark : subtract no dark.  norm_method : level of a frame.
    lensfun_json, radial_json, empirical_json : illumination instead of a fit.  t_ref [degC], exp_ref [s] : of the flat
    model, None = mean of the set.  save_eval_fits : write the maps of the evaluation too.  dead_limit, low_qe_limit :
    parts of the neighbours' response.
    """

    shared: SharedOptions
    flat_type: str = "lab"
    dark_files_json: Path | None = None
    dark_model: Path | None = None
    bias_model: Path | None = None
    no_dark: bool = False
    norm_method: str = "median"
    lensfun_json: Path | None = None
    radial_json: Path | None = None
    empirical_json: Path | None = None
    t_ref: float | None = None
    exp_ref: float | None = None
    save_eval_fits: bool = False
    dead_limit: float = DEAD_LIMIT
    low_qe_limit: float = LOW_QE_LIMIT

    def __post_init__(self):
        for option, folder in (("--bias-model", self.bias_model), ("--dark-model", self.dark_model)):
            if folder is not None and not folder.is_dir():
                raise OptionError(f"{option} {folder}: no such folder, expected the maps of a model")
        sources = {
            "--no-dark": self.no_dark,
            "--dark-model": self.dark_model is not None,
            "--dark-files-json": self.dark_files_json is not None,
        }
        _one_of(sources)
        _one_of(
            {f"--{name}-json": path is not None for name, path in self.illumination_files().items()},
        )
        if self.t_ref is not None and not -273.15 < self.t_ref <= 200:
            raise OptionError(f"--t-ref: got {self.t_ref:g}, expected degrees Celsius from -273.15 to 200")
        if self.exp_ref is not None and not (math.isfinite(self.exp_ref) and self.exp_ref > 0):
            raise OptionError(f"--exp-ref: got {self.exp_ref:g}, expected seconds above 0")
        if not 0 < self.dead_limit < self.low_qe_limit < 1:
            raise OptionError(
                f"--dead-limit, --low-qe-limit: got {self.dead_limit:g} and {self.low_qe_limit:g}, expected"
                " 0 < dead < low QE < 1"
            )
        # Read now: what is wrong in them is told before the frames are looked at.
        read = {
            "lensfun": lens_profiles.read_lensfun,
            "radial": lens_profiles.read_radial,
            "empirical": lens_profiles.read_empirical,
        }
        given = [read[kind](path) for kind, path in self.illumination_files().items() if path is not None]
        object.__setattr__(self, "_illumination", given[0] if given else None)

    def check_mode(self, mode):
        """Refuse options that the mode cannot use."""
        if mode in NEED_FRAMES:
            self.shared.need_basepath()
        given = [name for name, path in self.illumination_files().items() if path is not None]
        if mode == "full_no_vignetting" and given:
            raise OptionError(
                f"--{given[0]}-json: got --mode {mode} too, expected a mode that corrects vignetting"
            )

    def told(self, flat_type, norm_method, temp_tolerance):
        """Return the same options, with those that files of an earlier run tell; None = they do not."""
        shared = self.shared
        if temp_tolerance is not None:
            shared = replace(shared, temp_tolerance=float(temp_tolerance))
        return replace(
            self,
            shared=shared,
            flat_type=flat_type or self.flat_type,
            norm_method=norm_method or self.norm_method,
        )

    def illumination_files(self):
        """Files of the illumination by kind, None where not given."""
        return {"lensfun": self.lensfun_json, "radial": self.radial_json, "empirical": self.empirical_json}

    @property
    def illumination(self):
        """Illumination asked for, `RadialProfile` or `EmpiricalProfile`; None to fit the radial model."""
        return self._illumination

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


def _one_of(given):
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise OptionError(f"{names[0]}: got {names[1]} too, expected one of them")
