"""How the dark model of a pixel follows the error of the bias that was taken from its darks."""

import numpy as np


def bias_sensitivity(design, state, sigmas, read_variance, inverse_gain, bias):
    """Change of the fitted p of one pixel with the error of its bias ``a + b T``: d p / d a [1/s], d p / d b [degC/s].

    design : `dark_fit.Design`.  state : p [ADU/s], B, gamma at its pivot.  sigmas : of the prior of B and gamma, 0: held.
    read_variance [ADU^2], inverse_gain [ADU/e-] : noise of a sample.  bias (2, 2) : covariance of a and b.
    The darks' signals hold minus that error, p is their generalised least squares estimate.
    """
    p, b, gamma = state
    unit = design.exposure * np.exp(b * design.x + gamma * design.log_exposure)
    variance = (read_variance + max(p, 0.0) * inverse_gain * unit) / design.frames + design.common_variance
    line = np.stack([np.ones_like(unit), design.temperature])
    weight = np.linalg.inv(np.diag(variance) + line.T @ bias @ line)
    held = np.array([False, *(sigma == 0 for sigma in sigmas)])
    terms = np.stack([unit, p * unit * design.x, p * unit * design.log_exposure])[~held]
    normal = terms @ weight @ terms.T
    normal += np.diag(np.array([0.0, *(1.0 / sigma**2 if sigma else 0.0 for sigma in sigmas)])[~held])
    scale = 1.0 / np.sqrt(np.maximum(np.diag(normal), 1e-30))  # p = 0 tells nothing of B and gamma
    solved = scale[0] * np.linalg.pinv(normal * np.outer(scale, scale))[0] * scale
    return -(solved @ terms @ weight @ line.T)
