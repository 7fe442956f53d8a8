"""What is subtracted from a flat: bias and dark current at its own temperature and exposure, and how well it is known.

A dark model with a bias model; else master darks of the same temperature, brought to the exposure of the flat; else
the bias alone; else nothing.  Never one raw dark.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils.domain import bias_source, masters
from utils.domain.bias_source import BiasSource
from utils.domain.dark_model import DarkModel
from utils.domain.frame_groups import group_entries
from utils.domain.screening import screen_groups
from utils.errors import InputError
from utils.fits_io.naming import label
from utils.fits_io.products import DQ
from utils.fits_io.workers import in_threads, over_pixels
from utils.kernels import screen
from utils.kernels.medians import nan_median

SATURATED_FRACTION = 0.2
"""Pixels of a dark that may be saturated: hot pixels are."""
SAME_EXPOSURE = 0.01
"""Exposures that differ by less than this part are one."""
FEWEST_DARKS = 3
"""Fewer frames make no master: a cosmic hit could not be told from a hot pixel."""
LEVEL_PIXELS = BAND_PIXELS = 1 << 18
MOST_KEPT = 8
"""Master darks held in memory."""
LOST = int(DQ.NO_DATA | DQ.DO_NOT_USE)


@dataclass(eq=False)
class Pedestal:
    """What is subtracted from the flats of one temperature and exposure.

    value, variance : (ny, nx) float32 [ADU, ADU^2]; NaN where the source does not tell.  dark : (ny, nx) float32, the part
    that is dark current [ADU], or None.  kind : 'dark model', 'master dark', 'bias only' or 'nothing'.  words : what was
    used.  slope : growth of its level with temperature [ADU/degC].  files : darks that went in.  extrapolated : bool.
    """

    value: np.ndarray
    variance: np.ndarray
    dark: np.ndarray | None
    kind: str
    words: str
    slope: float = 0.0
    files: tuple = ()
    dark_temperature: float = math.nan
    dark_exposure: float = math.nan
    extrapolated: bool = False


@dataclass(eq=False)
class DarkSource:
    """All that can be subtracted from flats of one camera setting.

    shape : (ny, nx).  bias : `BiasSource` or None.  model : `DarkModel` or None.  darks : list of `FrameGroup` of darks.
    tolerance [degC] : darks serve flats so near in temperature.  options : `masters.CombineOptions`.
    adu_scale : stored units per product ADU where bias or model tell it, else None.  warnings, rejected : of all that was
    used.
    """

    shape: tuple
    bias: BiasSource | None
    model: DarkModel | None
    model_folder: str = ""
    darks: list = field(default_factory=list)
    tolerance: float = 0.5
    options: masters.CombineOptions = field(default_factory=masters.CombineOptions)
    adu_scale: float | None = None
    saturation: float | None = None
    no_dark: bool = False
    warnings: list = field(default_factory=list)
    rejected: list = field(default_factory=list)
    _kept: dict = field(default_factory=dict)
    _last: tuple | None = None
    _whole: object = None
    _rows: object = None

    @property
    def read_variance(self):
        """Variance of a sample without signal, (ny, nx) [ADU^2], or None where the source does not tell."""
        return None if self.bias is None else self.bias.read_variance

    def pedestal(self, temperature, exposure):
        """Pedestal at a temperature [degC] and exposure [s]; the last one is kept for groups that share it."""
        if self._last is None or self._last[0] != (temperature, exposure):
            self._last = None  # its planes make room for the new ones
            made = self._make(temperature, exposure)
            for plane in (made.value, made.variance, made.dark):
                if plane is not None:
                    plane.setflags(write=False)
            self._last = (temperature, exposure), made
        return self._last[1]

    def _make(self, temperature, exposure):
        if self.model is not None:
            return self._of_model(temperature, exposure)
        group = self.choose(temperature, exposure)
        if group is not None:
            return self._of_darks(group, temperature, exposure)
        if self.bias is not None:
            value, sigma = self._bias_at(temperature)
            outside = self.bias.model.extrapolates(temperature)
            words = f"bias from {self.bias.origin} alone"
            return Pedestal(
                value, np.square(sigma), None, "bias only", words, self._bias_slope(temperature),
                extrapolated=outside,
            )  # fmt: skip
        if self.darks and not self.no_dark:
            at = f"flats at {label(temperature, 1)} degC, {exposure:g} s"
            raise InputError(
                f"{at}: no bias, and {self.why_none(temperature, exposure)}; expected bias frames, --bias-model DIR, darks"
                " of the same exposure, or --no-dark"
            )
        zero = np.zeros(self.shape, np.float32)
        return Pedestal(zero, zero.copy(), None, "nothing", "nothing")

    def at_rows(self, rows):
        """Return the same source for some rows (indices) of the frame only: cheap where few are wanted."""
        bias, model = self.bias, self.model
        if bias is not None:
            planes = ("a", "b", "var_a", "var_b", "cov_ab", "dq")
            part = {name: getattr(bias.model, name)[rows] for name in planes}
            bias = replace(bias, model=replace(bias.model, **part))
        if model is not None:
            part = {
                name: tuple(None if plane is None else plane[rows] for plane in getattr(model, name))
                for name in ("params", "sigmas", "mixed")
            }
            part["dq"] = model.dq[rows]
            model = replace(model, **part)
        shape = (len(rows), self.shape[1])
        return replace(self, shape=shape, bias=bias, model=model, _whole=self, _rows=rows, _last=None)

    def choose(self, temperature, exposure):
        """Darks for a flat: nearest exposure from its own upwards, within tolerance; None where there are none.

        Without a bias only darks of the same exposure serve.
        """
        longest = math.inf if self.bias is not None else exposure * (1.0 + SAME_EXPOSURE)
        fitting = [
            group
            for group in self.darks
            if abs(group.temperature - temperature) <= self.tolerance + 1e-9
            and (1.0 - SAME_EXPOSURE) * exposure <= group.exposure <= longest
            and len(group) >= FEWEST_DARKS
        ]
        return min(
            fitting, key=lambda g: (round(g.exposure, 6), abs(g.temperature - temperature)), default=None
        )

    def why_none(self, temperature, exposure):
        """Tell why no dark serves flats at a temperature and exposure, in words."""
        if not self.darks:
            return "no darks"
        near = [g for g in self.darks if abs(g.temperature - temperature) <= self.tolerance + 1e-9]
        if not near:
            nearest = min(self.darks, key=lambda g: abs(g.temperature - temperature))
            return (
                f"the darks nearest in temperature are at {label(nearest.temperature, 1)} degC,"
                f" {abs(nearest.temperature - temperature):.1f} degC away"
            )
        longest = max(near, key=lambda g: g.exposure)
        if longest.exposure < (1.0 - SAME_EXPOSURE) * exposure:
            return (
                f"the darks are shorter (at most {longest.exposure:g} s), and a dark is scaled only downwards"
            )
        same = [g for g in near if math.isclose(g.exposure, exposure, rel_tol=SAME_EXPOSURE)]
        if self.bias is None and not same:
            return f"the darks have other exposures ({longest.exposure:g} s), and none can be scaled without a bias"
        return f"fewer than {FEWEST_DARKS} darks at {label(temperature, 1)} degC of one exposure from {exposure:g} s"

    def _bias_at(self, temperature, rows=slice(None)):
        value, sigma, dq = self.bias.model.evaluate(temperature, rows)
        value[(dq & LOST) != 0] = np.nan
        return value, sigma

    def _bias_slope(self, temperature):
        model = self.bias.model
        return 0.0 if model.fixed_slope else level_of(model.b)

    def _of_model(self, temperature, exposure):
        model = self.model
        two = model.e_max > model.e_min
        level, error = self._bias_at(temperature)
        dark, value, variance = (np.empty(self.shape, np.float32) for _ in range(3))
        levels, errors, lost = (one.reshape(-1) for one in (level, error, model.dq))
        darks, values, variances = (one.reshape(-1) for one in (dark, value, variance))
        t, offset = np.float32(exposure), np.float32(model.offset)

        def piece(part):
            rate, sigma = model.at(part, temperature, exposure if two else 1.0)
            np.multiply(rate, t, out=darks[part])
            darks[part] += offset
            np.add(levels[part], darks[part], out=values[part])
            # An error that all pixels share moves the level of the flat, not its pixels against each other.
            variances[part] = np.square(sigma * t) + np.square(errors[part])
            values[part][(lost[part] & LOST) != 0] = np.nan

        over_pixels(piece, dark.size, self.options.jobs)
        model.rest()
        growth = level_of(sampled(dark) * sampled(model.params[1]))
        return Pedestal(
            value,
            variance,
            dark,
            "dark model",
            f"dark model {self.model_folder}, bias from {self.bias.origin}",
            self._bias_slope(temperature) + growth,
            dark_temperature=temperature,
            dark_exposure=exposure,
            extrapolated=model.extrapolates(temperature, exposure)
            or self.bias.model.extrapolates(temperature),
        )

    def _of_darks(self, group, temperature, exposure):
        signal, variance, words = self._master(group)
        files = tuple(entry["original_path"] for entry in group.entries)
        common = {
            "kind": "master dark",
            "files": files,
            "dark_temperature": group.temperature,
            "dark_exposure": group.exposure,
        }
        if self.bias is None:
            return Pedestal(signal, variance, None, words=f"{words}, with its bias", **common)
        part = 1.0 if group.exposure <= exposure * (1.0 + SAME_EXPOSURE) else exposure / group.exposure
        value, spread, dark = (np.empty(self.shape, np.float32) for _ in range(3))
        step = max(1, BAND_PIXELS // self.shape[1])

        def band(first):
            # Bias of the flat and of the dark is one model: only what differs between them counts twice.
            rows = slice(first, first + step)
            here, _ = self._bias_at(temperature, rows)
            there, error = self._bias_at(group.temperature, rows)
            np.multiply(signal[rows] - there, np.float32(part), out=dark[rows])
            np.add(here, dark[rows], out=value[rows])
            np.square(error * np.float32(1.0 - part), out=spread[rows])
            spread[rows] += variance[rows] * np.float32(part * part)

        in_threads(lambda: band, range(0, self.shape[0], step), self.options.jobs)
        scaled = "" if part == 1.0 else f" x {part:.4g} of its exposure"
        return Pedestal(
            value,
            spread,
            dark,
            words=f"{words}{scaled}, bias from {self.bias.origin}",
            slope=self._bias_slope(temperature),
            extrapolated=self.bias.model.extrapolates(temperature),
            **common,
        )

    def _master(self, group):
        """Combined darks of one group: value, variance of it, words; the last few are kept."""
        if self._whole is not None:
            value, variance, words = self._whole._master(group)
            return value[self._rows], variance[self._rows], words
        if id(group) not in self._kept:
            limits = screen.ScreenLimits(saturated_fraction=SATURATED_FRACTION)
            screening = screen_groups(
                [group],
                adu_scale=self.adu_scale,
                saturation=self.saturation,
                jobs=self.options.jobs,
                limits=limits,
            )
            known = {path for path, _ in self.rejected}
            self.rejected += [one for one in screening.rejected if one[0] not in known]
            (own,) = screening.groups
            sigma = own.within if math.isfinite(own.within) else own.spatial
            result = masters.combine_group(own, screening, sigma, self.options)
            pooled = masters.PooledNoise(self.shape, self.options.jobs)
            pooled.add(result, 1.0)
            noise = pooled.finish(sigma, screening.lsb)
            variance = np.square(noise.standard_error(result.n_used, 1.0, self.options.method, screening.lsb))
            words = f"master of {len(own.frames)} darks at {label(group.temperature, 1)} degC, {group.exposure:g} s"
            if len(self._kept) >= MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[id(group)] = (result.value, variance, words)
        return self._kept[id(group)]


def level_of(plane):
    """Median of a plane from a regular sample of its pixels."""
    return float(nan_median(sampled(plane)))


def sampled(plane):
    """Regular sample of the pixels of a plane."""
    return plane.reshape(-1)[:: max(1, plane.size // LEVEL_PIXELS)]


def find_source(
    image,
    entry,
    *,
    bias_entries=(),
    dark_entries=(),
    images=None,
    bias_model=None,
    dark_model=None,
    no_dark=False,
    temp_tolerance=0.5,
    options=None,
    adu_scale=None,
    saturation=None,
    session_gap=6 * 3600.0,
):
    """Gather what can be subtracted from flats (or fields) of one camera setting.

    image, entry : FitsImage and ObservationManager entry of one of them, to check against.  bias_entries, dark_entries :
    frames found; images : dict path -> FitsImage.  bias_model, dark_model : folders, or None.  no_dark : use no dark.
    Returns a `DarkSource`.  Raises InputError where there is neither bias nor dark (unless no_dark), for a dark model
    without a bias, and for models of another shape, gain, binning or ADU scale.
    """
    what = f"the flat {entry['original_path']}"
    options = options or masters.CombineOptions()
    model, folder = None, ""
    if dark_model is not None:
        model, folder = DarkModel.load(dark_model), str(dark_model)
    bias = _find_bias(
        bias_model, dark_model, bias_entries, images or {}, temp_tolerance, options, adu_scale, saturation, session_gap
    )  # fmt: skip
    darks = []
    if dark_entries and not no_dark and model is None:
        darks = group_entries(dark_entries, images, temp_tolerance=temp_tolerance, by_exposure=True)
    if bias is None and model is not None:
        raise InputError(
            f"{dark_model}: no bias with this dark model, expected --bias-model DIR, bias frames below --basepath or"
            f" {bias_source.A_MAP} in bias_used/ beside it"
        )
    if bias is None and not darks and not no_dark:
        raise InputError(
            f"{what}: neither bias nor dark frames found, expected some below --basepath, --bias-model DIR,"
            " --dark-model DIR with it, or --no-dark for flats that hold none"
        )
    if bias is not None:
        bias_source.check_match(bias, image, entry, adu_scale, what)
    scale = adu_scale if bias is None else bias.model.adu_scale
    if model is not None:
        check_dark_model(model, folder, image, entry, scale, what)
    source = DarkSource(
        tuple(image.shape), bias, model, folder, darks, temp_tolerance, options, scale, saturation, no_dark
    )
    if bias is not None:
        source.warnings += bias.warnings
        source.rejected += bias.rejected
    return source


def _find_bias(
    bias_model, dark_model, entries, images, temp_tolerance, options, adu_scale, saturation, session_gap
):
    """Bias of --bias-model, else of the frames found, else beside the dark model, else None."""
    if bias_model is not None:
        return bias_source.load_bias(bias_model)
    if entries:
        return bias_source.bias_of_frames(
            entries,
            images,
            temp_tolerance=temp_tolerance,
            options=options,
            adu_scale=adu_scale,
            saturation=saturation,
            session_gap=session_gap,
        )
    if dark_model is not None:
        place = Path(dark_model).resolve()
        for parent in (place, place.parent, place.parent.parent):
            if (parent / "bias_used" / bias_source.A_MAP).exists():
                return bias_source.load_bias(parent / "bias_used")
    return None


def check_dark_model(model, folder, image, entry, adu_scale, what):
    """Refuse a dark model of another shape, gain, binning or ADU scale than the frames; names both."""
    head = model.header
    if model.shape != tuple(image.shape):
        raise InputError(
            f"{folder}: dark model of shape {model.shape}, expected {tuple(image.shape)} as {what}"
        )
    scale = float(head.get("ADUSCALE", 1.0))
    if adu_scale is not None and not math.isclose(scale, adu_scale):
        raise InputError(f"{folder}: ADUSCALE {scale:g}, expected {adu_scale:g} as {what}")
    gain = head.get("GAIN")
    if gain is not None and entry["gain"] is not None and not math.isclose(float(gain), float(entry["gain"])):
        raise InputError(f"{folder}: GAIN {gain}, expected {entry['gain']:g} as {what}")
    bias_source.check_camera(head, entry, f"{folder}:", what)


def middle_rows(shape):
    """Rows from which the level of a pedestal is told."""
    count = min(shape[0], 16)
    return np.linspace(0, shape[0] - 1, count + 2)[1:-1].astype(int) if shape[0] > count else np.arange(count)
