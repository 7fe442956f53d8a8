"""Masters, pixels, illumination and model of simulated flats against the truth of the sensor."""

import flat_frames
import numpy as np
import pytest

from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ
from utils.kernels.scene import Scene, StarField, led_pattern
from utils.kernels.sensor import Sensor, SensorSpec

CASES = [(1, (96, 128)), (2, (128, 128)), (3, (80, 120)), (4, (128, 96)), (5, (100, 100))]
DEFECTS = int(DQ.NO_DATA | DQ.DO_NOT_USE | DQ.SATURATED)


def ordinary(camera, product):
    """Pixels without defects of response or dark, by the truth."""
    bad = camera.dead | camera.low_qe | camera.hot | camera.telegraph
    return ~bad & ((product.dq & DEFECTS) == 0)


def compared(camera, product, pattern=1.0):
    """Error of a master in units of the photon and read-noise limit, and of its own sigma; (m,) each.

    The scale of a master is a convention: the truth is brought to its level.
    """
    head = product.header
    light = camera.illumination.astype(float) * pattern
    truth = camera.response.astype(float) * (1.0 if head["VIGNCORR"] else light)
    good = ordinary(camera, product)
    scale = np.median(product.data[good] / truth[good])
    # LEVEL is the median of response x light, which belongs to this level on the axis.
    axis = head["LEVEL"] / np.median(camera.response * light)
    signal = axis * camera.response * light
    dark = camera.true_dark_rate(head["TEMP"], head["EXPTIME"]) * head["EXPTIME"]
    noise = (
        np.sqrt(camera.read_noise_map.astype(float) ** 2 + 1 / 12 + (signal + dark) / camera.gain) / signal
    )
    error = product.data / scale - truth
    limit = noise * truth / np.sqrt(head["NCOMBINE"])
    return (error / limit)[good], (error * scale / product.uncert)[good]


def masters_of(out):
    return [read_product(path) for path in sorted((out / "master_flat").glob("*.fits"))]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"seed{case[0]}")
def campaign(request, tmp_path_factory):
    seed, shape = request.param
    folder = tmp_path_factory.mktemp("flats")
    terms = {"vignetting_centre": (0.5 + 0.02 * seed, 0.5 - 0.02 * seed), "low_qe_fraction": 0.004}
    camera = flat_frames.sensor(shape, seed, **terms)
    flat_frames.campaign(
        folder / "in", camera, seed, temperatures=(0.0, 8.0), exposures=(1.0, 3.0), n=12, bias_n=30
    )
    assert flat_frames.run("--basepath", folder / "in", "--output-dir", folder / "out") == 0
    return camera, folder / "out"


def test_masters_reach_the_limit_and_tell_their_error(campaign):
    camera, out = campaign
    masters = masters_of(out)
    assert len(masters) == 4
    for product in masters:
        error, pull = compared(camera, product)
        assert error.std() < 1.1
        assert 0.9 < pull.std() < 1.1
        # The level is that of the median: its own error is a few times 1 / sqrt(pixels).
        assert abs(pull.mean()) < 5 * 1.2533 / np.sqrt(pull.size)


def test_illumination(campaign):
    camera, out = campaign
    product = read_product(out / "vignetting/vignetting_NONE.fits")
    error = product.data / (camera.illumination / camera.illumination.max()) - 1
    error -= np.median(error)
    # A tenth of the pixels that the 0.15 % of larger frames hold for: three times its error.
    assert np.sqrt(np.mean(error**2)) < 0.0045
    assert np.abs(error).max() < 0.02


def test_pixels_and_prnu(campaign):
    camera, out = campaign
    product = masters_of(out)[0]
    head = product.header
    response = camera.response / camera.dust
    sigma = np.median(product.uncert) / 2.0  # four masters went in
    for bit, low, high in ((DQ.DEAD, -1, head["DEADLIM"]), (DQ.LOW_QE, head["DEADLIM"], head["LOWQELIM"])):
        true = (response > low) & (response < high)
        limits = np.array([low, high])[:, None, None]
        near = (np.abs(response - limits) < 5 * np.hypot(sigma, 0.01)).any(axis=0) | (camera.dust < 0.97)
        found = (product.dq & bit) != 0
        both = (found & true & ~near).sum()
        assert both >= 0.99 * (true & ~near).sum()
        assert both >= 0.99 * (found & ~near).sum()
    assert abs(head["PRNU"] / 1.0 - 1) < max(0.02, 4 * head["PRNUERR"])


