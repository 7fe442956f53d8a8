"""List of darks that the user hands over (--dark-files-json), its keys and values checked."""

import json

from utils.domain.json_values import is_number, listed
from utils.errors import OptionError

_LIST = ("original_path", "temperature", "exposure")


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
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path}: got {error}, expected {expected}") from error
    if not isinstance(content, kind):
        raise OptionError(f"{path}: got {type(content).__name__}, expected {expected}")
    return content


def _keys(path, content, needed, optional=(), where=""):
    missing = [key for key in needed if key not in content]
    unknown = sorted(set(content) - set(needed) - set(optional))
    if missing or unknown:
        got = "; ".join(
            f"{word} {listed(keys)}" for word, keys in (("missing", missing), ("unknown", unknown)) if keys
        )
        wanted = ", ".join((*needed, *(f"{key} (optional)" for key in optional)))
        raise OptionError(f"{path}: {where + ': ' if where else ''}keys {got}, expected {wanted}")


def _number(path, content, key, where="", above=None):
    value = content[key]
    if not is_number(value) or (above is not None and not value > above):
        wanted = "a number" + ("" if above is None else f" above {above:g}")
        raise OptionError(f"{path}: {where + ': ' if where else ''}{key}: got {value!r}, expected {wanted}")
