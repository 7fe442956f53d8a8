"""Predictions of masters that took no part in the fit, and what they say of extrapolation."""

import numpy as np
import pytest

from flat_pipeline import left_out, models

SHAPE = (20, 50)
GRID = [(t, e) for t in (0.0, 5.0, 10.0) for e in (1.0, 2.0, 3.0)]


def masters(bend=0.0, grid=GRID, sigma=0.002, seed=1):
    """Masters of a linear response, with a term ``bend`` in (T - 5)^2 that the model does not have."""
    rng = np.random.default_rng(seed)
    values, sigmas, headers = [], [], []
    slope = rng.normal(0, 1e-3, SHAPE)
    for temperature, exposure in grid:
        truth = 1 + slope * (temperature - 5) + bend * (temperature - 5) ** 2
        values.append((truth + sigma * rng.normal(size=SHAPE)).astype(np.float32))
        sigmas.append(np.full(SHAPE, sigma, np.float32))
        headers.append({"TEMP": temperature, "EXPTIME": exposure, "TTOL": 0.5, "NCOMBINE": 10})
    planes = [np.zeros(SHAPE, np.int16) for _ in grid]
    return models.Masters("R", list(range(len(grid))), headers, values, sigmas, planes)


def test_a_linear_response_is_predicted_within_the_errors():
    judged = left_out.judge(masters())
    pixels = SHAPE[0] * SHAPE[1]
    for index in range(len(GRID)):
        # The three of a temperature share the prediction, and its error.
        assert judged.compared[index].metrics()["chi2_red"] == pytest.approx(1, abs=5 * np.sqrt(2 / pixels))
    assert judged.outside == {0, 1, 2, 6, 7, 8}
    for what in left_out.AXES:
        assert left_out.verdict(what, [judged]).startswith("trusted")


def test_a_bend_is_found_by_leaving_out_whole_temperatures():
    bend = 2e-4
    judged = left_out.judge(masters(bend))
    assert left_out.verdict("temperatures", [judged]).startswith("not trusted")
    # From 5 and 10 degC the line misses 0 degC by 25 + 25 bends; one master alone would be held by its two neighbours.
    miss = judged.compared[0].metrics()["mean_error"]
    assert miss == pytest.approx(50 * bend, abs=5 * 0.002 * np.sqrt(2 / 1000))


def test_too_little_is_said():
    two = left_out.judge(masters(grid=[(t, e) for t in (0.0, 10.0) for e in (1.0, 2.0, 3.0)]))
    assert left_out.verdict("temperatures", [two]).startswith("cannot be judged: fewer than 3")
    # Without a temperature nothing carries B: an exposure is left out instead.
    assert sorted(two.compared) == list(range(6))
    assert two.outside == {0, 2, 3, 5}
    one = left_out.judge(masters(grid=[(0.0, 1.0)]))
    assert not one.compared
    # The far temperature is predicted from two that lie close together.
    far = left_out.judge(masters(grid=[(t, e) for t in (0.0, 2.0, 40.0) for e in (1.0, 2.0)]))
    assert "less certain than masters" in left_out.verdict("temperatures", [far])
