"""Illumination that is given rather than fitted: lensfun profiles, radial coefficients, empirical methods, each from JSON.

lensfun's 'pa' model has r = 1 at half the diagonal of the sensor on which the lens was calibrated; a camera with another
crop factor sees another part of it.
"""

import json
import math
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from utils.domain.json_values import is_number, listed
from utils.errors import InputError, OptionError
from utils.kernels.illumination import half_diagonal, radial_model
from utils.kernels.illumination_surfaces import fit_polynomial, smooth_gaussian, smooth_median

LENS_KEYS = ("camera", "lens", "focal_length", "aperture", "distance")
PA_KEYS = ("model", "k1", "k2", "k3")
EMPIRICAL = {"polynomial": "degree", "gaussian": "sigma", "median": "size"}
NEAR = 5
"""Near names listed for a camera or lens that is not known."""
MAX_DEGREE = 12
"""Of a polynomial surface: beyond it 64 bins a side no longer tell the terms at the edges."""


BRIGHTEST = 100.0
"""No optics light the edge so many times more than the centre."""


@dataclass(frozen=True)
class RadialProfile:
    """Given coefficients.  center : (x, y) [pixels] or None = middle.  scale : r of the profile at half our diagonal.

    lensfun_frame : True where r = 1 is defined by the distance between the centres of the corner pixels.
    words : what it is, for headers and reports.  notes : what a user should know.
    """

    k1: float
    k2: float
    k3: float
    center: tuple | None = None
    scale: float = 1.0
    lensfun_frame: bool = False
    words: str = "radial coefficients"
    notes: tuple = ()
    path: str = ""

    def check(self, shape):
        """Refuse coefficients that give no illumination in a frame (ny, nx)."""
        self.model(shape)

    def model(self, shape):
        """The `RadialModel` of a frame (ny, nx).  Raises InputError where V is not positive everywhere in it."""
        scale = self.scale
        if self.lensfun_frame:
            scale *= half_diagonal(shape) / half_diagonal((shape[0] - 1, shape[1] - 1))
        k = [value * scale ** (2 * power) for power, value in enumerate((self.k1, self.k2, self.k3), start=1)]
        result = radial_model(shape, *k, center=self.center)
        corners = [
            math.hypot(x - result.x0, y - result.y0) for x in (0, shape[1] - 1) for y in (0, shape[0] - 1)
        ]
        frame = f"in a frame of {shape[1]} x {shape[0]}"
        with np.errstate(over="ignore", invalid="ignore"):
            along = result.at(result.x0 + np.linspace(0, max(corners), 1001), result.y0)
        if not (np.isfinite(along).all() and along.max() <= BRIGHTEST):
            raise InputError(
                f"{self.path}: illumination rises to {along.max():.3g} {frame}, expected {BRIGHTEST:g} times that of the"
                " centre at most"
            )
        if along.min() <= 0:
            raise InputError(
                f"{self.path}: illumination falls to {along.min():.3g} {frame}, expected more than 0 everywhere"
            )
        return result


@dataclass(frozen=True)
class EmpiricalProfile:
    """An empirical method.  amount : degree of the polynomial, or width of the smoothing [pixels]."""

    method: str
    amount: float
    path: str = ""

    def check(self, shape):
        """Refuse a smoothing that is wider than a frame (ny, nx)."""
        if self.method != "polynomial" and self.amount > max(shape):
            raise InputError(
                f"{self.path}: {EMPIRICAL[self.method]} {self.amount:g}, expected at most {max(shape)}, the longer side of"
                " the frame"
            )

    @property
    def words(self):
        """What it is, for headers and reports."""
        return f"{self.method}, {EMPIRICAL[self.method]} {self.amount:g}"

    def fit(self, flat, sigma=None, usable=None):
        """`SurfaceFit` of a flat (ny, nx); arguments as in `utils.kernels.illumination.fit_radial`."""
        self.check(flat.shape)
        if self.method == "polynomial":
            return fit_polynomial(flat, sigma, usable, degree=int(self.amount))
        if self.method == "gaussian":
            return smooth_gaussian(flat, sigma, usable, width=self.amount)
        return smooth_median(flat, sigma, usable, width=int(self.amount))


def read_radial(path):
    """`RadialProfile` of --radial-json: k1, k2, k3 and, if wanted, center [x, y] in pixels."""
    values = _read(path)
    _check_keys(path, values, ("k1", "k2", "k3"), ("center",))
    center = values.get("center")
    if center is not None:
        if not isinstance(center, list) or len(center) != 2:
            raise OptionError(f"{path}: center {json.dumps(center)}, expected [x, y] in pixels")
        center = tuple(_number(path, "center", value) for value in center)
    return RadialProfile(
        *(_number(path, key, values[key]) for key in ("k1", "k2", "k3")), center, path=str(path)
    )


def read_empirical(path):
    """`EmpiricalProfile` of --empirical-json: method polynomial (degree), gaussian (sigma) or median (size)."""
    values = _read(path)
    method = values.get("method")
    if not isinstance(method, str) or method not in EMPIRICAL:
        raise OptionError(f"{path}: method {json.dumps(method)}, expected one of {', '.join(EMPIRICAL)}")
    key = EMPIRICAL[method]
    _check_keys(path, values, ("method", key))
    amount = _number(path, key, values[key])
    whole = method != "gaussian"
    least, most = (0, MAX_DEGREE) if method == "polynomial" else (1 if whole else 0, math.inf)
    fits = least <= amount <= most if whole else amount > 0
    if not fits or (whole and amount != int(amount)):
        wanted = (
            f"a whole number from {least}" + (f" to {most}" if most < math.inf else "")
            if whole
            else "more than 0"
        )
        raise OptionError(f"{path}: {key} {amount:g}, expected {wanted}")
    return EmpiricalProfile(method, amount, str(path))


