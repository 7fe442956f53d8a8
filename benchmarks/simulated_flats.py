"""Runs of the shipped flat pipeline on simulated cameras, and its products beside the truth and the statistical limit."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.frames import START, bias_cards, write_frame
from benchmarks.simulated_runs import run_pipeline
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ
from utils.kernels.scene import Scene, StarField, led_pattern
from utils.kernels.sensor import Sensor, SensorSpec

SEEDS = (1, 2, 3, 4, 5)
SHAPES = ((256, 256), (224, 320))
TEMPERATURE = 5.0
LEVELS = {"12left": (900.0, 1400.0), "16": (12_000.0, 20_000.0)}
"""Level of sky and of lab flats [ADU] by converter."""
LOST = int(DQ.NO_DATA | DQ.DO_NOT_USE | DQ.SATURATED)
CENTRE = 0.1
"""The centre of the illumination lies off the middle by up to this part of the width and height."""
LINEAR = {"nonlinearity": 0.0}
"""A response that bends is another matter: the shape of the flat then depends on its level."""


def camera(preset, shape, seed, **terms):
    """Sensor with six dust spots, the light's centre off the middle; without row noise, glow and shifts of sessions."""
    off = np.random.default_rng([seed, 9]).uniform(-CENTRE, CENTRE, 2)
    given = {
        **{"row_noise": 0.0, "session_shifts": (), "glow": 0.0, "dust_count": 6, "low_qe_fraction": 0.004},
        "vignetting_centre": (0.5 + off[0], 0.5 + off[1]),
        **LINEAR,
    }
    return Sensor(SensorSpec.preset(preset, shape=shape, seed=seed, **(given | terms)))


def take(folder, sensor, kind, plan, seed, *, scene=None, jitter=0.0, start=START):
    """Write frames; plan : list of (T [degC], t [s], count, level [ADU]), scene : function (index) -> Scene."""
    rng = np.random.default_rng(seed)
    time = start
    for number, (temperature, exposure, count, level) in enumerate(plan):
        for index in range(count):
            time += exposure + 2.0
            cards = bias_cards(temperature, time)
            cards |= {"IMAGETYP": f"{kind.title()} Frame", "EXPTIME": float(exposure)}
            cards |= {"EGAIN": sensor.gain / sensor.adu_scale}
            words = {} if level is None else {"level": level * (1 + jitter * rng.standard_normal())}
            if scene is not None:
                words["scene"] = scene(index)
            samples = sensor.frame(kind, temperature, exposure, rng, **words)
            write_frame(folder / kind / f"{kind}_{number:02d}_{index:03d}.fits", samples, cards)


@dataclass
class Judged:
    """Errors of one master.  error : in units of the limit.  pull : in units of its own sigma.  Both (m,), ordinary pixels.

    tenths : mean error of tenths of the pixels, by the light of stars that they saw, in units of the limit.
    """

    error: np.ndarray
    pull: np.ndarray
    tenths: np.ndarray | None = None


def judge(sensor, product, pattern=1.0, stars=None):
    """Compare a master with the response (and light) of its pixels."""
    head = product.header
    light = sensor.illumination.astype(float) * pattern
    response = sensor.true_flat(head["TEMP"], head["EXPTIME"]) / sensor.illumination.astype(float)
    truth = response * (1.0 if head["VIGNCORR"] else light)
    bad = sensor.dead | sensor.low_qe | sensor.hot | sensor.telegraph
    good = ~bad & ((product.dq & LOST) == 0)
    scale = np.median(product.data[good] / truth[good])
    # LEVEL is the median of response x light, which belongs to this level on the axis.
    signal = head["LEVEL"] / np.median(response * light) * response * light
    dark = sensor.true_dark_rate(head["TEMP"], head["EXPTIME"]) * head["EXPTIME"]
    noise = np.sqrt(sensor.read_noise_map.astype(float) ** 2 + 1 / 12 + (signal + dark) / sensor.gain)
    limit = noise / signal * truth / np.sqrt(head["NCOMBINE"])
    error = product.data / scale - truth
    found = Judged(*(one[good].astype(np.float32) for one in (error / limit, error * scale / product.uncert)))
    if stars is not None:
        order = np.argsort(stars[good])
        parts = np.array_split(found.error[order], 10)
        found.tenths = np.array([part.mean() for part in parts]) - found.error.mean()
    return found


