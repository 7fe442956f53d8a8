"""What a unit of work costs on a Dask cluster of this machine.

python -m benchmarks.scheduler_units WORKERS UNITS   seconds to connect, and [clock, processor] of a unit of each kind
"""

import json
import sys
import time
from contextlib import contextmanager

import numpy as np

from utils.fits_io import cluster

SIDE = 1 << 10
"""Side of the block of float32 that is sent, or comes back: `cluster.RESULT_BYTES`."""


@contextmanager
def empty(memory_limit):
    yield lambda part: 0


@contextmanager
def answering(memory_limit):
    yield lambda part: np.full((SIDE, SIDE), part, np.float32)


def seconds_each(prepare, parts):
    """Seconds of the clock and of this process, in which the scheduler runs too, for each part."""
    began, used = time.perf_counter(), time.process_time()
    count = sum(1 for _ in cluster.units(prepare, (), parts, what="units", total=len(parts)))
    return (time.perf_counter() - began) / count, (time.process_time() - used) / count


def main(workers, count):
    block = np.random.default_rng(1).standard_normal((SIDE, SIDE), dtype=np.float32)
    began = time.perf_counter()
    with cluster.connect(f"local:{workers}"):
        connected = time.perf_counter() - began
        few = max(8, int(count) // 10)
        seconds_each(empty, range(20))  # the program is loaded at every worker
        found = {
            "connect": connected,
            "empty": seconds_each(empty, range(int(count))),
            "out": seconds_each(empty, [block] * few),
            "back": seconds_each(answering, range(few)),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
