"""Tables of results in markdown, and what they were measured on."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata

PACKAGES = ("numpy", "scipy", "astropy", "ccdproc", "dask", "matplotlib")


@dataclass
class Section:
    """One table.  rows : list of lists, cells as text or numbers.  notes : sentences below it."""

    title: str
    columns: tuple
    rows: list
    notes: list = field(default_factory=list)

    def markdown(self):
        """Return the section as markdown, columns padded so that the source reads well too."""
        lines = [[cell(value) for value in row] for row in self.rows]
        for line in lines:
            if len(line) != len(self.columns):
                raise ValueError(f"{self.title}: got {len(line)} cells, expected {len(self.columns)}")
        widths = [max(len(row[i]) for row in [self.columns, *lines]) for i in range(len(self.columns))]
        numeric = [
            bool(self.rows) and all(_is_number(row[i]) for row in self.rows) for i in range(len(widths))
        ]
        rule = ["-" * (w - 1) + ":" if right else "-" * w for w, right in zip(widths, numeric, strict=True)]
        body = [self.columns, rule, *lines]
        text = [f"### {self.title}", ""]
        for row in body:
            cells = (
                value.rjust(w) if right else value.ljust(w)
                for value, w, right in zip(row, widths, numeric, strict=True)
            )
            text.append(f"| {' | '.join(cells)} |")
        for note in self.notes:
            text += ["", note]
        return "\n".join(text) + "\n"


def _is_number(value):
    return value is None or isinstance(value, (int, float))


def cell(value):
    """Text of a cell: three significant digits, at most; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        if "e" in digits:
            return digits
        # 0.30, not 0.3: a trailing zero says how well a number is known.
        return f"{value:.2f}" if 0.1 <= abs(value) < 10 else digits
    return str(value)


def megabytes(size):
    """Bytes as a whole number of MB (10^6)."""
    return round(size / 1e6)


def machine():
    """Lines that say where and when a measurement was made; call it before, for the load of other programs."""
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    siril = siril_version()
    if siril:
        versions.append(siril)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return [
        f"Date: {datetime.now(UTC):%Y-%m-%d}",
        f"Machine: {_processor()}, {cores} cores usable, {_memory()}, {platform.system()} {platform.machine()}{load}",
        f"Versions: {', '.join(versions)}",
    ]


def siril_version():
    """Return 'Siril 1.0.6', or None where siril-cli is not installed."""
    if not shutil.which("siril-cli"):
        return None
    done = subprocess.run(["siril-cli", "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().replace("siril", "Siril") or "Siril"


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def _memory():
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "unknown memory"
    return f"{size / 2**30:.0f} GiB"


def document(sections, seconds=None, failed=(), where=None):
    """Whole report in markdown.  failed : names of sections that could not be measured.  where : from `machine`."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`.",
        "",
        *(f"- {line}" for line in where or machine()),
        "",
    ]
    if seconds is not None:
        lines += [f"Measured in {seconds:.0f} s.", ""]
    if failed:
        lines += [f"Could not be measured: {', '.join(failed)}.", ""]
    return "\n".join(lines) + "\n" + "\n".join(section.markdown() for section in sections)
