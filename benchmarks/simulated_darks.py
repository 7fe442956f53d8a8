"""Runs of the shipped dark pipeline on simulated cameras, and the model beside the truth and the statistical limit."""

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.frames import START, bias_cards, write_frame
from benchmarks.simulated_runs import run_pipeline
from utils.domain.dark_model import DarkModel
from utils.fits_io.product_reader import read_product
from utils.kernels import plan_errors
from utils.kernels.sensor import Sensor, SensorSpec

LINEAR = 0.7
"""Samples above this part of the full well count for neither the bound nor the pipeline."""
LARGEST = 6.0
"""Errors beyond so many sigma count as that: what a single cosmic hit does is not a matter of statistics."""


@dataclass(frozen=True)
class Campaign:
    """Dark and bias frames of one camera.

    temperatures [degC], exposures [s], frames : darks of each pair.  bias_temperatures, bias_frames.  drift [degC] :
    from the first to the last frame of a group.  temperature_at, exposure_at : where the model is judged; none is
    among those measured.
    """

    temperatures: tuple = (-5, 0, 5, 10, 15)
    exposures: tuple = (5, 20, 60)
    frames: int = 10
    bias_temperatures: tuple = (-15, -5, 5, 15)
    bias_frames: int = 15
    drift: float = 0.1
    temperature_at: tuple = (-3.0, 3.0, 8.0, 13.0)
    exposure_at: tuple = (8.0, 40.0)

    @property
    def at(self):
        """Pairs (T, t) where the model is judged."""
        return [(T, t) for T in self.temperature_at for t in self.exposure_at]

    @property
    def upper(self):
        """Which of them lie in the upper half of the range of temperature, bool (p,)."""
        middle = 0.5 * (min(self.temperatures) + max(self.temperatures))
        return np.array([middle < T for T, _ in self.at])


class BentSensor(Sensor):
    """A sensor whose rate is no exponential of the temperature: that of T + bend (T - 5 degC)^2; biases are as ever."""

    def __init__(self, spec, bend):
        super().__init__(spec)
        self.bend = bend

    def _bent(self, temperature):
        return temperature + self.bend * (temperature - 5.0) ** 2

    def true_dark_rate(self, temperature, exposure, state=None):
        """As of any sensor, at the bent temperature."""
        return super().true_dark_rate(self._bent(temperature), exposure, state)

    def _charge(self, temperature, *rest):
        return super()._charge(self._bent(temperature), *rest)


def camera(shape, seed, *, offset, gamma, gamma_spread, preset="12left", **terms):
    """A sensor whose darks follow the law: 1 % hot pixels, a warm tail, telegraph pixels, cosmic hits; no glow."""
    off = {"row_noise": 0.0, "session_shifts": (), "glow": 0.0}
    dark = {
        "dark_offset": offset,
        "dark_gamma": gamma,
        "dark_gamma_spread": gamma_spread,
        "hot_fraction": 0.01,
    }
    return Sensor(SensorSpec.preset(preset, shape=shape, seed=seed, **(off | dark | terms)))


def take(folder, sensor, campaign, seed):
    """Write the frames of a campaign."""
    rng = np.random.default_rng(2000 + seed)
    time, number = START, 0
    plan = [("bias", T, 1e-5, campaign.bias_frames) for T in campaign.bias_temperatures]
    plan += [("dark", T, t, campaign.frames) for T in campaign.temperatures for t in campaign.exposures]
    for kind, middle, exposure, count in plan:
        for i in range(count):
            temperature = round(middle + campaign.drift * (i / max(count - 1, 1) - 0.5), 2)
            number, time = number + 1, time + exposure + 2
            cards = bias_cards(temperature, time)
            cards |= {"IMAGETYP": f"{kind.title()} Frame", "EXPTIME": float(exposure)}
            samples = sensor.frame(kind, temperature, exposure, rng)
            write_frame(folder / kind / f"{kind}_{number:04d}.fits", samples, cards)


