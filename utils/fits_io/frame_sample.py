"""A small fixed sample of every frame, read before the main pass.

Whole rows, evenly spaced, tell level and noise; strips of columns through all rows tell dropped rows and zero
blocks.  Which rows and columns depends on the shape and the number of frames only, so that no result depends on
blocks, threads or memory.
"""

from dataclasses import dataclass, field

import numpy as np

from utils.errors import InputError
from utils.fits_io import cluster
from utils.fits_io.cluster_stack import as_sent
from utils.fits_io.fits_cards import BLOCK, add_sums, datasum
from utils.fits_io.frame_stack import WORTH_A_WORKER, FrameStack, open_frame, shared_copy
from utils.fits_io.kept_results import remembered
from utils.fits_io.workers import in_workers, shared_empty
from utils.kernels import adu_scale

SAMPLE_VALUES = 2 << 20
"""Values kept of one group."""
STRIPS, STRIP_WIDTH = 4, 16
"""Columns that are looked at: at most 256 samples of a row."""
PIECE_BYTES = 1 << 20
CHANCE = 0.01
"""Rows that may be constant by chance in all frames of a group."""


@dataclass
class GroupSample:
    """Sample of n frames, in stored units (BZERO and BSCALE applied).

    rows : (n, r, nx) float32, NaN = blank.  where : (r,) numbers of those rows.
    votes : (n,) OR of the integers, None = no vote.
    zero, frozen : (n, ny) bool, rows with a strip of zeros; rows constant in all strips or equal to the row before.
    datasums : (n,) data sum of each frame as stored, None for compressed frames.
    faults : {number of a frame: why its bytes are of no use}; its samples mean nothing.
    """

    rows: np.ndarray
    where: np.ndarray
    votes: list
    zero: np.ndarray
    frozen: np.ndarray
    datasums: list
    faults: dict = field(default_factory=dict)

    def at(self, keep):
        """Return the sample of the frames at ``keep``, a list of numbers."""
        votes, datasums = ([one[i] for i in keep] for one in (self.votes, self.datasums))
        return GroupSample(self.rows[keep], self.where, votes, self.zero[keep], self.frozen[keep], datasums)


