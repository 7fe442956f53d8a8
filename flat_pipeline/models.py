"""The flat model of each filter: masters side by side, the model as files, and the way back."""

from dataclasses import dataclass

import numpy as np

from flat_pipeline.products import IGNORED, MODEL, filter_names
from utils.domain.frame_groups import dates_of_masters
from utils.errors import InputError
from utils.fits_io.mapped import drop_pages, native
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ, header_from_inputs, write_product
from utils.fits_io.workers import in_workers, shared_empty
from utils.kernels import flat_model, noise

EQUATION = "flat(T, t) = A + B (T - T_REF) + C (t - E_REF)"
TERMS = ("A", "B", "C")
UNITS = {"A": "", "B": "1/K", "C": "1/s"}
PLANES = flat_model.COVARIANCE_PLANES
EXPOSURE_TOLERANCE = 0.01
BLOCK = 1 << 18
"""Pixels fitted at a time, over all masters."""
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

    def block(self, rows):
        """Values, sigma and quality of some rows (slice or indices), each (n, r, nx); NaN = no usable value."""
        kinds = (self.values, np.float32), (self.sigmas, np.float32), (self.dqs, np.int16)
        values, sigmas, dqs = (
            np.stack([plane[rows] for plane in planes], dtype=kind, casting="same_kind")
            for planes, kind in kinds
        )
        for plane in (*self.values, *self.sigmas, *self.dqs):
            drop_pages(plane[rows] if isinstance(rows, slice) else plane)
        lost = (dqs & _LOST) != 0
        if lost.any():
            values[lost] = np.nan
        return values, sigmas, dqs

    def one(self, index):
        """Value, sigma and quality of one master in memory."""
        return native(self.values[index]), native(self.sigmas[index]), native(self.dqs[index])

    def row_blocks(self):
        """Slices of rows that are worked on at a time."""
        ny, nx = self.shape
        rows = max(1, BLOCK // (nx * len(self.values)))
        return [slice(top, min(top + rows, ny)) for top in range(0, ny, rows)]


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


def fit_masters(masters, design, jobs=1):
    """Fit all pixels: coeff (3, ny, nx), cov (6, ny, nx), reduced chi2 (ny, nx) float32, dq int16."""
    shape = masters.shape
    coeff, cov = shared_empty((3, *shape), np.float32), shared_empty((6, *shape), np.float32)
    chi2, dq = shared_empty(shape, np.float32), shared_empty(shape, np.int16)
    terms = sum(design.fitted)

    def work(rows):
        values, sigmas, quality = masters.block(rows)
        fit = flat_model.fit_flat_model(values, sigmas, design)
        part = (rows.stop - rows.start, shape[1])
        coeff[:, rows] = fit.coeff.reshape(3, *part)
        cov[:, rows] = fit.cov.reshape(6, *part)
        free = (fit.n_used - terms).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            chi2[rows] = np.where(free > 0, fit.chi2 / free, np.nan).reshape(part)
            poor = (free > 0) & (fit.chi2 > free * noise.chi2_limit(np.maximum(free, 1.0), POOR_FIT))
        flagged = np.zeros(free.shape, np.int16)
        flagged[fit.fixed | poor] |= DQ.UNRELIABLE_FIT
        flagged[fit.n_used == 0] |= DQ.NO_DATA
        dq[rows] = flagged.reshape(part) | (np.bitwise_or.reduce(quality, axis=0) & np.int16(_KEPT))

    in_workers(lambda: work, masters.row_blocks(), jobs)
    return coeff, cov, chi2, dq


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


def write_model(config, record, masters, design, coeff, cov, chi2, dq, paths):
    """Write the maps of one filter."""
    cards = model_cards(masters, design)
    inputs = [
        {
            "file": path.relative_to(config.output_dir).as_posix(),
            "temperature": head["TEMP"],
            "exposure": head["EXPTIME"],
            "datasum": head.get("DATASUM"),
        }
        for path, head in zip(masters.paths, masters.headers, strict=True)
    ]
    for number, term in enumerate(TERMS):
        own = dq if design.fitted[number] else dq | np.int16(DQ.UNRELIABLE_FIT)
        path = record.claim(paths[term])
        write_product(
            path,
            coeff[number],
            prodtype=f"FLAT_{term}",
            unit=UNITS[term],
            cards=cards,
            uncert=np.sqrt(np.maximum(cov[number], 0.0)),
            dq=own,
            inputs=inputs,
            jobs=config.shared.jobs,
        )
        record.add_product(path, f"FLAT_{term}", filter=masters.filter)
    path = record.claim(paths["cov"])
    write_product(
        path,
        cov[3],
        prodtype="FLAT_COVARIANCE",
        unit="1/K",
        cards=cards,
        dq=dq,
        extra=[("COV_AC", cov[4], "1/s"), ("COV_BC", cov[5], "1/(K s)"), ("CHI2_RED", chi2, "")],
        jobs=config.shared.jobs,
    )
    record.add_product(path, "FLAT_COVARIANCE", filter=masters.filter)


@dataclass(eq=False)
class FlatModel:
    """Model of one filter, mapped from its files: terms A, B, C, their sigmas, mixed (cov AB, AC, BC), each (ny, nx)."""

    terms: list
    sigmas: list
    mixed: list
    header: dict
    paths: list

    @classmethod
    def load(cls, refs, filter_name, shape, like):
        """Open the model of a filter from the products of run.json; shape and ``like`` : of the masters, for the check.

        Raises InputError where a map is missing, of another kind or shape.
        """
        own = {ref.prodtype: ref.path for ref in refs if ref.facts.get("filter") == filter_name}
        wanted = [f"FLAT_{term}" for term in TERMS] + ["FLAT_COVARIANCE"]
        opened = []
        for kind in wanted:
            if kind not in own:
                raise InputError(f"{like}: no {kind} for filter {filter_name}; make it with --mode fit_model")
            head, planes = view_planes(own[kind])
            needed = ("COV_AC", "COV_BC") if kind == "FLAT_COVARIANCE" else ("UNCERT",)
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
            opened[0][0],
            [own[kind] for kind in wanted],
        )

    def of_rows(self, rows):
        """Return a function (temperature [degC], exposure [s]) -> value and 1 sigma of some rows, (r, nx) float32."""
        a, b, c = (plane[rows].astype(np.float32) for plane in self.terms)
        # In float64: the terms of the variance cancel.
        va, vb, vc = (np.square(plane[rows], dtype=np.float64) for plane in self.sigmas)
        ab, ac, bc = (2.0 * plane[rows].astype(np.float64) for plane in self.mixed)
        drop_pages(*(plane[rows] for plane in (*self.terms, *self.sigmas, *self.mixed)))

        def at(temperature, exposure):
            dt = np.float32(temperature - self.header["T_REF"])
            de = np.float32(exposure - self.header["E_REF"])
            t, e = float(dt), float(de)
            variance = va + t * (t * vb + ab + e * bc) + e * (e * vc + ac)
            return a + dt * b + de * c, np.sqrt(np.maximum(variance, 0.0)).astype(np.float32)

        return at

    def evaluate(self, temperature, exposure):
        """Flat at a temperature [degC] and exposure [s]: value and 1 sigma, (ny, nx) float32."""
        ny, nx = self.terms[0].shape
        value, sigma = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
        step = max(1, (1 << 17) // nx)
        for top in range(0, ny, step):
            rows = slice(top, min(top + step, ny))
            value[rows], sigma[rows] = self.of_rows(rows)(temperature, exposure)
        return value, sigma

    def extrapolates(self, temperature, exposure):
        """Return True outside the fitted range of temperature or exposure."""
        head, tolerance = self.header, float(self.header.get("TTOL", 0.5))
        inside = head["T_MIN"] - tolerance <= temperature <= head["T_MAX"] + tolerance
        return not (inside and 0.99 * head["E_MIN"] <= exposure <= 1.01 * head["E_MAX"])


def speaking(dq):
    """Pixels that take part in statistics."""
    return (np.asarray(dq) & IGNORED) == 0
