"""The bias of every dark: --bias-model, else the bias frames through their own line in temperature."""

from dark_pipeline.screening import check_step
from utils.application.log import LOGGER
from utils.domain import bias_source
from utils.domain.masters import CombineOptions
from utils.errors import InputError
from utils.fits_io.frame_sample import sample_group
from utils.fits_io.naming import counted, label
from utils.kernels import adu_scale as stored_step

BIAS = "bias_used"


def run(config, context):
    """Find the bias and keep it beside the products.

    Reads: --bias-model DIR, or the bias frames of step 1.
    Writes: bias_used/ (a and b map, covariance, read noise); nothing with --no-bias. Sets ``context.bias``.
    """
    shared, record = config.shared, context.record
    with record.step("bias") as step:
        if config.no_bias:
            record.warn("--no-bias: nothing is subtracted, the frames count as free of bias")
            step.summary = "no bias"
            return
        if config.bias_model is not None:
            source = bias_source.load_bias(config.bias_model)
        elif shared.dry_run:
            step.summary = f"would fit a line to {counted(len(context.bias_entries), 'bias frame')}"
            return
        else:
            source = bias_source.bias_of_frames(
                context.bias_entries,
                context.images,
                temp_tolerance=shared.temp_tolerance,
                options=CombineOptions(shared.combine, shared.clip_sigma, shared.jobs, shared.memory_limit),
                adu_scale=config.stored_scale,
                saturation=config.saturation,
                session_gap=config.session_gap * 3600.0,
            )
        context.bias = source
        first = context.groups[0]
        what = f"the dark {first.entries[0]['original_path']}"
        _check_scale(source, config.stored_scale)
        bias_source.check_match(source, first.images[0], first.entries[0], None, what)
        if config.stored_scale is None:
            _check_step(source, context.groups, shared.jobs)
        for path, reason in source.rejected:
            record.reject(path, reason)
        for text in source.warnings:
            record.warn(text)
        _warn_of_distance(record, source.model, context.groups)
        if shared.dry_run:
            step.summary = f"bias from {source.origin}"
            return
        for path, prodtype in bias_source.write_bias(config.output_dir / BIAS, source, record.claim):
            record.add_product(path, prodtype)
        step.summary = f"bias from {source.origin}" + (
            f" ({counted(source.count, 'frame')})" if source.count else ""
        )


def _check_scale(source, wanted):
    """Refuse a bias in other units than --adu-scale asks for."""
    if wanted is not None and wanted != source.model.adu_scale:
        raise InputError(
            f"{source.origin}: ADUSCALE {source.model.adu_scale:g}, expected {wanted:g} as --adu-scale says"
        )


def _check_step(source, groups, jobs):
    """Refuse darks stored finer than the unit of the bias, by one frame of each group: before anything is written."""
    if source.model.adu_scale > 1:
        for vote, group in zip(
            sample_group([group.images[0] for group in groups], jobs, ceiling=65535).votes,
            groups,
            strict=True,
        ):
            factor = stored_step.shared_factor([vote])
            if vote is not None and factor < source.model.adu_scale:
                check_step(source, factor, group.entries[0]["original_path"])


def _warn_of_distance(record, model, groups):
    """Say how far darks lie from the temperatures of the bias."""
    outside = [group.temperature for group in groups if model.extrapolates(group.temperature)]
    if not outside:
        return
    far = max(outside, key=lambda t: max(model.t_min - t, t - model.t_max))
    distance = max(model.t_min - far, far - model.t_max)
    how = "the nearest temperature serves" if model.fixed_slope else "its line is extrapolated"
    shown = f"{label(model.t_min, 1)} to {label(model.t_max, 1)} degC"
    record.warn(f"darks lie up to {distance:.1f} degC outside the temperatures of the bias ({shown}): {how}")
    LOGGER.debug("bias %s", shown)
