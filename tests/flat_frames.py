"""What the tests of the flat pipeline share: campaigns of the simulated sensor, runs, the statistical limit."""

import numpy as np
from bias_frames import START, write_frame

from flat_pipeline.run_pipeline import main
from utils.application.command import run_command
from utils.kernels.sensor import Sensor, SensorSpec

TEMPERATURES, EXPOSURES = (0.0, 10.0), (1.0, 2.0)


def sensor(shape=(64, 80), seed=1, **terms):
    """A sensor without row noise, sessions and glow; everything else of a 12-bit camera."""
    given = {"row_noise": 0.0, "session_shifts": (), "glow": 0.0}
    return Sensor(SensorSpec.preset("12left", shape=shape, seed=seed, **(given | terms)))


def take(folder, camera, kind, plan, seed, *, start=START, drift=0.05, jitter=0.0, scene=None, **cards):
    """Write frames of one kind.

    plan : list of (temperature, exposure, count, level).  jitter : 1 sigma of the lamp's level from frame to frame,
    relative.  scene : function (index) -> Scene or None.  Returns the paths.
    """
    rng = np.random.default_rng(seed)
    time, paths = start, []
    for number, (middle, exposure, count, level) in enumerate(plan):
        for i in range(count):
            temperature = round(middle + drift * (i / max(count - 1, 1) - 0.5), 2)
            time += exposure + 2.0
            given = {"IMAGETYP": f"{kind.title()} Frame", "EXPTIME": float(exposure), "CCD_TEMP": temperature}
            words = {} if level is None else {"level": level * (1.0 + jitter * rng.standard_normal())}
            if scene is not None:
                words["scene"] = scene(i)
            samples = camera.frame(kind, temperature, exposure, rng, **words)
            name = f"{kind}_{number:02d}_{i:03d}.fits"
            paths.append(write_frame(folder / kind / name, samples, TIMESTMP=time, **given, **cards))
    return paths


def campaign(
    folder,
    camera,
    seed=1,
    *,
    temperatures=TEMPERATURES,
    exposures=EXPOSURES,
    n=8,
    level=1400.0,
    bias_n=12,
    dark_n=10,
    filters=(None,),
    jitter=0.02,
):
    """Write biases, darks and flats into ``folder``: levels follow the exposure, the longest has ``level``."""
    if bias_n:
        take(folder, camera, "bias", [(t, 1e-5, bias_n, None) for t in temperatures], [seed, 1])
    if dark_n:
        plan = [(t, max(exposures), dark_n, None) for t in temperatures]
        take(folder, camera, "dark", plan, [seed, 2], start=START + 3600)
    longest = max(exposures)
    plan = [(t, e, n, level * (e / longest) ** 0.5) for t in temperatures for e in exposures]
    for number, name in enumerate(filters):
        where = folder if name is None else folder / name
        cards = {} if name is None else {"FILTER": name}
        take(
            where,
            camera,
            "flat",
            plan,
            [seed, 3, number],
            start=START + 7200 * (1 + number),
            jitter=jitter,
            **cards,
        )
    return folder


def run(*words, plots="none"):
    """Run the pipeline in this process; returns its exit status."""
    return run_command(main, [*(str(word) for word in words), "--plots", plots])
