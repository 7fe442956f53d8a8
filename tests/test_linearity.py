"""Linearity: known responses are found again; EMVA's linearity error against a fit by hand."""

import numpy as np
import pytest

from tests import photon_frames
from utils.kernels import linearity

T = np.geomspace(0.2, 13.0, 16)


def levels(bend, relative=2e-4, seed=1):
    """Signals of a camera of 300 ADU/s with a response x (1 + bend(x)), and their errors."""
    rng = np.random.default_rng(seed)
    x = 300.0 * T
    m = x * (1.0 + bend(x))
    return m * (1.0 + relative * rng.standard_normal(T.size)), relative * m


@pytest.mark.parametrize(
    "bend", [lambda x: 0.0 * x, lambda x: -0.03 * x / 3900, lambda x: -0.02 * (x / 3900) ** 6]
)
def test_deviation_is_that_of_the_sensor(bend):
    pulls = []
    for seed in range(40):
        m, e = levels(bend, seed=seed)
        response = linearity.fit_response(T, m, e)
        away = response.deviation - bend(300.0 * T)
        assert np.abs(away).max() < 0.002
        pulls.append(response.coefficients[0] / response.longest / 300.0 - 1.0)
    # The slope at no light is what all deviations refer to.
    assert abs(np.mean(pulls)) < 0.0005


def test_straight_response_needs_one_term_and_its_error_is_right():
    pulls = []
    for seed in range(200):
        m, e = levels(lambda x: 0.0 * x, seed=seed)
        response = linearity.fit_response(T, m, e)
        if response.order == 1:
            pulls.append(
                (response.coefficients[0] / response.longest - 300.0)
                / np.sqrt(response.covariance[0, 0])
                * response.longest
            )
    assert len(pulls) > 190
    assert abs(np.std(pulls) - 1.0) < 0.2


def test_linear_signal_and_slope_invert_the_response():
    m, e = levels(lambda x: -0.05 * x / 3900, relative=1e-6)
    response = linearity.fit_response(T, m, e)
    x, slope = response.at(m)
    np.testing.assert_allclose(x, 300.0 * T, rtol=1e-4)
    np.testing.assert_allclose(slope, 1.0 - 0.1 * 300.0 * T / 3900, rtol=1e-3)
    low, high, error = linearity.usable_range(response)
    # 1 % at a fifth of 3900 ADU.
    assert low == pytest.approx(m.min())
    assert high == pytest.approx(0.99 * 780.0, rel=0.01)
    assert error < 0.01 * high


@pytest.mark.parametrize("shape", [(40, 56), (96, 96)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_simulated_sensor_to_a_tenth_of_a_percent(shape, seed):
    camera = photon_frames.sensor(shape, seed, gain_droop=0.02)
    _, signal, variance, _, exposure = photon_frames.measured(camera, seed, n=6)
    noise = np.sqrt(variance / (6 * camera.response.size))
    response = linearity.fit_response(exposure, signal, noise, 3744.0)
    charge = camera.gain * photon_frames.PER_SECOND * exposure[response.used]
    true = np.array([camera.measured_charge(one).mean() / one - 1.0 for one in charge])
    away = response.deviation[response.used] - true
    assert np.abs(away).max() < 0.001 + 4.0 * response.deviation_error[response.used].min()
    assert np.median(response.deviation_error[response.used]) < 0.001


def test_lamp_that_scatters_more_than_its_error_widens_the_errors():
    m, e = levels(lambda x: 0.0 * x, relative=1e-3)
    response = linearity.fit_response(T, m, 0.1 * e)
    assert response.scaled > 3.0 or response.order > 3
    assert np.all(np.abs(response.deviation) < 5.0 * response.deviation_error + 2e-3)


def test_too_few_exposures():
    assert linearity.fit_response([1.0, 1.0, 2.0, 3.0], [10.0, 10, 20, 30], [1.0] * 4) is None
    assert linearity.linearity_error([1.0, 1.0, 1.0], [10.0, 20, 30], 40.0) is None


def test_linearity_error_of_the_standard():
    """Weights 1 / m^2: the same as numpy's fit with weights 1 / m."""
    m, _ = levels(lambda x: -0.03 * x / 3900)
    found = linearity.linearity_error(T, m, 3800.0)
    used = (m >= 190) & (m <= 3610)
    assert np.array_equal(found.used, used)
    slope, offset = np.polyfit(T[used], m[used], 1, w=1.0 / m[used])
    assert (found.slope, found.offset) == (pytest.approx(slope), pytest.approx(offset))
    deviation = 100.0 * (m / (offset + slope * T) - 1.0)
    np.testing.assert_allclose(found.deviation, deviation, rtol=1e-6, atol=1e-9)
    assert found.error == pytest.approx(np.abs(deviation[used]).mean())
    assert found.least < 0 < found.largest


def test_error_of_a_deviation_is_that_of_its_own_pull():
    """A level draws the line to itself: errors without that covariance would be a third too large here."""
    pulls = []
    for seed in range(30):
        m, e = levels(lambda x: -0.03 * x / 3900, relative=1e-3, seed=seed)
        response = linearity.fit_response(T, m, e)
        pulls.append((response.deviation + 0.03 * 300.0 * T / 3900) / response.deviation_error)
    pulls = np.array(pulls)
    # 480 values, a third of them free of the others: the width is known to 0.055.
    assert 0.8 < np.std(pulls) < 1.2
    assert abs(np.mean(pulls)) < 0.3


def test_error_of_the_end_of_the_usable_range():
    pulls = []
    for seed in range(40):
        m, e = levels(lambda x: -0.05 * x / 3900, relative=5e-4, seed=seed)
        _, high, error = linearity.usable_range(linearity.fit_response(T, m, e))
        pulls.append((high - 0.99 * 780.0) / error)
    # 1 sigma of a width of 40: 0.11.
    assert 0.6 < np.std(pulls) < 1.4
    assert abs(np.mean(pulls)) < 4.0 / np.sqrt(40)


def test_range_that_does_not_end_has_no_error():
    m, e = levels(lambda x: 0.0 * x)
    assert np.isnan(linearity.usable_range(linearity.fit_response(T, m, e))[2])
