"""From a folder of flats to what changed: selection, bias and darks, levels, epochs, regions, smooth loss.

The steps that the structure and the degradation analysis share; each takes the run record and the campaign.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.application.log import LOGGER, progress
from utils.application.options import SharedOptions
from utils.application.resume import COMBINING, Block, run_steps
from utils.domain import bias_source, dark_source, flat_changes, flat_groups
from utils.domain.masters import CombineOptions
from utils.errors import InputError, OptionError
from utils.fits_io.naming import counted, exposure_label, label, unique_names
from utils.fits_io.products import write_product
from utils.fits_io.spool import ArraySpool
from utils.observation_manager import ObservationManager, one_value

SETTING = ("camera", "gain", "binning", "shape", "full_shape")
"""What must be the same in all frames that are compared."""
BIAS, DARKS = "bias_used", "dark_maps"
NOISE_AGREES = 0.15
"""Measured noise that differs from the expected by more than this part is worth a warning."""


@dataclass(frozen=True)
class ChangeConfig:
    """Options of one run.  reduce : subtract bias and dark.  sigma : threshold, None = by the false regions accepted.

    show : open windows.  session_gap : pause that starts an epoch [s].  across_exposures : compare them with each other.
    bias_model, dark_model : folders that serve instead of the frames found, or None.
    """

    shared: SharedOptions
    reduce: bool = False
    sigma: float | None = None
    show: bool = False
    session_gap: float = 6 * 3600.0
    across_exposures: bool = False
    bias_model: Path | None = None
    dark_model: Path | None = None

    def __post_init__(self):
        if self.across_exposures and not self.reduce:
            raise OptionError(
                "--across-exposures: got no --reduce, expected it: dark signal grows with the exposure"
            )

    @property
    def output_dir(self):
        """Folder of all products."""
        return self.shared.output_dir

    @property
    def stored_scale(self):
        """Stored units per product ADU, or None to find it from the frames."""
        return None if self.shared.adu_scale == "auto" else float(self.shared.adu_scale)

    @property
    def saturation(self):
        """Saturation level [product ADU], or None to find it from the frames."""
        return None if self.shared.saturation == "auto" else float(self.shared.saturation)

    @property
    def combine(self):
        """How bias and darks are combined."""
        shared = self.shared
        return CombineOptions(shared.combine, shared.clip_sigma, shared.jobs, shared.memory_limit)


@dataclass(eq=False)
class Campaign:
    """What the steps of one run share.

    sets : list of `FlatSet`.  entries : kind -> entries.  images : path -> FitsImage.  time_sources : keyword -> frames.
    source : `DarkSource` or None.  changes : list of `SetChanges`.  found : list (a set) of lists of `FoundRegion`.
    films : list of `FilmHistory` or None.  thresholds, expected : of each set.
    """

    sets: list
    entries: dict
    images: dict
    time_sources: dict
    source: object = None
    changes: list = field(default_factory=list)
    found: list = field(default_factory=list)
    films: list = field(default_factory=list)
    thresholds: list = field(default_factory=list)
    expected: list = field(default_factory=list)

    def frames(self):
        """(entry, image) of every frame selected."""
        entries = [entry for kind in self.entries.values() for entry in kind]
        return [(entry, self.images[entry["original_path"]]) for entry in entries]


def keep_or_make(record, analyse, config, campaign, more=()):
    """Call ``analyse(config, campaign)``, or with --resume keep what an earlier run made from the same.

    more : names of options of this analysis on which its products depend.
    """
    options = (
        *COMBINING,
        *("reduce", "sigma", "show", "session_gap", "across_exposures", "bias_model", "dark_model"),
    )
    block = Block(("analysis",), (*options, "plots", *more), frames=True)
    run_steps(record, ("analysis",), (block,), {"analysis": analyse}, config, campaign, dry=("analysis",))


def spool(config):
    """Return the store of planes, in the output folder."""
    return ArraySpool(config.output_dir)


def select(config, record):
    """Find flats, bias and darks of one camera setting and group the flats.

    Reads: headers below DIR (cached).  Raises InputError without flats, or for flats of several settings.
    """
    shared = config.shared
    with record.step("select_frames") as step:
        manager = ObservationManager(
            shared.need_basepath(), exclude=[config.output_dir], jobs=shared.jobs, select=shared.select
        )
        manager.load_and_organize(progress)
        for rejection in manager.rejected:
            record.reject(rejection["path"], rejection["reason"])
        found = {
            kind: manager.filter_files(category="CALIBRATION", subcat=kind)
            for kind in ("bias", "darks", "flats")
        }
        if not found["flats"]:
            raise InputError(
                f"{shared.basepath}: no flat that can be used among {counted(len(manager.entries), 'frame')}"
            )
        for key in SETTING:
            first = one_value(found["flats"], key)
            for kind in ("bias", "darks"):
                found[kind] = [entry for entry in found[kind] if entry[key] == first]
        sets, sources = flat_groups.sets_of_flats(
            found["flats"],
            manager.images,
            shared.temp_tolerance,
            across_exposures=config.across_exposures,
        )
        record.add_input(
            [manager.images[entry["original_path"]] for kind in found.values() for entry in kind]
        )
        groups = sum(len(one.groups) for one in sets)
        step.summary = (
            f"{counted(len(found['flats']), 'flat')} in {counted(groups, 'group')} of like ones, time from "
            + (", ".join(f"{name} ({count})" for name, count in sources.items()))
        )
        untimed = [one.filter for one in sets if not one.timed]
        if untimed:
            record.warn(
                f"flats of filter {', '.join(untimed)} do not all tell their time: the order of the files stands for it"
            )
    for one in sets:
        for group in one.groups:
            LOGGER.log(
                20 if shared.dry_run else 10,
                "group: flat, filter %s, T %s degC (drift %.2f), exposure %s s, %d frames",
                one.filter,
                label(group.frames.temperature, 2),
                group.frames.drift,
                exposure_label(group.frames.exposure),
                len(group),
            )
    return Campaign(sets, found, manager.images, sources)


def masters(config, record, campaign):
    """Find what can be subtracted: the bias through the bias frames found, and the darks.

    Without --reduce the level of the bias is taken from the flats all the same, not its map.
    Raises InputError with --reduce where there is neither bias nor dark.
    """
    with record.step("bias_and_dark") as step:
        biases, darks = campaign.entries["bias"], campaign.entries["darks"]
        given = config.bias_model is not None or config.dark_model is not None
        if not biases and not darks and not given and not config.reduce:
            record.warn(
                "no bias and no dark frames: nothing is subtracted, and where the level changes old dust looks new"
            )
            step.summary = "nothing to subtract"
            return
        first = campaign.sets[0].groups[0].frames
        campaign.source = source = dark_source.find_source(
            first.images[0],
            first.entries[0],
            bias_entries=biases,
            dark_entries=darks,
            images=campaign.images,
            bias_model=config.bias_model,
            dark_model=config.dark_model,
            no_dark=not config.reduce,
            temp_tolerance=config.shared.temp_tolerance,
            options=config.combine,
            adu_scale=config.stored_scale,
            saturation=config.saturation,
            session_gap=config.session_gap,
        )
        if config.reduce and not darks and config.dark_model is None:
            record.warn("no dark frames, the bias alone is subtracted")
        for text in source.warnings:
            record.warn(text)
        for path, reason in source.rejected:
            record.reject(path, reason)
        step.summary = f"{counted(len(biases), 'bias frame')}, {counted(len(darks), 'dark')}"


def write_masters(config, record, campaign):
    """Write the bias and dark maps made from the frames found.

    Writes: bias_used/ (a, b, covariance, read noise), dark_maps/dark_T{T}_E{t}.fits [adu].
    """
    if campaign.source is None:
        return
    with record.step("bias_and_dark_maps") as step:
        if campaign.source.bias is not None:
            for path, prodtype in bias_source.write_bias(
                config.output_dir / BIAS, campaign.source.bias, record.claim
            ):
                record.add_product(path, prodtype)
        _write_darks(config, record, campaign)
        step.summary = "bias and dark maps"


def _write_darks(config, record, campaign):
    """Write the dark of every temperature and exposure: without the bias where there is one."""
    from dataclasses import replace

    from utils.domain.frame_groups import group_entries

    darks = campaign.entries["darks"]
    if not darks:
        return
    groups = group_entries(
        darks, campaign.images, temp_tolerance=config.shared.temp_tolerance, by_exposure=True
    )
    source = replace(campaign.source, darks=groups, no_dark=False)
    names = unique_names([f"dark_T{label(g.temperature, 1)}_E{g.exposure:g}" for g in groups])
    for group, name in zip(groups, names, strict=True):
        if source.choose(group.temperature, group.exposure) is not group:
            record.warn(
                f"{counted(len(group), 'dark')} at {label(group.temperature, 1)} degC, {group.exposure:g} s: too few"
            )
            continue
        pedestal = source.pedestal(group.temperature, group.exposure)
        data = pedestal.value if pedestal.dark is None else pedestal.dark
        path = record.claim(config.output_dir / DARKS / f"{name}.fits")
        cards = {**group.cards(), "BIASSUB": (pedestal.dark is not None, "bias subtracted")}
        write_product(
            path, data, prodtype="DARK_MAP", unit="adu", cards=cards, uncert=np.sqrt(pedestal.variance),
            inputs=group.inputs([entry["datasum"] for entry in group.entries]),
        )  # fmt: skip
        record.add_product(path, "DARK_MAP")


def levels(config, record, campaign):
    """Measure level and noise of every flat; what cannot be compared is listed.

    Raises InputError where no flat is left (all saturated, all dark).
    """
    shared = config.shared
    with record.step("levels") as step:
        read = _read_variance(campaign.source)
        used = {}

        def pedestal(group, _scale):
            if campaign.source is None:
                return 0.0, "nothing"
            found = campaign.source.pedestal(group.frames.temperature, group.frames.exposure)
            used.setdefault(found.words, 0)
            used[found.words] += len(group)
            if config.reduce:
                return found.value, found.words
            return dark_source.level_of(found.value), f"level of {found.words}"

        scale = config.stored_scale
        if scale is None and campaign.source is not None:
            scale = campaign.source.adu_scale
        egain = shared.egain(campaign.entries["flats"][0]["egain"], scale or 1.0)
        measured = flat_groups.measure_levels(
            campaign.sets,
            pedestal,
            read_variance=read,
            inverse_gain=None if egain is None else 1.0 / egain,
            adu_scale=scale,
            saturation=config.saturation,
            jobs=shared.jobs,
        )
        for path, reason in measured.rejected:
            record.reject(path, reason)
        for text in measured.notes:
            record.warn(text)
        if record.rejected:
            record.warn(f"{counted(len(record.rejected), 'frame')} left out, see rejected_frames.csv")
        for words, count in used.items():
            record.value(
                f"subtracted from {counted(count, 'flat')}", words if config.reduce else f"level of {words}"
            )
        record.value("gain used for the expected noise", 1.0 / measured.inverse_gain, "e-/adu")
        record.value("gain from", "given" if egain is not None else "scatter of successive flats")
        for path, detail in flat_groups.odd_flats(campaign.sets):
            record.warn(f"{path}: {detail}")
        kept = sum(one.count for one in campaign.sets)
        step.summary = f"{counted(kept, 'flat')} to compare"


def _read_variance(source):
    """Variance of a sample without light: median of the bias's map, 0 where unknown."""
    variance = None if source is None else source.read_variance
    return 0.0 if variance is None else float(np.median(variance))