def of_one_run(make, options, read):
    """Frames by ``make`` (folder), run with options; returns what ``read`` (output folder) does."""
    with tempfile.TemporaryDirectory(prefix="calibration-validate-") as folder:
        folder = Path(folder)
        make(folder / "in")
        program = "flat_pipeline/run_pipeline.py"
        run_pipeline(folder / "in", folder / "out", folder / "cache", *options, program=program)
        return read(folder / "out")


def masters(out):
    return [read_product(path) for path in sorted((out / "master_flat").glob("*.fits"))]


@dataclass
class Lab:
    """Lab flats of one camera: one entry a run."""

    masters: list = field(default_factory=list)  # Judged
    light: list = field(default_factory=list)  # relative error of the illumination, (ny, nx)
    prnu: list = field(default_factory=list)  # (measured over true - 1, its quoted error)
    pixels: dict = field(default_factory=dict)  # kind -> [found and true, true, found]
    terms: dict = field(default_factory=dict)  # term -> pulls
    zero: list = field(default_factory=list)  # terms that nothing constrains: all 0 and flagged


def lab_run(preset, shape, seed):
    """Illumination, masters, pixels and PRNU from 2 T x 2 t x 20 flats, and the model of a response that follows both."""
    change = {"flat_b_spread": 4e-4, "flat_c_spread": 2e-3, "flat_t_ref": 5.0, "flat_exposure_ref": 1.5}
    sensor = camera(preset, shape, seed, **change)
    level = LEVELS[preset][1]

    def make(folder):
        take(folder, sensor, "bias", [(T, 1e-5, 40, None) for T in (0.0, 10.0)], [seed, 1])
        take(folder, sensor, "dark", [(T, 2.0, 20, None) for T in (0.0, 10.0)], [seed, 2], start=START + 3600)
        plan = [(T, t, 20, level * (t / 2) ** 0.5) for T in (0.0, 10.0) for t in (1.0, 2.0)]
        take(folder, sensor, "flat", plan, [seed, 3], jitter=0.02, start=START + 7200)

    def read(out):
        found = Lab()
        for product in masters(out):
            found.masters.append(judge(sensor, product))
        light = read_product(out / "vignetting" / "vignetting_NONE.fits").data
        error = light / (sensor.illumination / sensor.illumination.max()) - 1
        found.light.append(error - np.median(error))
        _pixels(sensor, masters(out)[-1], found, 4)
        _model(sensor, out, found)
        return found

    return of_one_run(make, ("--mode", "full"), read)


def _pixels(sensor, product, found, count):
    """Count dead and low-QE pixels found and true by the limits of the header; those near a limit are not scored."""
    head = product.header
    response = sensor.response / sensor.dust
    sigma = np.median(product.uncert) / np.sqrt(count)
    limits = {"DEAD": (-1.0, head["DEADLIM"]), "LOW_QE": (head["DEADLIM"], head["LOWQELIM"])}
    for name, (low, high) in limits.items():
        # Neighbours, by which a pixel is judged, scatter too.
        width = 5 * np.hypot(sigma, 1.2 * sensor.spec.prnu / 5)
        near = (np.abs(response - low) < width) | (np.abs(response - high) < width) | (sensor.dust < 0.97)
        true = (response >= low) & (response < high) & ~near
        seen = ((product.dq & DQ[name]) != 0) & ~near
        both = int((true & seen).sum())
        found.pixels[name] = np.array([both, int(true.sum()), int(seen.sum())])
    found.prnu.append((head["PRNU"] / (100 * _prnu(sensor)) - 1, head["PRNUERR"] / head["PRNU"]))


def _prnu(sensor):
    """Scatter of the response over good pixels, without dust."""
    good = ~(sensor.dead | sensor.low_qe)
    return float(np.std(sensor.prnu[good] / np.mean(sensor.prnu[good])))


def _model(sensor, out, found):
    """Pulls of the slopes of the flat model."""
    slopes = {"B": sensor.flat_b, "C": sensor.flat_c}
    for term, slope in slopes.items():
        product = read_product(out / "flat_model_fits" / f"flat_{term}_map.fits")
        good = (product.dq == 0) & ~(sensor.dead | sensor.low_qe | sensor.hot | sensor.telegraph)
        truth = slope * sensor.response
        found.terms[term] = ((product.data - truth) / product.uncert)[good]


