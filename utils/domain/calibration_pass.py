"""Calibrate frames in pieces of a few rows: what the products hold of a piece is read once for many frames.

Workers take strips of rows; every frame of a batch is read, calibrated and stored piece after piece, so that nothing
as large as a frame is ever in memory.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from utils.errors import InputError
from utils.fits_io.fits_cards import add_sums, datasum
from utils.fits_io.frame_sample import check_datasum
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.mapped import drop_pages
from utils.fits_io.plane_writer import computed_planes
from utils.fits_io.products import DQ, begin_product
from utils.fits_io.workers import in_workers
from utils.kernels import calibration
from utils.kernels.calibration import REACH

PIECE = 1 << 16
"""Pixels calibrated at a time, about: they stay in the cache."""
STRIPS = 4
"""Strips of rows for each worker and batch: who is done early takes another."""
BATCH = 16
"""Frames under way together."""
FULL = 0.9
"""Part of the full well beyond which a pixel counts as saturated: the response bends before it is full."""
UNSTABLE = np.int16(DQ.TELEGRAPH)
"""A pixel that jumps between levels has no dark: it is not usable."""
LOST = np.int16(DQ.DO_NOT_USE | DQ.NO_DATA)
FLOODED = np.int16(DQ.SATURATED | DQ.DO_NOT_USE)
_KINDS = {"value": np.float32, "sigma": np.float32, "dq": np.int16}


def calibrate_frames(plans, paths, products, jobs, progress=None):
    """Calibrate frames and write them.

    plans : list of at most `BATCH` `Plan`, all of one shape.  paths : of their products.  products : `Products`.
    jobs : workers.  progress : called with the number of rows done.
    Returns a list, for each frame None or the InputError for which it was not made.
    """
    shape = plans[0].image.shape
    # Equal temperatures and exposures stand together: their bias and dark are evaluated once.
    order = sorted(range(len(plans)), key=lambda n: (plans[n].temperature, plans[n].exposure))
    faults = [None] * len(plans)
    with ExitStack() as files, FrameStack([plan.image for plan in plans], lenient=True) as stack:
        frames = {}
        for number in order:
            if number in stack.unusable:
                faults[number] = InputError(f"{plans[number].image.path}: {stack.unusable[number]}")
                continue
            frames[number] = _Frame(number, plans[number], paths[number])
            frames[number].file.__enter__()
            files.push(frames[number].leave)
        work = _Pass(stack, list(frames.values()), products, shape)
        height = max(work.rows, -(-shape[0] // (STRIPS * jobs) // work.rows) * work.rows)
        strips = [slice(first, min(first + height, shape[0])) for first in range(0, shape[0], height)]

        def done(_):
            if progress is not None:
                progress(height)

        results = in_workers(lambda: work.prepare(), strips, jobs if len(strips) > 1 else 1, done)
        for position, (number, frame) in enumerate(frames.items()):
            parts = [one[position] for one in results]
            try:
                frame.finish(parts)
            except InputError as error:
                faults[number] = frame.fault = error
    return faults


@dataclass
class _Part:
    """What a strip of one frame came to: data sums of the product's images, of the frame, and why it is of no use."""

    sums: list = field(default_factory=list)
    stored: list = field(default_factory=list)
    fault: str = ""


class _Frame:
    """One frame under way and the file of its product."""

    def __init__(self, number, plan, path):
        self.number, self.plan, self.fault, self.values = number, plan, None, {}
        planes = computed_planes(plan.image.shape, _KINDS, lambda part: self.values)
        self.file, self.source, self.table_of = begin_product(
            path,
            planes["value"],
            prodtype="CALIBRATED",
            unit="adu",
            cards=plan.cards,
            uncert=planes["sigma"],
            dq=planes["dq"],
        )

    def leave(self, *exc):
        """Keep the file, or remove it where the frame or the whole batch has failed."""
        fault = self.fault
        if fault is not None and exc[0] is None:
            exc = (type(fault), fault, fault.__traceback__)
        self.file.__exit__(*exc)
        return False

    def finish(self, parts):
        """Check the frame as a whole and write the headers; InputError where its data are of no use."""
        image, facts = self.plan.image, self.plan.facts
        for part in parts:
            if part.fault:
                raise InputError(part.fault)
        whole = None if image.compressed else add_sums(one for part in parts for one in part.stored)
        check_datasum(image, whole)
        given = {
            "file": image.path,
            "temperature": facts["temperature"],
            "exposure": facts["exposure"],
            "time": facts["timestamp"],
            "datasum": image.cards.get("DATASUM") if whole is None else whole,
        }
        self.file.finish([one for part in parts for one in part.sums], self.table_of([given]))


