"""What a run did: run.json, rejected_frames.csv, summary.csv; whose files are whose in an output folder.

A run writes only over files that are new or that run.json (or the journal of a killed run) lists as made by
these pipelines, and removes only files that earlier runs of the same pipeline and step made and this run did
not make again. Nothing is written before the first product, so that a refused run leaves no trace.
"""

import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from pathlib import Path

from utils.application.log import LOGGER, set_crash_folder
from utils.application.product_list import FIGURE, FORMAT, RUN_FILE, find_products, load_whole_run_file
from utils.application.resume import Keeper
from utils.application.run_journal import JOURNAL, Journal, check_alone, read_journal, remove_temporaries
from utils.application.versions import versions
from utils.errors import CalibrationError
from utils.fits_io import kept_results
from utils.fits_io.atomic import RefusedOutputError, check_writable, plain, write_csv, write_json
from utils.fits_io.free_space import check_room

REJECTED = "rejected_frames.csv"
SUMMARY = "summary.csv"
REPORT = "report.html"
SUMMARY_COLUMNS = ("section", "name", "value", "error", "unit")


@dataclass
class Step:
    """One step under way: set ``summary`` (what, how many) before it ends; time and place are added."""

    name: str
    summary: str = ""
    seconds: float = 0.0
    products: dict = field(default_factory=dict)


