"""An independent measure of the lamp over time: it adds the uniform part of a loss, which flats alone cannot tell."""

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.kernels import trends


@dataclass(frozen=True, eq=False)
class LightReference:
    """Level of the light, in any unit, at Unix times [s]; (n,) each, in order of time."""

    times: np.ndarray
    levels: np.ndarray
    path: Path

    def at(self, times):
        """Level at some times, between the readings in proportion; NaN before the first and after the last."""
        return np.interp(times, self.times, self.levels, left=math.nan, right=math.nan)


def load_reference(path):
    """Read a CSV file with the columns time (Unix seconds, or ISO date in UTC) and level.

    Raises InputError, naming the line, for what cannot be read.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
            if not {"time", "level"} <= set(names):
                raise InputError(f"{path}: got columns {', '.join(names) or 'none'}, expected time, level")
            found = sorted(
                (_time(row[names["time"]], path, number), _level(row[names["level"]], path, number))
                for number, row in enumerate(rows, 2)
            )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(error).split())}), expected a CSV file"
        ) from None
    if not found:
        raise InputError(f"{path}: got no row, expected time, level of the light")
    times, levels = (np.array(column) for column in zip(*found, strict=True))
    return LightReference(times, levels, path)


def _time(text, path, number):
    text = (text or "").strip()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{path}: line {number}: time {text!r}, expected Unix seconds or an ISO date"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _level(text, path, number):
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{path}: line {number}: level {text!r}, expected a number above 0")
    return value


@dataclass(frozen=True, eq=False)
class Throughput:
    """Throughput of the epochs of one filter against the first one.

    epochs : (k,) int.  mean : (k,) loss of the frame's
    mean, sigma : its error from the scatter of the flats.  undisturbed : (k,) loss of the part that the smooth changes
    left alone, NaN where these are not known.
    """

    epochs: np.ndarray
    mean: np.ndarray
    sigma: np.ndarray
    undisturbed: np.ndarray


def throughput(made, reference, history=None):
    """Loss of light of each epoch of a set, the lamp's own changes taken out; None where nothing can be compared.

    made : `SetChanges`.  reference : `LightReference`.  history : `FilmHistory` or None.
    """
    value, group, epoch, count, scatter = [], [], [], [], []
    for number, own in enumerate(made.flats.groups):
        level = np.log(own.levels / reference.at(made.flats.times[own.order]))
        for e in np.unique(made.epoch_of[own.order]):
            mine = level[made.epoch_of[own.order] == e]
            mine = mine[np.isfinite(mine)]
            if mine.size:
                value.append(mine.mean())
                group.append(number)
                epoch.append(e)
                count.append(mine.size)
                scatter += [(mine - mine.mean()) ** 2]
    dof = sum(one.size - 1 for one in scatter)
    if np.unique(epoch).size < 2 or dof < 1:
        return None
    variance = max(float(sum(one.sum() for one in scatter)) / dof, 1e-12)
    group, epoch = np.array(group), np.array(epoch)
    level, cov = trends.epoch_levels(np.array(value), group, epoch, np.array(count) / variance)
    first = int(epoch.min())
    known = [e for e in np.unique(epoch) if e != first and np.isfinite(level[e]) and np.isfinite(cov[e, e])]
    mean = -np.expm1(level[known])
    undisturbed = np.full(len(known), np.nan)
    if history is not None and first == int(made.epoch.min()):
        for k, e in enumerate(known):
            for own, one in zip(history.epochs, history.maps, strict=True):
                if own == e:
                    weight = np.where(np.isfinite(one.loss), 1.0, 0.0)
                    film = float((np.nan_to_num(one.loss) * weight).sum() / weight.sum())
                    undisturbed[k] = mean[k] - film
    return Throughput(np.array(known), mean, np.sqrt(np.diag(cov)[known]), undisturbed)
