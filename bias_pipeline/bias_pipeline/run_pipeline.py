"""Older path of the bias pipeline's command: forwards to ``bias_pipeline/run_pipeline.py``."""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from bias_pipeline.run_pipeline import MODES, build_parser, main, run_command, steps

__all__ = ["MODES", "build_parser", "main", "run_command", "steps"]

if __name__ == "__main__":
    sys.exit(run_command(main))
