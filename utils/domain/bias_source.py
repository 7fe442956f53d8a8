"""Where the bias of darks and flats comes from: a model folder, or bias frames through their own linear model.

`write_bias` keeps what was used beside the products, so that later runs need neither frames nor the other folder.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.domain.bias_model import A_MAP, B_MAP, COVARIANCE, EQUATION, BiasModel
from utils.errors import InputError
from utils.fits_io.mapped import Squares
from utils.fits_io.product_reader import read_product, view_planes
from utils.fits_io.products import DQ, header_from_inputs, write_product
from utils.fits_io.workers import over_pixels
from utils.kernels import linear_fit

READ_NOISE = "read_noise.fits"


@dataclass(eq=False)
class BiasSource:
    """A bias and the noise around it.

    model : `BiasModel`.  read_variance : (ny, nx) float32 variance of one bias sample, quantisation included [ADU^2],
    or None where the source does not tell.  origin : in words, for headers.  cards : what the maps carry.
    rejected : list of (path, reason).  warnings : list of str.  count : frames behind it.
    """

    model: BiasModel
    read_variance: np.ndarray | None
    origin: str
    cards: dict
    rejected: list
    warnings: list
    count: int = 0


def load_bias(folder, *, mapped=False):
    """Open a bias model folder, with the read noise that lies in it or beside it (../read_noise/read_noise.fits).

    folder : of the model, or the output folder of the bias pipeline.
    mapped : maps stay in their files, as for `BiasModel.from_maps`; read_variance is `Squares` then.
    Raises InputError where a map is missing or does not fit the others.
    """
    folder = Path(folder)
    if (folder / "bias_model" / A_MAP).exists():
        folder /= "bias_model"
    model = BiasModel.load(folder, mapped=mapped)
    variance = None
    for path in (folder / READ_NOISE, folder.parent / "read_noise" / READ_NOISE):
        if path.exists():
            header, noise = _read_noise(path, mapped)
            if noise.shape != model.a.shape:
                raise InputError(
                    f"{path}: shape {noise.shape}, expected {model.a.shape} as in {folder / A_MAP}"
                )
            lsb = float(header.get("LSB", 1.0))
            variance = Squares(noise, lsb * lsb / 12.0)
            variance = variance if mapped else variance[:]
            break
    keys = (
        "INSTRUME",
        "GAIN",
        "XBINNING",
        "YBINNING",
        "ADUSCALE",
        "EGAIN",
        "NCOMBINE",
        "TEMP",
        "EXPTIME",
        "TTOL",
        "LSB",
    )
    cards = {key: model.header[key] for key in keys if key in model.header}
    cards |= {"T_MIN": model.t_min, "T_MAX": model.t_max, "BFIXED": model.fixed_slope}
    return BiasSource(model, variance, str(folder), cards, [], [], int(model.header.get("NCOMBINE", 0)))


def _read_noise(path, mapped):
    """Header and map of the read noise."""
    if not mapped:
        product = read_product(path, expect="READ_NOISE")
        return product.header, product.data
    header, planes = view_planes(path, verify=True)
    if header.get("PRODTYPE") != "READ_NOISE":
        raise InputError(f"{path}: got PRODTYPE {header.get('PRODTYPE') or 'missing'}, expected READ_NOISE")
    return header, planes["PRIMARY"]


def bias_of_frames(
    entries, images, *, temp_tolerance, options, adu_scale=None, saturation=None, session_gap=6 * 3600.0
):
    """Make the linear bias model of bias frames, without any file between.

    entries : ObservationManager entries of bias frames of one setting.  images : dict path -> FitsImage.
    options : `masters.CombineOptions`.  Returns a `BiasSource`; one temperature gives a level without slope.
    """
    # Commands that only read a model start without all this.
    from utils.domain import masters
    from utils.domain.frame_groups import group_entries
    from utils.domain.screening import screen_groups

    groups = group_entries(entries, images, temp_tolerance=temp_tolerance)
    screening = screen_groups(
        groups,
        adu_scale=adu_scale,
        saturation=saturation,
        jobs=options.jobs,
        session_gap=session_gap,
        lines=True,
    )
    groups = screening.groups
    known = [(g.sigma, len(g.frames) - 1.0) for g in groups if math.isfinite(g.sigma) and g.sigma > 0]
    warnings = list(screening.notes)
    if known:
        reference = math.sqrt(sum(w * s * s for s, w in known) / sum(w for _, w in known))
    else:
        reference = screening.single_frame_noise
        warnings.append(
            f"bias: no temperature has two frames, noise {screening.noise_of_single_frames(reference)}"
        )
    shape = groups[0].frames.images[0].shape
    pooled = masters.PooledNoise(shape, options.jobs)
    values, counts, dq = [], [], np.zeros(shape, np.int16)
    for group in groups:
        factor = group.sigma / reference if math.isfinite(group.sigma) and group.sigma > 0 else 1.0
        result = masters.combine_group(group, screening, reference * factor, options)
        pooled.add(result, factor)
        values.append(result.value - np.float32(screening.zero.shifts[group.sessions].mean()))
        counts.append((factor, len(group.frames)))
    pixels = pooled.finish(reference)
    dq[pixels.noisy] |= DQ.NOISY
    temperatures = np.array([group.frames.temperature for group in groups])
    common = _common_error(groups, screening.zero, temperatures)
    if common:
        warnings.append(
            f"bias: levels scatter by {common:.3g} ADU about a line, included in the errors of the bias"
        )
    maps = _fit(values, pixels.variance, counts, temperatures, common, options.jobs)
    fixed = temperatures.size < 2
    if fixed:
        warnings.append(
            f"bias frames at one temperature ({temperatures[0]:.2f} degC): that bias is taken for all frames"
        )
    first = groups[0].frames.entries[0]
    cards = {
        **header_from_inputs([image for group in groups for image in group.frames.images]),
        "CALTYPE": ("BIAS", "kind of the frames"),
        "NCOMBINE": (sum(len(group.frames) for group in groups), "frames behind the masters"),
        "TEMP": (float(np.mean(temperatures)), "[degC] mean temperature of the masters"),
        "EXPTIME": (groups[0].frames.exposure, "[s] exposure time"),
        "T_MIN": (float(temperatures.min()), "[degC] lowest temperature fitted"),
        "T_MAX": (float(temperatures.max()), "[degC] highest temperature fitted"),
        "TTOL": (temp_tolerance, "[degC] half the largest width of a group"),
        "BFIXED": (fixed, "one temperature only: b = 0, not measured"),
        "ADUSCALE": (screening.adu_scale, "stored units per ADU of this product"),
        "LSB": (screening.lsb, "[adu] one step of the converter"),
        "EGAIN": (
            first["egain"] * screening.adu_scale if first["egain"] else None,
            "[e-/adu] conversion gain",
        ),
        "COMMONER": (common, "[adu] error shared by all pixels of a master"),
    }
    header = {key: value[0] if isinstance(value, tuple) else value for key, value in cards.items()}
    model = BiasModel(
        *maps,
        dq,
        float(temperatures.min()),
        float(temperatures.max()),
        temp_tolerance,
        screening.adu_scale,
        header,
    )
    count = sum(len(group.frames) for group in groups)
    return BiasSource(model, pixels.variance, "bias frames", cards, screening.rejected, warnings, count)


def _common_error(groups, zero, temperatures):
    """Scatter of the masters' levels about a line beyond what their frames explain [ADU], 0 where none."""
    level = np.array([np.mean(group.levels - zero.shifts[group.sessions]) for group in groups])
    found = 0.0 if zero.separable else zero.session_scatter
    if np.unique(temperatures).size > 2:
        residual = level - np.polyval(np.polyfit(temperatures, level, 1), temperatures)
        scatter = math.sqrt(float(residual @ residual) / (level.size - 2))
        error = max(float(np.mean([zero.frame_scatter / math.sqrt(len(g.frames)) for g in groups])), 1e-3)
        # Single frames show their noise between neighbouring pixels only.
        noise = max(g.within if math.isfinite(g.within) else g.spatial for g in groups)
        if scatter > 4.0 * error or scatter > 0.5 * noise:
            found = max(found, scatter)
    return found


