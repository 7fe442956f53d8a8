"""The fixed sample of a group: rows, votes, rows of zeros and dropped rows; checksums of data."""

import gzip
import os

import numpy as np
import pytest
from astropy.io import fits

from tests.stack_frames import write_fits, write_uint16
from utils.fits_io.fits_cards import datasum
from utils.fits_io.frame_sample import file_datasums, sample_group, sample_rows
from utils.fits_io.header_scan import scan_header

SHAPES = [(1, 7), (2, 5), (7, 13), (97, 101), (101, 97), (64, 200)]


def noisy(rng, n, shape, level=300.0, sigma=3.0):
    return np.rint(level + rng.normal(0, 4, shape) + rng.normal(0, sigma, (n, *shape))).clip(0, 65535)


def sampled(folder, stack, compress=None, **options):
    suffix = ".fits" if compress is None else f".fits.{compress}"
    images = [write_uint16(folder / f"{k}{suffix}", frame, compress) for k, frame in enumerate(stack)]
    return sample_group(images, **options)


@pytest.mark.parametrize("shape", [*SHAPES, (2048, 2048), (4176, 6248)])
@pytest.mark.parametrize("n", [1, 10, 1000])
def test_rows_depend_on_shape_and_number_only_and_lie_inside(shape, n):
    rows = sample_rows(shape, n)
    assert 1 <= len(rows) <= 16
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < shape[0]
    if shape[0] > 100:
        # Evenly spaced: no part of the sensor is left out.
        assert np.ptp(np.diff(rows)) <= 3
        # Even and odd rows in turn, but for the last ones of the frame.
        assert (np.diff(rows) % 2 == 1).all()
        assert len(rows) >= 2
    assert len(rows) * n * shape[1] <= max(2 << 20, 2 * n * shape[1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("compress", [None, "gz", "fz"])
def test_rows_are_those_of_the_frames_in_stored_units(tmp_path, shape, compress):
    stack = noisy(np.random.default_rng(1), 3, shape)
    one = sampled(tmp_path, stack, compress)
    np.testing.assert_array_equal(one.rows, stack[:, sample_rows(shape, 3)])
    assert not one.zero.any()
    assert not one.frozen.any()
    three = sampled(tmp_path, stack, compress, jobs=3)
    np.testing.assert_array_equal(three.rows, one.rows)
    assert three.votes == one.votes


def test_scaled_samples_blanks_and_votes(tmp_path):
    rng = np.random.default_rng(2)
    stored = (16 * rng.integers(1, 100, (4, 20, 30))).astype(np.int16)
    stored[0, :, 4] = -999
    images = [
        write_fits(tmp_path / "a.fits", stored[0], blank=-999, bzero=32768),
        write_fits(tmp_path / "b.fits", stored[1], bscale=0.5, bzero=10.0),
        write_fits(tmp_path / "c.fits", stored[2].astype(np.float32)),
        write_fits(tmp_path / "d.fits", stored[3], bzero=32768),
    ]
    result = sample_group(images)
    rows = sample_rows((20, 30), 4)
    expected = stored[:, rows].astype(float)
    expected[0] += 32768
    expected[0][:, 4] = np.nan
    expected[1] = expected[1] * 0.5 + 10
    expected[3] += 32768
    np.testing.assert_array_equal(result.rows, expected)
    # Scaled and float samples are not the converter's: no vote.
    assert result.votes[1] is None
    assert result.votes[2] is None
    assert result.votes[3] == np.bitwise_or.reduce(stored[3, rows].astype(int) + 32768, axis=None)


def test_blank_samples_have_no_vote(tmp_path):
    stored = (16 * np.random.default_rng(3).integers(1, 100, (20, 30))).astype(np.int16)
    stored[:, 4] = -999
    image = write_fits(tmp_path / "a.fits", stored, blank=-999)
    vote = sample_group([image]).votes[0]
    assert vote & -vote == 16


@pytest.mark.parametrize("compress", [None, "fz"])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_faults_of_rows_are_seen(tmp_path, compress, n):
    stack = noisy(np.random.default_rng(4), n, (64, 200))
    stack[0, 10:14] = 0
    stack[0, 20, 40:150] = 0
    stack[0, 30] = stack[0, 29]
    stack[0, 40] = 77
    result = sampled(tmp_path, stack, compress)
    np.testing.assert_array_equal(np.flatnonzero(result.zero[0]), [10, 11, 12, 13, 20])
    np.testing.assert_array_equal(np.flatnonzero(result.frozen[0]), [30, 40])
    assert not result.zero[1:].any()
    assert not result.frozen[1:].any()


def test_a_frame_of_one_value_and_a_dead_frame(tmp_path):
    stack = noisy(np.random.default_rng(5), 5, (40, 100))
    stack[1], stack[3] = 500, 0
    result = sampled(tmp_path, stack)
    assert result.frozen[1].all()
    assert result.zero[3].all()
    assert not result.frozen[[0, 2, 3, 4]].any()


@pytest.mark.parametrize("n", [2, 20])
@pytest.mark.parametrize("sigma", [0.15, 0.25, 0.4])
def test_noise_below_one_step_freezes_no_rows(tmp_path, n, sigma):
    # No fixed pattern and a level right on a step: up to 99.9 % of all samples are alike.
    stack = np.rint(100 + np.random.default_rng(6).normal(0, sigma, (n, 128, 160)))
    assert not sampled(tmp_path, stack).frozen.any()


def test_a_row_alike_only_within_the_strips_is_not_frozen(tmp_path):
    stack = noisy(np.random.default_rng(7), 3, (40, 300))
    kept = stack[1, 7].copy()
    stack[1, 7] = 250
    stack[1, 7, 20:40] = kept[20:40]
    assert not sampled(tmp_path, stack).frozen.any()


def test_a_zero_point_gives_zero_its_meaning(tmp_path):
    # Stored 0 of signed samples with BZERO 32768 is 32768 ADU, no zero.
    stack = np.random.default_rng(8).integers(-3, 3, (2, 20, 40)).astype(np.int16)
    stack[0, 5] = 0
    result = sample_group([write_fits(tmp_path / f"{k}.fits", s, bzero=32768) for k, s in enumerate(stack)])
    assert not result.zero.any()
    np.testing.assert_array_equal(np.flatnonzero(result.frozen[0]), [5])
    result = sample_group([write_fits(tmp_path / f"{k}.fits", s) for k, s in enumerate(stack)])
    np.testing.assert_array_equal(np.flatnonzero(result.zero[0]), [5])


@pytest.mark.parametrize("jobs", [1, 3])
def test_files_that_change_after_the_scan(tmp_path, jobs):
    stack = noisy(np.random.default_rng(9), 4, (40, 100))
    images = [write_uint16(tmp_path / f"{k}.fits", frame) for k, frame in enumerate(stack)]
    sound = sample_group([images[0], images[3]], jobs)
    os.truncate(images[1].path, images[1].offset + 300)
    os.unlink(images[2].path)
    found = sample_group(images, jobs)
    assert found.faults == {
        1: f"file changed during the run ({images[1].offset + 300} bytes, {images[1].size} before)",
        2: "file vanished during the run",
    }
    assert np.isnan(found.rows[[1, 2]]).all()
    left = found.at([0, 3])
    assert (left.votes, left.datasums, left.faults) == (sound.votes, sound.datasums, {})
    np.testing.assert_array_equal(left.rows, sound.rows)
    np.testing.assert_array_equal(left.where, sound.where)


# --- DATASUM ---------------------------------------------------------------------------------------


def with_sums(path, samples, kind="fits", pad=b"", **cards):
    """Write a frame with both checksums as astropy computes them, and ``pad`` at the end of its data's padding."""
    hdu = fits.PrimaryHDU(samples)
    if kind == "fz":
        hdu = fits.CompImageHDU(samples, compression_type="RICE_1")
    fits.HDUList([hdu] if kind != "fz" else [fits.PrimaryHDU(), hdu]).writeto(path, checksum=True)
    for name, value in cards.items():
        fits.setval(path, name, value=value)
    if pad:
        content = path.read_bytes()
        path.write_bytes(content[: -len(pad)] + pad)
    return path


def flip(path, place, bit=0x10):
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(7, 13), (40, 100)])
def test_one_flipped_bit_is_a_fault_where_the_frame_carries_a_sum(tmp_path, kind, shape):
    rng = np.random.default_rng(12)
    paths = [
        with_sums(tmp_path / f"{k}.fits", rng.integers(0, 200, shape).astype(kind), EXPTIME=k)
        for k in range(3)
    ]
    flip(paths[1], scan_header(paths[1]).offset + 30)
    found = sample_group([scan_header(path) for path in paths])
    assert list(found.faults) == [1]
    told = fits.getheader(paths[1])["DATASUM"]
    assert found.faults[1].startswith("DATASUM: the data have ")
    assert found.faults[1].endswith(f", the header says {told}: damaged")
    # Without the card there is nothing to compare with.
    for path in paths:
        fits.delval(path, "DATASUM")
    assert sample_group([scan_header(path) for path in paths]).faults == {}


