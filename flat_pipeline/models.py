"""The flat model of each filter: masters side by side, the model as files, and the way back."""

from dataclasses import dataclass

import numpy as np

from flat_pipeline.products import IGNORED, MODEL, filter_names
from utils.domain.frame_groups import dates_of_masters
from utils.errors import InputError
from utils.fits_io.mapped import drop_pages, native
from utils.fits_io.plane_writer import computed_planes
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ, header_from_inputs, write_products
from utils.kernels import flat_model, noise

EQUATION = "flat(T, t) = A + B (T - T_REF) + C (t - E_REF)"
TERMS = ("A", "B", "C")
UNITS = {"A": "", "B": "1/K", "C": "1/s"}
MIXED = ("AB", "AC", "BC")
KINDS = (*(f"FLAT_{term}" for term in TERMS), "FLAT_COVARIANCE")
EXPOSURE_TOLERANCE = 0.01
BLOCK = 1 << 15
"""Pixels fitted at a time."""
POOR_FIT = 5.0
"""A pixel whose chi-square lies so many sigma above its expectation is not described by the model."""


@dataclass(eq=False)
class Masters:
    """Masters of one filter, in order of exposure and temperature: mapped planes (ny, nx) and headers."""

    filter: str
    paths: list
    headers: list
    values: list
    sigmas: list
    dqs: list

    @property
    def temperature(self):
        """Mean temperatures, (n,) [degC]."""
        return np.array([head["TEMP"] for head in self.headers], np.float64)

    @property
    def exposure(self):
        """Mean exposures, (n,) [s]."""
        return np.array([head["EXPTIME"] for head in self.headers], np.float64)

    @property
    def shape(self):
        """(ny, nx) of the masters."""
        return self.values[0].shape

    def subset(self, keep):
        """Return the masters at the indices ``keep``."""
        lists = (self.paths, self.headers, self.values, self.sigmas, self.dqs)
        return Masters(self.filter, *([one[index] for index in keep] for one in lists))

    def tolerance(self):
        """Half width of a temperature group [degC]."""
        return max(float(head.get("TTOL", 0.5)) for head in self.headers)

    def block(self, part):
        """Values, sigma and quality of some flat pixels (slice), each (n, m); NaN = no usable value."""
        return _usable(
            *(_side_by_side(one, part) for one in (self.values, self.sigmas, self.dqs)),
        )

    def of_rows(self, rows):
        """Return the same of some rows (indices) of the image."""
        found = [
            np.stack([plane[rows].reshape(-1) for plane in planes], dtype=kind, casting="same_kind")
            for planes, kind in ((self.values, np.float32), (self.sigmas, np.float32), (self.dqs, np.int16))
        ]
        self.drop()
        return _usable(*found)

    def drop(self, part=slice(None)):
        """Give back the memory of the pages of some flat pixels."""
        drop_pages(*(plane.reshape(-1)[part] for plane in (*self.values, *self.sigmas, *self.dqs)))

    def one(self, index):
        """Value, sigma and quality of one master in memory."""
        return native(self.values[index]), native(self.sigmas[index]), native(self.dqs[index])


def _side_by_side(planes, part):
    """Some flat pixels of mapped planes in memory, (n, m), in native byte order."""
    found = np.empty((len(planes), part.stop - part.start), planes[0].dtype.newbyteorder("="))
    for own, plane in zip(found, planes, strict=True):
        own[:] = plane.reshape(-1)[part]
    return found


def _usable(values, sigmas, dqs):
    lost = dqs & np.int16(_LOST)
    if lost.any():
        values[lost != 0] = np.nan
    return values, sigmas, dqs


# A dead pixel has a response too; only what has no value stays out of the fit.
_LOST = int(DQ.NO_DATA | DQ.SATURATED)


