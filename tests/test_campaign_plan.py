"""Plans of simulated campaigns: the demo, the documented example, and what is refused."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from utils.domain import campaign_plan
from utils.domain.named_plans import DEMO, NAMED_PLANS
from utils.errors import OptionError
from utils.kernels.sensor import SensorSpec
from utils.simulate_campaign import main, simulate


def test_default_plan_is_the_demo(tmp_path):
    attempts = campaign_plan.expand_plan(campaign_plan.check_plan(DEMO), np.random.default_rng(1))
    frames = Counter()
    sessions = {}
    for attempt in attempts:
        frames[attempt.kind] += len(attempt.names)
        if attempt.kind == "bias":
            sessions.setdefault(attempt.label, set()).add(attempt.session)
            assert len(attempt.names) >= 10
    assert 300 <= frames.total() <= 400
    flats = {}
    for attempt in attempts:
        if attempt.kind == "flat":
            flats.setdefault(attempt.filter, set()).add((attempt.label, attempt.exposure))
    assert {name: len(pairs) for name, pairs in flats.items()} == {"VIS": 6, "UV": 6}
    assert frames["bias"] > frames.total() / 2
    assert min(frames.values()) > 20
    assert 6 <= len(sessions) <= 8
    assert set.union(*sessions.values()) == {0, 1}
    assert sum(len(both) == 2 for both in sessions.values()) >= 2


def test_help_shows_a_plan_that_works(tmp_path):
    example = campaign_plan.PLAN_HELP.split("Example:\n")[1].split("\nThe plan that was used")[0]
    plan = campaign_plan.check_plan(json.loads(example))
    truth = simulate(tmp_path / "out", SensorSpec(shape=(3, 4)), plan)
    assert len(truth.frames) == 60 + 60 + 40 + 10
    for name in campaign_plan.check_plan(DEMO):
        assert re.search(rf"\b{name}\b", campaign_plan.PLAN_HELP)


BIAS = {"temperatures": [0], "frames": 3}
DARK = {"temperatures": [0], "exposures": [1], "frames": 3}
FLAT = {**DARK, "flux": 0.1}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ([], r"plan: got \[\], expected an object"),
        ({}, "got no frames, expected entries in bias, darks or flats"),
        ({"biases": [], "bias": [BIAS]}, "unknown biases, expected camera, gain_setting"),
        (
            {"bias": [{**BIAS, "frmaes": 3, "drfit": 1}]},
            r"unknown bias\[0\].drfit, bias\[0\].frmaes, expected",
        ),
        ({"bias": [BIAS, {"frames": 2}]}, r"bias\[1\].temperatures is missing, expected a list"),
        ({"bias": [{**BIAS, "frames": 0}]}, r"bias\[0\].frames: got 0, expected a whole number, 1 or more"),
        ({"bias": [{**BIAS, "temperatures": 5}]}, r"bias\[0\].temperatures: got 5, expected a list"),
        (
            {"bias": [{**BIAS, "temperatures": ["5"]}]},
            r"bias\[0\].temperatures: got \['5'\], expected a list",
        ),
        ({"bias": [{**BIAS, "session": 1}]}, r"bias\[0\].session: got 1, expected 0 to 0"),
        ({"bias": [{**BIAS, "drift": None}]}, r"bias\[0\].drift: got None, expected a number"),
        ({"bias": [7]}, r"bias\[0\]: got 7, expected an object"),
        ({"bias": BIAS}, "bias: got .*, expected a list"),
        ({"darks": [{**DARK, "exposures": [0]}]}, r"darks\[0\].exposures: got \[0\], expected .* above 0"),
        ({"darks": [{**DARK, "tree": "flat"}]}, "tree: got 'flat', expected 20Frames or ContinuousFrames"),
        ({"flats": [DARK]}, r"flats\[0\].flux is missing"),
        ({"flats": [{**FLAT, "filter": "../up"}]}, r"flats\[0\].filter: got '../up', expected a name"),
        ({"bias": [{**BIAS, "session": [0, 1]}]}, r"bias\[0\].session: got \[0, 1\], expected 0 to 0"),
        ({"bias": [{**BIAS, "session": []}]}, r"bias\[0\].session: got \[\], expected a whole number"),
        ({"flats": [{**FLAT, "type": "dome"}]}, r"flats\[0\].type: got 'dome', expected lab, sky, satellite"),
        ({"flats": [{**FLAT, "type": []}]}, r"flats\[0\].type: got \[\], expected lab"),
        ({"bias": [BIAS], "lamp": [1, 0.9]}, "lamp: got 2 values, expected one for each of the 1 sessions"),
        ({"bias": [BIAS], "stars": {"cuont": 3}}, "unknown stars.cuont, expected count, faintest"),
        ({"bias": [BIAS], "led": {"width": 0}}, "led.width: got 0, expected a number above 0"),
        ({"bias": [BIAS], "changes": [{"day": 2}]}, r"changes\[0\].kind: got None, expected dust, film"),
        ({"bias": [BIAS], "changes": [[]]}, r"changes\[0\].kind: got \[\], expected dust"),
        ({"bias": [BIAS], "changes": [{"kind": "film", "days": [1]}]}, r"changes\[0\].depths is missing"),
        (
            {"bias": [BIAS], "changes": [{"kind": "film", "days": [1], "depths": [2]}]},
            "plan: change 0: got Film.*, expected depths of 0 to less than 1",
        ),
        (
            {"flats": [{**FLAT, "type": "sky"}], "stars": {"faintest": 9, "brightest": 3}},
            "plan: star field: got .*, expected 0 < faintest < brightest",
        ),
        ({"sessions": [0, 0.5], "bias": [BIAS]}, "sessions: got .*, expected starts at least 1 day apart"),
        (
            {"sessions": [0, 1], "darks": [{**DARK, "exposures": [50000]}]},
            "session 0 ends on day 1.75, expected",
        ),
        ({"camera": {"gian": 2}, "bias": [BIAS]}, "camera: sensor term: got gian, expected a field"),
        ({"camera": {"gain": -2}, "bias": [BIAS]}, "camera: gain: got -2, expected more than 0"),
        (
            {"camera": {"session_shifts": [1]}, "sessions": [0, 2], "bias": [{**BIAS, "session": 1}]},
            "session: got 1",
        ),
    ],
)
def test_unusable_plans_are_refused_and_nothing_is_written(tmp_path, plan, message):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    with pytest.raises(OptionError, match=message) as caught:
        main([str(tmp_path / "out"), "--plan", str(file), "--size", "4", "4"])
    assert caught.value.status == 2
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def expand(plan):
    return campaign_plan.expand_plan(campaign_plan.check_plan(plan), np.random.default_rng(1))


def test_a_group_in_several_sessions_is_an_attempt_in_each():
    plan = {
        "sessions": [0, 10, 20],
        "bias": [{**BIAS, "session": [0, 2]}],
        "flats": [{**FLAT, "session": [0, 1]}],
    }
    attempts = expand(plan)
    assert [(a.folder, a.session) for a in attempts] == [
        ("Bias/T0/attempt1", 0),
        ("Bias/T0/attempt2", 2),
        ("Flats/VIS/T0/1s/attempt1", 0),
        ("Flats/VIS/T0/1s/attempt2", 1),
    ]
    assert attempts[1].times[0] - attempts[0].times[0] == 20 * campaign_plan.DAY
    assert attempts[3].times[0] - attempts[2].times[0] > 9.9 * campaign_plan.DAY


def test_light_drifts_scatters_and_follows_the_lamp_and_leaves_the_temperatures():
    flats = [{**FLAT, "frames": 400, "session": [0, 1]}]
    plain = expand({"sessions": [0, 9], "flats": flats})
    lively = [{**flats[0], "light_drift": 0.2, "light_scatter": 0.01}]
    changed = expand({"sessions": [0, 9], "flats": lively, "lamp": [1, 0.8], "temperature_swing": [0, 4]})
    assert set(plain[0].fluxes + plain[1].fluxes) == {0.1}
    for attempt, lamp in zip(changed, (1, 0.8), strict=True):
        relative = np.array(attempt.fluxes) / (0.1 * lamp)
        slope, middle = np.polyfit(np.linspace(-0.5, 0.5, 400), relative, 1)
        assert abs(slope - 0.2) < 5 * 0.01 * np.sqrt(12 / 400)
        assert abs(middle - 1) < 5 * 0.01 / 20
        # The scatter grows with the drifting light by up to 10 %: 0.3 % of its mean square.
        assert abs(np.std(relative - middle - slope * np.linspace(-0.5, 0.5, 400)) - 0.01) < 5 * 0.01 / 28
        assert attempt.dithers is None
    assert changed[0].temperatures == plain[0].temperatures
    np.testing.assert_allclose(np.subtract(changed[1].temperatures, plain[1].temperatures), 4, rtol=1e-12)


def test_sky_flats_are_dithered_in_their_own_tree():
    sky = {**FLAT, "frames": 200, "type": "sky"}
    (attempt,) = expand({"flats": [sky], "stars": {"dither": 8}})
    assert attempt.folder == "SkyFlats/VIS/T0/1s/attempt1"
    dithers = np.array(attempt.dithers)
    assert dithers.shape == (200, 2)
    assert 7 < np.abs(dithers).max() <= 8
    assert np.all(np.abs(dithers.mean(axis=0)) < 5 * 8 / np.sqrt(3 * 200))
    (attempt,) = expand({"flats": [{**sky, "type": "satellite", "cosmic": 1e-4}]})
    assert (attempt.folder, attempt.cosmic) == ("SatelliteFlats/VIS/T0/1s/attempt1", 1e-4)


@pytest.mark.parametrize("name", NAMED_PLANS)
def test_named_plans_are_small_and_complete(name):
    plan = campaign_plan.check_plan(NAMED_PLANS[name])
    assert campaign_plan.check_plan(plan) == plan
    attempts = campaign_plan.expand_plan(plan, np.random.default_rng(1))
    assert sum(len(attempt.names) for attempt in attempts) < 400
    assert {attempt.kind for attempt in attempts} == {"bias", "dark", "flat"}


def test_unreadable_plans_are_refused(tmp_path):
    with pytest.raises(
        OptionError, match=r"none\.json: got .*No such file.*, expected a plan in JSON, or one of demo"
    ):
        main([str(tmp_path / "out"), "--plan", str(tmp_path / "none.json")])
    (tmp_path / "bad.json").write_text("{'bias': 1}")
    with pytest.raises(
        OptionError, match=r"bad\.json: got Expecting property name.*, expected a plan in JSON"
    ):
        main([str(tmp_path / "out"), "--plan", str(tmp_path / "bad.json")])
