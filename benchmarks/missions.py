"""Simulated missions: visits of one sensor with bias, darks and flats, for the degradation analysis."""

import numpy as np

from benchmarks.frames import START, write_frame
from utils.kernels.detector_history import History
from utils.kernels.scene import Scene
from utils.kernels.sensor import Sensor, SensorSpec

DAY = 86400.0
DAYS = (0.0, 10.0, 20.0, 30.0, 40.0)
LEVEL = 1100.0


def mission(
    folder, *, changes=(), seed=1, shape=(72, 96), days=DAYS, temperatures=(10.0, 20.0), warm=0.0,
    exposures=(1.0,), frames=3, darks=True, bias=True, lamp=0.06, cosmic=5e-5, **cards,
):  # fmt: skip
    """Take flats (and darks) on every visit, bias on the first; returns the sensor and its `History`.

    warm : degC that the second visit is warmer.  lamp : largest swing of its level.  cards : of all frames, None = none.
    """
    sensor = Sensor(SensorSpec.preset("12left", shape=shape, seed=seed, row_noise=0.0))
    history, rng = History(shape, changes, seed=seed), np.random.default_rng(seed)
    number = 0

    def take(kind, temperature, exposure, day, level=None):
        nonlocal number
        number += 1
        temperature = round(temperature + rng.uniform(-0.1, 0.1), 2)
        scene = Scene(state=history.at(day), cosmic=cosmic)
        samples = sensor.frame(kind, temperature, exposure, rng, level=level, scene=scene)
        given = {"IMAGETYP": kind.title(), "EXPTIME": exposure, "CCD-TEMP": temperature, "FILTER": "V"}
        given |= {"INSTRUME": "SIM", "TIMESTMP": START + day * DAY + 5.0 * number} | cards
        told = {key: value for key, value in given.items() if value is not None}
        write_frame(folder / kind / f"{kind}_{number:04d}.fits", samples, told)

    for temperature in (0.0, 10.0, 20.0) if bias else ():
        for _ in range(8):
            take("bias", temperature, 1e-5, 0.0)
    for visit, day in enumerate(days):
        swing = warm if visit == 1 else 0.0
        for temperature in temperatures:
            for exposure in exposures:
                for _ in range(4 if darks else 0):
                    take("dark", temperature + swing, 10.0 * exposure, day)
                for _ in range(frames):
                    light = 1.0 + lamp * np.sin(2.0 * visit)
                    take("flat", temperature + swing, exposure, day, LEVEL * light * exposure)
    return sensor, history
