"""Synthetic darks from the models alone: 1-D at temperatures, 2-D at temperatures and exposures, and a single one."""

import numpy as np

from dark_pipeline.products import MODEL_2D
from dark_pipeline.steps.step2_bias import BIAS
from utils.domain.bias_model import BiasModel
from utils.domain.dark_model import EQUATION_1D, EQUATION_2D, MAPS_1D, DarkModel
from utils.errors import InputError
from utils.fits_io.naming import counted, exposure_label, label, unique_names
from utils.fits_io.plane_writer import computed_planes
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import MOST_OPEN, write_products

_FROM_MODEL = (
    *(
        "CAMERA",
        "INSTRUME",
        "GAIN",
        "XBINNING",
        "YBINNING",
        "EGAIN",
        "SATURATE",
        "NCOMBINE",
        "ADUSCALE",
        "GAMMADEF",
    ),
    *("A_G", "B_G", "GAMMA_G", "HOTLIM", "HOTTEMP", "HOTEXP", "HOTSIG", "GFIXED"),
)


def run_1d(config, context):
    """Make 1-D synthetic darks at --temps, else at the temperatures of the maps.

    Reads: dark_model/exp_*/.  Writes: exp_*/synthetic_dark_{T}.fits.
    """
    record = context.record
    with record.step("synthesize_1d") as step:
        count = 0
        for folder, exposure in _models_1d(config, record):
            model = DarkModel.load(folder)
            wanted = config.temps if config.temps is not None else _measured(folder / MAPS_1D[0])
            names = unique_names([f"{folder.name}/synthetic_dark_{label(t, 2)}" for t in wanted])
            plan = [(f"{name}.fits", float(T), exposure) for T, name in zip(wanted, names, strict=True)]
            _write_all(config, record, model, plan, two=False)
            count += len(wanted)
            _warn_outside(record, model, [(t, None) for t in wanted])
        step.summary = f"{counted(count, 'synthetic dark')}" if count else "no 1-D model, none made"


def run_2d(config, context):
    """Make 2-D synthetic darks on --temps x --exptimes, else on those of the maps.

    Reads: dark_model_2d/.  Writes: synthetic_2d_exp_{t}/synthetic_2d_dark_t{T}_e{t}.fits.
    """
    record = context.record
    with record.step("synthesize_2d") as step:
        model = _model_2d(config, record)
        if model is None:
            step.summary = "no 2-D model, none made"
            return
        temperatures = config.temps if config.temps is not None else _measured(model.paths[0])
        exposures = config.exptimes if config.exptimes is not None else _measured(model.paths[0], "exposure")
        wanted = [(float(T), float(t)) for t in exposures for T in temperatures]
        names = unique_names(
            [
                f"synthetic_2d_exp_{exposure_label(t)}/synthetic_2d_dark_t{label(T, 2)}_e{exposure_label(t)}"
                for T, t in wanted
            ]
        )
        plan = [(f"{name}.fits", *at) for at, name in zip(wanted, names, strict=True)]
        _write_all(config, record, model, plan, two=True)
        _warn_outside(record, model, wanted)
        step.summary = counted(len(wanted), "synthetic dark")


def run_single(config, context):
    """Make one 2-D synthetic dark at --temp_single and --exptime_single; nothing where they are not given.

    Reads: dark_model_2d/.  Writes: synthetic_2d_dark_T{T}_E{t}.fits; others that earlier runs made of the same model stay.
    """
    record = context.record
    if config.temp_single is None or config.exptime_single is None:
        return
    earlier = [
        (config.output_dir / name, entry["facts"])
        for name, entry in record.listed().items()
        if entry["step"] == "synthesize_single" and entry["prodtype"] == "SYNTHETIC_DARK"
    ]
    with record.step("synthesize_single") as step:
        model = _model_2d(config, record)
        if model is None:
            step.summary = "no 2-D model, none made"
            return
        temperature, exposure = config.temp_single, config.exptime_single
        name = f"synthetic_2d_dark_T{label(temperature, 2)}_E{exposure_label(exposure)}.fits"
        _write_all(config, record, model, [(name, temperature, exposure)], two=True)
        for path, facts in earlier:
            if path.name != name and path.is_file() and facts.get("model") == _sums(model):
                record.add_product(path, "SYNTHETIC_DARK", **facts)
        _warn_outside(record, model, [(temperature, exposure)])
        step.summary = name


