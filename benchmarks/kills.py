"""Runs that are killed at hundreds of random moments, and in each kind of write, and taken up with --resume.

python -m benchmarks.kills [KILLS]      kills of each pipeline (default: 100); a table, status 1 where anything differs
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHAIN, WRITES = 4, 3
"""Kills in a row before a run may end; moments in each kind of write."""


def main(kills=100):
    """Do all jobs; returns the number of runs that came out otherwise."""
    sys.path.insert(0, str(ROOT / "tests"))
    import bias_frames
    import dark_frames
    import flat_frames

    wrong = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        place = Path(folder)
        bias_frames.campaign(place / "bias", shape=(48, 64), temperatures=(-20, -5, 10), n=6, seed=3)
        dark_frames.campaign(place / "dark", dark_frames.sensor((48, 64)), temperatures=(-5, 5, 15), n=5)
        flat_frames.campaign(place / "flat", flat_frames.sensor((48, 64)), n=6, bias_n=6, dark_n=6)
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        print(
            "| pipeline | killed at random moments | in a kind of write | came out otherwise |\n|---|---|---|---|"
        )
        for name in ("bias", "dark", "flat"):
            told = _job(place, name, kills)
            random = sum(one["killed"] for one in told if one["moments"][0][0] == "call")
            writes = sum(one["killed"] for one in told if one["moments"][0][0] != "call")
            other = [one for one in told if one["differences"]]
            print(f"| {name} | {random} | {writes} | {len(other)} |", flush=True)
            for one in other:
                print(one["moments"], *one["differences"], sep="\n    ", file=sys.stderr)
            wrong += len(other)
    return wrong


def _job(place, name, kills):
    (place / f"{name}_work").mkdir()
    out = str(place / f"{name}_out")
    job = {
        "command": name,
        "argv": ["--basepath", str(place / name), "--output-dir", out, "--plots", "none"],
        "out": out,
        "work": str(place / f"{name}_work"),
        "seed": 2026,
        "kills": kills,
        "chain": CHAIN,
        "writes": WRITES,
    }
    path = place / f"{name}.json"
    path.write_text(json.dumps(job))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(
        [sys.executable, "tests/killed_runs.py", str(path)], cwd=ROOT, env=environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(1 if main(*map(int, sys.argv[1:2])) else 0)
