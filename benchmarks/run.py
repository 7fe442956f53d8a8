"""Measure speed and memory, and print one table a section.

python -m benchmarks.run                       all sections, results to benchmarks/results/<date>.md and README.md
python -m benchmarks.run combine engine        some of them
python -m benchmarks.run --quick               small frames and few repeats: a look, not a result
"""

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import readme
from benchmarks.dark_sections import SECTIONS as DARK_SECTIONS
from benchmarks.degradation_sections import SECTIONS as DEGRADATION_SECTIONS
from benchmarks.flat_sections import SECTIONS as FLAT_SECTIONS
from benchmarks.scaling_sections import SECTIONS as SCALING_SECTIONS
from benchmarks.sections import SECTIONS as BIAS_SECTIONS
from benchmarks.sections import Plan
from benchmarks.table import document, machine
from benchmarks.use_sections import SECTIONS as USE_SECTIONS

SECTIONS = (
    BIAS_SECTIONS | DARK_SECTIONS | FLAT_SECTIONS | DEGRADATION_SECTIONS | USE_SECTIONS | SCALING_SECTIONS
)
RESULTS = Path(__file__).resolve().parent / "results"


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"any of {', '.join(SECTIONS)}")
    parser.add_argument("--side", type=int, default=2048, help="side of a square frame [pixels] (2048)")
    parser.add_argument("--frames", type=int, default=40, help="frames that are combined (40)")
    parser.add_argument("--repeats", type=int, default=5, help="runs that count, one more warms up (5)")
    parser.add_argument("--quick", action="store_true", help="512 x 512, 2 repeats, nothing written")
    parser.add_argument("--folder", type=Path, help="where the temporary frames go (8 GB at full size)")
    parser.add_argument("--output", type=Path, help="markdown file (default: benchmarks/results/<date>.md)")
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    unknown = sorted(set(args.sections) - set(SECTIONS))
    if unknown:
        print(f"unknown section {', '.join(unknown)}, expected {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    side, repeats = (512, 2) if args.quick else (args.side, args.repeats)
    started, where = time.perf_counter(), machine()
    found, failed = {}, []
    with tempfile.TemporaryDirectory(prefix="calibration-bench-", dir=args.folder) as folder:
        plan = Plan(Path(folder), side, args.frames, repeats, args.quick)
        for name, measure in SECTIONS.items():
            if args.sections and name not in args.sections:
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                found[name] = measure(plan)
            except RuntimeError as error:
                print(f"{name} could not be measured: {error}", file=sys.stderr)
                failed.append(name)
                continue
            print(found[name].markdown(), flush=True)
    text = document(found.values(), time.perf_counter() - started, failed, where)
    output = args.output
    if output is None and not args.quick and not args.sections:
        output = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}.md"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
        print(f"written: {output}", file=sys.stderr)
        if args.output is None and not failed:
            readme.show(found, where, output)
            print(f"written: {readme.README}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
