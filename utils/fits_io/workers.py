"""Work in parts, shared between processes that are forked for it, or threads.

Threads of one interpreter pass its lock on at each of many short array operations, which then take longer than with
one thread.  Forked processes see the arrays of their parent as they are, write their results into memory shared with
it (`shared_empty`), and send back small values only.  Where there is no safe fork (anything but Linux) threads do it.
Long operations on whole planes go to threads everywhere (`in_threads`, `over_pixels`): there the page faults of every
process cost more than the lock.
"""

import errno
import gc
import logging
import math
import mmap
import os
import pickle
import select
import signal
import struct
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from utils.errors import ScarceError
from utils.fits_io.held_signals import ENDING, HeldSignals
from utils.kernels.pieces import PIECE

FORKS = sys.platform.startswith("linux") and hasattr(os, "fork")
MOST_TURNS = 8192
"""Numbers of four bytes that surely fit into a pipe."""
SHARE = 1 << 18
"""Pixels that a worker takes at a time in `over_pixels`."""
_SIZE = struct.Struct("<q")
_NO_ROOM = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""Errors of a system that lets no more processes or descriptors be."""
_LOGGER = logging.getLogger("calibration.workers")
_aside = []


def shared_empty(shape, dtype):
    """Return an array of zeros that forked processes write for their parent."""
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    if not FORKS or count == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype, count).reshape(shape)


def in_workers(prepare, parts, jobs, progress=None):
    """Call a function for every part, in up to ``jobs`` processes, this one among them.

    prepare : called once in each process, returns the function.  parts : sequence.  progress : called here with the
    result of each part as it becomes known.
    Returns the results in the order of the parts; those of other processes are pickled.  An exception ends all of it.
    """
    return _in_parts(_in_processes if FORKS else _in_threads, prepare, parts, jobs, progress)


def in_threads(prepare, parts, jobs, progress=None):
    """As `in_workers`, in threads: for long array operations whose results fill whole planes, of any memory.

    Every forked process meets each page of a shared plane with a page fault of its own, which costs more than threads
    of one interpreter lose by waiting for its lock.
    """
    return _in_parts(_in_threads, prepare, parts, jobs, progress)


def _in_parts(way, prepare, parts, jobs, progress):
    parts = list(parts)
    jobs = min(int(jobs), len(parts))
    results = [None] * len(parts)

    def done(number, result):
        results[number] = result
        if progress is not None:
            progress(result)

    if jobs > 1:
        way(prepare, parts, jobs, done)
    else:
        work = prepare()
        for number, part in enumerate(parts):
            done(number, work(part))
    return results


def aside(function):
    """Call a function in a thread beside this one; no process is forked before it has ended.

    A forked process would inherit the locks that the thread holds, and nobody to release them.
    """
    thread = threading.Thread(target=function)
    _aside.append(thread)
    thread.start()


def over_pixels(function, pixels, jobs=1):
    """Call a function with slices of flat pixels, each small enough for the cache, in up to ``jobs`` threads."""

    def work(first):
        for start in range(first, min(first + SHARE, pixels), PIECE):
            function(slice(start, min(start + PIECE, pixels)))

    shares = range(0, pixels, SHARE)
    in_threads(lambda: work, shares, jobs if len(shares) > 1 else 1)


def _in_threads(prepare, parts, jobs, done):
    local, lock = threading.local(), threading.Lock()

    def one(number):
        if not hasattr(local, "work"):
            local.work = prepare()
        result = local.work(parts[number])
        with lock:
            done(number, result)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for _ in pool.map(one, range(len(parts))):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _in_processes(prepare, parts, jobs, done):
    """All numbers of parts wait in a pipe; who has time takes the next one."""
    while _aside:
        _aside[-1].join()
        _aside.pop()
    each = -(-len(parts) // MOST_TURNS)
    children = {}
    complete = False
    with HeldSignals() as signals:
        turns, source = os.pipe()
        try:
            os.write(source, b"".join(struct.pack("<i", first) for first in range(0, len(parts), each)))
            os.close(source)
            _start_all(jobs - 1, prepare, parts, turns, each, children)
            with signals.open():
                work = prepare()
            for number in _taken(turns, each, len(parts)):
                with signals.open():
                    result = work(parts[number])
                done(number, result)
                _collect(children, done, 0, signals)
            while _collect(children, done, None, signals):
                pass
            complete = True
        finally:
            os.close(turns)
            for answers, (pid, _) in children.items():
                os.close(answers)
                if not complete:
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _start_all(count, prepare, parts, turns, each, children):
    """Fork processes into ``children``: descriptor of the answers -> (id, bytes that came); fewer where it must be."""
    for started in range(count):
        try:
            pid, answers = _start(prepare, parts, turns, each, list(children))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _LOGGER.warning("%d of %d processes at work: %s", started + 1, count + 1, error.strerror)
            return
        children[answers] = (pid, bytearray())


def _start(prepare, parts, turns, each, others):
    """Fork one process; returns its id and the descriptor of its answers."""
    answers, target = os.pipe()
    try:
        with warnings.catch_warnings():
            # Newer Pythons warn of other threads (those of BLAS too); the child uses arrays and files only.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError:
        os.close(answers)
        os.close(target)
        raise
    if pid:
        os.close(target)
        return pid, answers
    status = 1
    gc.disable()  # What the parent would release by messages to a cluster is not the child's to release.
    try:
        for number in ENDING:  # Sent to the whole group: the parent decides, and ends its children.
            signal.signal(number, signal.SIG_IGN)
        for descriptor in (answers, *others):
            os.close(descriptor)
        try:
            work = prepare()
            for number in _taken(turns, each, len(parts)):
                _send(target, (number, work(parts[number])))
            _send(target, None)
            status = 0
        except Exception as error:  # noqa: BLE001  raised again in the parent
            _send(target, (-1, error))
    finally:
        # Nothing that belongs to the parent (buffers, temporary files) may be finished here.
        os._exit(status)


def _taken(turns, each, count):
    """Yield the numbers of the parts that this process takes."""
    while token := os.read(turns, 4):
        first = struct.unpack("<i", token)[0]
        yield from range(first, min(first + each, count))


def _send(target, answer):
    try:
        data = pickle.dumps(answer)
    except Exception:  # noqa: BLE001  pickling raises anything
        data = pickle.dumps((-1, RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))
    data = _SIZE.pack(len(data)) + data
    while data:
        data = data[os.write(target, data) :]


def _collect(children, done, timeout, signals):
    """Take the answers that are there; False when all processes have said that they are through."""
    if not children:
        return False
    # Not select(): it knows no descriptors beyond 1023, and there may be many frames open.
    waiting = select.poll()
    for answers in children:
        waiting.register(answers, select.POLLIN)
    with signals.open():
        ready = waiting.poll(timeout)
    for answers, _ in ready:
        pid, pending = children[answers]
        got = os.read(answers, 1 << 16)
        pending += got
        through = False
        while len(pending) >= 8 and len(pending) >= 8 + (size := _SIZE.unpack_from(pending)[0]):
            answer = pickle.loads(bytes(pending[8 : 8 + size]))
            del pending[: 8 + size]
            if answer is None:
                through = True
            elif answer[0] < 0:
                raise answer[1]
            else:
                done(*answer)
        if through or not got:
            del children[answers]
            os.close(answers)
            ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if not through:
                raise _lost(pid, ended)
    return bool(children)


def _lost(pid, ended):
    """Error for a process that ended before its work was done; ended : exit code, or less a signal's number."""
    text = f"worker process {pid} ended before its work was done"
    if ended == -signal.SIGKILL:
        # Nothing in here sends it to a process at work: the system does where memory runs out, or a person.
        return ScarceError(f"{text}: killed; expected more memory, a smaller --memory-limit or fewer --jobs")
    return RuntimeError(f"{text} ({signal.Signals(-ended).name if ended < 0 else ended})")
