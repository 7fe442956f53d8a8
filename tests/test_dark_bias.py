"""The dark model's own part of the bias error, against fits of darks whose bias is off."""

import numpy as np
import pytest

from utils.kernels.dark_bias import bias_sensitivity
from utils.kernels.dark_fit import BiasError, Design, Prior, fit_pixels

TEMPERATURE = np.repeat([-5.0, 0.0, 5.0, 10.0, 15.0], 3)
EXPOSURE = np.tile([5.0, 20.0, 60.0], 5)


@pytest.mark.parametrize("rate", [0.0, 0.3, 20.0])
@pytest.mark.parametrize(("sigma_b", "sigma_gamma"), [(0.003, 0.02), (0.0, 0.0), (0.1, 0.0)])
def test_sensitivity_is_what_a_fit_does(rate, sigma_b, sigma_gamma):
    """A bias that is off by 0.01 ADU, or 0.001 ADU/K: the fit of noiseless darks moves by that times the sensitivity."""
    design = Design.of(TEMPERATURE, EXPOSURE, np.full(15, 8.0))
    state = (rate, 0.107, 0.01)
    unit = EXPOSURE * np.exp(0.107 * design.x + 0.01 * design.log_exposure)
    covariance = np.array([[0.05, 0.0005], [0.0005, 0.0004]])
    found = bias_sensitivity(design, state, (sigma_b, sigma_gamma), 2.3, 0.5, covariance)
    bias = BiasError(*(np.full(2, value, np.float32) for value in (0.05, 0.0004, 0.0005)))
    prior = Prior(0.107, sigma_b, 0.01, sigma_gamma)
    for number, (step, line) in enumerate(((0.01, np.ones(15)), (0.001, TEMPERATURE))):
        shifts = np.array([step, -step])
        signal = (rate * unit[:, None] - line[:, None] * shifts).astype(np.float32)
        fit = fit_pixels(signal, np.full(2, 2.3, np.float32), design, prior, inverse_gain=0.5, bias=bias)
        slope = (fit.p[0] - fit.p[1]) / (2.0 * step)
        assert slope == pytest.approx(found[number], rel=0.03, abs=2e-5)
        assert slope != 0.0
