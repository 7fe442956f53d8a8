"""The report of a run: one HTML file that opens without a network, with its pictures inside."""

import base64
import contextlib
import csv
import functools
import math
import os
import shlex
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from urllib.parse import quote

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROWS = 200  # of a table in the page; the CSV files beside it have all

REQUIRED = ("title", "command", "version", "date", "status")
OPTIONAL = {
    "pipeline": "",
    "mode": "",
    "seconds": None,
    "versions": {},
    "options": {},
    "inputs": "",
    "warnings": (),
    "missing": (),
    "values": (),
    "sections": (),
    "figures": (),
    "tables": (),
    "products": (),
    "steps": (),
    "rejected": (),
    "compact": False,
}


def write_report(path, context):
    """Write the report of a run to `path`, atomically; pictures of products are embedded.

    path : usually OUT/report.html; links to products are relative to its folder.   context : dict with

    title, command, version, date : text; the command line is as typed
    status : exit status; 0 complete, 1 something named is missing

    and, where there is something to tell,

    pipeline, mode, inputs : text
    seconds : duration of the run
    versions, options : dicts name -> value
    warnings : list of text
    missing : list of {"what", "reason"}; what makes the status 1
    values : list of {"section", "name", "value", "error", "unit"}; section "": key numbers, on top
    sections : list of (title, text); order and opening text of the sections, others follow as they come
    figures : list of {"section", "caption", "png"}; png is bytes, or the path of a PNG file
    tables : list of {"section", "title", "columns", "rows"}; rows are lists of text or numbers
    products : list of {"path", "prodtype", "what"}; path relative to the folder of the report
    steps : list of {"name", "seconds", "summary"}
    rejected : list of {"path", "reason"}; frames left out
    compact : for a page of print: key numbers in two columns, figures side by side, tables folded

    Returns the path.  Raises ValueError for a key that is not among these, or a required one that is absent.
    """
    from utils.fits_io.atomic import write_text

    write_text(path, render(context))
    return Path(path)


def context_of(record, *, title, program, inputs="", sections=(), tables=(), kinds=None):
    """Return the context of `write_report` for a `RunRecord`, with the products and figures known so far.

    program : how the command is called, put before its arguments.   inputs, sections, tables : as there.
    kinds : PRODTYPE -> what it is, in words; a product's own fact "what" goes first.
    """
    from utils.application.versions import versions
    from utils.version import __version__

    kinds = kinds or {}
    return {
        "title": title,
        "pipeline": record.pipeline,
        "mode": record.mode,
        "command": f"{program} {shlex.join(record.argv)}",
        "version": __version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "status": record.status,
        "seconds": sum(step.seconds for step in record.steps),
        "versions": versions(),
        "options": record.options,
        "inputs": inputs,
        "warnings": record.warnings,
        "missing": record.missing_list,
        "values": record.values,
        "sections": sections,
        "figures": [
            {"section": figure["section"], "caption": figure["caption"], "png": figure["path"]}
            for figure in record.figures
        ],
        "tables": tables,
        "products": [
            {
                "path": product.path.relative_to(record.output_dir).as_posix(),
                "prodtype": product.prodtype,
                "what": product.facts.get("what") or kinds.get(product.prodtype, ""),
            }
            for product in record.products()
        ],
        # The step that writes the report is still under way, its time is not known.
        "steps": [
            {"name": step.name, "seconds": step.seconds, "summary": step.summary}
            for step in record.steps
            if step.seconds > 0
        ],
        "rejected": record.rejected,
    }


def csv_table(path, columns, *, section, title):
    """Return the tables of `write_report` for a CSV file of a run: one, or none where the file is not there.

    columns : column of the file -> its head in the page, in order.
    """
    if not Path(path).is_file():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        rows = [[_cell(row[key]) for key in columns] for row in csv.DictReader(stream)]
    return [{"section": section, "title": title, "columns": list(columns.values()), "rows": rows}]