def _models_1d(config, record):
    """Folders of the 1-D models with their exposures."""
    if config.model_dir is not None:
        if (config.model_dir / MAPS_1D[0]).exists():
            return [(config.model_dir, _exposure(config.model_dir))]
        folders = sorted(path.parent for path in config.model_dir.glob(f"exp_*/{MAPS_1D[0]}"))
        if not folders:
            raise InputError(
                f"{config.model_dir}: no {MAPS_1D[0]}, expected a 1-D dark model or folders of them"
            )
        return [(folder, _exposure(folder)) for folder in folders]
    if record.mode == "full" and not any(ref.prodtype == "DARK_A" for ref in record.products()):
        return []
    refs = record.products("DARK_A", made_by="--mode full")
    return [(ref.path.parent, float(ref.facts["exposure"])) for ref in refs]


def _exposure(folder):
    return float(view_planes(folder / MAPS_1D[0])[0]["EXPTIME"])


def _model_2d(config, record):
    """Load the 2-D model; None in a full run that could not make one."""
    if config.model_dir is not None:
        return DarkModel.load(config.model_dir)
    if record.mode == "full" and not any(ref.prodtype == "DARK_A_2D" for ref in record.products()):
        return None
    return DarkModel.load(config.output_dir / MODEL_2D)


def _measured(path, key="temperature"):
    """Temperatures [degC] or exposures [s] of the maps behind a model, as their labels tell them, without repetition."""
    from utils.fits_io.product_reader import read_product

    rows = read_product(path).inputs
    if key == "exposure":
        return tuple(dict.fromkeys(float(f"{row[key]:.4g}") for row in rows))
    return tuple(np.unique([float(label(row[key], 1)) for row in rows]))


def _warn_outside(record, model, wanted):
    outside = [one for one in wanted if model.extrapolates(*one)]
    if outside:
        shown = ", ".join(f"{label(T, 1)} degC" + ("" if t is None else f" {t:g} s") for T, t in outside)
        record.warn(
            f"{shown}: outside the fitted range {model.t_min:.1f} to {model.t_max:.1f} degC, {model.e_min:g} to"
            f" {model.e_max:g} s: extrapolated"
        )


def _write_all(config, record, model, plan, *, two):
    """Write synthetic darks, plan : list of (name, T, t); those of one exposure together, by workers piece after piece.

    two : the model knows the exposure; else it holds for its own only.
    """
    bias = BiasModel.load(config.output_dir / BIAS) if config.unit == "adu" and config.add_bias else None
    sums = _sums(model)
    inputs = [{"file": path.name, "datasum": one} for path, one in zip(model.paths, sums, strict=True)]
    paths = [record.claim(config.output_dir / name) for name, _, _ in plan]
    wanted = {}
    for path, (_, temperature, exposure) in zip(paths, plan, strict=True):
        if not record.stands(path):
            wanted.setdefault(exposure, []).append((path, temperature))
    for exposure, darks in wanted.items():
        for first in range(0, len(darks), MOST_OPEN):
            some = darks[first : first + MOST_OPEN]
            _write_exposure(config, model, bias, some, exposure, two, inputs)
    for path, (_, temperature, exposure) in zip(paths, plan, strict=True):
        facts = {"temperature": float(temperature), "exposure": float(exposure), "model": sums}
        record.add_product(path, "SYNTHETIC_DARK", **facts)


