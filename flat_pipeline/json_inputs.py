"""JSON files of the user: illumination models and lists of darks, their keys and values checked."""

import json
import math
from numbers import Real

from utils.errors import OptionError

_PA = ("k1", "k2", "k3")
_LENS = ("camera", "lens", "focal_length", "aperture", "distance")
_METHODS = {"polynomial": "degree", "gaussian": "sigma", "median": "size"}
_LIST = ("original_path", "temperature", "exposure")


def read_illumination(files):
    """Read the illumination that one of the files asks for.

    files : kind ('lensfun', 'radial', 'empirical') -> path or None.  Returns (kind, dict), or None without a file.
    Raises OptionError that names the file and the keys or values that do not fit.
    """
    for kind, path in files.items():
        if path is not None:
            content = _load(path, dict, "one JSON object")
            {"lensfun": _check_lensfun, "radial": _check_radial, "empirical": _check_empirical}[kind](
                path, content
            )
            return kind, content
    return None


def read_dark_files(path):
    """Read --dark-files-json: list of dicts original_path, temperature [degC], exposure [s]."""
    content = _load(path, list, "a list of objects")
    if not content:
        raise OptionError(f"{path}: got an empty list, expected darks")
    for number, entry in enumerate(content):
        where = f"entry {number}"
        if not isinstance(entry, dict):
            raise OptionError(f"{path}: {where}: got {entry!r}, expected an object")
        _keys(path, entry, _LIST, where=where)
        if not isinstance(entry["original_path"], str):
            raise OptionError(
                f"{path}: {where}: original_path: got {entry['original_path']!r}, expected a path"
            )
        _number(path, entry, "temperature", where)
        _number(path, entry, "exposure", where, above=0)
    return content


def _load(path, kind, expected):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}, expected {expected}") from error
    except ValueError as error:
        raise OptionError(f"{path}: got {error}, expected {expected}") from error
    if not isinstance(content, kind):
        raise OptionError(f"{path}: got {type(content).__name__}, expected {expected}")
    return content


def _keys(path, content, needed, optional=(), where=""):
    missing = [key for key in needed if key not in content]
    unknown = sorted(set(content) - set(needed) - set(optional))
    if missing or unknown:
        got = "; ".join(
            f"{word} {', '.join(keys)}" for word, keys in (("missing", missing), ("unknown", unknown)) if keys
        )
        wanted = ", ".join((*needed, *(f"{key} (optional)" for key in optional)))
        raise OptionError(f"{path}: {where + ': ' if where else ''}keys {got}, expected {wanted}")


def _number(path, content, key, where="", above=None):
    value = content[key]
    good = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or (above is not None and not value > above):
        wanted = "a number" + ("" if above is None else f" above {above:g}")
        raise OptionError(f"{path}: {where + ': ' if where else ''}{key}: got {value!r}, expected {wanted}")


def _check_lensfun(path, content):
    if "model" in content:
        _keys(path, content, ("model", *_PA))
        if content["model"] != "pa":
            raise OptionError(f"{path}: model: got {content['model']!r}, expected 'pa'")
        for key in _PA:
            _number(path, content, key)
        return
    _keys(path, content, _LENS)
    for key in _LENS[:2]:
        if not (isinstance(content[key], str) and content[key].strip()):
            raise OptionError(f"{path}: {key}: got {content[key]!r}, expected a name")
    for key in _LENS[2:]:
        _number(path, content, key, above=0)


def _check_radial(path, content):
    _keys(path, content, _PA, ("center",))
    for key in _PA:
        _number(path, content, key)
    centre = content.get("center")
    if centre is None:
        return
    if not isinstance(centre, list) or len(centre) != 2:
        raise OptionError(f"{path}: center: got {centre!r}, expected [x, y] in pixels")
    for key, value in zip("xy", centre, strict=True):
        _number(path, {key: value}, key, "center")


def _check_empirical(path, content):
    method = content.get("method")
    if method not in _METHODS:
        raise OptionError(f"{path}: method: got {method!r}, expected one of {', '.join(_METHODS)}")
    key = _METHODS[method]
    _keys(path, content, ("method", key))
    _number(path, content, key, above=0)
    if method != "gaussian" and not float(content[key]).is_integer():
        raise OptionError(f"{path}: {key}: got {content[key]!r}, expected a whole number")
    if method == "polynomial" and content[key] > 12:
        raise OptionError(f"{path}: degree: got {content[key]!r}, expected at most 12")
