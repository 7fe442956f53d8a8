"""The dark model ``rate = A t^gamma exp(B (T - T_MIN))`` of every pixel, read back from its products and evaluated."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.fits_io.product_reader import read_plane, read_product
from utils.kernels import dark_fit

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
_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class DarkModel:
    """Maps of the model.

    params (3, ny, nx) float32: A [ADU/s] at T_MIN and 1 s, B [1/K], gamma.  cov (6, ny, nx): AA AB AG BB BG GG.
    dq (ny, nx) int16.  t_min, t_max [degC], e_min, e_max [s] : fitted range.  tolerance [degC] : half width of a group.
    offset [ADU] : level of darks above bias, taken out before the fit.  header : cards of the A map.  paths : files.
    """

    params: np.ndarray
    cov: np.ndarray
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
        """Read the 2-D model (A_map_2D.fits ...) of a folder, else the 1-D model (A_map.fits ...).

        Raises InputError for a missing, foreign or mismatching map.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder, expected a dark model ({', '.join(MAPS_2D)})")
        two = (folder / MAPS_2D[0]).exists() or not (folder / MAPS_1D[0]).exists()
        paths = tuple(folder / name for name in (MAPS_2D if two else MAPS_1D))
        suffix = "_2D" if two else ""
        kinds = ("DARK_A", "DARK_B", "DARK_GAMMA") if two else ("DARK_A", "DARK_B")
        maps = [read_product(path, expect=kind + suffix) for path, kind in zip(paths, kinds, strict=False)]
        cross = read_product(paths[-1], expect="DARK_COVARIANCE" + suffix)
        first = maps[0]
        for other in (*maps[1:], cross):
            if other.data.shape != first.data.shape:
                raise InputError(
                    f"{other.path}: shape {other.data.shape}, expected {first.data.shape} as in {first.path}"
                )
            for key in ("T_MIN", "T_MAX", "ADUSCALE", "GAIN"):
                if other.header.get(key) != first.header.get(key):
                    raise InputError(
                        f"{other.path}: {key} {other.header.get(key)}, expected {first.header.get(key)} as in {first.path}"
                    )
        zero = np.zeros_like(first.data)
        sigma = [np.square(one.uncert) for one in maps]
        if two:
            mixed = [cross.data, read_plane(cross.path, "COV_AG"), read_plane(cross.path, "COV_BG")]
            params = np.stack([one.data for one in maps])
            cov = np.stack([sigma[0], mixed[0], mixed[1], sigma[1], mixed[2], sigma[2]])
        else:
            params = np.stack([maps[0].data, maps[1].data, zero])
            cov = np.stack([sigma[0], cross.data, zero, sigma[1], zero, zero])
        head = first.header
        return cls(
            params,
            cov,
            maps[0].dq | maps[1].dq,
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

    def evaluate(self, temperature, exposure=1.0, rows=None):
        """Dark current at a temperature [degC] and exposure [s]: rate [ADU/s], 1 sigma [ADU/s], dq; each (ny, nx).

        Outside the fitted range sigma grows by the difference between this law of temperature and Arrhenius' law of
        the same slope, and by the whole effect of gamma.  rows : a slice, to do a part.
        """
        params, cov = (a if rows is None else a[:, rows] for a in (self.params, self.cov))
        dq = self.dq if rows is None else self.dq[rows]
        value, sigma = np.empty(dq.shape, np.float32), np.empty(dq.shape, np.float32)
        flat = (params.reshape(3, -1), cov.reshape(6, -1), value.reshape(-1), sigma.reshape(-1))
        for start in range(0, value.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            p = flat[0][:, part]
            # In float64: the terms of the variance cancel.
            rate, error = dark_fit.rate(
                p, flat[1][:, part].astype(np.float64), temperature - self.t_min, exposure
            )
            wider = self._beyond(p, temperature, exposure)
            flat[2][part] = rate
            flat[3][part] = error if wider is None else np.hypot(error, rate * wider)
        return value, sigma, dq

    def _beyond(self, params, temperature, exposure):
        """Relative model error outside the fitted range, or None inside."""
        edge = min(max(temperature, self.t_min), self.t_max)
        nearest = min(max(exposure, self.e_min), self.e_max)
        if edge == temperature and nearest == exposure:
            return None
        hot = edge + KELVIN
        arrhenius = hot * hot * (1.0 / hot - 1.0 / (temperature + KELVIN))
        law = np.expm1(params[1] * np.float32(arrhenius - (temperature - edge)))
        power = np.expm1(params[2] * np.float32(math.log(exposure / nearest)))
        return np.hypot(law, power)
