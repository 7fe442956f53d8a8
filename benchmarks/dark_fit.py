"""Fits of the dark law to many pixels, one way a process: ``python -m benchmarks.dark_fit WAY SIDE N``.

ours: all pixels, N times, the median time.  scipy: N pixels, one after the other.  Prints one line of JSON.
"""

import json
import os
import statistics
import sys
import time
import warnings

import numpy as np

TEMPERATURES, EXPOSURES, FRAMES = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0), (5.0, 15.0, 30.0, 60.0, 120.0), 10
READ_VARIANCE, GAIN, B, GAMMA, BIAS_ERROR = 16.0, 1.5, 0.1, 0.01, 0.3


def maps(pixels, seed=1):
    """Temperatures (30,), exposures (30,), signals (30, pixels) float32 [ADU]; every hundredth pixel is hot."""
    rng = np.random.default_rng(seed)
    t, e = (grid.ravel() for grid in np.meshgrid(TEMPERATURES, EXPOSURES))
    a = rng.lognormal(np.log(0.15), 0.3, pixels).astype(np.float32)
    a[::100] *= 30.0
    b = rng.normal(B, 0.004, pixels).astype(np.float32)
    signal = np.empty((t.size, pixels), np.float32)
    for row, temperature, exposure in zip(signal, t, e, strict=True):
        np.exp(b * np.float32(temperature + 15.0), out=row)
        row *= a * np.float32(exposure ** (1.0 + GAMMA))
        noise = rng.standard_normal(pixels, np.float32)
        row += np.sqrt((READ_VARIANCE + row / GAIN) / FRAMES) * noise
    return t, e, signal


def ours(side, repeats):
    """Seconds of the fit of all pixels by the kernel of the pipeline, by the clock and of the processors."""
    from concurrent.futures import ThreadPoolExecutor

    from utils.domain.dark_maps import BLOCK
    from utils.kernels.dark_fit import BiasError, Design, Prior, fit_pixels

    t, e, signal = maps(side**2)
    strength = np.square(np.median(signal[:, ::997], axis=1))
    design = Design.of(t, e, np.full(t.size, float(FRAMES)), strength)
    prior = Prior(B, 0.004, GAMMA, 0.003)
    times, cpu = [], []

    def one(start):
        part = signal[:, start : start + BLOCK]
        full = np.full(part.shape[1], READ_VARIANCE, np.float32)
        error = np.full(part.shape[1], BIAS_ERROR**2, np.float32)
        fit_pixels(
            part, full, design, prior, inverse_gain=1 / GAIN, bias=BiasError(error, error / 100.0, 0 * error)
        )

    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(one, range(0, side**2, BLOCK)))
        times.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {"seconds": statistics.median(times), "cpu": statistics.median(cpu)}


def scipy(_, pixels):
    """Seconds of curve_fit for single pixels, weighted; those that it gives up are counted."""
    from scipy.optimize import curve_fit

    t, e, signal = maps(pixels)

    def law(_, a, b, gamma):
        return a * e ** (1.0 + gamma) * np.exp(b * (t + 15.0))

    failed = 0
    started = time.perf_counter()
    for pixel in signal.T.astype(np.float64):
        sigma = np.sqrt((READ_VARIANCE + np.maximum(pixel, 0.0) / GAIN) / FRAMES)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                curve_fit(law, t, pixel, (0.15, B, 0.0), sigma, absolute_sigma=True)
        except RuntimeError:
            failed += 1
    return {"seconds": time.perf_counter() - started, "failed": failed}


if __name__ == "__main__":
    way, *numbers = sys.argv[1:]
    print(json.dumps({"ours": ours, "scipy": scipy}[way](*map(int, numbers))))
