"""What waits in the output folder: results for --resume, and files that a killed run leaves."""

import logging
import os

import numpy as np

from utils.application.run_journal import remove_temporaries
from utils.fits_io import kept_results


def kept(store, n):
    """Ask twice for a result of n numbers; returns how often it was made."""
    calls = []

    def make():
        calls.append(1)
        return np.arange(n)

    for _ in range(2):
        found = store.result(["facts", n], make, lambda array: {"a": array}, lambda arrays: arrays["a"])
        assert np.array_equal(found, np.arange(n))
        store.prepare()
    return len(calls)


def store_in(folder, monkeypatch):
    monkeypatch.setattr(kept_results, "WORTH", 0.0)
    monkeypatch.setattr(kept_results, "LEAST", 0.0)
    (folder / kept_results.FOLDER).mkdir()
    return kept_results.Store(folder, take=True, begin=lambda: None)


def test_a_result_is_kept(tmp_path, monkeypatch):
    assert kept(store_in(tmp_path, monkeypatch), 1000) == 1


def test_what_is_kept_leaves_the_products_their_room(tmp_path, monkeypatch, caplog):
    store = store_in(tmp_path, monkeypatch)
    store.reserve = 1 << 60
    with caplog.at_level(logging.WARNING):
        assert kept(store, 1000) == 2
    assert "expected room for all of it: nothing more is kept for --resume" in caplog.text
    store.reserve = 0
    assert kept(store, 10) == 2  # it is said once, and stays so


def test_what_a_killed_run_left_for_its_own_later_steps_is_removed(tmp_path):
    own = f".spool-{os.getpid()}-ef"
    for name in (".spool-1-ab", ".share-1-cd", ".run.json.1.tmp", "flat.fits", own):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".flats-ef56").mkdir()
    (tmp_path / ".flats-ef56" / "one.fits").write_bytes(b"x")
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [own, "flat.fits"]