def bound(sensor, campaign, known=None):
    """Cramer-Rao bound of a free three-parameter fit, the bias's own error included: (p, m) [ADU/s].

    known : 1 sigma of B and gamma over pixels; the bound of whoever knows these distributions, which no estimate that
    leaves A to each pixel can beat.
    """
    a, b, g = (plane.ravel().astype(float) for plane in (sensor.dark_a, sensor.dark_b, sensor.dark_gamma))
    law = plan_errors.DarkLaw(a, b, g, sensor.spec.dark_t_ref)
    full = LINEAR * sensor.spec.full_well / sensor.spec.gain
    pairs = [(T, t) for T in campaign.temperatures for t in campaign.exposures]
    variance = [
        np.where(
            sensor.true_signal("dark", T, t).ravel() < full,
            sensor.true_noise("dark", T, t).ravel() ** 2,
            np.inf,
        )
        for T, t in pairs
    ]
    darks = plan_errors.dark_terms(law, *zip(*pairs, strict=True), variance).sum(axis=0)
    at = campaign.bias_temperatures
    biases = plan_errors.bias_terms(at, [sensor.true_noise("bias", T, 1e-5).ravel() ** 2 for T in at]).sum(
        axis=0
    )
    information = plan_errors.with_bias(campaign.frames * darks, campaign.bias_frames * biases)
    if known is not None:
        information[:, (1, 2), (1, 2)] += 1.0 / np.square(known)
    root = plan_errors.covariance_root(information)
    return np.array(
        [plan_errors.error_along(root, plan_errors.dark_direction(law, *pair)) for pair in campaign.at]
    )


@dataclass
class Judged:
    """The model of one run, or of several that were joined, beside the truth.

    error, quoted, bound, best, true (p, m) [ADU/s] : at the pairs of ``Campaign.at``; best : the bound of whoever knows
    the distributions of B and gamma.  kinds : 'normal', 'hot' (m,) bool, without telegraph pixels.  found, hot, both :
    pixels found hot, hot in truth, and both, without those too near the limit to tell.  shared : numbers of the sensor,
    one dict a run.
    """

    error: np.ndarray
    quoted: np.ndarray
    bound: np.ndarray
    best: np.ndarray
    true: np.ndarray
    kinds: dict
    found: int
    hot: int
    both: int
    shared: list = field(default_factory=list)

    def count(self, kind):
        """Pixels of a kind."""
        return int(np.count_nonzero(self.kinds[kind]))

    def ratio(self, kind, of="error", to="bound"):
        """Rms of error over bound (or of two others) at each pair, (p,)."""
        return rms((getattr(self, of) / getattr(self, to))[:, self.kinds[kind]])

    def pull(self, kind):
        """Width of error over quoted error at each pair, (p,)."""
        return rms((self.error / self.quoted)[:, self.kinds[kind]])

    def mean(self, kind):
        """Mean signed error over the mean rate at each pair, (p,)."""
        where = self.kinds[kind]
        return self.error[:, where].mean(axis=1) / self.true[:, where].mean(axis=1)

    def beyond(self, kind):
        """Share of errors beyond ``LARGEST`` of their quoted sigma."""
        return float(np.mean(np.abs((self.error / self.quoted)[:, self.kinds[kind]]) > LARGEST))

    @property
    def recall(self):
        """Part of the truly hot pixels that were found."""
        return self.both / self.hot

    @property
    def precision(self):
        """Part of the pixels found hot that are."""
        return self.both / max(self.found, 1)


def rms(values):
    """Root of the mean square over pixels, each limited to ``LARGEST``."""
    return np.sqrt(np.mean(np.square(np.clip(values, -LARGEST, LARGEST)), axis=-1))


