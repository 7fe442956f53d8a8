"""Tables, pictures, logs and the report of the degradation analysis."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.application import change_figures, change_tables, damage_figures, damage_tables
from utils.application.change_report import save
from utils.application.figure_style import png_bytes
from utils.application.report import context_of, csv_table, write_report
from utils.application.run_record import REPORT
from utils.fits_io.atomic import write_bytes, write_text
from utils.fits_io.naming import counted, label, unique_names
from utils.fits_io.products import iso_time
from utils.kernels import trends

BY_TEMPERATURE, BY_TIME = "analysis_by_temperature", "analysis_by_time_ignore_temp"
SUMMARY, PLANE = "summary_plots", "sensor_plane_outliers"
SUSPICIOUS = {"bias": "suspicious_bias.log", "darks": "suspicious_darks.log"}
SECTIONS = (
    (
        "Damaged pixels",
        "Pixels that differ from the earliest flats by more than the noise of the pair explains.",
    ),
    ("Hot pixels", "Dark current of every session, brought to one temperature: a warm day is no damage."),
    ("Loss of light", "What varies smoothly over the frame: a film, or another pattern of the lamp."),
    ("Flats", "Outliers, mean and standard deviation of every flat."),
    (
        "Difference maps",
        "Mean of an epoch against the earliest flats, smooth part taken out; rings: outliers.",
    ),
)
KINDS = {
    "BIAS_A": "bias used: level at 0 °C",
    "BIAS_B": "bias used: slope",
    "BIAS_COVARIANCE": "bias used: covariance",
    "READ_NOISE": "read noise used",
    "DARK_MAP": "dark of one temperature and exposure",
    "FLAT_NORMALIZED": "one flat over its level",
    "ANALYSIS_FLATS": "each flat against the earliest",
    "ANALYSIS_OUTLIERS": "outlier pixels with their labels",
    "PIXEL_TREND": "slope of every pixel over time",
    "FILM": "smooth loss of each epoch",
    "THROUGHPUT": "loss of light, the lamp's changes taken out",
    "HOT_PIXEL_LEDGER": "history of every hot pixel",
    "HOT_PIXEL_COUNTS": "hot pixels of each session at one temperature",
    "SUSPICIOUS_FRAMES": "bias or darks that are not as the others",
    "REJECTED_FRAMES": "frames left out, with the reason",
    "SUMMARY": "the numbers of this report",
    "REPORT": "this page",
}
TRUST = (
    "Sensor Damage: an outlier at two or more temperatures; Likely Sensor: at one temperature, several times; Temperature:"
    " anything else. Outliers in clusters of many pixels are dust or stains: structure_analysis.py follows these. "
)
UNIFORM = (
    "A loss that is the same all over the frame cannot be told from a weaker lamp: only the part that varies is measured."
    " --reference-csv with the level of the lamp adds the rest."
)


def planned(config):
    """Names of what a run writes, for --dry-run."""
    return (
        ("flats_norm_reduced/" if config.reduce else "flats_norm/",) * config.keep_norm
        + (damage_tables.FLATS, damage_tables.OUTLIERS, "film.csv", "pixel_trends/", *SUSPICIOUS.values())
        + (
            (f"{BY_TEMPERATURE}/", f"{BY_TIME}/", f"{SUMMARY}/", f"{PLANE}/")
            if config.shared.plots != "none"
            else ()
        )
        + (REPORT, "run.json")
    )


@dataclass(frozen=True, eq=False)
class Looker:
    """Draws the difference map of every flat; called in the workers.

    paths : place -> files, against flats of its temperature and of any.  moments : place -> time in words.
    used : (ny, nx) bool, pixels that are looked at.
    """

    paths: dict
    moments: dict
    used: np.ndarray

    def only(self, places):
        """Return the same for the flats at some places, with absolute paths."""
        paths = {place: [Path(os.path.abspath(one)) for one in self.paths[place]] for place in places}
        return replace(self, paths=paths, moments={place: self.moments[place] for place in places})

    def __call__(self, place, across, change, outliers):
        """Draw one flat against the earliest, of its temperature or (across) of any."""
        change = np.where(self.used, change, np.nan)
        where = np.divmod(outliers.pixels, change.shape[1])
        title = f"{self.moments[place]}: {counted(outliers.pixels.size, 'outlier')}"
        figure = damage_figures.difference_map(change, title, *where)
        write_bytes(self.paths[place][across], [png_bytes(figure)])

    def list_products(self, record):
        """Enter the pictures that were drawn into the record, without the report."""
        for path in (path for pair in self.paths.values() for path in pair if path.exists()):
            record.add_product(path, "FIGURE", caption="", section="")


def looker(config, record, made, stage, temperatures, numbers):
    """Return what draws every flat with --plots all, else None."""
    if config.shared.plots != "all":
        return None
    names = damage_tables.stage_labels(temperatures)
    folders = {int(p): names[stage[k]] for k, group in enumerate(made.flats.groups) for p in group.order}
    paths = {}
    for place, (entry, _, _) in damage_tables.frames_of(made.flats).items():
        name = f"diffmap_{numbers[place]:04d}_{Path(entry['original_path']).name.split('.')[0]}.png"
        own = (config.output_dir / BY_TEMPERATURE / folders[place], config.output_dir / BY_TIME)
        paths[place] = [record.claim(folder / name) for folder in own]
    moments = {place: change_tables.moment(made.flats, place) for place in paths}
    return Looker(paths, moments, made.weight > 0)


def write(config, record, campaign, damage):
    """Write tables, logs, pictures and the report."""
    with record.step("report") as step:
        rows = damage_tables.write_flats(config, record, damage)
        damage_tables.write_outliers(config, record, damage)
        damage_tables.write_hot_pixels(config, record, damage, campaign.changes[0].shape)
        damage_tables.write_throughput(config, record, damage)
        change_tables.write_film(config, record, campaign)
        _film_trends(record, damage)
        _write_suspicious(config, record, campaign)
        if config.shared.plots != "none":
            _draw(config, record, damage, rows)
        path = record.claim(config.output_dir / REPORT)
        context = context_of(
            record,
            title="Outgassing and damage",
            program="outgasing_destruction_analysis.py",
            inputs=_inputs(config, campaign),
            sections=SECTIONS,
            tables=_tables(config),
            kinds=KINDS,
        )
        write_report(path, context)
        record.add_product(path, "REPORT")
        step.summary = str(path)


def _film_trends(record, damage):
    """Growth of the smooth loss per day."""
    for found, history in zip(damage.outliers, damage.films, strict=True):
        flats = found.changes.flats
        if history is None or not flats.timed:
            continue
        days = damage_tables.days_of(flats)
        x = np.array([days[found.changes.epoch_of == e].mean() for e in history.epochs])
        line = trends.fit_trend(x, history.depth, history.sigma)
        if line is not None:
            section = f"filter {flats.filter}"
            record.value("growth of the smooth loss", line.slope, "1/day", line.slope_error, section)


def _write_suspicious(config, record, campaign):
    """Bias and darks that the screen left out, or that were found odd."""
    source = campaign.source
    for kind, name in SUSPICIOUS.items():
        paths = {str(entry["original_path"]) for entry in campaign.entries[kind]}
        lines = [f"{path}: {why}" for path, why in (source.rejected if source else ()) if str(path) in paths]
        if source is not None and kind == "bias":
            lines += [text for text in source.warnings if "bias" in text.lower()]
        lines += [
            f"{one['path']}: {one['reason']}" for one in record.rejected if f"/{kind}/" in one["path"].lower()
        ]
        head = f"# {counted(len(paths), 'frame')} looked at, {counted(len(set(lines)), 'remark')}\n"
        path = record.claim(config.output_dir / name)
        write_text(path, head + "".join(f"{line}\n" for line in dict.fromkeys(lines)))
        record.add_product(path, "SUSPICIOUS_FRAMES")


def _draw(config, record, damage, rows):
    out, titles = config.output_dir, [title for title, _ in SECTIONS]
    sets = [found.changes.flats for found in damage.outliers]
    factor, xlabel = change_tables.time_axis(sets)
    for key, words, scale, axis in (
        ("days", "time", factor, xlabel),
        ("temperature", "temperature", 1.0, "temperature [°C]"),
    ):
        figure = damage_figures.outliers_figure(rows, key, scale, axis, f"Outliers against {words}")
        caption = "Outlier pixels of each flat, against the earliest of its temperature and of any."
        save(record, out / SUMMARY / f"outliers_vs_{words}.png", figure, caption, titles[3])
        figure = damage_figures.level_figure(
            rows, key, scale, axis, f"Mean and standard deviation against {words}"
        )
        short = "time" if key == "days" else "temp"
        caption = "Level of each flat above bias and dark, and the standard deviation of its pixels."
        save(record, out / SUMMARY / f"mean_std_vs_{short}.png", figure, caption, titles[3])
    shape = damage.outliers[0].changes.shape
    names = damage_tables.stage_labels(damage.outliers[0].temperatures)
    figure = damage_figures.sensor_plane(shape, damage.rows, "All outlier pixels")
    save(
        record,
        out / PLANE / "all_outliers_sensor_plane.png",
        figure,
        "Where the outlier pixels lie.",
        titles[0],
    )
    for name in names:
        mine = [row for row in damage.rows if name in row["temp_labels"]]
        figure = damage_figures.sensor_plane(shape, mine, f"Outliers at {name[2:].replace('-', '−')} °C")
        path = out / PLANE / f"outliers_{name.replace('_', '', 1)}.png"
        _keep(record, path, figure, f"Outlier pixels at {name[2:]} °C.", titles[0] if mine else None)
    if damage.hot is not None:
        start = iso_time(damage.hot.times.min())[:10]
        days = damage_tables.days_since(damage.hot.times)
        figure = damage_figures.hot_figure(damage.hot, days, f"days since {start}")
        caption = f"Hot: {damage.hot.limit:.3g} ADU/s above the median at {damage.hot.common:.1f} °C, and significantly so."
        save(record, out / SUMMARY / "hot_pixels_vs_time.png", figure, caption, titles[1])
        caption = "Every pixel that was hot in some session."
        save(
            record,
            out / PLANE / "hot_pixels.png",
            damage_figures.hot_map(shape, damage.hot),
            caption,
            titles[1],
        )
    _draw_films(out, record, damage, factor, xlabel, titles[2])
    for found in damage.outliers:
        _draw_epochs(out, record, found, titles[4])


def _draw_films(out, record, damage, factor, xlabel, title):
    histories, days_of = {}, {}
    for found, history in zip(damage.outliers, damage.films, strict=True):
        if history is None:
            continue
        made = found.changes
        histories[made.flats.filter] = history
        days = factor * damage_tables.days_of(made.flats)
        count = int(made.epoch_of.max()) + 1
        days_of[made.flats.filter] = np.array(
            [days[made.epoch_of == e].mean() if (made.epoch_of == e).any() else np.nan for e in range(count)]
        )
        tag = made.flats.filter.replace("/", "_")
        figure = change_figures.film_map_figure(
            history, made.shape, f"Filter {made.flats.filter}: last epoch"
        )
        caption = (
            "Loss of light in cells, from the part of the frame that lost least; damaged pixels left out."
        )
        save(record, out / SUMMARY / f"film_{tag}.png", figure, caption, title)
    if histories:
        figure = change_figures.film_history_figure(histories, days_of, xlabel)
        caption = "Loss where the smooth change is deepest. A film grows; a lamp comes and goes."
        save(record, out / SUMMARY / "film_vs_time.png", figure, caption, title)


def _draw_epochs(out, record, found, title):
    """Difference map of every epoch of every group: against its own reference, and against the earliest of all."""
    made, names = found.changes, damage_tables.stage_labels(found.temperatures)
    facts = {one.place: one for one in found.facts}
    planes = [(k, int(made.owner[k]), int(made.epoch[k])) for k in range(made.count)]
    stems = unique_names(
        [
            f"diffmap_{made.flats.filter.replace('/', '_')}_E{made.flats.groups[g].frames.exposure:g}"
            f"_T{label(made.flats.groups[g].frames.temperature, 1)}_epoch{e}"
            for _, g, e in planes
        ]
    )
    last = {g: k for k, g, _ in planes}
    for (k, index, epoch), stem in zip(planes, stems, strict=True):
        group, link = made.flats.groups[index], found.links[index]
        places = [int(p) for p in group.order[made.epoch_of[group.order] == epoch]]
        change = made.plane_rows(k, 0, made.shape[0])
        if made.surfaces[k] is not None:
            change -= made.surfaces[k].rows(0, made.shape[0])
        change[made.weight <= 0] = np.nan
        what = f"{change_figures.group_name(group, made.flats.filter)}: {change_tables.moment(made.flats, places[0])[:16]}"
        # The report shows the last epoch of each group; all maps are in their folders.
        section = title if k == last[index] else None
        first = epoch == made.results[index].epochs[0]
        if not first:
            path = out / BY_TEMPERATURE / names[found.stage[index]] / f"{stem}.png"
            _draw_one(record, path, change, what, [facts[p].own for p in places], section, "its temperature")
        if link.change is not None:
            _draw_one(
                record, out / BY_TIME / f"{stem}.png", change + link.change, what,
                [facts[p].across for p in places], None if first else section, "any temperature",
            )  # fmt: skip
        elif not first:
            _draw_one(
                record,
                out / BY_TIME / f"{stem}.png",
                change,
                what,
                [facts[p].across for p in places],
                None,
                "",
            )


def _draw_one(record, path, change, what, outliers, section, against):
    pixels = np.unique(np.concatenate([one.pixels for one in outliers]))
    figure = damage_figures.difference_map(change, what, *np.divmod(pixels, change.shape[1]))
    _keep(record, path, figure, f"Against the earliest flats of {against}.", section)


def _keep(record, path, figure, caption, section):
    """Write a picture; it is in the report where it has a section."""
    if section:
        save(record, path, figure, caption, section)
    else:
        record.claim(path)
        write_bytes(path, [png_bytes(figure)])
        record.add_product(path, "FIGURE", caption="", section="")


def _inputs(config, campaign):
    count = sum(one.count for one in campaign.sets)
    sources = ", ".join(f"{name} ({counted(n, 'flat')})" for name, n in campaign.time_sources.items())
    reduced = (
        "bias and dark subtracted"
        if config.reduce
        else "not calibrated: the level of the bias alone is subtracted"
    )
    tail = "" if config.reference_csv is not None else UNIFORM
    return f"{counted(count, 'flat')}, {reduced}. Times from {sources}. {TRUST}{tail}"


def _tables(config):
    out, (damaged, hot, light, _, _) = config.output_dir, (title for title, _ in SECTIONS)
    names = (
        "pixel",
        "classification",
        "num_occurrences",
        "temp_labels",
        "change",
        "cluster",
        "slope",
        "slope_error",
        "hot_pixel",
    )
    found = csv_table(
        out / damage_tables.OUTLIERS, {name: name for name in names}, section=damaged, title="Outlier pixels"
    )
    for name, columns, section, title in (
        (damage_tables.HOT_COUNTS, damage_tables.COUNT_COLUMNS, hot, "Hot pixels of each session"),
        (damage_tables.HOT, damage_tables.HOT_COLUMNS, hot, "Ledger of hot pixels"),
        (change_tables.FILM, change_tables.FILM_COLUMNS, light, "Smooth loss of each epoch"),
        (
            damage_tables.THROUGHPUT,
            damage_tables.THROUGHPUT_COLUMNS,
            light,
            "Loss with the lamp's changes taken out",
        ),
    ):
        found += csv_table(out / name, {one: one for one in columns}, section=section, title=title)
    return found
