"""Frames of the simulated sensor for the measurements.

python -m benchmarks.frames bias FOLDER SIDE T1=N1 T2=N2 ...   T<t>/bias_00001.fits, 16-bit samples
python -m benchmarks.frames dark FOLDER SIDE N T1,T2,... t1,t2,...   N darks at each T and t, and N bias frames at each T
python -m benchmarks.frames flat FOLDER SIDE N F1,F2,... T1,T2,... t1,t2,...   N flats of each filter at each T and t
python -m benchmarks.frames visits FOLDER SIDE N               N flats of ten visits, and 6 bias frames
python -m benchmarks.frames raw FOLDER SIDE N                  T0/attempt1 as raw_to_fits takes it
python -m benchmarks.frames headers FOLDER N                   many small files with headers of usual length
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from utils.fits_io.fits_cards import card
from utils.kernels.sensor import Sensor, SensorSpec

START = 1.7e9
DISTINCT = 40
"""Frames simulated at one temperature; further ones repeat them under their own names."""


def fits_header(shape, cards):
    """Header block of a uint16 frame."""
    ny, nx = shape
    fixed = {
        "SIMPLE": True,
        "BITPIX": 16,
        "NAXIS": 2,
        "NAXIS1": nx,
        "NAXIS2": ny,
        "BZERO": 32768,
        "BSCALE": 1,
    }
    text = "".join(card(key, value) for key, value in {**fixed, **cards}.items()) + "END".ljust(80)
    return text.ljust(-(-len(text) // 2880) * 2880).encode("ascii")


def write_frame(path, samples, cards):
    """Write uint16 samples as FITS with BZERO."""
    data = (samples ^ np.uint16(0x8000)).astype(">u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fits_header(samples.shape, cards) + data + b"\0" * (-len(data) % 2880))


def bias_cards(temperature, time):
    """Cards of a bias frame."""
    return {
        "IMAGETYP": "Bias Frame",
        "CCD-TEMP": round(temperature, 3),
        "EXPTIME": 1e-5,
        "INSTRUME": "SIM",
        "GAIN": 100,
        "TIMESTMP": time,
    }


def simulate(shape, temperatures_and_counts, seed=1):
    """Yield (temperature, number, samples) of bias frames, at most ``DISTINCT`` different ones a temperature."""
    sensor = Sensor(SensorSpec.preset("16", shape=shape, seed=seed))
    rng = np.random.default_rng(seed)
    for temperature, count in temperatures_and_counts:
        distinct = []
        for number in range(count):
            if number < DISTINCT:
                distinct.append(sensor.frame("bias", temperature, 1e-5, rng))
            yield temperature, number, distinct[number % DISTINCT]


def bias(folder, side, *groups):
    wanted = [(float(t), int(n)) for t, n in (group.split("=") for group in groups)]
    for index, (temperature, number, samples) in enumerate(simulate((int(side), int(side)), wanted)):
        path = Path(folder) / f"T{temperature:g}" / f"bias_{number + 1:05d}.fits"
        write_frame(path, samples, bias_cards(temperature, START + index))


def dark(folder, side, count, temperatures, exposures):
    """Bias and dark frames of a sensor with hot and warm pixels, telegraph noise and cosmic hits."""
    shape = (int(side), int(side))
    sensor = Sensor(SensorSpec.preset("16", shape=shape, row_noise=0.0, session_shifts=(), hot_fraction=0.01))
    wanted = [("bias", float(t), 1e-5) for t in temperatures.split(",")]
    wanted += [("dark", float(t), float(e)) for e in exposures.split(",") for t in temperatures.split(",")]

    def one(task):
        group, number = task
        kind, temperature, exposure = wanted[group]
        samples = sensor.frame(kind, temperature, exposure, np.random.default_rng((group, number)))
        cards = bias_cards(temperature, START + 600 * group + number)
        cards |= {"IMAGETYP": f"{kind.title()} Frame", "EXPTIME": exposure}
        write_frame(Path(folder) / kind / f"{kind}_{group:02d}_{number:03d}.fits", samples, cards)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, [(group, number) for group in range(len(wanted)) for number in range(int(count))]))


def flat(folder, side, count, filters, temperatures, exposures):
    """Flats of the sensor of `dark`, with vignetting, dust and a gradient of response; light drifts from frame to frame."""
    shape = (int(side), int(side))
    terms = {"row_noise": 0.0, "session_shifts": (), "hot_fraction": 0.01, "flat_b_spread": 2e-4}
    sensor = Sensor(SensorSpec.preset("16", shape=shape, **terms))
    wanted = [
        (name, float(t), float(e))
        for name in filters.split(",")
        for e in exposures.split(",")
        for t in temperatures.split(",")
    ]

    def one(group):
        name, temperature, exposure = wanted[group]
        light = 20000.0 * sensor.true_flat(temperature, exposure)
        still = sensor.true_bias(temperature) + sensor.true_dark_rate(temperature, exposure) * exposure
        light, still = light.astype(np.float32), still.astype(np.float32)
        noise = np.sqrt(light / np.float32(sensor.gain) + np.square(sensor.read_noise_map))
        rng = np.random.default_rng(group)
        for number in range(int(count)):
            samples = rng.standard_normal(shape, dtype=np.float32)
            samples *= noise
            samples += light * np.float32(1.0 + 0.01 * rng.uniform(-1, 1))
            samples += still
            cards = bias_cards(temperature, START + 600 * group + number)
            cards |= {"IMAGETYP": "Flat Frame", "EXPTIME": exposure, "FILTER": name}
            path = Path(folder) / name / f"flat_{group:02d}_{number:03d}.fits"
            write_frame(path, np.clip(np.rint(samples), 0, 65535).astype(np.uint16), cards)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, range(len(wanted))))


def visits(folder, side, count):
    """Flats of ten visits, three days apart, and bias frames of the first; at most 12 flats differ."""
    shape = (int(side), int(side))
    sensor = Sensor(SensorSpec.preset("12left", shape=shape, row_noise=0.0))
    rng, distinct = np.random.default_rng(1), []
    for number in range(6):
        samples = sensor.frame("bias", 10.0, 1e-5, rng)
        write_frame(Path(folder) / "bias" / f"bias_{number}.fits", samples, bias_cards(10.0, START + number))
    for number in range(int(count)):
        if number < 12:
            distinct.append(sensor.frame("flat", 10.0, 1.0, rng, level=1100.0))
        time = START + 3 * 86400.0 * (number * 10 // int(count)) + 5.0 * number
        cards = bias_cards(10.0, time) | {"IMAGETYP": "Flat Field", "EXPTIME": 1.0, "FILTER": "V"}
        write_frame(Path(folder) / "flat" / f"flat_{number:05d}.fits", distinct[number % 12], cards)


def raw(folder, side, count):
    attempt = Path(folder) / "T0" / "attempt1"
    frames = attempt / "frames"
    frames.mkdir(parents=True)
    lines = ["FrameNum,TimeStamp,ExpTime,RealExpTime,ExpGain,Temperature,InitialTemp"]
    for _, number, samples in simulate((int(side), int(side)), [(0.0, int(count))]):
        samples.astype("<u2").tofile(frames / f"f{number:04d}.raw")
        lines.append(f"{number},{START + number},10,10,100,0.0,0.0")
    (attempt / "temperatureLog.csv").write_text("\n".join(lines) + "\n")
    (attempt / "configFile.txt").write_text(f"WIDTH={side}\nHEIGHT={side}\nBIT_DEPTH=16\n")


def headers(folder, count):
    """Files of 40 cards and 8 x 8 samples, 100 a folder."""
    more = {f"KEY{i:05d}": (f"text {i}", i, i / 7, True)[i % 4] for i in range(26)}
    samples = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for i in range(int(count)):
        cards = {**bias_cards(-10 + 0.001 * i, START + i), **more}
        write_frame(Path(folder) / f"{i // 100:03d}" / f"bias_{i:05d}.fits", samples, cards)


if __name__ == "__main__":
    makers = {"bias": bias, "dark": dark, "flat": flat, "visits": visits, "raw": raw, "headers": headers}
    makers[sys.argv[1]](*sys.argv[2:])
