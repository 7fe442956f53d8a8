"""What the use of products is worth, against the truth of simulated cameras: tables of docs/validation.md.

python -m benchmarks.validate_use            all of it, into docs/
python -m benchmarks.validate_use --quick    one camera, tables printed, nothing written
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.frames import START, bias_cards, write_frame
from benchmarks.simulated_darks import BentSensor, Campaign, take
from benchmarks.simulated_runs import run_pipeline
from benchmarks.table import Section
from benchmarks.timing import ROOT
from benchmarks.validate_bias import DOCUMENT, body, put, three
from utils.application.product_list import load_products
from utils.domain.bias_model import BiasModel
from utils.domain.campaign_errors import Camera, Frames, expected_errors
from utils.domain.dark_advisor import DarkAdvisor
from utils.domain.dark_model import DarkModel
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ, write_product
from utils.kernels.scene import Scene, StarField
from utils.kernels.sensor import Sensor, SensorSpec

SHAPES = ((128, 160), (150, 112), (128, 128))
FLAT_SIGMA = 0.002
MOST = 6.0
"""A pull beyond so many sigma is no matter of statistics: a hit, or a telegraph pixel that no dark has shown."""
SCENES = {
    "no light, 30 s": dict(at=(3.0, 30.0)),
    "5 ADU": dict(at=(8.0, 20.0), level=5.0),
    "300 ADU": dict(at=(2.3, 12.0), level=300.0),
    "2000 ADU": dict(at=(12.5, 40.0), level=2000.0),
    "300 ADU, lower end of the range": dict(at=(-5.0, 5.0), level=300.0),
    "300 ADU, upper end": dict(at=(15.0, 60.0), level=300.0),
    "20 ADU and 400 stars": dict(at=(7.0, 45.0), level=20.0, stars=True),
    "300 ADU, cosmic hits": dict(at=(2.3, 12.0), level=300.0, hits=True),
}
"""Science frames: temperature [degC] and exposure [s] at which no bias or dark was taken, light on the axis [ADU]."""
ADVISED = ((5.0, 60.0), (5.3, 60.0), (7.5, 60.0), (2.5, 20.0), (12.0, 40.0), (-4.0, 5.0))
BENT_AT = ((-5.0, 60.0), (5.0, 60.0), (7.5, 60.0), (12.5, 60.0), (15.0, 60.0), (2.0, 20.0), (7.5, 20.0))
"""Temperatures and exposures at which darks are judged."""
BENDS = {0.01: 10, 0.02: 40}
"""Sensors whose rate is no exponential, that of T + bend (T - 5 degC)^2, and darks of each temperature and exposure."""
KINDS = ("master", "interpolated", "model")


def camera(number):
    """A sensor with hot, warm and telegraph pixels and a strong vignetting (the corners have less than half)."""
    own = {"vignetting_k1": -0.45, "vignetting_k2": -0.12} if number % 2 else {}
    off = {"row_noise": 0.0, "session_shifts": (), "glow": 0.0, "hot_fraction": 0.01}
    return SensorSpec.preset("12left", shape=SHAPES[number % len(SHAPES)], seed=number + 1, **off, **own)


def prepare(folder, number):
    """Make the products of a camera and write a flat; returns camera and campaign."""
    sensor, campaign = Sensor(camera(number)), Campaign()
    products(folder, sensor, campaign, number)
    truth = sensor.true_flat()
    dq = np.where(truth < 0.25 * np.median(truth), DQ.DEAD | DQ.DO_NOT_USE, 0).astype(np.int16)
    noise = np.random.default_rng(90 + number).normal(0.0, FLAT_SIGMA, truth.shape)
    sigma = np.full(truth.shape, FLAT_SIGMA)
    cards = {"FILTER": "NONE", "TEMP": 5.0}
    write_product(
        folder / "flat.fits", truth + noise, prodtype="MASTER_FLAT", unit="", cards=cards, uncert=sigma, dq=dq
    )
    return sensor, campaign


def products(folder, sensor, campaign, seed):
    """Run the bias and dark pipelines on a campaign."""
    take(folder / "frames", sensor, campaign, seed)
    run_pipeline(folder / "frames", folder / "bias", folder / "cache")
    model = ("--bias-model", str(folder / "bias" / "bias_model"))
    run_pipeline(
        folder / "frames", folder / "dark", folder / "cache", *model, program="dark_pipeline/run_pipeline.py"
    )


def calibrate(folder, sensor, number, found):
    """Take the science frames, run `utils.calibrate`, and add error and pull of every usable pixel to ``found``."""
    rng = np.random.default_rng(500 + number)
    quiet = Sensor(SensorSpec(**{**vars(sensor.spec), "cosmic_rate": 0.0, "cosmic_per_frame": 0.0}))
    lights = {}
    for index, (name, case) in enumerate(SCENES.items()):
        (temperature, exposure), level = case["at"], case.get("level", 0.0)
        light = np.zeros(sensor.spec.shape)
        if case.get("stars"):
            light = StarField(
                sensor.spec.shape, count=400, seed=number, faintest=300.0, brightest=2e4
            ).light()
        lights[name] = level + light
        given = {"level": level, "scene": Scene(light=light)} if level else {}
        samples = (sensor if case.get("hits") else quiet).frame(
            "flat" if level else "dark", temperature, exposure, rng, **given
        )
        cards = bias_cards(temperature, START + 1e5 + 1e3 * index)
        cards |= {"IMAGETYP": "Light Frame", "EXPTIME": exposure}
        write_frame(folder / "science" / f"s{index}.fits", samples, cards)
    command = [sys.executable, "-m", "utils.calibrate", folder / "science", "--dark-model", folder / "dark"]
    command += ["--flat", folder / "flat.fits", "--output-dir", folder / "out", "--plots", "none", "--quiet"]
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True, capture_output=True)
    for index, name in enumerate(SCENES):
        product = read_product(folder / "out" / f"s{index}_calibrated.fits")
        good = ~product.mask
        error, sigma = (product.data - lights[name])[good].astype(float), product.uncert[good]
        ordinary = good & ((product.dq & np.int16(DQ.HOT | DQ.WARM)) != 0)
        hot = ((product.data - lights[name]) / product.uncert)[ordinary]
        own = found.setdefault(name, {"error": [], "sigma": [], "hot": [], "lost": [], "kind": []})
        for key, value in (("error", error), ("sigma", sigma), ("hot", hot), ("lost", [1.0 - good.mean()])):
            own[key].append(value)
        own["kind"].append(product.header["DARKKIND"])


def calibrated(found):
    """Table of the calibrated frames."""
    rows = []
    for name, own in found.items():
        error, sigma, hot = (np.concatenate(own[key]).astype(float) for key in ("error", "sigma", "hot"))
        pull = error / sigma
        far = np.abs(pull) > MOST
        rows.append(
            [
                name,
                f"{100 * np.mean(own['lost']):.2f}",
                f"{error[~far].mean() / np.median(sigma):+.3f}",
                three(pull.std() if not far.any() else np.std(pull)),
                three(pull[~far].std()),
                f"{1e4 * far.mean():.1f}",
                three(hot[np.abs(hot) < MOST].std()),
            ]
        )
    columns = ("frame", "masked [%]", "mean error [σ]", "pull width", "within 6 σ", "beyond 6 σ [1e-4]")
    return Section("", (*columns, "hot and warm, within 6 σ"), rows)


def bent(folder, bend, frames, found):
    """Darks of a sensor that the law does not describe; adds what the advisor says of them to ``found``."""
    still = SensorSpec(**{**vars(camera(0)), "cosmic_rate": 0.0, "cosmic_per_frame": 0.0})
    sensor = BentSensor(still, bend)
    products(folder, sensor, Campaign(frames=frames, bias_frames=40), 50)
    own = {}
    advice(folder, sensor, own, BENT_AT)
    found |= {(bend, frames, *at): rows[0] for at, rows in own.items()}


def advised_bent(found):
    rows = []
    for (bend, frames, temperature, exposure), own in found.items():
        _, expected, real = own
        best = min(expected, key=expected.get)
        cells = [f"{expected[kind]:.2f}, {real[kind]:.2f}" if kind in real else "" for kind in KINDS]
        share = three(real[best] / min(real.values()))
        rows.append([f"{bend:g}", frames, f"{temperature:g}", f"{exposure:g}", best, *cells, share])
    columns = ("bend [1/°C]", "darks", "T [°C]", "t [s]", "chosen", *KINDS, "real / best of all")
    return Section("", columns, rows)


def advice(folder, sensor, found, at=ADVISED):
    """Expected and real residual of each dark that the advisor names; adds (chosen, expected, real) to ``found``."""
    maps = [product.path for product in load_products(folder / "dark", "DARK_CURRENT")]
    advisor = DarkAdvisor(DarkModel.load(folder / "dark" / "dark_model_2d"), maps)
    ordinary = ~(sensor.hot | sensor.warm | sensor.telegraph).ravel()
    whole = slice(0, ordinary.size)
    for temperature, exposure in at:
        true = sensor.true_signal("dark", temperature, exposure).ravel() - sensor.spec.dark_offset
        real, candidates = {}, advisor.candidates(temperature, exposure)
        for one in candidates:
            dark, _ = one.signal(whole, slice(None), lambda key, make: make())
            keep = ordinary & ~one.lost(whole)
            left = (dark + one.offset - true)[keep]
            level = float(np.median(left))
            real[one.kind] = float(np.hypot(level, 1.4826 * np.median(np.abs(left - level))))
        expected = {one.kind: one.expected for one in candidates}
        found.setdefault((temperature, exposure), []).append((candidates[0].kind, expected, real))


def advised(found):
    rows = []
    for (temperature, exposure), own in found.items():
        kinds = ", ".join(sorted({one[0] for one in own}))
        expected = float(np.mean([told[kind] for kind, told, _ in own]))
        real = float(np.mean([left[kind] for kind, _, left in own]))
        best = float(np.mean([min(left.values()) for *_, left in own]))
        rows.append(
            [f"{temperature:g}", f"{exposure:g}", kinds, three(expected), three(real), three(real / best)]
        )
    columns = ("T [°C]", "t [s]", "chosen", "expected [ADU]", "real [ADU]", "real / best of all")
    return Section("", columns, rows)


def plans(folder, sensor, campaign, found):
    """Errors that the plan foretells for an ordinary pixel, and the scatter of the products about the truth."""
    spec = sensor.spec
    ordinary = ~(sensor.hot | sensor.warm | sensor.telegraph)
    middle = float(np.median(sensor.true_dark_rate(0.0, 1.0)[ordinary]))
    doubling = np.log(2.0) / float(np.median(sensor.dark_b[ordinary]))
    noise = float(np.median(sensor.true_noise("bias", 0.0, 0.0)[ordinary]))
    noise = np.sqrt(noise**2 - 1.0 / 12.0)
    own = Camera(spec.gain, noise, spec.full_well / spec.gain, middle, 0.0, doubling, "simulated")
    bias_at = (-15.0, 15.0)
    proposed = Frames(campaign.temperatures, campaign.exposures, 0, campaign.frames, flat=0)
    proposed.groups += [("bias", t, 0.0) for t in campaign.bias_temperatures]
    proposed.bias = campaign.bias_frames
    rows = expected_errors(own, proposed, (bias_at, ()))
    model = BiasModel.load(folder / "bias" / "bias_model")
    for row in rows:
        if row["product"] == "bias":
            value, _, _ = model.evaluate(row["temperature"])
            error = (value - sensor.true_bias(row["temperature"]))[ordinary]
            key = (f"bias at {row['temperature']:g} °C [ADU]",)
            found.setdefault(key, []).append((row["error"], 1.4826 * np.median(np.abs(error))))
    dark = DarkModel.load(folder / "dark" / "dark_model_2d")
    for row in expected_errors(own, proposed, (campaign.temperature_at, campaign.exposure_at)):
        if row["product"] == "dark current" and row["pixel"] == "ordinary":
            at = (row["temperature"], row["exposure"])
            value, _, _ = dark.evaluate(*at)
            error = (value - sensor.true_dark_rate(*at))[ordinary]
            key = (f"dark current at {at[0]:g} °C, {at[1]:g} s [ADU/s]",)
            found.setdefault(key, []).append((row["error"], 1.4826 * np.median(np.abs(error))))


def planned(found):
    rows = []
    for (name,), own in found.items():
        told, real = np.mean(own, axis=0)
        rows.append([name, f"{told:.4g}", f"{real:.4g}", f"{real / told:.2f}"])
    return Section("", ("what", "foretold 1 σ", "real scatter", "real / foretold"), rows)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validate_use", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one camera, nothing written")
    args = parser.parse_args(argv)
    frames, darks, errors = {}, {}, {}
    for number in range(1 if args.quick else len(SHAPES)):
        print(f"camera {number + 1}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="calibration-validate-") as folder:
            folder = Path(folder)
            sensor, campaign = prepare(folder, number)
            calibrate(folder, sensor, number, frames)
            advice(folder, sensor, darks)
            plans(folder, sensor, campaign, errors)
    curved = {}
    for bend, count in BENDS.items():
        with tempfile.TemporaryDirectory(prefix="calibration-validate-") as folder:
            bent(Path(folder), bend, count, curved)
    tables = {"use frames": calibrated(frames), "use darks": advised(darks), "use plans": planned(errors)}
    tables["use bent"] = advised_bent(curved)
    for name, section in tables.items():
        print(f"\n{name}\n\n{body(section)}")
    if not args.quick:
        text = DOCUMENT.read_text(encoding="utf-8")
        for name, section in tables.items():
            text = put(text, name, body(section))
        DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
