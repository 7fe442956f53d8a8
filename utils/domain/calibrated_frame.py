"""Calibrate one frame with the products of the pipelines: value, error and quality of every pixel."""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from utils.domain import bias_source, flat_source
from utils.errors import InputError
from utils.fits_io.frame_sample import check_datasum, sample_group
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.keywords import describe
from utils.fits_io.mapped import drop_pages
from utils.fits_io.products import DQ, iso_time, write_product
from utils.fits_io.validity import Validity
from utils.kernels import calibration

ROWS = 64
"""Rows calibrated at a time, so that they stay in the cache."""
NOT_KEPT = re.compile(
    r"(CALTYPE|IMAGETYP|IMAGTYP|OBSTYPE|FRAME|BADSIZE|EGAIN|E-GAIN|SATURATE|ADUSCALE|DATAMIN|DATAMAX|CONTINUE|LONGSTRN)\Z"
)
"""Cards of a frame that the calibrated one has anew, or for which it is no longer true."""
FULL = 0.9
"""Part of the full well beyond which a pixel counts as saturated: the response bends before it is full."""
UNSTABLE = int(DQ.TELEGRAPH)
"""A pixel that jumps between levels has no dark: it is not usable."""


@dataclass(eq=False)
class Products:
    """What frames are calibrated with.

    bias : `BiasSource`.  advisor : `DarkAdvisor`, or None.  flats : list of `Flat`, or empty.  detector : `Detector`, or
    None.  gain : e-/ADU given by the user, or None.  saturation : product ADU given by the user, or None.
    """

    bias: bias_source.BiasSource
    advisor: object = None
    flats: list = field(default_factory=list)
    detector: object = None
    gain: float | None = None
    saturation: float | None = None


@dataclass(eq=False)
class Calibrated:
    """A calibrated frame.

    value, sigma (ny, nx) float32 [ADU], dq int16.  cards : of its header.  dark : the `Candidate` used, or None.
    candidates : all that were judged.  warnings : list of text.
    """

    value: np.ndarray
    sigma: np.ndarray
    dq: np.ndarray
    cards: dict
    dark: object
    candidates: list
    warnings: list


def facts_of(image):
    """Facts of a frame from its header; raises InputError for products and for what cannot be calibrated."""
    facts = describe(image.cards, image.path)
    if facts["prodtype"] is not None:
        raise InputError(f"{image.path}: got the product {facts['prodtype']}, expected a frame of a camera")
    for name in ("temperature", "exposure"):
        if facts[name] is None:
            reason = facts["problems"].get(name, f"no {name} in its header")
            raise InputError(f"{image.path}: {reason}, expected a frame whose header tells it")
    return facts


def calibrate_frame(image, products, jobs=1):
    """Calibrate one frame.

    image : FitsImage.  products : `Products`.  jobs : threads.
    Returns `Calibrated`.  Raises InputError for frames and products that do not fit each other, naming both.
    """
    facts = facts_of(image)
    check_datasum(image)
    warnings = []
    scale = products.bias.model.adu_scale
    _check(image, facts, products, scale)
    temperature, exposure = facts["temperature"], facts["exposure"]
    candidates, dark = [], None
    if products.advisor is not None:
        candidates = products.advisor.candidates(temperature, exposure)
        dark = candidates[0]
    flat = None
    if products.flats:
        try:
            flat = flat_source.choose_flat(products.flats, facts["filter"], temperature, image.shape)
        except InputError as error:
            raise InputError(f"{image.path}: {error}") from None
    inverse_gain = _inverse_gain(products, facts, scale, warnings)
    saturation = products.saturation or _saturation(products, facts, scale)
    dq = _quality(products, dark, flat, image.shape)
    extrapolated = _ranges(products, dark, flat, facts, warnings)
    value, sigma = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
    job = _Job(products, dark, flat, temperature, exposure, scale, saturation, inverse_gain, dq, value, sigma)
    with FrameStack([image]) as stack:
        job.samples, job.image, job.full_well = stack.frame_view(0), image, _full_well(products)
        blocks = [slice(start, min(start + ROWS, image.shape[0])) for start in range(0, image.shape[0], ROWS)]
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            list(pool.map(job.block, blocks))
    dq[~np.isfinite(value)] |= np.int16(DQ.NO_DATA)
    cards = _cards(image, facts, products, dark, candidates, flat, inverse_gain, saturation, scale)
    cards["EXTRAP"] = (extrapolated, "outside the range of a model")
    return Calibrated(value, sigma, dq, cards, dark, candidates, warnings)


