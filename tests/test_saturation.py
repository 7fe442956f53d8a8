"""Saturation found where simulated and real cameras have it, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest

from utils.kernels.saturation import describe_frame, saturation_level

REAL = Path(__file__).resolve().parents[2] / "shared" / "realdata"
ROWS, COLUMNS, OFFSET, NOISE = 16, 640, 300.0, 3.0


def flat(rng, electrons, gain=0.5, well=np.inf, prnu=0.01, vignetting=0.0, ceiling=65_535):
    """Integer rows of a flat; gain [ADU/e-], well [e-] : number or one for each pixel."""
    light = electrons * (1 - vignetting * np.linspace(-1, 1, COLUMNS) ** 2) * np.ones((ROWS, 1))
    charge = rng.poisson(light * (1 + prnu * rng.normal(size=light.shape)))
    values = OFFSET + gain * np.minimum(charge, well) + NOISE * rng.normal(size=light.shape)
    return np.clip(np.rint(values), 0, ceiling).astype(np.float32)


def found(frames, **options):
    return saturation_level([describe_frame(rows) for rows in frames], **options)


@pytest.mark.parametrize("vignetting", [0.0, 0.4])
def test_full_well_with_read_noise_by_the_collapse_of_the_scatter(vignetting):
    plateau = OFFSET + 0.5 * 80_000
    for seed in range(5):
        rng = np.random.default_rng(seed)
        levels = (10_000, 30_000, 60_000, 160_000, 240_000)
        frames = [flat(rng, level, well=80_000, vignetting=vignetting) for level in levels]
        result = found(frames, converter_max=65_535)
        assert plateau - 10 * NOISE < result.level < plateau
        assert result.frames.tolist() == [False, False, False, True, True]
        assert [bool((rows >= result.level).mean() > 0.02) for rows in frames] == result.frames.tolist()


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_full_well_that_only_part_of_the_pixels_reach(share):
    # One level alone: nothing else tells that the upper side of the scatter is missing.
    well = 80_000
    for seed in range(5):
        rng = np.random.default_rng(10 + seed)
        above = {0.4: -0.25, 0.7: 0.52}[share]
        result = found([flat(rng, well * (1 + 0.0106 * above), well=well) for _ in range(3)])
        assert result.reason == "the scatter is cut off upwards"
        assert result.frames.all()
        assert abs(result.level - (OFFSET + 0.5 * well)) < 0.005 * 0.5 * well


@pytest.mark.parametrize("ceiling", [4095, 4080, 65_535])
def test_converter_at_its_end_or_stuck_below(ceiling):
    rng = np.random.default_rng(3)
    gain = ceiling / 60_000
    frames = [flat(rng, level, gain=gain, ceiling=ceiling) for level in (20_000, 40_000, 59_000, 120_000)]
    result = found(frames, converter_max=ceiling if ceiling != 4080 else 4095)
    assert result.level == ceiling
    assert result.reason == "samples pile up at the largest value"
    assert result.frames[3]
    assert not result.frames[:2].any()
    # All frames at the end of the range: light does not give one value everywhere.
    assert found(frames[3:]).level == ceiling


def test_level_is_never_above_the_converter():
    rng = np.random.default_rng(4)
    assert found([flat(rng, 300_000, ceiling=65_535)], converter_max=60_000).level == 60_000


def test_pixels_that_stick_at_levels_of_their_own():
    rng = np.random.default_rng(5)
    wells = 80_000 * (1 + 0.06 * rng.normal(size=(ROWS, COLUMNS)))
    exposures = [10, 20, 40, 60, 70, 100, 120, 140, 160]
    frames = [flat(rng, 1000 * t, well=wells) for t in exposures]
    result = found(frames, exposures=exposures)
    assert result.frames.tolist() == [t >= 100 for t in exposures]
    assert 0.85 * 40_000 < result.level < 40_300
    assert [bool((rows >= result.level).mean() > 0.02) for rows in frames][:4] == [False] * 4
    assert [bool((rows >= result.level).mean() > 0.02) for rows in frames][5:] == [True] * 4


@pytest.mark.parametrize("gain", [0.02, 0.25, 1.5])
@pytest.mark.parametrize("prnu", [0.0, 0.001, 0.02])
@pytest.mark.parametrize("vignetting", [0.0, 0.5])
def test_ordinary_flats_show_nothing(gain, prnu, vignetting):
    for seed in range(6):
        rng = np.random.default_rng(100 + seed)
        levels = rng.uniform(200, 40_000, rng.integers(1, 8))
        frames = [flat(rng, level, gain, prnu=prnu, vignetting=vignetting) for level in levels]
        for rows in frames:
            rows[rng.random(rows.shape) < 3e-4] = 65_535  # hot pixels
            rows[:, 100:103] *= 0.1
            rows[3] *= 0.5
        result = found(frames, exposures=levels / 1000)
        assert result.level == np.inf, (seed, result.reason)
        assert not result.frames.any()


def test_same_level_at_many_exposures_is_a_dimmed_lamp_and_not_saturation():
    rng = np.random.default_rng(6)
    exposures = [1, 2, 4, 8, 16, 32]
    assert found([flat(rng, 40_000) for _ in exposures], exposures=exposures).level == np.inf


def test_narrow_histograms_and_frames_without_light():
    rng = np.random.default_rng(7)
    narrow = np.rint(rng.normal(100, 0.6, (ROWS, COLUMNS)))
    two_values = np.where(rng.random((ROWS, COLUMNS)) < 0.7, 101.0, 100.0)
    zeros = np.zeros((ROWS, COLUMNS))
    bright = flat(rng, 20_000)
    for frames in ([narrow], [two_values], [zeros], [zeros, bright], [two_values, narrow, bright], [bright]):
        assert found(frames).level == np.inf
    assert found([]).level == np.inf
    assert found([np.full((2, 50), np.nan)]).level == np.inf
    assert (
        found([np.full((2, 5), 7.0)[:, :3]]).level == 7.0
    )  # a few pixels of one value, and nothing brighter


def real(pattern):
    paths = sorted(REAL.glob(pattern))
    if not paths:
        pytest.skip("real frames are not here")
    return paths


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("pattern", "first"), [("st7_astr480_uw/Bergeson/flat*", 108), ("st7_astr480_uw/Langford/Pencil*", 75)]
)
def test_real_camera_that_saturates_below_its_converter(pattern, first):
    from astropy.io import fits

    frames = [(fits.getheader(path)["EXPOSURE"], fits.getdata(path)) for path in real(pattern)]
    frames.sort(key=lambda frame: frame[0])
    exposures = [exposure for exposure, _ in frames]
    result = found([data[4::10] for _, data in frames], converter_max=65_535, exposures=exposures)
    assert 36_000 < result.level < 47_000
    left_out = [exposure for exposure, data in frames if (data >= result.level).mean() > 0.02]
    assert left_out == [exposure for exposure in exposures if exposure >= first]


def test_real_camera_of_12_bits():
    import matplotlib.image

    frames = [
        np.rint(matplotlib.image.imread(path) * 65_535)
        for path in real("emva1288_ref001_ccd12/images/b_*.png")
    ]
    result = found([rows[::30] for rows in frames], converter_max=65_535)
    assert result.level == 4095
    assert result.frames.tolist() == [False] * 12 + [True] * 4
    assert found([rows[::30] for rows in frames[:12]]).level == np.inf


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "pattern", ["stl1001_ast443/2017*/flat*", "stl1001_ast443/2024*/lab1_3_3_final*", "orion_g3*/Flats/*"]
)
def test_real_flats_without_saturation(pattern):
    from astropy.io import fits

    frames = [fits.getdata(path)[::13] for path in real(pattern)]
    assert found(frames, converter_max=65_535, exposures=np.ones(len(frames))).level == np.inf
