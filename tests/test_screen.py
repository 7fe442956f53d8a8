"""The screen's rules on numbers: levels, rows and temperatures."""

import numpy as np
import pytest

from utils.kernels.screen import (
    CODES,
    ScreenLimits,
    frame_levels,
    judge_levels,
    judge_rows,
    judge_temperatures,
    robust_level,
)


def codes(found):
    return {index: code for index, (code, _) in found.items()}


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.4, 3.0])
def test_levels_of_integers_are_finer_than_their_step(sigma):
    rng = np.random.default_rng(1)
    n, shape = 20, (16, 200)
    true = rng.normal(0, 0.2, n)
    pattern = 100 + rng.normal(0, 3, shape)
    samples = np.rint(pattern + true[:, None, None] + rng.normal(0, sigma, (n, *shape))).astype(np.float32)
    level, uneven, spread = frame_levels(samples)
    noise = np.sqrt(sigma**2 + 1 / 12)
    error = (level - np.median(level)) - (true - np.median(true))
    # Noise of a mean over all sampled pixels; the group's median image adds a common part that the median takes out.
    assert np.abs(error).max() < 5 * noise / np.sqrt(3200) + 0.01
    assert abs(spread.mean() / noise - 1) < 0.1
    # Eight tiles of 400 pixels: range of eight means, 2.85 of their sigma, 5 at most.
    assert uneven.max() < 6 * noise / np.sqrt(400)


def test_levels_do_not_mind_hot_and_struck_pixels():
    rng = np.random.default_rng(2)
    samples = 100 + rng.normal(0, 2, (10, 16, 200)).astype(np.float32)
    samples[:, rng.random((16, 200)) < 0.05] += 5000
    hits = rng.random(samples.shape) < 0.005
    samples[hits] += 3000
    level, uneven, _ = frame_levels(samples)
    # 0.5 % of hits drawn in to 5 robust sigma (13 ADU) lift all frames alike by 0.06 ADU.
    assert np.ptp(level) < 10 * 2 / np.sqrt(3200)
    assert uneven.max() < 1.0


def test_a_lit_part_is_uneven():
    rng = np.random.default_rng(3)
    samples = 100 + rng.normal(0, 2, (6, 16, 200)).astype(np.float32)
    samples[4, :, 150:] += 40
    uneven = frame_levels(samples)[1]
    assert uneven[4] == pytest.approx(40, abs=1)
    assert np.delete(uneven, 4).max() < 1


def test_robust_level_without_data():
    assert np.isnan(robust_level(np.full(5, np.nan))).all()
    assert robust_level(np.array([3.0, np.nan, 3.0])) == (3.0, 0.0)


def level_case(n, jump, index, *, noise=3.0, jitter=0.0, uneven=0.0, seed=4):
    rng = np.random.default_rng(seed)
    level = rng.normal(0, max(jitter, 0.01), n)
    level[index] += jump
    tiles = np.zeros(n)
    tiles[index] = uneven
    return judge_levels(level, tiles, noise, 400)[0]


@pytest.mark.parametrize("n", [5, 10, 100])
@pytest.mark.parametrize("jump", [-4.0, 4.0, 300.0])
def test_a_level_jump_is_found(n, jump):
    assert codes(level_case(n, jump, 2)) == {2: "LEVEL_JUMP"}


def test_an_uneven_rise_is_a_light_leak_and_an_uneven_fall_is_not():
    assert codes(level_case(10, 20.0, 3, uneven=15.0)) == {3: "LIGHT_LEAK"}
    assert codes(level_case(10, -20.0, 3, uneven=15.0)) == {3: "LEVEL_JUMP"}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_too_few_frames_cannot_outvote_one(n):
    assert level_case(n, 300.0, 0) == {}


def test_what_temperature_explains_is_no_jump():
    temperature = np.linspace(0, 10, 20)
    level = 5.0 * temperature
    level[7] += 60
    found, _ = judge_levels(level, np.zeros(20), 3.0, 400, expected=5.0 * temperature)
    assert codes(found) == {7: "LEVEL_JUMP"}


def test_levels_are_compared_within_a_session():
    level = np.repeat([0.0, 50.0], 10)
    session = np.repeat([0, 1], 10)
    level[14] += 9
    found, tolerated = judge_levels(level, np.zeros(20), 3.0, 400, session=session)
    assert codes(found) == {14: "LEVEL_JUMP"}
    assert tolerated == 0


def test_a_level_that_many_frames_leave_is_kept_and_counted():
    level = np.zeros(20)
    level[:9] = 50.0
    found, tolerated = judge_levels(level, np.zeros(20), 3.0, 400)
    assert found == {}
    assert tolerated == 9
    level[:9] = 0.0
    level[:3] = 50.0
    found, tolerated = judge_levels(level, np.zeros(20), 3.0, 400)
    assert sorted(found) == [0, 1, 2]
    assert tolerated == 0


