"""The part of README.md that shows the measured speed: rewritten by a whole run of `make bench`."""

from pathlib import Path

from utils.fits_io.atomic import write_text

README = Path(__file__).resolve().parents[1] / "README.md"
SHOWN = ("combine", "full", "dark_run", "flat_run", "calibrate", "convert", "start")
"""Sections that a reader of README.md sees; all of them are in benchmarks/results."""
FIRST, LAST = "<!-- measured: begin -->", "<!-- measured: end -->"


def measured_part(found, where, link):
    """Text between the marks.

    found : section name -> `benchmarks.table.Section`.  where : lines of `benchmarks.table.machine`.
    link : path of the whole document from README.md.
    """
    text = [*(f"- {line}" for line in where), "", f"Everything that was measured: [{link}]({link})."]
    return "\n".join([*text, "", *(found[name].markdown() for name in SHOWN if name in found)])


def show(found, where, output, readme=README):
    """Replace what stands between the marks of a README; ValueError where it has no marks.

    output : the whole document, below the folder of the README.
    """
    before, first, rest = readme.read_text(encoding="utf-8").partition(FIRST)
    _, last, after = rest.partition(LAST)
    if not (first and last):
        raise ValueError(f"{readme}: got no lines {FIRST} and {LAST}, expected both")
    link = Path(output).resolve().relative_to(readme.parent.resolve()).as_posix()
    part = measured_part(found, where, link)
    write_text(readme, f"{before}{FIRST}\n\n{part}\n{LAST}{after}")
