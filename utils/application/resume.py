"""What an earlier run made and need not be made again: --resume.

Steps that belong together are a `Block`: what they were made from (frames, options, files that options name, products
of the steps before, versions) is told in run.json beside what they made.  A block whose sources are the same and whose
files all stand whole is kept, with its warnings, numbers and rejected frames; any other is made again, and why is
said.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from utils.application.log import LOGGER
from utils.application.product_list import FIGURE, UNFINISHED
from utils.application.versions import versions
from utils.fits_io import file_digest
from utils.fits_io.atomic import plain
from utils.fits_io.naming import counted

LISTS = ("warnings", "missing_list", "rejected", "values", "inputs")
"""Lists of the run record that steps add to."""
COMBINING = ("combine", "clip_sigma", "temp_tolerance", "adu_scale", "saturation", "gain", "detector")
"""Shared options on which combined frames depend."""


@dataclass(frozen=True)
class Block:
    """Steps that are kept or made together.

    steps : names.  options : names of the options that change what they make.  frames : the frames selected go in.
    reads : steps whose products go in, where they are not of the block itself.
    told : what the run has told so far goes in (a report).
    """

    steps: tuple
    options: tuple = ()
    frames: bool = False
    reads: tuple = ()
    told: bool = False


def run_steps(record, names, blocks, functions, config, context, *, dry=(), after=None):
    """Run the steps of a mode, those of a block together; with --resume only what is missing or stale.

    names : of the steps, in order; one without a block always runs.  functions : name -> step.  dry : steps that a dry
    run does.  after : called with the name of each step done.
    """
    for steps, block in _in_blocks(names, blocks):
        if block is not None and record.keeper.keep(block, steps, config, context):
            continue
        for name in steps:
            if record.dry_run and name not in dry:
                continue
            functions[name](config, context)
            if after is not None:
                after(name)
        if block is not None:
            record.keeper.end()


def _in_blocks(names, blocks):
    """[(steps, block or None)]: neighbours of one block together."""
    found = []
    for name in names:
        block = next((one for one in blocks if name in one.steps), None)
        if found and block is not None and found[-1][1] is block:
            found[-1][0].append(name)
        else:
            found.append(([name], block))
    return found


class Keeper:
    """Decides for a `RunRecord` what can stay.  resume : anything may; else only what is made is noted.

    blocks : (pipeline, steps) -> record of a block that ended.  files : path -> entry of run.json, of whole files.
    """

    def __init__(self, record, resume):
        self.record, self.resume = record, resume
        self.blocks, self.files = {}, {}
        self._source = self._start = None
        self._kept, self._made, self._to_make = [], [], set()
        self._checked, self._stood, self._taken = {}, 0, 0

    def load(self, products, blocks, left):
        """Take what run.json and the journal of a killed run tell."""
        self.files = {name: entry.get("made", entry) for name, entry in products.items()} | left.made
        self.blocks = {
            (one["pipeline"], tuple(one["steps"])): one for one in [*blocks, *left.blocks] if _usable(one)
        }

    def keep(self, block, steps, config, context):
        """Whether the block is kept; else its steps are about to be made."""
        record = self.record
        source = self._made_from(block, steps, config, context)
        self._source = {"steps": steps, "made_from": source, "hash": _hash(source)}
        self._start = {name: len(getattr(record, name)) for name in (*LISTS, "steps")}
        self._start["products"] = set(record.made)
        if not self.resume:
            return False
        before = self.blocks.get((record.pipeline, tuple(steps)))
        name, reason = _words(steps), self._why_not(before, source)
        would = "would be " if record.dry_run else ""
        after = self._to_make & set(block.reads) if record.dry_run else ()
        if after and reason is None:
            # Whether it stays is known when that has been made.
            reason = f"perhaps, as {', '.join(sorted(after))} would be"
        if reason is None:
            self._kept.append(name)
            LOGGER.info("resume: %s %skept (%s)", name, would, counted(len(before["products"]), "file"))
            self._replay(before)
            self._source = None
            return True
        self._made.append(name)
        self._to_make |= set(steps)
        LOGGER.info("resume: %s %smade: %s", name, would, reason)
        return False

    def end(self):
        """Note what the block that was under way has made."""
        record, source, start = self.record, self._source, self._start
        self._source = None
        if record.dry_run:
            return
        self._say_what_helped()
        told = {name: getattr(record, name)[start[name] :] for name in LISTS}
        done = [
            {
                "name": step.name,
                "seconds": step.seconds,
                "summary": step.summary,
                "products": list(step.products),
            }
            for step in record.steps[start["steps"] :]
        ]
        made = [name for name in record.made if name not in start["products"]]
        one = {"pipeline": record.pipeline, **source, "products": made, "done": done, "told": told}
        one = _with_text(one)
        self.blocks[record.pipeline, tuple(source["steps"])] = one
        record.note_block(one)

    def _say_what_helped(self):
        """Say what of a block that was made again was there already."""
        store = self.record.store
        groups = store.taken - self._taken
        self._taken = store.taken
        if self.resume and (self._stood or groups):
            files, self._stood = self._stood, 0
            LOGGER.info(
                "resume: of that %s and %s of frames as read before",
                counted(files, "whole file"),
                counted(groups, "result"),
            )

    def stands(self, name):
        """Whether a file of the block under way is there already, whole and made from the same."""
        entry = self.files.get(name)
        if (
            not self.resume
            or self._source is None
            or entry is None
            or entry.get("made_from") != self._source["hash"]
        ):
            return False
        whole = self._whole(name)
        self._stood += whole
        return whole

    def marks(self, path):
        """Tell for the entry of a new file what it holds and what it was made from."""
        try:
            found = {"digest": file_digest.digest(path)}
        except (OSError, ValueError):
            return {}
        return found if self._source is None else found | {"made_from": self._source["hash"]}

    def ended(self):
        """Say what was kept of the whole run."""
        if self.resume and (self._kept or self._made):
            made = f", made: {', '.join(self._made)}" if self._made else ", nothing to make"
            LOGGER.info(
                "resume: %d of %d parts kept%s", len(self._kept), len(self._kept) + len(self._made), made
            )

    def listed(self, products):
        """Records of blocks for run.json: those of which no product is gone."""
        return [one for one in self.blocks.values() if all(name in products for name in one["products"])]

    # --- what a block is made from -----------------------------------------------------------------------------

    def _made_from(self, block, steps, config, context):
        record, reads = self.record, set(block.reads) - set(steps)
        options = {name: _option(config, name) for name in block.options}
        paths = {name: value for name, value in options.items() if isinstance(value, Path)}
        products = {
            name: entry.get("digest")
            for name, entry in record.listed().items()
            if entry["pipeline"] == record.pipeline
            and entry["step"] in reads
            and entry["prodtype"] != UNFINISHED
        }
        frames = list(context.frames()) if block.frames else []
        source = {
            "versions": versions(),
            "mode": record.mode,
            "options": plain(options),
            "files": {name: _facts_of(path) for name, path in paths.items()},
            "frames": {"count": len(frames), "sha256": _of_frames(frames)},
            "products": {"count": len(products), "sha256": _hash(sorted(products.items()))},
        }
        if block.told:
            source["told"] = _hash(_with_text({"told": {name: getattr(record, name) for name in LISTS}}))
        return source

    def _why_not(self, before, source):
        """Why the block of an earlier run cannot stay, None where it can."""
        if before is None:
            return "not made before, or not finished"
        if reason := _difference(before["made_from"], source):
            return reason
        names = before["products"]
        unlisted = [name for name in names if "digest" not in self.files.get(name, {})]
        if unlisted:
            return f"{unlisted[0]} is not listed as made"
        with ThreadPoolExecutor(4) as pool:
            whole = list(pool.map(self._whole, names))
        bad = [name for name, good in zip(names, whole, strict=True) if not good]
        if not bad:
            return None
        gone = [name for name in bad if not (self.record.output_dir / name).is_file()]
        other = [name for name in bad if name not in gone]
        words = [
            f"{counted(len(some), 'file')} {what}, the first: {some[0]}"
            for some, what in ((gone, "missing"), (other, "changed or damaged"))
            if some
        ]
        return "; ".join(words)

    def _whole(self, name):
        if name not in self._checked:
            expected = self.files.get(name, {}).get("digest")
            self._checked[name] = expected is not None and file_digest.stands(
                self.record.output_dir / name, expected
            )
        return self._checked[name]

    def _replay(self, before):
        """Enter what the block told and made when it was run."""
        record, told = self.record, json.loads(before["told"])
        for name in before["products"]:
            record.made[name] = self.files[name]
        for step in before["done"]:
            record.take_step(**step)
        for text in told["warnings"]:
            record.warn(text)
        for one in told["missing_list"]:
            record.missing(one["what"], one["reason"])
        for name in ("rejected", "values", "inputs"):
            getattr(record, name).extend(told[name])
        for name in before["products"]:
            if self.files[name]["prodtype"] == FIGURE:
                facts = self.files[name]["facts"]
                record.figures.append(
                    {
                        "path": record.output_dir / name,
                        "caption": facts["caption"],
                        "section": facts["section"],
                    }
                )


def _words(steps):
    return steps[0] if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"


def _usable(one):
    """Whether a record of a block has the form that we write."""
    kinds = {
        "pipeline": str,
        "steps": list,
        "made_from": dict,
        "hash": str,
        "products": list,
        "done": list,
        "told": str,
    }
    if not isinstance(one, dict) or not all(isinstance(one.get(key), kind) for key, kind in kinds.items()):
        return False
    texts = all(isinstance(name, str) for name in (*one["steps"], *one["products"]))
    done = all(
        isinstance(step, dict) and set(step) == {"name", "seconds", "summary", "products"}
        for step in one["done"]
    )
    return texts and done


def _with_text(one):
    """The same with ``told`` as JSON text, in which NaN stays NaN."""
    return {**one, "told": json.dumps(one["told"], default=_number)}


def _number(value):
    return value.item() if hasattr(value, "item") else plain(value)


def _hash(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _option(config, name):
    """Value of an option: of the shared ones first, as a config may have a property of that name."""
    return getattr(config.shared if hasattr(config.shared, name) else config, name)


def _facts_of(path):
    """Name, size and time of change of a file, or of the files in a folder."""
    paths = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    found = []
    for one in paths:
        status = os.stat(one)
        found.append([os.fspath(one), status.st_size, status.st_mtime_ns])
    return _hash(found)


def _of_frames(frames):
    """Digest of frames: (entry, image) each.  The data sum is told by some headers only, and found by reading."""
    found = hashlib.sha256()
    for entry, image in frames:
        facts = {key: value for key, value in entry.items() if key != "datasum"}
        line = [facts, image.size, image.mtime_ns]
        found.update(json.dumps(line, sort_keys=True, default=str).encode())
    return found.hexdigest()


def _difference(before, now):
    """Say in words how two sources of a block differ, None where they do not."""
    for key, what in (("versions", "version"), ("options", "option")):
        old, new = before.get(key), now[key]
        old = old if isinstance(old, dict) else {}
        changed = [name for name in new if old.get(name, "none") != new[name]]
        if changed:
            words = ", ".join(f"{name} {old.get(name)} -> {new[name]}" for name in changed)
            return f"{what} changed ({words})"
    for key, words in (
        ("mode", "made by another mode"),
        ("files", "a file that an option names has changed"),
        ("frames", "frames have changed"),
        ("products", "what it reads has changed"),
        ("told", "what the run tells has changed"),
    ):
        if before.get(key) != now.get(key):
            return words
    return None if before == now else "made by another version"
