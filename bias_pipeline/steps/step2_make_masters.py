"""Combine each temperature group to a master bias and measure the read noise of every pixel."""

import math
from dataclasses import dataclass

import numpy as np

from bias_pipeline import noise_maps
from bias_pipeline.config import FEW_FRAMES
from utils.application.log import progress
from utils.domain import masters
from utils.domain.pixel_mask import read_pixel_mask
from utils.domain.screening import screen_groups, settled_saturation
from utils.fits_io.atomic import write_csv
from utils.fits_io.frame_stack import StackResult
from utils.fits_io.naming import counted, label, unique_names
from utils.fits_io.plane_writer import computed_planes
from utils.fits_io.products import DQ, write_product
from utils.fits_io.spool import ArraySpool
from utils.kernels import combine, screen

MASTERS = "bias_grouped_by_temp"
FRAMES = f"{MASTERS}/frame_levels.csv"
PLANES = ("value", "variance", "n_used", "flags")
"""Planes of a combined group."""
LEVEL_PIXELS = 1 << 20
"""Pixels from which the level of a master is measured."""


@dataclass(frozen=True)
class SetNoise:
    """Noise of the whole set.

    reference : noise of an ordinary pixel [ADU].  factors : of the groups relative to it.  jitters : part of each group's
    variance that the levels of its frames make, the same in all pixels [ADU^2]; jitter : that of the reference.
    """

    reference: float
    factors: tuple
    jitters: tuple
    jitter: float


def run(config, context):
    """Make the masters.

    Reads: the frames of ``context.groups``.
    Writes: bias_grouped_by_temp/master_bias_{T}C.fits, read_noise/read_noise.fits and read_noise_{T}C.fits.
    """
    shared, record = config.shared, context.record
    with record.step("make_masters") as step:
        screening = screen_groups(
            context.groups,
            adu_scale=config.stored_scale,
            saturation=config.saturation,
            jobs=shared.jobs,
            session_gap=config.session_gap * 3600.0,
            lines=True,
        )
        for path, reason in screening.rejected:
            record.reject(path, reason)
        groups = screening.groups
        _say_what_was_found(record, screening)
        names = unique_names([label(group.frames.temperature, 1) for group in groups])
        if shared.dry_run:
            step.summary = f"would write {counted(len(groups), 'master')}: " + ", ".join(
                f"master_bias_{n}C.fits" for n in names
            )
            return
        shape = groups[0].frames.images[0].shape
        hot = read_pixel_mask(config.hot_pixel_mask, shape) if config.hot_pixel_mask else None
        set_noise = _noise_of_set(groups, screening, record)
        pooled = masters.PooledNoise(shape, shared.jobs)
        with ArraySpool(config.output_dir) as spool:
            result_of, rejected = _combine(config, groups, screening, set_noise, pooled, spool)
            pixels = pooled.finish(set_noise.reference, screening.step)
            common = _set_cards(config, screening, set_noise, pixels.prior_dof)
            jitter = _frame_jitter(groups, screening.zero)
            inputs = [g.frames.inputs(masters.input_datasums(g.frames, shared.jobs)) for g in groups]
            for index, (group, name) in enumerate(zip(groups, names, strict=True)):
                result, factor = result_of(index), set_noise.factors[index]
                cards = {
                    **group.frames.cards(),
                    **common,
                    **_group_cards(group, screening, factor, rejected[index]),
                    **_level_cards(result.value, len(group.frames), jitter),
                }
                _write_master(config, record, name, group, cards, result, pixels, factor, hot, inputs[index])
                if len(group.frames) > 1:
                    noise_maps.write_group(
                        config,
                        record,
                        name,
                        {**group.frames.cards(), **common},
                        result,
                        pixels,
                        factor,
                        set_noise.jitters[index],
                        inputs[index],
                    )
        _write_frame_levels(config, record, groups, names)
        noise_maps.write_pooled(
            config, record, groups, common, pixels, set_noise.jitter, [row for rows in inputs for row in rows]
        )
        frames = sum(len(group.frames) for group in groups)
        of = counted(frames, "frame")
        step.summary = f"{counted(len(groups), 'master')} of {of} ({shared.combine})"