def read_lensfun(path):
    """`RadialProfile` of --lensfun-json: camera and lens of lensfun's database, or the coefficients of its 'pa' model.

    Raises OptionError for keys and numbers that cannot be, InputError for a camera or lens that the database lacks (with
    the names that are near) or that has no vignetting calibration.
    """
    values = _read(path)
    if "model" in values:
        _check_keys(path, values, PA_KEYS)
        if values["model"] != "pa":
            raise OptionError(f'{path}: model {json.dumps(values["model"])}, expected "pa"')
        k = (_number(path, key, values[key]) for key in PA_KEYS[1:])
        return RadialProfile(*k, words="lensfun 'pa' coefficients", path=str(path))
    _check_keys(path, values, LENS_KEYS)
    for key in ("camera", "lens"):
        if not isinstance(values[key], str) or not values[key].strip():
            raise OptionError(f"{path}: {key} {json.dumps(values[key])}, expected its name")
    numbers = {key: _number(path, key, values[key]) for key in LENS_KEYS[2:]}
    for key, value in numbers.items():
        if value <= 0:
            raise OptionError(f"{path}: {key} {value:g}, expected more than 0")
    return _from_database(path, values["camera"], values["lens"], **numbers)


# --- lensfun's database ---------------------------------------------------------------------------------------------


def _from_database(path, camera_name, lens_name, focal_length, aperture, distance):
    import lensfunpy

    database = lensfunpy.Database()
    camera = _named(path, "camera", camera_name, database.cameras)[0]
    lenses = _named(path, "lens", lens_name, database.lenses)
    calibrated = [lens for lens in lenses if lens.calib_vignetting]
    if not calibrated:
        known = [lens for lens in database.lenses if lens.calib_vignetting]
        near = _near(lens_name, known)
        raise InputError(
            f"{path}: lens {lens_name!r} has no vignetting calibration in lensfun; near ones with: {near}"
        )
    # A calibration on a sensor at least as large as ours covers the whole frame.
    lens = min(calibrated, key=lambda one: (one.crop_factor > camera.crop_factor * 1.01, -one.crop_factor))
    points = lens.calib_vignetting
    focals, apertures = sorted({p.focal for p in points}), sorted({p.aperture for p in points})
    at = f"{focal_length:g} mm f/{aperture:g} at {distance:g} m"
    inside = focals[0] * 0.99 <= focal_length <= focals[-1] * 1.01 and aperture >= apertures[0] * 0.97
    found = lens.interpolate_vignetting(focal_length, aperture, distance) if inside else None
    if found is None:
        raise InputError(
            f"{path}: {at}, expected {focals[0]:g} to {focals[-1]:g} mm and f/{apertures[0]:.3g} to "
            f"f/{apertures[-1]:.3g}, for which {lens.model} is calibrated"
        )
    scale = lens.crop_factor / camera.crop_factor
    notes = []
    if scale > 1.01:
        notes.append(
            f"{lens.model} is calibrated to {1 / scale:.2f} of the diagonal of {camera.model}; beyond, it is extrapolated"
        )
    if aperture > apertures[-1] * 1.03:
        notes.append(
            f"f/{aperture:g} is beyond the calibration of {lens.model}, which ends at f/{apertures[-1]:.3g}"
        )
    words = f"lensfun: {lens.model} on {camera.model}, {at}, crop {lens.crop_factor:.3f} / {camera.crop_factor:.3f}"
    return RadialProfile(
        *found.terms[:3], scale=scale, lensfun_frame=True, words=words, notes=tuple(notes), path=str(path)
    )


def _named(path, kind, name, entries):
    """Entries of that name, with or without the maker, in any case.  Raises InputError with the near names."""
    wanted = _plain(name)
    found = [
        entry for entry in entries if wanted in (_plain(entry.model), _plain(f"{entry.maker} {entry.model}"))
    ]
    if not found:
        raise InputError(
            f"{path}: {kind} {name!r} is not in lensfun's database; near ones: {_near(name, entries)}"
        )
    return found


def _near(name, entries):
    names = {_plain(entry.model): entry.model for entry in entries}
    words = _plain(name).split()
    close = get_close_matches(_plain(name), names, n=NEAR, cutoff=0.6)
    # Where letters differ much, whole words still tell.
    shared = sorted(names, key=lambda other: (-len(set(words) & set(other.split())), other))
    close += [other for other in shared[:NEAR] if set(words) & set(other.split()) and other not in close]
    return ", ".join(names[other] for other in close[:NEAR]) or "none"


def _plain(name):
    return " ".join(name.casefold().replace("/", " ").split())


# --- JSON -----------------------------------------------------------------------------------------------------------


def _read(path):
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}, expected a JSON object") from error
    if not isinstance(values, dict):
        raise OptionError(f"{path}: {type(values).__name__}, expected a JSON object")
    return values


def _check_keys(path, values, wanted, optional=()):
    missing = [key for key in wanted if key not in values]
    unknown = [key for key in values if key not in wanted and key not in optional]
    if missing or unknown:
        parts = [f"missing {listed(missing)}"] * bool(missing) + [f"unknown {listed(unknown)}"] * bool(
            unknown
        )
        choice = f" and, if wanted, {', '.join(optional)}" if optional else ""
        raise OptionError(f"{path}: {'; '.join(parts)}, expected {', '.join(wanted)}{choice}")


def _number(path, key, value):
    if not is_number(value):
        raise OptionError(f"{path}: {key} {json.dumps(value)}, expected a number")
    return float(value)
