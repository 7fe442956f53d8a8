"""What the tests of a scarce machine share: limits of a child process, a small disk, no right to everything."""

import ctypes
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest


def limited(**limits):
    """Function for preexec_fn: limits by their name in `resource` (NOFILE=64)."""

    def apply():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    return apply


def obey_permissions():
    """For preexec_fn: root, who may read and write everything, gives that right up (capabilities 1 and 2)."""
    library = ctypes.CDLL(None)
    for capability in (1, 2):
        library.prctl(24, capability, 0, 0, 0)


def needs_permissions(folder):
    """Skip where the machine lets even a process without that right write into a folder without permission."""
    folder.mkdir()
    folder.chmod(0o555)
    done = subprocess.run(
        ["touch", folder / "x"], capture_output=True, check=False, preexec_fn=obey_permissions
    )
    folder.chmod(0o755)
    if done.returncode == 0:
        pytest.skip("permissions do not hold here")


@contextmanager
def small_disk(folder, size):
    """A file system of ``size`` bytes mounted on a new folder; skips where that is not allowed."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder, leave=0):
    """Fill a small disk up but for ``leave`` bytes."""
    room = shutil.disk_usage(folder).free - leave
    with open(folder / "filler", "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, room)
