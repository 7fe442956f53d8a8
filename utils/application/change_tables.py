"""Tables of what changed: regions, what each flat shows, trends, smooth loss."""

from datetime import UTC, datetime

import numpy as np

from utils.application import change_figures as figures
from utils.fits_io.atomic import write_csv
from utils.kernels import trends

DAY = 86400.0
REGIONS, DETECTIONS, TREND, FITS, FILM = (
    "regions.csv",
    "detections.csv",
    "trends.csv",
    "trend_fits.csv",
    "film.csv",
)
REGION_COLUMNS = (
    *("id", "x", "y", "area", "depth", "significance", "first_seen", "last_seen", "frames"),
    *("filter", "kind", "depth_error", "last_without", "rows", "columns"),
)
DETECTION_COLUMNS = ("file", "time", "T", "exposure", "filter", "regions", "significance", "region_ids")
TREND_COLUMNS = (
    *(
        "file",
        "time",
        "days",
        "T",
        "exposure",
        "filter",
        "group",
        "epoch",
        "level",
        "level_per_s",
        "relative_level",
    ),
    *("scatter", "noise"),
)
FIT_COLUMNS = ("group", "quantity", "against", "slope", "error", "unit", "significance", "chi2_red", "points")
FILM_COLUMNS = (
    "filter",
    "epoch",
    "time",
    "depth",
    "depth_error",
    "uneven",
    "beyond_tilt",
    "tilt_y",
    "tilt_x",
)


def number_regions(campaign):
    """Ids of the regions of each set, from 1, the most significant first in each."""
    ids, number = [], 1
    for found in campaign.found:
        ids.append(list(range(number, number + len(found))))
        number += len(found)
    return ids


def moment(flats, place):
    """Time of a frame as text: UTC, or the number of its file."""
    if not flats.timed:
        return f"file {int(place) + 1}"
    text = datetime.fromtimestamp(float(flats.times[place]), UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "").removesuffix(".000")


def days_of(flats):
    """Days since the first flat of a filter, or numbers of files, (n,)."""
    return (flats.times - flats.times.min()) / DAY if flats.timed else flats.times + 1.0


def time_axis(sets):
    """Factor from `days_of` to a unit that suits the longest of the sets, and what to write at the axis."""
    if not all(one.timed for one in sets):
        return 1.0, "file, in order"
    span = max(float(days_of(one).max()) for one in sets)
    factor, unit = next(
        (f, name)
        for f, name, least in ((1.0, "days", 2.0), (24.0, "hours", 2 / 24), (1440.0, "minutes", 0.0))
        if span >= least
    )
    start = min((moment(one, int(np.argmin(one.times))) for one in sets), default="")
    return factor, f"{unit} since {start[:10] if factor == 1 else start[:16]}"


def frames_of(flats):
    """Entry, group and place in the group of every frame of a filter, in order of time: dict place -> (entry, group, k)."""
    return {
        int(place): (entry, group, k)
        for group in flats.groups
        for k, (place, entry) in enumerate(zip(group.order, group.frames.entries, strict=True))
    }


def write_regions(config, record, campaign, ids):
    """Write regions.csv: one row a region, depth as the part of the light that it takes."""
    rows = []
    for made, found, names in zip(campaign.changes, campaign.found, ids, strict=True):
        flats = made.flats
        for one, name in zip(found, names, strict=True):
            known = np.flatnonzero(np.isfinite(one.values))
            first, last = known[one.life.first], known[one.life.last]
            before = known[one.life.first - 1] if one.life.first > 0 else None
            region = one.region
            rows.append(
                {
                    "id": name,
                    "x": round(region.x, 2),
                    "y": round(region.y, 2),
                    "area": region.area,
                    "depth": float(f"{-one.life.depth:.5g}"),
                    "significance": round(abs(region.significance), 2),
                    "first_seen": moment(flats, first),
                    "last_seen": moment(flats, last),
                    "frames": one.life.frames,
                    "filter": flats.filter,
                    "kind": region.kind if one.life.depth < 0 else f"brighter {region.kind}",
                    "depth_error": float(f"{one.life.sigma:.3g}"),
                    "last_without": "" if before is None else moment(flats, before),
                    "rows": f"{region.rows.min()}-{region.rows.max()}",
                    "columns": f"{region.columns.min()}-{region.columns.max()}",
                }
            )
    _csv(record, config.output_dir / REGIONS, rows, REGION_COLUMNS, "REGIONS")


def write_detections(config, record, campaign, ids):
    """Write detections.csv: one row a flat; returns the rows."""
    rows = []
    for made, found, names in zip(campaign.changes, campaign.found, ids, strict=True):
        present = np.array([one.present() for one in found]).reshape(len(found), made.flats.times.size)
        pull = np.array([_pull(one) for one in found]).reshape(present.shape)
        for place, (entry, group, _) in sorted(frames_of(made.flats).items()):
            mine = np.flatnonzero(present[:, place])
            rows.append(
                {
                    "file": entry["original_path"],
                    "time": moment(made.flats, place),
                    "T": entry["temperature"],
                    "exposure": group.frames.exposure,
                    "filter": made.flats.filter,
                    "regions": mine.size,
                    "significance": round(float(np.max(pull[mine, place], initial=0.0)), 2),
                    "region_ids": ";".join(str(names[k]) for k in mine),
                }
            )
    _csv(record, config.output_dir / DETECTIONS, rows, DETECTION_COLUMNS, "DETECTIONS")
    return rows


