"""Planes in T and t of every pixel against numpy's least squares, errors by Monte Carlo, terms that are not carried."""

import numpy as np
import pytest

from flat_pipeline.models import fit_block
from utils.fits_io.products import DQ
from utils.kernels.flat_model import design_model, fit_flat_model, left_out_residuals, predict

T = np.repeat([-10.0, 5.0, 20.0], 3) + np.array([0.1, -0.1, 0.05, 0, 0.2, -0.05, 0.1, 0.0, -0.1])
E = np.tile([0.5, 1.0, 4.0], 3)


def design_matrix(design):
    return np.column_stack([np.ones_like(T), T - design.t_ref, E - design.e_ref])


def simulated(rng, m, design):
    truth = np.stack([1 + rng.normal(0, 0.01, m), rng.normal(0, 1e-3, m), rng.normal(0, 3e-3, m)])
    sigma = rng.uniform(0.001, 0.004, (T.size, m))
    return truth, design_matrix(design) @ truth + sigma * rng.normal(size=(T.size, m)), sigma


@pytest.mark.parametrize(("t_ref", "e_ref"), [(None, None), (0.0, 0.0), (25.0, 10.0)])
def test_planes_are_those_of_numpy(t_ref, e_ref):
    rng = np.random.default_rng(1)
    design = design_model(T, E, t_ref, e_ref)
    _, values, sigma = simulated(rng, 30, design)
    values[rng.random(values.shape) < 0.15] = np.nan
    sigma[0, :3], sigma[1, :3] = 0.0, np.nan
    fit = fit_flat_model(values, sigma, design)
    left, variance = left_out_residuals(values, sigma, design)
    assert design.fitted == (True, True, True)
    for pixel in range(values.shape[1]):
        good = np.isfinite(values[:, pixel]) & (sigma[:, pixel] > 0)
        x, y, s = design_matrix(design)[good], values[good, pixel], sigma[good, pixel]
        cov = np.linalg.inv((x / s[:, None] ** 2).T @ x)
        coeff = cov @ (x.T @ (y / s**2))
        np.testing.assert_allclose(fit.coeff[:, pixel], coeff, rtol=1e-8, atol=1e-12)
        planes = [cov[0, 0], cov[1, 1], cov[2, 2], cov[0, 1], cov[0, 2], cov[1, 2]]
        np.testing.assert_allclose(fit.cov[:, pixel], planes, rtol=1e-6, atol=1e-16)
        np.testing.assert_allclose(fit.chi2[pixel], (((y - x @ coeff) / s) ** 2).sum(), rtol=1e-6, atol=1e-9)
        assert fit.n_used[pixel] == good.sum()
        assert np.isnan(left[~good, pixel]).all()
        for number, index in enumerate(np.flatnonzero(good)):
            others = np.arange(good.sum()) != number
            a, b, e = x[others], y[others], s[others]
            cov_left = np.linalg.inv((a / e[:, None] ** 2).T @ a)
            prediction = x[number] @ cov_left @ (a.T @ (b / e**2))
            np.testing.assert_allclose(left[index, pixel], y[number] - prediction, rtol=1e-6, atol=1e-10)
            np.testing.assert_allclose(variance[index, pixel], x[number] @ cov_left @ x[number], rtol=1e-6)


def test_terms_scatter_by_their_errors_and_so_do_predictions():
    rng = np.random.default_rng(2)
    m = 20_000
    design = design_model(T, E)
    truth, values, sigma = simulated(rng, m, design)
    fit = fit_flat_model(values.astype(np.float32), sigma.astype(np.float32), design)
    pulls = (fit.coeff - truth) / np.sqrt(fit.cov[:3])
    width = 5 / np.sqrt(2 * m)
    np.testing.assert_allclose(pulls.std(axis=1), 1.0, atol=width)
    np.testing.assert_allclose(pulls.mean(axis=1), 0.0, atol=5 / np.sqrt(m))
    assert abs(fit.chi2.mean() - 6) < 5 * np.sqrt(12 / m)
    for temperature, exposure in ((-10.0, 4.0), (30.0, 0.1)):
        value, error = predict(fit.coeff, fit.cov, design, temperature, exposure)
        expected = truth[0] + (temperature - design.t_ref) * truth[1] + (exposure - design.e_ref) * truth[2]
        assert abs(((value - expected) / error).std() - 1) < width
    left, variance = left_out_residuals(values, sigma, design)
    assert np.abs((left / np.sqrt(variance + sigma**2)).std(axis=1) - 1).max() < width


def test_reference_defaults_to_the_mean_of_the_set():
    design = design_model([10.0, 20.0], [1.0, 4.0])
    assert (design.t_ref, design.e_ref) == (15.0, 2.5)


