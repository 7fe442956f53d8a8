"""From a folder of flats (and darks) to what ails the detector: damaged pixels, hot pixels, films."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils import flat_campaign
from utils.application import damage_report, damage_tables
from utils.application.log import LOGGER, progress, setup_logging
from utils.application.options import SharedOptions
from utils.application.run_record import RunRecord
from utils.domain import flat_changes, flat_outliers, hot_history, light_reference
from utils.domain.dark_model import DarkModel
from utils.fits_io.naming import counted
from utils.fits_io.products import DQ, write_product
from utils.kernels import pixel_damage

NORM, NORM_REDUCED = "flats_norm", "flats_norm_reduced"


@dataclass(frozen=True)
class DamageConfig(flat_campaign.ChangeConfig):
    """Options of one run.  reference_csv : level of the lamp, or None.  keep_norm : write the normalised flats."""

    reference_csv: Path | None = None
    keep_norm: bool = True


@dataclass(eq=False)
class Damage:
    """What was found.

    outliers : list (a set) of `SetOutliers`.  rows : of analysis_outliers.csv.  slopes : list (a set)
    of (slope, its error, (ny, nx)) or None.  films, throughputs : list (a set).  hot : `HotHistory` or None.
    """

    outliers: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    slopes: list = field(default_factory=list)
    films: list = field(default_factory=list)
    throughputs: list = field(default_factory=list)
    hot: object = None


def config_of(args):
    """`DamageConfig` of a parsed command line."""
    return DamageConfig(
        SharedOptions.from_args(args),
        reduce=args.calibrate,
        session_gap=args.session_gap * 3600.0,
        bias_model=args.bias_model,
        dark_model=args.dark_model,
        reference_csv=args.reference_csv,
        keep_norm=not args.no_norm_files,
    )


def run(config, argv):
    """Run the analysis; returns the exit status."""
    shared = config.shared
    setup_logging(shared.verbosity, shared.log_file)
    reference = None if config.reference_csv is None else light_reference.load_reference(config.reference_csv)
    with shared.cluster(), RunRecord.of(shared, "degradation", "full", config, argv) as record:

        def analyse(config, campaign):
            flat_campaign.masters(config, record, campaign)
            flat_campaign.levels(config, record, campaign)
            if shared.dry_run:
                LOGGER.info("would write: %s", ", ".join(damage_report.planned(config)))
                return
            flat_campaign.write_masters(config, record, campaign)
            damage = Damage()
            with flat_campaign.spool(config) as store:
                compare(config, record, campaign, store)
                follow(config, record, campaign, damage)
                separate(config, record, campaign, damage, reference)
                hot_pixels(config, record, campaign, damage, store)
                damage_report.write(config, record, campaign, damage)

        campaign = flat_campaign.select(config, record)
        flat_campaign.keep_or_make(record, analyse, config, campaign, ("reference_csv", "keep_norm"))
        return record.finish()


def compare(config, record, campaign, store):
    """Average the epochs of each filter; every frame is read once."""
    with record.step("epochs") as step:
        total = sum(one.count for one in campaign.sets)
        ticks = iter(progress(range(total), total, "flats"))
        for one in campaign.sets:
            campaign.changes.append(
                flat_changes.changes_of(
                    one,
                    store,
                    session_gap=config.session_gap,
                    jobs=config.shared.jobs,
                    memory_limit=config.shared.memory_limit,
                    progress=lambda _: next(ticks, None),
                    forgive_step=True,
                )
            )
        next(ticks, None)
        count = sum(np.unique(made.epoch).size for made in campaign.changes)
        step.summary = f"{counted(total, 'flat')} in {counted(count, 'epoch')}"


def follow(config, record, campaign, damage):
    """Find the outliers of every flat; every frame is read once more.

    Writes: flats_norm/ or flats_norm_reduced/, and with --plots all a difference map of every flat.
    """
    with record.step("outliers") as step:
        stages, temperatures = flat_outliers.temperature_stages(campaign.sets, config.shared.temp_tolerance)
        total = sum(one.count for one in campaign.sets)
        ticks = iter(progress(range(total), total, "flats, pixel by pixel"))

        def tell(count):
            for _ in range(count):
                next(ticks, None)

        numbers = damage_tables.numbers_of(campaign.sets)
        for made, stage, number in zip(campaign.changes, stages, numbers, strict=True):
            writer = _norm_writer(config, record, made.flats, number) if config.keep_norm else None
            look = damage_report.looker(config, record, made, stage, temperatures, number)
            found = flat_outliers.follow(
                made,
                flat_outliers.link_groups(made, _pedestal_variance(config, campaign)),
                stage,
                temperatures,
                write=writer,
                look=look,
                jobs=config.shared.jobs,
                progress=tell,
            )
            damage.outliers.append(found)
            for one in (writer, look):
                if one is not None:
                    one.list_products(record)
            _tell(record, found)
        next(ticks, None)
        damage.rows = damage_tables.classified(damage.outliers)
        names = [row["classification"] for row in damage.rows]
        for label in (pixel_damage.DAMAGE, pixel_damage.LIKELY, pixel_damage.TEMPERATURE):
            record.value(f"pixels labelled {label}", names.count(label))
        step.summary = f"{counted(len(names), 'outlier pixel')}, {names.count(pixel_damage.DAMAGE)} damaged"


def _pedestal_variance(config, campaign):
    """Variance of what is subtracted from a group's flats, or None where that is a level only."""
    if campaign.source is None or not config.reduce:
        return None
    return lambda group: campaign.source.pedestal(group.frames.temperature, group.frames.exposure).variance


