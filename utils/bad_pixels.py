"""One bad-pixel map from the products of the pipelines, with reasons, a region file for DS9 and a list of changes.

python -m utils.bad_pixels OUT_DIRS... --output bad_pixels.fits
"""

import shlex
import sys
import time
from pathlib import Path

from utils.application.command import run_command
from utils.application.options import CommandParser, both
from utils.errors import InputError, OptionError

COLOURS = {"DEAD": "blue", "LOW_QE": "cyan", "HOT": "red", "TELEGRAPH": "magenta", "NOISY": "yellow"}
"""Colour of a pixel in DS9 by its first reason; others green."""
SUFFIXES = (".csv", "_counts.csv", ".reg", "_changes.csv", ".html")


def main(argv=None):
    """Write the map and its companions; returns the exit status."""
    args = _parser().parse_args(argv)
    from utils.domain import bad_pixel_map
    from utils.fits_io.products import DQ_NAMES

    start = time.monotonic()
    unknown = [name for name in args.bits if name not in DQ_NAMES]
    if unknown:
        raise OptionError(f"--bits: got {', '.join(unknown)}, expected among {', '.join(DQ_NAMES)}")
    if args.output.suffix.lower() not in (".fits", ".fit", ".fts"):
        raise OptionError(f"--output {args.output}: expected a name that ends in .fits")
    _refuse_foreign(args.output, args.overwrite)
    merged = bad_pixel_map.merge(_products(args.sources), args.bits)
    changed = None if args.earlier is None else bad_pixel_map.changes(merged, args.earlier)
    _write(args, merged, changed)
    _write_report(args, merged, changed, sys.argv[1:] if argv is None else argv, time.monotonic() - start)
    for row in merged.counts():
        print(f"{row['bit']}: {row['pixels']} pixels, {row['only']} of them for this reason alone")
    share = 100.0 * merged.bad.mean()
    print(
        f"{args.output}: {int(merged.bad.sum())} bad pixels ({share:.3g} %) from {len(merged.paths)} products"
    )
    if changed is not None:
        new = sum(row["change"] == "new" for row in changed)
        print(f"since {args.earlier}: {new} new, {len(changed) - new} gone")
    return 0


def _parser():
    from utils.domain.bad_pixel_map import DEFAULT_BITS

    parser = CommandParser(prog="python -m utils.bad_pixels", description=__doc__.splitlines()[0])
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="OUT_DIR", help="output folder of a pipeline, or one product"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the map, a FITS file")
    parser.add_argument(
        "--earlier", type=Path, metavar="FILE", default=None, help="earlier map: list what changed"
    )
    parser.add_argument(
        "--bits", nargs="+", metavar="BIT", default=DEFAULT_BITS, help="DQ bits that make a pixel bad"
    )
    parser.add_argument(
        *both("overwrite"), action="store_true", help="write over files that are no bad-pixel map"
    )
    return parser


def _products(sources):
    """Paths to merge: products given by name, and those that the run.json of folders list."""
    from utils.application.product_list import load_products
    from utils.domain.bad_pixel_map import KINDS, choose

    found = []
    for source in sources:
        if source.is_dir():
            chosen = choose(load_products(source))
            if not chosen:
                raise InputError(
                    f"{source}: no product with quality bits, expected one of {', '.join(KINDS)}"
                )
            found += chosen
        else:
            found.append(source)
    return list(dict.fromkeys(found))


def _companion(output, suffix):
    return output.with_name(output.stem + suffix)


def _refuse_foreign(output, overwrite):
    """A map of ours may be replaced, with what lies beside it; other files only with --overwrite."""
    from utils.fits_io.product_reader import view_planes

    if overwrite or not any(path.exists() for path in (output, *(_companion(output, s) for s in SUFFIXES))):
        return
    try:
        ours = output.exists() and view_planes(output)[0].get("PRODTYPE") == "BAD_PIXELS"
    except InputError:
        ours = False
    if not ours:
        taken = next(path for path in (output, *(_companion(output, s) for s in SUFFIXES)) if path.exists())
        raise InputError(
            f"{taken}: stands there and belongs to no bad-pixel map, expected a free name or --overwrite"
        )


