"""Find the bias frames of one camera setting and group them by temperature."""

from utils.application.log import LOGGER, progress
from utils.domain.frame_groups import group_entries
from utils.errors import InputError
from utils.fits_io.naming import counted, label
from utils.observation_manager import ObservationManager, one_value

SETTING = ("camera", "gain", "binning", "shape", "full_shape")
"""What must be the same in all frames of one model."""


def run(config, context):
    """Select and group the frames.

    Reads: headers of all FITS files below --basepath (cached).
    Writes: nothing; sets ``context.groups``, frames that cannot be used go to the run record.
    """
    shared, record = config.shared, context.record
    with record.step("select_frames") as step:
        manager = ObservationManager(
            shared.need_basepath(), exclude=[config.output_dir], jobs=shared.jobs, select=shared.select
        )
        manager.load_and_organize(progress)
        for rejection in manager.rejected:
            record.reject(rejection["path"], rejection["reason"])
        entries = manager.filter_files(category="CALIBRATION", subcat="bias")
        if not entries:
            raise InputError(_nothing_found(shared.basepath, manager))
        # --gain and --detector override what the headers say of e-/ADU.
        for key in SETTING if shared.gain or shared.detector else (*SETTING, "egain"):
            one_value(entries, key)
        context.groups = group_entries(entries, manager.images, temp_tolerance=shared.temp_tolerance)
        record.add_input([manager.images[entry["original_path"]] for entry in entries])
        at = counted(len(context.groups), "temperature")
        step.summary = f"{counted(len(entries), 'bias frame')} at {at}"
    for group in context.groups:
        LOGGER.log(
            20 if shared.dry_run else 10,
            "group: bias, T %s degC (%s to %s, drift %.2f), exposure %g s, gain %s, %d frames",
            label(group.temperature, 2),
            label(group.temperatures.min(), 2),
            label(group.temperatures.max(), 2),
            group.drift,
            group.exposure,
            "unknown" if group.entries[0]["gain"] is None else f"{group.entries[0]['gain']:g}",
            len(group),
        )


def _nothing_found(basepath, manager):
    """Say that there is no bias frame, and what there is."""
    text = f"{basepath}: got no bias frame among {counted(len(manager.entries), 'usable frame')}"
    if manager.rejected:
        first = manager.rejected[0]
        text += f" and {len(manager.rejected)} unusable, the first {first['path']} ({first['reason']})"
    return text + ", expected at least one"