def _cell(text):
    try:
        return float(text)
    except ValueError:
        return text


def render(context):
    """Return the page as text; `context` as in `write_report`."""
    unknown = sorted(set(context) - set(REQUIRED) - set(OPTIONAL))
    absent = sorted(set(REQUIRED) - set(context))
    if unknown or absent:
        raise ValueError(f"report: unknown keys {unknown}, absent keys {absent}")
    full = {**OPTIONAL, **context}
    key_numbers = [value for value in full["values"] if not value.get("section")]
    return _template().render(
        **{**full, "sections": _sections(full), "key_numbers": key_numbers, "most_rows": MOST_ROWS}
    )


@functools.cache
def _template():
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        bytecode_cache=_compiled_templates(),
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        measure=lambda value: measure(value["value"], value.get("error")),
        number=number,
        duration=duration,
        picture=_picture,
        link=lambda path: quote(Path(path).as_posix()),
    )
    return environment.get_template("report.html.j2")


def _compiled_templates():
    """Compiled template of an earlier run in the user's cache, or None where that cannot be written."""
    from jinja2 import FileSystemBytecodeCache

    from utils.fits_io.scan_cache import user_cache_folder

    class Cache(FileSystemBytecodeCache):
        def dump_bytecode(self, bucket):
            # A full disk there is no reason to lose a report.
            with contextlib.suppress(OSError):
                super().dump_bytecode(bucket)

    folder = user_cache_folder() / "templates"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    # What others could have put there is not run.
    owned = not hasattr(os, "getuid") or (
        folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o022
    )
    return Cache(str(folder)) if owned and os.access(folder, os.W_OK | os.X_OK) else None


def _sections(full):
    """Sections in order, each with its text, values, figures and tables; empty ones are left away.

    Titles that differ in upper and lower case only are one section.
    """
    kinds = ("values", "figures", "tables")
    found = {}

    def section(title, text=""):
        blank = {"title": title[:1].upper() + title[1:], "text": text} | {kind: [] for kind in kinds}
        return found.setdefault(title.casefold(), blank)

    for title, text in full["sections"]:
        section(title, text)
    for kind in kinds:
        for item in full[kind]:
            title = item.get("section", "")
            if title or kind != "values":
                section(title or "More")[kind].append(item)
    filled = [one for one in found.values() if any(one[key] for key in ("text", *kinds))]
    return [{**one, "anchor": f"section-{number}"} for number, one in enumerate(filled, start=1)]


def _picture(png):
    """Return a data URL of a PNG given as bytes or as the path of a file."""
    content = png if isinstance(png, bytes) else Path(png).read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def measure(value, error=None):
    """Value with its error, both to the second significant digit of the error: ``1003.214 ± 0.032``.

    Text is returned as it is; without a usable error the value has six significant digits.
    """
    if not isinstance(error, Real) or not math.isfinite(error) or error <= 0:
        return number(value)
    if not isinstance(value, Real) or not math.isfinite(value):
        return number(value)
    digits = 1 - math.floor(math.log10(error))
    # Rounding 0.0996 to two digits gives 0.10: one decimal fewer.
    digits = 1 - math.floor(math.log10(round(error, digits)))
    if -2 <= digits <= 8:
        places = max(digits, 0)
        shown = f"{round(float(value), digits):.{places}f} ± {round(float(error), digits):.{places}f}"
    else:
        power = math.floor(math.log10(max(abs(value), error)))
        places = max(digits + power, 0)
        scale = 10.0**power
        shown = f"({value / scale:.{places}f} ± {error / scale:.{places}f}) × 10^{power}"
    return shown.replace("-", "−")


def number(value):
    """Six significant digits of a number, ``not known`` for None and NaN, text as it is."""
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(value).replace("-", "−")
    if isinstance(value, Real):
        return f"{float(value) + 0.0:.6g}".replace("-", "−")
    return str(value)


def duration(seconds):
    """Time for people: ``0.24 s``, ``12 s``, ``3 min 05 s``."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
