"""The index and the report of a conversion: which FITS files there are, and what is wrong."""

import csv
import os
from pathlib import Path

from utils.fits_io.atomic import writable, write_csv
from utils.fits_io.raw_attempt import INDEX_COLUMNS, INDEX_EXTRAS
from utils.fits_io.raw_tree import natural_key


def portable(path, folder):
    """Path from ``folder``, with forward slashes: it holds when the tree is moved."""
    return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(folder))).as_posix()


def with_earlier_rows(run, folder, roots):
    """Rows of this run and those of an earlier index whose FITS files still exist, in order of paths."""
    rows = {portable(row["PATH"], folder): row for row in run.rows}
    absolute = all(os.path.isabs(root) for root in roots)
    try:
        with open(run.index, newline="", encoding="utf-8") as stream:
            earlier = [row for row in csv.DictReader(stream) if row.get("RELPATH")]
    except (OSError, UnicodeDecodeError, csv.Error):
        earlier = []  # no index yet, or a damaged one that is made anew
    for row in earlier:
        path = os.path.join(folder, row["RELPATH"])
        relative = portable(path, folder)
        if relative not in rows and os.path.isfile(path):
            path = os.path.abspath(path) if absolute else os.path.normpath(path)
            rows[relative] = {**{key: cell for key, cell in row.items() if key and cell}, "PATH": path}
    return [{**rows[relative], "RELPATH": relative} for relative in sorted(rows, key=natural_key)]


def write_tables(run, rows):
    """Write the index of ``rows`` and the report of what is wrong."""
    extras = [name for name in INDEX_EXTRAS if any(name in row for row in rows)]
    columns = (*INDEX_COLUMNS, *extras)
    rows = [{name: printable(cell) for name, cell in row.items() if name in columns} for row in rows]
    write_csv(run.index, rows, columns)
    problems = [
        {"PATH": printable(problem.path), "SEVERITY": problem.severity, "REASON": printable(problem.reason)}
        for problem in run.problems
    ]
    write_csv(run.report, problems, ("PATH", "SEVERITY", "REASON"))


def printable(value):
    """Text that UTF-8 can hold: bytes of a file name that are none are written as escapes."""
    if isinstance(value, str):
        return writable(value)
    return value
