"""Simulated cameras characterised by the shipped command, and the numbers of their detector.json beside the truth."""

import contextlib
import importlib
import io
import json
import math
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.frames import START, write_frame
from utils.kernels.sensor import Sensor, SensorSpec

SHAPE = (72, 96)
RUNS = 80
BIASES, DARKS, FLATS = 16, 4, 4
DARK_TEMPERATURES, DARK_EXPOSURES = (0.0, 6.0, 12.0), (20.0, 40.0, 60.0)
LEVELS = (0.02, 0.08, 0.15, 0.22, 0.3, 0.36, 0.43, 0.5, 0.57, 0.65, 0.8, 0.9, 1.15, 1.3)
"""Light of the flats as parts of the full well."""
HALF = 0.5
"""Level at which PRNU is measured."""
LONGEST = 10.0
"""Exposure of a flat at the full well [s]."""
EVEN = {
    **{"vignetting_k1": 0.0, "vignetting_k2": 0.0, "vignetting_k3": 0.0, "dust_count": 0, "glow": 0.0},
    **{"session_shifts": (), "dark_gamma": 0.0, "dark_gamma_spread": 0.0, "dark_b_spread": 0.0},
    "nonlinearity": 0.0,
    **{"row_noise": 0.3, "column_noise": 0.2, "prnu_row": 0.004, "prnu_column": 0.003},
    **{"hot_fraction": 0.0, "warm_fraction": 0.0, "telegraph_fraction": 0.0},
}


@dataclass(frozen=True)
class Case:
    """A camera and how it is measured.

    preset, terms : of `SensorSpec`.  lamp : scatter of the light from frame to frame, relative.  darks : whether there are
    darks at three temperatures.  flats : at each level.
    """

    preset: str = "12left"
    terms: tuple = ()
    lamp: float = 0.0
    shape: tuple = SHAPE
    darks: bool = False
    flats: int = FLATS

    def spec(self, seed):
        """Specification of one seed."""
        return SensorSpec.preset(self.preset, shape=self.shape, seed=seed, **(EVEN | dict(self.terms)))


def case(preset="12left", *, lamp=0.0, shape=SHAPE, darks=False, flats=FLATS, **terms):
    """`Case` with terms of the sensor by name."""
    return Case(preset, tuple(terms.items()), lamp, shape, darks, flats)


CAMERAS = {
    "12 bit left-justified, 2 e⁻/ADU": case(darks=True),
    "16 bit, 0.8 e⁻/ADU, pairs": case("16", shape=(96, 80), darks=True, flats=2),
    "read noise 0.4 steps": case(read_noise=0.4, row_noise=0.05, column_noise=0.03),
    "brighter-fatter −2e-6": case("16", shape=(128, 160), brighter_fatter=2e-6),
    "bent by 3 %": case(gain_droop=0.03),
    "bent by 1 % at the top": case(nonlinearity=0.01),
    "PRNU 5 %, hot, telegraph, hits": case(
        darks=True,
        **{"prnu": 0.05, "low_qe_fraction": 0.0, "hot_fraction": 0.01, "warm_fraction": 0.01},
        **{"telegraph_fraction": 0.005, "cosmic_per_frame": 2e-4},
    ),
    "lamp scatters by 1 %": case(lamp=0.01),
}