def test_frames_of_unknown_level_take_no_part():
    level = np.zeros(12)
    level[[3, 4]] = np.nan
    level[8] = 20
    assert codes(judge_levels(level, np.zeros(12), 3.0, 400)[0]) == {8: "LEVEL_JUMP"}


@pytest.mark.parametrize("n", [5, 6, 10, 20, 100])
def test_a_zero_level_that_moves_from_frame_to_frame_is_kept(n):
    rng = np.random.default_rng(n)
    groups = 3000
    independent = rng.normal(0, 3.0, (groups, n))
    lost = sum(bool(judge_levels(levels, np.zeros(n), 3.0, 400)[0]) for levels in independent)
    # The MAD of 5 levels has a heavy tail: 2 groups in 1000 lose a frame there, fewer in larger ones.
    assert lost <= (20 if n == 5 else 5)


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ZERO_BLOCK", "DROPPED_ROWS"])
@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_bad_rows_of_one_frame(code, n):
    clean, bad = np.zeros((n, 40), bool), np.zeros((n, 40), bool)
    bad[n - 1, 30:33] = True
    found, _ = judge_rows(*((bad, clean) if code == "ZERO_BLOCK" else (clean, bad)))
    assert found == {n - 1: (code, "3 rows, the first is row 30")}
    assert judge_rows(clean, clean) == ({}, 0)


@pytest.mark.parametrize("kind", [0, 1])
def test_rows_that_half_of_the_group_shows_are_the_sensor_s(kind):
    rows = [np.zeros((10, 40), bool), np.zeros((10, 40), bool)]
    rows[kind][:, :2] = True
    rows[kind][::2, 20] = True
    rows[kind][3, 7] = True
    found, _ = judge_rows(*rows)
    assert list(found) == [3]
    assert found[3][1] == "1 rows, the first is row 7"


def test_zeros_here_and_there_in_many_frames_are_kept_and_counted():
    zero = np.random.default_rng(5).random((20, 200)) < 0.03
    found, tolerated = judge_rows(zero, np.zeros_like(zero))
    assert found == {}
    assert tolerated == zero.any(axis=1).sum()
    zero[4] = True
    assert list(judge_rows(zero, np.zeros_like(zero))[0]) == [4]


def test_frames_without_any_other_row_are_out_even_where_all_are():
    dead = np.ones((6, 40), bool)
    assert codes(judge_rows(dead, np.zeros_like(dead))[0]) == dict.fromkeys(range(6), "ZERO_BLOCK")
    assert codes(judge_rows(np.zeros_like(dead), dead)[0]) == dict.fromkeys(range(6), "DROPPED_ROWS")


def test_a_limit_of_bad_rows():
    rows = np.zeros((5, 40), bool)
    rows[2, :3] = True
    clean = np.zeros_like(rows)
    assert judge_rows(rows, clean, ScreenLimits(bad_rows=3))[0] == {}
    assert list(judge_rows(rows, clean, ScreenLimits(bad_rows=2))[0]) == [2]


# --- temperatures ---------------------------------------------------------------------------------


def test_temperature_that_changes_during_the_exposure():
    time = 100.0 * np.arange(8)
    temperature = np.array([0, 0, 0, 2.0, 4.0, 4.0, 4.0, 4.0])
    found = judge_temperatures(temperature, time, np.full(8, 60.0))
    assert found == {3: ("UNSTABLE_TEMPERATURE", "1.20 degC during 60 s")}
    assert judge_temperatures(temperature, time, np.full(8, 1.0)) == {}


def test_steps_between_series_and_unknown_times_are_no_drift():
    time = np.r_[np.arange(5) * 10.0, 60 + np.arange(5) * 10.0]
    temperature = np.repeat([0.0, 10.0], 5)
    assert judge_temperatures(temperature, time, np.full(10, 5.0)) == {}
    assert judge_temperatures(np.arange(5.0), np.full(5, np.nan), np.full(5, 60.0)) == {}
    # All of one time stamp, to the second: nothing divides by zero.
    assert judge_temperatures(np.zeros(5), np.zeros(5), np.zeros(5)) == {}


def test_a_quick_drift_of_short_frames_is_no_fault():
    # orion_g3_astroluminance: 9 degC within 70 s, frames of microseconds.
    time = np.arange(30) * 2.4
    temperature = 11.4 - 9.1 * np.exp(-time / 20)
    assert judge_temperatures(temperature, time, np.full(30, 1e-5)) == {}


def test_every_code_has_its_words():
    assert all(code.isupper() and words for code, words in CODES.items())
    assert len(CODES) == 7
