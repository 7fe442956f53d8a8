"""What the tests of the dark pipeline share: campaigns of the simulated sensor, runs, the statistical limit."""

import numpy as np
from bias_frames import START, write_frame

from dark_pipeline.run_pipeline import main
from utils.application.command import run_command
from utils.kernels.sensor import Sensor, SensorSpec

TEMPERATURES, EXPOSURES, BIAS_TEMPERATURES = (-5, 0, 5, 10, 15), (5, 20, 60), (-15, -5, 5, 15)


def sensor(shape=(40, 56), seed=1, **terms):
    """A sensor whose darks follow the law: one session, no glow, 1 % hot pixels, a warm tail, telegraph, cosmic hits."""
    given = {"row_noise": 0.0, "session_shifts": (), "glow": 0.0, "hot_fraction": 0.01}
    return Sensor(SensorSpec.preset("12left", shape=shape, seed=seed, **(given | terms)))


def campaign(
    folder,
    camera,
    seed=1,
    *,
    temperatures=TEMPERATURES,
    exposures=EXPOSURES,
    n=8,
    bias_temperatures=BIAS_TEMPERATURES,
    bias_n=10,
    drift=0.1,
):
    """Take bias and dark frames into ``folder``."""
    rng = np.random.default_rng(seed)
    time, number = START, 0
    plan = [("bias", t, 1e-5, bias_n) for t in bias_temperatures]
    plan += [("dark", t, e, n) for t in temperatures for e in exposures]
    for kind, middle, exposure, count in plan:
        for i in range(count):
            temperature = round(middle + drift * (i / max(count - 1, 1) - 0.5), 2)
            number += 1
            time += exposure + 2
            cards = {"IMAGETYP": f"{kind.title()} Frame", "EXPTIME": float(exposure), "CCD_TEMP": temperature}
            samples = camera.frame(kind, temperature, exposure, rng)
            write_frame(folder / kind / f"{kind}_{number:04d}.fits", samples, TIMESTMP=time, **cards)
    return folder


def run(*words, plots="none"):
    """Run the pipeline in this process; returns its exit status."""
    return run_command(main, [*(str(word) for word in words), "--plots", plots])