@pytest.mark.parametrize(
    ("temperature", "exposure", "fitted", "words"),
    [
        ([20.0, 20.2, 19.9], [1.0, 2.0, 3.0], (True, False, True), "one temperature, 20.03 degC"),
        ([0.0, 10.0, 20.0], [2.0, 2.0, 2.0], (True, True, False), "one exposure, 2 s"),
        ([20.1, 20.0, 20.0], [2.0, 2.0, 2.0], (True, False, False), "one temperature"),
        ([0.1, 10.0, 20.0], [1.0, 2.0, 3.0], (True, True, False), "change together"),
        ([20.0], [2.0], (True, False, False), "one exposure"),
    ],
)
def test_terms_that_are_not_carried_are_zero_and_said(temperature, exposure, fitted, words):
    rng = np.random.default_rng(3)
    design = design_model(temperature, exposure, temp_tolerance=0.5)
    assert design.fitted == fitted
    assert words in "; ".join(design.reasons)
    assert len(design.reasons) == 3 - sum(fitted)
    n, m = len(temperature), 5000
    fit = fit_flat_model(1 + rng.normal(0, 0.01, (n, m)), np.full(n, 0.01), design)
    free = np.array(fitted)
    assert (fit.coeff[~free] == 0).all()
    assert (fit.cov[:3][~free] == 0).all()
    pulls = (fit.coeff[free] - np.eye(3)[free][:, :1]) / np.sqrt(fit.cov[:3][free])
    np.testing.assert_allclose(pulls.std(axis=1), 1, atol=5 / np.sqrt(2 * m))
    assert not fit.fixed.any()


def test_pixel_whose_own_masters_carry_less_is_flagged():
    design = design_model(T, E, temp_tolerance=0.5)
    values = np.ones((9, 5))
    values[3:, 0] = np.nan  # one temperature, whose scatter of 0.2 degC is no lever
    values[[1, 2, 4, 5, 7, 8], 1] = np.nan  # one exposure
    values[[1, 2, 3, 5, 6, 7, 8], 2] = np.nan  # two masters: T and t together
    values[:, 3] = np.nan
    fit = fit_flat_model(values, np.full(9, 0.01), design)
    assert fit.fixed.tolist() == [True, True, True, True, False]
    assert fit.coeff[1, 0] == 0
    assert fit.cov[1, 0] == 0
    assert fit.coeff[2, 1] == 0
    assert np.isnan(fit.coeff[:, 3]).all()
    assert fit.n_used.tolist() == [3, 3, 2, 0, 9]
    np.testing.assert_allclose(fit.coeff[0, [0, 1, 2, 4]], 1, atol=1e-12)


def test_masters_that_alone_carry_a_term_are_not_predicted():
    temperature, exposure = np.array([0.0, 0.2, 0.1, 20.0]), np.array([1.0, 2.0, 3.0, 2.0])
    design = design_model(temperature, exposure, temp_tolerance=0.5)
    left, variance = left_out_residuals(np.ones((4, 7)), np.full(4, 0.01), design)
    assert np.isnan(left[3]).all()
    assert np.isnan(variance[3]).all()
    assert np.isfinite(left[:3]).all()
    alone, _ = left_out_residuals(np.ones((1, 7)), np.full(1, 0.01), design_model([1.0], [1.0]))
    assert np.isnan(alone).all()


def test_pieces_and_shapes_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    design = design_model(T, E)
    _, values, sigma = simulated(rng, 50 * 61, design)
    whole = fit_flat_model(values.reshape(9, 50, 61), sigma.reshape(9, 50, 61), design)
    monkeypatch.setattr("utils.kernels.flat_model.PIECE", 1024 * 9)
    cut = fit_flat_model(values, sigma, design)
    np.testing.assert_allclose(whole.coeff, cut.coeff, rtol=1e-12, atol=1e-15)
    one = fit_flat_model(values, np.full(9, 0.5), design)
    map_of_one = fit_flat_model(values, np.full(values.shape, 0.5), design)
    np.testing.assert_allclose(one.cov, map_of_one.cov, rtol=1e-9, atol=1e-15)


def test_designs_that_cannot_be():
    with pytest.raises(ValueError, match="2 temperatures and 1 exposures"):
        design_model([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="must be finite"):
        design_model([1.0, np.nan], [1.0, 2.0])


def test_pixels_that_follow_the_plane_are_not_flagged():
    """Four masters leave one degree of freedom: the limit of chi-square is that of its own distribution."""

    class Masters:
        def block(self, part):
            size = (4, part.stop - part.start)
            values = 1.0 + 0.01 * np.random.default_rng(5).standard_normal(size)
            return values.astype(np.float32), np.full(size, 0.01, np.float32), np.zeros(size, np.int16)

    design = design_model([0.0, 0.0, 10.0, 10.0], [1.0, 4.0, 1.0, 4.0])
    *_, chi2, dq = fit_block(Masters(), design, slice(0, 20_000))
    assert abs(chi2.mean() - 1.0) < 5 * np.sqrt(2 / chi2.size)
    # By chance 4 of a million.
    assert np.count_nonzero(dq & DQ.UNRELIABLE_FIT) <= 2