def _combine(config, groups, screening, set_noise, pooled, spool):
    """Combine all groups and pool their noise.

    All results but the last wait on disk: memory does not grow with their number.
    Returns a function of a group's number that gives its `StackResult`, and the fraction of samples rejected in each.
    """
    shared = config.shared
    options = masters.CombineOptions(shared.combine, shared.clip_sigma, shared.jobs, shared.memory_limit)
    rejected = []
    for index in progress(range(len(groups)), len(groups), "master biases"):
        group, factor = groups[index], set_noise.factors[index]
        result = masters.combine_group(group, screening, set_noise.reference * factor, options)
        pooled.add(result, factor)
        used = float(result.n_used.sum(dtype=np.int64))
        rejected.append(1.0 - used / (result.n_used.size * len(group.frames)))
        if index + 1 < len(groups):
            for name in PLANES:
                spool.put((index, name), getattr(result, name))

    def result_of(index):
        if index + 1 == len(groups):
            return result
        return StackResult(*(spool.get((index, name)) for name in PLANES))

    return result_of, rejected


def _write_master(config, record, name, group, cards, result, pixels, factor, hot, inputs):
    """Write one master; its errors and quality bits are computed while it is written."""
    path = config.output_dir / MASTERS / f"master_bias_{name}C.fits"
    record.claim(path)
    errors = pixels.errors(result.n_used, factor, cards["COMBINE"][0], cards["LSB"][0])
    quality = _quality(result.flags, pixels, hot)
    planes = computed_planes(
        result.value.shape,
        {"error": np.float32, "dq": np.int16},
        lambda part: {"error": errors(part), "dq": quality(part)},
    )
    if not record.stands(path):
        write_product(
            path,
            result.value,
            prodtype="MASTER_BIAS",
            unit="adu",
            cards=cards,
            uncert=planes["error"],
            dq=planes["dq"],
            inputs=inputs,
            jobs=config.shared.jobs,
        )
    record.add_product(path, "MASTER_BIAS", temperature=group.frames.temperature, frames=len(group.frames))


def _say_what_was_found(record, screening):
    """Warn of what limits the result, and keep the numbers of the set."""
    zero, groups = screening.zero, screening.groups
    if screening.rejected:
        left_out = counted(len(screening.rejected), "frame")
        first, reason = screening.rejected[0]
        record.warn(f"{left_out} left out by the screen (rejected_frames.csv), the first: {first}: {reason}")
    for note in screening.notes:
        record.warn(note)
    few = [group for group in groups if len(group.frames) < FEW_FRAMES]
    if few:
        at = ", ".join(label(group.frames.temperature, 1) for group in few)
        record.warn(f"fewer than {FEW_FRAMES} frames at {at} degC: errors pooled over all pixels and groups")
    if not zero.separable:
        record.warn(
            "sessions do not overlap in temperature: a shift of the zero level between them cannot be told from the"
            f" slope b; its error is widened by {zero.session_scatter:.3g} ADU a session"
        )
    if np.any(zero.shifts):
        shown = ", ".join(f"{shift:+.3f}" for shift in zero.shifts)
        record.warn(f"zero level differs between {len(zero.shifts)} sessions ({shown} ADU): taken out")
    record.value("stored units per ADU", screening.adu_scale, section="camera")
    _, told_by = settled_saturation([screening])
    if told_by:
        record.warn(told_by)
    record.value("saturation", screening.saturation, "adu", section="camera")
    if math.isfinite(zero.slope_error) and len(groups) > 1:
        record.value(
            "slope of the zero level", zero.slope, "adu/degC", zero.slope_error, section="bias level"
        )
    record.value("scatter of single frames' levels", zero.frame_scatter, "adu", section="bias level")


def _noise_of_set(groups, screening, record):
    """Noise of an ordinary pixel over all groups, and each group's factor; a lone frame takes the factor 1."""
    sigma = np.array([group.sigma for group in groups])
    weight = np.array([len(group.frames) - 1.0 for group in groups])
    known = np.isfinite(sigma) & (weight > 0) & (sigma > 0)
    if known.any():
        reference = math.sqrt(float(np.sum(weight[known] * sigma[known] ** 2) / weight[known].sum()))
    else:
        reference = screening.single_frame_noise
        record.warn(
            f"no temperature has two frames or they are equal: noise {screening.noise_of_single_frames(reference)}"
        )
    factors = np.where(known, sigma / reference, 1.0)
    jitters = np.where(known, sigma**2 - np.array([group.within for group in groups]) ** 2, 0.0)
    pooled = (
        float(np.sum((weight * jitters / factors**2)[known]) / weight[known].sum()) if known.any() else 0.0
    )
    return SetNoise(reference, tuple(factors.tolist()), tuple(jitters.tolist()), pooled)


