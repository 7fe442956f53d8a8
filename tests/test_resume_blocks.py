"""What the blocks of --resume say that they are made from, against what their steps read."""

from dataclasses import fields

import bias_frames
import dark_frames
import flat_frames
import pytest

from bias_pipeline.config import BiasConfig
from dark_pipeline.config import DarkConfig
from flat_pipeline.config import FlatConfig
from utils.application.options import SharedOptions
from utils.application.resume import Keeper

WITHOUT_EFFECT = {"shared", "basepath", "output_dir", "jobs", "memory_limit", "dry_run"}
"""Options on which no product depends: frames are told one by one, the rest is where they go and how they are made."""
ALLOWED = {("synthesize", "plots"), ("levels", "save_eval_fits")}
"""Read without effect on what is made: what is imported ahead, names that are checked ahead."""


@pytest.fixture
def reads(monkeypatch):
    """[(Block, steps, names of options that they read)] of the blocks run while it lives."""
    found, begin, end = [], Keeper.keep, Keeper.end

    def keep(self, block, steps, config, context):
        kept = begin(self, block, steps, config, context)
        found.append((block, list(steps), set()))
        return kept

    def ended(self):
        end(self)
        found.append((None, [], set()))

    monkeypatch.setattr(Keeper, "keep", keep)
    monkeypatch.setattr(Keeper, "end", ended)
    for kind in (SharedOptions, BiasConfig, DarkConfig, FlatConfig):
        names = {field.name for field in fields(kind)}

        def watched(self, name, names=names):
            if name in names and found:
                found[-1][2].add(name)
            return object.__getattribute__(self, name)

        monkeypatch.setattr(kind, "__getattribute__", watched)
    return found


def check(found):
    blocks = [one for one in found if one[0] is not None]
    assert blocks
    for block, steps, names in blocks:
        untold = names - WITHOUT_EFFECT - set(block.options)
        untold -= {name for step, name in ALLOWED if step in steps}
        assert not untold, f"{steps} read {sorted(untold)}, which is not among the options of their block"


def test_bias(reads, bias_campaign, tmp_path):
    words = ("--basepath", bias_campaign, "--output-dir", tmp_path / "out", "--save-eval-fits")
    assert bias_frames.run(*words) == 0
    assert [steps for _, steps, _ in reads if steps] == [
        *(["make_masters"], ["fit_model"], ["synthesize"], ["evaluate"], ["report"])
    ]
    check(reads)


@pytest.mark.parametrize("options", [(), ("--save-corrected", "--unit", "adu", "--add-bias")])
def test_dark(reads, tmp_path, options):
    night = dark_frames.campaign(
        *(tmp_path / "night", dark_frames.sensor((24, 32))), temperatures=(-5, 5, 15), exposures=(5, 20), n=3,
        bias_temperatures=(-5, 15), bias_n=3,
    )  # fmt: skip
    single = ("--temp_single", 3, "--exptime_single", 7)
    assert dark_frames.run("--basepath", night, "--output-dir", tmp_path / "out", *single, *options) == 0
    check(reads)


@pytest.mark.parametrize("flat_type", ["lab", "sky"])
def test_flat(reads, tmp_path, flat_type):
    night = flat_frames.campaign(tmp_path / "night", flat_frames.sensor((32, 40)), n=4, bias_n=4, dark_n=4)
    words = ("--basepath", night, "--output-dir", tmp_path / "out", "--save-eval-fits")
    assert flat_frames.run(*words, "--flat-type", flat_type) == 0
    check(reads)
