"""Bounds of a plan against simulated fits; the cheapest plan against a linear programme that is exact for one target."""

import numpy as np
import pytest
from scipy.optimize import linprog

from utils.kernels import plan_errors as pe

READ, INVERSE_GAIN, OVERHEAD = 9.0, 0.5, 2.0
TEMPERATURES, EXPOSURES = (-20.0, -10.0, 0.0, 10.0), (1.0, 10.0, 60.0, 300.0)


def a_law(rate=0.5, gamma=0.0):
    return pe.DarkLaw(np.array([rate]), np.array([0.12]), np.array([gamma]), 0.0)


def all_terms(law):
    """Information of one bias at each temperature and one dark of each group, and their costs."""
    terms, cost, groups = [], [], []
    for t in TEMPERATURES:
        one = np.zeros((5, 5))
        one[3:, 3:] = pe.bias_terms([t], [[READ]])[0, 0]
        terms.append(one)
        cost.append(OVERHEAD)
        groups.append((t, None))
    for t in TEMPERATURES:
        for e in EXPOSURES:
            variance = READ + INVERSE_GAIN * law.rate(t, e) * e
            terms.append(pe.dark_terms(law, [t], [e], [variance])[0, 0])
            cost.append(e + OVERHEAD)
            groups.append((t, e))
    return np.array(terms), np.array(cost), groups


def test_bound_of_a_bias_is_that_of_a_line():
    variance = np.full((4, 1), READ)
    root = pe.covariance_root((10 * pe.bias_terms(TEMPERATURES, variance)).sum(axis=0))
    x = np.array(TEMPERATURES)
    for at in (-25.0, 0.0, 7.0):
        expected = np.sqrt(READ / 10 * (1 / 4 + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()))
        assert pe.error_along(root, pe.bias_direction(at))[0] == pytest.approx(expected, rel=1e-12)


def test_bound_of_a_dark_is_the_scatter_of_a_fit():
    law = a_law(rate=2.0, gamma=0.05)
    terms, _, groups = all_terms(law)
    information = 20 * terms.sum(axis=0)[None]
    root = pe.covariance_root(information)
    rng = np.random.default_rng(5)
    # One Gauss-Newton step from the truth is the efficient estimate where the law is near its tangent.
    trials, score = 4000, np.zeros((4000, 5))
    for t, e in groups:
        variance = READ if e is None else READ + INVERSE_GAIN * law.rate(t, e)[0] * e
        charge = np.zeros(3) if e is None else e * law.slopes(t, e)[0]
        j = np.array([*charge, 1.0, t])
        score += 20 * rng.normal(0.0, np.sqrt(variance / 20), trials)[:, None] * j / variance
    found = score @ (root[0] @ root[0].T)
    for at in ((-15.0, 30.0), (5.0, 100.0)):
        direction = pe.dark_direction(law, *at)
        assert (found @ direction[0]).std() == pytest.approx(
            pe.error_along(root, direction)[0], rel=5 / np.sqrt(2 * trials)
        )


def test_bias_is_a_nuisance_that_bias_frames_reduce():
    law = a_law()
    terms, _, groups = all_terms(law)
    darks = np.array([e is not None for _, e in groups])
    bias, dark = 10 * terms[~darks].sum(axis=0)[None, 3:, 3:], 10 * terms[darks].sum(axis=0)[None]
    direction = pe.dark_direction(law, -10.0, 30.0)
    alone = pe.error_along(pe.covariance_root(dark), direction)[0]
    helped = pe.error_along(pe.covariance_root(pe.with_bias(dark, bias)), direction)[0]
    known = pe.error_along(pe.covariance_root(pe.with_bias(dark, 1e9 * bias)), direction)[0]
    assert known < helped < alone


def test_what_the_frames_do_not_tell_has_an_infinite_error():
    law = a_law()
    one_temperature = pe.dark_terms(law, [0.0, 0.0], [1.0, 10.0], [[READ], [READ]]).sum(axis=0)
    assert pe.error_along(pe.covariance_root(one_temperature), pe.dark_direction(law, 5.0, 10.0))[0] == np.inf
    saturated = pe.dark_terms(law, [0.0], [10.0], [[np.inf]])
    assert not saturated.any()


@pytest.mark.parametrize("at", [(-5.0, 60.0), (10.0, 1.0), (-20.0, 300.0)])
def test_relaxed_plan_is_the_exact_optimum_for_one_target(at):
    law = a_law()
    terms, cost, _ = all_terms(law)
    direction, wanted = pe.dark_direction(law, *at)[0], 0.01
    roots = []
    for term in terms:
        value, vector = np.linalg.eigh(term)
        roots.append(vector[:, -1] * np.sqrt(value[-1]))
    roots = np.array(roots).T
    scale = np.abs(roots).max(axis=1)
    price = np.sqrt(np.concatenate([cost, cost]))
    exact = linprog(price, A_eq=np.hstack([roots, -roots]) / scale[:, None], b_eq=direction / scale)
    least = (exact.fun / wanted) ** 2  # Elfving's theorem
    problem = (terms, cost, direction[None], np.array([wanted]))
    relaxed = pe._relaxed(pe._to_meet(np.ones(len(cost)), *problem), *problem)
    assert cost @ relaxed == pytest.approx(least, rel=1e-3)
    counts = pe.cheapest_counts(terms, cost, [(direction, wanted)])
    assert pe._ratios(counts, *problem)[0] <= 1.0
    # Whole frames, at least three of a group: never below the optimum, and not far above.
    assert least * (1 - 1e-3) <= cost @ counts <= least + 3 * cost[counts > 0].sum()


def test_several_targets_are_all_met_and_no_frame_is_superfluous():
    law = a_law()
    terms, cost, _ = all_terms(law)
    targets = [(pe.dark_direction(law, t, e)[0], 0.02) for t in (-15, 5) for e in (30, 200)]
    counts = pe.cheapest_counts(terms, cost, targets)
    problem = (terms, cost, np.array([d for d, _ in targets]), np.full(4, 0.02))
    assert (pe._ratios(counts, *problem) <= 1.0).all()
    uniform = np.ceil(pe._to_meet(np.ones(len(cost)), *problem))
    assert cost @ counts < 0.2 * (cost @ uniform)
    for index in np.flatnonzero(counts > 3):
        fewer = counts.copy()
        fewer[index] -= 1
        assert pe._ratios(fewer, *problem).max() > 1.0


def test_targets_out_of_reach_are_none():
    law = a_law()
    terms, cost, groups = all_terms(law)
    cold = [index for index, (t, _) in enumerate(groups) if t == -20.0]
    assert pe.cheapest_counts(terms[cold], cost[cold], [(pe.dark_direction(law, 5.0, 30.0)[0], 0.1)]) is None


def test_flats():
    frames = pe.flat_frames(10000.0, 0.001, READ, INVERSE_GAIN)
    assert pe.flat_error(10000.0, frames, READ, INVERSE_GAIN) <= 0.001
    assert pe.flat_error(10000.0, frames - 1, READ, INVERSE_GAIN) > 0.001
    assert pe.flat_error(10000.0, 1, 0.0, 0.5) == pytest.approx(np.sqrt(5000.0) / 10000.0)
