"""Fixtures of all tests."""

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
