"""Groups by gap and width, sessions by pauses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.kernels.groups import group_by_gap, group_frames, sessions_by_time


def grouped(values, tolerance=0.5):
    values = np.asarray(values, dtype=float)
    return [list(values[index]) for index in group_by_gap(values, tolerance)]


def test_14p94_and_14p96_belong_together():
    assert grouped([14.94, 14.96]) == [[14.94, 14.96]]
    assert grouped([14.96, 10.0, 14.94, 10.04]) == [[10.0, 10.04], [14.94, 14.96]]


@pytest.mark.parametrize("base", [-273.0, -20.0, 0.0, 0.1, 10.0, 14.7, 300.0])
def test_a_gap_of_exactly_the_tolerance_holds_together_at_any_temperature(base):
    # Readings are decimals: 10.5 - 10.0 and 0.3 - 0.2 must be judged as the paper does.
    for tolerance in (0.1, 0.2, 0.5):
        pair = [base, round(base + tolerance, 6)]
        assert len(grouped(pair, tolerance)) == 1
        assert len(grouped([base, round(base + tolerance + 0.01, 6)], tolerance)) == 2
        wide = [base, round(base + tolerance, 6), round(base + 2 * tolerance, 6)]
        assert len(grouped(wide, tolerance)) == 1


def test_set_points_stay_whole():
    rng = np.random.default_rng(1)
    points = np.repeat([-20.0, -10.0, 0.0, 10.0, 20.0], 20)
    found = group_by_gap(np.round(points + rng.normal(0, 0.1, points.size), 2), 0.5)
    assert [set(points[index]) for index in found] == [{-20.0}, {-10.0}, {0.0}, {10.0}, {20.0}]


def test_continuous_warm_up_is_cut():
    ramp = np.linspace(-10.0, 10.0, 201)
    found = grouped(ramp, 0.5)
    widths = [group[-1] - group[0] for group in found]
    assert max(widths) <= 1.0 + 1e-9
    # 20 degC in pieces of 1 degC: as few as the width allows, and alike.
    assert len(found) == 20
    assert max(len(group) for group in found) - min(len(group) for group in found) <= 1


def test_drift_of_a_real_night_is_cut():
    # Like orion_g3_astroluminance: 2.3 to 11.4 degC within 70 s, slower and slower, read to 0.1 degC.
    ramp = np.round(11.4 - 9.1 * np.exp(-np.arange(30) / 8.0), 1)
    found = group_by_gap(ramp, 0.5)
    assert sorted(np.concatenate(found)) == list(range(30))
    for index in found:
        assert np.ptp(ramp[index]) <= 1.0 + 1e-9
    means = [ramp[index].mean() for index in found]
    assert means == sorted(means)
    assert len(found) >= 6


def test_a_wide_group_is_cut_at_its_clear_gap():
    values = [0.0, 0.02, 0.04, 0.45, 0.47, 0.49, 0.9, 0.92, 0.94, 1.3, 1.32]
    found = grouped(values, 0.5)
    assert len(found) == 2
    assert found[0][-1] in (0.04, 0.49, 0.94)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-3000, 3000), min_size=1, max_size=60),
    st.sampled_from([0.1, 0.25, 0.5, 2.0]),
)
def test_groups_hold_all_values_once_within_their_width(hundredths, tolerance):
    values = np.array(hundredths) / 100.0
    found = group_by_gap(values, tolerance)
    assert sorted(np.concatenate(found)) == list(range(values.size))
    previous = -np.inf
    for index in found:
        group = values[index]
        assert (np.diff(group) >= 0).all()
        assert np.ptp(group) <= 2 * tolerance + 1e-6
        assert group[0] > previous
        previous = group[-1]
    # The order of the frames says nothing.
    shuffled = np.random.default_rng(0).permutation(values.size)
    again = group_by_gap(values[shuffled], tolerance)
    assert [sorted(values[shuffled][i]) for i in again] == [sorted(values[i]) for i in found]


def test_unusable_values_are_refused():
    assert group_by_gap([], 0.5) == []
    with pytest.raises(ValueError, match="must be finite"):
        group_by_gap([1.0, np.nan], 0.5)
    for tolerance in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="tolerance must be positive"):
            group_by_gap([1.0], tolerance)


def test_exposures_first_then_temperatures():
    temperatures = [10.0, -10.0, 10.0, -10.0, 10.2]
    exposures = [1.0, 1.0, 60.0, 60.0, 1.001]
    found = [list(index) for index in group_frames(temperatures, exposures)]
    assert found == [[1], [0, 4], [3], [2]]


def test_exposures_are_compared_by_their_ratio():
    exposures = [1.2e-5, 2.4e-5, 0.0, 300.0, 300.9, 310.0]
    found = group_frames(np.zeros(6), exposures)
    assert [sorted(index) for index in found] == [[2], [0], [1], [3, 4], [5]]


def test_sessions_by_pauses():
    hour = 3600.0
    times = np.array([50 * hour, 0.0, 1 * hour, np.nan, 51 * hour, 7 * hour, 200 * hour])
    np.testing.assert_array_equal(sessions_by_time(times, 6 * hour), [1, 0, 0, 0, 1, 0, 2])
    np.testing.assert_array_equal(sessions_by_time(times, 5 * hour), [2, 0, 0, 0, 2, 1, 3])
    np.testing.assert_array_equal(sessions_by_time([np.nan, np.nan], 10.0), [0, 0])
    assert sessions_by_time([], 10.0).size == 0
