"""What the tests of the domain layer share: groups of small frames on disk, with the entries that describe them."""

import numpy as np

from tests.bias_frames import START, write_frame
from utils.domain.frame_groups import FrameGroup
from utils.fits_io.header_scan import scan_header


def entry(path, temperature=0.0, time=START, **more):
    """An entry as ObservationManager gives it, as far as groups and screen read it."""
    given = {"exposure": 1e-5, "bit_depth": None, "saturate": None, "caltype": "bias", "datasum": None}
    return {"original_path": str(path), "temperature": float(temperature), "timestamp": time, **given, **more}


def group_of(folder, stack, temperatures=None, times=None, **more):
    """Write frames (n, ny, nx) of stored samples, 2 s apart unless times are given; returns their FrameGroup."""
    n = len(stack)
    temperatures = np.zeros(n) if temperatures is None else temperatures
    times = START + 2.0 * np.arange(n) if times is None else times
    entries, images = [], []
    for k in range(n):
        samples = np.rint(np.clip(stack[k], 0, 65535)).astype(np.uint16)
        path = write_frame(folder / f"{k:03d}.fits", samples, CCD_TEMP=float(temperatures[k]))
        entries.append(entry(path, temperatures[k], times[k], **more))
        images.append(scan_header(str(path)))
    return FrameGroup(entries, images)
