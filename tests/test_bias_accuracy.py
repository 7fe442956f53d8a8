"""The bias model against the statistical limit of the frames that went in, on sensors with known truth.

The yardstick is the Cramer-Rao bound (CRB) of n frames a temperature, each with the noise of the simulated pixel:
no unbiased estimate can be closer. Tolerances on the ratios come from the number of pixels: the rms of N errors
and the width of N pulls are known to 1 / sqrt(2 N), 0.6 % for 15,000 pixels.
"""

import re
from functools import cache

import numpy as np
import pytest

from tests.bias_frames import campaign, record, run, take, write_frame
from utils.fits_io.product_reader import read_product
from utils.kernels.sensor import Sensor, SensorSpec

TEMPERATURES = (-20.0, -10.0, 0.0, 10.0, 20.0)
SHAPES = {1: (96, 160), 2: (128, 128), 3: (96, 160), 4: (128, 128), 5: (96, 160)}
NEW_KINDS = [(bits, seed) for bits in ("12left", "16") for seed in SHAPES]


class Result:
    """Products of one run beside the truth; telegraph pixels are flagged, not described by a mean, and left out."""

    def __init__(self, out, sensor, temperatures, n):
        self.out, self.sensor, self.n = out, sensor, n
        self.temperatures = np.asarray(temperatures, float)
        folder = out / "bias_model"
        self.a, self.b = read_product(folder / "bias_a_map.fits"), read_product(folder / "bias_b_map.fits")
        self.cov = read_product(folder / "bias_ab_covariance.fits").data.astype(float)
        self.good = ~sensor.telegraph

    def errors(self, at):
        """Errors of a + b T, their CRB and their quoted 1 sigma, over good pixels."""
        a, b, t = self.a, self.b, float(at)
        error = a.data.astype(float) + b.data.astype(float) * t - self.sensor.true_bias(t)
        quoted = np.sqrt(a.uncert.astype(float) ** 2 + 2 * t * self.cov + t * t * b.uncert.astype(float) ** 2)
        x = self.temperatures[:, None, None]
        weight = self.n / np.array([self.sensor.true_noise("bias", T, 1e-5) ** 2 for T in self.temperatures])
        total = weight.sum(0)
        centre = (weight * x).sum(0) / total
        bound = np.sqrt(1 / total + (t - centre) ** 2 / (weight * (x - centre) ** 2).sum(0))
        return error[self.good], bound[self.good], quoted[self.good]

    def ratio(self, at):
        error, bound, _ = self.errors(at)
        return float(np.sqrt(np.mean(error**2) / np.mean(bound**2)))

    def pull(self, at):
        error, _, quoted = self.errors(at)
        return float(np.std(error / quoted))

    def pulls(self):
        """Pull widths of a, b and the synthetic bias at the coldest, middle and warmest temperature."""
        slope = self.sensor.true_bias(1.0) - self.sensor.true_bias(0.0)
        found = {"a": self.pull(0.0), "b": float(np.std(((self.b.data - slope) / self.b.uncert)[self.good]))}
        for at in (-20.0, 0.0, 20.0):
            one = read_product(self.out / "bias_masks_by_temp" / f"synthetic_bias_{at:.1f}C.fits")
            pull = (one.data - self.sensor.true_bias(at)) / one.uncert
            found[f"synthetic at {at:g}"] = float(np.std(pull[self.good]))
        return found


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One run for each kind of converter, seed and number of frames, made when first asked for."""

    @cache
    def result(bits, seed, n):
        frames, out = tmp_path_factory.mktemp("frames"), tmp_path_factory.mktemp("out")
        sensor = campaign(frames, shape=SHAPES[seed], temperatures=TEMPERATURES, n=n, seed=seed, bits=bits)
        assert run("--basepath", frames, "--output-dir", out) == 0
        return Result(out, sensor, TEMPERATURES, n)

    return result


@pytest.mark.parametrize(("bits", "seed"), NEW_KINDS)
@pytest.mark.parametrize(("n", "limit"), [(5, 1.08), (12, 1.04)])
def test_error_is_near_the_bound_at_every_temperature(results, bits, seed, n, limit):
    result = results(bits, seed, n)
    ratios = [result.ratio(at) for at in (-20.0, 0.0, 20.0)]
    # Below the bound by more than its own uncertainty, the bound (or the truth) would be wrong.
    assert min(ratios) > 0.97
    assert max(ratios) <= limit


@pytest.mark.parametrize(("bits", "seed"), NEW_KINDS)
def test_quoted_errors_are_the_real_scatter(results, bits, seed):
    pulls = results(bits, seed, 12).pulls()
    assert all(abs(width - 1) <= 0.05 for width in pulls.values()), pulls


@pytest.mark.parametrize(("bits", "seed"), NEW_KINDS)
@pytest.mark.parametrize("n", [5, 12])
def test_read_noise_is_right(results, bits, seed, n):
    result = results(bits, seed, n)
    noise = read_product(result.out / "read_noise" / "read_noise.fits")
    ratio = (noise.data / result.sensor.read_noise_map)[result.good]
    assert abs(np.median(ratio) - 1) < 0.02
    assert abs(np.mean(ratio) - 1) < 0.02
    # Shrunk to the sensor's own distribution, it is nearer to the true map than one number for all pixels
    # (20 degrees of freedom against a true spread of 5 %: by 5 %), and its error says how near. The sensor's
    # spread itself is known to 15 % there.
    usable = result.good & (noise.dq == 0)
    error = (noise.data - result.sensor.read_noise_map)[usable]
    assert np.std(error) < 0.98 * np.std(result.sensor.read_noise_map[usable])
    assert abs(np.std(error / noise.uncert[usable]) - 1) < (0.12 if n == 12 else 0.3)


def test_stored_scale_is_found(results):
    for bits, scale in (("12left", 16.0), ("16", 1.0)):
        for name in ("bias_a_map", "bias_ab_covariance"):
            assert (
                read_product(results(bits, 1, 5).out / "bias_model" / f"{name}.fits").header["ADUSCALE"]
                == scale
            )


def test_cosmic_hits_leave_no_trace(tmp_path):
    """Pixels struck once are as good as the others, but for one sample less."""
    sensor = Sensor(
        SensorSpec.preset("12left", shape=(96, 128), seed=7, row_noise=0.0, cosmic_per_frame=2e-3)
    )
    n, rng = 12, np.random.default_rng(7)
    hits = np.zeros((n, *sensor.shape), bool)
    frames, out = tmp_path / "frames", tmp_path / "out"
    for i, samples in enumerate(sensor.stack("bias", [0.0] * n, 1e-5, rng, hits=hits)):
        write_frame(frames / f"bias_{i}.fits", samples, CCD_TEMP=0.0, TIMESTMP=1.7e9 + i)
    assert run("--mode", "make_master", "--basepath", frames, "--output-dir", out) == 0
    master = read_product(out / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    struck = (hits.sum(axis=0) == 1) & ~sensor.telegraph
    error = master.data - sensor.true_bias(0.0)
    assert struck.sum() > 200
    # A median hit of 750 ADU in one of 12 frames would leave 60 ADU.
    assert np.abs(error[struck]).max() < 5.5 * 1.6 / np.sqrt(n - 1)
    assert abs(np.std((error / master.uncert)[struck]) - 1) < 4 / np.sqrt(2 * struck.sum())


@pytest.mark.parametrize("n", [10, 40])
def test_noise_below_one_step_of_the_converter(tmp_path, n):
    """0.4 LSB: the mean over pixels is right to 0.002 ADU though most samples of a pixel are equal."""
    shape = (200, 300)
    sensor = Sensor(SensorSpec.bare(shape=shape, seed=3, read_noise=0.4, bias_pixel=3))
    take(tmp_path / "frames", sensor, [0.0, 10.0], n, 3)
    # The temperatures agree in truth (no slope): the level may be judged on one master.
    assert run("--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out") == 0
    master = read_product(tmp_path / "out" / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    error = master.data.astype(float) - sensor.true_bias(0.0)
    sigma_of_mean = np.sqrt(0.4**2 + 1 / 12) / np.sqrt(n * error.size)
    assert sigma_of_mean < 0.001
    assert abs(error.mean()) < 0.002
    assert abs(np.std(error / master.uncert) - 1) < 0.05
    noise = read_product(tmp_path / "out" / "read_noise" / "read_noise.fits")
    assert abs(np.median(noise.data) / 0.4 - 1) < 0.02


def test_sessions_that_overlap_are_told_apart_from_the_slope(tmp_path):
    """A zero level that moves by 2.5 ADU between nights, and drift inside the groups, cost no accuracy."""
    spec = SensorSpec.preset("12left", shape=(96, 160), seed=5, row_noise=0.0, session_shifts=(0.0, 2.5))
    sensor, n = Sensor(spec), 12
    temperatures, nights = [-20, -10, 0, 0.02, 10, 20], [0, 0, 0, 1, 1, 1]
    take(tmp_path / "frames", sensor, temperatures, n, 3, drift=0.4, sessions=nights)
    assert run("--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out") == 0
    result = Result(tmp_path / "out", sensor, [-20, -10, 0, 0, 10, 20], n)
    for at in (-20.0, 0.0, 20.0):
        assert result.ratio(at) <= 1.04
        assert abs(result.pull(at) - 1) <= 0.05
    slope = sensor.true_bias(1.0) - sensor.true_bias(0.0)
    assert abs(np.mean(result.b.data - slope)) < 0.003  # a shift taken for slope would be 2.5 / 40 = 0.06
    (warning,) = record(tmp_path / "out")["runs"][-1]["warnings"]
    shift = re.search(r"zero level differs between 2 sessions \(\+0.000, (\S+) ADU\): taken out", warning)
    assert float(shift[1]) == pytest.approx(2.5, abs=0.05)


def test_sessions_that_do_not_overlap_widen_the_slope(tmp_path):
    """One temperature a night: a shift cannot be told from b, which is said, and covers the real error."""
    spec = SensorSpec.preset(
        "12left", shape=(48, 64), seed=6, row_noise=0.0, session_shifts=(0.0, 1.5, -1.0, 0.5, 1.0)
    )
    sensor, n = Sensor(spec), 10
    take(tmp_path / "frames", sensor, TEMPERATURES, n, 4, sessions=range(5))
    assert run("--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out") == 0
    result = Result(tmp_path / "out", sensor, TEMPERATURES, n)
    warnings = record(tmp_path / "out")["runs"][-1]["warnings"]
    assert any("cannot be told from the slope b" in text for text in warnings)
    shifts = np.array(spec.session_shifts)
    wrong = np.polyfit(TEMPERATURES, shifts, 1)[0]
    error = np.mean(result.b.data - (sensor.true_bias(1.0) - sensor.true_bias(0.0)))
    assert abs(error - wrong) < 0.003  # the data cannot know better
    scatter = np.std(shifts - np.polyval(np.polyfit(TEMPERATURES, shifts, 1), TEMPERATURES)) * np.sqrt(5 / 3)
    expected = scatter / np.sqrt(np.sum(np.square(TEMPERATURES)))
    assert np.median(result.b.uncert) == pytest.approx(expected, rel=0.1)
    assert abs(error) < 3 * np.median(result.b.uncert)


def test_drift_inside_groups_is_no_noise(tmp_path):
    """0.8 degC of drift at 0.3 ADU/degC: the read noise and the masters stay right."""
    spec = SensorSpec.preset("16", shape=(96, 160), seed=8, row_noise=0.0)
    sensor, n = Sensor(spec), 12
    take(tmp_path / "frames", sensor, TEMPERATURES, n, 9, drift=0.8)
    assert run("--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out") == 0
    result = Result(tmp_path / "out", sensor, TEMPERATURES, n)
    assert all(result.ratio(at) <= 1.04 for at in (-20.0, 0.0, 20.0))
    noise = read_product(tmp_path / "out" / "read_noise" / "read_noise.fits")
    assert abs(np.median((noise.data / sensor.read_noise_map)[result.good]) - 1) < 0.02
    master = read_product(tmp_path / "out" / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    assert master.header["DRIFTCOR"] is True
    assert master.header["TEMPMAX"] - master.header["TEMPMIN"] == pytest.approx(0.8, abs=0.011)


@pytest.mark.parametrize("method", ["mean", "median"])
def test_other_ways_to_combine_quote_their_own_errors(tmp_path, method):
    sensor = Sensor(SensorSpec.preset("16", shape=(96, 128), seed=9, row_noise=0.0, cosmic_per_frame=0.0))
    n = 10
    take(tmp_path / "frames", sensor, [0.0], n, 9)
    words = ("--mode", "make_master", "--combine", method)
    assert run(*words, "--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out") == 0
    master = read_product(tmp_path / "out" / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    good = ~sensor.telegraph
    error = master.data.astype(float) - sensor.true_bias(0.0)
    assert abs(np.std((error / master.uncert)[good]) - 1) < 0.03
    factor = {"mean": 1.0, "median": 1.177}[method]  # standard error of the median of ten Gaussians
    bound = sensor.true_noise("bias", 0.0, 1e-5) / np.sqrt(n)
    assert np.sqrt(np.mean(error[good] ** 2) / np.mean(bound[good] ** 2)) == pytest.approx(factor, rel=0.02)
    assert master.header["COMBINE"] == method
