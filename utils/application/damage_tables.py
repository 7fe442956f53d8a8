"""Tables of the degradation analysis: flats, outlier pixels, hot pixels, throughput."""

import itertools

import numpy as np

from utils.application.change_tables import DAY, days_of, frames_of, moment
from utils.fits_io.atomic import write_csv
from utils.fits_io.naming import label, unique_names
from utils.fits_io.products import iso_time
from utils.kernels import pixel_damage

FLATS, OUTLIERS, HOT, HOT_COUNTS, THROUGHPUT = (
    "analysis_flats.csv",
    "analysis_outliers.csv",
    "hot_pixel_ledger.csv",
    "hot_pixel_counts.csv",
    "throughput.csv",
)
BY_TEMPERATURE, BY_TIME = "by_temperature", "by_time_ignore_temp"
FLAT_COLUMNS = (
    *(
        "analysis_type",
        "approx_temp",
        "file_path",
        "time_header",
        "n_outliers",
        "std_diff",
        "mean_flat",
        "std_flat",
    ),
    *("std_expected", "exposure", "filter", "temperature", "epoch", "days"),
)
OUTLIER_COLUMNS = (
    *("pixel", "num_occurrences", "temp_labels", "times", "classification"),
    *("row", "column", "change", "cluster", "slope", "slope_error", "slope_significance", "hot_pixel"),
)
HOT_COLUMNS = (
    *("row", "column", "status", "born", "annealed", "rate_before", "rate_hot", "rate_after"),
    *("error_before", "error_hot", "error_after", "significance", "sessions_hot"),
)
COUNT_COLUMNS = (
    "session",
    "time",
    "temperature",
    "common_temperature",
    "exposures",
    "hot_pixels",
    "limit",
    "median_rate",
)
THROUGHPUT_COLUMNS = ("filter", "epoch", "time", "mean_loss", "mean_loss_error", "uniform_loss")

__all__ = ["days_of", "frames_of"]


def numbers_of(sets):
    """Give every flat of all filters its own number, from 1: list (a set) of dict place -> number."""
    count, found = itertools.count(1), []
    for one in sets:
        found.append({place: next(count) for place in sorted(frames_of(one))})
    return found


def stage_labels(temperatures):
    """Name the temperatures: 'T_-5.0', never two alike."""
    return unique_names([f"T_{label(one, 1)}" for one in temperatures])


def classified(outliers):
    """Label all outlier pixels of all filters.

    Returns rows as `pixel_damage.classify_outliers`, with the mean ``change`` and the size of its
    ``cluster``.
    """
    seen, total = {}, {}
    for found in outliers:
        names, nx = stage_labels(found.temperatures), found.changes.shape[1]
        stage = {
            int(p): names[found.stage[k]] for k, g in enumerate(found.changes.flats.groups) for p in g.order
        }
        for one in found.facts:
            if one.place in found.odd:
                continue
            time = moment(found.changes.flats, one.place)
            for name, own in ((stage[one.place], one.own), (pixel_damage.IGNORING, one.across)):
                occurrence = (name, time)
                for pixel, change in zip(own.pixels.tolist(), own.change.tolist(), strict=True):
                    key = divmod(pixel, nx)
                    seen.setdefault(key, set()).add(occurrence)
                    if name != pixel_damage.IGNORING or key not in total:
                        total.setdefault(key, []).append(change)
    rows = pixel_damage.classify_outliers([seen])
    places = np.array([row["pixel"] for row in rows], int).reshape(-1, 2)
    clusters = pixel_damage.cluster_sizes(*places.T, outliers[0].changes.shape) if rows else ()
    for row, cluster in zip(rows, clusters, strict=True):
        row["change"], row["cluster"] = float(np.mean(total[row["pixel"]])), int(cluster)
    return rows


def write_flats(config, record, damage):
    """Write analysis_flats.csv: a row for each flat and comparison; returns the rows."""
    rows = []
    for found in damage.outliers:
        flats, names = found.changes.flats, stage_labels(found.temperatures)
        frames, days = frames_of(flats), days_of(flats)
        stage = {int(p): found.stage[k] for k, g in enumerate(flats.groups) for p in g.order}
        for kind in (BY_TEMPERATURE, BY_TIME):
            for one in found.facts:
                entry, group, _ = frames[one.place]
                own = one.own if kind == BY_TEMPERATURE else one.across
                rows.append(
                    {
                        "analysis_type": kind,
                        "approx_temp": names[stage[one.place]].removeprefix("T_"),
                        "file_path": entry["original_path"],
                        "time_header": moment(flats, one.place),
                        "n_outliers": own.pixels.size,
                        "std_diff": float(f"{own.scatter:.6g}"),
                        "mean_flat": float(f"{one.mean:.7g}"),
                        "std_flat": float(f"{one.spread:.6g}"),
                        "std_expected": float(
                            f"{one.expected if kind == BY_TEMPERATURE else one.expected_across:.6g}"
                        ),
                        "exposure": group.frames.exposure,
                        "filter": flats.filter,
                        "temperature": entry["temperature"],
                        "epoch": int(found.changes.epoch_of[one.place]),
                        "days": float(f"{days[one.place]:.6f}"),
                    }
                )
    write_table(record, config.output_dir / FLATS, rows, FLAT_COLUMNS, "ANALYSIS_FLATS")
    return rows


