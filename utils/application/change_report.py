"""Tables, maps, pictures and the report of what changed."""

import numpy as np

from utils.application import change_figures as figures
from utils.application import change_tables
from utils.application.log import LOGGER
from utils.application.report import context_of, csv_table, write_report
from utils.application.run_record import REPORT
from utils.domain.frame_groups import FrameGroup
from utils.fits_io.atomic import write_bytes
from utils.fits_io.naming import counted, label, unique_names
from utils.fits_io.products import DQ, write_product

MAPS, FIGURES = "difference_maps", "figures"
SECTIONS = (
    ("Changed regions", "Connected regions that at least two flats show, against the flats without them."),
    (
        "Smooth changes",
        "Loss of light that varies smoothly over the frame: a film, or another pattern of the lamp.",
    ),
    ("Trends", "Level and scatter of the flats over time and temperature."),
    ("Difference maps", "Latest flats of each group against its earliest."),
)
KINDS = {
    "BIAS_A": "bias used: level at 0 °C",
    "BIAS_B": "bias used: slope",
    "BIAS_COVARIANCE": "bias used: covariance",
    "READ_NOISE": "read noise used",
    "DARK_MAP": "dark of one temperature and exposure",
    "DIFFERENCE_MAP": "difference to the earliest flats [adu], ratio, error",
    "REGIONS": "changed regions",
    "DETECTIONS": "what each flat shows",
    "TRENDS": "level and scatter of each flat",
    "TREND_FITS": "trends with errors",
    "FILM": "smooth loss of each epoch",
    "REJECTED_FRAMES": "frames left out, with the reason",
    "SUMMARY": "the numbers of this report",
    "REPORT": "this page",
}
TRUST = (
    "A loss that is the same all over the frame cannot be told from a weaker lamp, and is not measured here; a tilt of the"
    " light is what a lamp makes that moved, and what a film makes on one side. The number of regions expected by chance"
    " counts noise alone: a lamp whose pattern changes makes more."
)


def write(config, record, campaign):
    """Write all products of an analysis whose sets were compared.

    Writes: regions.csv, detections.csv, trends.csv, trend_fits.csv, film.csv, difference_maps/, figures/, report.html.
    """
    with record.step("report") as step:
        ids = change_tables.number_regions(campaign)
        change_tables.write_regions(config, record, campaign, ids)
        rows = change_tables.write_detections(config, record, campaign, ids)
        table, fits = change_tables.write_trends(config, record, campaign)
        change_tables.write_film(config, record, campaign)
        _write_maps(config, record, campaign, ids)
        if config.shared.plots != "none":
            _draw(config, record, campaign, ids, rows, table, fits)
        path = record.claim(config.output_dir / REPORT)
        context = context_of(
            record,
            title="Structure analysis",
            program="structure_analysis.py",
            inputs=_inputs(config, campaign),
            sections=SECTIONS,
            tables=_tables(config),
            kinds=KINDS,
        )
        write_report(path, context)
        record.add_product(path, "REPORT")
        step.summary = str(path)
    if config.show:
        _show(record)


def _write_maps(config, record, campaign, ids):
    """Difference, ratio and error of the latest epoch of each group (of all with --plots all) against its earliest."""
    for made in campaign.changes:
        wanted = []
        for family in np.unique(made.group):
            mine = np.flatnonzero(made.group == family)
            chosen = mine[1:] if config.shared.plots == "all" else mine[1:][-1:]
            wanted += [(made.flats.groups[made.owner[k]], k, mine[0]) for k in chosen]
        names = unique_names(
            [
                f"diff_{m.replace('/', '_')}_T{label(g.frames.temperature, 1)}_E{g.frames.exposure:g}_epoch{made.epoch[k]}"
                for m, (g, k, _) in zip([made.flats.filter] * len(wanted), wanted, strict=True)
            ]
        )
        for (group, k, first), name in zip(wanted, names, strict=True):
            path = record.claim(config.output_dir / MAPS / f"{name}.fits")
            _write_map(path, made, group, int(k), int(first))
            record.add_product(path, "DIFFERENCE_MAP")


def _write_map(path, made, group, k, first):
    change = made.plane(k)
    bad = made.weight <= 0
    reference = made.results[made.owner[first]].reference
    earliest = made.flats.groups[made.owner[first]]
    early = np.flatnonzero(made.epoch_of[earliest.order] == made.epoch[first])
    late = np.flatnonzero(made.epoch_of[group.order] == made.epoch[k])
    level = float(earliest.levels[early].mean())
    scale = reference * np.float32(level)
    variance = 1.0 / made.information[k] + 1.0 / made.information[first]
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(np.float32(variance) / made.weight)
    dq = np.zeros(made.shape, np.int16)
    dq[bad] = DQ.DO_NOT_USE
    change[bad] = np.nan
    both = (earliest.frames.subset(early), group.frames.subset(late))
    mine = FrameGroup([e for one in both for e in one.entries], [i for one in both for i in one.images])
    cards = {
        **mine.cards(),
        "FILTER": (made.flats.filter, "filter"),
        "NREF": (early.size, "earliest flats, the reference"),
        "NNEW": (late.size, "latest flats"),
        "REFLEVEL": (level, "[adu] level of the reference above the pedestal"),
        "PEDESTAL": (group.origin[:60], "what was subtracted"),
    }
    write_product(
        path,
        change * scale,
        prodtype="DIFFERENCE_MAP",
        unit="adu",
        cards=cards,
        uncert=np.where(bad, np.nan, sigma * scale),
        dq=dq,
        inputs=mine.inputs([entry["datasum"] for entry in mine.entries]),
        extra=[("RATIO", change + np.float32(1.0), "")],
    )