def _write(args, merged, changed):
    from utils.fits_io.atomic import write_csv, write_text
    from utils.fits_io.products import write_product

    rows = merged.pixels()
    cards = merged.cards | {
        "NBAD": (len(rows), "bad pixels"),
        "BADBITS": (" ".join(args.bits), "DQ bits that make a pixel bad"),
    }
    write_product(
        args.output,
        merged.bad,
        prodtype="BAD_PIXELS",
        unit="",
        cards=cards,
        dq=merged.dq,
        inputs=[{"file": str(path)} for path in merged.paths],
    )
    write_csv(_companion(args.output, ".csv"), rows, ("x", "y", "reasons"))
    columns = ("product", "kind", "bit", "pixels")
    total = [
        {"product": "all", "kind": "merged", "bit": c["bit"], "pixels": c["pixels"]} for c in merged.counts()
    ]
    write_csv(_companion(args.output, "_counts.csv"), [*merged.rows, *total], columns)
    write_text(_companion(args.output, ".reg"), _regions(rows))
    path = _companion(args.output, "_changes.csv")
    if changed is not None:
        write_csv(path, changed, ("change", "x", "y", "reasons"))
    elif path.exists():
        path.unlink()  # of an earlier map of this name: it would tell changes that nobody asked for


def _regions(rows):
    """Region file of DS9: one point a pixel, coloured by its first reason, the reasons as its text."""
    lines = ["# Region file format: DS9 version 4.1", "global color=green point=box 1", "image"]
    for row in rows:
        colour = next((COLOURS[name] for name in row["reasons"].split(";") if name in COLOURS), "green")
        lines.append(
            f"point({row['x']},{row['y']}) # point=box 1 color={colour} text={{}} tag={{{row['reasons']}}}"
        )
    return "\n".join(lines) + "\n"


def _write_report(args, merged, changed, argv, seconds):
    from datetime import UTC, datetime

    import numpy as np

    from utils.application.figure_style import png_bytes
    from utils.application.plots import map_figure
    from utils.application.report import write_report
    from utils.application.versions import versions
    from utils.version import __version__

    density = _density(merged.bad)
    figure = map_figure(
        density.astype(np.float32), label="bad pixels [%]", title="Share of bad pixels in blocks", floor=0.0
    )
    counts = merged.counts()
    tables = [
        {
            "section": "Reasons",
            "title": "Pixels by reason; bad: among the bad pixels; only: no other reason",
            "columns": ["DQ bit", "pixels", "bad", "only"],
            "rows": [[row["bit"], row["pixels"], row["bad"], row["only"]] for row in counts],
        },
        {
            "section": "Reasons",
            "title": "By product",
            "columns": ["product", "kind", "DQ bit", "pixels"],
            "rows": [[row["product"], row["kind"], row["bit"], row["pixels"]] for row in merged.rows],
        },
    ]
    if changed is not None:
        rows = [[row["change"], row["x"], row["y"], row["reasons"]] for row in changed]
        title = f"Since {args.earlier}: {len(changed)} pixels"
        tables.append(
            {"section": "Changes", "title": title, "columns": ["change", "x", "y", "reasons"], "rows": rows}
        )
    caption = "Look for clusters, columns and edges: pixels that fail by chance are spread evenly."
    write_report(
        _companion(args.output, ".html"),
        {
            "title": "Bad pixels",
            "command": f"python -m utils.bad_pixels {shlex.join(map(str, argv))}",
            "version": __version__,
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "status": 0,
            "seconds": seconds,
            "versions": versions(),
            "values": [
                {
                    "section": "",
                    "name": "bad pixels",
                    "value": int(merged.bad.sum()),
                    "error": None,
                    "unit": "",
                },
                {
                    "section": "",
                    "name": "share",
                    "value": 100.0 * float(merged.bad.mean()),
                    "error": None,
                    "unit": "%",
                },
            ],
            "tables": tables,
            "figures": [{"section": "Where", "caption": caption, "png": png_bytes(figure)}],
        },
    )


def _density(bad):
    """Percent of bad pixels around each: in blocks, at most 64 along the longer side, (ny, nx)."""
    import numpy as np

    side = max(4, -(-max(bad.shape) // 64))
    rows, columns = (np.arange(0, size, side) for size in bad.shape)
    total = np.add.reduceat(np.add.reduceat(bad.astype(np.int32), rows, axis=0), columns, axis=1)
    height, width = (
        np.diff(np.append(starts, size)) for starts, size in zip((rows, columns), bad.shape, strict=True)
    )
    share = 100.0 * total / (height[:, None] * width[None, :])
    return np.repeat(np.repeat(share, height, axis=0), width, axis=1)


if __name__ == "__main__":
    sys.exit(run_command(main))
