"""Processor time of a command alone, and of the processes that it started.

python -m benchmarks.client_share PROGRAM ARGUMENTS   runs it; the last line is {"own": s, "others": s, "peak": bytes}

The scheduler of `--scheduler local` runs in the command's process, its workers are others.
"""

import json
import resource
import runpy
import sys

if __name__ == "__main__":
    sys.argv[:] = sys.argv[1:]
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as leave:
        status = leave.code
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own, others = (one.ru_utime + one.ru_stime for one in used)
    print(json.dumps({"own": own, "others": others, "peak": used[0].ru_maxrss * 1024}))
    sys.exit(status)
