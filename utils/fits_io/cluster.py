"""Heavy work on a Dask cluster: units of it go out, results come back, a few of them under way at a time.

A run has one connection (`connect`); where there is one, the callers of `units` send their row blocks and batches of
files there instead of to forked processes.  The functions are the same, so the results are, bit by bit.  Everything
else - who works on what, what is done again when a worker dies - is Dask's.
"""

import io
import logging
import os
import pickle
import signal
import tempfile
import time
import uuid
import warnings
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from utils.errors import InputError, OptionError, ScarceError
from utils.fits_io import cluster_unit
from utils.fits_io.atomic import output_error
from utils.fits_io.held_signals import HeldSignals

RESULT_BYTES = 4 << 20
"""About what one unit gives back: it passes through the scheduler."""
FILE_BYTES = 64 << 20
"""About what one unit reads, where it reads whole files."""
LIBRARIES = ("numpy", "scipy", "astropy")
"""What must have the same version on the workers, for the same numbers."""
PACKAGES = ("utils", "bias_pipeline", "dark_pipeline", "flat_pipeline")
ANSWER_SECONDS = 15.0
"""The scheduler must answer within that."""
FIRST_WORKER, NO_WORKER = 120.0, 900.0
"""So long a run waits for the first worker, and for another when all have gone [s]."""
LOOK_SECONDS = 5.0
_QUEUED_PER_THREAD = 2
_LOGGER = logging.getLogger("calibration.cluster")
_open = []


def connected():
    """Tell whether this run has a cluster."""
    return bool(_open)


@contextmanager
def connect(address, *, memory_limit=2 << 30, jobs=1, show=None):
    """Connect to a cluster for as long as the context lasts; nothing happens where ``address`` is None.

    address : 'tcp://host:port', a scheduler's JSON file, or 'local[:N]' for N workers on this machine (default: jobs).
    memory_limit : bytes for the buffers of a worker.  show : called as show(results, total, what), passes results on.
    Raises OptionError where dask.distributed is missing, InputError where the scheduler does not answer, has no worker,
    or has one with another Python.
    """
    if address is None:
        yield
        return
    try:
        import distributed
    except ImportError as error:
        raise OptionError(
            f"--scheduler {address}: got no package dask.distributed, expected it: pip install distributed"
        ) from error
    # What concerns the user is told here, in one line; a library's own log would add pages.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        where = address
        if address == "local" or address.startswith("local:"):
            where = _start_local(distributed, address, jobs, stack)
        connection = _Connection(
            _client(distributed, address, where, stack), address, int(memory_limit), show
        )
        connection.prepare()
        _open.append(connection)
        try:
            yield
        finally:
            _open.remove(connection)


def threads():
    """Tasks that the cluster works on at a time."""
    return _open[-1].threads()


