"""No command changes what it reads: content, size, time of change and mode of every input file, over all commands."""

import hashlib
import os
import shutil
from pathlib import Path

import fault_frames
import flat_frames
import pytest
from bias_frames import files

from dark_pipeline.steps import outgasing_destruction_analysis as degradation
from flat_pipeline.run_pipeline import MODES as FLAT_MODES
from structure_analysis import main as structure_main
from utils import bad_pixels, calibrate, compare_products, plan_campaign, raw_to_fits, simulate_campaign
from utils.application.command import run_command
from utils.observation_manager import ObservationManager


def state(folder):
    """What stands below a folder: name -> kind, size, times, mode and checksum; folders count as well."""
    found = {}
    for place in [folder, *sorted(folder.rglob("*"))]:
        status = os.lstat(place)
        digest = hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else None
        target = os.readlink(place) if place.is_symlink() else None
        facts = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_ino)
        found[str(place.relative_to(folder))] = (*facts, status.st_size if digest else None, digest, target)
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A night with odd frames in it, each file of another mode and age, and the products of all pipelines."""
    root = tmp_path_factory.mktemp("inputs")
    night = root / "night"
    fault_frames.campaign(night)
    frames = sorted(night.glob("*/*.fits"))
    frames[1].write_bytes(frames[1].read_bytes()[:3500])
    frames[25].write_bytes(b"")
    (night / "again").symlink_to(night)
    for number, path in enumerate(frames):
        path.chmod((0o444, 0o600, 0o644, 0o400)[number % 4])
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in fault_frames.PIPELINES:
            words = ("--basepath", night, "--output-dir", root / "products" / name, "--quiet")
            assert fault_frames.run(name, *words) == 0
    return root


def command(main, *words):
    return run_command(main, [str(word) for word in words])


def of_pipeline(name, *options):
    return lambda root, out: fault_frames.run(
        name, "--basepath", root / "night", "--output-dir", out, *options
    )


def made(root, name):
    return root / "products" / name


COMMANDS = {
    "bias": of_pipeline("bias", "--save-eval-fits", "--generate-set"),
    "dark": of_pipeline("dark", "--save-corrected"),
    "flat": of_pipeline("flat", "--save-eval-fits"),
    "flat reduce_only": of_pipeline("flat", "--mode", "reduce_only"),
    "flat normalize_only": of_pipeline("flat", "--mode", "normalize_only"),
    "flat characterize": of_pipeline("flat", "--mode", "characterize"),
    "flat sky": of_pipeline("flat", "--flat-type", "sky"),
    "flat with models": lambda root, out: of_pipeline(
        "flat",
        "--dark-model",
        made(root, "dark") / "dark_model_2d",
        "--bias-model",
        made(root, "bias") / "bias_model",
    )(root, out),
    "dark with model": lambda root, out: of_pipeline(
        "dark", "--bias-model", made(root, "bias") / "bias_model"
    )(root, out),
    "structure": lambda root, out: command(
        structure_main, root / "night", "--output-dir", out, "--plots", "none"
    ),
    "structure --reduce": lambda root, out: command(
        structure_main, root / "night", "--reduce", "--output-dir", out, "--plots", "none"
    ),
    "degradation": lambda root, out: command(
        degradation.main, root / "night", "--calibrate", "--output_dir", out, "--plots", "none"
    ),
    "calibrate": lambda root, out: command(
        calibrate.main,
        *(root / "night" / "flat", "--dark-model", made(root, "dark"), "--flat", made(root, "flat")),
        *("--output-dir", out, "--plots", "none"),
    ),
    "bad_pixels": lambda root, out: command(
        bad_pixels.main,
        made(root, "bias"),
        made(root, "dark"),
        made(root, "flat"),
        "--output",
        out / "bad.fits",
    ),
    "compare_products": lambda root, out: command(
        compare_products.main,
        *(made(root, "bias") / "bias_model" / "bias_a_map.fits",) * 2,
        *("--output-dir", out),
    ),
    "observation_manager": lambda root, out: (
        len(ObservationManager(root / "night").load_and_organize().entries) < 1
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_input_files_stay_as_they_are(inputs, tmp_path, name):
    before = state(inputs)
    status = COMMANDS[name](inputs, tmp_path / "out")
    assert status in (0, 1)
    assert state(inputs) == before
    if name != "observation_manager":
        assert files(tmp_path / "out")


def test_modes_that_start_from_products_leave_the_frames_alone(inputs, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made(inputs, "flat"), out)
    before = state(inputs)
    for mode in FLAT_MODES:
        if mode in ("fit_model", "evaluate_model", "vignetting_only"):
            assert flat_frames.run("--mode", mode, "--output-dir", out) in (0, 1)
    assert state(inputs) == before


def test_the_converter_leaves_raw_files_configs_and_logs_alone(tmp_path):
    """It writes below the attempts; what stands there already stays, to the nanosecond, in a second run too."""
    plan = tmp_path / "plan.json"
    plan.write_text('{"bias": [{"temperatures": [0], "frames": 3}]}')
    words = ("--plan", plan, "--size", "16", "20", "--faults")
    assert command(simulate_campaign.main, tmp_path / "raw", *words) == 0
    given = {path: None for path in (tmp_path / "raw").rglob("*") if path.is_file()}
    for number, path in enumerate(given):
        path.chmod((0o444, 0o600, 0o644, 0o400)[number % 4])
        os.utime(path, ns=(10**18, 10**18 + number))
    before = {name: facts for name, facts in state(tmp_path / "raw").items() if facts[-2] is not None}
    section = tmp_path / "raw" / "Bias"
    for more in ((), ("--overwrite",), ("--dry-run",)):
        status = command(raw_to_fits.main, section, "x", "x", "--skip-dark", "--skip-flat", *more)
        assert status in (0, 1)
        after = state(tmp_path / "raw")
        assert {name: after.get(name) for name in before} == before
    assert any(Path(name).suffix == ".fits" for name in after)


def test_the_planner_reads_the_detector_only(tmp_path):
    sheet = tmp_path / "in" / "detector.json"
    sheet.parent.mkdir()
    sheet.write_text('{"format": "detector", "version": 1, "gain": {"value": 2.0}, "aduscale": 1}')
    before = state(sheet.parent)
    words = ("--temps", "0 10", "--exptimes", "1 10", "--detector", sheet, "--output-dir", tmp_path / "out")
    assert command(plan_campaign.main, *words) == 0
    assert state(sheet.parent) == before
