"""The bias model ``bias(T) = a + b T`` of every pixel, read back from its products and evaluated."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.fits_io.mapped import Squares, drop_pages, native
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ
from utils.kernels.calibration import BiasTerms
from utils.kernels.pieces import in_pieces

A_MAP, B_MAP, COVARIANCE, SUMMARY = (
    "bias_a_map.fits",
    "bias_b_map.fits",
    "bias_ab_covariance.fits",
    "bias_model.json",
)
EQUATION = "bias(T) = a + b * T, T in degC"


@dataclass(frozen=True, eq=False)
class BiasModel:
    """Maps of the model, each (ny, nx) float32.

    a [ADU] at 0 degC, b [ADU/degC]; var_a, var_b, cov_ab : covariance.  dq : int16.  t_min, t_max [degC] : fitted range.
    tolerance [degC] : half width of a temperature group; inside it the range still counts as reached.
    adu_scale : stored units per product ADU.  header : cards of the a map.
    """

    a: np.ndarray
    b: np.ndarray
    var_a: np.ndarray
    var_b: np.ndarray
    cov_ab: np.ndarray
    dq: np.ndarray
    t_min: float
    t_max: float
    tolerance: float
    adu_scale: float
    header: object

    @classmethod
    def load(cls, folder, *, mapped=False):
        """Read the model from its folder; mapped : as for `from_maps`.

        Raises InputError for a missing, foreign or mismatching map.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder, expected a bias model ({A_MAP}, {B_MAP}, {COVARIANCE})"
            )
        covariance = folder / COVARIANCE
        covariance = covariance if covariance.exists() else None
        return cls.from_maps(folder / A_MAP, folder / B_MAP, covariance, mapped=mapped)

    @classmethod
    def from_maps(cls, a_map, b_map, covariance=None, *, mapped=False):
        """Read the model from its maps; without the covariance map a and b count as independent at mid-range.

        mapped : all but dq stay in their files, for work in row blocks: a, b and cov_ab are big-endian and read-only,
        var_a and var_b `utils.fits_io.mapped.Squares`.
        """
        taken, squared = (_as_they_are, Squares) if mapped else (native, _squared)
        opened = [_open(a_map, "BIAS_A", "UNCERT", "DQ"), _open(b_map, "BIAS_B", "UNCERT", "DQ")]
        if covariance is not None:
            opened.append(_open(covariance, "BIAS_COVARIANCE"))
        header, planes = opened[0]
        for path, (other, own) in zip((a_map, b_map, covariance), opened, strict=False):
            if own["PRIMARY"].shape != planes["PRIMARY"].shape:
                raise InputError(
                    f"{path}: shape {own['PRIMARY'].shape}, expected {planes['PRIMARY'].shape} as in {a_map}"
                )
            for key in ("ADUSCALE", "T_MIN", "T_MAX"):
                if other.get(key) != header.get(key):
                    raise InputError(
                        f"{path}: {key} {other.get(key)}, expected {header.get(key)} as in {a_map}"
                    )
        t_min, t_max = float(header["T_MIN"]), float(header["T_MAX"])
        a, b = (taken(own["PRIMARY"]) for _, own in opened[:2])
        var_a, var_b = (squared(own["UNCERT"]) for _, own in opened[:2])
        # Errors of a and b of a centred fit are independent at the centre, which fixes cov(a, b) = -T_c var_b.
        centre = np.float32(0.5 * (t_min + t_max))
        cov = -centre * var_b[:] if covariance is None else taken(opened[2][1]["PRIMARY"])
        dq = native(planes["DQ"])
        dq |= opened[1][1]["DQ"]
        drop_pages(opened[1][1]["DQ"])
        tolerance, scale = float(header.get("TTOL", 0.0)), float(header.get("ADUSCALE", 1.0))
        return cls(a, b, var_a, var_b, cov, dq, t_min, t_max, tolerance, scale, header)

    @property
    def fixed_slope(self):
        """True where the data had one temperature only: b is 0 and its error unknown."""
        return bool(self.header.get("BFIXED", False))

    def extrapolates(self, temperature):
        """Return True when the temperature [degC] lies outside the fitted range by more than a group's tolerance."""
        return not self.t_min - self.tolerance <= temperature <= self.t_max + self.tolerance

    def evaluate(self, temperature, rows=slice(None)):
        """Bias at a temperature [degC], of some rows or all: value (ny, nx) [ADU], 1 sigma [ADU] and dq (int16)."""
        t = float(temperature)
        maps = [plane[rows] for plane in (self.a, self.b, self.var_a, self.var_b, self.cov_ab)]
        value, sigma = (np.empty(maps[0].shape, np.float32) for _ in range(2))
        planes = (*maps, value, sigma)
        for a, b, var_a, var_b, cov, level, error in in_pieces(*planes):
            np.add(a, b * np.float32(t), out=level)
            # In float64: the terms cancel far from 0 degC.
            variance = var_a.astype(np.float64)
            if not self.fixed_slope:
                variance += (2.0 * t) * cov.astype(np.float64) + (t * t) * var_b
            np.sqrt(np.maximum(variance, 0.0), out=error, casting="same_kind")
        drop_pages(*maps)
        return value, sigma, self.dq[rows]

    def terms(self, rows, inner):
        """Return the `BiasTerms` of some rows, with errors of the rows ``inner``, for many temperatures."""
        line = (self.a[rows], self.b[rows], self.var_a[inner])
        if self.fixed_slope:
            return BiasTerms(*line)
        return BiasTerms(*line, self.var_b[inner], self.cov_ab[inner])

    def terms_of(self, part):
        """Return the `BiasTerms` of a slice of the flat maps, for many temperatures."""
        planes = [plane.reshape(-1)[part] for plane in (self.a, self.b, self.var_a, self.var_b, self.cov_ab)]
        return BiasTerms(*(planes[:3] if self.fixed_slope else planes))

    def variance(self, temperature, where):
        """Variance [ADU^2] of the bias at a temperature [degC] of some pixels (slice or flat indices): (m,) float64."""
        t = float(temperature)
        # In float64: the terms cancel far from 0 degC.
        variance = self.var_a.reshape(-1)[where].astype(np.float64)
        if not self.fixed_slope:
            variance += (2.0 * t) * self.cov_ab.reshape(-1)[where].astype(np.float64)
            variance += (t * t) * self.var_b.reshape(-1)[where]
        return np.maximum(variance, 0.0)


def _open(path, kind, *needed):
    """Header and mapped planes of one map; InputError where it is no ``kind`` or a plane is missing."""
    header, planes = view_planes(path, verify=True)
    if header.get("PRODTYPE") != kind:
        raise InputError(f"{path}: got PRODTYPE {header.get('PRODTYPE') or 'missing'}, expected {kind}")
    for name in ("PRIMARY", *needed):
        if name not in planes or planes[name].shape != planes["PRIMARY"].shape:
            raise InputError(f"{path}: got no plane {name} of one shape with the others, expected {kind}")
    return header, planes


def _as_they_are(plane):
    return plane


def _squared(plane):
    values = native(plane)
    return np.square(values, out=values)


def model_summary(folder):
    """Read bias_model.json of a model folder; raises InputError where it is missing or not JSON."""
    path = Path(folder) / SUMMARY
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}, expected the summary of a bias model") from error


def unusable(dq):
    """Boolean map of pixels that a model or master cannot vouch for."""
    return (dq & (DQ.DO_NOT_USE | DQ.NO_DATA)) != 0
