"""Older path of the degradation analysis: forwards to ``dark_pipeline/steps/outgasing_destruction_analysis.py``."""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from dark_pipeline.steps import outgasing_destruction_analysis as moved
from dark_pipeline.steps.outgasing_destruction_analysis import main, run_command

__all__ = list(moved.__all__)


def __getattr__(name):
    """Functions for notebooks, imported when they are asked for."""
    return getattr(moved, name)


if __name__ == "__main__":
    sys.exit(run_command(main))
