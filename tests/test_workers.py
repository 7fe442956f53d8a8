"""Parts of work in forked processes: all results, in order, whatever the number of processes; errors come through."""

import os
import signal
import time

import numpy as np
import pytest

from utils.errors import InputError, ScarceError
from utils.fits_io import workers
from utils.fits_io.workers import in_workers, shared_empty


@pytest.fixture(params=["processes", "threads"])
def way(request, monkeypatch):
    if request.param == "threads":
        monkeypatch.setattr(workers, "FORKS", False)
    elif not workers.FORKS:
        pytest.skip("no fork here")
    return request.param


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_all_parts_in_order(way, jobs, count):
    shared = shared_empty((count, 3), np.int32)
    seen = []

    def prepare():
        def work(part):
            shared[part] = part
            return part * part

        return work

    assert in_workers(prepare, range(count), jobs, seen.append) == [k * k for k in range(count)]
    assert sorted(seen) == [k * k for k in range(count)]
    np.testing.assert_array_equal(shared, np.arange(count)[:, None] * np.ones(3))


def test_more_parts_than_fit_into_a_pipe(way, monkeypatch):
    monkeypatch.setattr(workers, "MOST_TURNS", 7)
    assert in_workers(lambda: lambda part: -part, range(100), 3) == [-k for k in range(100)]


def test_large_answers(way):
    got = in_workers(lambda: lambda part: np.full(50_000, part), range(6), 3)
    assert [(int(a.min()), int(a.max()), a.size) for a in got] == [(k, k, 50_000) for k in range(6)]


def test_every_process_takes_part():
    if not workers.FORKS:
        pytest.skip("no fork here")
    pids = in_workers(lambda: lambda part: (time.sleep(0.02), os.getpid())[1], range(20), 3)
    assert len(set(pids)) == 3
    assert os.getpid() in pids


@pytest.mark.parametrize("bad", [0, 7, 19])
def test_an_error_comes_through_and_leaves_nobody(way, bad):
    def work(part):
        time.sleep(0.001)
        if part == bad:
            raise InputError(f"part {part} is bad")
        return part

    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    with pytest.raises(InputError, match=f"part {bad} is bad"):
        in_workers(lambda: work, range(20), 4)
    if before:
        assert len(os.listdir("/proc/self/fd")) == len(before)
    if way == "processes":
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_an_error_that_cannot_be_pickled_is_told():
    if not workers.FORKS:
        pytest.skip("no fork here")

    class Local(Exception):
        pass

    parent = os.getpid()

    def work(part):
        time.sleep(0.005)
        if os.getpid() != parent:
            raise Local("only here")

    with pytest.raises(RuntimeError, match="Local: only here"):
        in_workers(lambda: work, range(20), 2)


def test_a_killed_process_is_no_success():
    if not workers.FORKS:
        pytest.skip("no fork here")
    parent = os.getpid()

    def work(part):
        time.sleep(0.005)
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ScarceError, match="ended before its work was done: killed; expected more memory"):
        in_workers(lambda: work, range(20), 2)


def test_a_process_that_leaves_is_a_bug():
    if not workers.FORKS:
        pytest.skip("no fork here")
    parent = os.getpid()

    def work(part):
        time.sleep(0.005)
        if os.getpid() != parent:
            os._exit(7)

    with pytest.raises(RuntimeError, match=r"ended before its work was done \(7\)"):
        in_workers(lambda: work, range(20), 2)
