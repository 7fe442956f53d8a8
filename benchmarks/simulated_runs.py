"""Runs of the shipped bias pipeline on simulated cameras, and their products beside the truth."""

import json
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.frames import START, bias_cards, write_frame
from benchmarks.timing import ROOT
from utils.fits_io.product_reader import read_plane, read_product
from utils.kernels.sensor import Sensor, SensorSpec

TEMPERATURES = (-20.0, -10.0, 0.0, 10.0, 20.0)
EVALUATED = tuple(np.arange(-30.0, 31.0, 5.0))
ENDS = (-20.0, 0.0, 20.0)
SEEDS = (1, 2, 3, 4, 5)
SHAPES = ((128, 128), (96, 160))
COUNTS = (5, 10, 20)
EXPOSURE = 1e-5
_LOCK = threading.Lock()

CAMERAS = {
    "12 bit left-justified, cosmic hits": lambda **where: SensorSpec.preset(
        "12left", row_noise=0.0, cosmic_per_frame=1e-4, **where
    ),
    "16 bit, cosmic hits": lambda **where: SensorSpec.preset(
        "16", row_noise=0.0, cosmic_per_frame=1e-4, **where
    ),
    "12 bit, read noise 0.4 LSB": lambda **where: SensorSpec.bare(
        read_noise=0.4, bias_pixel=3.0, bias_slope=0.30, slope_pixel=0.015, **where
    ),
}


@dataclass
class Found:
    """What all runs of one camera and number of frames gave, pixel by pixel; telegraph pixels are left out.

    error, bound, quoted : at each temperature of ``EVALUATED``: error of a + b T, its Cramer-Rao bound and its
    quoted 1 sigma [ADU].  plain : pixels without any flag.  pulls : of a, b and the synthetic biases.
    noise : read noise over the truth.  own, moderated : pulls of the master at 0 degC, its error taken from its own
    scatter, and as quoted.  master : its errors [ADU].  phase : truth of that master modulo 1 [ADU].
    Each is a list of one array a run.  worst : rms / bound of single runs, the largest.
    """

    error: dict = field(default_factory=dict)
    bound: dict = field(default_factory=dict)
    quoted: dict = field(default_factory=dict)
    plain: list = field(default_factory=list)
    pulls: dict = field(default_factory=dict)
    noise: list = field(default_factory=list)
    own: list = field(default_factory=list)
    moderated: list = field(default_factory=list)
    master: list = field(default_factory=list)
    phase: list = field(default_factory=list)
    worst: float = 0.0

    def rms(self, what, at):
        """Rms of 'error', 'bound' or 'quoted' at a temperature, of the pixels without a flag [ADU]."""
        return rms([values[plain] for values, plain in zip(getattr(self, what)[at], self.plain, strict=True)])

    def ratio(self, at):
        """Rms error over the bound, all runs together, of the pixels without a flag."""
        return self.rms("error", at) / self.rms("bound", at)

    @property
    def flagged(self):
        """Number of flagged pixels."""
        return sum(int((~plain).sum()) for plain in self.plain)

    @property
    def worst_flagged(self):
        """Largest error of a flagged pixel within the fitted range [ADU]."""
        errors = [
            np.abs(values[~plain])
            for at in ENDS
            for values, plain in zip(self.error[at], self.plain, strict=True)
        ]
        return float(max((e.max() for e in errors if e.size), default=0.0))

    def width(self, name):
        """Width of the pulls of a product."""
        return float(np.std(np.concatenate(self.pulls[name])))


def rms(values):
    """Root of the mean square of a list of arrays."""
    values = np.concatenate(values)
    return float(np.sqrt(np.mean(values * values)))


def take(folder, sensor, count, seed):
    """Write ``count`` bias frames at each of ``TEMPERATURES``."""
    rng = np.random.default_rng(1000 + seed)
    for k, temperature in enumerate(TEMPERATURES):
        for i in range(count):
            samples = sensor.frame("bias", temperature, EXPOSURE, rng)
            cards = bias_cards(temperature, START + 600 * k + 2 * i)
            write_frame(folder / f"bias_{k}_{i:03d}.fits", samples, cards)


def run_pipeline(frames, output, cache, *options, program="bias_pipeline/run_pipeline.py"):
    """Run the shipped command; RuntimeError where it fails."""
    command = [sys.executable, "-W", "error", program, "--quiet", "--plots", "none"]
    command += ["--basepath", str(frames), "--output-dir", str(output), *options]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": "", "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}")


