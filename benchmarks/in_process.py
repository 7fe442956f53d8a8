"""Measurements inside one process; each prints one line of JSON.

python -m benchmarks.in_process engine FOLDER REPEATS    read and combine, from open files to arrays
python -m benchmarks.in_process scan FOLDER REPEATS      headers, cold and cached, against astropy
python -m benchmarks.in_process line SIDE TEMPERATURES REPEATS
python -m benchmarks.in_process lstsq SIDE TEMPERATURES
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.peers import CLIP, read_all


def timed(function, repeats):
    """Median seconds of a function, after one call that does not count."""
    function()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def alternate(functions, repeats):
    """Median seconds of several functions called in turn."""
    found = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if turn:
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def engine(folder, repeats):
    from utils.fits_io.frame_stack import FrameStack
    from utils.fits_io.header_scan import scan_header
    from utils.kernels.combine import CombineRule
    from utils.kernels.noise import pooled_scatter

    paths = sorted(str(path) for path in Path(folder).glob("*.fits"))
    images, jobs = [scan_header(path) for path in paths], usable_cores()
    with FrameStack(images, jobs=jobs) as stack:
        rows = np.stack([stack.frame_view(i)[:: stack.shape[0] // 4 or 1] for i in range(len(images))])
    rows = rows.reshape(len(images), -1).astype(np.float32)
    sigma = pooled_scatter(rows - rows.mean(axis=1, keepdims=True))
    drift = 0.3 * np.linspace(-0.2, 0.2, len(images))
    # Near 1: the frames have one level, and must have it after scaling too.
    scale = 1.0 + 1e-4 * np.linspace(-1.0, 1.0, len(images))

    def combine(method, **frames):
        rule = CombineRule(method, CLIP, sigma * sigma, saturation=65535.0, step=1.0)

        def call():
            with FrameStack(images, jobs=jobs) as stack:
                stack.combine(rule, **frames)

        return call

    # Touched before, so that the pages are there.
    memory = np.ones(len(paths) * os.path.getsize(paths[0]), np.uint8)
    functions = {
        "read": lambda: read_all(paths, jobs, memory),
        "read into a small buffer": lambda: read_all(paths, jobs),
    }
    for method in ("mean", "median", "sigclip"):
        functions[method] = combine(method)
        functions[f"{method}, drift taken out"] = combine(method, offsets=drift)
        functions[f"{method}, scaled"] = combine(method, scales=scale)
    return alternate(functions, int(repeats))


def scan(folder, repeats):
    from astropy.io import fits

    from utils.fits_io.header_scan import scan_headers
    from utils.observation_manager import ObservationManager

    paths = sorted(str(path) for path in Path(folder).rglob("*.fits"))
    with tempfile.TemporaryDirectory(prefix="calibration-bench-") as cache:

        def manager():
            ObservationManager(folder, cache_dir=cache).load_and_organize()

        def cold():
            for entry in Path(cache).iterdir():
                entry.unlink()
            manager()

        functions = {
            "astropy getheader": lambda: [fits.getheader(path) for path in paths],
            "scan_headers": lambda: scan_headers(paths),
            "ObservationManager, cold": cold,
            "ObservationManager, cached": manager,
        }
        return {"files": len(paths), **alternate(functions, int(repeats))}


def _line_data(side, count):
    rng = np.random.default_rng(1)
    x = np.linspace(-20.0, 20.0, int(count))
    pixels = int(side) ** 2
    values = np.empty((x.size, pixels), np.float32)
    for row, t in zip(values, x, strict=True):
        row[:] = 100.0 + 0.3 * t
        row += rng.standard_normal(pixels, dtype=np.float32)
    return x, values


def line(side, count, repeats):
    from utils.domain.bias_fit import BLOCK_PIXELS
    from utils.kernels.linear_fit import fit_line

    x, values = _line_data(side, count)
    weights = np.ones((x.size, 1))

    def fit():
        for first in range(0, values.shape[1], BLOCK_PIXELS):
            fit_line(values[:, first : first + BLOCK_PIXELS], weights, x)

    return {"seconds": timed(fit, int(repeats))}


def lstsq(side, count):
    x, values = _line_data(side, count)
    design = np.column_stack([np.ones_like(x), x])
    started = time.perf_counter()
    np.linalg.lstsq(design, values.astype(np.float64), rcond=None)
    return {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    print(json.dumps({"engine": engine, "scan": scan, "line": line, "lstsq": lstsq}[name](*words)))