def _fit(values, variance, counts, temperatures, common, jobs):
    """Line (or mean) through the masters: a, b, var_a, var_b, cov maps, float32."""
    maps = [np.zeros(variance.shape, np.float32) for _ in range(5)]
    flat = [plane.reshape(-1) for plane in maps]
    values = [value.reshape(-1) for value in values]
    variance = variance.reshape(-1)

    def piece(part):
        y = np.stack([value[part] for value in values]).astype(np.float64)
        v = np.stack([variance[part] * (f * f / n) for f, n in counts]).astype(np.float64) + common**2
        if temperatures.size < 2:
            flat[0][part], flat[2][part], flat[3][part] = y[0], v[0], np.nan
            return
        coeff, cov, _, _ = linear_fit.fit_line(y, 1.0 / v, temperatures)
        for target, found in zip(flat, (*coeff, *cov), strict=True):
            target[part] = found

    over_pixels(piece, variance.size, jobs)
    return maps


def write_bias(folder, source, claim=None):
    """Write the maps of a `BiasSource` so that `load_bias` reads them back; returns list of (path, prodtype)."""
    model, cards = source.model, dict(source.cards)
    cards |= {
        "MODEL": (EQUATION, "a, b: the two maps"),
        "BIASFROM": (source.origin[-60:], "where the bias came from"),
    }
    made = []
    plan = [
        (A_MAP, "BIAS_A", model.a, np.sqrt(model.var_a), "adu"),
        (B_MAP, "BIAS_B", model.b, np.sqrt(model.var_b), "adu/K"),
        (COVARIANCE, "BIAS_COVARIANCE", model.cov_ab, None, "adu2/K"),
    ]
    if source.read_variance is not None:
        lsb = cards.get("LSB", 1.0)
        lsb = float(lsb[0] if isinstance(lsb, tuple) else lsb)
        read = np.sqrt(np.maximum(source.read_variance - np.float32(lsb * lsb / 12.0), 0.0))
        plan.append((READ_NOISE, "READ_NOISE", read, None, "adu"))
    for name, prodtype, data, uncert, unit in plan:
        path = Path(folder) / name
        if claim is not None:
            claim(path)
        write_product(path, data, prodtype=prodtype, unit=unit, cards=cards, uncert=uncert, dq=model.dq)
        made.append((path, prodtype))
    return made


