"""Arithmetic of calibrated frames: lost pixels and the shot noise of what was there."""

import numpy as np
import pytest

from utils.kernels import calibration


def test_only_pixels_that_a_flat_does_not_know_are_lost():
    flat = np.full((3, 4), 0.5, np.float32)
    flat[0, 1], flat[1, 3], flat[2, 0] = 0.0, -0.2, np.nan
    terms = calibration.FlatTerms(flat, np.full_like(flat, 0.01))
    known = flat > 0
    assert np.array_equal(np.isfinite(terms.inverse), known)
    assert np.array_equal(np.isfinite(terms.relative), known)
    np.testing.assert_allclose(terms.inverse[known], 2.0)
    np.testing.assert_allclose(terms.relative[known], 0.02**2, rtol=1e-6)


def test_shot_noise_follows_sources_and_not_single_samples():
    rng = np.random.default_rng(3)
    sky, gain, read = 200.0, 0.5, 4.0
    signal = (sky + rng.normal(0.0, np.sqrt(read + gain * sky), (200, 300))).astype(np.float32)
    signal[100, 150] += 5000.0
    noise = np.full(signal.shape, read, np.float32)
    work = calibration.Workspace(*signal.shape)
    bad = np.zeros(signal.shape, bool)
    inverse = calibration.inverse_count(~bad, 0, work, np.empty(signal.shape, np.float32))
    variance = np.empty(signal.shape, np.float32)

    def shot_signal(given):
        return calibration.shot_signal(given, bad, 0, inverse, noise, gain, work, variance).copy()

    found = shot_signal(signal)
    np.testing.assert_allclose(variance, noise + gain * found, rtol=1e-5)
    assert found[100, 150] == signal[100, 150]
    away = np.ones(signal.shape, bool)
    away[96:105, 146:155] = False
    # Means of 25 samples; a few single ones above 3 sigma keep their own.
    assert np.std(found[away]) < 2.5 * np.sqrt((read + gain * sky) / 25)
    assert found[away].mean() == pytest.approx(sky, rel=0.01)
    faint = shot_signal(signal - np.float32(sky))
    assert faint.min() >= 0.0