class _Pass:
    """All frames of a batch, strip by strip; `prepare` is called once in each worker."""

    def __init__(self, stack, frames, products, shape):
        self.stack, self.frames, self.products, self.shape = stack, frames, products, shape
        ny, nx = shape
        # Whole 32-bit words: data sums of pieces add up.
        self.rows = min(-(-ny // 4) * 4, max(4, PIECE // nx // 4 * 4))

    def prepare(self):
        """Return the function that does a strip of rows."""
        work = calibration.Workspace(self.rows, self.shape[1])
        room = [frame.file.room(self.rows * self.shape[1]) for frame in self.frames[:1]]
        return lambda strip: self._strip(strip, work, room[0])

    def _strip(self, strip, work, room):
        parts = [_Part() for _ in self.frames]
        for first in range(strip.start, strip.stop, self.rows):
            piece = Piece(self.products, self.shape, slice(first, min(first + self.rows, strip.stop)))
            for frame, part in zip(self.frames, parts, strict=True):
                if part.fault:
                    continue
                try:
                    stored = self._read(frame, piece, work)
                    frame.values = calibrate_piece(frame.plan, stored, piece, work)
                except InputError as error:
                    part.fault = str(error)
                    continue
                part.stored.append(datasum(stored[piece.above : piece.above + piece.ny]))
                part.sums.append(frame.file.store(piece.part, frame.source(piece.part), room))
        self._rest(strip)
        return parts

    def _read(self, frame, piece, work):
        """Stored samples of the rows of a piece and those around."""
        kind = self.stack.stored_type(frame.number)
        if kind not in work.stored:
            work.stored[kind] = np.empty(work.wide[0].shape, kind)
        stored = work.stored[kind][: piece.wide.stop - piece.wide.start]
        self.stack.read_rows(frame.number, piece.wide.start, stored)
        return stored

    def _rest(self, strip):
        """Give back the memory of what was read of the maps."""
        for plane in self.products.mapped():
            drop_pages(plane[strip])


class Piece:
    """What some rows need of the products; each thing is read when the first frame asks for it.

    rows : slice of the rows.  They are the ``ny`` rows after ``above`` in the rows ``wide`` with their neighbours; ``part``
    is the slice of their flat pixels.
    """

    def __init__(self, products, shape, rows):
        ny, nx = shape
        self.products, self.rows, self.ny, self.nx = products, rows, rows.stop - rows.start, nx
        self.wide = slice(max(0, rows.start - REACH), min(ny, rows.stop + REACH))
        self.above = rows.start - self.wide.start
        self.part = slice(rows.start * nx, rows.stop * nx)
        self.inner = slice(self.above, self.above + self.ny)
        self.pixels = slice(self.wide.start * nx, self.wide.stop * nx)
        self._kept, self._pedestal = {}, (None, None)

    def _once(self, key, make):
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def pedestal(self, plan):
        """What is subtracted from a frame, a `_Pedestal`; frames alike in a row share it."""
        key = (plan.temperature, plan.exposure, id(plan.dark))
        if plan.dark is not None:
            key = (*key[:2], plan.dark.words)
        if self._pedestal[0] != key:
            self._pedestal = (key, self._evaluate(plan))
        return self._pedestal[1]

    def _evaluate(self, plan):
        bias = self._once("bias", lambda: self.products.bias.model.terms(self.wide, self.rows))
        level, variance = bias.level(plan.temperature), bias.variance(plan.temperature)
        noise = self._once("read", self._read_variance)
        if plan.dark is None:
            return _Pedestal(level, None, variance, noise)
        if plan.dark.offset:
            level += np.float32(plan.dark.offset)
        inner = slice(self.above * self.nx, (self.above + self.ny) * self.nx)
        signal, more = plan.dark.signal(self.pixels, inner, self._once)
        signal = signal.reshape(level.shape)
        variance += more.reshape(variance.shape)
        electrons = np.maximum(signal[self.inner], np.float32(0.0))
        electrons *= np.float32(plan.inverse_gain)
        electrons += noise
        return _Pedestal(level, signal, variance, electrons)

    def _read_variance(self):
        known = self.products.bias.read_variance
        if known is not None:
            return known[self.rows]
        read = np.float32(self.products.detector.read_noise.value**2 + 1.0 / 12.0)
        return np.full((self.ny, self.nx), read)

    def flat(self, flat):
        """`FlatTerms`, or None without a flat."""
        if flat is None:
            return None
        return self._once(("flat", id(flat)), lambda: calibration.FlatTerms(*flat.rows(self.rows)))

    def quality(self, plan, work):
        """DQ of all that goes in, which pixels are not averaged (both of the wide rows), and `inverse_count`."""
        darks = None if plan.dark is None else plan.dark.words
        return self._once(("dq", darks, id(plan.flat)), lambda: self._merge(plan, work))

    def _merge(self, plan, work):
        dq = np.array(self.products.bias.model.dq[self.wide])
        if plan.dark is not None:
            # What saturated in a long dark need not in this frame: its own samples tell.
            dq |= self.products.advisor.model.dq[self.wide] & ~np.int16(DQ.SATURATED)
            lost = plan.dark.lost(self.pixels)
            dq[lost.reshape(dq.shape)] |= np.int16(DQ.NO_DATA)
        if plan.flat is not None:
            dq |= plan.flat.dq[self.wide].astype(np.int16) & ~np.int16(DQ.SATURATED)
        dq[(dq & UNSTABLE) != 0] |= np.int16(DQ.DO_NOT_USE)
        bad = (dq & LOST) != 0
        return dq, bad, self.counted(bad, work)

    def counted(self, bad, work):
        """`calibration.inverse_count` of what is not bad."""
        return calibration.inverse_count(~bad, self.above, work, np.empty((self.ny, self.nx), np.float32))


@dataclass
class _Pedestal:
    """Bias and dark of some rows.

    level, dark : of the wide rows [ADU], dark None without one.  variance : error of both [ADU^2], noise : variance of a
    sample without light [ADU^2], of the rows themselves.
    """

    level: np.ndarray
    dark: np.ndarray | None
    variance: np.ndarray
    noise: np.ndarray


def calibrate_piece(plan, stored, piece, work):
    """Calibrate the rows of a piece.

    plan : `Plan`.  stored : samples as in the file, of the wide rows.  work : `calibration.Workspace`.
    Returns value, sigma [ADU] and dq as a dict of flat arrays of ``work``, to be stored before the next call.
    Raises InputError where the samples are not of the ADU scale of the products.
    """
    height = len(stored)
    samples, signal = work.wide[0][:height], work.wide[1][:height]
    _samples(plan, stored, samples)
    full, bad = work.flags[0][:height], work.flags[1][:height]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        np.greater_equal(samples, np.float32(plan.saturation), out=full)
        _check_scale(plan, samples, full, work.wide[1][:height])
        pedestal = piece.pedestal(plan)
        np.subtract(samples, pedestal.level, out=signal)
        if math.isfinite(plan.full_well):
            # Charge, dark current included, near what a pixel can hold.
            full |= signal >= np.float32(FULL * plan.full_well)
        if pedestal.dark is not None:
            signal -= pedestal.dark
        dq, lost, inverse = piece.quality(plan, work)
        np.isfinite(signal, out=bad)
        np.logical_not(bad, out=bad)
        bad |= full
        bad |= lost
        if np.count_nonzero(bad) != np.count_nonzero(lost):
            inverse = piece.counted(bad, work)
        value, sigma = calibration.calibrate(
            signal,
            bad,
            piece.above,
            inverse,
            pedestal.noise,
            pedestal.variance,
            piece.flat(plan.flat),
            plan.inverse_gain,
            work,
        )
    dq = np.array(dq[piece.inner])
    dq.reshape(-1)[np.flatnonzero(full[piece.inner])] |= FLOODED
    return {"value": value.reshape(-1), "sigma": sigma.reshape(-1), "dq": dq.reshape(-1)}


def _samples(plan, stored, samples):
    """Samples in product ADU into ``samples``, NaN where blank."""
    image = plan.image
    if stored.dtype.itemsize > 2 and stored.dtype.kind == "i":
        # Large numbers less a large zero point: float32 would round them first.
        stored_values = stored * np.float64(image.bscale) + image.bzero
        np.divide(stored_values, plan.scale, out=samples, casting="same_kind")
    else:
        np.copyto(samples, stored, casting="unsafe")
        if image.bscale != 1:
            samples *= np.float32(image.bscale)
        if image.bzero != 0:
            samples += np.float32(image.bzero)
        if plan.scale != 1:
            samples /= np.float32(plan.scale)
    if image.blank is not None and stored.dtype.kind in "iu":
        samples[stored == image.blank] = np.nan


def _check_scale(plan, samples, full, work):
    """Refuse integers that are not all multiples of the ADU scale, saturated ones apart."""
    if plan.scale <= 1 or plan.image.bitpix < 0:
        return
    np.rint(samples, out=work)
    odd = (work != samples) & ~full & np.isfinite(samples)
    if odd.any():
        raise InputError(
            f"{plan.origin}: ADUSCALE {plan.scale:g}, expected 1 as the frame {plan.image.path} is stored (its samples"
            f" are not all multiples of {plan.scale:g})"
        )