def check_match(source, image, entry, adu_scale, what):
    """Refuse a bias of another shape, gain, binning or ADU scale than the frames; names both."""
    model = source.model
    if model.a.shape != tuple(image.shape):
        raise InputError(
            f"{source.origin}: bias of shape {model.a.shape}, expected {tuple(image.shape)} as {what}"
        )
    if adu_scale is not None and not math.isclose(model.adu_scale, adu_scale):
        raise InputError(f"{source.origin}: ADUSCALE {model.adu_scale:g}, expected {adu_scale:g} as {what}")
    gain = model.header.get("GAIN")
    if gain is not None and entry["gain"] is not None and not math.isclose(float(gain), float(entry["gain"])):
        raise InputError(f"{source.origin}: GAIN {gain}, expected {entry['gain']:g} as {what}")
    check_camera(model.header, entry, f"{source.origin}:", what)


def check_camera(header, entry, whose, what):
    """Refuse a model of another camera or binning than a frame; no binning told is 1.

    header : of the model.  entry : of the frame.  whose, what : model and frame in words.
    """
    binning = header.get("XBINNING")
    wanted = str(entry["binning"] or "1").split("x")[0]
    if str(int(binning or 1)) != wanted:
        told = "without XBINNING" if binning is None else f"XBINNING {binning}"
        raise InputError(f"{whose} {told}, expected {wanted} as {what}")
    camera = header.get("INSTRUME")
    if camera and entry["camera"] and str(camera).strip() != str(entry["camera"]).strip():
        raise InputError(f"{whose} INSTRUME {camera}, expected {entry['camera']} as {what}")
