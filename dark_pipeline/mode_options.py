"""Which options each step uses; one that is given and no step of the mode uses is refused."""

from utils.application.options import ALWAYS

SYNTHETIC = frozenset(("unit", "add-bias", "temps"))
USED = {
    "select_frames": frozenset(
        ("select", "scheduler", "temp-tolerance", "gain", "detector", "bias-model", "no-bias")
    ),
    "bias": frozenset(
        ("bias-model", "no-bias", "temp-tolerance", "adu-scale", "saturation", "session-gap", "combine")
    ),
    "dark_maps": frozenset(
        (
            *("combine", "clip-sigma", "adu-scale", "saturation", "gain", "detector", "session-gap"),
            *("hot-sigma", "hot-threshold", "save-corrected"),
        )
    ),
    "fit_1d": frozenset(),
    "fit_2d": frozenset(),
    "synthesize_1d": SYNTHETIC,
    "synthesize_2d": SYNTHETIC | {"exptimes"},
    "synthesize_single": frozenset(("unit", "add-bias", "temp-single", "exptime-single")),
    "evaluate_1d": frozenset(),
    "evaluate_2d": frozenset(),
    "report": frozenset(),
}
OTHER_MODEL = frozenset(("synthetic_only", "synthetic_2d", "synthetic_2d_single"))
"""Modes that can take a model from elsewhere; a full run makes its own."""


def honoured(mode, steps):
    """Options that a mode uses, by its steps."""
    own = {"model-dir"} if mode in OTHER_MODEL else set()
    return ALWAYS.union(own, *(USED[step] for step in steps))