@pytest.mark.parametrize("dark_n", [5, 0])
def test_error_of_few_darks_or_biases_is_no_prnu(tmp_path, dark_n):
    # Their noise, left in the mean of many flats, is as large as this PRNU; one set of them serves both groups of flats.
    camera = flat_frames.sensor((128, 112), 11, prnu=0.0025, read_noise=6.0, dust_count=0)
    flat_frames.campaign(
        tmp_path / "in", camera, 11, temperatures=(5.0,), exposures=(1.0, 2.0), n=25, bias_n=5, dark_n=dark_n
    )
    assert flat_frames.run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out") == 0
    head = masters_of(tmp_path / "out")[0].header
    assert abs(head["PRNU"] - 0.25) < max(0.005, 4 * head["PRNUERR"])


def test_mean_flat_of_one_group_has_the_error_of_its_master(tmp_path):
    # Corners have less than half the light, and so other noise than the middle.
    terms = {"vignetting_k1": -0.45, "vignetting_k2": -0.1, "vignetting_centre": (0.4, 0.45)}
    camera = flat_frames.sensor((64, 80), 12, **terms)
    plan = {"temperatures": (5.0,), "exposures": (1.0,), "n": 4, "bias_n": 4, "dark_n": 4}
    flat_frames.campaign(tmp_path / "in", camera, 12, **plan)
    words = ("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out", "--gain", "2")
    assert flat_frames.run("--mode", "full_no_vignetting", *words) == 0
    (mean,) = (read_product(path) for path in (tmp_path / "out/mean_flat").glob("*.fits"))
    (master,) = masters_of(tmp_path / "out")
    good = ordinary(camera, master)
    np.testing.assert_allclose(mean.uncert[good], master.uncert[good], rtol=1e-4)


def test_model_finds_no_change_where_there_is_none(campaign):
    _, out = campaign
    for term in "BC":
        product = read_product(out / f"flat_model_fits/flat_{term}_map.fits")
        good = product.dq == 0
        pull = product.data[good] / product.uncert[good]
        assert abs(pull.std() - 1) < 0.1
        # Levels that knew the noise of faint frames would shift all pixels together.
        assert abs(pull.mean()) < 5 / np.sqrt(pull.size)


def test_model_follows_temperature_and_exposure(tmp_path):
    # A response that changes by 0.2 %/degC in half of the pixels.
    camera = flat_frames.sensor((64, 80), 7)
    slope = np.where(np.arange(80) % 2, 0.002, -0.002)[None, :] * np.ones((64, 1))
    for number, temperature in enumerate((0.0, 5.0, 10.0)):
        pattern = (1 + slope * (temperature - 5.0)).astype(np.float32)
        plan = [(temperature, 2.0, 10, 1400.0)]
        given = {"scene": lambda i, pattern=pattern: Scene(pattern=pattern), "start": 1.7e9 + 3600 * number}
        flat_frames.take(tmp_path / "in" / str(number), camera, "flat", plan, [7, number], **given)
    flat_frames.take(tmp_path / "in", camera, "bias", [(5.0, 1e-5, 20, None)], 7)
    words = ("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out", "--no-dark", "--t-ref", "5")
    assert flat_frames.run(*words) == 0
    product = read_product(tmp_path / "out/flat_model_fits/flat_B_map.fits")
    assert product.header["T_REF"] == 5
    good = product.dq == 0
    truth = slope * camera.response
    pull = ((product.data - truth) / product.uncert)[good]
    assert abs(pull.std() - 1) < 0.1
    assert abs(pull.mean()) < 0.2
    constant = read_product(tmp_path / "out/flat_model_fits/flat_C_map.fits")
    assert not constant.data.any()
    assert ((constant.dq & DQ.UNRELIABLE_FIT) != 0).all()


