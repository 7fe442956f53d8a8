"""Which options each step uses; one that is given and no step of the mode uses is refused."""

from utils.application.options import ALWAYS

USED = {
    "select_frames": frozenset(("select", "scheduler", "temp-tolerance", "gain", "detector")),
    "make_masters": frozenset(
        (
            *("combine", "clip-sigma", "adu-scale", "saturation", "gain", "detector"),
            *("session-gap", "hot-pixel-mask"),
        )
    ),
    "fit_model": frozenset(),
    "synthesize": frozenset(("temps", "generate-set")),
    "evaluate": frozenset(("hot-pixel-mask",)),
    "report": frozenset(),
}
ALWAYS_BIAS = ALWAYS | {"save-eval-fits"}


def honoured(steps):
    """Options that the steps of a mode use."""
    return ALWAYS_BIAS.union(*(USED[step] for step in steps))
