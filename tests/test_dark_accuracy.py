"""The dark pipeline against the statistical limit: simulated campaigns, from frames on disk to the model."""

import json

import dark_frames
import numpy as np
import pytest

from utils.domain.dark_model import MAPS_2D, DarkModel
from utils.fits_io.product_reader import read_plane, read_product

AT = [(T, t) for T in (-3.0, 3.0, 8.0, 13.0) for t in (8.0, 40.0)]
UPPER = slice(4, None)
CASES = [
    # seed, shape, offset, gamma, its scatter, drift in a group
    (1, (100, 140), 0.0, 0.02, 0.01, 0.1),
    (2, (120, 120), 1.0, 0.0, 0.0, 0.6),
    (3, (100, 140), 0.0, 0.0, 0.0, 0.1),
    (4, (120, 120), 0.0, -0.05, 0.01, 0.6),
    (5, (90, 160), 1.0, 0.03, 0.01, 0.1),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"seed{case[0]}")
def fitted(request, tmp_path_factory):
    seed, shape, offset, gamma, scatter, drift = request.param
    camera = dark_frames.sensor(shape, seed, dark_offset=offset, dark_gamma=gamma, dark_gamma_spread=scatter)
    folder = tmp_path_factory.mktemp("dark")
    dark_frames.campaign(folder / "in", camera, seed, n=10, bias_n=15, drift=drift)
    assert dark_frames.run("--basepath", folder / "in", "--output-dir", folder / "out") == 0
    return camera, folder / "out", request.param


def errors(camera, out):
    """Error, quoted sigma and limit at unseen temperatures and exposures, (len(AT), m) each; and the truth."""
    model = DarkModel.load(out / "dark_model_2d")
    found = [model.evaluate(T, t)[:2] for T, t in AT]
    true = np.array([camera.true_dark_rate(T, t).ravel() for T, t in AT])
    error = np.array([value.ravel() for value, _ in found]) - true
    sigma = np.array([sigma.ravel() for _, sigma in found])
    limit = dark_frames.limit(camera, AT, dark_frames.bias_covariance(camera, n=15), n=10)
    return error, sigma, limit, true


def test_errors_reach_the_limit_and_are_quoted_rightly(fitted):
    camera, out, _ = fitted
    error, sigma, limit, true = errors(camera, out)
    telegraph = camera.telegraph.ravel()
    bright = camera.hot.ravel() | camera.warm.ravel()
    normal, hot = ~bright & ~telegraph, camera.hot.ravel() & ~telegraph
    # Pixels that are full in nearly every map carry no three parameters: their limit is not finite.
    hot &= np.isfinite(limit).all(axis=0) & (limit < 0.3 * true).all(axis=0)

    def rms(values):
        return np.sqrt(np.mean(np.clip(values, -6, 6) ** 2, axis=1))

    assert np.all(rms((error / limit)[:, normal]) < 1.05)
    assert np.sqrt(np.mean(rms((error / limit)[:, normal])[UPPER] ** 2)) < 0.8
    # 140 hot pixels: the ratio itself is known to 1 / sqrt(2 x 140) = 6 %.
    assert np.all(rms((error / limit)[:, hot]) < 1.15 + 0.12)
    assert np.sqrt(np.mean(rms((error / limit)[:, hot]) ** 2)) < 1.15
    pull = rms((error / sigma)[:, normal])
    assert np.all((pull > 0.85) & (pull < 1.15))
    assert np.all(np.abs(error[:, normal].mean(axis=1) / true[:, normal].mean(axis=1)) < 0.01)
    assert np.all(np.abs((error / true)[:, hot].mean(axis=1)) < 0.01)


def test_hot_pixels_are_found(fitted):
    camera, out, _ = fitted
    product = read_product(out / "dark_model_2d" / "hot_pixels.fits", expect="HOT_PIXELS")
    head, found = product.header, product.data.ravel() != 0
    true = camera.true_dark_rate(head["HOTTEMP"], head["HOTEXP"]).ravel()
    sigma = camera.true_noise("dark", head["HOTTEMP"], head["HOTEXP"]).ravel() / np.sqrt(10) / head["HOTEXP"]
    scored = np.abs(true - head["HOTLIM"]) > 5 * sigma
    hot = true > head["HOTLIM"]
    assert (hot & scored).sum() > 50
    both = (found & hot & scored).sum()
    assert both >= 0.99 * (hot & scored).sum()
    assert both >= 0.99 * (found & scored).sum()


def test_offset_and_gamma_are_told_apart(fitted):
    _, out, (_, _, offset, gamma, _, _) = fitted
    numbers = json.loads((out / "dark_model_2d" / "dark_model_2d.json").read_text())
    assert abs(numbers["gamma_g"] - gamma) < 4 * numbers["gamma_g_error"] + 1e-3
    # Levels of 12-bit samples are known to some hundredths of an ADU.
    assert abs(numbers["offset_adu"][0] - offset) < 0.05
    assert numbers["offset_fitted"]
    chi2 = {name: entry["chi2_red"] for name, entry in numbers["hypotheses"].items()}
    assert set(chi2) == {"neither", "gamma", "offset", "offset and gamma"}
    assert chi2["offset and gamma"] <= min(chi2.values()) + 0.005
    assert abs(numbers["B_g"] - np.log(2) / 6.5) < 5 * numbers["B_g_error"] + 2e-4
    assert numbers["better_temperature_law"] == "exponential"


def test_model_evaluates_from_its_files_alone(fitted):
    from astropy.io import fits

    _, out, _ = fitted
    folder = out / "dark_model_2d"
    a, b, gamma = (fits.getdata(folder / name) for name in MAPS_2D[:3])
    head = fits.getheader(folder / MAPS_2D[0])
    temperature, exposure = 3.0, 8.0
    rate = a * exposure**gamma * np.exp(b * (temperature - head["T_MIN"]))
    np.testing.assert_allclose(rate, DarkModel.load(folder).evaluate(temperature, exposure)[0], rtol=2e-5)
    assert head["GAMMADEF"] == "rate"
    assert read_plane(folder / MAPS_2D[3], "CHI2_RED").shape == rate.shape