class RunRecord:
    """The record of one run; used as ``with RunRecord(...) as record:``, ended by ``record.finish()``.

    output_dir : the output folder.   pipeline : 'bias', ...   mode : --mode.
    options : mapping or dataclass, written to run.json.   argv : arguments of the command.
    dry_run : nothing is written.
    overwrite : files that are not ours, and a damaged run.json, may be replaced.
    resume : what earlier runs made from the same is kept, see :mod:`utils.application.resume`.
    Left by an exception after the first product, it writes run.json with what was made until then.
    Raises RefusedOutputError: run.json damaged or foreign, folder not writable, foreign files in the way.
    """

    def __init__(
        self, output_dir, pipeline, mode, options, argv, dry_run=False, overwrite=False, resume=False
    ):
        self.output_dir = Path(output_dir)
        self.pipeline, self.mode, self.dry_run, self.overwrite = pipeline, mode, dry_run, overwrite
        self.options = plain(asdict(options) if is_dataclass(options) else dict(options))
        self.argv = [str(word) for word in argv]
        self.inputs, self.steps, self.figures, self.values = [], [], [], []
        self.warnings, self.missing_list, self.rejected = [], [], []
        self.status, self._step, self._journal = 0, None, None
        self.made, self._finished, self._kept_steps = {}, False, None
        self._started, self._clock = datetime.now(UTC), time.monotonic()
        self.keeper, self._noted = Keeper(self, resume), False
        self.store = kept_results.Store(self.output_dir, take=resume, begin=self._open_journal)
        if not dry_run:
            check_writable(self.output_dir)
            self._tell_of_killed(check_alone(self.output_dir))
        self._load()
        for name in (REJECTED, SUMMARY, REPORT):  # Known from the start: refused now rather than at the end.
            self._refuse_foreign(self.output_dir / name)
        if not dry_run:
            set_crash_folder(self.output_dir)
            if resume and any((self.output_dir / name).exists() for name in (RUN_FILE, JOURNAL)):
                self._open_journal()

    @classmethod
    def of(cls, shared, pipeline, mode, options, argv):
        """Make the record of a command with `SharedOptions`."""
        switches = {name: getattr(shared, name) for name in ("dry_run", "overwrite", "resume")}
        return cls(shared.output_dir, pipeline, mode, options, argv, **switches)

    def _tell_of_killed(self, owner):
        if owner:
            what = "is taken up" if self.keeper.resume else "is made again (--resume would take it up)"
            LOGGER.info(
                "%s: %s did not finish and holds no lock any more: its work %s", self.output_dir, owner, what
            )

    def _load(self):
        try:
            self._earlier, self._runs, blocks = load_whole_run_file(self.output_dir)
        except RefusedOutputError:
            if not self.overwrite:
                raise
            self._earlier, self._runs, blocks = {}, [], []
        self._left = read_journal(self.output_dir)
        self.keeper.load(self._earlier, blocks, self._left)
        self._earlier = self._left.noted | self._earlier

    def _open_journal(self):
        """Take the folder for this run: from here on no other run writes there."""
        if self._journal is None:
            self._journal = Journal(self.output_dir)
            self._load()  # what another run may have done since our start counts
            remove_temporaries(self.output_dir)
            self.store.prepare()

    def __enter__(self):
        if not self.dry_run:
            kept_results.use(self.store)
        return self

    def __exit__(self, kind, error, _):
        kept_results.use(None)
        if kind is None:
            self.finish()
        elif self._journal is not None and not self._noted and isinstance(error, CalibrationError):
            if not self._journal.was_there:
                self.store.remove()
            self._journal.give_up()
            self._journal = None
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

    def stands(self, path):
        """Whether a file that is to be made now stands there already, whole and made from the same.

        Only with --resume, and only where something else of its block is missing.
        """
        return self.keeper.stands(self._relative(path))

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
        self.store.reserve = needed
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
        mine = {name: entry for name, entry in self.listed().items() if entry["pipeline"] == self.pipeline}
        return find_products(self.output_dir, mine, prodtype, made_by)

    def retire(self, kept=()):
        """Take all products of earlier runs of this pipeline for stale, but those of the steps ``kept``."""
        self._kept_steps = tuple(kept)

    # --- the end ---------------------------------------------------------------------------------------

    def finish(self):
        """Write rejected_frames.csv, summary.csv and run.json, remove stale products; return the status."""
        if self._finished or self.dry_run:
            if not self._finished:
                self.keeper.ended()
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
        self.store.remove()
        self._close_journal(remove=True)
        self._finished = True
        self.keeper.ended()
        return self.status

    def _stale(self):
        merged = self.listed()
        return [name for name in self._earlier if name not in merged]

    def _remove(self, name):
        path = self.output_dir / name
        if not path.parent.resolve().is_relative_to(self.output_dir.resolve()):
            self.warn(f"{path}: not removed, its folder is a link that leads out of {self.output_dir}")
            return
        if path.is_file() or path.is_symlink():
            path.unlink()
            LOGGER.debug("removed %s, which this run did not make again", path)

    def listed(self):
        """Entries of run.json: earlier products and those of this run; what its steps did not make again is stale."""
        done = {step.name for step in self.steps}
        kept = {
            name: entry
            for name, entry in self._earlier.items()
            if name not in self.made
            and (entry["pipeline"] != self.pipeline or not self._is_stale(entry["step"], done))
        }
        return kept | self.made

    def _is_stale(self, step, done):
        return step in done or (self._kept_steps is not None and step not in self._kept_steps)

    def _write_run_file(self, error):
        path = self.output_dir / RUN_FILE
        products = self.listed()
        if error:
            # Written and not listed yet: they are ours nevertheless, and the next run may replace them.
            left = read_journal(self.output_dir)
            noted = {
                name: entry | ({"made": left.made[name]} if name in left.made else {})
                for name, entry in left.noted.items()
            }
            products = noted | self._earlier | self.made
        runs, blocks = [*self._runs, self._run(error)], self.keeper.listed(products)
        write_json(path, {"format": FORMAT, "products": products, "runs": runs, "blocks": blocks})

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
            "products": list(self.made),
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
        if self.overwrite or name in self._earlier or name in self.made or not os.path.lexists(path):
            return
        raise RefusedOutputError(
            f"{path}: stands there but no run of these pipelines made it, expected a free name "
            "(another --output-dir, or --overwrite)"
        )

    def _note(self, name):
        self._open_journal()
        self._noted = True
        self._journal.note(name, self.pipeline, self._step.name if self._step else "")

    def note_block(self, one):
        """Write down that the steps of a block have ended."""
        if self._journal is not None:
            self._journal.block(one)

    def take_step(self, **facts):
        """List a step of an earlier run as one of this run."""
        self.steps.append(Step(**{**facts, "products": dict.fromkeys(facts["products"])}))

    def _add(self, path, prodtype, facts):
        name = self._relative(path)
        if self.dry_run:
            raise ValueError(f"{name}: a dry run makes no products")
        if self._journal is None:
            self._note(name)
        if self._step is not None:
            self._step.products[name] = None
        self.made[name] = {
            "prodtype": prodtype,
            "pipeline": self.pipeline,
            "step": self._step.name if self._step else "",
            "run": len(self._runs) + 1,
            "facts": plain(facts),
            **self.keeper.marks(path),
        }
        self._journal.made(name, self.made[name])

    def _close_journal(self, *, remove):
        if self._journal is not None:
            self._journal.close(remove=remove)
            self._journal = None
