"""The sensor's own distribution of pixel noise, recovered from simulated sample variances."""

import numpy as np
import pytest

from utils.kernels import noise


@pytest.mark.parametrize("dof", [4, 20, 50])
@pytest.mark.parametrize("prior_dof", [10, 50])
def test_spread_of_the_pixels_is_recovered(dof, prior_dof):
    """Scaled inverse chi-square of true variances: the model behind the moderation of variances."""
    rng = np.random.default_rng(dof * 100 + prior_dof)
    true = 2.3 * prior_dof / rng.chisquare(prior_dof, 100_000)
    prior, found = noise.variance_prior(true * rng.chisquare(dof, true.size) / dof, dof)
    assert prior == pytest.approx(2.3, rel=0.02)
    assert found == pytest.approx(prior_dof, rel=0.15)


def test_equal_pixels_get_a_certain_prior():
    """Without a spread of true variances the prior weighs at least as much as thousands of samples."""
    rng = np.random.default_rng(1)
    prior, found = noise.variance_prior(2.3 * rng.chisquare(50, 100_000) / 50, 50)
    assert prior == pytest.approx(2.3, rel=0.01)
    assert found > 3000


def test_defects_do_not_speak_for_the_sensor():
    rng = np.random.default_rng(2)
    variance = 2.3 * 50 / rng.chisquare(50, 100_000) * rng.chisquare(20, 100_000) / 20
    variance[:300] *= 100.0
    prior, found = noise.variance_prior(variance, 20)
    assert prior == pytest.approx(2.3, rel=0.02)
    assert found == pytest.approx(50, rel=0.15)