def open_masters(record, made_by="--mode full or make_master"):
    """Masters that run.json lists, by filter.  Raises InputError where there is none, or shapes or kinds differ."""
    found = {}
    for ref in record.products("MASTER_FLAT", made_by=made_by):
        head, planes = view_planes(ref.path)
        if head.get("PRODTYPE") != "MASTER_FLAT" or "UNCERT" not in planes or "DQ" not in planes:
            raise InputError(
                f"{ref.path}: got {head.get('PRODTYPE')}, expected MASTER_FLAT with UNCERT and DQ"
            )
        found.setdefault(str(head["FILTER"]), []).append((ref.path, head, planes))
    result = []
    for name, opened in found.items():
        opened.sort(key=lambda one: (one[1]["EXPTIME"], one[1]["TEMP"]))
        first_path, first, planes = opened[0]
        for path, head, own in opened:
            if own["PRIMARY"].shape != planes["PRIMARY"].shape:
                raise InputError(
                    f"{path}: shape {own['PRIMARY'].shape}, expected {planes['PRIMARY'].shape} as in {first_path}"
                )
            for key in ("VIGNCORR", "GAIN", "ADUSCALE", "XBINNING"):
                if head.get(key) != first.get(key):
                    raise InputError(
                        f"{path}: {key} {head.get(key)}, expected {first.get(key)} as in {first_path}"
                    )
        result.append(
            Masters(
                name,
                [one[0] for one in opened],
                [one[1] for one in opened],
                *([one[2][plane] for one in opened] for plane in ("PRIMARY", "UNCERT", "DQ")),
            )
        )
    return result


def design_of(masters, t_ref=None, exp_ref=None):
    """Which terms the masters of one filter carry: `FlatDesign`."""
    return flat_model.design_model(
        masters.temperature,
        masters.exposure,
        t_ref,
        exp_ref,
        temp_tolerance=2.0 * masters.tolerance(),
        exp_tolerance=EXPOSURE_TOLERANCE,
    )


def fit_block(masters, design, part):
    """Fit some flat pixels (slice, m of them): coeff (3, m), cov (6, m), reduced chi2 (m,) float64, dq (m,) int16."""
    values, sigmas, quality = masters.block(part)
    fit = flat_model.fit_flat_model(values, sigmas, design)
    free = np.arange(len(values) + 1) - sum(design.fitted)
    limit = np.where(free > 0, free * noise.chi2_limit(np.maximum(free, 1), POOR_FIT), np.inf)
    # Of most blocks all pixels have all masters.
    used = fit.n_used if fit.n_used.min() < len(values) else fit.n_used[:1]
    with np.errstate(invalid="ignore"):
        poor = fit.chi2 > limit[used]
        poor |= fit.fixed
        chi2 = np.divide(fit.chi2, np.where(free > 0, free, np.nan)[used], out=fit.chi2)
    dq = np.bitwise_or.reduce(quality, axis=0)
    dq &= np.int16(_KEPT)
    np.bitwise_or(dq, DQ.UNRELIABLE_FIT, out=dq, where=poor)
    np.bitwise_or(dq, DQ.NO_DATA, out=dq, where=used == 0)
    return fit.coeff, fit.cov, chi2, dq


def fitted_planes(masters, design):
    """Planes of the model, fitted while they are written.

    Of each term its value, "<term> sigma" and "<term> dq"; the covariances "AB", "AC" and "BC"; "chi2"; "dq".
    Returns a dict name -> `ComputedPlane`.
    """
    names = (*TERMS, *(f"{term} sigma" for term in TERMS), *MIXED, "chi2", "dq")
    kinds = {name: np.int16 if name == "dq" else np.float32 for name in names}
    kinds |= {f"{term} dq": np.int16 for term in TERMS}

    def piece(part):
        found = {name: np.empty(part.stop - part.start, kinds[name]) for name in names}
        for first in range(part.start, part.stop, BLOCK):
            one = slice(first, min(first + BLOCK, part.stop))
            coeff, cov, chi2, dq = fit_block(masters, design, one)
            np.maximum(cov[:3], 0.0, out=cov[:3])
            np.sqrt(cov[:3], out=cov[:3])
            own = slice(first - part.start, one.stop - part.start)
            for name, plane in zip(names, (*coeff, *cov, chi2, dq), strict=True):
                found[name][own] = plane
        masters.drop(part)
        for term, fitted in zip(TERMS, design.fitted, strict=True):
            found[f"{term} dq"] = found["dq"] if fitted else found["dq"] | np.int16(DQ.UNRELIABLE_FIT)
        return found

    return computed_planes(masters.shape, kinds, piece)


