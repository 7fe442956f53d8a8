"""Bytes that a run will write, from the number of groups and the shape of the frames."""

import math

from bias_pipeline.config import GRID_STEP
from utils.fits_io.free_space import PLANE, PRODUCT, product_bytes

_NOISE, _MODEL = 15, 36  # bytes per pixel: read noise with its error and flags; a, b and covariance
_EVALUATION = 29  # bytes per pixel: maps of one temperature


def bytes_needed(config, steps, groups):
    """Bytes of all products of the steps of a mode, and of what waits on disk between them.

    steps : names.  groups : list of FrameGroup.
    """
    n = len(groups)
    per_pixel = PRODUCT * n + _NOISE * (n + 1) if "make_masters" in steps else 0
    later = _MODEL if "fit_model" in steps else 0
    if "synthesize" in steps:
        count = n if config.temps is None else len(config.temps)
        if config.generate_set:
            count += math.ceil((groups[-1].temperature - groups[0].temperature) / GRID_STEP) + 1
        later += PRODUCT * count
    if "evaluate" in steps and config.save_eval_fits:
        later += _EVALUATION * n
    # The combined groups wait in a temporary file until all masters are written: value, variance, count, flags.
    waiting = (2 * PLANE + 3) * (n - 1) if "make_masters" in steps else 0
    return product_bytes(
        groups[0].images[0].shape, per_pixel + max(later, waiting), sum(len(group) for group in groups)
    )