def take(folder, sensor, given, seed):
    """Write biases, darks and flats of one campaign; returns the pixels (bool) struck in biases or flats of ``HALF``."""
    rng = np.random.default_rng([seed, 77])
    time = START
    struck = np.zeros(sensor.shape, bool)

    def frames(kind, temperature, exposure, number, levels=None, hits=None):
        nonlocal time
        for i in range(number):
            time += exposure + 2.0
            level = {} if levels is None else {"level": float(levels[i])}
            samples = sensor.frame(kind, temperature, exposure, rng, hits=hits, **level)
            cards = {
                "IMAGETYP": f"{kind.title()} Frame",
                "EXPTIME": exposure,
                "CCD-TEMP": temperature,
                "TIMESTMP": time,
            }
            write_frame(folder / f"{kind}_{time:.2f}.fits", samples, cards)

    frames("bias", 0.0, 1e-5, BIASES, hits=struck)
    for temperature in DARK_TEMPERATURES if given.darks else ():
        if temperature:
            frames("bias", temperature, 1e-5, BIASES // 2)
        for exposure in DARK_EXPOSURES:
            frames("dark", temperature, exposure, DARKS)
    top = sensor.spec.full_well / sensor.gain
    for part in LEVELS:
        light = part * top * (1.0 + given.lamp * rng.standard_normal(given.flats))
        frames("flat", 0.0, part * LONGEST, given.flats, light, struck if part == HALF else None)
    return struck


def parts(image, good):
    """Row, column, pixel and total variance of an image, as the standard splits it."""
    ny, nx = image.shape
    kept = np.where(good, image - image[good].mean(), 0.0)
    rows, columns = kept.sum(axis=1) / good.sum(axis=1), kept.sum(axis=0) / good.sum(axis=0)
    in_row, in_column = good.sum() / ny, good.sum() / nx
    total = kept[good].var(ddof=1)
    matrix = np.array([[1, 0, 1 / in_row], [0, 1, 1 / in_column], [1, 1, 1]])
    row, column, pixel = np.linalg.solve(matrix, [np.mean(rows**2), np.mean(columns**2), total])
    return {"row": row, "column": column, "pixel": pixel, "total": row + column + pixel}


def even_response(sensor, good, part):
    """Flat at a part of the full well over a surface of the fourth order, from all good pixels."""
    ny, nx = sensor.shape
    y, x = (2 * np.mgrid[:ny, :nx] + 1.0) / np.array([ny, nx])[:, None, None] - 1.0
    powers = [(i, j) for i in range(5) for j in range(5 - i)]
    design = np.stack([(y**i * x**j).ravel() for i, j in powers], axis=1)
    values = sensor.measured_charge(part * sensor.spec.full_well * sensor.true_flat()).ravel()
    solved = np.linalg.lstsq(design[good.ravel()], values[good.ravel()], rcond=None)[0]
    return (values / (design @ solved)).reshape(ny, nx)


def truth(sensor, found, struck):
    """True values: name -> (value, error, true); errors and values from detector.json."""
    spec, gain = sensor.spec, sensor.gain
    rate = sensor.true_dark_rate(DARK_TEMPERATURES[-1], DARK_EXPOSURES[-1])
    ordinary = ~(sensor.telegraph | struck)
    if found["dark_current"]:
        ordinary &= rate < np.median(rate) + 5.0 * robust(rate)
    blemish = sensor.dead | sensor.low_qe
    rows = {}

    def add(name, entry, true):
        if entry is not None and entry["error"] is not None:
            rows[name] = (entry["value"], entry["error"], float(true))

    def add_parts(title, entry, true, factor=1.0):
        for name, variance in true.items():
            if entry is not None:
                rows[f"{title}, {name}"] = (
                    entry[name] / factor, entry[f"{name}_error"] / factor, math.sqrt(max(variance, 0.0)))  # fmt: skip

    read = np.square(sensor.read_noise_map[~sensor.telegraph].astype(float)).mean()
    add("gain", found["gain"], gain)
    if spec.brighter_fatter:
        add("a00", found["brighter_fatter_a00"], -spec.brighter_fatter)
    add("read noise", found["read_noise"], math.sqrt(read + spec.row_noise**2 + spec.column_noise**2))
    bias = sensor.true_bias(0.0)[ordinary].mean()
    well = min(sensor.measured_charge(1e9).mean() / gain, sensor.full_scale - bias)
    add("full well", found["full_well"], well)
    add("saturation", found["saturation"], well + bias)
    line = found["linearity"]
    if line is not None:
        charge = np.linspace(1.0, 0.95 * spec.full_well, 60)
        response = sensor.response[~blemish].astype(float)
        even = response / response.mean()
        measured = np.array([mean_charge(sensor, q * even[::7]) for q in charge])
        true = measured / charge / np.mean(even[::7]) - 1.0
        expected = np.interp(line["signal"], measured / gain, true)
        rows["linearity"] = (
            np.array(line["deviation_percent"]),
            np.array(line["error_percent"]),
            100.0 * expected,
        )
        beyond = np.flatnonzero(np.abs(true) > 0.01)
        if beyond.size and line["usable_range"][1] < 0.9 * well:
            rows["usable range"] = (
                line["usable_range"][1], line.get("usable_range_error") or math.nan,
                float(np.interp(0.01, np.abs(true), measured / gain)))  # fmt: skip
    dark = found["dark_current"]
    if dark is not None:
        rate = sensor.true_dark_rate(0.0, 60.0)[ordinary].mean()
        add("dark current, mean", dark["from_mean"], rate)
        add("dark current, variance", dark["from_variance"], rate)
    add("doubling temperature", found["doubling_temperature"], spec.dark_doubling)
    add_parts("DSNU", found["dsnu"], parts(sensor.true_bias(0.0), ordinary))
    good = ordinary & ~blemish
    even = even_response(sensor, good, HALF)
    good = ordinary & (np.abs(even - 1.0) < 8.0 * robust(even))
    add_parts("PRNU", found["prnu"], parts(even, good), 100.0)
    temporal = {"row": spec.row_noise**2, "column": spec.column_noise**2, "pixel": read + 1 / 12}
    add_parts("temporal", found["temporal"], {**temporal, "total": sum(temporal.values())})
    return rows


def robust(values):
    """Scatter of ordinary values."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def mean_charge(sensor, charge):
    """Mean of the measured charge of pixels of these charges [e-]."""
    full = np.full(sensor.shape, 0.0)
    full.ravel()[: charge.size] = charge
    return float(sensor.measured_charge(full).ravel()[: charge.size].mean())


def one_run(task):
    """Simulate, characterise, compare; returns name -> (value, error, true)."""
    from utils.application.command import run_command

    # The shipped command in this process: to start one for each run would take longer than the runs.
    main = importlib.import_module("flat_pipeline.run_pipeline").main
    given, seed = task
    sensor = Sensor(given.spec(seed))
    with tempfile.TemporaryDirectory(prefix="calibration-validate-", dir=fast_folder()) as folder:
        folder = Path(folder)
        (folder / "in").mkdir()
        struck = take(folder / "in", sensor, given, seed)
        words = [
            "--mode",
            "characterize",
            "--basepath",
            str(folder / "in"),
            "--output-dir",
            str(folder / "out"),
        ]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = run_command(main, [*words, "--plots", "none", "--quiet", "--jobs", "1"])
        if status:
            raise RuntimeError(f"{given}, seed {seed}: status {status}\n{said.getvalue()}")
        found = json.loads((folder / "out" / "detector.json").read_text(encoding="utf-8"))
    return truth(sensor, found, struck)


def fast_folder():
    """Memory where the machine has a folder of it, else the usual temporary folder."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def run_all(runs=RUNS, cameras=CAMERAS, say=lambda text: None):
    """Characterise every camera ``runs`` times; returns {camera: [name -> (value, error, true)]}."""
    found = {}
    with ProcessPoolExecutor(2) as pool:
        for name, given in cameras.items():
            say(name)
            # Seeds of their own: runs of all cameras can be taken together.
            first = 1 + 100_000 * list(CAMERAS).index(name)
            found[name] = list(pool.map(one_run, [(given, first + i) for i in range(runs)], chunksize=5))
    return found
