"""The samples of one raw file into one FITS file, block by block: memory does not grow with the frame.

Blocks stay in the CPU's cache between the read, the decoding, the sum and the write, which makes this faster
than passing over the whole frame four times. numpy and the file calls release the interpreter lock, so frames
run in threads (measured on frames of 8 MB: 1.8 times the speed with two, as with processes).
"""

import threading

import numpy as np

from utils.fits_io.atomic import atomic_path
from utils.fits_io.fits_cards import BLOCK, CARD, add_sums, finish_header, stored_sum
from utils.kernels.raw_decode import decode

_BLOCK_PIXELS = 1 << 17  # a multiple of 4: packed groups and 32-bit words of the sum end with the block
_PAGE = 4096  # writes that begin and end with a page of the file cost less
_CARDS_AT_END = 3  # DATASUM, CHECKSUM, END

_scratch = threading.local()


def write_frame(source, path, cards, shape, pixels, byte_order):
    """Write the raw samples of ``source`` as the primary HDU of a new FITS file, atomically.

    source : raw file opened for reading, unbuffered; missing bytes become zeros, what is beyond is left.
    cards : text of all cards but DATASUM and CHECKSUM.   shape : (ny, nx).   pixels : PixelFormat.
    byte_order : 'little' or 'big'.
    uint16 samples are stored less 32768 (BZERO of the cards), uint8 as they are.
    Returns (data sum, length of the header). Raises OutputError or RefusedOutputError, OSError of the source.
    """
    header_length = -(-(len(cards) + _CARDS_AT_END * CARD) // BLOCK) * BLOCK
    n_pixels = shape[0] * shape[1]
    item = pixels.dtype.itemsize
    sums = []
    # The header takes whole multiples of 64 bytes, so the rest of its last page holds whole groups of 4 samples.
    count = _BLOCK_PIXELS - header_length % _PAGE // item
    first = 0
    with atomic_path(path) as temporary, open(temporary, "wb", buffering=0) as target:
        target.seek(header_length)
        while first < n_pixels:
            count = min(count, n_pixels - first)
            raw = _read(source, pixels.frame_bytes(count))
            native, stored = _stored(decode(raw, (1, count), pixels, byte_order))
            sums.append(stored_sum(native))
            _write(target, stored)
            first, count = first + count, _BLOCK_PIXELS
        _write(target, bytes(-n_pixels * item % BLOCK))
        data_sum = add_sums(sums)
        # The header has the sum of the data, which are known only now.
        target.seek(0)
        _write(target, finish_header(cards, data_sum))
    return data_sum, header_length


def _read(source, n_bytes):
    """Next ``n_bytes`` of the file in this thread's buffer, zeros where it ends before."""
    block = _bytes("raw", n_bytes)
    filled = 0
    while filled < n_bytes and (got := source.readinto(memoryview(block)[filled:])):
        filled += got
    block[filled:] = 0
    return block


def _stored(samples):
    """Samples less what BZERO adds, native and as they stand in a FITS file, in this thread's buffers.

    uint8 stays as it is; flipping the top bit of uint16 subtracts 32768.
    """
    if samples.dtype == np.uint8:
        return samples, samples
    native = _bytes("native", samples.nbytes).view(np.uint16).reshape(samples.shape)
    if samples.dtype.isnative:
        np.bitwise_xor(samples, np.uint16(0x8000), out=native)
    else:
        np.copyto(native, samples)
        np.bitwise_xor(native, np.uint16(0x8000), out=native)
    stored = _bytes("stored", samples.nbytes).view(">u2").reshape(samples.shape)
    np.copyto(stored, native)
    return native, stored


def _bytes(name, n_bytes):
    """Buffer of this thread: fresh memory for each block would cost as much as a copy of it."""
    buffer = getattr(_scratch, name, None)
    if buffer is None or len(buffer) < n_bytes:
        buffer = np.empty(n_bytes, np.uint8)
        setattr(_scratch, name, buffer)
    return buffer[:n_bytes]


def _write(target, data):
    """Write all of ``data``: an unbuffered write may take only a part of it."""
    view = memoryview(np.frombuffer(data, np.uint8))
    while view:
        view = view[target.write(view) :]
