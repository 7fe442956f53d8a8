"""Raw frames converted by threads of this process, or in batches by the workers of a cluster."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from operator import itemgetter

from utils.fits_io import cluster
from utils.fits_io.raw_attempt import convert_frame

_QUEUED_PER_JOB = 4


def converted(frames, overwrite=False, dry_run=False, resume=False, *, jobs=1):
    """Yield the results of all frames in their order, few of them waiting at a time.

    frames : sequence of `utils.fits_io.raw_attempt.Frame`.  jobs : threads, where there is no cluster.
    Yields what `utils.fits_io.raw_attempt.convert_frame` gives.
    """
    if cluster.connected() and frames:
        largest = max(frame.attempt.n_bytes for frame in frames)
        done = cluster.in_batches(
            _batch, (overwrite, dry_run, resume), [_as_sent(frame) for frame in frames], largest,
            what="frames", witness=frames[0].raw,
        )  # fmt: skip
        yield from (_as_planned(one, frames[index]) for index, one in sorted(done, key=itemgetter(0)))
    elif jobs == 1 or len(frames) < 2:
        yield from (convert_frame(frame, overwrite, dry_run, resume) for frame in frames)
    else:
        yield from _from_threads(
            partial(convert_frame, overwrite=overwrite, dry_run=dry_run, resume=resume), frames, jobs
        )


def _from_threads(convert, frames, jobs):
    pool = ThreadPoolExecutor(min(jobs, len(frames)))
    waiting = deque()
    try:
        for frame in frames:
            waiting.append(pool.submit(convert, frame))
            if len(waiting) >= _QUEUED_PER_JOB * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # On Ctrl-C the frames in work are finished (each is atomic), the others are not begun.
        pool.shutdown(cancel_futures=True)


def _batch(overwrite, dry_run, resume, frames):
    """Convert frames at a worker of a cluster; their results, without the frames, which the caller has."""
    results = [convert_frame(frame, overwrite, dry_run, resume) for frame in frames]
    for result in results:
        result.frame = None
    return results


def _as_sent(frame):
    """Return the frame with absolute paths: workers of a cluster run in folders of their own."""
    return replace(frame, raw=os.path.abspath(frame.raw), output=os.path.abspath(frame.output))


def _as_planned(result, frame):
    """Return the result of ``_as_sent(frame)`` with the paths of the frame as it was planned."""
    sent = _as_sent(frame)
    result.frame = frame
    result.problems = [
        replace(one, path=frame.raw) if one.path == sent.raw else one for one in result.problems
    ]
    if result.row is not None:
        result.row["PATH"] = frame.output
    return result