def _batches(count, each_bytes):
    """Slices of ``count`` files of ``each_bytes``: large ones, but enough of them for all workers."""
    size = max(1, min(FILE_BYTES // max(each_bytes, 1), -(-count // (2 * threads()))))
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def units(prepare, common, parts, *, what, total=None, weight=None, witness=None):
    """Work on parts at the workers; yields (number of the part, result) as they are done, in any order.

    prepare : function of a module, called there as ``prepare(*common, memory_limit)`` once for each thread: a context
    manager that gives a function of one part.  common : tuple.  parts : iterable, taken as they are sent.
    what : is counted for the user, total : how many of them (default: the parts), weight : function of a result, how
    many it is (default 1).  witness : `utils.fits_io.header_scan.FitsImage` or path of a file that the workers must see.
    Raises what the function raises; ScarceError where workers die of a unit again and again, or all are gone.
    """
    connection = _open[-1]
    results = connection.work(prepare, common, parts, cluster_unit.witness_of(witness))
    if connection.show is None:
        yield from results
        return
    parts_done = connection.show(_counted(results, weight), total if total is not None else len(parts), what)
    last = None
    for one in parts_done:
        if one is not last:
            yield one
        last = one


def in_batches(function, common, items, each_bytes, *, what, witness=None):
    """Call ``function(*common, batch)`` for batches of items; yields (index of the item, result) as they are done.

    function : of a module, gives a list with one result for each item.  each_bytes : that are read for an item.
    what, witness : as for `units`.
    """
    slices = _batches(len(items), each_bytes)
    done = units(
        _calling, (function, common), [items[part] for part in slices],
        what=what, total=len(items), weight=len, witness=witness,
    )  # fmt: skip
    for number, results in done:
        yield from enumerate(results, slices[number].start)


@contextmanager
def _calling(function, common, memory_limit):
    yield lambda batch: function(*common, batch)


@contextmanager
def shared_file(folder, content):
    """Write what units share to a temporary file that all machines see; gives its path, for units that unpickle it.

    For arrays of many MB, which are no burden for the scheduler that way.  Raises OutputError on a full disk.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".share-{os.getpid()}-") as stream:
        try:
            pickle.dump(content, stream, protocol=5)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError as error:
            raise output_error(error, folder) or error from error
        yield os.path.abspath(stream.name)


def _counted(results, weight):
    """Give each result as often as it counts: what shows the progress counts items."""
    for one in results:
        for _ in range(1 if weight is None else weight(one[1])):
            yield one


# --- the connection -------------------------------------------------------------------------------------


def _start_local(distributed, address, jobs, stack):
    """Start workers on this machine; returns the address of their scheduler."""
    from multiprocessing import resource_tracker

    text = address.removeprefix("local").removeprefix(":")
    if address != "local" and not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise OptionError(
            f"--scheduler {address}: got {text!r}, expected local:N with a whole number N above 0"
        )
    # Threads and processes inherit that Ctrl-C is not for them: this process ends them in order.  The tracker runs
    # before: its start lets the signal through again in the thread that starts the workers.
    resource_tracker.ensure_running()
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        cluster = distributed.LocalCluster(
            n_workers=int(text or jobs),
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )
        stack.callback(_undisturbed, lambda: cluster.close(timeout=10))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return cluster.scheduler_address


def _client(distributed, address, where, stack):
    # Versions are compared in `_compare_versions`.
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
    try:
        if where.endswith(".json"):
            if not os.path.isfile(where):
                raise InputError(
                    f"--scheduler {where}: no such file, expected one that a scheduler has written"
                )
            client = distributed.Client(scheduler_file=where, timeout=ANSWER_SECONDS, set_as_default=False)
        else:
            client = distributed.Client(where, timeout=ANSWER_SECONDS, set_as_default=False)
    except ValueError as error:
        raise OptionError(
            f"--scheduler {address}: got {error}, expected tcp://HOST:PORT or local[:N]"
        ) from error
    except OSError as error:
        raise InputError(
            f"--scheduler {address}: no answer within {ANSWER_SECONDS:g} s, expected a running dask scheduler"
        ) from error
    stack.callback(_undisturbed, lambda: client.close(timeout=5))
    return client


def _undisturbed(end):
    """Call what ends a connection; a second Ctrl-C waits for it."""
    with HeldSignals():
        end()


@dataclass(eq=False)
class _Connection:
    client: object
    address: str
    memory_limit: int
    show: object
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    facts: dict = field(default_factory=dict)
    _threads: int = 1
    _looked: float = 0.0
    _alone_since: float | None = None

    def prepare(self):
        """Wait for a worker, compare versions, and send the program to all that are there or will come."""
        from importlib.metadata import version

        self._wait_for_worker()
        self._compare_versions()
        stamp, archive = _program()
        self.client.register_plugin(cluster_unit.shipment(stamp, archive, PACKAGES, self.run))
        self.facts = {
            "stamp": stamp,
            "run": self.run,
            "libraries": {name: version(name) for name in LIBRARIES},
            "environment": {"SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH")},
        }
        _LOGGER.info(
            "cluster %s: %d workers, %d threads", self.address, len(self.client.nthreads()), self.threads()
        )

    def _wait_for_worker(self):
        began, told = time.monotonic(), False
        while not self.client.nthreads():
            if time.monotonic() - began > FIRST_WORKER:
                raise InputError(
                    f"--scheduler {self.address}: no worker within {FIRST_WORKER:g} s, expected one or more"
                )
            if not told and time.monotonic() - began > LOOK_SECONDS:
                told = True
                _LOGGER.warning("--scheduler %s: no worker yet, waiting", self.address)
            time.sleep(0.1)

    def _compare_versions(self):
        """Refuse a scheduler or worker of another Python or Dask, which could not read what is sent."""
        found = self.client.get_versions()
        mine = _told(found["client"])
        for name, one in (("the scheduler", found["scheduler"]), *found["workers"].items()):
            for what, value in _told(one).items():
                if value != mine[what]:
                    name = name if name == "the scheduler" else f"worker {name}"
                    raise InputError(
                        f"--scheduler {self.address}: {name} has {what} {value}, expected {mine[what]} as here"
                    )

    def threads(self):
        """Threads of all workers, 1 at least; looked at again every few seconds."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            count = sum(self.client.nthreads().values())
            if count:
                self._alone_since = None
                self._threads = count
            elif self._alone_since is None:
                self._alone_since = now
                _LOGGER.warning("cluster %s: no worker is left, waiting for one", self.address)
            elif now - self._alone_since > NO_WORKER:
                raise ScarceError(
                    f"--scheduler {self.address}: no worker for {NO_WORKER:g} s, expected one: what is finished stays"
                )
        return self._threads

    def work(self, prepare, common, parts, witness):
        """Yield (number, result) of parts; few are under way at a time, so that neither side gathers them."""
        from distributed import CancelledError, KilledWorker, as_completed
        from distributed.comm import CommClosedError

        client, unit = self.client, cluster_unit.by_value()
        name = f"{prepare.__name__}-{uuid.uuid4().hex[:12]}"
        order = (self.facts, name, prepare, self.memory_limit, witness)
        numbers, waiting = {}, enumerate(parts)
        try:
            # A task, not scattered data: Dask makes it anew when the workers that hold it die.
            blob = zlib.compress(pickle.dumps(common), 1)
            shared = client.submit(cluster_unit.kept(), blob, key=f"common-{name}", pure=False)
            done = as_completed([], loop=client.loop, with_results=True, raise_errors=False)
            while True:
                for number, part in _first(waiting, _QUEUED_PER_THREAD * self.threads() + 1 - len(numbers)):
                    ordered = pickle.dumps((*order, part))
                    future = client.submit(unit, ordered, shared, key=f"{name}-{number}", pure=False)
                    numbers[future.key] = number
                    done.add(future)
                    del future
                if not numbers:
                    return
                while not done.has_ready():
                    self.threads()
                    if client.status != "running":
                        raise CommClosedError
                    time.sleep(0.002)
                future, result = next(done)
                number, status = numbers.pop(future.key), future.status
                del future
                if status != "finished":
                    _raise(result)
                yield number, pickle.loads(result)
        except KilledWorker as error:
            raise ScarceError(
                f"--scheduler {self.address}: {error.allowed_failures + 1} workers ended one after another over the same"
                f" unit ({prepare.__name__}), the last was {error.last_worker.address}: expected more memory for each, or"
                " a smaller --memory-limit"
            ) from error
        except (CommClosedError, CancelledError) as error:
            raise ScarceError(
                f"--scheduler {self.address}: the connection was lost, what is finished stays"
            ) from error


def _told(versions):
    """Python (major.minor) and Dask of one member of the cluster, as it tells them."""
    python = str(versions["host"]["python"]).split(".")
    return {"Python": ".".join(python[:2]), "distributed": versions["packages"]["distributed"]}


def _first(parts, count):
    for _ in range(count):
        try:
            yield next(parts)
        except StopIteration:
            return


def _raise(result):
    """Raise what a unit raised at a worker: result as Dask gives it, (type, error, traceback) or the error."""
    error = result[1] if isinstance(result, tuple) else result
    if isinstance(error, ImportError):
        raise InputError(str(error)) from error
    raise error


def _program():
    """Sources of this program as a zip file, and the checksum that names it."""
    import zipfile

    root = Path(__file__).resolve().parents[2]
    target, whole = io.BytesIO(), sha256()
    with zipfile.ZipFile(target, "w") as archive:
        for package in PACKAGES:
            for path in sorted((root / package).rglob("*.py")):
                name, content = path.relative_to(root).as_posix(), path.read_bytes()
                whole.update(name.encode() + b"\0" + content)
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return whole.hexdigest()[:16], target.getvalue()
