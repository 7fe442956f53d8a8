import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.fits_io.fits_cards import add_sums, card, datasum, encode_checksum, stored_sum, text_cards
from utils.fits_io.naming import exposure_folder, exposure_label, label


def parsed(cards):
    return fits.Header.fromstring(cards + "END".ljust(80))


# Cards ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        0,
        -17,
        2**62,
        0.0,
        -0.5,
        1e300,
        -1.2345678901234567e-100,
        5e-324,
        123456789012345680.0,
        1e22,
        0.1,
        "",
        "adu",
        "it's",
        "a / b",
        "''''",
        "x" * 68,
        "x" * 69,
        "'" * 34,
        "'" * 35,
        "/data/" + "0123456789" * 40,
        "ends with &",
    ],
)
def test_values_come_back_through_astropy_with_their_type(value):
    text = card("KEY", value, "what it means")
    assert len(text) % 80 == 0
    header = parsed(text)
    assert header["KEY"] == value
    assert type(header["KEY"]) is type(value)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
)
def test_any_float_and_any_ascii_text_come_back(number, text):
    header = parsed(card("NUMBER", number, "n") + card("TEXT", text, "t"))
    assert header["NUMBER"] == number
    assert header["TEXT"] == text.rstrip()


def test_numpy_scalars_and_float32_have_their_shortest_digits():
    header = parsed(card("A", np.float32(0.1)) + card("B", np.int16(-3)) + card("C", np.bool_(True)))
    assert (header["A"], header["B"], header["C"]) == (0.1, -3, True)


def test_values_that_fits_does_not_know():
    header = parsed("".join(card(k, v) for k, v in [("A", np.nan), ("B", np.inf), ("C", -np.inf)]))
    assert list(header.values()) == ["NAN", "INF", "-INF"]
    assert parsed(card("A", None))["A"] is None
    assert parsed(card("A", "5 °C\nnext"))["A"] == "5 \\xb0C next"
    with pytest.raises(TypeError, match="A: a list cannot be a FITS header value"):
        card("A", [1])


@pytest.mark.parametrize("keyword", ["", "lower", "TOOLONGKEY", "A B", "A.B", "KEY\n"])
def test_illegal_keywords_are_refused(keyword):
    with pytest.raises(ValueError, match="illegal FITS keyword"):
        card(keyword, 1)


def test_a_long_comment_is_cut_and_history_is_wrapped():
    assert parsed(card("A", 1, "word " * 40)).comments["A"] == ("word " * 40)[:47].strip()
    words = " ".join(f"word{n}" for n in range(60))
    header = parsed(text_cards("HISTORY", words) + text_cards("HISTORY", "y" * 100))
    assert " ".join(header["HISTORY"][:-2]) == words
    assert "".join(header["HISTORY"][-2:]) == "y" * 100


# Checksums --------------------------------------------------------------------------------------------------


def test_datasum_and_encoding_agree_with_astropy():
    rng = np.random.default_rng(5)
    hdu = fits.PrimaryHDU()
    for size in (0, 1, 2, 3, 4, 5, 2880, 12_345):
        data = rng.integers(0, 256, size).astype(np.uint8)
        assert datasum(data) == int(hdu._compute_checksum(data))
        assert datasum(data.tobytes(), 0xFFFFFFF0) == int(hdu._compute_checksum(data, 0xFFFFFFF0))
    for value in [0, 1, 0xFFFFFFFF, *(int(v) for v in rng.integers(0, 2**32, 500))]:
        assert encode_checksum(value) == hdu._char_encode(value)


def test_the_sum_folds_its_carries():
    assert datasum(b"\xff" * 4000) == 0xFFFFFFFF
    assert datasum(b"\xff\xff\xff\xff\x00\x00\x00\x02") == 2


# Names ------------------------------------------------------------------------------------------------------


def test_labels():
    assert [label(v, 1) for v in (-0.04, 0.0, -0.0, -5, 14.96, -0.06)] == [
        "0.0",
        "0.0",
        "0.0",
        "-5.0",
        "15.0",
        "-0.1",
    ]
    assert label(np.float32(-0.001), 2) == "0.00"
    assert label(-5, 1, "p") == "-5p0"
    assert [exposure_label(t) for t in (1, 0.01, 0.0099, 1.2e-05, 0)] == [
        "1.00",
        "0.01",
        "0.0099",
        "1.2e-05",
        "0",
    ]
    assert exposure_label(0.02, 1) == "0.02"
    assert [exposure_folder(t) for t in (1, 2.5, 0.001, 1.2e-05)] == [
        "exp_1p00",
        "exp_2p50",
        "exp_0p001",
        "exp_1p2e-05",
    ]


@pytest.mark.parametrize("dtype", ["u1", "?", "i2", "u2", "i4", "f4", "i8", "f8"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 1000, 100_001])
def test_sum_of_native_values_is_that_of_the_stored_ones(dtype, size):
    rng = np.random.default_rng(size)
    raw = rng.integers(0, 256, size * np.dtype(dtype).itemsize, dtype=np.uint8)
    if dtype == "?":
        raw &= 1
    native = raw.view(dtype)
    assert stored_sum(native) == datasum(native.astype(native.dtype.newbyteorder(">")).tobytes())
    full = np.full(size, 255, np.uint8).repeat(native.itemsize).view(dtype) if dtype != "?" else native
    assert stored_sum(full) == datasum(full.tobytes())


def test_sums_of_parts_add_up():
    data = np.random.default_rng(3).integers(0, 256, 400_000, dtype=np.uint8)
    parts = [datasum(data[first : first + 40_004]) for first in range(0, data.size, 40_004)]
    assert add_sums(parts) == datasum(data)
    assert add_sums([0xFFFFFFFF, 0]) == 0xFFFFFFFF
    assert add_sums([]) == 0
