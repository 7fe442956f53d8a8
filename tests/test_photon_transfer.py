"""Gain, read noise and full well of simulated sensors, against their truth."""

import math

import numpy as np
import pytest

from tests import photon_frames
from utils.kernels import full_well, linearity, photon_transfer

SHAPES = ((40, 56), (96, 96))
SEEDS = range(8)


@pytest.fixture(scope="module")
def characterised():
    """Results of all seeds and sizes: list of (camera, base, well, transfer)."""
    found = []
    for shape in SHAPES:
        for seed in SEEDS:
            camera = photon_frames.sensor(shape, seed)
            base, signal, variance, error, exposure = photon_frames.measured(camera, 100 + seed)
            well = full_well.full_well(signal, variance, base.variance)
            noise = np.sqrt(variance / (2 * camera.response.size))
            response = linearity.fit_response(exposure, signal, noise, well.value)
            pairs = response.all_at(signal) if response.order > 1 else None
            fit = photon_transfer.fit_transfer(
                signal, variance, error, base.variance, base.error, well=well.value, responses=pairs
            )
            found.append((camera, base, well, fit))
    return found


def test_gain_is_right_and_so_is_its_error(characterised):
    away = np.array([fit.gain / camera.gain - 1.0 for camera, _, _, fit in characterised])
    sigma = np.array([fit.gain_error / camera.gain for camera, _, _, fit in characterised])
    weight = 1.0 / sigma**2
    # Mean of 16 runs: 0.1 %; the target is 0.5 %.
    assert abs((weight * away).sum() / weight.sum()) < 4.0 / math.sqrt(weight.sum())
    assert 4.0 / math.sqrt(weight.sum()) < 0.0065
    # Width of 16 pulls: known to 0.18.
    assert 0.5 < np.std(away / sigma) < 1.5
    assert all(fit.a00 == 0.0 for *_, fit in characterised)


def test_read_noise_is_right_and_so_is_its_error(characterised):
    pulls = []
    for camera, base, _, _ in characterised:
        value, error = photon_transfer.read_noise(base.variance, base.error, 1.0)
        true = photon_frames.true_read_noise(camera)
        assert abs(value / true - 1.0) < 0.015  # 4 sigma of the smaller sensor
        pulls.append((value - true) / error)
    assert 0.5 < np.std(pulls) < 1.5


def test_full_well_is_the_plateau(characterised):
    for camera, _, well, _ in characterised:
        assert well.how == "plateau"
        true = float(camera.measured_charge(1e6).mean()) / camera.gain
        assert abs(well.value / true - 1.0) < 0.002
        # The two levels above the well; and the largest variance lies below it.
        assert well.full.sum() >= 2
        assert well.turn < well.value


@pytest.mark.parametrize("lamp", [0.0, 0.02])
def test_light_that_changes_between_the_frames_does_not_enter(lamp):
    """2 % of 2400 ADU are 48 ADU, more than the noise: its variance would double."""
    camera = photon_frames.sensor((64, 64), 3, nonlinearity=0.0)
    base, signal, variance, error, _ = photon_frames.measured(camera, 5, levels=LEVELS_BELOW, lamp=lamp)
    fit = photon_transfer.fit_transfer(signal, variance, error, base.variance, base.error)
    assert abs(fit.gain - camera.gain) < 4.0 * fit.gain_error
    assert fit.gain_error < 0.03


LEVELS_BELOW = (100, 300, 600, 1000, 1400, 1800, 2200, 2600)


def test_non_linearity_is_taken_out_and_not_called_brighter_fatter():
    """A droop of 3 % at full well bends the variance by 6 %: 40 sigma here; without its correction the gain is 3 % off."""
    camera = photon_frames.sensor((128, 128), 2, gain_droop=0.03, nonlinearity=0.0)
    base, signal, variance, error, exposure = photon_frames.measured(camera, 6)
    noise = np.sqrt(variance / (2 * camera.response.size))
    response = linearity.fit_response(exposure, signal, noise, 3783.0)
    with_it = photon_transfer.fit_transfer(
        signal, variance, error, base.variance, base.error, well=3783.0, responses=response.all_at(signal)
    )
    assert with_it.corrected
    assert with_it.a00 == 0.0
    assert abs(with_it.gain - camera.gain) < 4.0 * with_it.gain_error
    without = photon_transfer.fit_transfer(signal, variance, error, base.variance, base.error, well=3783.0)
    assert without.a00 < 0 or abs(without.gain - camera.gain) > 4.0 * without.gain_error
    assert without.notes