def judge(out, sensor, campaign):
    """Compare the products of one run with the truth; returns `Judged`."""
    model = DarkModel.load(out / "dark_model_2d")
    found = [model.evaluate(T, t)[:2] for T, t in campaign.at]
    true = np.array([sensor.true_dark_rate(T, t).ravel() for T, t in campaign.at])
    spec = sensor.spec
    b = float(np.log(2) / spec.dark_doubling)
    spread = b * spec.dark_b_spread, spec.dark_gamma_spread
    steady = ~sensor.telegraph.ravel()
    hot = sensor.hot.ravel() & steady
    limit = bound(sensor, campaign)
    # A pixel that saturates in nearly all maps does not determine three parameters: it has no bound.
    determined = np.isfinite(limit).all(axis=0)
    numbers = json.loads((out / "dark_model_2d" / "dark_model_2d.json").read_text(encoding="utf-8"))
    return Judged(
        np.array([value.ravel() for value, _ in found]) - true,
        np.array([sigma.ravel() for _, sigma in found]),
        limit,
        bound(sensor, campaign, np.maximum(spread, 1e-7)),
        true,
        {"normal": steady & ~hot & ~sensor.warm.ravel() & determined, "hot": hot & determined},
        *hot_counts(out, sensor, campaign),
        [numbers | {"true_gamma": spec.dark_gamma, "true_offset": spec.dark_offset, "true_b": b}],
    )


def hot_counts(out, sensor, campaign):
    """Pixels found hot, truly above the limit of the header, and both; those within 5 sigma of it are not counted."""
    product = read_product(out / "dark_model_2d" / "hot_pixels.fits", expect="HOT_PIXELS")
    head, found = product.header, product.data.ravel() != 0
    T, t = head["HOTTEMP"], head["HOTEXP"]
    true = sensor.true_dark_rate(T, t).ravel()
    sigma = sensor.true_noise("dark", T, t).ravel() / np.sqrt(campaign.frames) / t
    told = np.abs(true - head["HOTLIM"]) > 5 * sigma
    hot = (true > head["HOTLIM"]) & told
    found = found & told
    return int(found.sum()), int(hot.sum()), int((found & hot).sum())


def joined(parts):
    """Several runs at the same pairs as one."""
    planes = (
        np.concatenate([getattr(one, name) for one in parts], axis=1)
        for name in ("error", "quoted", "bound", "best", "true")
    )
    kinds = {kind: np.concatenate([one.kinds[kind] for one in parts]) for kind in parts[0].kinds}
    counts = (sum(getattr(one, name) for one in parts) for name in ("found", "hot", "both"))
    return Judged(*planes, kinds, *counts, [numbers for one in parts for numbers in one.shared])


def one_run(sensor, campaign, seed):
    """Simulate, run, compare; returns `Judged`."""
    with tempfile.TemporaryDirectory(prefix="calibration-validate-") as folder:
        folder = Path(folder)
        take(folder / "frames", sensor, campaign, seed)
        run_pipeline(
            folder / "frames", folder / "out", folder / "cache", program="dark_pipeline/run_pipeline.py"
        )
        return judge(folder / "out", sensor, campaign)


def run_all(campaigns, truths, shapes, say=lambda text: None):
    """Run every campaign with every truth of offset and gamma in every shape, each with a seed of its own.

    campaigns : {name: (Campaign, preset)}.  truths : list of (offset, gamma, scatter of gamma).
    Returns {(campaign, truth): `Judged` of all shapes}.
    """
    tasks, seed = [], 0
    for name in campaigns:
        for truth in truths:
            for shape in shapes:
                seed += 1
                tasks.append((name, truth, shape, seed))

    def one(task):
        name, (offset, gamma, spread), shape, seed = task
        campaign, preset = campaigns[name]
        say(f"{name}, offset {offset:g} ADU, gamma {gamma:g}, {shape[0]} x {shape[1]}, seed {seed}")
        sensor = camera(shape, seed, offset=offset, gamma=gamma, gamma_spread=spread, preset=preset)
        return one_run(sensor, campaign, seed)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(one, tasks))
    found = {}
    for (name, truth, *_), result in zip(tasks, results, strict=True):
        found.setdefault((name, truth), []).append(result)
    return {key: joined(parts) for key, parts in found.items()}