@pytest.mark.parametrize("card", ["", "unknown", "-1", " 17 x", "\u00b2", 12345.0, True])
def test_a_card_that_is_no_sum_is_none(tmp_path, card):
    image = write_uint16(tmp_path / "a.fits", np.zeros((7, 13)))
    image.cards["DATASUM"] = card
    assert sample_group([image]).faults == {}


def test_sums_that_count_what_follows_the_samples(tmp_path):
    """The standard asks for zeros there; who writes other bytes has them in the sum."""
    samples = np.arange(91, dtype=np.uint8).reshape(7, 13)
    path = with_sums(tmp_path / "a.fits", samples, pad=b"garbage!")
    image = scan_header(path)
    whole = path.read_bytes()[image.offset :]
    image.cards["DATASUM"] = str(datasum(whole))
    assert datasum(whole) != file_datasums([image])[0]
    assert sample_group([image]).faults == {}
    image.cards["DATASUM"] = str(datasum(whole) + 1)
    assert list(sample_group([image]).faults) == [0]


@pytest.mark.parametrize("value", [0, 0xFFFFFFFF])
def test_both_zeros_of_the_sum_are_equal(tmp_path, value):
    image = write_uint16(tmp_path / "a.fits", np.full((8, 16), 32768))
    image.cards["DATASUM"] = str(value)
    assert sample_group([image]).faults == {}


