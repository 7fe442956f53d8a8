"""The frame of every command: errors become one line and an exit status, whatever happens.

Status: 0 all made, 1 something named is missing, 2 refused, 3 a bug, 130 Ctrl-C, 143 SIGTERM.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys
import threading
import time
import traceback

from utils.application.log import LOGGER, close_logging, crash_log, on_console
from utils.errors import CalibrationError, ScarceError
from utils.fits_io.atomic import output_error
from utils.version import __version__

REFUSED = 2
BUG = 3
INTERRUPTED = 130
TERMINATED = 143
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_AGAIN_SECONDS = 0.01
_LARGE_BLOCK = 4 << 20
_KEPT_FREE = 64 << 20
_ADVICE = "expected more of it, a smaller --memory-limit or fewer --jobs"
_SCARCE = {
    errno.ENOMEM: f"out of memory, {_ADVICE}",
    errno.EAGAIN: f"no more processes or threads allowed, {_ADVICE}",
    errno.EMFILE: "too many open files for one process, expected a limit of 64 or more (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
    errno.EIO: "input/output error, is the disk all right?",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the run ends as with Ctrl-C."""


def run_command(function, argv=None):
    """Call ``function(argv)``, which returns an exit status or None (0), and return the command's status.

    argv : list of arguments without the program's name; default sys.argv[1:].
    A CalibrationError is one line on stderr and its status; a full disk, or too little memory, 1, a read-only place 2;
    Ctrl-C 130, SIGTERM 143; a closed pipe ends quietly with 1. Anything else is a bug: the traceback goes to the log
    file, else to ``crash.log`` in the output folder, else to stderr, one line asks for a report, and the status is 3.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    _return_freed_maps()
    _say_anything()
    try:
        with _terminable(), _interrupts_kept():
            status = int(function(argv) or 0)
            sys.stdout.flush()
    except CalibrationError as error:
        _say(str(error))
        status = error.status
    except SystemExit as leave:  # argparse: --help, --version, a wrong option
        status = _exit_status(leave.code)
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        _say(f"{'terminated' if terminated else 'interrupted'}, nothing half-written is left")
        status = TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        status = 1  # the reader has gone, as in `... | head`: nobody to tell
    except OSError as error:
        known = output_error(error, error.filename)
        if error.errno in _SCARCE:
            _say(": ".join(filter(None, [str(error.filename or ""), _SCARCE[error.errno]])))
            status = ScarceError.status
        elif known is None:
            status = _bug(argv, error)
        else:
            _say(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
            status = known.status
    except Exception as error:  # noqa: BLE001  the last net: it hides nothing, it reports
        if _for_want_of_memory(error):
            error.__traceback__ = error.__context__ = None  # which hold what fills the memory
            _say(_SCARCE[errno.ENOMEM])
            status = ScarceError.status
        else:
            status = _bug(argv, error)
    finally:
        close_logging()
        _drop_what_cannot_be_printed()
    return status


def _say_anything():
    """Have letters that a terminal or its locale does not know printed as escapes: no name of a file ends a run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _for_want_of_memory(error):
    """Tell whether an exception means that there is no memory left, for data, a thread or a library."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, (ImportError, RuntimeError))
        and any(
            word in text for word in ("failed to map segment", "cannot allocate", "can't start new thread")
        )
    )


@contextlib.contextmanager
def _terminable():
    """Raise `Terminated` at SIGTERM, where it would end the process at once."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number, frame):
    raise Terminated


@contextlib.contextmanager
def _interrupts_kept():
    """Raise Ctrl-C or SIGTERM again that came while a destructor ran, where Python would only print and forget it."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return
    before, armed = sys.unraisablehook, False

    def again(lost):
        nonlocal armed
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            before(lost)
            return
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        armed = True

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        if armed:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _return_freed_maps():
    """Have glibc give the memory of freed maps back at once; other allocators are left as they are.

    It would keep blocks of up to 32 MB for later and let the process grow by what lies between them.  Smaller blocks,
    the temporaries of a row block, stay with the process: fetched anew from the system each time, every page of them
    would be a page fault.  What one thread has freed serves the others.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)
        library.mallopt(_M_ARENA_MAX, 1)


def _say(text):
    """One line on stderr, and in the log file where there is one."""
    text = " ".join(text.splitlines())
    if on_console():
        LOGGER.error(text)
    else:
        print(f"error: {text}", file=sys.stderr)


def _exit_status(code):
    if code is None or isinstance(code, int):
        return code or 0
    _say(str(code))
    return REFUSED


def _bug(argv, error):
    """Keep the traceback and ask for a report."""
    trace = "".join(traceback.format_exception(error))
    where = crash_log()
    if where is not None:
        try:
            with open(where, "a", encoding="utf-8") as stream:
                moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                stream.write(f"{moment} version {__version__}, arguments {argv}\n{trace}\n")
        except OSError:
            where = None
    if where is None:
        print(trace, end="", file=sys.stderr)
    place = f"the traceback in {where}" if where else "the traceback above"
    _say(f"this is a bug ({type(error).__name__}: {error}): please report it with {place}")
    return BUG


def _drop_what_cannot_be_printed():
    """Let the interpreter end quietly when stdout is a closed pipe or a full disk."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
