"""Bias and dark pipelines refuse, before anything is written, what the mode cannot use (flats: test_flat_options)."""

import bias_frames
import dark_frames
import pytest

from utils.application.options import SHARED_OPTIONS, given_options

BIAS = [
    ("fit_model", ("--combine", "mean")),
    ("fit_model", ("--temps", "5")),
    ("make_master", ("--generate-set",)),
    ("make_master", ("--temps", "5")),
    ("synthetic_only", ("--gain", "2")),
    ("synthetic_only", ("--temp_tolerance", "1")),
    ("evaluate_model", ("--session_gap", "3")),
    ("evaluate_model", ("--select", "gain=1")),
]
DARK = [
    ("full", ("--model_dir", ".")),
    ("fit_2d_model", ("--hot-sigma", "9")),
    ("fit_2d_model", ("--no_bias",)),
    ("synthetic_only", ("--exptimes", "5")),
    ("synthetic_2d", ("--temp_single", "5")),
    ("synthetic_2d_single", ("--temps", "5")),
    ("evaluation_only", ("--unit", "adu")),
    ("evaluate_dark_current", ("--model-dir", ".")),
    ("evaluate_2d_model", ("--save-corrected",)),
]


@pytest.mark.parametrize(
    ("frames", "mode", "words"),
    [(bias_frames, *case) for case in BIAS] + [(dark_frames, *case) for case in DARK],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_options_that_a_mode_cannot_use(tmp_path, capsys, frames, mode, words):
    out = tmp_path / "out"
    assert frames.run("--mode", mode, "--basepath", tmp_path, "--output-dir", out, *words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"{words[0].replace('_', '-')}: got --mode {mode}, which does not use it" in line
    assert not out.exists()


def test_default_mode_and_both_spellings_stay(tmp_path, capsys):
    # The options are those of a full run: what is refused then is the folder without frames.
    for frames, option in ((bias_frames, "--session_gap"), (dark_frames, "--hot-sigma")):
        words = ("--basepath", tmp_path, "--output_dir", tmp_path / "out", option, "9", "--temps", "5")
        assert frames.run(*words) == 2
        assert "does not use" not in capsys.readouterr().err


@pytest.mark.parametrize("which", ["bias", "dark"])
def test_every_option_is_used_somewhere(which):
    from importlib import import_module

    pipeline = import_module(f"{which}_pipeline.run_pipeline")
    options = import_module(f"{which}_pipeline.mode_options")
    parser = pipeline.build_parser()
    flags = [action for action in parser._actions if action.dest not in ("help", "version")]
    names = {action.dest.replace("_", "-") for action in flags}
    assert names >= set(SHARED_OPTIONS)
    used = [
        options.honoured(steps) if which == "bias" else options.honoured(mode, steps)
        for mode, steps in pipeline.MODES.items()
    ]
    assert set().union(*used) == names
    assert set(options.USED) == set().union(*pipeline.MODES.values())
    assert given_options(parser, []) == set()
