"""Runs that are killed, and taken up with --resume: a process of its own, which forks each run from imported code.

python tests/killed_runs.py JOB.json      prints a line of JSON for each run that was killed

A job: {"command": one of COMMANDS, "argv": [...], "out": folder, "work": empty folder for the reference, "seed": int,
"kills": how many at random moments, in chains of "chain" kills each, "writes": how many in each kind of write,
"when": some of "write", "before", "after"}.
A random moment is the n-th call of a Python function, so that a seed means the same run on every machine; a kind of
write is the first half of what is written to a file of one suffix, or the moment before or after it takes its name.
"""

import builtins
import contextlib
import difflib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COMMANDS = {
    "bias": "bias_pipeline.run_pipeline",
    "dark": "dark_pipeline.run_pipeline",
    "flat": "flat_pipeline.run_pipeline",
    "structure": "structure_analysis",
    "degradation": "dark_pipeline.steps.outgasing_destruction_analysis",
    "raw": "utils.raw_to_fits",
    "calibrate": "utils.calibrate",
}
HEAVY = ("matplotlib.figure", "scipy.ndimage", "scipy.optimize", "scipy.special", "pandas", "jinja2", "numpy")


def main(job):
    """Do a job; yields {"moment", "status", "differences"} for each chain of kills, "status" of the last run."""
    out, reference = Path(job["out"]), Path(job["work"]) / "reference"
    start = Path(job["work"]) / "start"
    if out.exists():
        shutil.copytree(out, start, symlinks=True)
    counts_file = Path(job["work"]) / "counts.json"
    status = run(job, job["argv"], None, counts_file)
    if status not in job.get("statuses", [0]):
        raise SystemExit(f"the undisturbed run ended with {status}: {log_of(job)}")
    out.rename(reference)
    expected = contents(reference, out)
    counts = json.loads(counts_file.read_text())
    random_moments = random.Random(job["seed"])
    calls = counts.pop("call")
    for _ in range(0, job.get("kills", 0), job.get("chain", 1)):
        # A run that is taken up has less to do than the first one.
        moments = [
            ("call", random_moments.randrange(1, calls // (1 + number)))
            for number in range(job.get("chain", 1))
        ]
        yield one_chain(job, moments, start, expected, status)
    kinds = [
        kind for kind in sorted(counts) if kind.split()[0] in job.get("when", ("write", "before", "after"))
    ]
    for kind in kinds:
        count = counts[kind]
        for number in {1, *(random_moments.randrange(1, count + 1) for _ in range(job.get("writes", 0) - 1))}:
            if job.get("writes", 0):
                yield one_chain(job, [(kind, number)], start, expected, status)


def one_chain(job, moments, start, expected, status):
    """Kill a run, and its resumed runs, at the moments; compare what the last, undisturbed one leaves."""
    out = Path(job["out"])
    shutil.rmtree(out, ignore_errors=True)
    if start.exists():
        shutil.copytree(start, out, symlinks=True)
    killed, words = 0, list(job["argv"])
    for moment in moments:
        ended = run(job, words, moment)
        killed += ended == -signal.SIGKILL
        words = [*job["argv"], "--resume"]
    last = run(job, [*job["argv"], "--resume"], None)
    told = {"moments": moments, "killed": killed, "status": last, "differences": []}
    if last != status:
        told["differences"].append(f"status {last}, expected {status}: {log_of(job)}")
    else:
        told["differences"] += compare(expected, contents(out, out))
    return told


def run(job, argv, moment, counts=None):
    """Run the command in a process of its own; returns its status, -9 where it was killed."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            log = os.open(f"{job['work']}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            status = _run_here(job, argv, moment, counts)
        except Exception as error:
            os.write(2, repr(error).encode())
            raise
        finally:
            sys.stdout.flush()
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended < 0:
        with contextlib.suppress(ProcessLookupError):  # workers of its own
            os.killpg(child, signal.SIGKILL)
    return ended


def _run_here(job, argv, moment, counts):
    from utils.application.command import run_command
    from utils.fits_io import kept_results

    if job.get("keep", True):  # whatever was read, however small
        kept_results.WORTH = kept_results.LEAST = 0.0
    command = importlib.import_module(COMMANDS[job["command"]])
    hooks = Hooks(moment)
    hooks.install()
    status = run_command(command.main, argv)
    sys.setprofile(None)
    if counts is not None:
        counts.write_text(json.dumps(hooks.counts))
    return status


class Hooks:
    """Counts what happens, and kills the process at one moment.  moment : (kind, number from 1) or None."""

    def __init__(self, moment):
        self.moment, self.counts = moment, Counter()
        self.thread = threading.get_ident()

    def happened(self, kind):
        """Count one thing; returns whether it is the last."""
        self.counts[kind] += 1
        return self.moment is not None and tuple(self.moment) == (kind, self.counts[kind])

    def kill(self):
        """End this process as the system does when it must."""
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self):
        """Count calls, writes and renames from now on."""
        hooks, real_open, real_replace, real_pwrite = self, builtins.open, os.replace, os.pwrite
        names = {}

        def tell(frame, event, _):
            if event == "call" and hooks.happened("call"):
                hooks.kill()

        def opened(file, mode="r", *args, **kwargs):
            stream = real_open(file, mode, *args, **kwargs)
            if isinstance(file, int) or not set(mode) & set("wax"):
                return stream
            return _Stream(stream, f"write {suffix(file)}", hooks)

        def pwrite(descriptor, data, position):
            name = names.setdefault(descriptor, os.readlink(f"/proc/self/fd/{descriptor}"))
            if hooks.happened(f"write {suffix(name)}"):
                real_pwrite(descriptor, memoryview(data)[: len(data) // 2], position)
                hooks.kill()
            return real_pwrite(descriptor, data, position)

        def replace(source, target, **kwargs):
            if hooks.happened(f"before {suffix(target)}"):
                hooks.kill()
            real_replace(source, target, **kwargs)
            if hooks.happened(f"after {suffix(target)}"):
                hooks.kill()

        builtins.open = io.open = opened
        os.replace, os.pwrite = replace, pwrite
        if self.moment is None or self.moment[0] == "call":
            sys.setprofile(tell)


class _Stream:
    """A stream that may die in the middle of a write."""

    def __init__(self, stream, kind, hooks):
        self._stream, self._kind, self._hooks = stream, kind, hooks

    def write(self, data):
        if self._hooks.happened(self._kind):
            half = (
                data[: len(data) // 2]
                if isinstance(data, str)
                else memoryview(data).cast("B")[: len(data) // 2]
            )
            self._stream.write(half)
            self._stream.flush()
            self._hooks.kill()
        return self._stream.write(data)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        self._stream.__enter__()
        return self

    def __exit__(self, *exc):
        return self._stream.__exit__(*exc)

    def __iter__(self):
        return iter(self._stream)


def suffix(path):
    """Kind of a file by its name, also of a temporary one (.name.pid.tmp)."""
    name = Path(os.fspath(path)).name
    name = re.sub(r"^\.(.*)\.\d+\.tmp$", r"\1", name)
    return name if name in ("run.json", ".run_in_progress") else Path(name).suffix or "other"


# --- what is compared --------------------------------------------------------------------------------------


def contents(folder, place):
    """Path -> content of every file below a folder, without what differs from one run to the next.

    place : path of the output folder as the runs saw it.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            found[name + "/"] = b""
        elif path.name == "run.json":
            found[name] = _run_file(json.loads(path.read_text()))
        elif path.name == "report.html":
            found[name] = _report(path.read_text())
        elif path.name == "fits_index.csv":
            # Time of change of the FITS files, the last column.
            found[name] = re.sub(r",\d{18,}\r?\n", "\n", path.read_text()).encode()
        else:
            found[name] = path.read_bytes()
    return found


def _run_file(content):
    last = dict(content["runs"][-1])
    for key in ("argv", "start", "end", "seconds"):
        last.pop(key)
    last["steps"] = [(step["name"], step["summary"]) for step in last["steps"]]
    last["options"] = re.sub(r",? ?'resume': \w+", "", repr(last["options"]))
    blocks = [
        {**one, "done": [(step["name"], step["summary"]) for step in one["done"]]}
        for one in content["blocks"]
    ]
    products = {name: {**entry, "run": 0} for name, entry in content["products"].items()}
    for name, entry in products.items():
        if name.endswith("report.html"):
            entry.pop("digest")
    return json.dumps([products, blocks, last], indent=1).encode()


def _report(text):
    text = re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)
    text = re.sub(r'<div class="soft">.*?</div>', "", text, flags=re.S)
    text = re.sub(r'(<tr><td>\w+</td><td class="num">)[^<]*', r"\1", text)
    text = re.sub(r"\s*<tr><td>resume</td><td[^>]*>[^<]*</td></tr>", "", text)
    return re.sub(r"resume[^,<]*", "", text).encode()


def compare(expected, got):
    """What differs between two folders, in words."""
    told = [f"{name}: missing" for name in expected if name not in got]
    told += [f"{name}: should not be there" for name in got if name not in expected]
    for name in expected:
        if name in got and expected[name] != got[name]:
            told.append(f"{name}: differs {_where(expected[name], got[name])}")
    return told


def _where(one, other):
    try:
        lines = difflib.unified_diff(one.decode().splitlines(), other.decode().splitlines(), lineterm="", n=0)
        return " | ".join(line[:200] for line in list(lines)[:12])
    except UnicodeDecodeError:
        return f"({len(one)} and {len(other)} bytes)"


def log_of(job):
    return Path(job["work"], "log").read_text(errors="replace")[-2000:]


if __name__ == "__main__":
    for name in (*HEAVY, *COMMANDS.values(), "utils.application.report", "utils.application.plots"):
        importlib.import_module(name)
    given = json.loads(Path(sys.argv[1]).read_text())
    importlib.import_module(COMMANDS[given["command"]])
    for told in main(given):
        print(json.dumps(told), flush=True)
