"""A small fixed sample of every frame, read before the main pass.

Whole rows, evenly spaced, tell level and noise; strips of columns through all rows tell dropped rows and zero
blocks.  Which rows and columns depends on the shape and the number of frames only, so that no result depends on
blocks, threads or memory.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from utils.fits_io.fits_cards import datasum
from utils.fits_io.frame_stack import FrameStack
from utils.kernels import adu_scale

SAMPLE_VALUES = 2 << 20
"""Values kept of one group."""
STRIPS, STRIP_WIDTH = 4, 16
PIECE_BYTES = 1 << 20
CHANCE = 0.01
"""Rows that may be constant by chance in all frames of a group."""


@dataclass
class GroupSample:
    """Sample of n frames, in stored units (BZERO and BSCALE applied).

    rows : (n, r, nx) float32, NaN = blank.  votes : (n,) OR of the integers, None = no vote.
    zero, frozen : (n, ny) bool, rows with a strip of zeros; rows constant in all strips or equal to the row before.
    """

    rows: np.ndarray
    votes: list
    zero: np.ndarray
    frozen: np.ndarray


def sample_rows(shape, n):
    """Return the rows of a frame that are sampled: at most 16, evenly spaced, fewer for many frames."""
    ny, nx = shape
    count = int(min(16, ny, max(2, SAMPLE_VALUES // (n * nx))))
    return np.unique(np.linspace(0, ny - 1, count + 2)[1:-1].astype(int)) if ny > 2 else np.arange(ny)


def sample_group(images, jobs=1, ceiling=None):
    """Sample the frames of one group; each is read once, from its first byte to its last.

    images : sequence of FitsImage of one shape.  ceiling : stored value that means saturated, for the votes.
    Returns a `GroupSample`.
    """
    with FrameStack(images, jobs=jobs) as stack:
        ny, nx = stack.shape
        n = len(images)
        wanted = sample_rows(stack.shape, n)
        result = GroupSample(
            np.empty((n, wanted.size, nx), np.float32),
            [None] * n,
            np.zeros((n, ny), bool),
            np.zeros((n, ny), bool),
        )

        alike = np.zeros((n, ny))

        def one(index):
            rows, strips = _read_sample(stack, index, wanted)
            image = stack.images[index]
            integers = rows.dtype.kind in "iu"
            values = rows.astype(np.float64) * image.bscale + image.bzero
            if image.blank is not None and integers:
                values[rows == image.blank] = np.nan
            result.rows[index] = values
            if integers and image.bscale == 1 and float(image.bzero).is_integer():
                stored = rows if image.blank is None else rows[rows != image.blank]
                stored = stored.astype(np.int64) + int(image.bzero)
                result.votes[index] = adu_scale.sample_bits(stored, ceiling)
            # Zero means no charge at all: the stored sample that stands for the value 0.
            blank = (strips == -image.bzero / image.bscale).all(axis=2)
            result.zero[index] = blank.any(axis=1)
            flat = strips.reshape(ny, -1)
            if flat.shape[1] >= STRIP_WIDTH:
                frozen = (flat == flat[:, :1]).all(axis=1)
                frozen[1:] |= (flat[1:] == flat[:-1]).all(axis=1)
                result.frozen[index] = _wholly_frozen(stack, index, frozen & ~blank.all(axis=1))
                alike[index] = (flat[:, 1:] == flat[:, :-1]).mean(axis=1)

        if jobs == 1:
            for index in range(n):
                one(index)
        else:
            with ThreadPoolExecutor(jobs) as pool:
                list(pool.map(one, range(n)))
    # A row of nx samples, of which a share p is the commonest value, is constant by chance with p^nx, and about p^2 of
    # neighbours are alike. Where that happens to clean frames, only a frame without any other row is suspicious.
    usual = np.median(alike, axis=0)[result.frozen.mean(axis=0) < 0.5]
    alike_pairs = np.quantile(usual, 0.98 if n > 1 else 0.5) if usual.size else 1.0
    if n * ny * alike_pairs ** (nx / 2) > CHANCE:
        result.frozen &= result.frozen.all(axis=1, keepdims=True)
    return result


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
    """Whole rows and column strips of one frame, in native order: (r, nx) and (ny, strips, width).

    The frame is read in pieces that stay in cache: its pages cost less that way than one page fault a row.
    """
    ny, nx = stack.shape
    starts = np.unique(np.linspace(0, max(nx - STRIP_WIDTH, 0), STRIPS).astype(int))
    kind = stack.stored_type(index)
    native = kind.newbyteorder("=")
    height = max(1, min(ny, PIECE_BYTES // (nx * kind.itemsize)))
    piece = np.empty((height, nx), kind)
    rows = np.empty((wanted.size, nx), native)
    strips = np.empty((ny, starts.size, min(STRIP_WIDTH, nx)), native)
    for top in range(0, ny, height):
        part = piece[: min(height, ny - top)]
        stack.read_rows(index, top, part)
        inside = np.flatnonzero((wanted >= top) & (wanted < top + len(part)))
        rows[inside] = part[wanted[inside] - top]
        for number, start in enumerate(starts):
            strips[top : top + len(part), number] = part[:, start : start + STRIP_WIDTH]
    return rows, strips


def file_datasums(images, jobs=1):
    """DATASUM of the data of frames that carry none, computed from their bytes as stored.

    images : sequence of FitsImage.  Returns a list of int, None for compressed frames.
    """

    def one(image):
        if image.compressed:
            return None
        size = abs(image.bitpix) // 8 * image.shape[0] * image.shape[1]
        total = 0
        block = 2880 << 9
        with open(image.path, "rb", buffering=0) as stream:
            stream.seek(image.offset)
            done = 0
            while done < size:
                data = stream.read(min(block, size - done))
                if not data:
                    break
                done += len(data)
                # Blocks are whole 32-bit words, so that one's complement sums add.
                total += datasum(data)
        while total >> 32:
            total = (total & 0xFFFFFFFF) + (total >> 32)
        return total

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return list(pool.map(one, images))