def _set_cards(config, screening, set_noise, prior_dof):
    """Cards that all products of the set carry."""
    shared = config.shared
    first = screening.groups[0].frames.entries[0]
    egain = shared.egain(first["egain"], screening.adu_scale)
    return {
        "ADUSCALE": (screening.adu_scale, "stored units per ADU of this product"),
        "LSB": (screening.step, "[adu] one step of the converter"),
        "EGAIN": (egain, "[e-/adu] conversion gain"),
        "SATURATE": (
            screening.saturation if math.isfinite(screening.saturation) else None,
            "[adu] saturation",
        ),
        "COMBINE": (shared.combine, "how frames were combined"),
        "CLIPSIG": (shared.clip_sigma if shared.combine != "mean" else None, "limit of the clipping [sigma]"),
        "SIGPOOL": (set_noise.reference, "[adu] noise of an ordinary pixel, pooled"),
        "PRIORDOF": (prior_dof, "weight of the sensor's noise in each pixel's"),
        "TTOL": (shared.temp_tolerance, "[degC] half the largest width of a group"),
        "ZSEPAR": (screening.zero.separable, "session shifts can be told from b"),
        "ZSCATTER": (screening.zero.session_scatter, "[adu] session shifts that cannot be told from b"),
    }


def _group_cards(group, screening, factor, rejected):
    """Cards of one master."""
    shift = screening.zero.shifts[group.sessions].mean()
    return {
        "SIGFACT": (factor, "noise of this group over SIGPOOL"),
        "REJFRAC": (rejected, "fraction of samples rejected"),
        "ZSHIFT": (float(shift), "[adu] mean session shift of the frames"),
        "DRIFTCOR": (group.offsets is not None, "frames brought to one temperature and session"),
    }


def _frame_jitter(groups, zero):
    """Scatter of single frames' levels within their groups, pooled: one group's own would say little [ADU]."""
    left = [g.levels if g.offsets is None else g.levels + g.offsets for g in groups]
    dof = sum(len(levels) - 1 for levels in left)
    if dof == 0:
        return zero.frame_scatter
    return math.sqrt(sum(float(np.sum((levels - levels.mean()) ** 2)) for levels in left) / dof)


def _level_cards(value, frames, jitter):
    """Level of a master, from the same pixels in all masters, and its error by the jitter of frames."""
    level = screen.robust_level(value.ravel()[:: value.size // LEVEL_PIXELS | 1])[0]
    return {
        "LEVEL": (level, "[adu] level of this master, outliers drawn in"),
        "LEVELERR": (jitter / math.sqrt(frames), "[adu] its error"),
    }


def _write_frame_levels(config, record, groups, names):
    """Write the level and noise of every frame used, in the order of time within its group."""
    rows = [
        {
            "master": f"master_bias_{name}C.fits",
            "file": entry["original_path"],
            "frame_number": entry["frame_number"],
            "time": entry["timestamp"],
            "session": int(session),
            "temperature": entry["temperature"],
            "level": float(level),
            # A frame alone has nothing that it could be compared with.
            "noise": float(spread) if len(group.frames) > 1 else None,
        }
        for group, name in zip(groups, names, strict=True)
        for entry, session, level, spread in zip(
            group.frames.entries, group.sessions, group.levels, group.spreads, strict=True
        )
    ]
    path = record.claim(config.output_dir / FRAMES)
    write_csv(path, rows, tuple(rows[0]))
    record.add_product(path, "FRAME_LEVELS")


def _quality(flags, pixels, hot):
    """Function of slices of flat pixels that gives the DQ of a master.

    It comes from the flags of the combination, the noise map and the hot-pixel mask.
    """
    # What each combination of the kernel's flags means, looked up by the flags themselves.
    meaning = np.zeros(256, np.int16)
    codes = np.arange(256)
    meaning[(codes & combine.UNSTABLE) != 0] |= DQ.NOISY
    meaning[(codes & combine.SATURATED) != 0] |= DQ.SATURATED | DQ.DO_NOT_USE
    meaning[(codes & combine.NO_DATA) != 0] |= DQ.NO_DATA
    flags, noisy, frozen = (one.reshape(-1) for one in (flags, pixels.noisy, pixels.frozen))
    hot = None if hot is None else hot.reshape(-1)

    def piece(part):
        dq = meaning[flags[part]]
        dq[noisy[part]] |= DQ.NOISY
        dq[frozen[part]] |= DQ.DO_NOT_USE | DQ.UNRELIABLE_FIT
        if hot is not None:
            dq[hot[part]] |= DQ.HOT
        return dq

    return piece
