"""Zero level against temperature with a shift common to each session."""

import numpy as np
import pytest

from utils.kernels.zero_level import fit_zero_level


def frames(rng, plan, slope=0.25, noise=0.05, shifts=(0.0,)):
    """Levels of frames; plan: list of (session, temperatures, frames each)."""
    shifts = (*shifts, *[0.0] * (len(plan) - len(shifts)))
    session = np.concatenate([np.full(len(t) * n, s) for s, t, n in plan])
    temperature = np.concatenate([np.repeat(np.asarray(t, float), n) for _, t, n in plan])
    temperature += rng.uniform(-0.05, 0.05, temperature.size)
    level = 100 + slope * temperature + np.asarray(shifts)[session] + rng.normal(0, noise, session.size)
    return level, temperature, session


def test_one_session_is_a_straight_line():
    rng = np.random.default_rng(1)
    fits = [fit_zero_level(*frames(rng, [(0, (-10, 0, 10), 8)])) for _ in range(120)]
    pull = np.array([(fit.slope - 0.25) / fit.slope_error for fit in fits])
    # The error is measured from 24 frames: a width of 1 with the noise of 200 pulls and the tails of such an error.
    assert abs(pull.mean()) < 5 / np.sqrt(120)
    assert 0.8 < pull.std() < 1.25
    assert abs(np.mean([fit.frame_scatter for fit in fits]) / 0.05 - 1) < 0.1
    assert all(fit.separable and fit.session_scatter == 0 and not fit.shifts.any() for fit in fits)


@pytest.mark.parametrize("per", [3, 10])
def test_overlapping_sessions_give_shifts_and_slope(per):
    rng = np.random.default_rng(per)
    plan = [(0, (-10, 0), per), (1, (-10, 0, 10), per), (2, (0, 10), per)]
    true = np.array([0.0, 0.8, -0.5])
    pulls, slopes = [], []
    for _ in range(120):
        fit = fit_zero_level(*frames(rng, plan, shifts=true))
        assert fit.separable
        assert fit.shifts[0] == 0.0
        pulls.append((fit.shifts[1:] - true[1:]) / fit.shift_errors[1:])
        slopes.append((fit.slope - 0.25) / fit.slope_error)
    for pull in (np.array(pulls), np.array(slopes)):
        assert abs(pull.mean()) < 5 / np.sqrt(120)
        assert 0.85 < pull.std() < 1.25