def drawn(rng, gain, a00, base, dof, signal):
    """Variances of levels as chance gives them, their errors and the true ones."""
    true = base + photon_transfer.shot_variance(signal, 1.0 / gain, a00)
    return true * rng.chisquare(dof, signal.size) / dof, true * math.sqrt(2.0 / dof)


def test_flats_with_noise_that_biases_do_not_have():
    """A constant excess leaves the slope alone: the line finds the gain, a curve from the bias frames' variance would not.

    20 levels of 0.5 %: the line's slope is known to 0.2 %, through the dark it would be 3 % off.
    """
    rng = np.random.default_rng(14)
    signal, gain, base = np.linspace(10.0, 2500.0, 20), 2.0, 9.0
    for _ in range(20):
        variance, error = drawn(rng, gain, 0.0, base, 80_000, signal)
        fit = photon_transfer.fit_transfer(signal, variance + 30.0, error, base, 0.05, well=3600.0)
        assert fit.offset == pytest.approx(39.0, abs=4.0)
        assert fit.used.tolist() == [bool(108.0 <= level <= 2520.0) for level in signal]
        assert abs(fit.gain / gain - 1.0) < 0.011  # 5 sigma
        # Two ways differ, and the error says by how much.
        assert 0.01 * gain < fit.gain_error < 0.1 * gain
        assert "does not meet the variance without light" in fit.notes[0]
        assert fit.base == base
    less, error = drawn(rng, gain, 0.0, base, 80_000, signal)
    fit = photon_transfer.fit_transfer(signal, less, error, base + 30.0, 0.05, well=3600.0)
    assert math.isnan(fit.offset)  # light does not take noise away


def test_a_bent_response_is_taken_out_only_where_the_variances_show_it():
    """Exposures that bend by 1 % at the top may be the lamp's: variances that scatter by 1 % do not tell."""
    rng = np.random.default_rng(15)
    signal = np.linspace(30.0, 2500.0, 6)

    def taken_out(bend, scatter, true_bend):
        part = signal / 2500.0
        pair = (signal * (1.0 + bend * part), 1.0 - 2.0 * bend * part)
        true = 9.0 + signal * (1.0 + true_bend * part) * (1.0 - 2.0 * true_bend * part) ** 2 / 2.0
        true = true * (1.0 + scatter * np.array([1, -1, 1.2, -0.9, -1.1, 0.8]))
        variance = true * (1.0 + 1e-4 * rng.standard_normal(6))
        error = 1e-3 * true
        return photon_transfer.fit_transfer(
            signal, variance, error, 9.0, 0.01, well=3600.0, responses=[pair, pair]
        )

    assert taken_out(0.01, 0.0, 0.01).corrected
    assert taken_out(0.05, 0.01, 0.05).corrected
    for true_bend in (0.0, 0.01):
        fit = taken_out(0.01, 0.01, true_bend)
        assert not fit.corrected
        assert fit.scaled > 5.0
        # 1 % in each of six levels, and the bend of up to 3 % that is not taken out.
        assert fit.gain == pytest.approx(2.0, rel=0.03)


def test_brighter_fatter_term_is_found_where_it_is():
    rng = np.random.default_rng(4)
    signal = np.linspace(1000.0, 60000.0, 20)
    gain, a00, base, dof = 1.5, -2e-6, 30.0, 200_000
    pulls = []
    for _ in range(60):
        variance, error = drawn(rng, gain, a00, base, dof, signal)
        fit = photon_transfer.fit_transfer(signal, variance, error, base, base * math.sqrt(2.0 / dof))
        assert fit.a00 < 0
        pulls.append(((fit.gain - gain) / fit.gain_error, (fit.a00 - a00) / fit.a00_error))
    width = np.std(pulls, axis=0)
    # 60 pulls: known to 0.09.
    assert np.all(np.abs(width - 1.0) < 0.37)
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 4.0 / math.sqrt(60))


