"""detector.json, tables and the one-page sheet of a camera."""

import math
from datetime import UTC, datetime

import numpy as np

from flat_pipeline.characterization.camera import BINS, zero_error
from utils.domain.detector import Detector, Measured
from utils.kernels import emva, linearity
from utils.version import __version__

CAMERA_CARDS = (
    "INSTRUME",
    "CAMERA",
    "DETECTOR",
    "SERIALNO",
    "GAIN",
    "OFFSET",
    "READMODE",
    "XBINNING",
    "YBINNING",
)
PARTS = ("total", "row", "column", "pixel")
SLOPES = (
    ("system_gain_emva", "system gain K by EMVA 1288, slope through the origin"),
    ("line_slope", "slope of a line with an offset, 3 to 60 % of the full well"),
)


def detector_of(camera, cards):
    """`Detector` of a camera; cards : header of one of its frames."""
    transfer, well, scale = camera.transfer, camera.well, camera.setting.reading.adu_scale
    gain = transfer.gain
    level = None if camera.bias is None else camera.bias.mean
    read = camera.read_noise
    read_noise = None if math.isnan(read[0]) else Measured(read[0], read[1], "adu")
    reached = math.isfinite(well.value)
    full_error = math.hypot(well.error, zero_error(camera))
    full = Measured(well.value, full_error, "adu") if reached else None
    limited = reached and level is not None and well.value + level > 0.998 * camera.setting.top
    more = {
        "program": f"calibration pipelines {__version__}",
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}",
        "temperature": camera.temperature,
        "read_noise_electrons": _electrons(*read, transfer),
        "full_well_electrons": _electrons(well.value, full_error, transfer),
        "full_well_from": well.how,
        "limited_by_converter": limited,
        "saturation": _number(well.value + level, well.error, "adu")
        if reached and level is not None
        else None,
        "gain_in_headers": _number(camera.told_gain, None, "e-/adu"),
        "saturation_emva": _number(well.turn, None, "adu") if reached else None,
        "system_gain_emva": _slope(camera.system_gain),
        "line_slope": _slope(camera.line_slope),
        "highest_signal": well.top,
        "bias_level": level,
        "brighter_fatter_a00": _number(transfer.a00, transfer.a00_error, "1/e-") if transfer.a00 else None,
        "photon_transfer": {
            "levels": int(transfer.used.sum()),
            "chi2": transfer.chi2,
            "dof": transfer.dof,
            "error_factor": transfer.scaled,
            "response_taken_out": transfer.corrected,
            "offset_of_its_own": None if math.isnan(transfer.offset) else transfer.offset,
        },
        "linearity": _linearity(camera),
        "dark_current": _dark(camera),
        "doubling_temperature": _number(*camera.doubling, "degC"),
        "dsnu": _spatial(camera.dsnu, 1.0, "adu"),
        "prnu": _spatial(camera.prnu, 100.0, "percent"),
        "temporal": None if camera.bias is None else _temporal(camera.bias.temporal),
        "notes": camera.notes,
    }
    told = {key: cards[key] for key in CAMERA_CARDS if key in cards}
    measured = None if camera.no_gain else Measured(gain, transfer.gain_error, "e-/adu")
    return Detector(measured, scale, read_noise, full, told, more)


def _number(value, error, unit):
    if value is None or not math.isfinite(value):
        return None
    return {"value": value, "error": error, "unit": unit}


def _slope(found):
    if found is None:
        return None
    return {
        **_number(found.value, found.error, "adu/e-"),
        "levels": found.levels,
        "from": found.low,
        "to": found.high,
    }


def _electrons(value, error, transfer):
    """Value [ADU] in electrons, the error of the gain in its own."""
    return _number(
        value * transfer.gain, math.hypot(error * transfer.gain, value * transfer.gain_error), "e-"
    )


