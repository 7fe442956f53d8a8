"""Simulated campaigns of flats with injected structures, and the analysis run on them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.domain import flat_changes, flat_groups
from utils.fits_io.header_scan import scan_header
from utils.fits_io.spool import ArraySpool
from utils.kernels.scene import Scene
from utils.kernels.sensor import Sensor, SensorSpec
from utils.kernels.sensor_maps import RING_PEAK, ring_shadow, spot_shadow

START, DAY = 1.7e9, 86400.0
SHAPE = (128, 160)
KINDS = ("pixel", "block", "spot", "ring")


@dataclass(frozen=True)
class Plan:
    """Epochs of flats.  level [ADU], drift (1 sigma of the lamp's level), swing [degC between epochs], hits per pixel."""

    shape: tuple = SHAPE
    epochs: int = 10
    frames: int = 2
    days: float = 5.0
    level: float = 1200.0
    drift: float = 0.05
    swing: float = 0.0
    exposures: tuple = (1.0,)
    cosmic: float = 5e-5


@dataclass(frozen=True, eq=False)
class Injected:
    """A structure: relative loss map (ny, nx), epochs [first, after), its kind, place and significance."""

    kind: str
    loss: np.ndarray
    first: int
    after: int
    x: float
    y: float
    sigma: float


def sensor_of(plan, seed):
    """Return the camera of one seed."""
    return Sensor(SensorSpec.preset("12left", shape=plan.shape, seed=seed))


def inject(plan, sensor, sigmas, rng, kinds=KINDS):
    """Place structures of given significance apart from each other, present from a random epoch on or for some epochs.

    The significance is what an ideal filter reaches that knows shape and epochs: depth over the noise of the mean of the
    frames with it less the mean of those without it, the noise of these (the reference) included.
    """
    variance = np.square(sensor.true_noise("flat", 20.0, 1.0, plan.level) / (plan.level * sensor.true_flat()))
    made = []
    for sigma in sigmas:
        for _ in range(200):
            y, x = (rng.uniform(10, n - 10) for n in plan.shape)
            if all(np.hypot(one.y - y, one.x - x) > 34 for one in made):
                break
        else:
            continue
        kind = kinds[rng.integers(len(kinds))]
        shape = _shape(kind, plan.shape, y, x, rng)
        if (sensor.dead | sensor.low_qe)[shape > 0.5].any():
            continue
        first = int(rng.integers(1, plan.epochs))
        after = plan.epochs if rng.random() < 0.7 else int(rng.integers(first + 1, plan.epochs + 1))
        inside = (after - first) * plan.frames * len(plan.exposures)
        outside = plan.epochs * plan.frames * len(plan.exposures) - inside
        unit = np.sqrt(np.sum(shape**2 / variance) * inside * outside / (inside + outside))
        if sigma / unit < 0.9:
            made.append(Injected(kind, shape * (sigma / unit), first, after, x, y, sigma))
    return made


def _shape(kind, frame, y, x, rng):
    if kind == "spot":
        return spot_shadow(frame, x, y, rng.uniform(1.0, 11.0))
    if kind == "ring":
        return ring_shadow(frame, x, y, rng.uniform(2.5, 14.0)) / RING_PEAK
    size = 1 if kind == "pixel" else int(rng.integers(2, 5))
    shape = np.zeros(frame)
    shape[int(y) : int(y) + size, int(x) : int(x) + size] = 1.0
    return shape


def take(folder, plan, sensor, injected, seed, history=None):
    """Write the frames of a campaign; returns entries and images as ObservationManager has them."""
    rng = np.random.default_rng([seed, 7])
    entries, images, number = [], {}, 0
    for epoch in range(plan.epochs):
        lamp = 1.0 + plan.drift * rng.standard_normal()
        middle = 20.0 + plan.swing * (epoch % 3 - 1)
        light = np.ones(plan.shape)
        for one in injected:
            if one.first <= epoch < one.after:
                light = light * (1.0 - one.loss)
        for exposure in plan.exposures:
            for _ in range(plan.frames):
                time = START + epoch * plan.days * DAY + 60.0 * number
                temperature = round(middle + rng.uniform(-0.2, 0.2), 2)
                state = None if history is None else history.at(epoch * plan.days)
                scene = Scene(pattern=light.astype(np.float32), cosmic=plan.cosmic, state=state)
                level = plan.level * lamp * exposure / plan.exposures[0]
                samples = sensor.frame("flat", temperature, exposure, rng, level=level, scene=scene)
                path = Path(folder) / f"flat_{number:04d}.fits"
                _write(path, samples)
                entries.append(_entry(path, temperature, exposure, time))
                images[str(path)] = scan_header(str(path))
                number += 1
    return entries, images


def _write(path, samples):
    from astropy.io import fits

    fits.PrimaryHDU(samples).writeto(path)


def _entry(path, temperature, exposure, time):
    return {
        "original_path": str(path),
        "identifier": path.name,
        "temperature": temperature,
        "exposure": exposure,
        "filter": "V",
        "timestamp": time,
        "time_source": "TIMESTMP",
        "bit_depth": None,
        "saturate": None,
        "caltype": "flat",
        "datasum": None,
    }


@dataclass(eq=False)
class Analysed:
    """Result of one campaign: found (list of `FoundRegion`), expected false regions, threshold, number of flats, films."""

    found: list
    expected: float
    threshold: float
    flats: int
    films: list


def analyse(entries, images, sensor, *, expected=None, keep=None):
    """Run the analysis as the command does, with the sensor's true pedestal; keep(SetChanges, found) may look on."""

    def pedestal(group, _scale):
        t, e = group.frames.temperature, group.frames.exposure
        return (sensor.true_bias(t) + sensor.true_dark_rate(t, e) * e).astype(np.float32), "truth"

    sets, _ = flat_groups.sets_of_flats(entries, images, 0.5)
    flat_groups.measure_levels(sets, pedestal, read_variance=2.3)
    with tempfile.TemporaryDirectory() as folder, ArraySpool(Path(folder)) as spool:
        made = flat_changes.changes_of(sets[0], spool)
        threshold = made.threshold(expected) if len(made.contrasts.windows) else np.inf
        found, _ = flat_changes.find(made, threshold)
        result = Analysed(found, made.expected_false(threshold), threshold, sets[0].count, [])
        if keep is not None:
            keep(made, found)
    return result


def run(seed, plan, sigmas=(), *, expected=None, history=None, keep=None):
    """Simulate and analyse one campaign; returns (injected, `Analysed`)."""
    sensor = sensor_of(plan, seed)
    injected = inject(plan, sensor, sigmas, np.random.default_rng([seed, 3]))
    with tempfile.TemporaryDirectory() as folder:
        entries, images = take(folder, plan, sensor, injected, seed, history)
        return injected, analyse(entries, images, sensor, expected=expected, keep=keep)


def match(injected, found):
    """Give each injected structure the region found there (or None), and return what belongs to none of them."""
    left, pairs = list(found), []
    for one in injected:
        near = [f for f in left if one.loss[f.region.rows, f.region.columns].max() > 0.1 * one.loss.max()]
        near = [f for f in near if f.region.depth > 0]
        pairs.append((one, near[0] if near else None))
        left = [f for f in left if f not in near]
    return pairs, left
