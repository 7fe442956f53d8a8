"""The journal of a run under way: which names it took in the output folder, and that it is alive.

The hidden file gets one line for each name before a file is written there, and goes when run.json lists them.
After a killed run it tells the next one whose files stand there. A lock on it, which dies with its process,
keeps two runs out of one folder.
"""

import errno
import glob
import json
import os
from pathlib import Path

from utils.application.product_list import UNFINISHED, check_entry
from utils.fits_io.atomic import RefusedOutputError, make_folder, output_error

try:
    import fcntl
except ImportError:  # Windows has no such lock: two runs at once in one folder are not noticed there.
    fcntl = None

JOURNAL = ".run_in_progress"


def read_journal(output_dir):
    """Return what a killed run left: relative path -> entry as in run.json, of kind UNFINISHED."""
    entries = _noted(output_dir)
    return {name: entry for name, entry in entries.items() if os.path.lexists(Path(output_dir) / name)}


def remove_temporaries(output_dir):
    """Remove the hidden half-written files of a killed run; only for who holds the lock of the folder."""
    root = Path(output_dir).resolve()
    for name in _noted(output_dir):
        target = Path(output_dir) / name
        if target.parent.resolve().is_relative_to(root):
            for temporary in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
                temporary.unlink(missing_ok=True)


def _noted(output_dir):
    path = Path(output_dir) / JOURNAL
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    entries = {}
    for line in lines:
        try:
            name, pipeline, step = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue  # the line that was being written when the process was killed
        entry = {"prodtype": UNFINISHED, "pipeline": pipeline, "step": step, "run": None, "facts": {}}
        check_entry(path, name, entry)
        entries[name] = entry
    return entries


class Journal:
    """The open journal of this run, locked; made with its folder at the first name.

    Raises RefusedOutputError if another run is writing in the folder, OutputError if it cannot be written.
    """

    def __init__(self, output_dir):
        self.path = Path(output_dir) / JOURNAL
        try:
            make_folder(self.path.parent)
            self._file = self._open()
        except OSError as error:
            known = output_error(error, self.path.parent)
            if known is None:
                raise
            raise known from error

    def _open(self):
        while True:
            file = open(self.path, "ab", buffering=0)  # noqa: SIM115  open as long as the run
            try:
                self._lock(file)
                # Who had the lock before may have removed the file between our opening and locking it.
                if os.path.exists(self.path) and os.path.samestat(
                    os.fstat(file.fileno()), os.stat(self.path)
                ):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _lock(self, file):
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise RefusedOutputError(f"{self.path.parent}: another run is writing there") from error
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # some network disks know no locks
                raise

    def note(self, name, pipeline, step):
        """Write one name down."""
        try:
            self._file.write(json.dumps([name, pipeline, step]).encode() + b"\n")
        except OSError as error:
            known = output_error(error, self.path)
            if known is None:
                raise
            raise known from error

    def close(self, *, remove):
        """End the journal; ``remove`` when run.json lists its names."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()
