"""Parts of work in forked processes: all results, in order, whatever the number of processes; errors come through."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from utils.errors import InputError, ScarceError
from utils.fits_io import workers
from utils.fits_io.workers import in_threads, in_workers, over_pixels, shared_empty


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


def test_threads_fill_planes_of_any_memory():
    plane, seen, makers = np.zeros(40), [], []

    def prepare():
        makers.append(threading.get_ident())
        return lambda part: plane.__setitem__(part, part) or (os.getpid(), part)

    assert in_threads(prepare, range(40), 3, seen.append) == [(os.getpid(), part) for part in range(40)]
    assert sorted(part for _, part in seen) == list(range(40))
    assert len(set(makers)) == len(makers) <= 3
    np.testing.assert_array_equal(plane, np.arange(40))
    pixels = np.zeros(3 * workers.SHARE + 5)
    over_pixels(lambda part: np.add(pixels[part], 1, out=pixels[part]), pixels.size, 2)
    assert (pixels == 1).all()


def test_an_error_in_a_thread_ends_the_others():
    done = []

    def work(part):
        if part == 3:
            raise InputError("frame 3: got nothing")
        time.sleep(0.002)
        done.append(part)

    with pytest.raises(InputError, match="frame 3: got nothing"):
        in_threads(lambda: work, range(1000), 2)
    assert len(done) < 500


def test_more_parts_than_fit_into_a_pipe(way, monkeypatch):
    monkeypatch.setattr(workers, "MOST_TURNS", 7)
    assert in_workers(lambda: lambda part: -part, range(100), 3) == [-k for k in range(100)]


def test_large_answers(way):
    got = in_workers(lambda: lambda part: np.full(50_000, part), range(6), 3)
    assert [(int(a.min()), int(a.max()), a.size) for a in got] == [(k, k, 50_000) for k in range(6)]


def test_descriptors_beyond_those_of_select():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("no more than 1200 descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    opened = []
    try:
        while not opened or opened[-1] < 1100:
            opened.append(os.open(os.devnull, os.O_RDONLY))
        assert in_workers(lambda: lambda part: -part, range(30), 3) == [-k for k in range(30)]
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (signal.SIGKILL, ScarceError, "ended before its work was done: killed; expected more memory"),
        (signal.SIGSEGV, RuntimeError, r"ended before its work was done \(SIGSEGV\)"),
    ],
)
def test_a_killed_process_is_no_success(number, error, words):
    if not workers.FORKS:
        pytest.skip("no fork here")
    parent = os.getpid()

    def work(part):
        time.sleep(0.005)
        if os.getpid() != parent:
            signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
            os.kill(os.getpid(), number)

    with pytest.raises(error, match=words):
        in_workers(lambda: work, range(20), 2)
    assert_nobody_left()


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
    assert_nobody_left()


def assert_nobody_left():
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("possible", [0, 1])
def test_fewer_processes_where_the_system_lets_no_more_be(monkeypatch, caplog, possible):
    if not workers.FORKS:
        pytest.skip("no fork here")
    fork, forked = os.fork, []

    def limited():
        if len(forked) == possible:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        forked.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", limited)
    before = len(os.listdir("/proc/self/fd"))
    assert in_workers(lambda: lambda part: -part, range(50), 3) == [-k for k in range(50)]
    assert f"{possible + 1} of 3 processes at work: Resource temporarily unavailable" in caplog.text
    assert len(os.listdir("/proc/self/fd")) == before
    assert_nobody_left()


@pytest.mark.parametrize("where", ["fork", "close", "waitpid", "kill", "read", "write"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_ctrl_c_in_any_call_of_the_system_ends_the_work_and_leaves_nobody(monkeypatch, where, which):
    """The signal arrives in this process as soon as the call returns; a second one while it cleans up."""
    if not workers.FORKS:
        pytest.skip("no fork here")
    original, parent, calls = getattr(os, where), os.getpid(), []

    def disturbed(*args):
        result = original(*args)
        if os.getpid() == parent:
            calls.append(1)
            if len(calls) >= which + 1:
                signal.raise_signal(signal.SIGINT)
        return result

    def work(part):
        time.sleep(0.002)
        if (where, os.getpid()) == ("kill", parent) and part >= 3:
            signal.raise_signal(signal.SIGINT)  # Only what is interrupted kills.

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, where, disturbed)

    def several_times():  # Some calls come once each time.
        for _ in range(20):
            in_workers(lambda: work, range(30), 3)

    with pytest.raises(KeyboardInterrupt):
        several_times()
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(os.listdir("/proc/self/fd")) == before
    assert_nobody_left()


def test_processes_are_forked_when_nothing_is_done_aside():
    """The import of matplotlib holds locks that a forked process would wait for."""
    if not workers.FORKS:
        pytest.skip("no fork here")
    running = threading.Event()

    def slow():
        running.set()
        time.sleep(0.2)
        running.clear()

    workers.aside(slow)
    assert running.wait(5)
    assert in_workers(lambda: lambda part: running.is_set(), range(6), 3) == [False] * 6


PROGRAM = """
import logging, sys
import numpy as np
from utils.application.command import run_command
from utils.application.figure_style import import_ahead
from utils.application.log import LOGGER, setup_logging
from utils.fits_io.workers import in_workers

def work(part):
    return float(np.arange(2000.0).sum())

def main(argv):
    setup_logging(-1)
    print("ready", flush=True)
    import_ahead()
    for _ in range(100_000):
        in_workers(lambda: work, range(6), 3)
        LOGGER.debug("a step")

sys.exit(run_command(main))
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_run_ends_at_ctrl_c_whenever_it_comes(seed):
    """To the process alone as `kill -INT` does, or to its whole group as a terminal does; SIGTERM alike."""
    if not workers.FORKS:
        pytest.skip("no fork here")
    random = np.random.default_rng(seed)
    number, status, word = (
        (signal.SIGTERM, 143, "terminated") if seed % 3 == 2 else (signal.SIGINT, 130, "interrupted")
    )
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0, 0.5))
        (os.killpg if seed % 2 else os.kill)(process.pid, number)
        try:
            _, said = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert (process.returncode, said) == (status, f"error: {word}, nothing half-written is left\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
