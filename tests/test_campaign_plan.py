"""Plans of simulated campaigns: the demo, the documented example, and what is refused."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from utils.domain import campaign_plan
from utils.errors import OptionError
from utils.kernels.sensor import SensorSpec
from utils.simulate_campaign import main, simulate


def test_default_plan_is_the_demo(tmp_path):
    attempts = campaign_plan.expand_plan(
        campaign_plan.check_plan(campaign_plan.DEFAULT_PLAN), np.random.default_rng(1)
    )
    frames = Counter()
    sessions = {}
    for attempt in attempts:
        frames[attempt.kind] += len(attempt.names)
        if attempt.kind == "bias":
            sessions.setdefault(attempt.label, set()).add(attempt.session)
            assert len(attempt.names) >= 10
    assert 300 <= frames.total() <= 400
    assert frames["bias"] > frames.total() / 2
    assert min(frames.values()) > 20
    assert 6 <= len(sessions) <= 8
    assert set.union(*sessions.values()) == {0, 1}
    assert sum(len(both) == 2 for both in sessions.values()) >= 2


def test_help_shows_a_plan_that_works(tmp_path):
    example = campaign_plan.PLAN_HELP.split("Example:\n")[1].split("\nThe plan that was used")[0]
    plan = campaign_plan.check_plan(json.loads(example))
    truth = simulate(tmp_path / "out", SensorSpec(shape=(3, 4)), plan)
    assert len(truth.frames) == 60 + 60 + 40
    for name in campaign_plan.check_plan(campaign_plan.DEFAULT_PLAN):
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


def test_unreadable_plans_are_refused(tmp_path):
    with pytest.raises(OptionError, match=r"none\.json: got .*No such file.*, expected a plan in JSON"):
        main([str(tmp_path / "out"), "--plan", str(tmp_path / "none.json")])
    (tmp_path / "bad.json").write_text("{'bias': 1}")
    with pytest.raises(
        OptionError, match=r"bad\.json: got Expecting property name.*, expected a plan in JSON"
    ):
        main([str(tmp_path / "out"), "--plan", str(tmp_path / "bad.json")])
