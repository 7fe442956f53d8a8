"""Arrays that wait on disk: what is put is what is got, and a full disk is said in one line."""

import errno
import os

import numpy as np
import pytest

from utils.errors import OutputError
from utils.fits_io.spool import ArraySpool


def test_round_trip_in_any_order(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {
        (0, "value"): rng.normal(0, 1, (7, 13)).astype(np.float32),
        (0, "flags"): rng.integers(0, 7, (7, 13)).astype(np.uint8),
        "wide": rng.normal(0, 1, (5, 4, 3)),
        "view": np.arange(40, dtype=np.int16).reshape(5, 8)[::2, ::-3],
        "swapped": np.arange(6, dtype=">i4"),
    }
    with ArraySpool(tmp_path / "new" / "folder") as spool:
        for key, array in arrays.items():
            spool.put(key, array)
        for key in reversed(arrays):
            got = spool.get(key)
            np.testing.assert_array_equal(got, arrays[key])
            assert got.dtype == arrays[key].dtype
        # A copy: changing it changes nothing on disk.
        spool.get("wide")[:] = 0
        np.testing.assert_array_equal(spool.get("wide"), arrays["wide"])
        spool.put("wide", arrays["wide"] + 1)
        np.testing.assert_array_equal(spool.get("wide"), arrays["wide"] + 1)
        with pytest.raises(KeyError, match="nothing"):
            spool.get("nothing")


def test_nothing_is_left_behind(tmp_path):
    with ArraySpool(tmp_path) as spool:
        spool.put(1, np.zeros(1000))
        assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == []
    assert os.listdir(tmp_path) == []


class FullDisk:
    """A file whose disk has no room."""

    def __init__(self, file, code):
        self._file, self._code = file, code

    def write(self, data):
        raise OSError(self._code, os.strerror(self._code))

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_full_disk(tmp_path, monkeypatch):
    with ArraySpool(tmp_path) as spool:
        spool.put("before", np.arange(5))
        monkeypatch.setattr(spool, "_file", FullDisk(spool._file, errno.ENOSPC))
        with pytest.raises(OutputError, match="disk full while writing") as caught:
            spool.put("after", np.zeros(10))
        assert caught.value.status == 1
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(spool.get("before"), np.arange(5))
        with pytest.raises(KeyError, match="after"):
            spool.get("after")
    assert os.listdir(tmp_path) == []


def test_other_errors_are_not_hidden(tmp_path, monkeypatch):
    with ArraySpool(tmp_path) as spool:
        monkeypatch.setattr(spool, "_file", FullDisk(spool._file, errno.EIO))
        with pytest.raises(OSError, match="Input/output error"):
            spool.put("x", np.zeros(3))


def test_what_fits_stays_in_memory(tmp_path):
    rng = np.random.default_rng(2)
    arrays = {n: rng.normal(0, 1, (10, 25)) for n in range(4)}
    with ArraySpool(tmp_path, memory=2 * arrays[0].nbytes) as memory, ArraySpool(tmp_path) as disk:
        for key, array in arrays.items():
            memory.put(key, array)
            disk.put(key, array)
        assert os.fstat(memory._file.fileno()).st_size == 2 * arrays[0].nbytes
        memory.put(0, arrays[3])  # in the room of the old one
        assert os.fstat(memory._file.fileno()).st_size == 2 * arrays[0].nbytes
        disk.put(0, arrays[3])
        for key in arrays:
            np.testing.assert_array_equal(memory.get(key), disk.get(key))
            part = memory.part(key, slice(31, 77))
            np.testing.assert_array_equal(part, disk.part(key, slice(31, 77)))
            part[:] = 0
            indices = rng.integers(0, arrays[key].size, 30)
            picked = memory.pick(key, indices)
            np.testing.assert_array_equal(picked, disk.pick(key, indices))
            np.testing.assert_array_equal(picked, memory.get(key).reshape(-1)[indices])
            memory.get(key)[:] = 0
            np.testing.assert_array_equal(memory.get(key), arrays[3 if key == 0 else key])
