"""Pictures of the evaluation, under the names that users know."""

import math

import numpy as np

from flat_pipeline.products import EVALUATION
from utils.application.figure_style import celsius
from utils.kernels import groups as grouping

SECTION = "Evaluation"


def map_figures(folder, name, header, maps):
    """Difference, absolute error and error in percent of one master, as `draw` takes them.

    maps : kind -> `ComputedPlane`.
    """
    from flat_pipeline import figures
    from utils.application.figure_style import BlockMeans

    means = {kind: BlockMeans(maps[kind].shape) for kind in ("diff", "mae", "mape")}
    ny, nx = maps["diff"].shape
    for rows in means["diff"].strips():
        part = slice(rows.start * nx, min(rows.stop, ny) * nx)
        for kind, one in means.items():
            one.add(maps[kind][part].reshape(-1, nx))
    maps = {kind: one.small() for kind, one in means.items()}
    at = f"{header['FILTER']}, {celsius(header['TEMP'])}, {header['EXPTIME']:g} s"
    drawn = {
        "diff": figures.difference_map(maps["diff"], f"Master − model, {at}"),
        "mae": figures.error_map(maps["mae"], f"Absolute error, {at}", "|master − model|"),
        "mape": figures.error_map(maps["mape"], f"Error in percent, {at}", "|master − model| [%]"),
    }
    for kind, figure in drawn.items():
        yield folder / f"{name}_{kind}.png", figure, kind, SECTION


def summary_figures(config, rows):
    """Errors of all masters, and heat maps over temperature and exposure where there are several of both."""
    from flat_pipeline import figures

    folder = config.output_dir / EVALUATION
    yield folder / "evaluation_summary.png", figures.evaluation_summary(rows), "evaluation_summary", SECTION
    from flat_pipeline.products import filter_names

    names = filter_names([row["filter"] for row in rows])
    for name, spelled in names.items():
        own = [row for row in rows if row["filter"] == name]
        table, temperatures, exposures = _table(own, config.shared.temp_tolerance)
        if np.isfinite(table).sum() < 2:
            continue
        tail = f"_{spelled}" if len(names) > 1 else ""
        figure = figures.heat(100 * table, temperatures, exposures, "MAE [%]", f"Mean absolute error, {name}")
        yield folder / f"heatmap_mae{tail}.png", figure, "evaluation_mae", SECTION


def _table(rows, tolerance):
    """Mean absolute errors on the grid of temperatures and exposures."""
    temperature = np.array([row["temperature"] for row in rows])
    exposure = np.array([row["exposure"] for row in rows])
    lines = grouping.group_by_gap(temperature, tolerance)
    columns = grouping.group_by_gap(np.log(exposure), 0.01)
    table = np.full((len(lines), len(columns)), math.nan)
    for i, line in enumerate(lines):
        for j, column in enumerate(columns):
            both = np.intersect1d(line, column)
            values = [rows[index]["mae"] for index in both if math.isfinite(rows[index]["mae"])]
            if values:
                table[i, j] = np.mean(values)
    return (
        table,
        [temperature[line].mean() for line in lines],
        [float(f"{exposure[c].mean():.4g}") for c in columns],
    )