def _tell(record, found):
    flats, section = found.changes.flats, f"filter {found.changes.flats.filter}"
    record.value("threshold of a pixel in one flat", found.limit, "sigma", section=section)
    record.value("outliers expected by chance in each flat", pixel_damage.FALSE_PER_FLAT, section=section)
    if not any(one.compared or one.compared_across for one in found.facts):
        record.missing(
            f"changes in filter {flats.filter}",
            f"{counted(flats.count, 'flat')} in {counted(len(flats.groups), 'group')} of like ones, expected two of one"
            " filter and exposure",
        )
    paths = damage_tables.frames_of(flats)
    for place in found.odd:
        record.warn(
            f"{paths[place][0]['original_path']}: too many of its pixels differ from"
            " the earliest flats: it differs as a whole, its pixels are not listed"
        )
    for result, group in zip(found.changes.results, flats.groups, strict=True):
        if abs(result.noise_ratio - 1.0) > flat_campaign.NOISE_AGREES and len(group) > 1:
            record.warn(
                f"filter {flats.filter}, {group.frames.temperature:.1f} degC, {group.frames.exposure:g} s: the scatter of"
                f" the flats is {result.noise_ratio:.2f} times what gain and read noise give; the measured one counts"
            )


@dataclass(frozen=True, eq=False)
class _NormWriter:
    """Writes each flat over its level; called in the workers.

    frames : place -> (`FrameGroup` of the one flat, its level [ADU], what was subtracted).  paths : place -> file.
    """

    frames: dict
    paths: dict
    filter: str
    adu_scale: float

    def only(self, places):
        """Return the same for the flats at some places, with absolute paths."""
        paths = {place: os.path.abspath(self.paths[place]) for place in places}
        return replace(self, frames={place: self.frames[place] for place in places}, paths=paths)

    def __call__(self, place, value, sigma, full):
        one, level, origin = self.frames[place]
        cards = {
            **one.cards(),
            "FILTER": (self.filter, "filter"),
            "ADUSCALE": (self.adu_scale, "stored units per ADU"),
            "LEVEL": (level, "[adu] level that the flat was divided by"),
            "PEDESTAL": (origin[:60], "what was subtracted"),
        }
        dq = np.where(full, np.int16(DQ.SATURATED), np.int16(0))
        write_product(
            self.paths[place], value, prodtype="FLAT_NORMALIZED", unit="", cards=cards, uncert=sigma, dq=dq,
            inputs=one.inputs([one.entries[0]["datasum"]]),
        )  # fmt: skip

    def list_products(self, record):
        """Enter all files into the record."""
        for path in self.paths.values():
            record.add_product(path, "FLAT_NORMALIZED")


def _norm_writer(config, record, flats, numbers):
    """`_NormWriter` of the flats of a filter; their names are claimed."""
    folder = config.output_dir / (NORM_REDUCED if config.reduce else NORM)
    frames = {
        place: (group.frames.subset([k]), float(group.levels[k]), group.origin)
        for place, (_, group, k) in damage_tables.frames_of(flats).items()
    }
    paths = {place: record.claim(folder / f"{numbers[place]:04d}_norm.fits") for place in frames}
    return _NormWriter(frames, paths, flats.filter, flats.adu_scale)


