"""Fitted models as files: maps with errors and covariance, global parameters, numbers for the record."""

import io
import math

import numpy as np

from dark_pipeline.products import hot_header
from utils.domain.dark_maps import SAMPLE, combined_quality, measured_levels, sampled
from utils.domain.dark_model import EQUATION_1D, EQUATION_2D, MAPS_1D, MAPS_2D
from utils.domain.frame_groups import dates_of_masters
from utils.fits_io.atomic import write_bytes
from utils.fits_io.products import DQ, header_from_inputs, write_product
from utils.kernels.dark_bias import bias_sensitivity
from utils.kernels.dark_sensor import BOLTZMANN_EV, KELVIN

ERRMODEL = "UNCERT(T,t)^2 = g C g, g = (r/A, r (T-T_MIN), r ln t)"

LEAST_SPAN = 5.0
"""Temperatures over which the dark current of any sensor grows visibly: most double it in 5 to 8 degC."""
KNOWN = 3.0
"""Signal and growth count as measured from so many of their errors."""
LOOSE_GAMMA = 0.2
"""GAMMA less certain than this is not measured: over a factor of ten in exposure, rates could change by half."""
LEAST_SIGNAL = 0.01
"""Levels of rounded samples are not known better [ADU]."""
FEW_BRIGHT = 20
"""Hot and warm pixels that can carry a model where the others show no dark signal."""


def model_cards(maps, law, t_min, two):
    """Cards of a model: enough to evaluate it without this code."""
    headers = maps.headers
    frames = np.array([h["NCOMBINE"] for h in headers], np.float64)
    mean = float(np.average(maps.temperature, weights=frames))
    cards = {
        **header_from_inputs(headers),
        "CALTYPE": ("DARK", "kind of the frames"),
        "MODEL": (EQUATION_2D if two else EQUATION_1D, "T in degC, t in s"),
        "ERRMODEL": (ERRMODEL, "C: UNCERT^2 and covariance maps"),
        "GAMMADEF": ("rate", "GAMMA is 0 for a linear dark") if two else None,
        "T_MIN": (t_min, "[degC] lowest temperature of the set; A is given there"),
        "T_MAX": (float(maps.temperature.max()), "[degC] highest temperature fitted"),
        "E_MIN": (float(maps.exposure.min()), "[s] shortest exposure fitted"),
        "E_MAX": (float(maps.exposure.max()), "[s] longest exposure fitted"),
        "NMAPS": (len(headers), "maps fitted"),
        "NCOMBINE": (int(frames.sum()), "frames behind the maps"),
        "TEMP": (mean, "[degC] mean temperature of the frames"),
        "TEMPSTD": (
            float(np.sqrt(np.average((maps.temperature - mean) ** 2, weights=frames))),
            "[degC] scatter",
        ),
        "TEMPMIN": (min(h["TEMPMIN"] for h in headers), "[degC] lowest frame"),
        "TEMPMAX": (max(h["TEMPMAX"] for h in headers), "[degC] highest frame"),
        "EXPTIME": (float(np.average(maps.exposure, weights=frames)), "[s] mean exposure"),
        "OFFSET": (float(np.mean(law.offset)), "[adu] darks above bias, taken out of the fit"),
        **{
            f"OFFSET{number}": (float(one), f"[adu] the same in session {number}")
            for number, one in zip(np.unique(maps.session), law.offset, strict=True)
        },
        "COMMONER": (
            float(np.sqrt(law.design.common_variance.max())),
            "[adu] error shared by a map's pixels",
        ),
        "OFFSTERR": (float(np.max(law.offset_error)) if law.separable else None, "[adu] its error"),
        "OFFSTFIT": (law.separable, "temperatures tell an offset from GAMMA"),
        "GFIXED": (not law.gamma_free, "exposures do not tell GAMMA: 0") if two else None,
        "B_G": (law.b.mean, "[1/K] B of the sensor"),
        "B_GERR": (_finite(law.b.error), "[1/K] its error"),
        "B_GSIG": (law.b.sigma, "[1/K] scatter of B over pixels"),
        "GAMMA_G": (law.gamma.mean, "GAMMA of the sensor") if two else None,
        "GAMMAERR": (_finite(law.gamma.error), "its error") if two else None,
        "GAMMASIG": (law.gamma.sigma, "scatter of GAMMA over pixels") if two else None,
        "ODDPART": (law.regions.part, "part of the frame that grows otherwise") if law.regions else None,
        "DATE-OBS": None,
    }
    return {key: value for key, value in cards.items() if value is not None} | dates_of_masters(headers)


