"""The dark advisor on a sensor whose darks do not follow the law: each kind of dark is chosen where it leaves least."""

import math

import numpy as np
import pytest
from dark_frames import campaign, run, sensor

from benchmarks.simulated_darks import BentSensor
from bias_pipeline.run_pipeline import main as bias_main
from utils.application.command import run_command
from utils.application.product_list import load_products
from utils.domain.dark_advisor import DarkAdvisor
from utils.domain.dark_model import DarkModel

TEMPERATURES, EXPOSURES = (-5, 0, 5, 10, 15), (5, 60)


def advise(folder, bend):
    """A campaign of a sensor whose rate bends with temperature, and the advisor on its products."""
    camera = BentSensor(sensor((40, 56), cosmic_rate=0.0).spec, bend)
    campaign(folder / "in", camera, temperatures=TEMPERATURES, exposures=EXPOSURES, n=30, bias_n=20)
    words = ["--basepath", str(folder / "in"), "--output-dir", str(folder / "bias"), "--plots", "none"]
    assert run_command(bias_main, words) == 0
    given = ("--basepath", folder / "in", "--output_dir", folder / "dark")
    assert run(*given, "--bias-model", folder / "bias" / "bias_model") == 0
    maps = [product.path for product in load_products(folder / "dark", "DARK_CURRENT")]
    return camera, DarkAdvisor(DarkModel.load(folder / "dark" / "dark_model_2d"), maps)


@pytest.fixture(scope="module")
def bent(tmp_path_factory):
    """11 % less, and more, than an exponential of the sensor's slope 7 degC from the middle."""
    return advise(tmp_path_factory.mktemp("bent"), 0.02)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return advise(tmp_path_factory.mktemp("straight"), 0.0)


def left(camera, candidate, temperature, exposure):
    """Rms error of a dark over the ordinary pixels [ADU]."""
    every = slice(0, camera.hot.size)
    signal, _ = candidate.signal(every, slice(None), lambda key, make: make())
    good = ~(camera.hot | camera.warm | camera.telegraph).ravel() & ~candidate.lost(every)
    true = camera.true_signal("dark", temperature, exposure).ravel()
    return math.sqrt(np.mean(np.square((signal + candidate.offset - true)[good])))


@pytest.mark.parametrize(
    ("temperature", "exposure", "kind"),
    [
        (-5.0, 60.0, "master"),
        (15.0, 60.0, "master"),
        (7.5, 60.0, "interpolated"),
        (2.0, 5.0, "interpolated"),
    ],
)
def test_each_kind_is_chosen_where_it_leaves_least(bent, temperature, exposure, kind):
    camera, advisor = bent
    candidates = advisor.candidates(temperature, exposure)
    assert candidates[0].kind == kind
    real = [left(camera, candidate, temperature, exposure) for candidate in candidates]
    assert real[0] == min(real)
    for candidate, rms in zip(candidates, real, strict=True):
        assert candidate.expected == pytest.approx(rms, rel=0.35), candidate.kind


def test_the_model_is_chosen_where_the_law_holds(straight):
    camera, advisor = straight
    for temperature, exposure in ((-5.0, 60.0), (7.5, 60.0), (2.0, 5.0)):
        best = advisor.candidates(temperature, exposure)[0]
        assert best.kind == "model"
        # 2200 pixels: the scatter is known to 1.5 %.
        assert best.expected == pytest.approx(left(camera, best, temperature, exposure), rel=0.1)


def test_a_frame_at_a_map_needs_no_other(bent):
    _, advisor = bent
    # Means of the groups differ from the label by the rounding of the headers.
    assert {one.kind for one in advisor.candidates(5.0, 60.0)} == {"model", "master"}
    assert {one.kind for one in advisor.candidates(5.6, 60.0)} == {"model", "master", "interpolated"}
    assert {one.kind for one in advisor.candidates(5.0, 30.0)} == {"model"}
