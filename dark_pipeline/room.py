"""Bytes that a run will write, from the groups and the shape of the frames."""

from utils.fits_io.free_space import PLANE, PRODUCT, product_bytes

_BIAS, _MODEL_1D, _MODEL_2D = 37, 37, 56  # bytes per pixel: maps with their errors, covariance, hot pixels


def bytes_needed(config, groups):
    """Bytes of all products of a full run, and of what waits on disk between its steps.  groups : list of FrameGroup."""
    frames = sum(len(group) for group in groups)
    exposures = len({round(group.exposure, 4) for group in groups})
    temperatures = len(groups) if config.temps is None else exposures * len(config.temps)
    grid = len(config.exptimes or range(exposures)) * (
        len(config.temps) if config.temps is not None else -(-len(groups) // exposures)
    )
    per_pixel = PRODUCT * len(groups) + (0 if config.no_bias else _BIAS)
    if config.save_corrected:
        per_pixel += PRODUCT * frames
    later = _MODEL_1D * exposures + _MODEL_2D + PRODUCT * (temperatures + grid)
    # Signal, variance, count and flags of every group wait in a temporary file until all maps are written.
    return product_bytes(
        groups[0].images[0].shape, per_pixel + max(later, (2 * PLANE + 3) * len(groups)), frames
    )
