"""The dark pipeline against the statistical limit: simulated campaigns, from frames on disk to the model.

Every limit is that of the requirements; where a figure comes from m pixels only, three of its own errors are allowed,
and the pixels of all seeds together are held to the limit itself.
"""

from types import SimpleNamespace

import dark_frames
import numpy as np
import pytest

from benchmarks import simulated_darks
from benchmarks.simulated_darks import Campaign, camera, joined
from dark_pipeline.hot_pixels import find_hot
from utils.domain.dark_model import MAPS_2D, DarkModel
from utils.fits_io.product_reader import read_plane

WARM = Campaign()
WIDE = Campaign(
    (-10, 0, 10, 20),
    (1, 10, 60, 120),
    10,
    (-10, 0, 10, 20),
    20,
    0.4,
    (-5.0, 3.0, 8.0, 15.0),
    (5.0, 30.0, 100.0),
)
CASES = [
    # seed, shape, campaign, offset [ADU], gamma and its scatter over pixels
    (1, (100, 140), WARM, 0.0, 0.02, 0.01),
    (2, (120, 120), WARM, 1.0, 0.0, 0.0),
    (3, (100, 140), WARM, 0.0, 0.0, 0.0),
    (4, (120, 120), WARM, 0.0, -0.05, 0.01),
    (5, (90, 160), WARM, 1.0, 0.03, 0.01),
    (6, (100, 140), WIDE, 1.0, 0.0, 0.0),
    (7, (120, 120), WIDE, 0.0, 0.02, 0.01),
    (8, (90, 160), WARM, 1.0, 0.0, 0.0),
    (9, (120, 120), WIDE, 0.0, 0.0, 0.0),
]
LINEAR_SENSORS = [case[0] for case in CASES if case[4:] == (0.0, 0.0)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{seed: (`Judged`, output folder)}; every campaign is run by the shipped command."""
    found = {}
    for seed, shape, campaign, offset, gamma, spread in CASES:
        sensor = camera(shape, seed, offset=offset, gamma=gamma, gamma_spread=spread)
        folder = tmp_path_factory.mktemp("dark")
        simulated_darks.take(folder / "in", sensor, campaign, seed)
        assert dark_frames.run("--basepath", folder / "in", "--output-dir", folder / "out") == 0
        found[seed] = simulated_darks.judge(folder / "out", sensor, campaign), folder / "out"
    return found


@pytest.fixture(params=CASES, ids=lambda case: f"seed{case[0]}")
def judged(request, runs):
    return runs[request.param[0]][0], request.param[2]


@pytest.fixture(scope="module")
def together(runs):
    """All seeds of one campaign joined."""
    return [joined([runs[case[0]][0] for case in CASES if case[2] is campaign]) for campaign in (WARM, WIDE)]


def allowed(result, kind):
    """Factor that a width of so many pixels may be off: three times its error 1 / sqrt(2 m)."""
    return 1.0 + 3.0 / np.sqrt(2.0 * result.count(kind))


def test_normal_pixels_reach_the_limit(judged):
    result, campaign = judged
    ratio = result.ratio("normal")
    assert np.all(ratio < 1.05 * allowed(result, "normal"))
    # The support of the sensor: all pairs in the upper half of the range together.
    assert np.sqrt(np.mean(ratio[campaign.upper] ** 2)) < 0.8 * allowed(result, "normal")
    # No pair can be better than for one who knows the distributions of B and gamma; they are found well enough.
    best = result.ratio("normal", "best")
    assert np.all(ratio < 1.02 * best * allowed(result, "normal"))


def test_hot_pixels_reach_the_limit(judged):
    result, _ = judged
    determined = np.isfinite(result.bound).all(axis=0)
    assert np.mean(~determined) < 1e-3
    assert np.all(result.ratio("hot") < 1.15 * allowed(result, "hot"))


def test_quoted_errors_are_right(judged):
    result, _ = judged
    for kind in ("normal", "hot"):
        pull, factor = result.pull(kind), allowed(result, kind)
        assert np.all((pull > 0.9 / factor) & (pull < 1.15 * factor))
        assert result.beyond(kind) < 1e-3


def test_mean_error_is_below_a_percent(judged):
    result, _ = judged
    for kind in ("normal", "hot"):
        assert np.all(np.abs(result.mean(kind)) < 0.01)


def test_all_seeds_together_keep_the_limits(together):
    for result in together:
        assert np.all(result.ratio("normal") < 1.05)
        assert np.all(result.ratio("hot") < 1.15)
        for kind in ("normal", "hot"):
            assert np.all((result.pull(kind) > 0.9) & (result.pull(kind) < 1.15))


def test_hot_pixels_are_found(judged):
    result, _ = judged
    assert result.hot > 200
    assert result.recall >= 0.99
    assert result.precision >= 0.99


def test_offset_and_gamma_are_told_apart(judged):
    numbers = judged[0].shared[0]
    assert abs(numbers["gamma_g"] - numbers["true_gamma"]) < 3 * numbers["gamma_g_error"]
    assert abs(numbers["B_g"] - numbers["true_b"]) < 3 * numbers["B_g_error"]
    # Levels of rounded samples are known to some thousandths of a step.
    assert abs(numbers["offset_adu"][0] - numbers["true_offset"]) < 3 * numbers["offset_error_adu"][0] + 0.005
    assert numbers["offset_fitted"]
    chi2 = {name: entry["chi2_red"] for name, entry in numbers["hypotheses"].items()}
    assert set(chi2) == {"neither", "gamma", "offset", "offset and gamma"}
    assert chi2["offset and gamma"] <= min(chi2.values()) + 0.005
    assert numbers["better_temperature_law"] == "exponential"


def test_gamma_of_linear_sensors_is_zero(runs):
    """With and without an offset, within its error in each and on average."""
    numbers = [runs[seed][0].shared[0] for seed in LINEAR_SENSORS]
    assert {one["true_offset"] for one in numbers} == {0.0, 1.0}
    pulls = np.array([one["gamma_g"] / one["gamma_g_error"] for one in numbers])
    assert np.all(np.abs(pulls) < 3)
    assert abs(pulls.mean()) < 3 / np.sqrt(pulls.size)
    # No scatter over pixels, and none found: else the quoted errors of all pixels would be too large.
    assert all(one["gamma_scatter_over_pixels"] < 1e-3 for one in numbers)


def test_model_evaluates_from_its_files_alone(runs):
    from astropy.io import fits

    folder = runs[1][1] / "dark_model_2d"
    a, b, gamma = (fits.getdata(folder / name) for name in MAPS_2D[:3])
    head = fits.getheader(folder / MAPS_2D[0])
    temperature, exposure = 3.0, 8.0
    rate = a * exposure**gamma * np.exp(b * (temperature - head["T_MIN"]))
    np.testing.assert_allclose(rate, DarkModel.load(folder).evaluate(temperature, exposure)[0], rtol=2e-5)
    assert head["GAMMADEF"] == "rate"
    assert read_plane(folder / MAPS_2D[3], "CHI2_RED").shape == rate.shape


@pytest.mark.parametrize(("noise", "found"), [(0.2, 4), (1.5, 4), (8.0, 2)])
def test_hot_pixels_where_the_limit_is_below_what_single_pixels_show(noise, found):
    # The limit is 8 robust sigma above the median: with noise beyond 0.25 ADU/s no map shows a pixel at the limit for sure.
    rng = np.random.default_rng(5)
    truth = np.full((40, 50), 1.0)
    truth[[3, 9, 20, 33], [7, 41, 2, 30]] = 40.0, 40.0, 90.0, 120.0
    rate = (truth + noise * rng.standard_normal(truth.shape)).ravel()
    frames = SimpleNamespace(frames=SimpleNamespace(images=[SimpleNamespace(shape=truth.shape)]))
    group = SimpleNamespace(frames=frames, temperature=10.0, exposure=16.0)
    sigma, full = np.full(rate.size, noise), np.zeros(rate.size, bool)
    config = SimpleNamespace(hot_sigma=8.0, hot_threshold=None)
    hot = find_hot([group], lambda index, where: (rate[where], sigma[where], full[where]), config, 0.1)
    assert np.array_equal(hot.hot, truth > (2.0 if found == 4 else 50.0))
