"""Log and progress of the commands: one line a step on stdout, warnings and progress on stderr.

Modules log to :data:`LOGGER` and configure nothing; commands call :func:`setup_logging` once they know their
options.
"""

import logging
import sys
import time

from utils.fits_io.atomic import make_folder, output_error

LOGGER = logging.getLogger("calibration")
_SECONDS_BETWEEN_LINES = 10.0
_crash_folder = []


class _Console(logging.Handler):
    """Information to stdout, warnings and worse to stderr with their level in front."""

    def emit(self, record):
        # The streams are looked up at each line: whoever replaced sys.stdout meant it.
        text = self.format(record)
        if record.levelno < logging.WARNING:
            print(text, file=sys.stdout, flush=True)
        else:
            print(f"{record.levelname.lower()}: {text}", file=sys.stderr, flush=True)


def setup_logging(verbosity=0, log_file=None):
    """Set the log of this process up: again for each command, earlier handlers are closed.

    verbosity : -1 warnings only, 0 one line per step, 1 everything.
    log_file : file that gets everything but debug lines (these too with verbosity 1), with times; appended.
    Returns the logger. Raises OutputError or RefusedOutputError if the file cannot be opened.
    """
    close_logging()
    console = _Console({-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG))
    LOGGER.addHandler(console)
    LOGGER.setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
    if log_file is not None:
        try:
            make_folder(log_file.parent)
            handler = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            known = output_error(error, log_file)
            if known is None:
                raise
            raise known from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOGGER.addHandler(handler)
    return LOGGER


def close_logging():
    """Remove and close the handlers of this process, forget the folder for crash logs."""
    for handler in list(LOGGER.handlers):
        if isinstance(handler, (_Console, logging.FileHandler)):
            LOGGER.removeHandler(handler)
            handler.close()
    _crash_folder.clear()


def on_console():
    """Tell whether messages reach the console through the log."""
    return any(isinstance(handler, _Console) for handler in LOGGER.handlers)


def set_crash_folder(folder):
    """Name the folder for crash.log when there is no log file (the output folder of the run)."""
    _crash_folder[:] = [folder]


def crash_log():
    """Return the file for a traceback: the log file, else crash.log in the output folder, else None."""
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.FileHandler):
            return handler.baseFilename
    for folder in _crash_folder:
        if folder.is_dir():
            return folder / "crash.log"
    return None


def progress(iterable, total, what):
    """Pass ``iterable`` on and show how far it is: a tqdm bar on a terminal, else a plain line every 10 s.

    total : number of items.   what : what they are ("frames").   Silent under --quiet.
    """
    console = next((handler for handler in LOGGER.handlers if isinstance(handler, _Console)), None)
    if console is None or console.level > logging.INFO:
        yield from iterable
    elif sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # No thread of its own: processes are forked meanwhile.
        yield from tqdm(iterable, total=total, desc=what, file=sys.stderr, leave=False)
    else:
        last = time.monotonic()
        for done, item in enumerate(iterable):
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                print(
                    f"{what}: {done} of {total} ({100 * done // max(total, 1)} %)",
                    file=sys.stderr,
                    flush=True,
                )
            yield item
