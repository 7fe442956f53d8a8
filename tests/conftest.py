"""Fixtures of all tests."""

import logging
import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    """No test touches the cache of the user who runs it."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "campaign"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path):
    """An output folder that a run has to make."""
    return tmp_path / "out"


@pytest.fixture
def logging_as_before():
    """What a run logs ends with the test."""
    from utils.application.log import LOGGER, close_logging

    yield
    close_logging()
    LOGGER.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def bias_campaign(tmp_path_factory):
    """Six frames at each of five temperatures; see the constants of tests/bias_frames.py."""
    from tests.bias_frames import SHAPE, TEMPERATURES, campaign

    folder = tmp_path_factory.mktemp("campaign") / "Bias"
    campaign(folder, shape=SHAPE, temperatures=TEMPERATURES, n=6, seed=11)
    return folder


@pytest.fixture(scope="session")
def bias_run(bias_campaign, tmp_path_factory):
    """Output of a full run over the campaign, with everything but pictures; not to be changed."""
    from tests.bias_frames import run

    out = tmp_path_factory.mktemp("full") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        words = ("--basepath", bias_campaign, "--output_dir", out, "--save-eval-fits", "--gain", "2.0")
        assert run(*words) == 0
    return out


@pytest.fixture
def bias_copy(bias_run, tmp_path):
    """A copy of the full run's folder in another place; the frames are not reachable from it."""
    return Path(shutil.copytree(bias_run, tmp_path / "copy" / "out"))
