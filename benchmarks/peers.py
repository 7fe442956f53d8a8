"""Other ways to combine the same frames, one a process: ``python -m benchmarks.peers WAY FOLDER OUTPUT``.

Each reads all ``*.fits`` of the folder, as its documentation shows, and writes the combined frame.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLIP = 4.0
READ_PIECE = 8 << 20


def read(paths, output):
    """Only the bytes, by two threads or more: no faster way to the data exists."""
    read_all(paths, len(os.sched_getaffinity(0)))


def read_all(paths, jobs, target=None):
    """Read all files to the end with threads; returns the bytes read.

    target : writable buffer that takes one file after the other (of one size); None: each thread reads into a small
    buffer of its own again and again, which stays in its cache.
    """
    size = os.path.getsize(paths[0])

    def some(first):
        buffer = memoryview(bytearray(READ_PIECE)) if target is None else memoryview(target)
        total = 0
        for number in range(first, len(paths), jobs):
            room = buffer if target is None else buffer[number * size : (number + 1) * size]
            descriptor = os.open(paths[number], os.O_RDONLY)
            position = 0
            while got := os.preadv(descriptor, [room if target is None else room[position:]], position):
                position += got
            os.close(descriptor)
            total += position
        return total

    with ThreadPoolExecutor(jobs) as pool:
        return sum(pool.map(some, range(jobs)))


def ccdproc_combine(paths, output, **how):
    import ccdproc

    ccdproc.combine(paths, unit="adu", dtype="float32", output_file=output, **how)


def ccdproc_sigclip(paths, output):
    import numpy as np
    from astropy.stats import mad_std

    ccdproc_combine(
        paths,
        output,
        method="average",
        sigma_clip=True,
        sigma_clip_low_thresh=CLIP,
        sigma_clip_high_thresh=CLIP,
        sigma_clip_func=np.ma.median,
        sigma_clip_dev_func=mad_std,
    )


def _stack(paths, kind):
    import numpy as np
    from astropy.io import fits

    return np.stack([fits.getdata(path).astype(kind, copy=False) for path in paths])


def _write(image, output):
    from astropy.io import fits

    fits.writeto(output, image.astype("float32"))


def astropy_sigclip(paths, output):
    import numpy as np
    from astropy.stats import sigma_clip

    # Faster than sigma_clipped_stats, which also takes the median and the scatter of what is left.
    clipped = sigma_clip(_stack(paths, "float32"), sigma=CLIP, maxiters=1, axis=0, masked=False, copy=False)
    _write(np.nanmean(clipped, axis=0), output)


def numpy_median(paths, output, kind):
    import numpy as np

    _write(np.median(_stack(paths, kind), axis=0), output)


def numpy_mean(paths, output):
    _write(_stack(paths, "uint16").mean(axis=0), output)


def dask_median(paths, output):
    import dask.array as da
    import numpy as np
    from astropy.io import fits

    frames = [fits.open(path, memmap=True, do_not_scale_image_data=True)[0] for path in paths]
    zero = frames[0].header["BZERO"]
    stack = da.stack([da.from_array(frame.data, chunks=(128, -1)) for frame in frames])
    stack = stack.rechunk({0: -1})
    median = stack.map_blocks(lambda block: np.median(block, axis=0), drop_axis=0, dtype="float64")
    _write(median.compute(scheduler="threads") + zero, output)


WAYS = {
    "read": read,
    "ccdproc-mean": lambda paths, output: ccdproc_combine(paths, output, method="average"),
    "ccdproc-median": lambda paths, output: ccdproc_combine(paths, output, method="median"),
    "ccdproc-sigclip": ccdproc_sigclip,
    "astropy-sigclip": astropy_sigclip,
    "numpy-mean": numpy_mean,
    "numpy-median-uint16": lambda paths, output: numpy_median(paths, output, "uint16"),
    "numpy-median-float32": lambda paths, output: numpy_median(paths, output, "float32"),
    "dask-median": dask_median,
}

if __name__ == "__main__":
    way, folder, target = sys.argv[1:]
    WAYS[way](sorted(str(path) for path in Path(folder).glob("*.fits")), target)
