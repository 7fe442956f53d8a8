"""The layers of the repository, read from the imports of every module."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIPELINES = ("bias_pipeline", "dark_pipeline", "flat_pipeline")

# Lowest first: a layer may import itself and those before it.
LAYERS = ("kernels", "fits_io", "domain", "application")
BELOW_ALL = {"utils.errors", "utils.version"}

NUMBERS = {"numpy", "scipy"}
THIRD_PARTY = {
    "kernels": NUMBERS,
    "fits_io": NUMBERS | {"astropy"},
    "domain": NUMBERS | {"astropy", "astroscrappy", "lensfunpy", "photutils"},
    "application": NUMBERS | {"astropy", "matplotlib", "pandas", "tqdm", "jinja2"},
}
ANY_REQUIREMENT = THIRD_PARTY["application"]
OPTIONAL = {"distributed": {"utils/fits_io/cluster.py", "utils/fits_io/cluster_unit.py"}}
"""Packages that a user may do without, and the only modules that may ask for them."""

# A kernel takes arrays and gives arrays: no files, no log, no command line.
NOT_IN_KERNELS = {
    "argparse",
    "csv",
    "io",
    "json",
    "logging",
    "os",
    "pathlib",
    "shutil",
    "subprocess",
    "tempfile",
}

MAX_LINES = 400
LONG_FILES = {}  # path relative to the root: the reason why it is longer


def modules():
    """Every tracked module outside the tests, as (relative path, source)."""
    tops = ["utils", *PIPELINES, "benchmarks"]
    paths = [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))] + sorted(ROOT.glob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def imported(source):
    """Dotted names that a module imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names.add("." * node.level + (node.module or ""))
            else:
                # The last part is a module (utils.kernels.noise) or a name in one (utils.errors.InputError).
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def allowed(relative, name):
    """Whether the module at `relative` may import `name`."""
    parts, wanted = relative.split("/"), name.split(".")
    top = wanted[0]
    if top == "":
        return False  # relative import
    layer = parts[1] if parts[0] == "utils" and len(parts) > 2 else None
    if top in sys.stdlib_module_names:
        return not (layer == "kernels" and top in NOT_IN_KERNELS)
    if top == "utils":
        if layer is None:
            return True
        if layer == "kernels":
            return len(wanted) > 1 and wanted[1] == "kernels"
        if ".".join(wanted[:2]) in BELOW_ALL:
            return True
        return len(wanted) > 1 and wanted[1] in LAYERS[: LAYERS.index(layer) + 1]
    if top in PIPELINES:
        # Steps know nothing of the command that calls them.
        above = parts[1:2] == ["steps"] and wanted[1:2] == ["run_pipeline"]
        return parts[0] == top and not above
    if top in OPTIONAL and parts[0] != "benchmarks":
        return relative in OPTIONAL[top]
    if layer is not None:
        return top in THIRD_PARTY[layer]
    return top in ANY_REQUIREMENT or parts[0] == "benchmarks"


@pytest.mark.parametrize(
    ("relative", "source"), modules(), ids=lambda value: value if "\n" not in value else ""
)
def test_imports_keep_the_layers(relative, source):
    forbidden = sorted(name for name in imported(source) if not allowed(relative, name))
    assert not forbidden, f"{relative} may not import {', '.join(forbidden)}"


@pytest.mark.parametrize(
    ("relative", "name", "expected"),
    [
        ("utils/kernels/noise.py", "numpy", True),
        ("utils/kernels/noise.py", "scipy.special.ndtr", True),
        ("utils/kernels/noise.py", "utils.kernels.combine", True),
        ("utils/kernels/noise.py", "astropy.io.fits", False),
        ("utils/kernels/noise.py", "logging", False),
        ("utils/kernels/noise.py", "utils.errors.InputError", False),
        ("utils/fits_io/stack.py", "utils.kernels.combine", True),
        ("utils/fits_io/stack.py", "utils.errors.InputError", True),
        ("utils/fits_io/stack.py", "utils.domain.masters", False),
        ("utils/fits_io/stack.py", "utils.observation_manager.ObservationManager", False),
        ("utils/domain/masters.py", "utils.application.log", False),
        ("utils/domain/masters.py", "matplotlib", False),
        ("utils/fits_io/cluster.py", "distributed", True),
        ("utils/fits_io/frame_stack.py", "distributed", False),
        ("bias_pipeline/run_pipeline.py", "distributed.Client", False),
        ("utils/application/plots.py", "matplotlib.figure.Figure", True),
        ("utils/application/plots.py", "bias_pipeline.figures", False),
        ("utils/raw_to_fits.py", "utils.application.command", True),
        ("utils/raw_to_fits.py", "bias_pipeline.steps", False),
        ("bias_pipeline/run_pipeline.py", "bias_pipeline.steps.step1_select_frames", True),
        ("bias_pipeline/run_pipeline.py", "dark_pipeline.steps", False),
        ("bias_pipeline/steps/step1_select_frames.py", "bias_pipeline.run_pipeline", False),
        ("bias_pipeline/steps/step1_select_frames.py", ".step2_make_masters", False),
        ("bias_pipeline/steps/step1_select_frames.py", "torch", False),
    ],
)
def test_the_rule_itself(relative, name, expected):
    assert allowed(relative, name) is expected


def test_imports_inside_functions_are_seen():
    source = "def f():\n    from utils.domain import masters\n    import pandas as pd\n    from . import x\n"
    assert imported(source) == {"utils.domain.masters", "pandas", "."}


def test_every_room_of_utils_is_a_known_layer():
    rooms = {path.parent.name for path in (ROOT / "utils").glob("*/__init__.py")}
    assert rooms == set(LAYERS)


def test_package_of_utils_imports_nothing():
    assert imported((ROOT / "utils" / "__init__.py").read_text(encoding="utf-8")) == set()


def test_every_package_folder_has_its_init():
    folders = {path.parent for top in ("utils", *PIPELINES) for path in (ROOT / top).rglob("*.py")}
    assert folders
    missing = sorted(
        str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()
    )
    assert not missing


def test_no_file_grows_beyond_its_reason():
    lines = {relative: source.count("\n") for relative, source in modules()}
    too_long = {relative: n for relative, n in lines.items() if n > MAX_LINES and relative not in LONG_FILES}
    assert not too_long, f"split these, or give a reason in LONG_FILES: {too_long}"
    stale = [relative for relative in LONG_FILES if lines.get(relative, 0) <= MAX_LINES]
    assert not stale, f"no longer long: {stale}"