def unconstrained_run(preset, shape, seed):
    """Flats of one temperature and exposure: whether B and C are 0 and flagged everywhere."""
    sensor = camera(preset, shape, seed)

    def make(folder):
        take(folder, sensor, "bias", [(TEMPERATURE, 1e-5, 10, None)], [seed, 1])
        plan = [(TEMPERATURE, 2.0, 6, LEVELS[preset][1])]
        take(folder, sensor, "flat", plan, [seed, 3], start=START + 7200)

    def read(out):
        maps = [read_product(out / "flat_model_fits" / f"flat_{term}_map.fits") for term in "BC"]
        return all(not one.data.any() and ((one.dq & DQ.UNRELIABLE_FIT) != 0).all() for one in maps)

    return of_one_run(make, ("--mode", "full", "--no-dark"), read)


@dataclass(frozen=True)
class Sky:
    """A night of sky flats.  stars : mean number in 256 x 256 pixels.  bright : times the usual brightness.

    frames, dither [pixels, largest].  gradient : change of the light over the frame, in a direction of each frame's own.
    one_field : the frames show the same stars.  fwhm [pixels].  vignetting : k1 of the illumination.
    """

    stars: int = 300
    bright: float = 1.0
    frames: int = 12
    dither: float = 30.0
    gradient: float = 0.0
    one_field: bool = True
    fwhm: float = 3.0
    vignetting: float | None = None


def sky_run(preset, shape, seed, night):
    """`Judged` of the master of one night, with its vignetting."""
    terms = {} if night.vignetting is None else {"vignetting_k1": night.vignetting}
    sensor = camera(preset, shape, seed, **terms)
    level = LEVELS[preset][0]
    rng = np.random.default_rng([seed, 4])
    count = round(night.stars * shape[0] * shape[1] / 256**2)
    steps = rng.uniform(-night.dither, night.dither, (night.frames, 2))
    seeds = [seed if night.one_field else 100 * seed + index for index in range(night.frames)]
    # The same sky for every converter: more bits hold more of its light.
    light = [
        StarField(shape, count, own, fwhm=night.fwhm, margin=night.dither + 10).light(
            *step, night.bright * level / 900
        )
        for own, step in zip(seeds, steps, strict=True)
    ]
    y, x = np.linspace(-0.5, 0.5, shape[0])[:, None], np.linspace(-0.5, 0.5, shape[1])
    way = rng.uniform(0, 2 * np.pi, night.frames)
    slope = [1 + night.gradient * (x * np.cos(a) + y * np.sin(a)) for a in way]
    pattern = np.mean(slope, axis=0)

    def make(folder):
        take(folder, sensor, "bias", [(TEMPERATURE, 1e-5, 40, None)], [seed, 1])
        take(folder, sensor, "dark", [(TEMPERATURE, 10.0, 20, None)], [seed, 2], start=START + 3600)
        plan = [(TEMPERATURE, 10.0, night.frames, level)]
        given = {"scene": lambda i: Scene(pattern=slope[i], light=light[i]), "jitter": 0.1}
        take(folder, sensor, "flat", plan, [seed, 3], start=START + 7200, **given)

    def read(out):
        return judge(sensor, masters(out)[0], pattern, np.mean(light, axis=0))

    return of_one_run(make, ("--mode", "full_no_vignetting", "--flat-type", "sky"), read)


def satellite_run(preset, shape, seed):
    """`Judged` of the master of flats with lamps beside the field and a cosmic hit in 10,000 pixels each."""
    sensor = camera(preset, shape, seed)
    lamps = led_pattern(shape, seed)

    def make(folder):
        take(folder, sensor, "bias", [(TEMPERATURE, 1e-5, 40, None)], [seed, 1])
        take(folder, sensor, "dark", [(TEMPERATURE, 2.0, 20, None)], [seed, 2], start=START + 3600)
        plan = [(TEMPERATURE, 2.0, 12, LEVELS[preset][1])]
        given = {"scene": lambda i: Scene(pattern=lamps, cosmic=1e-4), "jitter": 0.05}
        take(folder, sensor, "flat", plan, [seed, 3], start=START + 7200, **given)

    def read(out):
        return judge(sensor, masters(out)[0], lamps)

    return of_one_run(make, ("--mode", "full", "--flat-type", "satellite"), read)


def run_all(tasks, say=lambda text: None):
    """Run named tasks, two at once: {key: function} -> {key: result}."""

    def one(key):
        result = tasks[key]()
        say(", ".join(str(part) for part in key))
        return result

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(tasks, pool.map(one, tasks), strict=True))
