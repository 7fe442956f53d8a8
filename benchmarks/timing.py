"""Time and peak memory of whole processes.

Linux hands the memory of the parent to a child until it starts its own program, and counts it.  So a launcher that is
smaller than anything measured starts the command, waits for it and tells its usage.
"""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """One process.  seconds : wall clock, from start to end.  peak : resident memory at its highest [bytes].

    output : what it printed.  cpu : seconds of processors, its children's too.
    """

    seconds: float
    peak: int
    output: str = ""
    cpu: float = 0.0


_LAUNCHER = """
import os, sys, time
started = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - started
text = f"{os.waitstatus_to_exitcode(status)} {seconds} {usage.ru_maxrss} {usage.ru_utime + usage.ru_stime}"
os.write(int(sys.argv[1]), text.encode())
"""


def run_process(command, environment=None, allowed=(0,)):
    """Run a command to its end and return its `Run`; RuntimeError with its last lines where it fails."""
    words = [str(word) for word in command]
    reader, writer = os.pipe()
    with open(reader, encoding="ascii") as answers:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writer), *words],
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[writer],
                check=False,
            )
        finally:
            os.close(writer)
        found = answers.read().split()
    status = int(found[0]) if found else done.returncode
    if not found or status not in allowed:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise RuntimeError(f"{' '.join(words)}: status {status}\n{tail}")
    kilo = 1 if sys.platform == "darwin" else 1024
    return Run(float(found[1]), int(found[2]) * kilo, done.stdout, float(found[3]))


def alternate(commands, repeats, prepare=None, environment=None):
    """Run commands in turn, A B C A B C ..., so that a busy moment hits all of them.

    commands : dict name -> command.  repeats : runs that count; one more before them warms the caches.
    prepare : called with the name before each run, not timed.
    Returns a dict name -> `Run` of the median times and the highest peak.
    """
    found = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, command in commands.items():
            if prepare is not None:
                prepare(name)
            result = run_process(command, environment)
            if turn:
                found[name].append(result)
    return {name: median_run(runs) for name, runs in found.items()}


def median_run(runs):
    """`Run` with the median times and the highest peak of several."""
    middle = sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]
    seconds, cpu = (statistics.median(getattr(run, name) for run in runs) for name in ("seconds", "cpu"))
    return Run(seconds, max(run.peak for run in runs), middle.output, cpu)


def worker(module, *words):
    """Command that runs a module of this folder in a process of its own."""
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)]


def answer(run):
    """JSON that a worker printed as its last line."""
    return json.loads(run.output.strip().splitlines()[-1])
