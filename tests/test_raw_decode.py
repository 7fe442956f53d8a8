"""Packed formats against a bit-by-bit reading of the standard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.kernels.raw_decode import FORMATS, decode, pixel_format


def bits_of(samples, bits):
    """Bit stream, lowest bit of the first sample first, as the convention for MonoNp draws it."""
    return [(sample >> bit) & 1 for sample in samples for bit in range(bits)]


def packed_lowest_first(samples, bits):
    stream = bits_of(samples, bits)
    stream += [0] * (-len(stream) % 8)
    return bytes(
        sum(bit << i for i, bit in enumerate(stream[at : at + 8])) for at in range(0, len(stream), 8)
    )


def packed_gige(samples):
    data = bytearray()
    for at in range(0, len(samples), 2):
        first, second = samples[at], (samples[at + 1] if at + 1 < len(samples) else None)
        data += bytes([first >> 4, (first & 15) | ((second or 0) & 15) << 4])
        if second is not None:
            data.append(second >> 4)
    return bytes(data)


ENCODE = {
    "Mono8": lambda s: bytes(s),
    "Mono10": lambda s: b"".join(v.to_bytes(2, "little") for v in s),
    "Mono12": lambda s: b"".join(v.to_bytes(2, "little") for v in s),
    "Mono16": lambda s: b"".join(v.to_bytes(2, "little") for v in s),
    "Mono10p": lambda s: packed_lowest_first(s, 10),
    "Mono12p": lambda s: packed_lowest_first(s, 12),
    "Mono12Packed": packed_gige,
}


@pytest.mark.parametrize("name", sorted(ENCODE))
@settings(max_examples=60, deadline=None)
@given(data=st.data(), ny=st.integers(1, 7), nx=st.integers(1, 9))
def test_every_format_gives_back_its_samples(name, data, ny, nx):
    fmt = pixel_format(name)
    samples = data.draw(st.lists(st.integers(0, 2**fmt.bits - 1), min_size=ny * nx, max_size=ny * nx))
    raw = ENCODE[name](samples)
    assert len(raw) == fmt.frame_bytes(ny * nx)
    image = decode(raw, (ny, nx), fmt)
    assert image.dtype == fmt.dtype
    assert image.shape == (ny, nx)
    assert image.reshape(-1).tolist() == samples


@pytest.mark.parametrize(
    ("name", "n_pixels", "sizes"),
    [
        *(("Mono12p", 35, (53, 54)), ("Mono12Packed", 35, (53, 54)), ("Mono12p", 36, (54,))),
        *(("Mono10p", 33, (42, 45)), ("Mono10p", 35, (44, 45)), ("Mono10p", 36, (45,))),
        *(("Mono8", 35, (35,)), ("Mono10", 35, (70,)), ("Mono16", 35, (70,))),
    ],
)
def test_packed_frames_may_end_with_a_whole_group(name, n_pixels, sizes):
    fmt = pixel_format(name)
    assert fmt.frame_sizes(n_pixels) == sizes
    samples = [1 + i for i in range(n_pixels)]
    for size in sizes:
        raw = ENCODE[name](samples).ljust(size, b"\0")
        assert decode(raw, (1, n_pixels), fmt).reshape(-1).tolist() == samples


def test_bytes_worked_out_by_hand():
    # 0xABC and 0x123: lowest bits first BC 3A 12; GigE: high bytes AB and 12, low nibbles C and 3 between.
    assert decode(b"\xbc\x3a\x12", (1, 2), pixel_format("Mono12p")).tolist() == [[0xABC, 0x123]]
    assert decode(b"\xab\x3c\x12", (1, 2), pixel_format("Mono12Packed")).tolist() == [[0xABC, 0x123]]
    # 1023, 0, 1023, 0 of ten bits.
    assert decode(b"\xff\x03\xf0\x3f\x00", (1, 4), pixel_format("Mono10p")).tolist() == [[1023, 0, 1023, 0]]
    assert decode(b"\x01\x02", (1, 1), pixel_format("Mono16"), "big").tolist() == [[0x0102]]
    assert decode(b"\x01\x02", (1, 1), pixel_format("Mono16"), "little").tolist() == [[0x0201]]


@pytest.mark.parametrize("name", ["Mono10p", "Mono12p", "Mono12Packed"])
def test_frames_longer_than_one_piece(name):
    fmt = pixel_format(name)
    samples = np.random.default_rng(3).integers(0, 2**fmt.bits, 100 * 2003)
    image = decode(ENCODE[name](samples.tolist()), (100, 2003), fmt)
    np.testing.assert_array_equal(image.reshape(-1), samples)


@pytest.mark.parametrize("name", sorted(ENCODE))
def test_short_data_are_padded_and_long_cut(name):
    fmt = pixel_format(name)
    samples = [1 + i % (2**fmt.bits - 1) for i in range(24)]
    raw = ENCODE[name](samples)
    half = fmt.frame_bytes(12)
    assert decode(raw[:half], (4, 6), fmt).reshape(-1).tolist() == samples[:12] + [0] * 12
    assert decode(b"", (4, 6), fmt).tolist() == np.zeros((4, 6), int).tolist()
    assert decode(raw + b"\xff" * 7, (4, 6), fmt).reshape(-1).tolist() == samples


def test_input_is_not_changed():
    raw = np.arange(12, dtype=np.uint8)
    for fmt in FORMATS.values():
        decode(raw, (2, 3), fmt, "big")
    assert raw.tolist() == list(range(12))


@pytest.mark.parametrize(("depth", "name"), [(1, "Mono8"), (8, "Mono8"), (9, "Mono16"), (16, "Mono16")])
def test_bit_depth_without_a_name(depth, name):
    assert pixel_format(None, depth).name == name


@pytest.mark.parametrize("depth", [0, 17, -1, "16", 12.0, True])
def test_impossible_bit_depth(depth):
    with pytest.raises(ValueError, match="expected a whole number from 1 to 16"):
        pixel_format(None, depth)


def test_names_in_any_case_and_unknown_names():
    assert pixel_format(" mono12P ").name == "Mono12p"
    with pytest.raises(ValueError, match=r"unknown pixel format 'BayerRG8', expected one of Mono8, Mono10"):
        pixel_format("BayerRG8")
    with pytest.raises(ValueError, match="byte order 'middle', expected little or big"):
        decode(b"", (1, 1), pixel_format("Mono16"), "middle")
