"""What the tests of the dark pipeline share: campaigns of the simulated sensor, runs, the statistical limit."""

import numpy as np
from bias_frames import START, write_frame

from dark_pipeline.run_pipeline import main
from utils.application.command import run_command
from utils.kernels.linear_fit import fit_line
from utils.kernels.sensor import Sensor, SensorSpec

TEMPERATURES, EXPOSURES, BIAS_TEMPERATURES = (-5, 0, 5, 10, 15), (5, 20, 60), (-15, -5, 5, 15)
LINEAR = 0.7


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


def truth(camera):
    """True A at 1 s and the reference temperature, B, gamma; flat float64."""
    return [plane.ravel().astype(float) for plane in (camera.dark_a, camera.dark_b, camera.dark_gamma)]


def bias_covariance(camera, temperatures=BIAS_TEMPERATURES, n=10):
    """Covariance of a and b that n bias frames at each temperature allow: var a, var b, cov (m,)."""
    variance = np.array([camera.true_noise("bias", t, 1e-5).ravel() ** 2 / n for t in temperatures])
    return fit_line(np.zeros_like(variance), 1.0 / variance, np.array(temperatures, float))[1]


def limit(camera, at, cov, temperatures=TEMPERATURES, exposures=EXPOSURES, n=8):
    """Cramer-Rao bound of a free three-parameter fit, the bias's own error included, at (T, t) pairs.

    Samples beyond the linear part of the full well do not count.  Returns (len(at), m) [ADU/s].
    """
    a, b, g = truth(camera)
    t0 = camera.spec.dark_t_ref
    pairs = [(T, t) for T in temperatures for t in exposures]
    full = LINEAR * camera.spec.full_well / camera.spec.gain
    h = np.zeros((a.size, 5, 5))
    for T, t in pairs:
        signal = camera.true_signal("dark", T, t).ravel()
        weight = np.where(signal < full, n / camera.true_noise("dark", T, t).ravel() ** 2, 0.0)
        charge = a * np.exp(b * (T - t0) + g * np.log(t)) * t
        j = np.stack([charge, charge * (T - t0), charge * np.log(t), np.ones_like(a), np.full_like(a, T)], -1)
        h += weight[:, None, None] * j[:, :, None] * j[:, None, :]
    prior = np.array([[cov[0], cov[2]], [cov[2], cov[1]]])
    h[:, 3:, 3:] += np.linalg.inv(np.moveaxis(prior, -1, 0))
    inverse = np.linalg.pinv(h)
    found = []
    for T, t in at:
        rate = a * np.exp(b * (T - t0) + g * np.log(t))
        j = np.stack([rate, rate * (T - t0), rate * np.log(t), 0 * rate, 0 * rate], -1)
        found.append(np.sqrt(np.einsum("mi,mij,mj->m", j, inverse, j)))
    return np.array(found)
