"""The journal of a run under way: which names it took in the output folder, what it has made, that it is alive.

The hidden file gets one line for each name before a file is written there, one when the file stands, one when
steps have ended, and goes when run.json lists them.  After a killed run it tells the next one whose files stand
there, and what need not be made again.  A lock on it, which dies with its process, keeps two runs out of one
folder.
"""

import contextlib
import errno
import glob
import json
import os
import shutil
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from utils.application.product_list import UNFINISHED, check_entry
from utils.fits_io.atomic import RefusedOutputError, make_folder, output_error, plain

try:
    import fcntl
except ImportError:  # Windows has no such lock: two runs at once in one folder are not noticed there.
    fcntl = None

JOURNAL = ".run_in_progress"
WORKING_FILES = (".run.json.*.tmp", ".flats-*", ".spool-*", ".share-*")
"""What waits for a later step, which a killed run leaves: patterns of files and folders."""


@dataclass
class Left:
    """What a run that did not end has left in its journal.

    noted : path -> entry of kind UNFINISHED, of files that stand there.  made : path -> entry as in run.json, of
    files that were whole.  blocks : list of records of steps that had ended.  owner : "process 12 on host, since ...".
    """

    noted: dict = field(default_factory=dict)
    made: dict = field(default_factory=dict)
    blocks: list = field(default_factory=list)
    owner: str = ""


def read_journal(output_dir):
    """Return what a killed run left (`Left`); all empty where there is no journal."""
    left, path = Left(), Path(output_dir) / JOURNAL
    for word, *rest in _lines(path):
        if word == "owner" and len(rest) == 1:
            left.owner = str(rest[0])
        elif word == "made" and len(rest) == 2:
            name, entry = rest
            check_entry(path, name, entry)
            left.made[name] = entry
        elif word == "block" and len(rest) == 1 and isinstance(rest[0], dict):
            left.blocks.append(rest[0])
        elif word == "name" and len(rest) == 3:
            name, pipeline, step = rest
            entry = {"prodtype": UNFINISHED, "pipeline": pipeline, "step": step, "run": None, "facts": {}}
            check_entry(path, name, entry)
            if os.path.lexists(Path(output_dir) / name):
                left.noted[name] = entry
    return left


def _lines(path):
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the line that was being written when the process was killed
        if isinstance(content, list) and content and all(isinstance(one, (str, dict)) for one in content):
            yield content


def remove_temporaries(output_dir):
    """Remove the hidden half-written files of a killed run; only for who holds the lock of the folder."""
    root = Path(output_dir).resolve()
    for word, name, *_ in _lines(Path(output_dir) / JOURNAL):
        target = Path(output_dir) / str(name)
        if word == "name" and target.parent.resolve().is_relative_to(root):
            for temporary in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
                temporary.unlink(missing_ok=True)
    own = f"-{os.getpid()}-"  # of this run, which may have begun to gather
    left = [path for pattern in WORKING_FILES for path in root.glob(pattern) if own not in path.name]
    for temporary in left:
        temporary.unlink(missing_ok=True) if temporary.is_file() else shutil.rmtree(
            temporary, ignore_errors=True
        )


def check_alone(output_dir):
    """Refuse a folder in which another run is writing; return who left a journal there that nobody holds.

    Nothing is written.  Returns None where there is no journal.  Raises RefusedOutputError.
    """
    path = Path(output_dir) / JOURNAL
    try:
        file = open(path, "rb")  # noqa: SIM115  closed below
    except OSError:
        return None
    with file:
        _lock(file, path, shared=True)
    return read_journal(output_dir).owner or "an earlier run"


def _lock(file, path, *, shared=False):
    if fcntl is None:
        return
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            owner = read_journal(path.parent).owner
            raise RefusedOutputError(
                f"{path.parent}: another run is writing there{f' ({owner})' if owner else ''};"
                " wait for its end, or take another folder"
            ) from error
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # some network disks know no locks
            raise


class Journal:
    """The open journal of this run, locked; made with its folder at the first name.

    Raises RefusedOutputError if another run is writing in the folder, OutputError if it cannot be written.
    """

    def __init__(self, output_dir):
        self.path = Path(output_dir) / JOURNAL
        self.was_there = self.path.exists()
        parents = [self.path.parent, *self.path.parent.parents]
        self._new_folders = [folder for folder in parents if not folder.exists()]
        try:
            make_folder(self.path.parent)
            self._file = self._open()
        except OSError as error:
            known = output_error(error, self.path.parent)
            if known is None:
                raise
            raise known from error
        moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        try:
            # A line that was cut short by the end of the process must not spoil the next one.
            self._write(["owner", f"process {os.getpid()} on {socket.gethostname()}, since {moment}"], b"\n")
        except BaseException:
            self.give_up()
            raise

    def _open(self):
        while True:
            file = open(self.path, "ab", buffering=0)  # noqa: SIM115  open as long as the run
            try:
                _lock(file, self.path)
                # Who had the lock before may have removed the file between our opening and locking it.
                if os.path.exists(self.path) and os.path.samestat(
                    os.fstat(file.fileno()), os.stat(self.path)
                ):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def note(self, name, pipeline, step):
        """Write one name down, before a file is written there."""
        self._write(["name", name, pipeline, step])

    def made(self, name, entry):
        """Write down that a file stands, with its entry of run.json."""
        self._write(["made", name, entry])

    def block(self, record):
        """Write down that steps have ended."""
        self._write(["block", record])

    def _write(self, line, before=b""):
        try:
            self._file.write(before + json.dumps(plain(line)).encode() + b"\n")
        except OSError as error:
            known = output_error(error, self.path)
            if known is None:
                raise
            raise known from error

    def give_up(self):
        """End the journal of a run that has written nothing, and leave all as it was."""
        self.close(remove=not self.was_there)
        with contextlib.suppress(OSError):  # another run has come, or a file of others
            for folder in self._new_folders:
                folder.rmdir()

    def close(self, *, remove):
        """End the journal; ``remove`` when run.json lists its names."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()
