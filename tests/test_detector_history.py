"""Changes of the simulated sensor: each comes on its day, with the depth and the pixels that it tells."""

import numpy as np
import pytest

from utils.kernels.detector_history import Damage, DetectorState, Dust, Film, History, HotPixels
from utils.kernels.scene import Scene
from utils.kernels.sensor import Sensor, SensorSpec

SHAPE = (80, 110)


def test_nothing_happened_before_the_first_day():
    changes = [Dust(5, 30, 20, 6, 0.1), Film((3, 9), (0, 0.1)), Damage(4, 9, 0.5), HotPixels(6, 9, 20.0)]
    history = History(SHAPE, changes)
    assert history.at(2.0) == DetectorState()
    assert history.at(2.0).light_factor is None
    later = history.at(6.0)
    assert all(part is not None for part in (later.film, later.dust, later.damage, later.dark))
    product = (1 - later.film) * later.dust * later.damage
    np.testing.assert_allclose(later.light_factor, product, rtol=1e-6)


@pytest.mark.parametrize("form", ["ring", "spot"])
def test_dust_has_its_place_depth_and_days(form):
    history = History(SHAPE, [Dust(5, 60, 40, 12, 0.2, form=form, gone=9)])
    assert [history.at(day).dust is None for day in (4.9, 5, 8.9, 9)] == [True, False, False, True]
    dust = history.at(5).dust
    assert dust.min() == pytest.approx(0.8, abs=0.003)
    assert (dust[40, 60] > 0.9) if form == "ring" else (dust[40, 60] < 0.801)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(y - 40, x - 60)
    assert np.all(dust[distance > 24] > 0.9999)
    assert np.all(dust[np.abs(distance - 9) < 1] < 0.84)


def test_film_grows_between_its_days():
    edge, patches = (
        History(SHAPE, [Film((10, 20, 40), (0, 0.02, 0.05), profile)], seed=3)
        for profile in ("edge", "patches")
    )
    for history in (edge, patches):
        depths = [
            0 if film is None else film.max() for film in (history.at(d).film for d in (10, 15, 20, 30, 99))
        ]
        assert depths == pytest.approx([0, 0.01, 0.02, 0.035, 0.05], abs=1e-6)
        ratio = history.at(40).film / history.at(20).film.max()
        np.testing.assert_allclose(ratio, 2.5 * history.at(20).film / 0.02, rtol=1e-3, atol=1e-4)
    film = edge.at(40).film
    assert film[40, 55] < 1e-4
    assert film[0, 0] == pytest.approx(0.05, abs=1e-6)
    assert np.all(np.diff(film[40, 55:]) > 0)
    blobs = patches.at(40).film
    assert np.median(blobs) < 0.025 < blobs.max()
    both = History(SHAPE, [*edge.changes, *edge.changes]).at(40).film
    np.testing.assert_allclose(1 - both, (1 - film) ** 2, rtol=1e-6)


def test_damage_hits_its_pixels_from_its_day_on():
    history = History(SHAPE, [Damage(7, 12, 0.3), Damage(8, 2, 0.5, size=3)], seed=4)
    assert history.at(6.9).damage is None
    first = history.at(7).damage
    assert history.hit(0, 6.9)[0].size == 0
    rows, columns = history.hit(0, 7)
    assert rows.size == 12
    assert np.all(first[rows, columns] == np.float32(0.7))
    assert np.sum(first != 1) == 12
    second = history.at(8).damage / first
    assert 9 < history.hit(1, 8)[0].size == np.sum(second < 0.9) <= 18
    np.testing.assert_allclose(second[history.hit(1, 8)], 0.5, rtol=1e-6)
    # A change more at the end leaves the others as they are.
    alone = History(SHAPE, [Damage(7, 12, 0.3)], seed=4)
    np.testing.assert_array_equal(alone.at(9).damage, first)


def test_hot_pixels_are_born_and_anneal():
    history = History(SHAPE, [HotPixels(5, 40, 30.0, anneal_day=9, annealed=0.25)], seed=2)
    assert history.at(4.9).dark is None
    born, later = history.at(5).dark, history.at(9).dark
    rows, columns = history.hit(0, 5)
    assert np.sum(born > 0) == rows.size == 40
    logs = np.log(born[rows, columns] / 30)
    assert abs(logs.mean()) < 5 * 0.3 / np.sqrt(40)
    assert np.sum(later > 0) == 30
    np.testing.assert_array_equal(later[later > 0], born[later > 0])
    np.testing.assert_array_equal(later[history.hit(0, 9)], later[later > 0])
    cured = History(SHAPE, [HotPixels(5, 40, 30.0, anneal_day=9)])
    assert (cured.depth(0, 8), cured.depth(0, 9), cured.at(9).dark) == (30.0, 0.0, None)


def test_frames_show_the_state():
    spec = SensorSpec.bare(
        shape=SHAPE, seed=6, bit_depth=16, left_justified=False, bias_level=100.0, dark_rate=0.5, gain=2.0
    )
    sensor = Sensor(spec)
    changes = [
        *(Dust(1, 30, 20, 6, 0.1), Film((0, 2), (0, 0.1)), Damage(1, 50, 0.4)),
        HotPixels(1, 60, 40.0),
    ]
    scene = Scene(state=History(SHAPE, changes).at(2))
    n = 100
    for kind, level in (("dark", None), ("flat", 2000.0)):
        frames = sensor.stack(kind, np.full(n, 4.0), 10.0, rng=2, level=level, scene=scene) - 100.0
        dark = (0.5 + scene.state.dark) * 2 ** (4 / 6.5) * 10
        expected = dark + (0 if level is None else level * scene.state.light_factor)
        np.testing.assert_allclose(sensor.true_signal(kind, 4.0, 10.0, level, scene), expected, rtol=1e-5)
        pull = (frames.mean(axis=0) - expected) / np.sqrt((expected / 2 + 1 / 12) / n)
        assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
        assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)
    bias = sensor.stack("bias", np.zeros(3), rng=2, scene=scene)
    np.testing.assert_array_equal(bias, sensor.stack("bias", np.zeros(3), rng=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Dust(0, 1, 1, 0, 0.1), "change 0: got Dust.*expected a depth above 0 up to 1 and a radius above 0"),
        (Dust(0, 1, 1, 3, 0.1, form="disc"), "expected form ring or spot"),
        (Film((0, 1), (0,)), "expected days in order and as many depths"),
        (Film((1, 0), (0, 0.1)), "expected days in order"),
        (Film((0,), (1.0,)), "expected depths of 0 to less than 1"),
        (Film((0,), (0.1,), "ring"), "expected profile edge or patches"),
        (Damage(0, 5, 0.0), "expected a drop above 0"),
        (Damage(0, 1, 0.1, size=90), "expected to fit into 80 x 110 pixels"),
        (HotPixels(0, 0, 5.0), "expected a rate above 0, a count of 1 or more"),
        (HotPixels(0, 10_000, 5.0), "expected to fit into 80 x 110 pixels"),
    ],
)
def test_impossible_changes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        History(SHAPE, [change])


def test_what_is_no_change_is_refused():
    with pytest.raises(TypeError, match="change 1: got 'dust', expected Dust, Film, Damage or HotPixels"):
        History(SHAPE, [Film((0,), (0.1,)), "dust"])
