"""What befalls the simulated sensor in the course of a mission: dust, films, damaged pixels, hot pixels.

    history = History((256, 256), [
        Dust(day=10, x=80, y=120, radius=9, depth=0.04),
        Film(days=(0, 30), depths=(0.0, 0.02), profile="edge"),
        Damage(day=20, count=30, drop=0.3),
        HotPixels(day=15, count=40, rate=12.0, anneal_day=40),
    ])
    state = history.at(25.0)           # DetectorState: maps of the whole truth on that day
    history.hit(2, 25.0)               # (rows, columns) that the third change holds on that day

Places in pixels (the first pixel's centre is 0), depths and drops as the fraction of light lost, days as floats.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from utils.kernels.sensor_maps import RING_PEAK, ring_shadow, spot_shadow

__all__ = ["Damage", "DetectorState", "Dust", "Film", "History", "HotPixels"]

_PATCHES = 4
_PATCH_WIDTH = (0.06, 0.14)  # 1 sigma in frame diagonals


@dataclass(frozen=True)
class Dust:
    """A grain that lies on the window from ``day`` on, until ``gone``: a ring (out of focus) or a spot.

    depth : light lost at the deepest place.   radius [pixels].
    """

    day: float
    x: float
    y: float
    radius: float
    depth: float
    form: str = "ring"
    gone: float = np.inf


@dataclass(frozen=True)
class Film:
    """An outgassing film: light lost at its thickest place on given days, between them in proportion, constant outside.

    profile : 'edge' (0 in the middle of the frame, 1 in its corners) or 'patches' (soft blobs, 1 in the thickest).
    """

    days: tuple
    depths: tuple
    profile: str = "edge"


@dataclass(frozen=True)
class Damage:
    """Squares of ``size`` x ``size`` pixels that lose the fraction ``drop`` of their response from ``day`` on."""

    day: float
    count: int
    drop: float
    size: int = 1


@dataclass(frozen=True)
class HotPixels:
    """Pixels whose dark rate rises by ``rate`` [ADU/s at dark_t_ref and 1 s] on ``day``, and anneals.

    ``annealed`` of them go back to their old rate on ``anneal_day``.   spread : sigma of ln(rate).
    """

    day: float
    count: int
    rate: float
    spread: float = 0.3
    anneal_day: float = np.inf
    annealed: float = 1.0


@dataclass(frozen=True)
class DetectorState:
    """Change of a sensor against its specification at one time: maps (ny, nx) float32, or None: unchanged.

    film : light lost in films.   dust : transmission of new dust.   damage : factor on the response.
    dark : change of the dark rate A [ADU/s at dark_t_ref and 1 s].
    """

    film: np.ndarray | None = None
    dust: np.ndarray | None = None
    damage: np.ndarray | None = None
    dark: np.ndarray | None = None

    @cached_property
    def light_factor(self):
        """Factor on the light of every pixel: (ny, nx) float32, or None where it is 1 everywhere."""
        factor = None if self.film is None else 1 - self.film
        for part in (self.dust, self.damage):
            if part is not None:
                factor = part if factor is None else factor * part
        return factor


class History:
    """Changes of one sensor over time.

    shape : (ny, nx).   changes : Dust, Film, Damage, HotPixels in any order.   seed : of the pixels hit and the patches.
    Each change draws from its own stream: one more at the end leaves the others as they are.
    Raises ValueError for a change that cannot be, TypeError for what is no change.
    """

    def __init__(self, shape, changes, seed=1):
        self.shape, self.changes = tuple(shape), tuple(changes)
        self._maps = []
        for number, change in enumerate(self.changes):
            _check(change, f"change {number}")
            rng = np.random.default_rng([seed, number])
            self._maps.append(_MAKERS[type(change)](change, self.shape, rng))

    def at(self, day):
        """DetectorState on that day; a change counts from its own day on."""
        film = dust = damage = dark = None
        for number, (change, own) in enumerate(zip(self.changes, self._maps, strict=True)):
            depth = self.depth(number, day)
            if depth == 0:
                continue
            if isinstance(change, Film):
                left = 1 - np.float32(depth) * own
                film = left if film is None else film * left
            elif isinstance(change, Dust):
                dust = own if dust is None else dust * own
            elif isinstance(change, Damage):
                damage = own if damage is None else damage * own
            else:
                now = own[1] if day >= change.anneal_day else own[0]
                dark = now if dark is None else dark + now
        return DetectorState(None if film is None else 1 - film, dust, damage, dark)

    def depth(self, number, day):
        """How strong one change is on that day: its depth, drop or rate, 0 where there is nothing of it."""
        change = self.changes[number]
        if isinstance(change, Film):
            return float(np.interp(day, change.days, change.depths))
        if day < change.day:
            return 0.0
        if isinstance(change, Dust):
            return float(change.depth) if day < change.gone else 0.0
        if isinstance(change, Damage):
            return float(change.drop)
        return float(change.rate) if day < change.anneal_day or self._maps[number][1].any() else 0.0

    def hit(self, number, day):
        """(rows, columns) of the pixels that a Damage or HotPixels change holds on that day, in order of place."""
        if self.depth(number, day) == 0:
            return np.array([], int), np.array([], int)
        change, own = self.changes[number], self._maps[number]
        if isinstance(change, Damage):
            return np.nonzero(own < 1)
        return np.nonzero(own[1] if day >= change.anneal_day else own[0])


def _check(change, name):
    if type(change) not in _MAKERS:
        raise TypeError(f"{name}: got {change!r}, expected Dust, Film, Damage or HotPixels")
    wrong = None
    if isinstance(change, Film):
        days, depths = change.days, change.depths
        if len(days) != len(depths) or not days or list(days) != sorted(days):
            wrong = "days in order and as many depths"
        elif not all(0 <= depth < 1 for depth in depths):
            wrong = "depths of 0 to less than 1"
        elif change.profile not in ("edge", "patches"):
            wrong = "profile edge or patches"
    elif isinstance(change, Dust):
        if change.form not in ("ring", "spot"):
            wrong = "form ring or spot"
        elif not (0 < change.depth <= 1 and change.radius > 0):
            wrong = "a depth above 0 up to 1 and a radius above 0"
    elif isinstance(change, Damage):
        if not (0 < change.drop <= 1 and change.count >= 1 and change.size >= 1):
            wrong = "a drop above 0 up to 1, count and size of 1 or more"
    elif not (change.rate > 0 and change.count >= 1 and change.spread >= 0 and 0 <= change.annealed <= 1):
        wrong = "a rate above 0, a count of 1 or more, annealed 0 to 1"
    if wrong:
        raise ValueError(f"{name}: got {change}, expected {wrong}")


def _dust(change, shape, _rng):
    where = shape, change.x, change.y, change.radius
    shadow = ring_shadow(*where) / RING_PEAK if change.form == "ring" else spot_shadow(*where)
    return (1 - change.depth * shadow).astype(np.float32)


def _film(change, shape, rng):
    ny, nx = shape
    y, x = np.arange(ny)[:, None] - (ny - 1) / 2, np.arange(nx) - (nx - 1) / 2
    diagonal = np.hypot(ny, nx)
    if change.profile == "edge":
        profile = x**2 + y**2
    else:
        profile = np.zeros(shape)
        places = rng.uniform(
            (-0.5, -0.5, _PATCH_WIDTH[0], 0.4), (0.5, 0.5, _PATCH_WIDTH[1], 1.0), (_PATCHES, 4)
        )
        for x0, y0, width, height in places:
            r2 = (x - x0 * nx) ** 2 + (y - y0 * ny) ** 2
            profile += height * np.exp(-0.5 * r2 / (width * diagonal) ** 2)
    return (profile / max(profile.max(), 1e-30)).astype(np.float32)


def _damage(change, shape, rng):
    ny, nx = shape
    fits = (ny - change.size + 1) * (nx - change.size + 1)
    if change.size > min(shape) or change.count > fits:
        raise ValueError(f"damage: got {change}, expected to fit into {ny} x {nx} pixels")
    start = np.unravel_index(
        rng.choice(fits, change.count, replace=False), (ny - change.size + 1, nx - change.size + 1)
    )
    factor = np.ones(shape, np.float32)
    side = np.arange(change.size)
    factor[start[0][:, None, None] + side[:, None], start[1][:, None, None] + side] = 1 - change.drop
    return factor


def _hot_pixels(change, shape, rng):
    if change.count > shape[0] * shape[1]:
        raise ValueError(f"hot pixels: got {change}, expected to fit into {shape[0]} x {shape[1]} pixels")
    hit = np.unravel_index(rng.choice(shape[0] * shape[1], change.count, replace=False), shape)
    rates = change.rate * np.exp(change.spread * rng.standard_normal(change.count))
    before, after = np.zeros((2, *shape), np.float32)
    before[hit] = rates
    # The first of the (shuffled) pixels anneal.
    rates[: round(change.annealed * change.count)] = 0
    after[hit] = rates
    return before, after


_MAKERS = {Dust: _dust, Film: _film, Damage: _damage, HotPixels: _hot_pixels}
