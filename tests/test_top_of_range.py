"""Saturation that no header tells: pixels that stick at one value far above all others, and darks that have none."""

import dark_frames
import numpy as np
import pytest
from bias_frames import REAL, record
from frame_sets import group_of

from utils.domain.screening import screen_groups
from utils.domain.top_of_range import common_top, top_of_group
from utils.fits_io.header_scan import scan_header
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ
from utils.kernels.saturation import values_at_top

TWELVE_BITS = 4095.0


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def stack(rng, n, hot, top=TWELVE_BITS, rate=1e5, shape=(60, 70)):
    """Darks (n, ny, nx) with ``hot`` pixels of a spread of rates about ``rate``, cut at ``top``."""
    frames = 100.0 + rng.normal(0, 2, shape) + rng.normal(0, 1.5, (n, *shape))
    where = rng.choice(frames[0].size, hot, replace=False)
    signal = rate * rng.lognormal(0, 0.3, hot)
    frames.reshape(n, -1)[:, where] += signal + rng.normal(0, np.sqrt(signal), (n, hot))
    return np.minimum(frames, top)


@pytest.mark.parametrize(("n", "hot"), [(1, 40), (2, 8), (6, 8), (6, 60)])
@pytest.mark.parametrize("scale", [1, 16])
def test_hot_pixels_at_the_end_of_the_converter(tmp_path, rng, n, hot, scale):
    group = group_of(tmp_path, np.rint(stack(rng, n, hot)) * scale)
    assert top_of_group(group.images).pile == TWELVE_BITS * scale
    assert screen_groups([group]).saturation == TWELVE_BITS


@pytest.mark.parametrize(("n", "hot", "rate"), [(6, 40, 500.0), (1, 400, 500.0), (6, 0, 1.0), (3, 4, 1e5)])
def test_ordinary_hot_pixels_are_no_pile(tmp_path, rng, n, hot, rate):
    frames = stack(rng, n, hot, top=65000.0 if rate < 1e5 else TWELVE_BITS, rate=rate)
    assert screen_groups([group_of(tmp_path, frames)]).saturation == 65535.0


def test_copies_of_one_frame_are_no_pile(tmp_path, rng):
    frames = np.repeat(stack(rng, 1, 40, rate=500.0), 5, axis=0)
    assert top_of_group(group_of(tmp_path, frames).images).pile == np.inf


def test_one_faulty_frame_does_not_hide_it(tmp_path, rng):
    frames = stack(rng, 6, 40)
    frames[0, 30:40] = 65535.0
    assert top_of_group(group_of(tmp_path, frames).images).pile == TWELVE_BITS


def test_a_card_or_another_group_beyond_decides(tmp_path, rng):
    group = group_of(tmp_path / "card", stack(rng, 4, 40), saturate=5000.0)
    assert screen_groups([group]).saturation == 5000.0
    both = [
        group_of(tmp_path / "a", stack(rng, 4, 40, top=2000.0)),
        group_of(tmp_path / "b", stack(rng, 4, 40, rate=20000.0, top=50000.0)),
    ]
    assert common_top([top_of_group(group.images) for group in both]) == np.inf


def test_blank_pixels_are_no_top():
    values = np.full(1000, 100.0)
    values[:500] = -np.inf
    values[600:610] = TWELVE_BITS
    top, where = values_at_top(values)
    assert top == TWELVE_BITS
    assert where.tolist() == list(range(600, 610))
    assert values_at_top(np.full(10, -np.inf))[1].size == 0


def test_darks_leave_saturated_hot_pixels_out(tree, tmp_path):
    camera = dark_frames.sensor(
        (40, 50), 3, left_justified=False, full_well=0.0, nonlinearity=0.0, hot_fraction=0.02, hot_factor=1e5
    )
    dark_frames.campaign(tree, camera, 3, temperatures=(0, 10), exposures=(5, 60), n=4, bias_n=4)
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") in (0, 1)
    assert "pile up at 4095 ADU" in " ".join(record(tmp_path / "out")["runs"][-1]["warnings"])
    for path in (tmp_path / "out/dark_masks_by_temp/exp_60p00").iterdir():
        product = read_product(path)
        assert product.header["SATURATE"] == TWELVE_BITS
        full = camera.true_bias(10) + camera.true_dark_rate(0, 60) * 60 > 2 * TWELVE_BITS
        assert full.sum() > 10
        assert ((product.dq[full] & DQ.SATURATED) != 0).all()


@pytest.mark.skipif(not REAL.is_dir(), reason="no real frames")
@pytest.mark.parametrize("folder", ["orion_g3_astroluminance", "stl1001_ast443", "atik_ast326"])
def test_real_darks_and_biases_are_no_pile(folder):
    kinds = {}
    for path in sorted((REAL / folder).rglob("*.[Ff][Ii][Tt]*")):
        if "flat" not in path.name.lower() and path.parent.name != "Flats":
            image = scan_header(str(path))
            kinds.setdefault((path.parent, path.stem[:6], image.shape), []).append(image)
    assert kinds
    for images in kinds.values():
        assert top_of_group(images).pile >= 65535.0
