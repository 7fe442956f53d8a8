"""The flat that a frame is divided by: response times illumination, of a master flat or a flat pipeline's folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.fits_io.product_reader import view_planes

KINDS = ("MASTER_FLAT",)


@dataclass(frozen=True, eq=False)
class Flat:
    """Response of one filter, mapped from its files.

    response, sigma, dq : (ny, nx).  illumination, illumination_sigma : (ny, nx), or None where the response holds it.
    level : flat = level * response * illumination.  header : cards of the master.  path : of the master.
    """

    response: np.ndarray
    sigma: np.ndarray
    dq: np.ndarray
    illumination: np.ndarray | None
    illumination_sigma: np.ndarray | None
    level: float
    header: dict
    path: Path

    @property
    def filter(self):
        """Name of the filter."""
        return str(self.header.get("FILTER", "NONE"))

    @classmethod
    def load(cls, path):
        """Open a master flat, and the illumination that was divided out of it.

        Raises InputError where the file is no master flat, or its illumination is missing or of another shape.
        """
        path = Path(path)
        header, planes = view_planes(path, verify=True)
        if header.get("PRODTYPE") not in KINDS:
            raise InputError(
                f"{path}: got PRODTYPE {header.get('PRODTYPE') or 'missing'}, expected MASTER_FLAT"
            )
        light = sigma = None
        if header.get("VIGNCORR"):
            beside = path.parent.parent / "vignetting" / str(header.get("VIGNFILE"))
            light_header, own = view_planes(beside, verify=True)
            if (
                light_header.get("PRODTYPE") != "VIGNETTING"
                or own["PRIMARY"].shape != planes["PRIMARY"].shape
            ):
                raise InputError(
                    f"{beside}: {light_header.get('PRODTYPE')} of shape {own['PRIMARY'].shape}, expected the illumination"
                    f" of {path}, shape {planes['PRIMARY'].shape}"
                )
            if header.get("VIGNSUM") not in (None, light_header.get("DATASUM")):
                raise InputError(
                    f"{beside}: DATASUM {light_header.get('DATASUM')}, expected {header['VIGNSUM']} as {path} was divided"
                    " by another illumination: make that master anew with --mode make_master or full"
                )
            light, sigma = own["PRIMARY"], own.get("UNCERT")
        level = float(header.get("FLATNORM") or 1.0)
        return cls(planes["PRIMARY"], planes["UNCERT"], planes["DQ"], light, sigma, level, header, path)

    def rows(self, rows):
        """Flat and its 1 sigma of some rows, float32."""
        value, sigma = (plane[rows].astype(np.float32) for plane in (self.response, self.sigma))
        if self.illumination is not None:
            light = self.illumination[rows].astype(np.float32) * np.float32(self.level)
            value *= light
            sigma *= light
        return value, sigma


def find_flats(path, products):
    """Flats that may serve: of a file one, of a folder all master flats that ``products`` (of its run.json) list.

    Raises InputError where there is none.
    """
    if not Path(path).is_dir():
        return [Flat.load(path)]
    found = [Flat.load(product.path) for product in products if product.prodtype == "MASTER_FLAT"]
    if not found:
        raise InputError(
            f"{path}: no master flat in its run.json, expected an output folder of the flat pipeline"
        )
    return found


def choose_flat(flats, filter_name, temperature, shape):
    """The flat of a filter nearest in temperature; a single flat without a filter serves any.

    Raises InputError, naming what there is, where no flat is of this filter, and for another shape.
    """
    fitting = [flat for flat in flats if flat.filter == filter_name]
    if not fitting and len(flats) == 1 and "NONE" in (flats[0].filter, filter_name):
        fitting = flats
    if not fitting:
        names = ", ".join(sorted({flat.filter for flat in flats}))
        raise InputError(f"no flat of filter {filter_name}, expected one of {names}")
    best = min(fitting, key=lambda flat: abs(float(flat.header.get("TEMP") or 0.0) - temperature))
    if best.response.shape != tuple(shape):
        raise InputError(f"{best.path}: flat of shape {best.response.shape}, expected {tuple(shape)}")
    return best