_KEPT = int(DQ.DEAD | DQ.LOW_QE | DQ.HOT | DQ.NOISY | DQ.DO_NOT_USE)


def model_paths(config, names):
    """Files of the model of each filter: filter -> {'A': path, 'B': ..., 'C': ..., 'cov': ...}."""
    folder = config.output_dir / MODEL
    several = len(names) > 1
    found = {}
    for name, spelled in filter_names(names).items():
        tail = f"_{spelled}" if several else ""
        found[name] = {term: folder / f"flat_{term}_map{tail}.fits" for term in TERMS}
        found[name]["cov"] = folder / f"flat_covariance{tail}.fits"
    return found


def model_cards(masters, design):
    """Cards of a model: enough to evaluate it without this code."""
    headers, frames = masters.headers, np.array([head["NCOMBINE"] for head in masters.headers], np.float64)
    temperature, exposure = masters.temperature, masters.exposure
    mean = float(np.average(temperature, weights=frames))
    return {
        **header_from_inputs(headers),
        "CALTYPE": ("FLAT", "kind of the frames"),
        "FILTER": (masters.filter, "filter"),
        "MODEL": (EQUATION, "T in degC, t in s"),
        "T_REF": (design.t_ref, "[degC] temperature at which A is the flat"),
        "E_REF": (design.e_ref, "[s] exposure at which A is the flat"),
        "BFITTED": (bool(design.fitted[1]), "F: B = 0, not constrained"),
        "CFITTED": (bool(design.fitted[2]), "F: C = 0, not constrained"),
        "T_MIN": (float(temperature.min()), "[degC] lowest temperature fitted"),
        "T_MAX": (float(temperature.max()), "[degC] highest temperature fitted"),
        "E_MIN": (float(exposure.min()), "[s] shortest exposure fitted"),
        "E_MAX": (float(exposure.max()), "[s] longest exposure fitted"),
        "NMASTERS": (len(headers), "masters fitted"),
        "NCOMBINE": (int(frames.sum()), "frames behind the masters"),
        "TEMP": (mean, "[degC] mean temperature of the frames"),
        "TEMPSTD": (float(np.sqrt(np.average((temperature - mean) ** 2, weights=frames))), "[degC] scatter"),
        "TEMPMIN": (min(head["TEMPMIN"] for head in headers), "[degC] lowest frame"),
        "TEMPMAX": (max(head["TEMPMAX"] for head in headers), "[degC] highest frame"),
        "EXPTIME": (float(np.average(exposure, weights=frames)), "[s] mean exposure"),
        **dates_of_masters(headers),
    }


def write_models(config, record, fitted):
    """Fit the masters of every filter and write the maps; fitted : list of (`Masters`, `FlatDesign`)."""
    paths = model_paths(config, [masters.filter for masters, _ in fitted])
    planned, kinds = [], []
    for masters, design in fitted:
        planned += _planned(config, record, masters, design, paths[masters.filter])
        kinds += [(kind, masters.filter) for kind in KINDS]

    def done(number):
        kind, name = kinds[number]
        record.add_product(planned[number][0], kind, filter=name)

    write_products(planned, config.shared.jobs, done, together=len(KINDS))


def _planned(config, record, masters, design, paths):
    """The files of one filter as `write_products` takes them."""
    cards, planes = model_cards(masters, design), fitted_planes(masters, design)
    inputs = [
        {
            "file": path.relative_to(config.output_dir).as_posix(),
            "temperature": head["TEMP"],
            "exposure": head["EXPTIME"],
            "datasum": head.get("DATASUM"),
        }
        for path, head in zip(masters.paths, masters.headers, strict=True)
    ]
    planned = []
    for term in TERMS:
        described = {"prodtype": f"FLAT_{term}", "unit": UNITS[term], "cards": cards, "inputs": inputs}
        described |= {"uncert": planes[f"{term} sigma"], "dq": planes[f"{term} dq"]}
        planned.append((record.claim(paths[term]), planes[term], described))
    extra = [
        ("COV_AC", planes["AC"], "1/s"),
        ("COV_BC", planes["BC"], "1/(K s)"),
        ("CHI2_RED", planes["chi2"], ""),
    ]
    described = {
        "prodtype": "FLAT_COVARIANCE",
        "unit": "1/K",
        "cards": cards,
        "dq": planes["dq"],
        "extra": extra,
    }
    return [*planned, (record.claim(paths["cov"]), planes["AB"], described)]


