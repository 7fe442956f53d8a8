"""The dark model ``rate = A t^gamma exp(B (T - T_MIN))`` of every pixel, read back from its products and evaluated."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.fits_io.mapped import drop_pages, native
from utils.fits_io.product_reader import view_planes
from utils.kernels import dark_law
from utils.kernels.pieces import PIECE

MAPS_1D = ("A_map.fits", "B_map.fits", "AB_covariance.fits")
MAPS_2D = ("A_map_2D.fits", "B_map_2D.fits", "GAMMA_map_2D.fits", "covariance_2D.fits")
HOT_MAP, SUMMARY_2D, GLOBAL_1D, GLOBAL_2D = (
    "hot_pixels.fits",
    "dark_model_2d.json",
    "global_params.npz",
    "global_params_2d.npz",
)
EQUATION_1D = "rate(T) = A * exp(B * (T - T_MIN))"
EQUATION_2D = "rate(T, t) = A * t**GAMMA * exp(B * (T - T_MIN))"
KELVIN = 273.15


@dataclass(frozen=True, eq=False)
class DarkModel:
    """Maps of the model, mapped from their files and read block by block.

    params : A [ADU/s] at T_MIN and 1 s, B [1/K], gamma.  sigmas : their 1 sigma.  mixed : cov(A, B), cov(A, gamma),
    cov(B, gamma).  Each (ny, nx) in the order of the file, or None for gamma of a 1-D model.
    dq (ny, nx) int16.  t_min, t_max [degC], e_min, e_max [s] : fitted range.  tolerance [degC] : half width of a group.
    offset [ADU] : level of darks above bias, taken out before the fit.  header : cards of the A map.  paths : files.
    """

    params: tuple
    sigmas: tuple
    mixed: tuple
    dq: np.ndarray
    t_min: float
    t_max: float
    e_min: float
    e_max: float
    tolerance: float
    offset: float
    header: dict
    paths: tuple

    @classmethod
    def load(cls, folder):
        """Open the 2-D model (A_map_2D.fits ...) of a folder, else the 1-D model (A_map.fits ...).

        folder : of the model, or the output folder of the dark pipeline.

        Raises InputError for a missing, foreign or mismatching map.
        """
        folder = Path(folder)
        if (folder / "dark_model_2d").is_dir():
            folder /= "dark_model_2d"
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder, expected a dark model ({', '.join(MAPS_2D)})")
        two = (folder / MAPS_2D[0]).exists() or not (folder / MAPS_1D[0]).exists()
        paths = tuple(folder / name for name in (MAPS_2D if two else MAPS_1D))
        suffix = "_2D" if two else ""
        kinds = ("DARK_A", "DARK_B", "DARK_GAMMA") if two else ("DARK_A", "DARK_B")
        opened = [
            _open(path, kind + suffix, "UNCERT", "DQ") for path, kind in zip(paths, kinds, strict=False)
        ]
        further = ("COV_AG", "COV_BG") if two else ()
        opened.append(_open(paths[-1], "DARK_COVARIANCE" + suffix, *further))
        head, first = opened[0]
        for path, (header, own) in zip(paths, opened, strict=True):
            if own["PRIMARY"].shape != first["PRIMARY"].shape:
                raise InputError(
                    f"{path}: shape {own['PRIMARY'].shape}, expected {first['PRIMARY'].shape} as in {paths[0]}"
                )
            for key in ("T_MIN", "T_MAX", "ADUSCALE", "GAIN"):
                if header.get(key) != head.get(key):
                    raise InputError(
                        f"{path}: {key} {header.get(key)}, expected {head.get(key)} as in {paths[0]}"
                    )
        maps, cross = [planes for _, planes in opened[:-1]], opened[-1][1]
        none = () if two else (None,)
        dq = native(first["DQ"])
        dq |= maps[1]["DQ"]
        return cls(
            (*(planes["PRIMARY"] for planes in maps), *none),
            (*(planes["UNCERT"] for planes in maps), *none),
            (cross["PRIMARY"], cross.get("COV_AG"), cross.get("COV_BG")),
            dq,
            float(head["T_MIN"]),
            float(head["T_MAX"]),
            float(head["E_MIN"]),
            float(head["E_MAX"]),
            float(head.get("TTOL", 0.0)),
            float(head.get("OFFSET", 0.0)),
            head,
            paths,
        )

    @property
    def shape(self):
        """(ny, nx) of the maps."""
        return self.dq.shape

    def extrapolates(self, temperature, exposure=None):
        """Return True outside the fitted range of temperature [degC] or exposure [s], tolerances allowed for."""
        inside = self.t_min - self.tolerance <= temperature <= self.t_max + self.tolerance
        if exposure is not None:
            inside = inside and 0.99 * self.e_min <= exposure <= 1.01 * self.e_max
        return not inside

    def evaluate(self, temperature, exposure=1.0):
        """Dark current at a temperature [degC] and exposure [s]: rate [ADU/s], 1 sigma [ADU/s], dq; each (ny, nx).

        Outside the fitted range sigma grows by the difference between this law of temperature and Arrhenius' law of
        the same slope, and by the whole effect of gamma.
        """
        value, sigma = np.empty(self.shape, np.float32), np.empty(self.shape, np.float32)
        flat = value.reshape(-1), sigma.reshape(-1)
        for start in range(0, value.size, PIECE):
            part = slice(start, start + PIECE)
            flat[0][part], flat[1][part] = self.at(part, temperature, exposure)
        self.rest()
        return value, sigma, self.dq

    def at(self, part, temperature, exposure=1.0):
        """Dark current and 1 sigma [ADU/s] of the pixels ``part`` (slice or indices of the flat maps), each (m,)."""
        p = self.parameters(part)
        # In float64: the terms of the variance cancel.
        sigmas = _read(self.sigmas, part, np.float64)
        mixed = _read(self.mixed, part, np.float64)
        variances = [None if one is None else one * one for one in sigmas]
        cov = (variances[0], mixed[0], mixed[1], variances[1], mixed[2], variances[2])
        rate, error = dark_law.rate(p, cov, temperature - self.t_min, exposure)
        wider = self._beyond(p, temperature, exposure)
        return rate, error if wider is None else np.hypot(error, rate * wider)

    def terms(self, part, exposure, inner=slice(None)):
        """Return the `dark_law.DarkTerms` of the pixels ``part``, with errors of those ``inner`` of them, for `signal`."""
        planes = (*self.sigmas, *self.mixed)
        planes = [None if plane is None else plane.reshape(-1)[part][inner] for plane in planes]
        return dark_law.DarkTerms(self.parameters(part), planes[:3], planes[3:], exposure, inner)

    def signal(self, terms, part, temperature, exposure):
        """Dark signal of `terms` in a frame, as `evaluate` gives its rate.

        part : pixels of the terms.  temperature [degC], exposure [s] : of the frame.
        Returns signal without `offset` [ADU] and, of the inner pixels, its variance [ADU^2]; float32.
        """
        signal, variance = terms.signal(temperature - self.t_min)
        if self.extends(temperature, exposure):
            params = [None if one is None else one[terms.inner] for one in self.parameters(part)]
            at = 1.0 if params[2] is None else exposure
            variance += np.square(signal[terms.inner] * self._beyond(params, temperature, at))
        return signal, variance

    def bias_covariance(self, bias, temperature, exposure, part):
        """Covariance of dark signal and bias at a temperature [degC] and exposure [s] of the pixels ``part``, (m,) [ADU^2].

        bias : the `BiasModel` that the darks of this model were freed of: what its error adds to the one it takes from
        the other.  0 for models that do not tell (A_BIASA, A_BIASB: of a typical pixel, B and gamma as they are).
        """
        per_a, per_b = (float(self.header.get(key, 0.0)) for key in ("A_BIASA", "A_BIASB"))
        _, b, gamma = self.parameters(part)
        power = b * np.float32(temperature - self.t_min)
        if gamma is not None:
            power += gamma * np.float32(math.log(exposure))
        var_a, var_b, cov_ab = (one.reshape(-1)[part] for one in (bias.var_a, bias.var_b, bias.cov_ab))
        covariance = per_a * var_a
        if not bias.fixed_slope:
            covariance += (per_b + per_a * temperature) * cov_ab + (per_b * temperature) * var_b
        covariance = covariance.astype(np.float32, copy=False)
        covariance *= exposure * np.exp(power, out=power)
        return covariance

    def parameters(self, part):
        """A, B and gamma (None for a 1-D model) of the pixels ``part``: list of (m,) float32."""
        return _read(self.params, part, np.float32)

    def offset_of(self, session):
        """Level of darks above bias in a session [ADU]; their mean for one that the fit has not seen."""
        return float(self.header.get(f"OFFSET{session}", self.offset))

    @property
    def common_error(self):
        """Error that all pixels of a map share [ADU]."""
        return float(self.header.get("COMMONER", 0.0))

    def rest(self):
        """Give back the memory of what was read of the maps."""
        drop_pages(*(plane for plane in (*self.params, *self.sigmas, *self.mixed) if plane is not None))

    def extends(self, temperature, exposure):
        """Tell whether the law goes beyond its frames, however little; exposure counts for a 2-D model only."""
        inside = self.t_min <= temperature <= self.t_max
        return not (inside and (self.params[2] is None or self.e_min <= exposure <= self.e_max))

    def _beyond(self, params, temperature, exposure):
        """Relative model error outside the fitted range, or None inside."""
        if not self.extends(temperature, exposure):
            return None
        edge = min(max(temperature, self.t_min), self.t_max)
        nearest = min(max(exposure, self.e_min), self.e_max)
        hot = edge + KELVIN
        arrhenius = hot * hot * (1.0 / hot - 1.0 / (temperature + KELVIN))
        law = np.expm1(params[1] * np.float32(arrhenius - (temperature - edge)))
        if params[2] is None:
            return np.abs(law)
        power = np.expm1(params[2] * np.float32(math.log(exposure / nearest)))
        return np.hypot(law, power)


def _open(path, kind, *needed):
    """Header and mapped planes of one map; InputError where it is no ``kind`` or a plane is missing."""
    header, planes = view_planes(path, verify=True)
    if header.get("PRODTYPE") != kind:
        raise InputError(f"{path}: got PRODTYPE {header.get('PRODTYPE') or 'missing'}, expected {kind}")
    for name in ("PRIMARY", *needed):
        if name not in planes or planes[name].shape != planes["PRIMARY"].shape:
            raise InputError(f"{path}: got no plane {name} of one shape with the others, expected {kind}")
    return header, planes


def _read(planes, part, kind):
    return [None if plane is None else plane.reshape(-1)[part].astype(kind) for plane in planes]
