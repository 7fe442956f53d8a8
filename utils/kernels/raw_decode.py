"""Raw camera samples to arrays: one byte, two bytes in either order, and the packed 10 and 12 bit layouts.

Packings follow the GenICam Pixel Format Naming Convention 2.4 (MonoNp: bits follow one another without gaps,
lowest bit first) and GigE Vision (Mono12Packed: two samples in three bytes, the low nibbles share the middle
one).
No sample is scaled, shifted or clipped; rows follow one another without padding.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np

# Packed samples are unpacked in pieces of this many bytes (a multiple of 3 and of 5) that stay in the CPU's
# cache.
_PIECE = 3 * 5 * 8192


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the samples of a frame stand in the file: GenICam name, significant bits, bits taken per sample."""

    name: str
    bits: int
    stored_bits: int

    @property
    def dtype(self):
        """Type of the decoded samples: uint8 for one-byte formats, else uint16."""
        return np.dtype(np.uint8 if self.stored_bits == 8 else np.uint16)

    def frame_bytes(self, n_pixels):
        """Bytes of a frame of ``n_pixels`` samples; the last byte of a packed frame may be partly used."""
        return (n_pixels * self.stored_bits + 7) // 8

    @property
    def group(self):
        """(bytes, samples) after which a byte begins with a sample again: (3, 2) for 12 packed bits."""
        common = math.gcd(self.stored_bits, 8)
        return self.stored_bits // common, 8 // common

    def frame_sizes(self, n_pixels):
        """Sizes [bytes] a frame may have: as long as its bits need, or filled up to a whole group.

        >>> FORMATS["mono12p"].frame_sizes(35), FORMATS["mono12p"].frame_sizes(36)
        ((53, 54), (54,))
        """
        n_bytes, n_samples = self.group
        return tuple(sorted({self.frame_bytes(n_pixels), -(-n_pixels // n_samples) * n_bytes}))


FORMATS = {
    name.lower(): PixelFormat(name, bits, stored)
    for name, bits, stored in (
        ("Mono8", 8, 8),
        ("Mono10", 10, 16),
        ("Mono12", 12, 16),
        ("Mono16", 16, 16),
        ("Mono10p", 10, 10),
        ("Mono12p", 12, 12),
        ("Mono12Packed", 12, 12),
    )
}


def pixel_format(name=None, bit_depth=16):
    """Find the format by its GenICam name (any case), or, without a name, by the bit depth of plain samples.

    bit_depth : 1 to 8 give one byte a sample, 9 to 16 give two.
    Raises ValueError for an unknown name or a depth outside 1..16.
    """
    if name is not None:
        try:
            return FORMATS[str(name).strip().lower()]
        except KeyError:
            known = ", ".join(known.name for known in FORMATS.values())
            raise ValueError(f"unknown pixel format {str(name)!r}, expected one of {known}") from None
    if isinstance(bit_depth, bool) or not isinstance(bit_depth, int) or not 1 <= bit_depth <= 16:
        raise ValueError(f"bit depth {bit_depth!r}, expected a whole number from 1 to 16")
    return FORMATS["mono8" if bit_depth <= 8 else "mono16"]


def decode(data, shape, fmt, byte_order="little"):
    """Decode one frame.

    data : uint8 array or bytes-like, at least one byte per 8 bits of the frame: shorter data are padded with
    zeros, longer are cut.   shape : (ny, nx).   fmt : PixelFormat.   byte_order : 'little' or 'big', of
    two-byte samples.
    Returns (ny, nx) uint8 or uint16 in native order; a view of ``data`` where the samples stand there as
    they are.
    Raises ValueError for another byte order.
    """
    if byte_order not in ("little", "big"):
        raise ValueError(f"byte order {byte_order!r}, expected little or big")
    ny, nx = shape
    n_pixels = ny * nx
    wanted = fmt.frame_bytes(n_pixels)
    data = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data
    if len(data) < wanted:
        padded = np.zeros(wanted, np.uint8)
        padded[: len(data)] = data
        data = padded
    data = data[:wanted]
    if fmt.stored_bits == 8:
        return data.reshape(shape)
    if fmt.stored_bits == 16:
        samples = data.view("<u2" if byte_order == "little" else ">u2")
        return (samples if byte_order == sys.byteorder else samples.astype(np.uint16)).reshape(shape)
    unpack = _UNPACK[fmt.name]
    group, samples_per_group = fmt.group
    groups = -(-n_pixels // samples_per_group)
    samples = np.empty((groups, samples_per_group), np.uint16)
    whole = wanted // group
    step = _PIECE // group
    for first in range(0, whole, step):
        last = min(first + step, whole)
        unpack(data[first * group : last * group].reshape(-1, group), samples[first:last])
    if whole < groups:
        tail = np.zeros((1, group), np.uint8)
        tail[0, : wanted - whole * group] = data[whole * group :]
        unpack(tail, samples[whole:])
    return samples.reshape(-1)[:n_pixels].reshape(shape)


def _unpack_10p(groups, out):
    """Four samples from five bytes, lowest bit first: groups (n, 5) uint8, out (n, 4) uint16 is filled."""
    b = groups.T.astype(np.uint16)
    out[:, 0] = b[0] | (b[1] & 0x03) << 8
    out[:, 1] = b[1] >> 2 | (b[2] & 0x0F) << 6
    out[:, 2] = b[2] >> 4 | (b[3] & 0x3F) << 4
    out[:, 3] = b[3] >> 6 | b[4] << 2


def _unpack_12p(groups, out):
    """Two samples from three bytes, lowest bit first: groups (n, 3) uint8, out (n, 2) uint16 is filled."""
    b = groups.T.astype(np.uint16)
    out[:, 0] = b[0] | (b[1] & 0x0F) << 8
    out[:, 1] = b[1] >> 4 | b[2] << 4


def _unpack_12packed(groups, out):
    """Two samples from three bytes, high bytes outside: groups (n, 3) uint8, out (n, 2) uint16 is filled."""
    b = groups.T.astype(np.uint16)
    out[:, 0] = b[0] << 4 | b[1] & 0x0F
    out[:, 1] = b[2] << 4 | b[1] >> 4


_UNPACK = {"Mono10p": _unpack_10p, "Mono12p": _unpack_12p, "Mono12Packed": _unpack_12packed}
