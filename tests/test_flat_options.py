"""Options of the flat pipeline: what cannot be is refused before anything is written, the others do what they say."""

import json

import flat_frames
import pytest
from bias_frames import files, record

from utils.fits_io.product_reader import read_product

SMALL = {"n": 4, "bias_n": 4, "dark_n": 4, "temperatures": (5.0,), "exposures": (2.0,)}
MASTER = "master_flat/master_flat_NONE_T5.0_E2.fits"


def take(folder, shape=(24, 32), seed=5, **plan):
    camera = flat_frames.sensor(shape, seed)
    flat_frames.campaign(folder, camera, seed, **(SMALL | plan))
    return camera


def run(tree, out, *words):
    return flat_frames.run("--basepath", tree, "--output-dir", out, *words)


def refused(capsys, *words):
    assert flat_frames.run(*words) == 2
    text = capsys.readouterr().err
    assert len([line for line in text.splitlines() if line.startswith("error")]) == 1
    assert "Warning" not in text
    return text


def warnings(out):
    return " ".join(record(out)["runs"][-1]["warnings"])


def head_of(out, name=MASTER):
    return read_product(out / name).header


def test_filters_that_are_spelled_alike_have_models_of_their_own(tree, tmp_path):
    camera = take(tree, n=0)
    for number, name in enumerate(("V Johnson", "V/Johnson")):
        flat_frames.take(tree / str(number), camera, "flat", [(5.0, 2.0, 4, 1400.0)], number, FILTER=name)
    assert run(tree, tmp_path / "out") == 0
    heads = [
        head_of(tmp_path / "out", f"flat_model_fits/flat_A_map_V_Johnson{tail}.fits") for tail in ("", "_2")
    ]
    assert {head["FILTER"] for head in heads} == {"V Johnson", "V/Johnson"}


def test_choosing_a_filter_keeps_biases_and_darks(tree, tmp_path):
    camera = take(tree, n=0)
    for number, name in enumerate("VR"):
        flat_frames.take(tree / name, camera, "flat", [(5.0, 2.0, 4, 1400.0)], number, FILTER=name)
    assert run(tree, tmp_path / "out", "--select", "filter=R") == 0
    assert {name for name in files(tmp_path / "out") if name.startswith("master_flat/")} == {
        "master_flat/master_flat_R_T5.0_E2.fits"
    }
    assert head_of(tmp_path / "out", "master_flat/master_flat_R_T5.0_E2.fits")["DARKFROM"] == "master dark"


@pytest.mark.parametrize(
    ("option", "content", "told"),
    [
        ("--radial-json", {"k1": 1e308, "k2": 1e308, "k3": 0}, "rises to"),
        ("--radial-json", {"k1": 1e30, "k2": 0, "k3": 0}, "rises to"),
        ("--radial-json", {"k1": -5, "k2": 0, "k3": 0}, "falls to"),
        ("--empirical-json", {"method": ["median"], "size": 3}, 'method ["median"]'),
        ("--empirical-json", {"method": {"a": 1}, "size": 3}, "method"),
        ("--empirical-json", {"method": "gaussian", "sigma": 1e9}, "expected at most 32"),
        ("--empirical-json", {"method": "median", "size": 1e9}, "expected at most 32"),
    ],
)
def test_illumination_that_cannot_be(tree, tmp_path, capsys, option, content, told):
    take(tree)
    path = tmp_path / "given.json"
    path.write_text(json.dumps(content))
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out", option, path)
    assert told in text
    assert "given.json" in text
    assert not (tmp_path / "out").exists()
