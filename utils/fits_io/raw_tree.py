"""Where a campaign keeps its raw frames: attempt folders, what is in them, and what file names tell."""

import math
import os
import re
from dataclasses import dataclass

_RAW = ".raw"
_CONFIGS = ("configfile.txt", "config.txt")
_LOG = "temperaturelog.csv"
_DATA_SUFFIX = re.compile(r"\.(raw|fits?|fts|fz|gz)\Z", re.IGNORECASE)
_NUMBER = r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
_SECONDS = rf"(?:{_NUMBER})(?:e[+-]?[0-9]+)?"
_EXPOSURE = re.compile(rf"exp[ _-]?({_SECONDS})s", re.IGNORECASE)
# Not from the end of a word ('half12'), unless that is an exposure ('exp0.1sf7') or a kind ('flatf9').
_KINDS = "|".join(f"(?<={word})" for word in ("bias", "biases", "dark", "darks", "flat", "flats"))
_BEFORE = rf"(?:(?<![a-z])|{_KINDS}|exp[ _-]?{_SECONDS}s)"
# The last match counts; 'frame12' before 'f12'; 'f2.8' is an f-number, not a frame.
_FRAME = re.compile(rf"{_BEFORE}frame[ _-]?([0-9]+)(?![0-9]|\.[0-9])", re.IGNORECASE)
_F = re.compile(rf"{_BEFORE}f([0-9]+)(?![0-9]|\.[0-9])", re.IGNORECASE)
# T of 'T-10', 'BiasT0' or 'DARK_T5', but not the end of a word in capitals ('TEST1').
_TEMPERATURE = re.compile(rf"(?:(?<![A-Z])|(?<=BIAS)|(?<=DARK)|(?<=FLAT))T([+-]?(?:{_NUMBER}))")


def parse_frame_number(name):
    """Frame number in a file name, ``f<digits>`` or ``frame<digits>`` (of several the last); else None.

    >>> parse_frame_number("exp_1.2e-05s_frame0.raw"), parse_frame_number("BiasT0_exp0.1sAt0f12.raw")
    (0, 12)
    """
    stem = _stem(name)
    numbers = _FRAME.findall(stem) or _F.findall(stem)
    # 40 digits are no frame number, and Python would refuse to convert thousands of them.
    return int(numbers[-1]) if numbers and len(numbers[-1]) <= 40 else None


def parse_filename_metadata(name):
    """Exposure time [s] and temperature [degC] in a file name, ``exp0.1s`` and ``T-10.5``; None if not told.

    >>> parse_filename_metadata("DarkT-10_exp_1.2e-05s_f3.raw")
    (1.2e-05, -10.0)
    """
    stem = _stem(name)
    exposure, temperature = _EXPOSURE.search(stem), _TEMPERATURE.search(stem)
    exposure = float(exposure[1]) if exposure else None
    temperature = float(temperature[1]) if temperature else None
    return (
        exposure if exposure is not None and math.isfinite(exposure) else None,
        temperature if temperature is not None and math.isfinite(temperature) else None,
    )


def _stem(name):
    return _DATA_SUFFIX.sub("", os.path.basename(os.fspath(name)))


def natural_key(name):
    """Sort key that puts f2 before f10."""
    return [
        (0, int(part), part) if part.isdigit() and part.isascii() and len(part) <= 40 else (1, 0, part)
        for part in re.split(r"([0-9]+)", os.fspath(name))
    ]


@dataclass(frozen=True, slots=True)
class Folder:
    """What stands in one folder, as paths: sub-folders, raw files, config, log (None where absent)."""

    folders: tuple
    raws: tuple
    config: str | None
    log: str | None

    def named(self, name):
        """Path of the sub-folder ``name``, of one in another case ('Frames') where it is missing, or None."""
        found = [path for path in self.folders if os.path.basename(path).lower() == name.lower()]
        return min(found, key=lambda path: os.path.basename(path) != name, default=None)


def look_into(path):
    """List one folder (hidden names left out). Raises OSError where it cannot be read."""
    folders, raws, found = [], [], {}
    with os.scandir(path) as entries:
        for entry in entries:
            lower = entry.name.lower()
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append(entry.path)
            elif lower.endswith(_RAW):
                raws.append(entry.path)
            elif lower in _CONFIGS or lower == _LOG:
                # Of names that differ in case only, always the same one.
                found[lower] = min(found.get(lower, entry.path), entry.path)
    config = next((found[name] for name in _CONFIGS if name in found), None)
    return Folder(
        tuple(sorted(folders, key=natural_key)), tuple(sorted(raws, key=natural_key)), config, found.get(_LOG)
    )


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:
        return False  # a symbolic link that points to itself


def gather_attempts(root, max_depth=2):
    """Paths of the attempt folders in ``root`` and down to ``max_depth`` levels below it, in natural order.

    An attempt is a folder named ``attempt*`` (unless it only holds other attempts), or any folder with
    ``frames/``, a config file and a log. Symbolic links are followed, each real folder is visited once.
    Folders that cannot be read hold no attempts (:func:`find_attempts` tells which).
    """
    return find_attempts(root, max_depth)[0]


def find_attempts(root, max_depth, raw_subdir="frames"):
    """Like :func:`gather_attempts`; returns (attempts, [(folder, reason) of what could not be read])."""
    unreadable, visited = [], set()

    def search(path, depth):
        real = os.path.realpath(path)
        if real in visited:
            return []
        visited.add(real)
        try:
            folder = look_into(path)
        except OSError as error:
            unreadable.append((path, f"folder cannot be read ({error.strerror})"))
            return []
        frames = folder.named(raw_subdir)
        called_attempt = os.path.basename(os.path.abspath(path)).lower().startswith("attempt")
        if (frames and folder.config and folder.log) or (called_attempt and (frames or folder.raws)):
            return [path]
        below = []
        if depth < max_depth:
            for child in folder.folders:
                if os.path.basename(child) not in (raw_subdir, "fits"):
                    below += search(child, depth + 1)
        return below or ([path] if called_attempt else [])

    return search(os.fspath(root), 0), unreadable
