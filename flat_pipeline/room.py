"""Bytes that a run will write, from the groups and the shape of the frames."""

from utils.fits_io.free_space import PLANE, PRODUCT, product_bytes

_MODEL, _WAITING = (
    53,
    18,
)  # bytes per pixel: maps of the model of a filter; a combined group in the temporary file
_FRAME, _PEDESTAL = (
    7,
    16,
)  # a reduced or normalised frame, which has no UNCERT; what was subtracted from a group
_EVALUATION = 3 * PRODUCT


def bytes_needed(config, steps, groups):
    """Bytes of all products of the steps of a mode, and of what waits on disk between them.

    steps : names.  groups : list of FrameGroup.
    """
    frames = sum(len(group) for group in groups)
    filters = len({group.entries[0]["filter"] for group in groups})
    per_pixel = 0
    if "reduce" in steps or "normalize" in steps:
        per_pixel += _FRAME * frames + _PEDESTAL * len(groups)
    if "combine" in steps:
        per_pixel += _WAITING * len(groups)
        if config.flat_type != "lab":
            # Frames of one group are cleaned in temporary files.
            per_pixel += 3 * PLANE * max(len(group) for group in groups)
    if "vignetting" in steps:
        per_pixel += 2 * PRODUCT * filters  # the illumination, and the mean flat that it was found in
    if "masters" in steps:
        per_pixel += PRODUCT * (len(groups) + (2 if config.flat_type == "sky" else 0))
    if "fit_model" in steps:
        per_pixel += _MODEL * filters
    if "evaluate" in steps and config.save_eval_fits:
        per_pixel += _EVALUATION * len(groups)
    return product_bytes(groups[0].images[0].shape, per_pixel, frames)
