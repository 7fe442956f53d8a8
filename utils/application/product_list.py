"""The list of products in run.json: what earlier runs made in an output folder, read and checked.

run.json: {"format": 1, "products": {path: {"prodtype", "pipeline", "step", "run", "facts", "digest", "made_from"}},
"runs": [...], "blocks": [...]}.  "made_from" is the hash of a block, which tells what its products were made from.
Paths are relative to the output folder, so that a copy of the folder works as the folder does.
"""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from utils.errors import InputError
from utils.fits_io.atomic import RefusedOutputError

RUN_FILE = "run.json"
FORMAT = 1
FIGURE = "FIGURE"
UNFINISHED = "UNFINISHED"  # a file of a killed run: may be replaced and removed, is never read


@dataclass(frozen=True)
class ProductRef:
    """One product of a run: where it is, what it is, and what the step that made it said of it."""

    path: Path
    prodtype: str
    facts: dict
    pipeline: str
    step: str


def load_run_file(output_dir):
    """Read run.json of an output folder: (products, runs), both empty where there is none.

    Raises RefusedOutputError, one line, if the file is not ours, damaged, or names a path outside the folder.
    """
    return load_whole_run_file(output_dir)[:2]


def load_whole_run_file(output_dir):
    """The same with the records of steps that can be kept: (products, runs, blocks)."""
    path = Path(output_dir) / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, [], []
    except OSError as error:
        raise RefusedOutputError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RefusedOutputError(f"{path}: got {error}, expected the JSON record of earlier runs") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format", "none") if isinstance(content, dict) else type(content).__name__
        raise RefusedOutputError(f"{path}: got format {got}, expected a record of these pipelines, {FORMAT}")
    products, runs = content.get("products"), content.get("runs")
    if not isinstance(products, dict) or not isinstance(runs, list):
        raise RefusedOutputError(f"{path}: damaged, expected a list of runs and of products")
    for relative, entry in products.items():
        check_entry(path, relative, entry)
    blocks = content.get("blocks")
    return products, runs, blocks if isinstance(blocks, list) else []


def check_entry(path, relative, entry):
    """Refuse an entry that no run of ours writes: files are removed and read by this list."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in relative or "\0" in relative:
        raise RefusedOutputError(
            f"{path}: got product {relative!r}, expected a path inside the output folder"
        )
    keys = ("prodtype", "pipeline", "step")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in keys):
        raise RefusedOutputError(f"{path}: product {relative!r} is damaged, expected {', '.join(keys)}")


def find_products(output_dir, products, prodtype=None, made_by=""):
    """Look products up in a list as :func:`load_run_file` gives it, in its order.

    prodtype : str, or None for all but figures and leftovers.   made_by : how to make them, for the message.
    Returns a list of ProductRef. Raises InputError if there is none, or if a file of the list is gone.
    """
    found = [
        ProductRef(
            Path(output_dir) / relative,
            entry["prodtype"],
            dict(entry.get("facts") or {}),
            entry["pipeline"],
            entry["step"],
        )
        for relative, entry in products.items()
        if entry["prodtype"] == prodtype
        or (prodtype is None and entry["prodtype"] not in (FIGURE, UNFINISHED))
    ]
    advice = f"; make it with {made_by}" if made_by else ""
    if not found:
        record = Path(output_dir) / RUN_FILE
        got = "no such product" if record.exists() else "no such file"
        raise InputError(f"{record}: got {got}, expected {prodtype or 'products'}{advice}")
    for product in found:
        if not product.path.is_file():
            raise InputError(f"{product.path}: the file is gone, expected {product.prodtype}{advice}")
    return found


def load_products(output_dir, prodtype=None, *, made_by=""):
    """Find products of earlier runs in another output folder (see :func:`find_products`)."""
    return find_products(output_dir, load_run_file(output_dir)[0], prodtype, made_by)
