"""A mask of pixels handed over by the user."""

import numpy as np

from utils.errors import InputError
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.header_scan import scan_header


def read_pixel_mask(path, shape):
    """Read a FITS image as a mask: not 0 means marked.

    Returns a boolean array of ``shape``.  Raises InputError where the file is unusable or its shape differs.
    """
    image = scan_header(path)
    if image.shape != tuple(shape):
        raise InputError(f"{path}: shape {image.shape}, expected {tuple(shape)} as the frames")
    with FrameStack([image]) as stack:
        stored = np.asarray(stack.frame_view(0), dtype=np.float64)
    return stored * image.bscale + image.bzero != 0