def one_run(spec, count, found):
    """Simulate, run, compare; adds to ``found``."""
    sensor = Sensor(spec)
    with tempfile.TemporaryDirectory(prefix="calibration-validate-") as folder:
        folder = Path(folder)
        (folder / "frames").mkdir()
        take(folder / "frames", sensor, count, spec.seed)
        run_pipeline(folder / "frames", folder / "out", folder / "cache")
        with _LOCK:
            compare(folder / "out", sensor, count, found)


def compare(out, sensor, count, found):
    """Add the errors of the products of one run to ``found``."""
    good = ~sensor.telegraph
    model = out / "bias_model"
    a, b = read_product(model / "bias_a_map.fits"), read_product(model / "bias_b_map.fits")
    cov = read_product(model / "bias_ab_covariance.fits").data.astype(float)[good]
    true_b = sensor.true_bias(1.0) - sensor.true_bias(0.0)
    a0, b0, sa, sb = (x.astype(float)[good] for x in (a.data, b.data, a.uncert, b.uncert))
    plain = (a.dq == 0)[good]
    found.plain.append(plain)
    ratios = []
    for at in EVALUATED:
        error = a0 + b0 * at - sensor.true_bias(at)[good]
        bound = crb(sensor, count, at)[good]
        _add(found.error, at, error)
        _add(found.bound, at, bound)
        _add(found.quoted, at, np.sqrt(sa**2 + 2 * at * cov + at * at * sb**2))
        if at in ENDS:
            ratios.append(rms([error[plain]]) / rms([bound[plain]]))
    found.worst = max(found.worst, *ratios)
    _add(found.pulls, "a", (a0 - sensor.true_bias(0.0)[good]) / sa)
    _add(found.pulls, "b", (b0 - true_b[good]) / sb)
    for at in ENDS:
        one = read_product(out / "bias_masks_by_temp" / f"synthetic_bias_{at:.1f}C.fits")
        _add(found.pulls, f"{at:g}", ((one.data - sensor.true_bias(at)) / one.uncert)[good])
    noise = read_product(out / "read_noise" / "read_noise.fits")
    found.noise.append((noise.data / sensor.read_noise_map)[good])
    master = read_product(out / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    error = (master.data - sensor.true_bias(0.0))[good]
    scatter = read_plane(out / "read_noise" / "read_noise_0.0C.fits", "SCATTER")[good]
    seen = scatter > 0
    found.own.append(error[seen] / (scatter[seen] / np.sqrt(count)))
    found.moderated.append(error / master.uncert[good])
    found.master.append(error)
    found.phase.append(sensor.true_bias(0.0)[good] % 1.0)


def crb(sensor, count, at):
    """Cramer-Rao bound of the bias at a temperature from ``count`` frames at each of ``TEMPERATURES`` [ADU]."""
    x = np.array(TEMPERATURES)[:, None, None]
    weight = count / np.array([sensor.true_noise("bias", t, EXPOSURE) ** 2 for t in TEMPERATURES])
    total = weight.sum(axis=0)
    centre = (weight * x).sum(axis=0) / total
    return np.sqrt(1 / total + (at - centre) ** 2 / (weight * (x - centre) ** 2).sum(axis=0))


def _add(lists, name, values):
    lists.setdefault(name, []).append(values)


def run_all(seeds=SEEDS, shapes=SHAPES, counts=COUNTS, say=lambda text: None):
    """Run every camera, number of frames, seed and size; returns {(camera, frames): Found}."""
    found = {}
    for name, camera in CAMERAS.items():
        for count in counts:
            result = found[name, count] = Found()
            say(f"{name}, {count} frames")
            specs = [camera(shape=shape, seed=seed) for seed in seeds for shape in shapes]
            with ThreadPoolExecutor(2) as pool:
                # Results are added in any order: all that is told of them is symmetric.
                list(pool.map(lambda spec, n=count, to=result: one_run(spec, n, to), specs))
    return found


def real_run(folder, *options):
    """Run on real frames; returns (bias_model.json, summary {(section, name): (value, error)}, evaluation rows)."""
    import csv

    with tempfile.TemporaryDirectory(prefix="calibration-validate-") as temporary:
        out = Path(temporary) / "out"
        run_pipeline(folder, out, Path(temporary) / "cache", *options)
        model = json.loads((out / "bias_model" / "bias_model.json").read_text(encoding="utf-8"))
        tables = []
        for path in (out / "summary.csv", out / "evaluation" / "evaluation_summary.csv"):
            with open(path, newline="", encoding="utf-8") as stream:
                tables.append(list(csv.DictReader(stream)))
        warnings = json.loads((out / "run.json").read_text(encoding="utf-8"))["runs"][-1]["warnings"]
    summary = {(row["section"], row["name"]): (row["value"], row["error"]) for row in tables[0]}
    return model, summary, tables[1], warnings
