"""The project's special functions are those of scipy."""

import numpy as np
import pytest
from scipy import special

from utils.kernels import special_functions as own

X = np.concatenate([np.geomspace(1e-3, 1e6, 400), np.arange(1, 60) / 2])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (own.gammaln, special.gammaln),
        (own.digamma, special.digamma),
        (own.trigamma, lambda x: special.polygamma(1, x)),
        (own.tetragamma, lambda x: special.polygamma(2, x)),
    ],
)
def test_gamma_and_its_derivatives(function, expected):
    np.testing.assert_allclose(function(X), expected(X), rtol=1e-11, atol=1e-12)
    assert function(2.5) == pytest.approx(float(expected(2.5)), rel=1e-12)


def test_normal_distribution_function():
    x = np.linspace(-60, 20, 2001).reshape(3, -1)
    np.testing.assert_allclose(own.log_normal_cdf(x), special.log_ndtr(x), rtol=1e-8, atol=1e-300)


def test_normal_distribution_function_of_many_numbers():
    x = np.random.default_rng(1).uniform(-17, 17, (100, 60))
    np.testing.assert_allclose(own.log_normal_cdf(x), special.log_ndtr(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("a", [0.5, 1.0, 3.5, 40.0, 5000.0])
@pytest.mark.parametrize("b", [0.5, 2.0, 19.5, 1000.0, 5e5])
def test_incomplete_beta(a, b):
    middle = a / (a + b)
    for x in (0.0, 1e-9, 0.3 * middle, 0.9 * middle, middle, 1.1 * middle, 0.5, 0.999, 1.0):
        if 0 <= x <= 1:
            assert own.beta_cdf(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-13)


@pytest.mark.parametrize("dof", [1, 4, 39, 999])
@pytest.mark.parametrize("other", [2.5, 7.0, 120.0, 1e6])
def test_f_distribution(dof, other):
    for x in (0.0, 0.2, 0.9, 1.0, 1.3, 4.0, 30.0):
        assert own.f_cdf(dof, other, x) == pytest.approx(special.fdtr(dof, other, x), rel=1e-8)
        assert own.f_tail(dof, other, x) == pytest.approx(special.fdtrc(dof, other, x), rel=1e-7, abs=1e-13)


@pytest.mark.parametrize("dof", [1, 2, 5, 30, 1000])
@pytest.mark.parametrize("tail", [0.3, 0.0228, 1e-3, 1e-6])
def test_student_quantile(dof, tail):
    assert own.t_quantile(dof, tail) == pytest.approx(-special.stdtrit(dof, tail), rel=1e-8)


@pytest.mark.parametrize("dof", [1, 2, 3, 9, 39, 999, 20_000])
def test_quantiles_of_a_logarithm(dof):
    chances = np.linspace(0.01, 0.99, 201)
    expected = np.log(special.gammaincinv(dof / 2, chances))
    np.testing.assert_allclose(own.log_gamma_quantiles(dof / 2, chances), expected, rtol=0, atol=2e-6)