@dataclass(eq=False)
class _Job:
    """One frame under way; `block` does some rows, with what they need of their neighbours."""

    products: Products
    dark: object
    flat: object
    temperature: float
    exposure: float
    scale: float
    saturation: float
    inverse_gain: float
    dq: np.ndarray
    value: np.ndarray
    sigma: np.ndarray
    full_well: float = math.inf
    samples: np.ndarray = None
    image: object = None

    def block(self, rows):
        """Calibrate some rows."""
        # The shot noise of a row looks at its neighbours, so that blocks leave no trace.
        ny, nx = self.value.shape
        wide = slice(max(0, rows.start - calibration.REACH), min(ny, rows.stop + calibration.REACH))
        inner = slice(rows.start - wide.start, rows.stop - wide.start)
        samples, full = self._samples(wide)
        level, error, _ = self.products.bias.model.evaluate(self.temperature, wide)
        full |= self._beyond_full_well(samples, level)
        variance = np.square(error)
        signal = np.zeros_like(level)
        if self.dark is not None:
            rate, sigma = self.dark.at(slice(wide.start * nx, wide.stop * nx))
            t = np.float32(self.exposure)
            signal = (rate * t).reshape(level.shape)
            level += signal
            variance += np.square(sigma * t).reshape(level.shape)
        flat, flat_sigma = (None, None) if self.flat is None else self.flat.rows(wide)
        usable = (self.dq[wide] & np.int16(DQ.DO_NOT_USE | DQ.NO_DATA)) == 0
        read = self._read_variance(wide)
        value, sigma = calibration.calibrate(
            samples, level, variance, signal, flat, flat_sigma, read, self.inverse_gain, usable & ~full
        )
        self.value[rows], self.sigma[rows] = value[inner], sigma[inner]
        self.dq[rows][full[inner]] |= np.int16(DQ.SATURATED | DQ.DO_NOT_USE)

    def _samples(self, rows):
        """Samples [ADU] and which are saturated."""
        image, stored = self.image, self.samples[rows]
        values = stored.astype(np.float32)
        if image.bscale != 1:
            values *= np.float32(image.bscale)
        values += np.float32(image.bzero)
        if self.scale != 1:
            values /= np.float32(self.scale)
        if image.blank is not None and stored.dtype.kind in "iu":
            values[stored == image.blank] = np.nan
        drop_pages(stored)
        with np.errstate(invalid="ignore"):
            return values, values >= np.float32(self.saturation)

    def _beyond_full_well(self, samples, level):
        """Pixels whose charge, dark current included, is near what they can hold; ``level`` : of the bias."""
        with np.errstate(invalid="ignore"):
            return samples - level >= np.float32(FULL * self.full_well)

    def _read_variance(self, rows):
        known = self.products.bias.read_variance
        if known is not None:
            return known[rows]
        return np.float32(self.products.detector.read_noise.value**2 + 1.0 / 12.0)


def _check(image, facts, products, scale):
    """Refuse products of another shape, gain, binning or ADU scale than the frame."""
    what = f"the frame {image.path}"
    bias_source.check_match(products.bias, image, facts, None, what)
    if products.advisor is not None:
        model = products.advisor.model
        if model.shape != tuple(image.shape):
            raise InputError(
                f"{model.paths[0]}: dark of shape {model.shape}, expected {tuple(image.shape)} as {what}"
            )
        _same_number(
            model.header.get("ADUSCALE", 1.0), scale, model.paths[0], "ADUSCALE", products.bias.origin
        )
        if model.header.get("GAIN") is not None and facts["gain"] is not None:
            _same_number(model.header["GAIN"], facts["gain"], model.paths[0], "GAIN", what)
    for flat in products.flats:
        if flat.header.get("GAIN") is not None and facts["gain"] is not None:
            _same_number(flat.header["GAIN"], facts["gain"], flat.path, "GAIN", what)
    if products.detector is not None:
        products.detector.check_scale(scale, products.bias.origin)
    if scale > 1 and image.bitpix > 0:
        vote = sample_group([image]).votes[0]
        if vote is not None and vote & (int(scale) - 1):
            raise InputError(
                f"{products.bias.origin}: ADUSCALE {scale:g}, expected 1 as {what} is stored (its samples are not all"
                f" multiples of {scale:g})"
            )
    if products.bias.read_variance is None and (
        products.detector is None or products.detector.read_noise is None
    ):
        raise InputError(
            f"{products.bias.origin}: no read noise in or beside the bias model, expected read_noise.fits or --detector"
        )


def _same_number(value, expected, path, name, what):
    if not math.isclose(float(value), float(expected)):
        raise InputError(f"{path}: {name} {value}, expected {expected:g} as {what}")


def _inverse_gain(products, facts, scale, warnings):
    """ADU per electron: given, of the detector, of the frame, of the products; 0 unknown."""
    egain = products.gain
    if egain is None and products.detector is not None:
        egain = products.detector.gain.value
    if egain is None and facts["egain"]:
        egain = facts["egain"] * scale
    headers = [products.bias.model.header]
    headers += [] if products.advisor is None else [products.advisor.model.header]
    for header in headers:
        egain = egain or header.get("EGAIN")
    if not egain:
        warnings.append("gain [e-/ADU] unknown: errors are without shot noise")
        return 0.0
    return 1.0 / float(egain)


