"""Find the dark and bias frames of one camera setting and group the darks by exposure and temperature."""

from utils.application.log import LOGGER, progress
from utils.domain.frame_groups import group_entries
from utils.errors import InputError
from utils.fits_io.naming import counted, exposure_label, label
from utils.observation_manager import ObservationManager, one_value

SETTING = ("camera", "gain", "binning", "shape", "full_shape")
"""What must be the same in all frames of one model."""


def run(config, context):
    """Select and group the frames.

    Reads: headers of all FITS files below --basepath (cached).
    Writes: nothing; sets ``context.groups``, ``bias_entries`` and ``images``; frames that cannot be used go to the run
    record.
    """
    shared, record = config.shared, context.record
    with record.step("select_frames") as step:
        manager = ObservationManager(
            shared.need_basepath(), exclude=[config.output_dir], jobs=shared.jobs, select=shared.select
        )
        manager.load_and_organize(progress)
        for rejection in manager.rejected:
            record.reject(rejection["path"], rejection["reason"])
        darks = manager.filter_files(category="CALIBRATION", subcat="darks")
        usable = []
        for entry in darks:
            if entry["exposure"] is None or not entry["exposure"] > 0:
                record.reject(entry["original_path"], f"exposure {entry['exposure']}, expected more than 0 s")
            else:
                usable.append(entry)
        if not usable:
            raise InputError(
                f"{shared.basepath}: no dark frame that can be used among {counted(len(manager.entries), 'frame')}"
            )
        own = config.no_bias or config.bias_model is not None
        biases = [] if own else manager.filter_files(category="CALIBRATION", subcat="bias")
        if not biases and not own:
            raise InputError(
                f"{shared.basepath}: no bias frame that can be used; expected bias frames, --bias-model DIR, or --no-bias"
                " for frames that hold none"
            )
        for key in SETTING:
            one_value([*biases, *usable], key)
        context.groups = group_entries(
            usable, manager.images, temp_tolerance=shared.temp_tolerance, by_exposure=True
        )
        context.bias_entries, context.images = biases, manager.images
        record.add_input([manager.images[entry["original_path"]] for entry in (*biases, *usable)])
        step.summary = f"{counted(len(usable), 'dark frame')} in {counted(len(context.groups), 'group')}" + (
            f", {counted(len(biases), 'bias frame')}" if biases else ""
        )
    for group in context.groups:
        LOGGER.log(
            20 if shared.dry_run else 10,
            "group: dark, T %s degC (%s to %s, drift %.2f), exposure %s s, gain %s, %d frames",
            label(group.temperature, 2),
            label(group.temperatures.min(), 2),
            label(group.temperatures.max(), 2),
            group.drift,
            exposure_label(group.exposure),
            "unknown" if group.entries[0]["gain"] is None else f"{group.entries[0]['gain']:g}",
            len(group),
        )