def _linearity(camera):
    response = camera.response
    if response is None:
        return None
    order = np.argsort(response.signal)
    pick = order[response.used[order]]
    standard = camera.standard
    low, high, error = linearity.usable_range(response)
    return {
        "exposure": response.exposure[pick].tolist(),
        "signal": response.signal[pick].tolist(),
        "deviation_percent": (100.0 * response.deviation[pick]).tolist(),
        "error_percent": (100.0 * response.deviation_error[pick]).tolist(),
        "usable_range": [low, high],
        "usable_range_error": None if math.isnan(error) else error,
        "usable_within_percent": linearity.USABLE_PERCENT,
        "emva_linearity_error_percent": None if standard is None else standard.error,
        "emva_least_percent": None if standard is None else standard.least,
        "emva_largest_percent": None if standard is None else standard.largest,
    }


def _dark(camera):
    """Dark current at the temperature nearest to that of the flats, all temperatures beside."""
    if not camera.currents:
        return None
    t, found = min(camera.currents, key=lambda one: abs(one[0] - camera.temperature))
    return {
        "value": found.from_mean,
        "error": found.mean_error,
        "unit": "adu/s",
        "temperature": t,
        "from_mean": _number(found.from_mean, found.mean_error, "adu/s"),
        "from_variance": _number(found.from_variance, found.variance_error, "adu/s"),
        "levels": found.levels,
        "t": [one for one, _ in camera.currents],
        "rates": [one.from_mean for _, one in camera.currents],
    }


def _spatial(found, factor, unit):
    if found is None:
        return None
    entry = {}
    for name in PARTS:
        value, error = found.parts.sigma(name)
        entry[name], entry[f"{name}_error"] = factor * value, factor * error
    return {**entry, "all_pixels": factor * found.all_pixels, "unit": unit, "from": found.what}


def _temporal(parts):
    entry = {}
    for name in PARTS:
        entry[name], entry[f"{name}_error"] = parts.sigma(name)
    return {**entry, "unit": "adu"}


# --- tables ---------------------------------------------------------------------------------------------

LEVEL_COLUMNS = (
    *("kind", "filter", "temperature", "exposure", "frames", "signal", "light", "variance", "variance_error"),
    *("model", "scatter", "left_out", "use"),
)


def level_rows(camera):
    """Rows of levels.csv: every group with what it was used for."""
    rows = []
    levels = [*([camera.bias.level] if camera.bias else []), *camera.darks, *camera.flats]
    several = [level for level in camera.flats if level.frames > 1 and math.isfinite(level.found.variance)]
    index = {id(level): i for i, level in enumerate(several)}
    for level in levels:
        place = index.get(id(level))
        model = math.nan if camera.transfer is None or place is None else float(camera.transfer.model[place])
        rows.append(
            {
                "kind": level.kind,
                "filter": level.filter,
                "temperature": round(level.temperature, 3) + 0.0,
                "exposure": level.exposure,
                "frames": level.frames,
                "signal": level.found.signal,
                "light": level.light,
                "variance": level.found.variance,
                "variance_error": level.found.error,
                "model": model if math.isfinite(model) else None,
                "scatter": level.scatter,
                "left_out": level.found.left_out,
                "use": _use(camera, level, place),
            }
        )
    return rows


def _use(camera, level, place):
    if level.kind != "flat":
        return {"bias": "read noise", "dark": "dark current"}[level.kind]
    if place is None:
        return "linearity only: one frame"
    if camera.well.full[place]:
        return "full well"
    return "gain" if camera.transfer.used[place] else "outside the range of the fit"