def separate(config, record, campaign, damage, reference):
    """Tell what changes smoothly from what single pixels do; slopes of all pixels over time.

    Writes: pixel_trends/slope_{FILTER}.fits [1/d].
    """
    with record.step("trends") as step:
        for made in campaign.changes:
            damage.slopes.append(_slopes(config, record, made))
            history = flat_changes.film_history(_without(made, damage.rows), [])
            damage.films.append(history)
            damage.throughputs.append(
                light_reference.throughput(made, reference, history)
                if reference and made.flats.timed
                else None
            )
            if reference is not None and damage.throughputs[-1] is None:
                record.missing(
                    f"throughput in filter {made.flats.filter}",
                    f"{reference.path}: tells the light of fewer than two epochs with two flats each",
                )
        campaign.films[:] = damage.films
        known = sum(one is not None for one in damage.slopes)
        step.summary = f"slopes of the pixels of {counted(known, 'filter')}"


def _without(made, rows):
    """The same changes, damaged pixels left out."""
    weight = made.weight.copy()
    pixels = np.array([row["pixel"] for row in rows], int).reshape(-1, 2)
    weight[pixels[:, 0], pixels[:, 1]] = 0.0
    return replace(made, weight=weight)


def _slopes(config, record, made):
    days = damage_tables.days_of(made.flats)
    where = [made.flats.groups[k].order for k in made.owner]
    time = np.array(
        [days[order[made.epoch_of[order] == e]].mean() for order, e in zip(where, made.epoch, strict=True)]
    )
    weights, variance = pixel_damage.slope_contrast(made.group, time, made.information)
    if not np.isfinite(variance):
        return None
    slope, sigma = np.empty(made.shape, np.float32), np.empty(made.shape, np.float32)
    step = max(1, (1 << 22) // (made.count * made.shape[1]))
    for start in range(0, made.shape[0], step):
        stop = min(start + step, made.shape[0])
        slope[start:stop] = np.tensordot(weights.astype(np.float32), made.rows(start, stop), 1)
    with np.errstate(divide="ignore"):
        np.divide(np.float32(variance), made.weight, out=sigma)
    np.sqrt(sigma, out=sigma)
    bad = made.weight <= 0
    slope[bad] = sigma[bad] = np.nan
    tag = made.flats.filter.replace("/", "_")
    path = record.claim(config.output_dir / "pixel_trends" / f"slope_{tag}.fits")
    frames = [group.frames for group in made.flats.groups]
    cards = {
        "FILTER": (made.flats.filter, "filter"),
        "NFLATS": (made.flats.count, "flats behind the slopes"),
        "EQUATION": ("change = zero(group) + slope * time", "of each pixel; the smooth part taken out"),
    }
    write_product(
        path, slope, prodtype="PIXEL_TREND", unit="1/d" if made.flats.timed else "", cards=cards, uncert=sigma,
        inputs=[row for one in frames for row in one.inputs([entry["datasum"] for entry in one.entries])],
    )  # fmt: skip
    record.add_product(path, "PIXEL_TREND")
    return slope, sigma


def hot_pixels(config, record, campaign, damage, store):
    """Follow the hot pixels through the sessions of darks, at one temperature."""
    darks = campaign.entries["darks"]
    if not darks or campaign.source is None:
        return
    with record.step("hot_pixels") as step:
        model = None if config.dark_model is None else DarkModel.load(config.dark_model)
        total = len(darks)
        ticks = iter(progress(range(total), total, "darks"))
        damage.hot, reason = hot_history.hot_history(
            campaign.source,
            darks,
            campaign.images,
            store,
            model=model,
            tolerance=config.shared.temp_tolerance,
            session_gap=config.session_gap,
            progress=lambda count: [next(ticks, None) for _ in range(count)],
        )
        next(ticks, None)
        if damage.hot is None:
            step.summary = f"no ledger of hot pixels: {reason}"
            record.value("hot pixels over time", f"not followed: {reason}")
            return
        for text in damage.hot.notes:
            record.warn(text)
        status = list(damage.hot.ledger.status)
        for name in sorted(set(status)):
            record.value(f"hot pixels, {name}", status.count(name))
        step.summary = f"{counted(len(status), 'hot pixel')} in {counted(len(damage.hot.times), 'session')}"