def test_brighter_fatter_term_is_not_made_of_chance():
    rng = np.random.default_rng(5)
    signal = np.linspace(1000.0, 60000.0, 20)
    pulls, kept = [], 0
    for _ in range(200):
        variance, error = drawn(rng, 1.5, 0.0, 30.0, 20_000, signal)
        fit = photon_transfer.fit_transfer(signal, variance, error, 30.0, 0.3)
        pulls.append((fit.gain - 1.5) / fit.gain_error)
        kept += fit.a00 != 0.0
    assert kept <= 3  # expected 0.3
    assert abs(np.std(pulls) - 1.0) < 4.0 / math.sqrt(400)
    assert abs(np.mean(pulls)) < 4.0 / math.sqrt(200)


def test_few_degrees_of_freedom_do_not_pull_the_gain():
    """Weights of the measured variances would give low ones too much: a bias of 2 / dof."""
    rng = np.random.default_rng(6)
    signal = np.linspace(100.0, 3000.0, 12)
    found = []
    for _ in range(400):
        variance, _ = drawn(rng, 2.0, 0.0, 2.4, 200, signal)
        fit = photon_transfer.fit_transfer(signal, variance, variance / 10.0, 2.4, 0.01)
        found.append(1.0 / fit.gain)
    scatter = np.std(found) / math.sqrt(400)
    assert abs(np.mean(found) - 0.5) < 4.0 * scatter
    assert scatter < 0.001  # 2 / dof of the slope would be 0.005


@pytest.mark.parametrize("dof", [1, 3, 19])
def test_ordinary_pixels_are_not_moved_by_outliers(dof):
    rng = np.random.default_rng(7)
    m = 400_000
    variance = 9.0 * rng.chisquare(dof, m) / dof
    variance[:400] += 5000.0  # 0.1 % struck
    found = photon_transfer.ordinary_pixels(np.full(m, 18.0), variance, dof, 9.0)
    assert abs(found.variance - 9.0) < 4.0 * found.error + 0.001 * 9.0
    assert found.error == pytest.approx(9.0 * math.sqrt(2.0 / (dof * m)), rel=0.02)
    assert 0.0009 < found.left_out < 0.0015


@pytest.mark.parametrize("noise", [0.4, 0.7, 3.0])
def test_integers_of_little_noise(noise):
    rng = np.random.default_rng(8)
    frames = np.rint(rng.uniform(-0.5, 0.5, 60_000) + 100.0 + noise * rng.standard_normal((4, 60_000)))
    found = photon_transfer.ordinary_pixels(
        np.zeros(60_000), frames.var(axis=0, ddof=1), 3, 0.0, read_only=True
    )
    # Over all phases of the level the rounding adds 1/12 exactly.
    assert abs(found.variance - noise**2 - 1 / 12) < 4.0 * found.error
    assert photon_transfer.trusted_read_noise(found.variance, 1.0) == (noise >= 0.7 or found.variance >= 0.24)


def test_range_that_does_not_end_and_range_that_turns():
    signal = np.array([100.0, 500, 1000, 2000, 3000])
    open_end = full_well.full_well(signal, 2.0 + 0.5 * signal, 2.0)
    assert (open_end.how, open_end.top) == ("not reached", 3000.0)
    assert math.isnan(open_end.value)
    assert not open_end.full.any()
    variance = 2.0 + 0.5 * signal
    variance[-1] *= 0.6
    turned = full_well.full_well(signal, variance, 2.0)
    assert turned.how == "turn"
    assert 2000 < turned.value < 3000
    assert turned.full.tolist() == [False] * 4 + [True]


def test_nothing_to_fit():
    fit = photon_transfer.fit_transfer([], [], [], 2.0, 0.1)
    assert math.isnan(fit.gain)
    assert not fit.used.any()
