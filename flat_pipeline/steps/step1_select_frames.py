"""Find the flats of one camera setting, group them by filter, exposure and temperature, and find darks and biases."""

import os

from flat_pipeline.frame_files import STARTS, start_of
from flat_pipeline.json_inputs import read_dark_files
from utils.application.log import LOGGER, progress
from utils.domain.dark_source import SAME_EXPOSURE
from utils.domain.frame_groups import group_entries
from utils.errors import InputError, OptionError
from utils.fits_io.header_scan import scan_header
from utils.fits_io.keywords import describe
from utils.fits_io.naming import counted, exposure_label, label
from utils.observation_manager import ObservationManager, one_value

SETTING = ("camera", "gain", "binning", "shape", "full_shape")
"""What must be the same in all frames that meet in a master or a model."""


def run(config, context):
    """Select and group the frames.

    Reads: headers of all FITS files below --basepath (cached), and of the darks in --dark-files-json.
    Writes: nothing; sets ``context.groups``, ``dark_entries``, ``bias_entries`` and ``images``; frames that cannot be used
    go to the run record.
    """
    shared, record = config.shared, context.record
    start = start_of(record, config)
    if start is not None:
        LOGGER.debug("frames come from the %s files of run.json", start)
        return
    if shared.basepath is None and record.mode in STARTS:
        advice = {"FLAT_REDUCED": "reduce_only", "FLAT_NORMALIZED": "normalize_only"}[STARTS[record.mode][-1]]
        record.products(STARTS[record.mode][-1], made_by=f"--mode {advice}, or give --basepath")
    with record.step("select_frames") as step:
        manager = ObservationManager(
            shared.need_basepath(), exclude=[config.output_dir], jobs=shared.jobs, select=shared.select
        )
        manager.load_and_organize(progress)
        for rejection in manager.rejected:
            record.reject(rejection["path"], rejection["reason"])
        flats = _usable(manager.filter_files(category="CALIBRATION", subcat="flats"), record)
        if not flats:
            first = next((one for one in record.rejected if one["path"] in _paths_of_flats(manager)), None)
            why = "" if first is None else f", the first: {first['path']} ({first['reason']})"
            lights = sum(entry["caltype"] == "light" for entry in manager.entries)
            if lights and not why:
                why = f" ({counted(lights, 'light frame')}: those in a folder or file called flat are flats)"
            raise InputError(
                f"{shared.basepath}: no flat frame that can be used among {counted(len(manager.entries), 'frame')}{why}"
            )
        images = dict(manager.images)
        darks = []
        if config.dark_files_json is not None:
            darks = _named_darks(config.dark_files_json, images, shared.temp_tolerance)
        elif config.dark_model is None and not config.no_dark:
            darks = _usable(manager.filter_files(category="CALIBRATION", subcat="darks"), record)
        biases = []
        if config.bias_model is None:
            biases = manager.filter_files(category="CALIBRATION", subcat="bias")
        # --gain and --detector override what the headers say of e-/ADU.
        for key in SETTING if shared.gain or shared.detector else (*SETTING, "egain"):
            one_value([*flats, *biases, *darks], key)
        if config.illumination is not None:
            config.illumination.check(flats[0]["shape"])
        context.groups = group_flats(flats, images, shared.temp_tolerance)
        context.dark_entries, context.bias_entries, context.images = darks, biases, images
        record.add_input([images[entry["original_path"]] for entry in flats])
        others = [
            counted(len(some), f"{kind} frame") for some, kind in ((darks, "dark"), (biases, "bias")) if some
        ]
        step.summary = ", ".join(
            [f"{counted(len(flats), 'flat')} in {counted(len(context.groups), 'group')}", *others]
        )
    for group in context.groups:
        LOGGER.log(
            20 if shared.dry_run else 10,
            "group: flat, filter %s, T %s degC (%s to %s, drift %.2f), exposure %s s, gain %s, %d frames",
            group.entries[0]["filter"],
            label(group.temperature, 2),
            label(group.temperatures.min(), 2),
            label(group.temperatures.max(), 2),
            group.drift,
            exposure_label(group.exposure),
            "unknown" if group.entries[0]["gain"] is None else f"{group.entries[0]['gain']:g}",
            len(group),
        )


def group_flats(entries, images, temp_tolerance):
    """Group flats by filter, exposure and temperature, in this order; returns list of `FrameGroup`."""
    groups = []
    for name in sorted({entry["filter"] for entry in entries}):
        own = [entry for entry in entries if entry["filter"] == name]
        groups += group_entries(own, images, temp_tolerance=temp_tolerance, by_exposure=True)
    return groups


def _usable(entries, record):
    """Entries with an exposure above 0; the others go to the record."""
    usable = []
    for entry in entries:
        if entry["exposure"] is None or not entry["exposure"] > 0:
            record.reject(entry["original_path"], f"exposure {entry['exposure']}, expected more than 0 s")
        else:
            usable.append(entry)
    return usable


def _paths_of_flats(manager):
    return {entry["original_path"] for entry in manager.entries if entry["caltype"] == "flat"}


def _named_darks(path, images, temp_tolerance):
    """Entries of the darks that a JSON file names; its temperature and exposure must be those of the headers.

    Raises OptionError for a file that is named twice, is no dark, or says otherwise than the list.
    """
    entries, places = [], {}
    for number, given in enumerate(read_dark_files(path)):
        own = given["original_path"]
        # As seen from the working folder, else from the list.
        place = next((p for p in (path.parent / own,) if p.is_file()), None)
        name = own if place is None or _is_file(own) else str(place)
        image = scan_header(name)
        facts = describe(image.cards)
        where = f"{path}: entry {number}: {name}"
        first = places.setdefault(os.path.realpath(name), number)
        if first != number:
            raise OptionError(f"{where}: named before, in entry {first}; expected every dark once")
        if facts["caltype"] in ("flat", "bias"):
            raise OptionError(f"{where}: {facts['kind_source']} tells a {facts['caltype']}, expected a dark")
        for key, unit, reach in (
            ("temperature", "degC", temp_tolerance),
            ("exposure", "s", SAME_EXPOSURE * given["exposure"]),
        ):
            told = facts[key]
            if told is not None and abs(told - given[key]) > reach:
                raise OptionError(
                    f"{where}: {key} {given[key]:g} {unit} in the list, {told:g} {unit} in the header; expected the same"
                )
        entry = {
            **facts,
            "caltype": "dark",
            "original_path": name,
            "shape": image.shape,
            "temperature": float(given["temperature"]),
            "exposure": float(given["exposure"]),
        }
        images[name] = image
        entries.append(entry)
    return entries


def _is_file(name):
    from pathlib import Path

    return Path(name).is_file()