@pytest.mark.parametrize("per", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("temperatures", [(0,), (-10, 0, 10)])
def test_no_shift_is_invented(per, temperatures):
    rng = np.random.default_rng(10 * per + len(temperatures))
    found = 0
    for _ in range(150):
        fit = fit_zero_level(*frames(rng, [(0, temperatures, per), (1, temperatures, per)]))
        found += bool(fit.shifts.any())
    # 4 sigma: 6e-5 each; the scatter of very few frames has heavier tails than Student's t.
    assert found <= 3


def test_shift_of_the_first_session_is_zero_and_later_ones_are_against_it():
    rng = np.random.default_rng(2)
    plan = [(0, (-10, 0, 10), 5), (1, (-10, 0, 10), 5)]
    fit = fit_zero_level(*frames(rng, plan, shifts=(3.0, 0.0), noise=0.01))
    np.testing.assert_allclose(fit.shifts, [0.0, -3.0], atol=0.03)


def test_sessions_without_overlap_are_not_separable():
    rng = np.random.default_rng(3)
    # Each session at one temperature of its own: a shift looks like a slope.
    fit = fit_zero_level(*frames(rng, [(0, (-10,), 10), (1, (10,), 10)], shifts=(0.0, 2.0)))
    assert not fit.separable
    assert not fit.shifts.any()
    # The line goes through both: 0.25 + 2 / 20.
    assert abs(fit.slope - 0.35) < 0.01
    assert fit.session_scatter > 0


def test_scatter_of_inseparable_sessions_about_a_line_is_told():
    rng = np.random.default_rng(4)
    shifts = (0.0, 1.0, -1.0, 1.0, 0.0)
    plan = [(s, (-20 + 10 * s,), 6) for s in range(5)]
    fit = fit_zero_level(*frames(rng, plan, shifts=shifts, noise=0.01))
    x = np.arange(5.0)
    residual = np.array(shifts) - np.polyval(np.polyfit(x, shifts, 1), x)
    assert not fit.separable
    assert fit.session_scatter == pytest.approx(np.sqrt(residual @ residual / 3), rel=0.05)


def test_one_temperature_has_no_slope():
    rng = np.random.default_rng(5)
    level = 100 + rng.normal(0, 0.05, 20)
    fit = fit_zero_level(level, np.full(20, -10.0), np.zeros(20, int))
    assert (fit.slope, fit.slope_error, fit.separable) == (0.0, np.inf, True)
    assert 0.03 < fit.frame_scatter < 0.08


def test_sessions_at_one_temperature_do_overlap():
    rng = np.random.default_rng(6)
    session = np.repeat([0, 1, 2], 10)
    level = 100 + np.array([0.0, 0.7, -0.4])[session] + rng.normal(0, 0.05, 30)
    fit = fit_zero_level(level, np.full(30, -10.0), session)
    assert fit.separable
    assert (fit.slope, fit.slope_error) == (0.0, np.inf)
    np.testing.assert_allclose(fit.shifts, [0, 0.7, -0.4], atol=5 * 0.05 * np.sqrt(2 / 10))


def test_outlier_frames_do_not_pull_the_fit():
    rng = np.random.default_rng(7)
    plan = [(0, (-10, 0, 10), 10), (1, (-10, 0, 10), 10)]
    level, temperature, session = frames(rng, plan, shifts=(0.0, 0.6))
    level[[3, 14, 40]] += [500.0, -80.0, 2000.0]
    fit = fit_zero_level(level, temperature, session)
    # 60 frames of 0.05 ADU; a twentieth of outliers costs little.
    assert abs(fit.slope - 0.25) < 5 * 0.05 / np.sqrt(60 * 66)
    assert abs(fit.shifts[1] - 0.6) < 5 * 0.05 * np.sqrt(2 / 30)
    assert fit.frame_scatter < 0.08


def test_levels_that_are_not_known_are_left_out():
    rng = np.random.default_rng(8)
    level, temperature, session = frames(rng, [(0, (-10, 0, 10), 5), (1, (-10, 0, 10), 5)], shifts=(0, 1))
    plain = fit_zero_level(level, temperature, session)
    more = fit_zero_level(
        np.append(level, [np.nan, 7.0]), np.append(temperature, [0.0, np.nan]), np.append(session, [1, 0])
    )
    assert more.slope == plain.slope
    np.testing.assert_array_equal(more.shifts, plain.shifts)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_session_that_lost_its_frames_does_not_hide_the_others(lost):
    rng = np.random.default_rng(9)
    plan = [(s, (-10, 0, 10), 5) for s in range(3)]
    level, temperature, session = frames(rng, plan, shifts=(0.0, 1.0, -0.5), noise=0.02)
    level[session == lost] = np.nan
    fit = fit_zero_level(level, temperature, session)
    assert fit.separable
    assert fit.shifts.shape == fit.shift_errors.shape == (3,)
    expected = np.array([0.0, 1.0, -0.5])
    expected -= expected[0 if lost else 1]
    expected[lost] = 0.0
    np.testing.assert_allclose(fit.shifts, expected, atol=0.04)


def test_too_few_frames():
    for level in ([], [5.0], [np.nan, np.nan, 5.0]):
        fit = fit_zero_level(np.array(level), np.arange(len(level)) * 1.0, np.zeros(len(level), int))
        assert (fit.slope, fit.slope_error, fit.frame_scatter) == (0.0, np.inf, 0.0)
        assert fit.shifts.size == 1
    # Two frames of two sessions: whatever they differ by may be a shift or a slope.
    fit = fit_zero_level(np.array([1.0, 2.0]), np.array([0.0, 10.0]), np.array([0, 1]))
    assert not fit.separable
    assert not fit.shifts.any()
