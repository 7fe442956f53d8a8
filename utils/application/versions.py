"""Versions of this program and of what it stands on, without importing any of it."""

import functools
import os
import platform
import re
import sys

from utils.version import __version__

_LIBRARIES = ("numpy", "scipy", "astropy", "matplotlib")
_INSTALLED = re.compile(
    rf"({'|'.join(_LIBRARIES)})-(\d[^-]*)(?:-py[\d.]+)?\.(?:dist|egg)-info$", re.IGNORECASE
)


def versions():
    """Versions of this program, of Python and of the libraries, none of which is imported for it."""
    found = {"calibration-pipelines": __version__, "python": platform.python_version()}
    installed = _installed()
    return found | {name: installed.get(name) for name in _LIBRARIES}


@functools.cache
def _installed():
    """Versions of the libraries by the names of what pip or the system left beside them.

    importlib.metadata would read and parse the whole description of each package.
    """
    found = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for match in filter(None, map(_INSTALLED.match, names)):
            found.setdefault(match[1].lower(), match[2])
    return found
