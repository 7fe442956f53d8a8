"""What a run did: run.json, rejected_frames.csv, summary.csv; whose files are whose in an output folder.

A run writes only over files that are new or that run.json (or the journal of a killed run) lists as made by
these pipelines, and removes only files that earlier runs of the same pipeline and step made and this run did
not make again. Nothing is written before the first product, so that a refused run leaves no trace.
"""

import functools
import os
import platform
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path

from utils.application.log import LOGGER, set_crash_folder
from utils.application.product_list import FIGURE, FORMAT, RUN_FILE, find_products, load_run_file
from utils.application.run_journal import Journal, read_journal, remove_temporaries
from utils.errors import CalibrationError
from utils.fits_io.atomic import RefusedOutputError, plain, write_csv, write_json
from utils.fits_io.free_space import check_room
from utils.version import __version__

REJECTED = "rejected_frames.csv"
SUMMARY = "summary.csv"
REPORT = "report.html"
SUMMARY_COLUMNS = ("section", "name", "value", "error", "unit")
_LIBRARIES = ("numpy", "scipy", "astropy", "matplotlib")
_INSTALLED = re.compile(
    rf"({'|'.join(_LIBRARIES)})-(\d[^-]*)(?:-py[\d.]+)?\.(?:dist|egg)-info$", re.IGNORECASE
)


class Step:
    """One step under way: set ``summary`` (what, how many) before it ends; time and place are added."""

    def __init__(self, name):
        self.name = name
        self.summary = ""
        self.seconds = 0.0
        self.products = []