def test_compressed_frames_are_summed_as_they_are_unpacked(tmp_path):
    rng = np.random.default_rng(13)
    samples = [rng.integers(0, 200, (40, 100)).astype(np.int16) for _ in range(4)]
    for k in (0, 1):
        with_sums(tmp_path / f"{k}.fits.fz", samples[k], "fz")
    for k in (2, 3):
        plain = with_sums(tmp_path / f"{k}.fits", samples[k])
        if k == 3:
            flip(plain, scan_header(plain).offset + 30)
        (tmp_path / f"{k}.fits.gz").write_bytes(gzip.compress(plain.read_bytes()))
    flip(tmp_path / "1.fits.fz", -2880 + 200)
    names = ("0.fits.fz", "1.fits.fz", "2.fits.gz", "3.fits.gz")
    found = sample_group([scan_header(tmp_path / name) for name in names])
    assert list(found.faults) == [1, 3]
    assert all("Datasum verification failed" in fault for fault in found.faults.values())
    left = found.at([0, 2])
    assert left.votes == [np.bitwise_or.reduce(s, axis=None) for s in (samples[0], samples[2])]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
def test_datasums_are_those_of_astropy(tmp_path, shape, kind):
    rng = np.random.default_rng(10)
    images = [write_fits(tmp_path / f"{k}.fits", rng.integers(0, 200, shape).astype(kind)) for k in range(2)]
    expected = []
    for image in images:
        with fits.open(image.path, do_not_scale_image_data=True) as hdus:
            hdus[0].data  # noqa: B018  astropy sums the bytes of data that it has read
            expected.append(int(hdus[0]._calculate_datasum()))
    assert [int(value) for value in file_datasums(images, jobs=2)] == expected


def test_compressed_frames_have_no_datasum_of_their_own(tmp_path):
    image = write_uint16(tmp_path / "a.fits.fz", np.zeros((5, 5)), compress="fz")
    assert file_datasums([image]) == [None]


def test_a_large_frame_is_summed_over_its_blocks(tmp_path):
    data = np.random.default_rng(11).integers(0, 255, (1400, 1201)).astype(np.uint8)
    image = write_fits(tmp_path / "a.fits", data)
    padded = np.frombuffer(data.tobytes().ljust(-(-data.size // 4) * 4, b"\0"), ">u4")
    total = int(padded.sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    assert file_datasums([image]) == [total]
