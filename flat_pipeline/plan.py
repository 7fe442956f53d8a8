"""What a run is about to write, known before it writes: for --dry-run, and to refuse names that are not ours."""

from flat_pipeline import models
from flat_pipeline.frame_files import DARK_USED, PLACES, listed, start_of
from flat_pipeline.illumination import SUMMARY as VIGNETTING_SUMMARY
from flat_pipeline.illumination import illumination_path
from flat_pipeline.mean_flats import FOLDER as MEAN_FLATS
from flat_pipeline.products import EVALUATION, MASTERS, SKY, VIGNETTING, filter_names, sky_names
from utils.application.log import LOGGER
from utils.fits_io.naming import counted

MAPS = ("diff", "mae", "mape", "synthetic")


def check_plan(config, record, steps, flats=None):
    """Refuse names that files of others have; in a dry run print them.

    steps : of the mode.  flats : list of `FlatGroup`, None where the mode starts from files of an earlier run.
    Raises InputError where these files are missing, RefusedOutputError for a foreign file in the way.
    """
    names = list(_of_flats(config, steps, flats) if flats is not None else _of_files(config, record, steps))
    record.refuse_foreign(names)
    if record.dry_run:
        LOGGER.info("would make %s: %s", counted(len(names), "file"), ", ".join(_shortened(names)))


def _shortened(names):
    """Names, the first and last only of many in one folder."""
    folders = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    for own in folders.values():
        yield from own if len(own) <= 50 else (own[0], "...", own[-1])


def _of_flats(config, steps, flats):
    groups, filters = [flat.name for flat in flats], list(dict.fromkeys(flat.filter for flat in flats))
    return _names(config, steps, groups, filters, range(1, 1 + sum(len(flat.frames) for flat in flats)), True)


def _of_files(config, record, steps):
    start = start_of(record, config)
    if start is not None:
        refs = record.products(start)
        groups = list(dict.fromkeys(ref.facts["group"] for ref in refs))
        numbers = sorted(ref.facts["number"] for ref in refs)
    else:
        made_by = "--mode normalize_only or full" if "vignetting" in steps else "--mode full or make_master"
        refs = record.products(_without_frames(steps), made_by=made_by)
        groups, numbers = [ref.path.stem for ref in refs], []
    if "evaluate" in steps and "fit_model" not in steps:
        record.products("FLAT_A", made_by="--mode full or fit_model")
    filters = list(dict.fromkeys(ref.facts["filter"] for ref in refs))
    return _names(config, steps, groups, filters, numbers, False)


def _without_frames(steps):
    """Kind of file from which a mode starts that starts from no single frames."""
    return "MEAN_FLAT" if "vignetting" in steps else "MASTER_FLAT"


def _names(config, steps, groups, filters, numbers, from_frames):
    """Names below the output folder of what the steps write."""

    def below(path):
        return path.relative_to(config.output_dir).as_posix()

    def frames(kind):
        folder, name, _ = PLACES[kind]
        return [f"{folder}/{name.format(number)}" for number in numbers]

    if "reduce" in steps or ("normalize" in steps and from_frames):
        yield from (f"{DARK_USED}/pedestal_{name.removeprefix('master_flat_')}.fits" for name in groups)
    if "reduce" in steps:
        yield from frames("FLAT_REDUCED")
    if "normalize" in steps:
        yield from frames("FLAT_NORMALIZED")
    if "combine" in steps and (from_frames or numbers):
        yield from (f"{MEAN_FLATS}/mean_flat_{name}.fits" for name in filter_names(filters).values())
    if "vignetting" in steps:
        yield from (below(illumination_path(config, name, filters)) for name in filters)
        yield f"{VIGNETTING}/{VIGNETTING_SUMMARY}"
        if "masters" not in steps:
            yield from frames("FLAT_VIGNCORR")
    if "masters" in steps:
        yield from (f"{MASTERS}/{name}.fits" for name in groups)
        if config.flat_type == "sky":
            yield from (f"{SKY}/{name}" for group in groups for name in sky_names(group, len(groups)))
    if "fit_model" in steps:
        paths = models.model_paths(config, filters)
        yield from (below(path) for own in paths.values() for path in own.values())
    if "evaluate" in steps:
        yield f"{EVALUATION}/evaluation_summary.csv"
        if config.save_eval_fits:
            yield from (f"{EVALUATION}/{name}_{kind}.fits" for name in groups for kind in MAPS)


def told_by_files(config, record, steps, given):
    """Options as the files that the mode starts from were made with.

    given : names of options on the command line.  Returns (flat_type, norm_method, temp_tolerance), None where no file
    tells.  Raises OptionError for a --flat-type that is not theirs.
    """
    from utils.errors import OptionError
    from utils.fits_io.product_reader import view_planes

    start = start_of(record, config)
    refs = listed(record, start or _without_frames(steps))
    if not refs:
        return None, None, None
    head, _ = view_planes(refs[0].path)
    kind = head.get("FLATTYPE")
    if "flat-type" in given and kind is not None and kind != config.flat_type:
        raise OptionError(f"--flat-type {config.flat_type}: expected {kind} as in {refs[0].path}")
    norm = None if start == "FLAT_REDUCED" else head.get("NORMMETH")
    tolerance = None if "temp-tolerance" in given else head.get("TTOL")
    return kind, norm, tolerance
