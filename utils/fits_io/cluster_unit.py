"""What runs at the workers of a cluster: the program is unpacked there, units of work find what they share.

The scheduler and a new worker do not have this program: `shipment`, `by_value` and `kept` give objects of classes and
functions that are sent as such, not by the name of their module; they use builtins and the standard library only.
"""

import os
import pickle
import threading
import zlib
from contextlib import ExitStack

from utils.errors import InputError

_prepared = threading.local()


def shipment(stamp, archive, packages, run):
    """Plugin that gives a worker the program: those that are there, that come later, or that are started again.

    stamp : names the program's version.  archive : bytes of a zip file of ``packages``.  run : names the run.
    """
    from distributed import WorkerPlugin

    class CalibrationProgram(WorkerPlugin):
        name = f"calibration-{stamp}-{run}"

        def setup(self, worker):
            """Put the program first among what can be imported; another version of it is forgotten."""
            import importlib
            import os
            import sys

            path = os.path.join(worker.local_directory, f"calibration-{stamp}.zip")
            if not os.path.exists(path):
                with open(f"{path}.part", "wb") as stream:
                    stream.write(archive)
                os.replace(f"{path}.part", path)
            sys.path[:] = [path] + [place for place in sys.path if place != path]
            for name, module in list(sys.modules.items()):
                if name.split(".")[0] in packages and path not in str(getattr(module, "__file__", None)):
                    del sys.modules[name]
            importlib.invalidate_caches()

    return CalibrationProgram()


def by_value():
    """Function of a task: (order, common) as bytes -> result as bytes."""

    def calibration_unit(order, common):
        import pickle

        try:
            from utils.fits_io import cluster_unit

            run = cluster_unit.run
        except ImportError as error:
            from distributed import get_worker

            raise ImportError(
                f"worker {get_worker().address}: the program cannot be loaded there ({error}), expected the Python and the"
                " packages of this machine"
            ) from None
        return pickle.dumps(run(order, common), protocol=5)

    return calibration_unit


def kept():
    """Function of a task that gives its argument: what all units of one call share."""

    def calibration_common(blob):
        return blob

    return calibration_common


def witness_of(file):
    """(path, size) of a file that a worker must see as this machine does; file : FitsImage, path or None."""
    if file is None:
        return None
    path = os.path.abspath(getattr(file, "path", file))
    try:
        return path, os.stat(path).st_size
    except OSError:
        return None  # Gone here too: who reads it says so.


def run(order, blob):
    """Work on one part at a worker.

    order : pickled (facts, name, prepare, memory limit, witness, part), see `utils.fits_io.cluster`.  blob : what all parts
    of this name share, compressed.
    """
    from distributed import get_worker

    facts, name, prepare, memory_limit, witness, part = pickle.loads(order)
    _set_environment(facts["environment"])
    if getattr(_prepared, "name", None) != name:
        _forget()
        _check(facts, witness)
        stack = ExitStack()
        common = pickle.loads(zlib.decompress(blob))
        _prepared.work = stack.enter_context(prepare(*common, memory_limit // get_worker().state.nthreads))
        _prepared.name, _prepared.stack = name, stack
    return _prepared.work(part)


def _forget():
    """Close what this thread has open for other work."""
    stack, _prepared.name = getattr(_prepared, "stack", None), None
    _prepared.work = _prepared.stack = None
    if stack is not None:
        stack.close()


def _check(facts, witness):
    """InputError where this worker has another program, other libraries, or other files."""
    from importlib.metadata import version

    if f"calibration-{facts['stamp']}.zip" not in __file__:
        raise InputError(
            f"{_here()}: got another version of this program ({__file__}), expected {facts['stamp']}: does a run of another"
            " version use this cluster?"
        )
    for name, expected in facts["libraries"].items():
        got = version(name)
        if got != expected:
            raise InputError(f"{_here()}: got {name} {got}, expected {expected} as where the run was started")
    if witness is not None:
        path, size = witness
        try:
            got = os.stat(path).st_size
        except OSError as error:
            raise InputError(
                f"{path}: {_here()} does not see it ({error.strerror}), expected a file system that all machines share"
            ) from error
        if got != size:
            raise InputError(
                f"{path}: {_here()} sees {got} bytes, expected {size}: a file system that all machines share"
            )


def _set_environment(values):
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _here():
    import socket

    from distributed import get_worker

    return f"worker {get_worker().address} on {socket.gethostname()}"