def _finite(value):
    return value if math.isfinite(value) else None


def bias_cards(maps, law, a_g, t_min):
    """How A of a typical pixel follows the error of the bias that was taken from its darks."""
    if maps.bias is None:
        return {}
    some = slice(None, None, max(1, maps.rates[0].size // SAMPLE))
    planes = (
        [maps.bias.var_a] if maps.bias.fixed_slope else [maps.bias.var_a, maps.bias.cov_ab, maps.bias.var_b]
    )
    aa, *slope = (float(np.nanmedian(plane.reshape(-1)[some])) for plane in planes)
    ab, bb = slope or (0.0, 0.0)
    d = law.design
    to_pivot = math.exp(law.b.mean * (d.pivot_t - t_min) + law.gamma.mean * math.log(d.pivot_e))
    found = bias_sensitivity(
        d,
        (a_g * to_pivot, law.b.mean, law.gamma.mean),
        (law.b.spread, law.gamma.spread),
        float(np.nanmedian(maps.noise(some))),
        maps.inverse_gain,
        np.array([[aa, ab], [ab, bb]]),
    )
    per_a, per_b = found / to_pivot
    return {
        "A_BIASA": (per_a, "[1/s] change of A with the error of a of the bias"),
        "A_BIASB": (per_b, "[K/s] change of A with the error of b of the bias"),
    }


def quality(maps, fit, bright_bits, gamma_fixed=False):
    """DQ of a model; gamma that is held without data is flagged in every pixel."""
    dq = combined_quality(maps)
    dq |= bright_bits
    dq[fit.unreliable.reshape(maps.shape)] |= DQ.UNRELIABLE_FIT
    if gamma_fixed:
        dq |= np.int16(DQ.UNRELIABLE_FIT)
    return dq


def write_model(config, record, folder, maps, law, fit, t_min, *, two, **facts):
    """Write the maps of a fit; returns their cards and A_g [ADU/s]."""
    shape = maps.shape
    dq = quality(maps, fit, np.int16(0), two and not law.gamma_free)
    good = (dq & (DQ.UNRELIABLE_FIT | DQ.HOT | DQ.NO_DATA)).ravel() == 0
    good = good if good.any() else np.isfinite(fit.params[0])
    a_g = float(np.median(fit.params[0][good]))
    cards = model_cards(maps, law, t_min, two) | {"A_G": (a_g, "[adu/s] A of the sensor")} | hot_header(maps)
    cards |= bias_cards(maps, law, a_g, t_min)
    names = MAPS_2D if two else MAPS_1D
    suffix = "_2D" if two else ""
    inputs = [
        {
            "file": path.relative_to(config.output_dir).as_posix(),
            "temperature": header["TEMP"],
            "exposure": header["EXPTIME"],
            "time": None,
            "datasum": header.get("DATASUM"),
        }
        for path, header in zip(maps.paths, maps.headers, strict=True)
    ]
    cov = fit.cov
    plan = [("DARK_A", fit.params[0], cov[0], "adu/s", ()), ("DARK_B", fit.params[1], cov[3], "1/K", ())]
    if two:
        plan.append(("DARK_GAMMA", fit.params[2], cov[5], "", ()))
    extra = [("CHI2_RED", fit.chi2_red.reshape(shape), ""), ("NUSED", fit.n_used.reshape(shape), "")]
    if two:
        extra += [
            ("COV_AG", fit.cov[2].reshape(shape), "adu/s"),
            ("COV_BG", fit.cov[4].reshape(shape), "1/K"),
        ]
    plan.append(("DARK_COVARIANCE", fit.cov[1], None, "adu/(s K)", extra))
    for name, (prodtype, data, variance, unit, more) in zip(names, plan, strict=True):
        path = record.claim(config.output_dir / folder / name)
        write_product(
            path,
            data.reshape(shape),
            prodtype=prodtype + suffix,
            unit=unit,
            cards=cards,
            uncert=None if variance is None else np.sqrt(variance).reshape(shape),
            dq=dq,
            inputs=inputs,
            extra=more,
        )
        record.add_product(path, prodtype + suffix, **facts)
    return cards, a_g, dq


def write_global(config, record, path, **values):
    """Write the sensor-wide parameters as an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    path = record.claim(config.output_dir / path)
    write_bytes(path, [buffer.getvalue()])
    record.add_product(path, "GLOBAL_PARAMS")


def unconstrained(law, maps, bright):
    """Say why the data do not carry a model, or None.

    maps : `DarkMaps`.  bright : (ny, nx) bool, hot and warm pixels.  Some map must show dark signal, and the growth with
    temperature be known to a third of itself.
    """
    b, error = law.b.mean, law.b.error
    low, high = maps.temperature.min(), maps.temperature.max()
    signal, unsure = _largest_signal(law, maps, bright)
    if not signal > KNOWN * unsure:
        return (
            f"darks from {low:.1f} to {high:.1f} degC do not tell how the rate grows (no dark signal: at most"
            f" {signal:.2g} +- {unsure:.2g} ADU)"
        )
    # Where no pixel follows the law of the sensor, B is that of the levels, without an error of its own.
    if abs(b) > KNOWN * error or (law.b.pixels == 0 and high - low >= LEAST_SPAN):
        return None
    known = f"B = {b:.3g} +- {error:.2g} 1/degC" if math.isfinite(error) else "B is not known at all"
    return f"darks from {low:.1f} to {high:.1f} degC do not tell how the rate grows ({known})"


def gamma_is_loose(law):
    """Whether the exposures leave GAMMA open."""
    return law.gamma_free and law.gamma.pixels > 0 and not law.gamma.error < LOOSE_GAMMA


def _largest_signal(law, maps, bright):
    """Signal above bias and offset of the map that shows most, and the error that its pixels share [ADU].

    That of bright pixels where enough are.
    """
    offset = law.offset[np.unique(maps.session, return_inverse=True)[1]]
    offset_error = float(np.max(law.offset_error))
    shared = math.hypot(
        math.sqrt(float(law.design.common_variance.max())),
        offset_error if math.isfinite(offset_error) else 0.0,
        LEAST_SIGNAL,
    )
    bright_ones = np.flatnonzero(bright)
    found = []
    for where in (sampled(maps, bright, 4), bright_ones[:: max(1, bright_ones.size // 4000)]):
        if found and where.size < FEW_BRIGHT:
            continue
        level, variance = measured_levels(maps, where)
        best = int(np.argmax(np.nan_to_num(level - offset, nan=-np.inf)))
        # The bias, of as many frames or so, adds as much again.
        error = math.hypot(shared, math.sqrt(2.0 * float(variance[best]) / where.size))
        found.append((float((level - offset)[best]), error))
    return max(found, key=lambda one: one[0] / one[1])


def temperature_numbers(law):
    """Doubling temperature [degC] and apparent activation energy [eV] with errors, and the better law."""
    b, error = law.b.mean, law.b.error
    pivot = law.design.pivot_t + KELVIN
    better = "exponential" if law.exponential_chi2 <= law.arrhenius_chi2 else "Arrhenius"
    return {
        "doubling_temperature_degc": math.log(2.0) / b,
        "doubling_temperature_error_degc": _finite(math.log(2.0) / b**2 * error),
        "activation_energy_ev": BOLTZMANN_EV * pivot**2 * b,
        "activation_energy_error_ev": _finite(BOLTZMANN_EV * pivot**2 * error),
        "activation_energy_at_degc": law.design.pivot_t,
        "better_temperature_law": better,
        "chi2_exponential": law.exponential_chi2,
        "chi2_arrhenius": law.arrhenius_chi2,
    }