def write_outliers(config, record, damage):
    """Write analysis_outliers.csv: a row for each outlier pixel, the damaged ones first."""
    hot = {}
    if damage.hot is not None:
        nx = damage.outliers[0].changes.shape[1]
        hot = {
            divmod(int(p), nx): str(s)
            for p, s in zip(damage.hot.pixels, damage.hot.ledger.status, strict=True)
        }
    rows = []
    for one in damage.rows:
        slope, sigma = _best_slope(damage.slopes, one["pixel"])
        row = {
            **one,
            "pixel": f"({one['pixel'][0]}, {one['pixel'][1]})",
            "temp_labels": ";".join(one["temp_labels"]),
            "times": ";".join(str(time) for time in one["times"]),
            "row": one["pixel"][0],
            "column": one["pixel"][1],
            "change": float(f"{one['change']:.4g}"),
            "hot_pixel": hot.get(one["pixel"], ""),
        }
        if sigma is not None:
            row["slope"], row["slope_error"] = float(f"{slope:.4g}"), float(f"{sigma:.3g}")
            row["slope_significance"] = round(slope / sigma, 2)
        rows.append(row)
    write_table(record, config.output_dir / OUTLIERS, rows, OUTLIER_COLUMNS, "ANALYSIS_OUTLIERS")
    return rows


def _best_slope(slopes, pixel):
    """Weighted mean slope of a pixel over the filters, and its error; None where none tells."""
    known = [(float(slope[pixel]), float(sigma[pixel])) for slope, sigma in filter(None, slopes)]
    known = [(value, error) for value, error in known if np.isfinite(value) and error > 0]
    if not known:
        return None, None
    weight = np.array([error**-2.0 for _, error in known])
    return float(np.average([value for value, _ in known], weights=weight)), float(weight.sum() ** -0.5)


def write_hot_pixels(config, record, damage, shape):
    """Write hot_pixel_ledger.csv and hot_pixel_counts.csv."""
    hot = damage.hot
    if hot is None:
        return
    ledger, times = hot.ledger, [iso_time(one)[:19] for one in hot.times]
    rows = []
    for k, pixel in enumerate(hot.pixels):
        row = {
            "row": int(pixel) // shape[1],
            "column": int(pixel) % shape[1],
            "status": str(ledger.status[k]),
        }
        for name, epoch in (("born", ledger.born[k]), ("annealed", ledger.annealed[k])):
            row[name] = times[epoch] if epoch >= 0 else ""
        for name, value, error in zip(
            ("before", "hot", "after"),
            (ledger.before[k], ledger.during[k], ledger.after[k]),
            ledger.errors[:, k],
            strict=True,
        ):
            if np.isfinite(value):
                row[f"rate_{name}"], row[f"error_{name}"] = float(f"{value:.5g}"), float(f"{error:.3g}")
        row["significance"] = round(float(ledger.significance[k]), 1)
        row["sessions_hot"] = int(ledger.hot[:, k].sum())
        rows.append(row)
    write_table(record, config.output_dir / HOT, rows, HOT_COLUMNS, "HOT_PIXEL_LEDGER")
    counts = [
        {
            "session": k,
            "time": times[k],
            "temperature": round(float(hot.temperatures[k]), 2),
            "common_temperature": round(hot.common, 2),
            "exposures": hot.exposures[k],
            "hot_pixels": int(ledger.hot[k].sum()),
            "limit": float(f"{hot.limit:.4g}"),
            "median_rate": float(f"{hot.medians[k]:.4g}"),
        }
        for k in range(len(times))
    ]
    write_table(record, config.output_dir / HOT_COUNTS, counts, COUNT_COLUMNS, "HOT_PIXEL_COUNTS")


def write_throughput(config, record, damage):
    """Write throughput.csv: losses with the lamp's own changes taken out, where --reference-csv tells these."""
    if not any(one is not None for one in damage.throughputs):
        return
    rows = []
    for found, own in zip(damage.outliers, damage.throughputs, strict=True):
        flats = found.changes.flats
        for k, epoch in enumerate(() if own is None else own.epochs):
            place = int(np.flatnonzero(found.changes.epoch_of == epoch)[0])
            rows.append(
                {
                    "filter": flats.filter,
                    "epoch": int(epoch),
                    "time": moment(flats, place),
                    "mean_loss": float(f"{own.mean[k]:.5g}"),
                    "mean_loss_error": float(f"{own.sigma[k]:.3g}"),
                    "uniform_loss": float(f"{own.undisturbed[k]:.5g}")
                    if np.isfinite(own.undisturbed[k])
                    else "",
                }
            )
        if own is not None and own.epochs.size:
            record.value(
                "loss of the mean, last epoch",
                own.mean[-1],
                "",
                own.sigma[-1],
                section=f"filter {flats.filter}",
            )
    write_table(record, config.output_dir / THROUGHPUT, rows, THROUGHPUT_COLUMNS, "THROUGHPUT")


def write_table(record, path, rows, columns, prodtype):
    """Write a CSV file and list it."""
    record.claim(path)
    write_csv(path, [{key: row.get(key, "") for key in columns} for row in rows], columns)
    record.add_product(path, prodtype)


def days_since(times):
    """Days since the first of Unix times [s]."""
    return (np.asarray(times) - np.min(times)) / DAY