def _draw(config, record, campaign, ids, rows, table, lines):
    """Pictures of the report."""
    folder = config.output_dir / FIGURES

    def add(name, figure, caption, section):
        save(record, folder / f"{name}.png", figure, caption, section)

    titles = [title for title, _ in SECTIONS]
    histories, epoch_days = {}, {}
    factor, xlabel = change_tables.time_axis([made.flats for made in campaign.changes])
    for made, found, names, history in zip(
        campaign.changes, campaign.found, ids, campaign.films, strict=True
    ):
        days = factor * change_tables.days_of(made.flats)
        tag = made.flats.filter.replace("/", "_")
        if found:
            figure = figures.region_histories(found, names, days, xlabel)
            add(
                f"regions_{tag}",
                figure,
                "Change of the most significant regions in each flat, and the step found.",
                titles[0],
            )
        for index in np.unique(made.group):
            mine = np.flatnonzero(made.group == index)
            for k in mine[1:] if config.shared.plots == "all" else mine[1:][-1:]:
                group = made.flats.groups[made.owner[k]]
                change = made.plane(int(k))
                change[made.weight <= 0] = np.nan
                seen = [
                    (one.region, name)
                    for one, name in zip(found, names, strict=True)
                    if _in_epoch(made, one, int(k))
                ]
                regions, own = zip(*seen, strict=True) if seen else ((), ())
                what = figures.group_name(group, made.flats.filter)
                title = f"{what}: epoch {made.epoch[k]} against {made.epoch[mine[0]]}"
                figure = figures.change_map(change, title, regions, own)
                name = unique_names([f"diff_{tag}_{index}_epoch{made.epoch[k]}"])[0]
                caption = "Change against the earliest flats. Frames: regions of regions.csv; blue is darker."
                add(name, figure, caption, titles[3])
        if history is not None:
            histories[made.flats.filter] = history
            epoch_days[made.flats.filter] = np.array(
                [
                    days[made.epoch_of == e].mean() if (made.epoch_of == e).any() else np.nan
                    for e in range(made.epoch_of.max() + 1)
                ]
            )
            title = f"Filter {made.flats.filter}: smooth loss, last epoch against first"
            figure = figures.film_map_figure(history, made.shape, title)
            add(
                f"film_{tag}",
                figure,
                "Loss of light in cells, from the part of the frame that lost least.",
                titles[1],
            )
    if histories:
        add(
            "film_history",
            figures.film_history_figure(histories, epoch_days, xlabel),
            "Loss where the smooth change is deepest. A film grows; a lamp comes and goes.",
            titles[1],
        )
    for key, words in (("days", "time"), ("T", "temperature")):
        drawn = [{"group": one["group"], **one["time" if key == "days" else "T"]} for one in lines]
        axis = xlabel if key == "days" else "temperature [°C]"
        figure = figures.level_figure(
            table, key, axis, f"Level and scatter against {words}", drawn, factor if key == "days" else 1.0
        )
        add(
            f"trend_{words}",
            figure,
            "Each flat, and a line through the means of the epochs of each group.",
            titles[2],
        )
    if len(rows) > 1 and len(campaign.changes) == 1:
        days = factor * np.sort([row["days"] for row in table])
        figure = figures.detections_figure(
            days, [r["regions"] for r in rows], [r["significance"] for r in rows], xlabel
        )
        add("detections", figure, "Regions present in each flat.", titles[0])


def _in_epoch(made, one, plane):
    """Whether a region was there in the epoch of a plane."""
    return bool(one.present()[made.epoch_of == made.epoch[plane]].any())


def save(record, path, figure, caption, section):
    """Write one figure and list it."""
    from utils.application.figure_style import png_bytes

    record.claim(path)
    write_bytes(path, [png_bytes(figure)])
    record.add_figure(path, caption, section=section)


def _inputs(config, campaign):
    """Tell what went in, where the times are from, and what the result cannot say."""
    count = sum(one.count for one in campaign.sets)
    sources = ", ".join(f"{name} ({counted(n, 'flat')})" for name, n in campaign.time_sources.items())
    reduced = (
        "bias and dark subtracted"
        if config.reduce
        else "not reduced: the level of bias and dark alone is subtracted"
    )
    chance = f"{sum(campaign.expected):.2g} regions are expected by chance."
    return f"{counted(count, 'flat')}, {reduced}. Times from {sources}. {chance} {TRUST}"


def _tables(config):
    out, (regions, smooth, trend, _) = config.output_dir, (title for title, _ in SECTIONS)
    columns = {name: name for name in change_tables.REGION_COLUMNS[:11]} | {
        "depth": "depth (part of the light)",
        "x": "x [pixel]",
        "y": "y [pixel]",
    }
    order = {name: columns[name] for name in change_tables.REGION_COLUMNS[:11]}
    found = csv_table(out / change_tables.REGIONS, order, section=regions, title="Changed regions")
    found += csv_table(
        out / change_tables.FILM,
        {name: name for name in change_tables.FILM_COLUMNS},
        section=smooth,
        title="Smooth loss of each epoch",
    )
    fits = {name: name for name in change_tables.FIT_COLUMNS if name != "chi2_red"}
    return found + csv_table(out / change_tables.FITS, fits, section=trend, title="Trends")


def _show(record):
    """Open the pictures in windows where there is a display; else say so."""
    import os
    import sys

    if not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("win32", "darwin")
    ):
        LOGGER.warning("--show: no display here, the pictures are in %s", record.output_dir / FIGURES)
        return
    import matplotlib.pyplot as plt

    for one in record.figures:
        picture = plt.imread(one["path"])
        window = plt.figure(figsize=(picture.shape[1] / 120, picture.shape[0] / 120))
        window.figimage(picture)
    plt.show()
