"""The dark of every group of flats: dark model, master darks, bias alone, or nothing; said and listed."""

from utils.application.log import LOGGER
from utils.domain import dark_source
from utils.domain.masters import CombineOptions
from utils.fits_io.atomic import write_csv, write_json
from utils.fits_io.naming import counted, label

TABLE, CHOSEN = "dark_sources.csv", "auto_dark_files.json"
COLUMNS = (
    *("filter", "temperature", "exposure", "flats", "kind", "dark_temperature", "dark_exposure", "darks"),
    *("level", "extrapolated", "what"),
)


def run(config, context):
    """Find what is subtracted from each group.

    Reads: --dark-model and --bias-model, else the darks and biases of step 1.
    Writes: nothing; sets ``context.dark``, and ``dark_rows`` for the table.
    """
    if context.groups is None:
        return
    shared, record = config.shared, context.record
    with record.step("dark") as step:
        first = context.groups[0]
        source = dark_source.find_source(
            first.images[0],
            first.entries[0],
            bias_entries=context.bias_entries,
            dark_entries=context.dark_entries,
            images=context.images,
            bias_model=config.bias_model,
            dark_model=config.dark_model,
            no_dark=config.no_dark,
            temp_tolerance=shared.temp_tolerance,
            options=CombineOptions(shared.combine, shared.clip_sigma, shared.jobs, shared.memory_limit),
            adu_scale=config.stored_scale,
            saturation=config.saturation,
        )
        context.dark = source
        rows = [_row(group, source) for group in context.groups]
        for path, reason in source.rejected:
            record.reject(path, reason)
        for text in source.warnings:
            record.warn(text)
        _warn(record, config, context.groups, rows, source)
        kinds = {row["kind"]: 0 for row in rows}
        for row in rows:
            kinds[row["kind"]] += 1
        step.summary = ", ".join(f"{kind} for {counted(number, 'group')}" for kind, number in kinds.items())
        context.dark_rows = rows


def write_tables(config, context):
    """Write what is subtracted from each group, once it is known that there are flats to subtract it from.

    Writes: dark_sources.csv, and auto_dark_files.json where darks were chosen from those found.
    """
    record, rows = context.record, context.dark_rows
    path = record.claim(config.output_dir / TABLE)
    write_csv(path, [{name: row[name] for name in COLUMNS} for row in rows], COLUMNS)
    record.add_product(path, "DARK_SOURCES")
    _write_chosen(config, record, context, rows)


def _row(group, source):
    """Tell what one group gets; the planes themselves are made when it is combined."""
    corner = source.at_rows(dark_source.middle_rows(source.shape))
    pedestal = corner.pedestal(group.temperature, group.exposure)
    return {
        "filter": group.entries[0]["filter"],
        "temperature": _rounded(group.temperature),
        "exposure": group.exposure,
        "flats": len(group),
        "kind": pedestal.kind,
        "dark_temperature": _rounded(pedestal.dark_temperature),
        "dark_exposure": pedestal.dark_exposure,
        "darks": len(pedestal.files),
        "level": dark_source.level_of(pedestal.value),
        "extrapolated": pedestal.extrapolated,
        "what": pedestal.words,
        "files": pedestal.files,
    }


def _rounded(temperature):
    return round(temperature, 4) + 0.0


def _warn(record, config, groups, rows, source):
    if config.no_dark:
        what = "the bias alone is subtracted" if source.bias is not None else "nothing is subtracted"
        record.warn(f"--no-dark: {what}")
    else:
        alone = [(g, row) for g, row in zip(groups, rows, strict=True) if row["kind"] == "bias only"]
        if alone:
            group = alone[0][0]
            why = source.why_none(group.temperature, group.exposure)
            record.warn(
                f"{counted(len(alone), 'group')} of flats without a dark, bias alone subtracted: {why}"
                f" (flats at {label(group.temperature, 1)} degC, {group.exposure:g} s)"
            )
    _warn_of_distance(record, groups, source)


def _warn_of_distance(record, groups, source):
    """Say how far flats lie from the temperatures and exposures of bias and dark model."""
    for what, model in (("bias", source.bias.model if source.bias else None), ("dark model", source.model)):
        if model is None:
            continue
        outside = [group.temperature for group in groups if model.extrapolates(group.temperature)]
        if outside:
            far = max(outside, key=lambda t: max(model.t_min - t, t - model.t_max))
            distance = max(model.t_min - far, far - model.t_max)
            held = what == "bias" and model.fixed_slope
            how = "the nearest temperature serves" if held else "it is extrapolated"
            shown = f"{label(model.t_min, 1)} to {label(model.t_max, 1)} degC"
            record.warn(
                f"flats lie up to {distance:.1f} degC outside the temperatures of the {what} ({shown}): {how}"
            )
    if source.model is not None:
        low, high = source.model.e_min, source.model.e_max
        beyond = [group.exposure for group in groups if not 0.99 * low <= group.exposure <= 1.01 * high]
        if beyond:
            record.warn(
                f"flats of {min(beyond):g} to {max(beyond):g} s lie outside the exposures of the dark model ({low:g} to"
                f" {high:g} s): it is extrapolated"
            )


def _write_chosen(config, record, context, rows):
    """List the darks chosen from those found, as --dark-files-json takes them."""
    chosen = {path for row in rows for path in row["files"]}
    if not chosen or config.dark_files_json is not None:
        return
    entries = [
        {
            "original_path": entry["original_path"],
            "temperature": entry["temperature"],
            "exposure": entry["exposure"],
        }
        for entry in context.dark_entries
        if entry["original_path"] in chosen
    ]
    path = record.claim(config.output_dir / CHOSEN)
    write_json(path, entries)
    record.add_product(path, "AUTO_DARK_FILES")
    record.add_input([context.images[name] for name in sorted(chosen)])
    LOGGER.debug("%d darks chosen", len(entries))
