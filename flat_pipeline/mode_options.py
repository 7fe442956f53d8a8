"""Which options each mode can honour; any other that is given is refused."""

from utils.application.options import ALWAYS

FROM_FRAMES = frozenset(
    (
        *("select", "temp-tolerance", "adu-scale", "saturation", "gain", "detector", "combine", "clip-sigma"),
        *("flat-type", "dark-files-json", "dark-model", "bias-model", "no-dark", "norm-method"),
        "scheduler",
    )
)
ILLUMINATION = frozenset(("lensfun-json", "radial-json", "empirical-json"))
MODEL = frozenset(("t-ref", "exp-ref"))
PIXELS = frozenset(("dead-limit", "low-qe-limit"))
COMBINING = frozenset(("flat-type", "combine", "clip-sigma", "scheduler"))
ALWAYS_FLAT = ALWAYS | {"save-eval-fits"}

HONOURED = {
    "full": FROM_FRAMES | ILLUMINATION | MODEL | PIXELS,
    "full_no_vignetting": FROM_FRAMES | MODEL | PIXELS,
    "reduce_only": FROM_FRAMES,
    "normalize_only": FROM_FRAMES,
    "vignetting_only": COMBINING | ILLUMINATION,
    "make_master": FROM_FRAMES | PIXELS,
    "fit_model": MODEL | {"flat-type"},
    "evaluate_model": frozenset(("temp-tolerance", "flat-type")),
    "characterize": (FROM_FRAMES - {"norm-method", "flat-type"}) | PIXELS,
}
FROM_FILES = {"normalize_only": frozenset(("flat-type", "norm-method")), "make_master": COMBINING | PIXELS}
"""The same without --basepath, where the mode starts from files of an earlier run."""


def honoured(mode, from_frames):
    """Options that a mode uses; from_frames : --basepath was given."""
    own = HONOURED[mode] if from_frames else FROM_FILES.get(mode, HONOURED[mode])
    return own | ALWAYS_FLAT
