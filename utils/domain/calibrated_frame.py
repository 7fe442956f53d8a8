"""What a frame is calibrated with, and what its header says of it; `calibration_pass` does the pixels."""

import math
import re
from dataclasses import dataclass, field

from utils.domain import bias_source, flat_source
from utils.errors import InputError
from utils.fits_io.keywords import describe
from utils.fits_io.products import iso_time
from utils.fits_io.validity import Validity

NOT_KEPT = re.compile(
    r"(CALTYPE|IMAGETYP|IMAGTYP|OBSTYPE|FRAME|BADSIZE|EGAIN|E-GAIN|SATURATE|ADUSCALE|DATAMIN|DATAMAX|CONTINUE|LONGSTRN)\Z"
)
"""Cards of a frame that the calibrated one has anew, or for which it is no longer true."""


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

    def mapped(self):
        """Yield the planes (ny, nx) that are read from their files block by block."""
        model = self.bias.model
        yield from (model.a, model.b, model.cov_ab)
        if self.advisor is not None:
            yield from self.advisor.mapped()
        for flat in self.flats:
            planes = (flat.response, flat.sigma, flat.dq, flat.illumination)
            yield from (plane for plane in planes if plane is not None)


@dataclass(eq=False)
class Plan:
    """How one frame is calibrated.

    image : FitsImage.  facts : of its header.  dark : the `Candidate` used, or None; candidates : all that were judged.
    flat : `Flat` or None.  inverse_gain : ADU/e-, 0 unknown.  scale : stored units per ADU.  saturation [ADU].
    full_well [ADU above bias].  cards : of the header of the product.  warnings : list of text.
    origin : of the bias, in words.
    """

    image: object
    facts: dict
    dark: object
    candidates: list
    flat: object
    inverse_gain: float
    scale: float
    saturation: float
    full_well: float
    cards: dict
    warnings: list
    origin: str

    @property
    def temperature(self):
        """Of the sensor [degC]."""
        return self.facts["temperature"]

    @property
    def exposure(self):
        """Exposure time [s]."""
        return self.facts["exposure"]


def facts_of(image):
    """Facts of a frame from its header; raises InputError for products and for what cannot be calibrated."""
    facts = describe(image.cards, image.path)
    if facts["prodtype"] is not None:
        raise InputError(f"{image.path}: got the product {facts['prodtype']}, expected a frame of a camera")
    if image.cards.get("BADSIZE") is True:
        raise InputError(f"{image.path}: BADSIZE = T: the raw file had another size, expected a whole frame")
    for name in ("temperature", "exposure"):
        if facts[name] is None:
            reason = facts["problems"].get(name, f"no {name} in its header")
            raise InputError(f"{image.path}: {reason}, expected a frame whose header tells it")
    return facts


def plan_frame(image, products):
    """Choose what a frame is calibrated with.

    image : FitsImage.  products : `Products`.
    Returns a `Plan`.  Raises InputError for frames and products that do not fit each other, naming both.
    """
    facts = facts_of(image)
    warnings = []
    scale = products.bias.model.adu_scale
    _check(image, facts, products, scale)
    temperature, exposure = facts["temperature"], facts["exposure"]
    candidates, dark = [], None
    if products.advisor is not None and exposure > 0:
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
    extrapolated = _ranges(products, dark, flat, facts, warnings)
    cards = _cards(image, facts, products, dark, candidates, flat, inverse_gain, saturation, scale)
    cards["EXTRAP"] = (extrapolated, "outside the range of a model")
    well = _full_well(products)
    return Plan(
        image,
        facts,
        dark,
        candidates,
        flat,
        inverse_gain,
        scale,
        saturation,
        well,
        cards,
        warnings,
        products.bias.origin,
    )


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
    if facts["timestamp"] is not None:
        own["DATE-OBS"] = (iso_time(facts["timestamp"]), "start of the exposure")
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