def other_rows(camera):
    """Rows of the other tables: name -> (columns, rows)."""
    tables = {}
    response, standard = camera.response, camera.standard
    if response is not None:
        tables["linearity"] = [
            {
                "exposure": t,
                "signal": m,
                "deviation_percent": 100.0 * d,
                "error_percent": 100.0 * e,
                "emva_deviation_percent": None if standard is None else float(standard.deviation[i]),
                "used": bool(response.used[i]),
            }
            for i, (t, m, d, e) in enumerate(
                zip(
                    response.exposure,
                    response.signal,
                    response.deviation,
                    response.deviation_error,
                    strict=True,
                )
            )
        ]
    if camera.currents:
        tables["dark_current"] = [
            {
                "temperature": t,
                "levels": one.levels,
                "from_mean": one.from_mean,
                "from_mean_error": one.mean_error,
                "from_variance": one.from_variance,
                "from_variance_error": one.variance_error,
            }
            for t, one in camera.currents
        ]
    if camera.bias is not None:
        real, alone = emva.binned_noise(camera.bias.temporal, BINS)
        tables["binned_noise"] = [
            {"binning": b, "noise": r, "noise_of_pixels_alone": a}
            for b, r, a in zip(BINS, real, alone, strict=True)
        ]
    spectra = []
    for pattern, found in (("dsnu", camera.dsnu), ("prnu", camera.prnu)):
        if found is not None:
            for name, (frequency, power, white) in found.spectra.items():
                spectra += [
                    {"pattern": pattern, "profile": name, "frequency": f, "power": p, "white": white}
                    for f, p in zip(frequency, power, strict=True)
                ]
    if spectra:
        tables["spectra"] = spectra
    return {name: (tuple(rows[0]), rows) for name, rows in tables.items()}


def values_of(detector, camera):
    """Numbers of the sheet: list of (section, name, value, error, unit)."""
    more, rows = detector.more, []

    def add(section, name, entry):
        if entry is not None:
            rows.append((section, name, entry["value"], entry["error"], entry["unit"]))

    gain = detector.gain
    if gain is not None:
        rows.append(("", "gain", gain.value, gain.error, "e-/adu"))
        rows.append(("", "1 / gain", 1.0 / gain.value, gain.error / gain.value**2, "adu/e-"))
    for key, title in SLOPES:
        if more[key] is not None:
            add("", title, more[key])
    if detector.read_noise is not None:
        add(
            "",
            "read noise",
            {"value": detector.read_noise.value, "error": detector.read_noise.error, "unit": "adu"},
        )
        add("", "read noise", more["read_noise_electrons"])
    if detector.full_well is not None:
        name = (
            "full well above bias, end of the converter"
            if more["limited_by_converter"]
            else "full well above bias"
        )
        add("", name, {"value": detector.full_well.value, "error": detector.full_well.error, "unit": "adu"})
        add("", "full well", more["full_well_electrons"])
        if detector.read_noise is not None:
            ratio = detector.full_well.value / detector.read_noise.value
            rows.append(
                (
                    "",
                    "dynamic range, full well over read noise",
                    f"{20.0 * math.log10(ratio):.1f}",
                    None,
                    "dB",
                )
            )
    add("", "saturation by EMVA 1288, largest variance", more["saturation_emva"])
    add("", "brighter-fatter a00", more["brighter_fatter_a00"])
    line = more["linearity"]
    if line is not None:
        low, high, end = *line["usable_range"], line["usable_range_error"]
        shown = f"{low:.0f} to {high:.0f}" + ("" if end is None else f" ± {end:.0f}")
        rows.append(("", f"linear within {line['usable_within_percent']:g} %", shown, None, "adu"))
        if line["emva_linearity_error_percent"] is not None:
            error = f"{line['emva_linearity_error_percent']:.3f}"
            rows.append(("", "linearity error by EMVA 1288", error, None, "%"))
    dark = more["dark_current"]
    if dark is not None:
        at = f"{dark['temperature']:.1f} °C"
        add("", f"dark current at {at}, from the mean", dark["from_mean"])
        add("", f"dark current at {at}, from the variance", dark["from_variance"])
    add("", "doubling temperature of the dark current", more["doubling_temperature"])
    for key, title in (("dsnu", "DSNU"), ("prnu", "PRNU"), ("temporal", "temporal noise without light")):
        entry = more[key]
        if entry is None:
            continue
        unit = {"percent": "%"}.get(entry["unit"], entry["unit"])
        rows += [("", f"{title}, {name}", entry[name], entry[f"{name}_error"], unit) for name in PARTS]
    return rows
