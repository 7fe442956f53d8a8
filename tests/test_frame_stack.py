"""Frames on disk combined in row blocks: the same numbers as float64 over whole arrays, whatever the blocks are."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.stack_frames import RULE, combined, reference, samples, write_fits, write_uint16
from utils.fits_io import frame_stack
from utils.fits_io.frame_stack import FrameStack
from utils.kernels.combine import NO_DATA, SATURATED, CombineRule

ROOT = Path(__file__).resolve().parents[1]
SHAPES = [(1, 7), (7, 13), (13, 1), (1, 4097), (97, 101)]


def same(first, second):
    for name in ("value", "variance", "n_used", "flags"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def check(result, values, rule=RULE, *, rtol=3e-7):
    """Against float64 over the whole stack; values (n, ny, nx) in product ADU, NaN = unusable."""
    shape = values.shape[1:]
    expected = [part.reshape(shape) for part in reference(values.reshape(len(values), -1), rule)]
    np.testing.assert_array_equal(result.n_used, expected[2])
    np.testing.assert_array_equal(result.flags, expected[3])
    np.testing.assert_allclose(result.value, expected[0], rtol=rtol)
    np.testing.assert_allclose(result.variance, expected[1], rtol=1e-4, atol=1e-5)
    assert result.value.dtype == result.variance.dtype == np.float32


@pytest.fixture
def few(tmp_path):
    stack = samples(np.random.default_rng(9), 4, (60, 97))
    return [write_uint16(tmp_path / f"{k}.fits", frame) for k, frame in enumerate(stack)]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Frames of each shape: FitsImage list and samples."""
    made = {}
    for shape in SHAPES:
        folder = tmp_path_factory.mktemp("frames")
        stack = samples(np.random.default_rng(sum(shape)), 12, shape)
        made[shape] = [write_uint16(folder / f"{k}.fits", frame) for k, frame in enumerate(stack)], stack
    return made


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["sigclip", "median", "mean"])
def test_result_is_that_of_float64(frames, shape, method):
    images, stack = frames[shape]
    rule = CombineRule(method, 4.0, 4.0 + 1 / 12)
    check(combined(images, rule), stack, rule)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("plan", ["integers", "floats"])
