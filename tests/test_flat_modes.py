"""Every mode of the flat pipeline in a fresh process on a copy of an earlier output folder; the same products as full."""

import json
import shutil

import flat_frames
import numpy as np
import pytest
from bias_frames import command, files, record, rows

from flat_pipeline.run_pipeline import MODES
from utils.fits_io.product_reader import read_product
from utils.kernels.scene import Scene, StarField, led_pattern

PROGRAM = "flat_pipeline/run_pipeline.py"
FLOAT = 4e-7
"""Products that differ by the rounding of float32 only."""
STEMS = [f"NONE_T{t}_E{e}" for t in ("0.0", "10.0") for e in (1, 2)]
MASTERS = [f"master_flat/master_flat_{stem}.fits" for stem in STEMS]
MODEL = [f"flat_model_fits/flat_{term}_map.fits" for term in "ABC"]
EVALUATION = [
    "evaluation/evaluation_summary.csv",
    *(f"evaluation/master_flat_{stem}_{kind}.fits" for stem in STEMS for kind in ("diff", "mae", "mape")),
]
MADE_BY = {
    "reduce_only": [f"flat_reduced/{n:04d}_FLAT_REDUCED_WITH_DARK.fits" for n in range(1, 21)],
    "normalize_only": [f"flat_normalized/{n:04d}_normalized.fits" for n in range(1, 21)],
    "vignetting_only": [
        "vignetting/vignetting_NONE.fits",
        *(f"flat_vignetting_corrected/{n:04d}_vigncorr.fits" for n in range(1, 21)),
    ],
    "make_master": MASTERS,
    "fit_model": MODEL,
    "evaluate_model": EVALUATION,
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flats") / "in"
    camera = flat_frames.sensor((40, 56), 4)
    return flat_frames.campaign(folder, camera, 4, n=5, bias_n=6, dark_n=6)


@pytest.fixture(scope="module")
def full(frames, tmp_path_factory):
    """A full run over the frames, with pictures."""
    out = tmp_path_factory.mktemp("full") / "out"
    words = ("--basepath", frames, "--output-dir", out, "--save-eval-fits")
    assert flat_frames.run(*words, plots="all") == 0
    return out


@pytest.fixture(scope="module")
def chain(frames, tmp_path_factory):
    """The same frame by frame: every mode after the other."""
    out = tmp_path_factory.mktemp("chain") / "out"
    for mode in MADE_BY:
        given = ("--basepath", frames) if mode == "reduce_only" else ()
        words = ("--mode", mode, "--output-dir", out, "--save-eval-fits", *given)
        assert flat_frames.run(*words) == 0
    return out


def same(one, other, tolerance=FLOAT):
    ours, theirs = read_product(one), read_product(other)
    assert ours.prodtype == theirs.prodtype
    scale = max(np.nanmedian(np.abs(theirs.data)), 1.0)
    np.testing.assert_allclose(ours.data, theirs.data, rtol=tolerance, atol=tolerance * scale)
    if theirs.uncert is not None:
        np.testing.assert_allclose(ours.uncert, theirs.uncert, rtol=1e-5, atol=1e-12)
    if theirs.dq is not None:
        np.testing.assert_array_equal(ours.dq, theirs.dq)


def assert_equal_products(one, other):
    """The same numbers and the same header, but for the time of writing."""
    ours, theirs = read_product(one), read_product(other)
    np.testing.assert_array_equal(ours.data, theirs.data)
    np.testing.assert_array_equal(ours.uncert, theirs.uncert)
    left_out = {"DATE", "CHECKSUM"}
    assert {k: v for k, v in ours.header.items() if k not in left_out} == {
        k: v for k, v in theirs.header.items() if k not in left_out
    }


def test_full_makes_what_is_promised(full):
    expected = {
        *(*MASTERS, *MODEL, *EVALUATION),
        *("vignetting/vignetting_NONE.fits", "vignetting/vignetting_model.json"),
        *("auto_dark_files.json", "dark_sources.csv", "flat_model_fits/flat_covariance.fits"),
        *("evaluation/evaluation_summary.png", f"evaluation/master_flat_{STEMS[0]}_diff.png"),
        *(f"evaluation/master_flat_{STEMS[-1]}_{kind}.png" for kind in ("mae", "mape")),
        *("report.html", "run.json", "summary.csv", "rejected_frames.csv"),
    }
    assert expected <= files(full)
    assert record(full)["runs"][-1]["status"] == 0
    # Streamed: no file of a single frame.
    assert not any(name.startswith(("flat_reduced", "flat_normalized")) for name in files(full))
    assert not any(part.startswith(".") for name in files(full) for part in name.split("/"))


def test_response_times_illumination_is_the_flat(full, frames, tmp_path):
    words = ("--mode", "full_no_vignetting", "--basepath", frames, "--output-dir", tmp_path / "out")
    assert flat_frames.run(*words) == 0
    light = read_product(full / "vignetting/vignetting_NONE.fits")
    assert not (tmp_path / "out" / "vignetting").exists()
    for name in MASTERS:
        response, flat = read_product(full / name), read_product(tmp_path / "out" / name)
        assert response.header["VIGNCORR"]
        assert response.header["VIGNFILE"] == "vignetting_NONE.fits"
        assert not flat.header["VIGNCORR"]
        product = response.header["FLATNORM"] * response.data * light.data
        np.testing.assert_allclose(product, flat.data, rtol=3e-7)


@pytest.mark.parametrize("name", [*MASTERS, *MODEL, "vignetting/vignetting_NONE.fits"])
def test_frame_by_frame_gives_what_full_gave(full, chain, name):
    same(chain / name, full / name)


@pytest.mark.parametrize("mode", sorted(MADE_BY))
def test_mode_in_a_fresh_process(full, chain, frames, tmp_path, mode):
    out = tmp_path / "out"
    shutil.copytree(chain, out)
    listed = record(out)
    for name in MADE_BY[mode]:
        (out / name).unlink()
        listed["products"].pop(name)
    (out / "run.json").write_text(json.dumps(listed))
    # Only one mode needs the frames.
    given = ("--basepath", frames) if mode == "reduce_only" else ()
    words = ("--mode", mode, "--output_dir", out, "--plots", "none", "--save-eval-fits", *given)
    result = command(*words, program=PROGRAM)
    assert result.returncode == 0, result.stderr
    for name in MADE_BY[mode]:
        if name.endswith(".csv"):
            for ours, theirs in zip(rows(out / name), rows(full / name), strict=True):
                assert ours["master"] == theirs["master"]
                assert float(ours["mae"]) == pytest.approx(float(theirs["mae"]), rel=1e-4)
            continue
        same(out / name, chain / name)


def test_every_mode_is_tested():
    assert set(MADE_BY) | {"full", "full_no_vignetting", "characterize"} == set(MODES)


@pytest.mark.parametrize("mode", ["normalize_only", "make_master"])
def test_modes_take_the_frames_where_no_files_are_listed(full, frames, tmp_path, mode):
    out = tmp_path / "out"
    assert flat_frames.run("--mode", mode, "--basepath", frames, "--output-dir", out) == 0
    if mode == "make_master":
        assert not read_product(out / MASTERS[0]).header["VIGNCORR"]
        return
    assert not any(name.startswith("flat_reduced") for name in files(out))
    for step in ("vignetting_only", "make_master"):
        assert flat_frames.run("--mode", step, "--output-dir", out) == 0
    same(out / MASTERS[0], full / MASTERS[0])


def test_master_from_normalised_frames_holds_the_illumination(frames, tmp_path):
    out = tmp_path / "out"
    assert flat_frames.run("--mode", "normalize_only", "--basepath", frames, "--output-dir", out) == 0
    assert flat_frames.run("--mode", "make_master", "--output-dir", out) == 0
    assert not read_product(out / MASTERS[0]).header["VIGNCORR"]


def test_illumination_from_the_masters_of_a_full_run(full, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(full, out)
    assert flat_frames.run("--mode", "vignetting_only", "--output-dir", out) == 0
    name = "vignetting/vignetting_NONE.fits"
    assert_equal_products(out / name, full / name)
    assert "another illumination" not in " ".join(record(out)["runs"][-1]["warnings"])


def test_another_illumination_than_that_of_the_masters_is_said(full, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(full, out)
    (tmp_path / "given.json").write_text(json.dumps({"k1": -0.1, "k2": 0, "k3": 0}))
    words = ("--mode", "vignetting_only", "--output-dir", out, "--radial-json", tmp_path / "given.json")
    assert flat_frames.run(*words) == 0
    assert "divided by another illumination" in " ".join(record(out)["runs"][-1]["warnings"])
    # What stands in vignetting/ now is not what the masters were divided by: the next run must not take it for that.
    assert flat_frames.run("--mode", "vignetting_only", "--output-dir", out) == 0
    name = "vignetting/vignetting_NONE.fits"
    assert_equal_products(out / name, full / name)


def test_an_illumination_that_the_model_does_not_describe_is_said(full, tmp_path):
    assert "does not describe the flat" not in " ".join(record(full)["runs"][-1]["warnings"])
    shape = (64, 96)
    camera, lamps = flat_frames.sensor(shape, 3), led_pattern(shape, 3)
    plan, given = [(5.0, 2.0, 6, 1400.0)], {"scene": lambda i: Scene(pattern=lamps)}
    flat_frames.take(tmp_path / "in", camera, "flat", plan, 3, **given)
    out = tmp_path / "out"
    assert flat_frames.run("--basepath", tmp_path / "in", "--output-dir", out, "--no-dark") == 0
    assert "the model does not describe the flat" in " ".join(record(out)["runs"][-1]["warnings"])
    assert read_product(out / "vignetting/vignetting_NONE.fits").header["CHI2RED"] > 2


@pytest.mark.parametrize("kind", ["sky", "satellite"])
def test_frame_by_frame_with_masks(tmp_path, kind):
    shape = (64, 96)
    camera = flat_frames.sensor(shape, 3)
    stars, lamps = StarField(shape, 30, 3), led_pattern(shape, 3)
    steps = np.random.default_rng(3).uniform(-30, 30, (6, 2))
    scenes = {
        "sky": lambda i: Scene(light=stars.light(*steps[i])),
        "satellite": lambda i: Scene(pattern=lamps, cosmic=1e-3),
    }
    frames = tmp_path / "in"
    flat_frames.take(frames, camera, "bias", [(5.0, 1e-5, 6, None)], 1)
    flat_frames.take(frames, camera, "flat", [(5.0, 10.0, 6, 1000.0)], 3, scene=scenes[kind], jitter=0.05)
    words = ("--flat-type", kind, "--basepath", frames, "--output-dir")
    assert flat_frames.run(*words, tmp_path / "full") == 0
    for mode in ("reduce_only", "normalize_only", "vignetting_only", "make_master"):
        assert flat_frames.run("--mode", mode, *words, tmp_path / "chain") == 0
    made = sorted(
        name for name in files(tmp_path / "full") if name.startswith(("master_flat/", "sky_median/"))
    )
    assert len(made) == (3 if kind == "sky" else 1)
    for name in made:
        same(tmp_path / "chain" / name, tmp_path / "full" / name)
    light = "vignetting/vignetting_NONE.fits"
    first = tmp_path / "first.fits"
    shutil.copy(tmp_path / "full" / light, first)
    # The kind of light is that of the masters, named or not.
    assert flat_frames.run("--mode", "vignetting_only", "--output-dir", tmp_path / "full") == 0
    assert_equal_products(tmp_path / "full" / light, first)
    # Nothing temporary is left.
    assert not any(part.startswith(".") for name in files(tmp_path / "full") for part in name.split("/"))


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("normalize_only", "reduce_only"),
        ("make_master", "normalize_only"),
        ("vignetting_only", "normalize_only"),
        ("fit_model", "make_master"),
        ("evaluate_model", "make_master"),
    ],
)
def test_mode_without_its_input_tells_how_to_make_it(tmp_path, capsys, mode, wanted):
    assert flat_frames.run("--mode", mode, "--output-dir", tmp_path / "out") == 2
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lasting", [0.0, 0.05])
def test_fields_of_an_interlaced_sensor_are_normalised_apart(tmp_path, lasting):
    # The ratio of even to odd rows differs by 1 % from frame to frame, three times the noise of a sample.
    shape, ratio = (64, 96), np.random.default_rng(5).normal(0, 0.01, 8)
    camera = flat_frames.sensor(shape, 5)

    def scene(index):
        pattern = np.ones(shape, np.float32)
        pattern[0::2] += ratio[index] + lasting
        return Scene(pattern=pattern)

    frames, words = tmp_path / "in", ("--no-dark", "--output-dir")
    flat_frames.take(frames, camera, "bias", [(5.0, 1e-5, 8, None)], 1)
    flat_frames.take(frames, camera, "flat", [(5.0, 2.0, 8, 1400.0)], 3, scene=scene, jitter=0.02)
    assert flat_frames.run("--basepath", frames, *words, tmp_path / "full") == 0
    assert "ratio of even to odd rows" in " ".join(record(tmp_path / "full")["runs"][-1]["warnings"])
    master = read_product(tmp_path / "full/master_flat/master_flat_NONE_T5.0_E2.fits")
    assert 0.9 < master.header["NOISEFAC"] < 1.1
    assert master.header["EGAIN"] == pytest.approx(camera.gain, rel=0.1)
    flat = read_product(tmp_path / "full/mean_flat/mean_flat_NONE.fits")
    truth = camera.response * camera.illumination
    # What these frames cannot tell from 1 is the shutter's, not the pixels'.
    truth[0::2] *= 1 + (lasting + ratio.mean() if lasting else 0.0)
    good = (master.dq == 0) & ~camera.hot
    error = (
        (flat.data / truth / np.median((flat.data / truth)[good]) - 1)[good] * truth[good] / flat.uncert[good]
    )
    assert abs(error.std() - 1) < 0.1
    assert flat_frames.run("--mode", "reduce_only", "--basepath", frames, *words, tmp_path / "chain") == 0
    for mode in ("normalize_only", "vignetting_only", "make_master"):
        assert flat_frames.run("--mode", mode, "--output-dir", tmp_path / "chain") == 0
    name = "master_flat/master_flat_NONE_T5.0_E2.fits"
    same(tmp_path / "chain" / name, tmp_path / "full" / name)