def _saturation(products, facts, scale):
    """Saturation [ADU]: card of the frame, of the products, else the converter's maximum as far as it is known."""
    if facts.get("saturate"):
        return facts["saturate"] / scale
    headers = [products.bias.model.header]
    headers += [] if products.advisor is None else [products.advisor.model.header]
    headers += [flat.header for flat in products.flats]
    known = [float(header["SATURATE"]) for header in headers if header.get("SATURATE")]
    return min(known) if known else 65535.0 / scale


def _full_well(products):
    """Charge that a pixel holds [ADU above bias]: of the detector, else as the darks showed it; infinite if unknown."""
    if products.detector is not None and products.detector.full_well is not None:
        return products.detector.full_well.value
    known = None if products.advisor is None else products.advisor.model.header.get("FULLWELL")
    return math.inf if known is None else float(known)


def _quality(products, dark, flat, shape):
    """DQ of all that goes in."""
    dq = np.array(products.bias.model.dq)
    if products.advisor is not None:
        model = products.advisor.model.dq
        # What saturated in a long dark need not in this frame: its own samples tell.
        dq |= model & ~np.int16(DQ.SATURATED)
        lost = dark.lost(slice(0, dq.size)).reshape(shape)
        dq[lost] |= np.int16(DQ.NO_DATA)
    if flat is not None:
        dq |= flat.dq.astype(np.int16) & ~np.int16(DQ.SATURATED)
    dq[(dq & UNSTABLE) != 0] |= np.int16(DQ.DO_NOT_USE)
    return dq


def _ranges(products, dark, flat, facts, warnings):
    """Warn of what the products do not cover; returns True where a model is extrapolated."""
    date = None if facts["timestamp"] is None else iso_time(facts["timestamp"])
    asked = {"temperature": facts["temperature"], "date": date}
    sources = [("bias", products.bias.model.header, asked)]
    if dark is not None and dark.kind == "model":
        sources.append(("dark", products.advisor.model.header, asked | {"exposure": facts["exposure"]}))
    if flat is not None:
        sources.append(("flat", flat.header, asked))
    beyond = False
    for name, header, what in sources:
        outside = Validity.of(header).outside(**what)
        warnings += [f"{name}: {text}" for text in outside]
        beyond |= name != "flat" and any(not text.startswith("date") for text in outside)
    model = products.bias.model
    return bool(beyond or model.extrapolates(facts["temperature"]))


def _cards(image, facts, products, dark, candidates, flat, inverse_gain, saturation, scale):
    """The frame's own cards, and what was done to it."""
    own = {}
    for keyword, value in image.cards.items():
        fits = re.match(r"[A-Z0-9_-]{1,8}\Z", keyword) and not NOT_KEPT.match(keyword) and value is not None
        if fits and isinstance(value, (str, bool, int, float)) and not _structural(keyword):
            own[keyword] = value
    own |= {
        "CALTYPE": ("SCIENCE", "a calibrated frame"),
        "TEMP": (facts["temperature"], "[degC] temperature of the sensor"),
        "EXPTIME": (facts["exposure"], "[s] exposure time"),
        "ADUSCALE": (scale, "stored units per ADU"),
        "EGAIN": (1.0 / inverse_gain if inverse_gain else None, "[e-/adu] conversion gain"),
        "SATURATE": (saturation, "[adu] saturation, bias included"),
        "BIASFILE": (products.bias.origin[-60:], "bias model"),
        "DARKKIND": (None if dark is None else dark.kind, "dark: master, interpolated or model"),
        "DARKFILE": (None if dark is None else dark.words[-60:], "the same in words"),
        "DARKRES": (None if dark is None else dark.expected, "[adu] error that this dark leaves"),
        "FLATFILE": (None if flat is None else str(flat.path)[-60:], "flat"),
        "FLATFILT": (None if flat is None else flat.filter, "its filter"),
    }
    for candidate in candidates[1:]:
        own[f"RES{candidate.kind[:5].upper()}"] = (
            candidate.expected,
            f"[adu] error that {candidate.kind} would leave",
        )
    return own


def _structural(keyword):
    return re.match(
        r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|END|COMMENT|HISTORY|CHECKSUM"
        r"|DATASUM|EXT(NAME|VER|LEVEL)|INHERIT|UTYPE|PRODTYPE|BUNIT|DATE|TIMESYS|PROGRAM|PROGVER|DQBIT\d|MJD.*|VAL[TED]\w+"
        r"|DATE-(OBS|BEG|AVG|END)|T(FORM|TYPE|UNIT|DIM)\d+|TFIELDS)\Z",
        keyword,
    )


def write_calibrated(path, found, image, facts):
    """Write a calibrated frame as a product."""
    cards = dict(found.cards)
    if facts["timestamp"] is not None:
        cards["DATE-OBS"] = (iso_time(facts["timestamp"]), "start of the exposure")
    write_product(
        path,
        found.value,
        prodtype="CALIBRATED",
        unit="adu",
        cards=cards,
        uncert=found.sigma,
        dq=found.dq,
        inputs=[
            {
                "file": image.path,
                "temperature": facts["temperature"],
                "exposure": facts["exposure"],
                "time": facts["timestamp"],
                "datasum": image.cards.get("DATASUM"),
            }
        ],
    )