def sample_rows(shape, n):
    """Return the rows of a frame that are sampled: at most 16, fewer for many frames, as `spread_rows`."""
    ny, nx = shape
    return spread_rows(ny, int(min(16, ny, max(2, SAMPLE_VALUES // (n * nx)))))


def spread_rows(ny, count):
    """Return about ``count`` of ``ny`` rows, evenly spaced, even and odd ones in turn.

    Interlaced sensors and mosaics differ from one row to the next: an even spacing would see one kind only.
    """
    if ny <= 2 or count >= ny:
        return np.arange(ny)
    rows = np.linspace(0, ny - 1, count + 2)[1:-1].astype(int)
    rows += (rows + np.arange(rows.size)) % 2
    return np.unique(np.minimum(rows, ny - 1))


def sample_group(images, jobs=1, ceiling=None):
    """Sample the frames of one group; each is read once, from its first byte to its last.

    images : sequence of FitsImage of one shape.  ceiling : stored value that means saturated, for the votes.
    Returns a `GroupSample`, in which frames that cannot be read, or whose data are not those of their DATASUM, are
    ``faults``; where a run keeps its results, it may be that of an earlier one.
    """
    return remembered(
        ["sample", list(images), ceiling], lambda: _sampled(images, jobs, ceiling), _packed, _unpacked
    )


def _packed(sample):
    """Arrays of a sample; of one with faults nothing is kept: what ails a file may have gone."""
    if sample.faults:
        return None
    arrays = {name: getattr(sample, name) for name in ("rows", "where", "zero", "frozen")}
    for name in ("votes", "datasums"):
        told = [one is not None for one in getattr(sample, name)]
        arrays[name] = np.array([one or 0 for one in getattr(sample, name)], np.int64)
        arrays[f"{name}_told"] = np.array(told, bool)
    return arrays


def _unpacked(arrays):
    arrays = {name: shared_copy(array) for name, array in arrays.items()}
    for name in ("votes", "datasums"):
        told = arrays.pop(f"{name}_told")
        arrays[name] = [int(one) if known else None for one, known in zip(arrays[name], told, strict=True)]
    return GroupSample(**arrays)


def _sampled(images, jobs, ceiling):
    ny, nx = images[0].shape
    n = len(images)
    wanted = sample_rows(images[0].shape, n)
    jobs = max(1, min(jobs, sum(map(_data_bytes, images)) // WORTH_A_WORKER))
    empty = shared_empty if jobs > 1 and not cluster.connected() else np.empty
    rows = empty((n, wanted.size, nx), np.float32)
    # Pairs of equal neighbours among the samples of the strips: a small number.
    zero, frozen, alike = empty((n, ny), bool), empty((n, ny), bool), empty((n, ny), np.uint8)
    planes = (rows, zero, frozen, alike)

    def keep(index, sample):
        for plane, value in zip(planes, sample[:-1], strict=True):
            plane[index] = value
        return sample[-1]

    if cluster.connected():
        found = [None] * n
        for index, sample in cluster.in_batches(
            _sample_batch, (wanted, ceiling), as_sent(images, ("DATASUM",)), _data_bytes(images[0]),
            what="frames sampled", witness=images[0],
        ):  # fmt: skip
            found[index] = keep(index, sample)
    else:
        with FrameStack(images, jobs=jobs, lenient=True) as stack:
            found = in_workers(
                lambda: lambda index: keep(index, sample_one(stack, index, wanted, ceiling)), range(n), jobs
            )
    votes, datasums, faults = zip(*found, strict=True)
    faults = {index: fault for index, fault in enumerate(faults) if fault is not None}
    result = GroupSample(rows, wanted, list(votes), zero, frozen, list(datasums), faults)
    # A row of nx samples, of which a share p is the commonest value, is constant by chance with p^nx, and about p^2 of
    # neighbours are alike. Where that happens to clean frames, only a frame without any other row is suspicious.
    pairs = max(1, _strip_starts(nx).size * min(STRIP_WIDTH, nx) - 1)
    usual = np.median(alike, axis=0)[result.frozen.mean(axis=0) < 0.5] / pairs
    alike_pairs = np.quantile(usual, 0.98 if n > 1 else 0.5) if usual.size else 1.0
    if n * ny * alike_pairs ** (nx / 2) > CHANCE:
        result.frozen &= result.frozen.all(axis=1, keepdims=True)
    return result


def sample_one(stack, index, wanted, ceiling):
    """Sample one frame of an open lenient stack: rows, zero, frozen, alike, and (vote, data sum, fault)."""
    image = stack.images[index]
    try:
        if index in stack.unusable:
            raise InputError(stack.unusable[index])
        stored, strips, data_sum = _read_sample(stack, index, wanted)
        check_datasum(image, data_sum)
        rows, vote = _in_stored_units(image, stored, ceiling)
        return (
            rows,
            *_judge_strips(stack, index, strips),
            (vote, None if image.compressed else data_sum, None),
        )
    except InputError as error:
        return np.nan, False, False, 0, (None, None, str(error).removeprefix(f"{image.path}: "))


def _sample_batch(wanted, ceiling, images):
    with FrameStack(images, lenient=True) as stack:
        samples = [sample_one(stack, index, wanted, ceiling) for index in range(len(images))]
    return [(np.float32(rows), *others) for rows, *others in samples]


def check_datasum(image, data_sum=None):
    """InputError where the data are not those of the frame's DATASUM; compressed frames are checked as they are unpacked.

    data_sum : of the samples, None where they have not been read.  What follows them is zero in nearly every file: it is
    read only where the sums differ.
    """
    card = str(image.cards.get("DATASUM") or "").strip()
    if (
        image.compressed
        or not (card.isascii() and card.isdecimal())
        or (data_sum is not None and _same_sum(int(card), data_sum))
    ):
        return
    size = _data_bytes(image)
    whole = _sum_in_file(image, size + -size % BLOCK)
    if not _same_sum(int(card), whole):
        raise InputError(f"{image.path}: DATASUM: the data have {whole}, the header says {card}: damaged")


def _same_sum(one, other):
    # In one's complement there are two zeros.
    return one % 0xFFFFFFFF == other % 0xFFFFFFFF


def _strip_starts(nx):
    """First columns of the strips."""
    return np.unique(np.linspace(0, max(nx - STRIP_WIDTH, 0), STRIPS).astype(int))


def _in_stored_units(image, stored, ceiling):
    """Values of stored samples, NaN where blank, and the vote of the frame."""
    values = stored.astype(np.float64) * image.bscale + image.bzero
    if stored.dtype.kind not in "iu":
        return values, None
    if image.blank is not None:
        values[stored == image.blank] = np.nan
    if image.bscale != 1 or not float(image.bzero).is_integer():
        return values, None
    stored = stored if image.blank is None else stored[stored != image.blank]
    return values, adu_scale.sample_bits(stored.astype(np.int64) + int(image.bzero), ceiling)


def _judge_strips(stack, index, strips):
    """Rows with a strip of zeros, rows that are frozen, and the number of equal neighbours in each row; (ny,) each."""
    image = stack.images[index]
    # Zero means no charge at all: the stored sample that stands for the value 0.
    blank = (strips == -image.bzero / image.bscale).all(axis=2)
    flat = strips.reshape(len(strips), -1)
    if flat.shape[1] < STRIP_WIDTH:
        return blank.any(axis=1), np.zeros(len(flat), bool), np.zeros(len(flat), np.uint8)
    frozen = (flat == flat[:, :1]).all(axis=1)
    frozen[1:] |= (flat[1:] == flat[:-1]).all(axis=1)
    frozen = _wholly_frozen(stack, index, frozen & ~blank.all(axis=1))
    return blank.any(axis=1), frozen, (flat[:, 1:] == flat[:, :-1]).sum(axis=1, dtype=np.uint8)


def _wholly_frozen(stack, index, candidates):
    """Keep the candidate rows (ny,) bool that are constant, or equal to the row before, over their whole width."""
    kept = np.zeros_like(candidates)
    pair = np.empty((2, stack.shape[1]), stack.stored_type(index))
    for row in np.flatnonzero(candidates):
        first = max(0, row - 1)
        part = pair[: row - first + 1]
        stack.read_rows(index, int(first), part)
        kept[row] = (part[-1] == part[-1, 0]).all() or (row > 0 and (part[1] == part[0]).all())
    return kept


def _read_sample(stack, index, wanted):
    """Whole rows and column strips of one frame, in native order: (r, nx) and (ny, strips, width), and its data sum.

    The frame is read in pieces that stay in cache: its pages cost less that way than one page fault a row.
    """
    ny, nx = stack.shape
    starts = _strip_starts(nx)
    kind = stack.stored_type(index)
    native = kind.newbyteorder("=")
    # Pieces of four rows hold whole 32-bit words, so that their data sums add.
    height = min(ny, max(4, PIECE_BYTES // (nx * kind.itemsize) // 4 * 4))
    piece = np.empty((height, nx), kind)
    rows = np.empty((wanted.size, nx), native)
    strips = np.empty((ny, starts.size, min(STRIP_WIDTH, nx)), native)
    sums = []
    for top in range(0, ny, height):
        part = piece[: min(height, ny - top)]
        stack.read_rows(index, top, part)
        sums.append(datasum(part))
        inside = np.flatnonzero((wanted >= top) & (wanted < top + len(part)))
        rows[inside] = part[wanted[inside] - top]
        for number, start in enumerate(starts):
            strips[top : top + len(part), number] = part[:, start : start + STRIP_WIDTH]
    return rows, strips, add_sums(sums)


def file_datasums(images, jobs=1):
    """DATASUM of the data of frames that carry none, computed from their bytes as stored.

    images : sequence of FitsImage.  Returns a list of int, None for compressed frames.
    """
    largest = max(_data_bytes(image) for image in images)
    if cluster.connected():
        done = cluster.in_batches(
            _sums_of_data, (), as_sent(images), largest, what="frames summed", witness=images[0]
        )
        return [value for _, value in sorted(done)]
    return in_workers(
        lambda: _sum_of_data, images, max(1, min(jobs, len(images) * largest // WORTH_A_WORKER))
    )


def _sum_of_data(image):
    return None if image.compressed else _sum_in_file(image, _data_bytes(image))


def _sums_of_data(images):
    return [_sum_of_data(image) for image in images]


def _data_bytes(image):
    return abs(image.bitpix) // 8 * image.shape[0] * image.shape[1]


def _sum_in_file(image, size):
    """Data sum of ``size`` bytes from the first of the data on, or of what there is."""
    sums = []
    # Pieces are whole 32-bit words, so that one's complement sums add.
    piece = bytearray(min(size, PIECE_BYTES))
    with open(open_frame(image), "rb", buffering=0) as stream:
        stream.seek(image.offset)
        while size > 0:
            view = memoryview(piece)[: min(size, PIECE_BYTES)]
            filled = 0
            while filled < len(view) and (got := stream.readinto(view[filled:])):
                filled += got
            if not filled:
                break
            sums.append(datasum(view[:filled]))
            size -= filled
    return add_sums(sums)