class RunRecord:
    """The record of one run; used as ``with RunRecord(...) as record:``, ended by ``record.finish()``.

    output_dir : the output folder.   pipeline : 'bias', ...   mode : --mode.
    options : mapping or dataclass, written to run.json.   argv : arguments of the command.
    dry_run : nothing is written.
    overwrite : files that are not ours, and a damaged run.json, may be replaced.
    Left by an exception after the first product, it writes run.json with what was made until then.
    Raises RefusedOutputError: run.json damaged or foreign, folder not writable, foreign files in the way.
    """

    def __init__(self, output_dir, pipeline, mode, options, argv, dry_run=False, overwrite=False):
        self.output_dir = Path(output_dir)
        self.pipeline, self.mode, self.dry_run, self.overwrite = pipeline, mode, dry_run, overwrite
        self.options = plain(asdict(options) if is_dataclass(options) else dict(options))
        self.argv = [str(word) for word in argv]
        self.status = 0
        self.inputs, self.steps, self.figures, self.values = [], [], [], []
        self.warnings, self.missing_list, self.rejected = [], [], []
        self._step = self._journal = None
        self._made, self._finished, self._kept_steps = {}, False, None
        self._started, self._clock = datetime.now(UTC), time.monotonic()
        if not dry_run:
            _check_writable(self.output_dir)
        self._load()
        for name in (REJECTED, SUMMARY, REPORT):  # Known from the start: refused now rather than at the end.
            self._refuse_foreign(self.output_dir / name)
        if not dry_run:
            set_crash_folder(self.output_dir)

    def _load(self):
        try:
            self._earlier, self._runs = load_run_file(self.output_dir)
        except RefusedOutputError:
            if not self.overwrite:
                raise
            self._earlier, self._runs = {}, []
        self._earlier = read_journal(self.output_dir) | self._earlier

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind is None:
            self.finish()
        elif self._journal is not None:
            # Something was written: say whose it is. Before that, a refused run leaves no trace.
            interrupted = issubclass(kind, KeyboardInterrupt)
            self.status = error.status if isinstance(error, CalibrationError) else 130 if interrupted else 3
            try:
                self._write_run_file(f"{kind.__name__}: {error}".rstrip(": "))
                self._close_journal(remove=True)
            except CalibrationError as failure:
                # The first error is the one to tell; the journal stays and says whose the files are.
                LOGGER.warning("%s", failure)
                self._close_journal(remove=False)

    # --- what happened ---------------------------------------------------------------------------------

    @contextmanager
    def step(self, name):
        """Time a step; afterwards one line: its summary, number and place of its products, seconds."""
        step = self._step = Step(name)
        self.steps.append(step)
        start = time.monotonic()
        try:
            yield step
        finally:
            step.seconds = time.monotonic() - start
            self._step = None
        LOGGER.info("%s", self._step_line(step))

    def _step_line(self, step):
        parts = [step.summary] if step.summary else []
        if step.products:
            folder = os.path.commonpath([os.path.dirname(self.output_dir / name) for name in step.products])
            count = len(step.products)
            parts.append(f"{count} file{'s' if count > 1 else ''} in {folder}")
        return f"{step.name}: {', '.join([*parts, f'{step.seconds:.1f} s'])}"

    def claim(self, path):
        """Reserve a path in the output folder for writing, before it is written, and return it as a Path.

        Raises RefusedOutputError if a file stands there that no run of these pipelines made (unless
        overwrite), if another run is writing in this folder, or if the folder cannot be written.
        """
        path = Path(path)
        relative = self._relative(path)
        self._refuse_foreign(path)
        if not self.dry_run:
            self._note(relative)
        return path

    def refuse_foreign(self, names):
        """Refuse, before anything is written, names below the output folder that files of others have.

        Raises RefusedOutputError for the first of them (unless overwrite).
        """
        for name in names:
            self._refuse_foreign(self.output_dir / name)

    def check_room(self, needed):
        """Refuse, before anything is written, a run of ``needed`` bytes that the disk cannot hold.

        What earlier runs of this pipeline made is written anew and counts as room.  Raises RefusedOutputError.
        """
        if self.dry_run:
            return
        own = [name for name, entry in self._earlier.items() if entry["pipeline"] == self.pipeline]
        files = (self.output_dir / name for name in own)
        check_room(self.output_dir, needed, sum(path.stat().st_size for path in files if path.is_file()))

    def add_product(self, path, prodtype, **facts):
        """List a product that has been written; it belongs to the current step. Facts are kept with it."""
        self._add(path, prodtype, facts)

    def add_figure(self, path, caption, section=""):
        """List a picture that has been written, with its caption and its section of the report."""
        self._add(path, FIGURE, {"caption": caption, "section": section})
        self.figures.append({"path": Path(path), "caption": caption, "section": section})

    def add_input(self, items):
        """List frames that went in: paths, or objects with path, size and mtime_ns (FitsImage)."""
        for item in items:
            if hasattr(item, "mtime_ns"):
                path, size, mtime_ns = item.path, item.size, item.mtime_ns
            else:
                path, status = os.fspath(item), os.stat(item)
                size, mtime_ns = status.st_size, status.st_mtime_ns
            self.inputs.append({"path": str(path), "size": size, "mtime": round(mtime_ns / 1e9, 6)})

    def warn(self, text):
        """Print a warning and keep it for run.json and the report."""
        self.warnings.append(text)
        LOGGER.warning("%s", text)

    def missing(self, what, reason):
        """Name something that was asked for and could not be made: status 1."""
        self.missing_list.append({"what": what, "reason": reason})
        self.status = max(self.status, 1)
        LOGGER.warning("missing: %s: %s", what, reason)

    def reject(self, path, reason):
        """List a frame that was left out, with the reason."""
        self.rejected.append({"path": str(path), "reason": reason})

    def value(self, name, value, unit="", error=None, section=""):
        """Keep a number for summary.csv and the report."""
        self.values.append({"section": section, "name": name, "value": value, "error": error, "unit": unit})

    def products(self, prodtype=None, *, made_by=""):
        """Products of this pipeline: of this run, and of earlier runs in steps that this run did not do.

        prodtype : str, or None for all but figures.   made_by : how to make them ("--mode make_master").
        Returns a list of ProductRef. Raises InputError if there is none, or a file is gone.
        """
        mine = {name: entry for name, entry in self._merged().items() if entry["pipeline"] == self.pipeline}
        return find_products(self.output_dir, mine, prodtype, made_by)

    def retire(self, kept=()):
        """Take all products of earlier runs of this pipeline for stale, but those of the steps ``kept``."""
        self._kept_steps = tuple(kept)

    # --- the end ---------------------------------------------------------------------------------------

    def finish(self):
        """Write rejected_frames.csv, summary.csv and run.json, remove stale products; return the status."""
        if self._finished or self.dry_run:
            self._finished = True
            return self.status
        rejected, summary = (self.claim(self.output_dir / name) for name in (REJECTED, SUMMARY))
        write_csv(rejected, self.rejected, ("path", "reason"))
        write_csv(summary, self.values, SUMMARY_COLUMNS)
        self.add_product(rejected, "REJECTED_FRAMES")
        self.add_product(summary, "SUMMARY")
        stale = self._stale()
        for name in stale:  # Until they are gone they must be known as ours.
            self._journal.note(name, self.pipeline, self._earlier[name]["step"])
        self._write_run_file("")
        for name in stale:
            self._remove(name)
        self._close_journal(remove=True)
        self._finished = True
        return self.status

    def _stale(self):
        merged = self._merged()
        return [name for name in self._earlier if name not in merged]

    def _remove(self, name):
        path = self.output_dir / name
        if not path.parent.resolve().is_relative_to(self.output_dir.resolve()):
            self.warn(f"{path}: not removed, its folder is a link that leads out of {self.output_dir}")
            return
        if path.is_file() or path.is_symlink():
            path.unlink()
            LOGGER.debug("removed %s, which this run did not make again", path)

    def _merged(self):
        """Earlier products and those of this run; what this run's steps did not make again is stale."""
        done = {step.name for step in self.steps}
        kept = {
            name: entry
            for name, entry in self._earlier.items()
            if entry["pipeline"] != self.pipeline or not self._is_stale(entry["step"], done)
        }
        return kept | self._made

    def _is_stale(self, step, done):
        return step in done or (self._kept_steps is not None and step not in self._kept_steps)

    def _write_run_file(self, error):
        path = self.output_dir / RUN_FILE
        products = self._merged()
        if error:
            # Written and not listed yet: they are ours nevertheless, and the next run may replace them.
            products = read_journal(self.output_dir) | self._earlier | self._made
        write_json(path, {"format": FORMAT, "products": products, "runs": [*self._runs, self._run(error)]})

    def _run(self, error):
        return {
            "pipeline": self.pipeline,
            "mode": self.mode,
            "argv": self.argv,
            "options": self.options,
            "status": self.status,
            "error": error or None,
            "start": self._started.isoformat(timespec="seconds"),
            "end": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._clock, 3),
            "steps": [
                {"name": step.name, "seconds": round(step.seconds, 3), "summary": step.summary}
                for step in self.steps
            ],
            "versions": versions(),
            "inputs": {"count": len(self.inputs), "files": self.inputs},
            "products": list(self._made),
            "removed": [] if error else self._stale(),
            "warnings": self.warnings,
            "missing": self.missing_list,
            "rejected": self.rejected,
        }

    # --- whose files ------------------------------------------------------------------------------------

    def _relative(self, path):
        """Path inside the output folder, with slashes, as run.json has it."""
        path = Path(path)
        if not path.is_relative_to(self.output_dir):
            path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(self.output_dir))
            if not path.is_relative_to(folder):
                raise ValueError(f"{path} is not in the output folder {folder}")
            return self._relative(self.output_dir / path.relative_to(folder))
        relative = path.relative_to(self.output_dir)
        if ".." in relative.parts or not relative.parts:
            raise ValueError(f"{path} is not a name in the output folder {self.output_dir}")
        return relative.as_posix()

    def _refuse_foreign(self, path):
        name = self._relative(path)
        if self.overwrite or name in self._earlier or name in self._made or not os.path.lexists(path):
            return
        raise RefusedOutputError(
            f"{path}: stands there but no run of these pipelines made it, expected a free name "
            "(another --output-dir, or --overwrite)"
        )

    def _note(self, name):
        if self._journal is None:
            self._journal = Journal(self.output_dir)
            # From here on no other run writes there: what one may have done since our start counts.
            self._load()
            remove_temporaries(self.output_dir)
        self._journal.note(name, self.pipeline, self._step.name if self._step else "")

    def _add(self, path, prodtype, facts):
        name = self._relative(path)
        if self.dry_run:
            raise ValueError(f"{name}: a dry run makes no products")
        if self._journal is None:
            self._note(name)
        if self._step is not None and name not in self._step.products:
            self._step.products.append(name)
        self._made[name] = {
            "prodtype": prodtype,
            "pipeline": self.pipeline,
            "step": self._step.name if self._step else "",
            "run": len(self._runs) + 1,
            "facts": plain(facts),
        }

    def _close_journal(self, *, remove):
        if self._journal is not None:
            self._journal.close(remove=remove)
            self._journal = None


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


def _check_writable(folder):
    """Refuse a folder that cannot be made or written, before the work and without writing anything."""
    place = Path(os.path.abspath(folder))
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise RefusedOutputError(f"{folder}: {place} is a file, expected a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RefusedOutputError(f"{folder}: {place} cannot be written, expected a writable output folder")
