"""Many FITS frames of one shape, read in row blocks and combined under a byte budget.

The bytes take the shortest way: ``preadv`` brings the rows of every frame into one buffer, a copy swaps them to
native order, a kernel combines them.  BZERO is never applied to the samples: it is added to the result in float64.
Blocks are independent, workers take them in any order, and no result depends on their size.
"""

import errno
import gzip
import io
import math
import os
import resource
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import InputError
from utils.fits_io import cluster
from utils.fits_io.atomic import output_error
from utils.fits_io.kept_results import remembered
from utils.fits_io.stack_plans import FloatPlan, IntegerPlan
from utils.fits_io.workers import in_threads, in_workers, shared_empty
from utils.kernels import combine
from utils.kernels.median_network import NETWORK_LIMIT, WIDE, WIDE_LIMIT

CHUNK_BYTES = 4 << 20
"""Samples that a worker works on at a time (as stored and as float32): they stay in its cache."""
READ_BYTES = 8 << 20
"""Bytes read at a time by one worker, over all frames."""
WORTH_A_WORKER = 4 << 20
"""Bytes of samples from which one more worker is worth its start."""
SPARE_DESCRIPTORS = 48
"""File descriptors left to the rest of the process."""

_UNREADABLE = {errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
"""Errors of one file, and not of this process as too many open files are."""

RESULT_KINDS = (np.float32, np.float32, np.uint16, np.uint8)
"""Types of the planes of a `StackResult`."""
_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass
class StackResult:
    """Combined frames in product ADU, each (ny, nx).

    value : float32 [ADU].  variance : float32, scatter of one sample [ADU^2], NaN for fewer than 2 samples.
    n_used : uint16.  flags : uint8, bits of `utils.kernels.combine`.
    """

    value: np.ndarray
    variance: np.ndarray
    n_used: np.ndarray
    flags: np.ndarray


class FrameStack:
    """Open frames of one shape; a context manager.

    images : sequence of `utils.fits_io.header_scan.FitsImage` (path, shape, bitpix, bzero, bscale, blank, offset,
    compressed).  adu_scale : stored units per product ADU.  jobs : workers.  memory_limit : bytes for all buffers.
    Compressed frames are unpacked once into an unnamed temporary file, not into memory.
    lenient : frames that cannot be opened or unpacked are kept in ``unusable`` (index -> reason), none of their rows
    may be asked for; else they are errors.
    Raises InputError where shapes differ, and where a file has vanished, has changed since its header was read, cannot
    be read or unpacked, or is shorter than its header says.
    """

    def __init__(self, images: Sequence, *, adu_scale=1.0, jobs=1, memory_limit=2 << 30, lenient=False):
        if not images:
            raise InputError("no frames to combine")
        first = images[0]
        for image in images:
            if image.shape != first.shape:
                raise InputError(
                    f"{image.path}: shape {image.shape}, expected {first.shape} as in {first.path}"
                )
        self.images = list(images)
        self.shape = tuple(first.shape)
        self.adu_scale = float(adu_scale)
        self.jobs = max(1, int(jobs))
        self.memory_limit = int(memory_limit)
        self.lenient, self.unusable = lenient, {}
        self._descriptors, self._opened = {}, False
        self._spool = None
        self._offsets = [image.offset for image in images]
        self._types = [np.dtype(_DTYPES[image.bitpix]) for image in images]

    def __enter__(self):
        # Where the frames are read by a cluster, they are opened here only when they are asked for.
        if not cluster.connected():
            self._open()
        return self

    def _open(self):
        self._opened = True
        try:
            if any(image.compressed for image in self.images):
                self._unpack()
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            if soft == resource.RLIM_INFINITY or len(self.images) <= soft - SPARE_DESCRIPTORS:
                for index, image in enumerate(self.images):
                    if not (self._spool and image.compressed):
                        self._take(index, lambda image=image: open_frame(image), self._descriptors)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc):
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _take(self, index, make, results):
        """Note ``make()`` under ``index``; a frame that is of no use is noted as such where that is allowed."""
        try:
            results[index] = make()
        except InputError as error:
            if not self.lenient:
                raise
            self.unusable[index] = str(error).removeprefix(f"{self.images[index].path}: ")

    def _unpack(self):
        """Write the samples of compressed frames one after the other into a temporary file."""
        self._spool = tempfile.TemporaryFile(prefix="calibration-", buffering=0)  # noqa: SIM115  closed by __exit__
        for index, image in enumerate(self.images):
            if not image.compressed:
                continue
            unpacked = {}
            self._take(index, lambda image=image: _unpacked(image, self.shape), unpacked)
            for data in unpacked.values():
                self._offsets[index] = self._spool.tell()
                self._types[index] = data.dtype.newbyteorder(">")
                stored = np.ascontiguousarray(data, dtype=self._types[index])
                try:
                    view = memoryview(stored.reshape(-1).view(np.uint8))
                    while view:
                        view = view[self._spool.write(view) :]
                except OSError as error:
                    raise output_error(error, tempfile.gettempdir()) or error from error

    @property
    def integers(self):
        """True when all frames are 8 or 16-bit integers with one zero point, so that nothing is rounded."""
        first = self.images[0]
        return all(
            kind.itemsize <= 2 and image.blank is None and image.bscale == 1 and image.bzero == first.bzero
            for image, kind in zip(self.images, self._types, strict=True)
        )

    @property
    def stored_types(self):
        """Big-endian types of the stored samples, one per frame."""
        return tuple(self._types)

    def stored_type(self, index):
        """Big-endian type of the stored samples of one frame."""
        return self._types[index]

    def read_rows(self, index, start, out):
        """Fill ``out`` (rows, nx), of the frame's stored big-endian type, from row ``start`` of frame ``index``."""
        if not self._opened:
            self._open()
        image = self.images[index]
        position = self._offsets[index] + start * self.shape[1] * out.itemsize
        if self._spool is not None and image.compressed:
            descriptor, passing = self._spool.fileno(), False
        else:
            descriptor = self._descriptors.get(index)
            passing = descriptor is None
            if passing:
                descriptor = open_frame(image)
        try:
            view = memoryview(out.reshape(-1).view(np.uint8))
            while view:
                try:
                    got = os.preadv(descriptor, [view], position)
                except OSError as error:
                    raise _unreadable(image.path, error) or error from error
                if got == 0:
                    raise InputError(
                        f"{image.path}: data end before row {start + len(out)}, file changed or truncated"
                    )
                view, position = view[got:], position + got
        finally:
            if passing:
                os.close(descriptor)

    def frame_view(self, index):
        """Return the stored samples of one frame as a read-only map of its file, (ny, nx), big-endian."""
        if not self._opened:
            self._open()
        image = self.images[index]
        source = self._spool
        if self._spool is None or not image.compressed:
            source = image.path
            os.close(open_frame(image))
        return np.memmap(source, self._types[index], "r", self._offsets[index], self.shape)

    def combine(self, rule, offsets=None, scales=None, pedestal=None, factor=None, progress=None):
        """Combine all frames by ``rule`` (levels of what the samples become).

        A sample counts as ``scale * (value - pedestal) * factor + offset``, value in product ADU.
        offsets, scales : (n,) per frame, or None.  pedestal, factor : (ny, nx) [product ADU, 1], NaN = no usable
        sample in that pixel, or None.  progress : called with the number of rows done.
        Saturation is where the converter ends: the stored sample is judged, before all that; a pixel of which all
        samples are saturated has the saturation level in the unit of the result.
        Returns a `StackResult`; where a run keeps its results, it may be that of an earlier one.
        """
        facts = ["combine", self.images, self.adu_scale, rule, offsets, scales, pedestal, factor]
        return remembered(
            facts,
            lambda: self._combined((rule, offsets, scales), pedestal, factor, progress),
            lambda result: dict(vars(result)),
            lambda arrays: StackResult(**{name: shared_copy(array) for name, array in arrays.items()}),
        )

    def _combined(self, how, pedestal, factor, progress):
        if cluster.connected():
            from utils.fits_io.cluster_stack import combine_on_cluster

            return combine_on_cluster(self, how, pedestal, factor, progress)
        return self.combine_part(0, self.shape[0], how, pedestal, factor, progress)

    def combine_part(self, first, stop, how, pedestal=None, factor=None, progress=None):
        """Combine the rows from ``first`` to ``stop`` only, as `combine`; other rows of the result mean nothing.

        how : (rule, offsets, scales).  Memory is taken for those rows: what is never touched is only addresses.
        """
        rule, offsets, scales = how
        as_stored = all(given is None for given in (offsets, scales, pedestal, factor))
        if self.integers and as_stored:
            plan = IntegerPlan(self, rule)
        else:
            plan = FloatPlan(self, rule, offsets, scales, pedestal, factor)
        jobs = max(1, min(self.jobs, self.sample_bytes // WORTH_A_WORKER))
        rows, chunk = self._blocks(plan, jobs)
        # A median is many short operations, for which threads would wait for each other.
        apart = jobs > 1 and rule.method == "median"
        empty, shared_out = (shared_empty, in_workers) if apart else (np.empty, in_threads)
        result = StackResult(*(empty(self.shape, kind) for kind in RESULT_KINDS))

        def prepare():
            buffers = plan.buffers(rows * self.shape[1], chunk)
            return lambda start: self._combine_rows(
                plan, result, start, min(rows, stop - start), chunk, buffers
            )

        shared_out(prepare, range(first, stop, rows), jobs, progress)
        for index, descriptor in self._descriptors.items():
            _check_unchanged(self.images[index], descriptor)
        return result

    @property
    def sample_bytes(self):
        """Size of all samples as stored."""
        return sum(kind.itemsize for kind in self._types) * self.shape[0] * self.shape[1]

    def _blocks(self, plan, jobs):
        """Rows that are read at a time, and pixels that are combined at a time."""
        ny, nx = self.shape
        n = len(self.images)
        item = max(kind.itemsize for kind in self._types)
        budget = min(READ_BYTES, self.memory_limit // (4 * jobs))
        rows = max(1, min(budget // (n * nx * item), math.ceil(ny / (2 * jobs))))
        chunk = max(512, min(65536, CHUNK_BYTES // (plan.bytes_at_work * n)))
        if NETWORK_LIMIT < n <= WIDE_LIMIT:
            chunk = max(chunk, 2 * WIDE)
        return rows, min(chunk, rows * nx)

    def _combine_rows(self, plan, result, start, height, chunk, buffers):
        """Combine ``height`` rows from row ``start``; returns their number."""
        nx = self.shape[1]
        arrays = tuple(vars(result)[name].reshape(-1) for name in ("value", "variance", "n_used", "flags"))
        value, variance, n_used, flags = arrays
        block = slice(start * nx, (start + height) * nx)
        n_used[block], flags[block] = len(self.images), 0
        to_product = np.float32(plan.variance_scale)
        for index in range(len(self.images)):
            self.read_rows(index, start, plan.rows(buffers, index, height))
        # Pixels that may hold an outlier are few: they are judged together, once a block.
        suspects, columns = [], []
        for left in range(block.start, block.stop, chunk):
            part = slice(left, min(left + chunk, block.stop))
            samples, work = plan.samples(part, block.start, buffers)
            found, scatter, suspect = combine.combine_quiet(samples, plan.rule, work)
            value[part] = plan.level(found, part)
            np.multiply(scatter, to_product, out=variance[part])
            if suspect.size:
                suspects.append(suspect + left)
                columns.append(samples.take(suspect, axis=1))
        if suspects:
            where, *judged = combine.judge(np.concatenate(columns, axis=1), plan.rule)
            pixels = np.concatenate(suspects)[where]
            value[pixels] = plan.level(judged[0], pixels)
            variance[pixels] = judged[1] * to_product
            n_used[pixels], flags[pixels] = judged[2], judged[3]
        return height


def _unpacked(image, shape):
    """Stored samples (ny, nx) of a compressed frame, as its header has them (BZERO not applied); its sums are checked."""
    from astropy.io import fits

    path = image.path
    os.close(open_frame(image))
    try:
        with warnings.catch_warnings():
            # A truncated file is a warning for astropy, and so is a wrong sum; that of a header may be out of date.
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message="Checksum verification failed")
            with open(path, "rb") as stream:
                source = stream
                if str(path).lower().endswith(".gz"):
                    # Read to the end: the checksum stands there.
                    source = io.BytesIO(gzip.GzipFile(fileobj=stream).read())
                with fits.open(source, do_not_scale_image_data=True, memmap=False, checksum=True) as hdus:
                    data = next(hdu for hdu in hdus if hdu.is_image and len(hdu.shape) >= 2).data
                    return data.reshape(shape)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on damaged data
        raise InputError(f"{path}: cannot be unpacked ({' '.join(str(error).split())})") from error


def shared_copy(array):
    """Copy of an array that forked workers may write."""
    copy = shared_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def open_frame(image):
    """Open the file of a frame and return its descriptor.

    Raises InputError where it has vanished, cannot be read, or has changed since its header was read.
    """
    try:
        descriptor = os.open(image.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise _unreadable(image.path, error) or error from error
    try:
        _check_unchanged(image, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_unchanged(image, descriptor):
    status = os.fstat(descriptor)
    if (status.st_size, status.st_mtime_ns) != (image.size, image.mtime_ns):
        what = (
            f"{status.st_size} bytes, {image.size} before" if status.st_size != image.size else "written anew"
        )
        raise InputError(f"{image.path}: file changed during the run ({what})")


def _unreadable(path, error):
    """Translate an OSError of one frame to a one-line InputError; None for those of the process."""
    if error.errno == errno.ENOENT:
        return InputError(f"{path}: file vanished during the run")
    return InputError(f"{path}: cannot be read ({error.strerror})") if error.errno in _UNREADABLE else None