def _pull(one):
    """Significance of a region in every frame alone, against the frames without it."""
    outside = np.isfinite(one.values) & ~one.present()
    base = np.average(one.values[outside], weights=one.sigmas[outside] ** -2.0) if outside.any() else 0.0
    return np.nan_to_num(np.abs(one.values - base) / one.sigmas)


def write_trends(config, record, campaign):
    """Level and scatter of every flat, and lines through them over time and temperature."""
    rows, fits, lines = [], [], []
    for made in campaign.changes:
        days = days_of(made.flats)
        for group in made.flats.groups:
            name = figures.group_name(group, made.flats.filter)
            epoch = made.epoch_of[group.order]
            first = float(group.levels[epoch == epoch.min()].mean())
            own = [
                {
                    "file": entry["original_path"],
                    "time": moment(made.flats, place),
                    "days": float(f"{days[place]:.6f}"),
                    "T": entry["temperature"],
                    "exposure": group.frames.exposure,
                    "filter": made.flats.filter,
                    "group": name,
                    "epoch": int(made.epoch_of[place]),
                    "level": float(f"{group.levels[k]:.6g}"),
                    "level_per_s": float(f"{group.levels[k] / max(group.frames.exposure, 1e-12):.6g}"),
                    "relative_level": float(f"{group.levels[k] / first:.7g}"),
                    "scatter": float(f"{group.scatter[k]:.6g}"),
                    "noise": float(f"{np.sqrt(group.noise[k].variance):.4g}"),
                }
                for k, (place, entry) in enumerate(zip(group.order, group.frames.entries, strict=True))
            ]
            rows += own
            found, drawn = _fits(own, name, made.flats.timed)
            fits += found
            lines.append(drawn)
    _csv(record, config.output_dir / TREND, rows, TREND_COLUMNS, "TRENDS")
    _csv(record, config.output_dir / FITS, fits, FIT_COLUMNS, "TREND_FITS")
    return rows, lines


def _fits(rows, name, timed):
    """Lines over time and temperature of one group, as rows of the table and for drawing.

    Flats of one epoch share the state of the lamp: their mean is one point, and the scatter of the points gives the errors.
    """
    epochs = sorted({row["epoch"] for row in rows})
    means = {
        key: np.array([np.mean([row[key] for row in rows if row["epoch"] == e]) for e in epochs])
        for key in ("days", "T", "relative_level", "scatter")
    }
    found, drawn = [], {"group": name, "time": {}, "T": {}}
    unit = "1/day" if timed else "1/file"
    for quantity in ("relative_level", "scatter"):
        y = means[quantity]
        weight = np.full(y.size, 1e-9)  # The points' own scatter sets the errors, which are widened by it.
        for against, key, per in (("time", "days", unit), ("temperature", "T", "1/K")):
            line = trends.fit_trend(means[key], y, weight)
            if line is not None:
                found.append(_fit_row(name, quantity, against, line.slope, line.slope_error, per, line.n))
                drawn["time" if key == "days" else "T"][quantity] = line
        both = trends.fit_two_causes(means["days"], means["T"], y, weight)
        if both is not None:
            for against, per, slope, error in zip(
                ("time (temperature held)", "temperature (time held)"),
                (unit, "1/K"),
                both.slopes,
                both.errors,
                strict=True,
            ):
                found.append(_fit_row(name, quantity, against, slope, error, per, both.n))
    return found, drawn


def _fit_row(name, quantity, against, slope, error, unit, n):
    return {
        "group": name,
        "quantity": "level / first epoch" if quantity == "relative_level" else "scatter / level",
        "against": against,
        "slope": float(f"{slope:.4g}"),
        "error": float(f"{error:.3g}"),
        "unit": unit,
        "significance": round(float(slope / error), 2) if error > 0 else "",
        "points": n,
    }


def write_film(config, record, campaign):
    """Write film.csv: smooth loss of each epoch; the last one into the summary."""
    rows = []
    for made, history in zip(campaign.changes, campaign.films, strict=True):
        if history is None:
            continue
        for k, (epoch, one) in enumerate(zip(history.epochs, history.maps, strict=True)):
            place = int(np.flatnonzero(made.epoch_of == epoch)[0])
            rows.append(
                {
                    "filter": made.flats.filter,
                    "epoch": int(epoch),
                    "time": moment(made.flats, place),
                    "depth": round(float(history.depth[k]), 7) + 0.0,
                    "depth_error": float(f"{history.sigma[k]:.3g}"),
                    "uneven": round(one.uneven, 2),
                    "beyond_tilt": round(one.beyond_tilt, 2),
                    "tilt_y": float(f"{one.tilt[0]:.4g}"),
                    "tilt_x": float(f"{one.tilt[1]:.4g}"),
                }
            )
        last, section = history.maps[-1], f"filter {made.flats.filter}"
        record.value(
            "smooth loss, deepest tenth of the frame",
            float(history.depth[-1]),
            "",
            float(history.sigma[-1]),
            section,
        )
        record.value(
            "smooth loss beyond a tilt of the light", float(last.beyond_tilt), "sigma", section=section
        )
    _csv(record, config.output_dir / FILM, rows, FILM_COLUMNS, "FILM")


def _csv(record, path, rows, columns, prodtype):
    record.claim(path)
    write_csv(path, [{key: row.get(key, "") for key in columns} for row in rows], columns)
    record.add_product(path, prodtype)