def compare(config, record, campaign, store):
    """Average the epochs of each filter, every frame read once, and find what changed."""
    shared = config.shared
    with record.step("compare") as step:
        total = sum(one.count for one in campaign.sets)
        ticks = iter(progress(range(total), total, "flats"))
        for one in campaign.sets:
            made = flat_changes.changes_of(
                one,
                store,
                session_gap=config.session_gap,
                jobs=shared.jobs,
                memory_limit=shared.memory_limit,
                progress=lambda _: next(ticks, None),
            )
            campaign.changes.append(made)
            _judge(config, record, campaign, made)
        next(ticks, None)
        count = sum(len(found) for found in campaign.found)
        step.summary = f"{counted(count, 'changed region')} ({sum(campaign.expected):.2g} expected by chance)"
        record.value("changed regions", count)
        record.value("false regions expected by chance", float(f"{sum(campaign.expected):.3g}"))


def _judge(config, record, campaign, made):
    """Find the regions and the smooth loss of one filter."""
    name = made.flats.filter
    for result, group in zip(made.results, made.flats.groups, strict=True):
        where = f"filter {name}, {label(group.frames.temperature, 1)} degC, {group.frames.exposure:g} s"
        record.value("noise over the expected", result.noise_ratio, section=where)
        record.value("samples struck by hits", result.hits, section=where)
        if abs(result.noise_ratio - 1.0) > NOISE_AGREES and len(group) > 1:
            record.warn(
                f"{where}: the scatter of the flats is {result.noise_ratio:.2f} times what gain and read noise give;"
                " the measured one counts"
            )
    if len(made.contrasts.windows) == 0:
        record.missing(
            f"changes in filter {name}",
            f"{counted(made.flats.count, 'flat')} in {counted(len(made.flats.groups), 'group')} of like ones, expected two"
            " epochs of two flats each in one group",
        )
        for one in (campaign.found, campaign.films):
            one.append([] if one is campaign.found else None)
        campaign.thresholds.append(math.inf)
        campaign.expected.append(0.0)
        return
    threshold = made.threshold() if config.sigma is None else config.sigma
    found, single = flat_changes.find(made, threshold, jobs=config.shared.jobs)
    campaign.found.append(found)
    campaign.thresholds.append(threshold)
    campaign.expected.append(made.expected_false(threshold))
    campaign.films.append(flat_changes.film_history(made, found))
    record.value("threshold", threshold, "sigma", section=f"filter {name}")
    record.value("places that one flat alone showed", single, section=f"filter {name}")
    if made.excess.max() > 1.0:
        record.warn(
            f"filter {name}: large shapes are {made.excess.max():.2f} times noisier than single pixels tell (banding or a"
            " restless lamp); this is allowed for"
        )