def _write_exposure(config, model, bias, darks, exposure, two, inputs):
    """Write synthetic darks of one exposure, darks : list of (path, T), which share all that does not depend on T."""

    def compute(part):
        terms = model.terms(part, exposure if two else 1.0)
        line = None if bias is None else bias.terms_of(part)
        found = {}
        for number, (_, temperature) in enumerate(darks):
            dark = _evaluate(config, model, terms, (bias, line), part, temperature, exposure, two)
            found |= {(number, kind): values for kind, values in dark.items()}
        return found

    kinds = {"value": np.float32, "sigma": np.float32, "dq": np.int16}
    kinds = {(number, kind): dtype for number in range(len(darks)) for kind, dtype in kinds.items()}
    planes = computed_planes(model.shape, kinds, compute)
    products = []
    for number, (path, temperature) in enumerate(darks):
        described = {"prodtype": "SYNTHETIC_DARK", "unit": config.unit, "inputs": inputs}
        described["cards"] = _cards(config, model, temperature, exposure, two)
        described |= {"uncert": planes[number, "sigma"], "dq": planes[number, "dq"]}
        products.append((path, planes[number, "value"], described))
    write_products(products, config.shared.jobs, together=len(products))
    model.rest()


def _sums(model):
    """DATASUM of each map of a model."""
    return [view_planes(path)[0].get("DATASUM") for path in model.paths]


def _evaluate(config, model, terms, offset, part, temperature, exposure, two):
    """Value, sigma and dq of a piece in the unit asked for, as a dict.

    terms : of the model.  offset : bias and its terms, or twice None.
    """
    value, variance = model.signal(terms, part, temperature, exposure)
    # A 1-D model gives rates.
    factor = np.float32((exposure if config.unit == "adu" else 1.0) / (exposure if two else 1.0))
    value *= factor
    sigma = np.sqrt(variance, out=variance)
    sigma *= factor
    dq = model.dq.reshape(-1)[part]
    bias, line = offset
    if bias is not None:
        value += line.level(temperature) + np.float32(model.offset)
        dq = dq | bias.dq.reshape(-1)[part]
        more = line.variance(temperature)
        both, error = np.square(sigma) + more, np.sqrt(more)
        if config.model_dir is None:
            # The model lacks what the error of this bias has too much.
            both += 2.0 * model.bias_covariance(bias, temperature, exposure, part)
        sigma = np.sqrt(np.maximum(both, np.square(sigma - error)))
    return {"value": value, "sigma": sigma, "dq": dq}


def _cards(config, model, temperature, exposure, two):
    """Cards of one synthetic dark."""
    cards = {key: model.header[key] for key in _FROM_MODEL if key in model.header}
    cards |= {
        "CALTYPE": ("DARK", "kind of the frame"),
        "TEMP": (float(temperature), "[degC] temperature of this dark"),
        "TEMPSTD": (0.0, "[degC] scatter"),
        "TEMPMIN": (float(temperature), "[degC] lowest"),
        "TEMPMAX": (float(temperature), "[degC] highest"),
        "EXPTIME": (float(exposure), "[s] exposure of this dark"),
        "MODEL": (EQUATION_2D if two else EQUATION_1D, "what was evaluated"),
        "T_MIN": (model.t_min, "[degC] lowest temperature fitted"),
        "T_MAX": (model.t_max, "[degC] highest temperature fitted"),
        "E_MIN": (model.e_min, "[s] shortest exposure fitted"),
        "E_MAX": (model.e_max, "[s] longest exposure fitted"),
        "WITHBIAS": (config.add_bias, "the bias of this temperature is included"),
        "OFFSET": (
            model.offset,
            f"[adu] darks above bias, {'in' if config.add_bias else 'not in'} this dark",
        ),
        "EXTRAP": (
            bool(model.extrapolates(temperature, exposure if two else None)),
            "outside the fitted range",
        ),
    }
    for key in ("DATE-BEG", "DATE-AVG", "DATE-END"):
        if key in model.header:
            cards[key] = (model.header[key], "UTC, frames behind the model")
    return cards