SKIES = [
    (1, (192, 192), "12left", 900.0, True),
    (2, (160, 224), "16", 12_000.0, True),
    (3, (224, 160), "16", 12_000.0, False),
]


@pytest.mark.parametrize(("seed", "shape", "bits", "level", "one_field"), SKIES)
def test_sky_flats_with_moving_stars(tmp_path, seed, shape, bits, level, one_field):
    terms = {"row_noise": 0.0, "session_shifts": (), "glow": 0.0}
    camera = Sensor(SensorSpec.preset(bits, shape=shape, seed=seed, **terms))
    count, n = 300 * shape[0] * shape[1] // 256**2, 12
    fields = [StarField(shape, count, seed if one_field else 100 * seed + i) for i in range(n)]
    steps = np.random.default_rng(seed).uniform(-30, 30, (n, 2))
    # The same sky for both converters: sixteen bits hold more of its light.
    light = [field.light(*step, level / 900.0) for field, step in zip(fields, steps, strict=True)]
    given = {"scene": lambda i: Scene(light=light[i]), "jitter": 0.2}
    flat_frames.take(tmp_path / "in", camera, "bias", [(5.0, 1e-5, 20, None)], [seed, 1])
    flat_frames.take(tmp_path / "in", camera, "dark", [(5.0, 10.0, 20, None)], [seed, 2])
    flat_frames.take(tmp_path / "in", camera, "flat", [(5.0, 10.0, n, level)], [seed, 3], **given)
    words = ("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out", "--flat-type", "sky")
    words = (*words, "--mode", "full_no_vignetting", "--gain", camera.gain)
    assert flat_frames.run(*words) == 0
    (product,) = masters_of(tmp_path / "out")
    error, pull = compared(camera, product)
    # Masks cost samples, what all frames of one field know of its stars costs few.
    assert error.std() < (1.1 if one_field else 1.2)
    assert 0.9 < pull.std() < 1.1
    # Pixels that saw much of the stars are no brighter than the others.
    seen = np.mean(light, axis=0)[ordinary(camera, product)]
    order = np.argsort(seen)
    tenths = [error[part].mean() - error.mean() for part in np.array_split(order, 10)]
    assert np.abs(tenths).max() < 0.1 + 3 / np.sqrt(error.size / 10)
    plain = read_product(tmp_path / "out/sky_median/master_flat_sky_median.fits")
    normalised = read_product(tmp_path / "out/sky_median/master_flat_sky_median_normalized.fits")
    assert plain.unit == "adu"
    np.testing.assert_allclose(plain.data, normalised.data * plain.header["LEVEL"], rtol=1e-6)
    error, pull = compared(camera, normalised)
    # A median is less certain than a mean, by 1.2 at twelve.
    assert error.std() < 1.4
    assert 0.85 < pull.std() < 1.15


@pytest.mark.parametrize(("seed", "shape"), [(1, (128, 128)), (2, (96, 160)), (3, (160, 96))])
def test_satellite_flats_with_lamps_and_hits(tmp_path, seed, shape):
    camera = flat_frames.sensor(shape, seed)
    lamps = led_pattern(shape, seed)
    given = {"scene": lambda i: Scene(pattern=lamps, cosmic=1e-3), "jitter": 0.05}
    flat_frames.take(tmp_path / "in", camera, "bias", [(5.0, 1e-5, 20, None)], [seed, 1])
    flat_frames.take(tmp_path / "in", camera, "dark", [(5.0, 2.0, 20, None)], [seed, 2])
    flat_frames.take(tmp_path / "in", camera, "flat", [(5.0, 2.0, 12, 1400.0)], [seed, 3], **given)
    words = ("--basepath", tmp_path / "in", "--output-dir", tmp_path / "out", "--flat-type", "satellite")
    assert flat_frames.run(*words) == 0
    (product,) = masters_of(tmp_path / "out")
    error, pull = compared(camera, product, lamps)
    assert error.std() < 1.1
    # Ten times the hits of a real set: a hundredth of the pixels is struck in one of the frames, and not biased.
    assert abs(error.mean()) < 5 * 1.2533 / np.sqrt(error.size)
    assert np.abs(pull).max() < 6