def test_blocks_chunks_and_threads_change_nothing(frames, shape, plan, monkeypatch):
    images, _ = frames[shape]
    offsets = None if plan == "integers" else np.linspace(-1.5, 1.5, len(images))
    whole = combined(images, offsets=offsets)
    for chunk_bytes, read_bytes in ((1, 1), (1, 8 << 20), (8 << 20, 12 * 2 * 101 * 7), (120_000, 40_000)):
        monkeypatch.setattr(frame_stack, "CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(frame_stack, "READ_BYTES", read_bytes)
        for jobs in (1, 2, 5):
            same(combined(images, offsets=offsets, jobs=jobs), whole)
    same(combined(images, offsets=offsets, jobs=2, memory_limit=1000), whole)


@pytest.mark.parametrize("method", ["sigclip", "median", "mean"])
@pytest.mark.parametrize("scale", [16, 4])
def test_product_adu_of_left_justified_samples(tmp_path, method, scale):
    rng = np.random.default_rng(1)
    stack = samples(rng, 9, (11, 17), level=400.0).clip(0, 65535 // scale)
    images = [write_uint16(tmp_path / f"{k}.fits", frame * scale) for k, frame in enumerate(stack)]
    rule = CombineRule(method, 4.0, 4.0, inverse_gain=0.5, zero_level=390.0)
    check(combined(images, rule, adu_scale=scale), stack, rule)


@pytest.mark.parametrize("adu_scale", [1.0, 16.0])
def test_offsets_and_scales_of_every_frame(tmp_path, adu_scale):
    rng = np.random.default_rng(2)
    n, shape = 12, (19, 23)
    stack = samples(rng, n, shape, level=900.0).clip(0, 4095)
    images = [write_uint16(tmp_path / f"{k}.fits", frame * adu_scale) for k, frame in enumerate(stack)]
    offsets, scales = rng.normal(0, 3, n), rng.uniform(0.8, 1.2, n)
    rule = CombineRule("sigclip", 4.0, 2000.0, inverse_gain=1.0, zero_level=100.0)
    for given_offsets, given_scales in ((offsets, None), (None, scales), (offsets, scales)):
        moved = stack * (1.0 if given_scales is None else scales[:, None, None])
        moved = moved + (0.0 if given_offsets is None else offsets[:, None, None])
        check(combined(images, rule, given_offsets, given_scales, adu_scale=adu_scale), moved, rule)
    with FrameStack(images) as opened, pytest.raises(ValueError, match="one value for each of 12 frames"):
        opened.combine(rule, offsets=offsets[:3])


def flat_frames(folder, rng, n, shape, scale=1.0, **cards):
    """Flats of n exposures over a pedestal: images, stored values in product ADU, pedestal, level of each, vignetting."""
    ny, nx = shape
    pedestal = (500.0 + rng.normal(0, 30, shape)).astype(np.float32)
    y, x = np.mgrid[:ny, :nx]
    fall = 1.0 - 0.3 * np.hypot(y / ny - 0.5, x / nx - 0.5)
    levels = rng.uniform(1500, 2500, n)
    signal = levels[:, None, None] * fall
    values = np.rint(pedestal + signal + rng.normal(0, 1, (n, *shape)) * np.sqrt(signal))
    values[rng.random(values.shape) < 0.02] += 900
    values = values.clip(0, 4094)
    images = [write_uint16(folder / f"{k}.fits", v * scale, **cards) for k, v in enumerate(values)]
    return images, values, pedestal, levels, (1.0 / fall).astype(np.float32)


@pytest.mark.parametrize("method", ["sigclip", "median", "mean"])
@pytest.mark.parametrize("planes", ["pedestal", "factor", "both"])
@pytest.mark.parametrize("adu_scale", [1.0, 16.0])
def test_pedestal_and_factor_of_every_pixel(tmp_path, method, planes, adu_scale):
    rng = np.random.default_rng(14)
    n = 11
    images, values, pedestal, levels, factor = flat_frames(tmp_path, rng, n, (19, 23), adu_scale)
    pedestal = None if planes == "factor" else pedestal
    factor = None if planes == "pedestal" else factor
    moved = values - (0.0 if pedestal is None else pedestal.astype(np.float64))
    moved = moved * (1.0 if factor is None else factor.astype(np.float64))
    rule = CombineRule(method, 4.0, 0.03**2, inverse_gain=1e-4, zero_level=1.0)
    offsets = rng.normal(0, 0.01, n)
    for given in (None, offsets):
        expected = moved / levels[:, None, None] + (0.0 if given is None else given[:, None, None])
        check(
            combined(images, rule, given, 1.0 / levels, pedestal, factor, adu_scale=adu_scale),
            expected,
            rule,
            rtol=5e-7,
        )
    # Without a scale the signal keeps its unit.
    rule = CombineRule(method, 4.0, 40.0**2)
    check(combined(images, rule, None, None, pedestal, factor, adu_scale=adu_scale), moved, rule, rtol=5e-7)


@pytest.mark.parametrize("method", ["sigclip", "median"])
def test_planes_are_independent_of_blocks_and_threads(tmp_path, method, monkeypatch):
    images, _, pedestal, levels, factor = flat_frames(tmp_path, np.random.default_rng(15), 12, (97, 101))
    rule = CombineRule(method, 4.0, 0.03**2)
    whole = combined(images, rule, None, 1.0 / levels, pedestal, factor)
    for chunk_bytes, read_bytes in ((1, 1), (8 << 20, 12 * 2 * 101 * 7), (120_000, 40_000)):
        monkeypatch.setattr(frame_stack, "CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(frame_stack, "READ_BYTES", read_bytes)
        for jobs in (1, 3):
            same(combined(images, rule, None, 1.0 / levels, pedestal, factor, jobs=jobs), whole)


def test_pixels_that_planes_do_not_know_have_no_data(tmp_path):
    images, _, pedestal, levels, factor = flat_frames(tmp_path, np.random.default_rng(16), 9, (13, 17))
    pedestal[2, 3], factor[4, 5], factor[6, 7] = np.nan, np.nan, np.inf
    result = combined(images, CombineRule("sigclip", 4.0, 0.03**2), None, 1.0 / levels, pedestal, factor)
    lost = {(2, 3), (4, 5), (6, 7)}
    assert set(zip(*np.nonzero(result.flags & NO_DATA), strict=True)) == lost
    assert set(zip(*np.nonzero(np.isnan(result.value)), strict=True)) == lost
    with (
        FrameStack(images) as stack,
        pytest.raises(ValueError, match=r"pedestal has shape \(13,\), expected"),
    ):
        stack.combine(RULE, pedestal=np.zeros(13))


def test_float_frames_with_gaps_over_a_pedestal(tmp_path):
    rng = np.random.default_rng(17)
    pedestal = (500.0 + rng.normal(0, 30, (7, 13))).astype(np.float32)
    stored = (1500.0 + rng.normal(0, 10, (6, 7, 13))).astype(np.float32)
    stored[2, 3, 4] = np.nan
    stored[:, 5, 6] = np.nan
    images = [write_fits(tmp_path / f"{k}.fits", s) for k, s in enumerate(stored)]
    rule = CombineRule("sigclip", 4.0, 100.0)
    check(combined(images, rule, pedestal=pedestal), stored.astype(np.float64) - pedestal, rule, rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0 / 2000, 3.0])
def test_saturation_is_judged_before_pedestal_and_scale(tmp_path, scale):
    rng = np.random.default_rng(18)
    values = np.rint(rng.normal(3000, 20, (8, 7, 13)))
    values[:, 2, 3] = 4095
    values[5, 4, 4] = 4095
    images = [write_uint16(tmp_path / f"{k}.fits", frame) for k, frame in enumerate(values)]
    pedestal, factor = np.full((7, 13), 500.0, np.float32), np.full((7, 13), 1.25, np.float32)
    rule = CombineRule("sigclip", 4.0, (20 * 1.25 * scale) ** 2, saturation=4095.0)
    result = combined(images, rule, None, np.full(8, scale), pedestal, factor)
    assert set(zip(*np.nonzero(result.flags & SATURATED), strict=True)) == {(2, 3)}
    assert list(result.n_used[[2, 4, 5], [3, 4, 5]]) == [0, 7, 8]
    assert result.value[2, 3] == pytest.approx((4095 - 500) * 1.25 * scale, rel=1e-6)


def test_offsets_bring_a_drift_back_before_clipping(tmp_path):
    rng = np.random.default_rng(3)
    n, shape = 30, (40, 41)
    truth = 1000 + rng.normal(0, 5, shape)
    drift = np.linspace(-10, 10, n)
    stack = np.rint(truth + drift[:, None, None] + rng.normal(0, 2, (n, *shape)))
    images = [write_uint16(tmp_path / f"{k}.fits", frame) for k, frame in enumerate(stack)]
    result = combined(images, offsets=-drift)
    sigma2 = 4 + 1 / 12
    m = truth.size
    assert abs(result.variance.mean(dtype=float) / sigma2 - 1) < 5 * np.sqrt(2 / (n - 1) / m)
    assert abs((result.value - truth).mean()) < 5 * np.sqrt(sigma2 / n / m)
    assert result.n_used.sum() > 0.999 * n * m


# --- stored types ---------------------------------------------------------------------------------

KINDS = {
    8: ("u1", 0.0, 1.0, 100.0),
    16: ("i2", 32768.0, 1.0, 1000.0),
    32: ("i4", 0.0, 1.0, 1_000_000.0),
    64: ("i8", 0.0, 1.0, 1_000_000.0),
    -32: ("f4", 0.0, 1.0, 1000.0),
    -64: ("f8", 0.0, 1.0, 1000.0),
}


@pytest.mark.parametrize("bitpix", KINDS)
@pytest.mark.parametrize(("bzero", "bscale"), [(None, 1.0), (-12.5, 0.25), (7.0, 3.0)])
def test_every_stored_type(tmp_path, bitpix, bzero, bscale):
    rng = np.random.default_rng(abs(bitpix))
    kind, usual, _, level = KINDS[bitpix]
    bzero = usual if bzero is None else bzero
    stored = samples(rng, 7, (7, 13), level=level).clip(0, 255 if bitpix == 8 else 3e6)
    if bitpix < 0:
        stored = stored + rng.random(stored.shape)
        stored[2, 3, 4] = np.nan
        stored[:, 5, 6] = np.nan
        stored[1, 2, 2] = np.inf
    if bitpix == 16:
        stored = stored - 2000
    stored = stored.astype(kind)
    images = [write_fits(tmp_path / f"{k}.fits", s, bzero=bzero, bscale=bscale) for k, s in enumerate(stored)]
    assert {image.bitpix for image in images} == {bitpix}
    values = np.where(np.isfinite(stored), stored.astype(np.float64) * bscale + bzero, np.nan)
    rule = CombineRule("sigclip", 4.0, 4.0 * bscale**2)
    result = combined(images, rule)
    check(result, values, rule, rtol=1e-6)
    if bitpix < 0:
        assert result.flags[5, 6] == NO_DATA
        assert np.isnan(result.value[5, 6])


def test_mixed_types_count_alike(tmp_path):
    rng = np.random.default_rng(4)
    values = samples(rng, 12, (7, 13), level=120.0, sigma=1.0).clip(0, 255)
    images = []
    for k, frame in enumerate(values):
        bitpix = (8, 16, 32, 64, -32, -64)[k % 6]
        kind, _, _, _ = KINDS[bitpix]
        bzero, bscale = [(0.0, 1.0), (32768.0, 1.0), (-5.0, 0.5), (3.0, 1.0), (0.0, 2.0), (1.0, 1.0)][k % 6]
        images.append(
            write_fits(
                tmp_path / f"{k}.fits", ((frame - bzero) / bscale).astype(kind), bzero=bzero, bscale=bscale
            )
        )
    check(combined(images), values)
    check(combined(images[::-1]), values[::-1])


def test_mixed_16_bit_and_8_bit_of_one_zero_point(tmp_path):
    rng = np.random.default_rng(5)
    values = samples(rng, 8, (7, 13), level=120.0, sigma=1.0).clip(0, 255)
    images = [
        write_fits(tmp_path / f"{k}.fits", v.astype("u1" if k % 2 else "i2")) for k, v in enumerate(values)
    ]
    check(combined(images), values)


@pytest.mark.parametrize("bitpix", [8, 16, 32])
def test_blank_samples_are_unusable(tmp_path, bitpix):
    rng = np.random.default_rng(6)
    stored = samples(rng, 8, (7, 13), level=120.0).clip(0, 254).astype(KINDS[bitpix][0])
    blank = 255 if bitpix == 8 else -32768
    lost = rng.random(stored.shape) < 0.1
    lost[:, 3, 3] = True
    stored[lost] = blank
    images = [write_fits(tmp_path / f"{k}.fits", s, bzero=10.0, blank=blank) for k, s in enumerate(stored)]
    check(combined(images), np.where(lost, np.nan, stored + 10.0))


# --- compressed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gz", "fz"])
@pytest.mark.parametrize("bitpix", [8, 16, 32, -32])
def test_compressed_frames_equal_plain_ones(tmp_path, suffix, bitpix):
    rng = np.random.default_rng(7)
    kind, bzero, _, level = KINDS[bitpix]
    stored = (samples(rng, 6, (23, 31), level=min(level, 1000)).clip(0, 255)).astype(kind)
    plain = [write_fits(tmp_path / f"{k}.fits", s, bzero=bzero) for k, s in enumerate(stored)]
    packed = [
        write_fits(tmp_path / f"{k}.fits.{suffix}", s, bzero=bzero, compress=suffix)
        for k, s in enumerate(stored)
    ]
    assert all(image.compressed for image in packed)
    expected = combined(plain)
    same(combined(packed, jobs=2), expected)
    same(combined([*plain[:3], *packed[3:]]), expected)
    with FrameStack(packed) as stack:
        rows = np.empty((5, 31), stack.stored_type(2))
        stack.read_rows(2, 4, rows)
        np.testing.assert_array_equal(rows, stored[2, 4:9])


# --- saturation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["integers", "floats"])
@pytest.mark.parametrize("method", ["sigclip", "mean"])
def test_saturated_samples_are_told_as_stored(tmp_path, plan, method):
    rng = np.random.default_rng(8)
    values = np.rint(rng.normal(400, 2, (8, 7, 13)))
    values[:, 2, 3] = 4095
    values[5, 4, 4] = 4095
    values[5, 5, 5] = 4094
    images = [write_uint16(tmp_path / f"{k}.fits", frame * 16) for k, frame in enumerate(values)]
    rule = CombineRule(method, 4.0, 4.0, saturation=4095.0)
    # An offset must not hide that a sample stood at the converter's top.
    offsets = None if plan == "integers" else np.full(8, -5.0)
    result = combined(images, rule, offsets, adu_scale=16)
    assert set(zip(*np.nonzero(result.flags & SATURATED), strict=True)) == {(2, 3)}
    assert list(result.n_used[[2, 4, 5], [3, 4, 5]]) == [0, 7, 8 if method == "mean" else 7]


# --- memory and progress --------------------------------------------------------------------------


def peak_of(images, **options):
    tracemalloc.start()
    try:
        combined(images, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("plan", ["integers", "floats"])
def test_memory_is_bounded_and_does_not_grow_with_the_frames(tmp_path, plan, monkeypatch):
    ny, nx = 256, 251
    read, chunk = 500_000, 2_500_000
    rng = np.random.default_rng(12)
    frame = np.rint(rng.normal(1000, 2, (ny, nx)))
    images = [write_uint16(tmp_path / f"{k}.fits", frame + k % 3) for k in range(100)]
    monkeypatch.setattr(frame_stack, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(frame_stack, "READ_BYTES", read)
    combined(images[:3])  # what is imported and cached once does not count
    # Result: 11 bytes a pixel. Rows as stored: READ_BYTES, and three times that with float32 in the plan of floats;
    # samples at work: CHUNK_BYTES; and some 10 float64 values for each of the pixels of a block. In all 5.7 and 6.7 MB
    # for 10 frames, 3.9 and 4.9 MB for 100, which hold 12.9 MB as stored and 25.7 MB as float32.
    peaks = {}
    for n in (10, 100):
        peaks[n] = peak_of(images[:n], offsets=None if plan == "integers" else np.zeros(n))
        expected = 11 * ny * nx + (1 if plan == "integers" else 3) * read + chunk + 80 * read // (2 * n)
        assert peaks[n] < 1.1 * expected, f"{n} frames: {peaks[n] / 1e6:.1f} MB, not {expected / 1e6:.1f} MB"
    assert peaks[100] < peaks[10]


def test_memory_limit_bounds_the_blocks(tmp_path):
    rng = np.random.default_rng(13)
    images = [write_uint16(tmp_path / f"{k}.fits", rng.normal(1000, 2, (400, 300))) for k in range(20)]
    combined(images[:3])
    # 20 frames are 4.8 MB as stored; a limit of 2 MB leaves 0.5 MB of rows at a time.
    wide, narrow = peak_of(images), peak_of(images, memory_limit=2_000_000)
    assert narrow < wide - 1.5e6


@pytest.mark.parametrize("jobs", [1, 4])
def test_progress_counts_every_row_once(few, jobs):
    rows = []
    with FrameStack(few, jobs=jobs) as stack:
        stack.combine(RULE, progress=rows.append)
    assert sum(rows) == 60
    assert len(rows) >= 2