@dataclass(eq=False)
class FlatModel:
    """Model of one filter, mapped from its files: maps (ny, nx).

    terms : A, B, C.  sigmas : of these.  mixed : covariances AB, AC, BC.  chi2 : reduced.  dq : quality.
    """

    terms: list
    sigmas: list
    mixed: list
    chi2: np.ndarray
    dq: np.ndarray
    header: dict
    paths: list

    @classmethod
    def load(cls, refs, masters):
        """Open the model of the filter of some masters from the products of run.json.

        Raises InputError where a map is missing, of another kind or shape.
        """
        filter_name, shape, like = masters.filter, masters.shape, masters.paths[0]
        own = {ref.prodtype: ref.path for ref in refs if ref.facts.get("filter") == filter_name}
        opened = []
        for kind in KINDS:
            if kind not in own:
                raise InputError(f"{like}: no {kind} for filter {filter_name}; make it with --mode fit_model")
            head, planes = view_planes(own[kind])
            needed = ("COV_AC", "COV_BC", "CHI2_RED", "DQ") if kind == "FLAT_COVARIANCE" else ("UNCERT",)
            if head.get("PRODTYPE") != kind or any(name not in planes for name in needed):
                raise InputError(
                    f"{own[kind]}: got {head.get('PRODTYPE')}, expected {kind} with {', '.join(needed)}"
                )
            if planes["PRIMARY"].shape != shape:
                raise InputError(
                    f"{own[kind]}: shape {planes['PRIMARY'].shape}, expected {shape} as in {like}"
                )
            opened.append((head, planes))
        maps = [planes for _, planes in opened]
        return cls(
            [one["PRIMARY"] for one in maps[:3]],
            [one["UNCERT"] for one in maps[:3]],
            [maps[3][name] for name in ("PRIMARY", "COV_AC", "COV_BC")],
            maps[3]["CHI2_RED"],
            maps[3]["DQ"],
            opened[0][0],
            [own[kind] for kind in KINDS],
        )

    @property
    def shape(self):
        """(ny, nx) of the maps."""
        return self.terms[0].shape

    def side_by_side(self, part, temperature, exposure):
        """Value (n, m) float32 and variance (n, m) of some flat pixels at n temperatures [degC] and exposures [s]."""
        coeff = _side_by_side(self.terms, part)
        # In float64: the terms of the variance cancel.
        cov = np.empty((6, coeff.shape[1]))
        for own, plane in zip(cov, (*self.sigmas, *self.mixed), strict=True):
            own[:] = plane.reshape(-1)[part]
        cov[:3] *= cov[:3]
        t, e = temperature - self.header["T_REF"], exposure - self.header["E_REF"]
        one = np.ones_like(t)
        value = np.stack([one, t, e], axis=1).astype(np.float32) @ coeff
        variance = np.stack([one, t * t, e * e, 2.0 * t, 2.0 * e, 2.0 * t * e], axis=1) @ cov
        return value, np.maximum(variance, 0.0, out=variance)

    def drop(self, part):
        """Give back the memory of the pages of some flat pixels."""
        drop_pages(*(plane.reshape(-1)[part] for plane in (*self.terms, *self.sigmas, *self.mixed)))

    def extrapolates(self, temperature, exposure):
        """Return True outside the fitted range of temperature or exposure."""
        head, tolerance = self.header, float(self.header.get("TTOL", 0.5))
        inside = head["T_MIN"] - tolerance <= temperature <= head["T_MAX"] + tolerance
        return not (inside and 0.99 * head["E_MIN"] <= exposure <= 1.01 * head["E_MAX"])


def speaking(dq):
    """Pixels that take part in statistics."""
    return (np.asarray(dq) & IGNORED) == 0
