"""Options of the flat pipeline: what cannot be is refused before anything is written, the others do what they say."""

import json

import flat_frames
import numpy as np
import pytest
from bias_frames import files, record, write_frame

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


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("make_master", ("--norm-method", "mean")),
        ("make_master", ("--gain", "2")),
        ("make_master", ("--no-dark",)),
        ("make_master", ("--saturation", "3000")),
        ("make_master", ("--select", "filter=V")),
        ("reduce_only", ("--t-ref", "3")),
        ("reduce_only", ("--dead_limit", "0.3")),
        ("fit_model", ("--gain", "2")),
        ("fit_model", ("--norm_method", "median")),
        ("vignetting_only", ("--t-ref", "3")),
        ("evaluate_model", ("--combine", "mean")),
        ("evaluate_model", ("--master-method", "mean")),
    ],
)
def test_options_that_a_mode_cannot_honour(tree, tmp_path, capsys, mode, words):
    where = ("--basepath", tree) if mode == "reduce_only" else ()
    (tmp_path / "out").mkdir()
    text = refused(capsys, "--mode", mode, "--output-dir", tmp_path / "out", *where, *words)
    option = "--combine" if words[0] == "--master-method" else words[0].replace("_", "-")
    assert option in text
    assert f"--mode {mode}" in text
    assert not any((tmp_path / "out").iterdir())


def test_every_option_of_every_mode_is_known():
    from flat_pipeline.mode_options import ALWAYS_FLAT, FROM_FILES, HONOURED
    from flat_pipeline.run_pipeline import MODES, OPTIONS
    from utils.application.options import SHARED_OPTIONS

    assert set(HONOURED) == set(MODES)
    every = {*OPTIONS, *SHARED_OPTIONS, "mode"}
    assert set().union(ALWAYS_FLAT, *HONOURED.values()) == every
    assert all(options <= HONOURED[mode] for mode, options in FROM_FILES.items())


def test_files_tell_what_kind_of_flats_they_are(tree, tmp_path, capsys):
    take(tree, n=5)
    out = tmp_path / "out"
    words = ("--flat-type", "sky", "--norm-method", "mean", "--temp-tolerance", "0.7")
    assert run(tree, out, "--mode", "normalize_only", *words) == 0
    assert flat_frames.run("--mode", "make_master", "--output-dir", out) == 0
    assert "sky_median/master_flat_sky_median.fits" in files(out)
    head = head_of(out)
    assert (head["FLATTYPE"], head["NORMMETH"], head["TTOL"]) == ("sky", "mean", 0.7)
    text = refused(capsys, "--mode", "make_master", "--output-dir", out, "--flat-type", "lab")
    assert "expected sky" in text


def test_frames_below_basepath_are_those_combined(tree, tmp_path):
    out = tmp_path / "out"
    take(tree, n=5)
    for mode in ("normalize_only", "vignetting_only"):
        assert run(tree, out, "--mode", mode) == 0
    other = tmp_path / "other"
    take(other, seed=6, n=4)
    assert flat_frames.run("--mode", "make_master", "--output-dir", out, "--basepath", other) == 0
    product = read_product(out / MASTER)
    assert product.header["NCOMBINE"] == 4
    assert all(str(other) in row["file"] for row in product.inputs)


def test_full_run_leaves_nothing_of_other_campaigns(tree, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    take(tree, n=5)
    take(other, seed=6, n=4)
    for mode in ("reduce_only", "normalize_only", "vignetting_only"):
        assert run(tree, out, "--mode", mode) == 0
    assert run(other, out) == 0
    assert not any(name.startswith(("flat_reduced", "flat_norm", "flat_vign")) for name in files(out))
    assert run(other, out, "--mode", "full_no_vignetting") == 0
    assert not any(name.startswith("vignetting/") for name in files(out))
    before = read_product(out / MASTER).data
    assert flat_frames.run("--mode", "make_master", "--output-dir", out, "--basepath", other) == 0
    assert not head_of(out)["VIGNCORR"]
    np.testing.assert_array_equal(read_product(out / MASTER).data, before)


def test_foreign_file_is_met_before_anything_is_written(tree, tmp_path, capsys):
    take(tree)
    mine = tmp_path / "out" / MASTER
    mine.parent.mkdir(parents=True)
    mine.write_text("my own")
    assert "no run of these pipelines made it" in refused(
        capsys, "--basepath", tree, "--output-dir", tmp_path / "out"
    )
    assert files(tmp_path / "out") == {MASTER}


def test_dry_run_of_modes_that_start_from_files(tree, tmp_path, capsys):
    take(tree)
    out = tmp_path / "out"
    assert run(tree, out, "--mode", "reduce_only") == 0
    plan = {
        "normalize_only": "flat_normalized/0001_normalized.fits",
        "vignetting_only": "vignetting/vignetting_NONE.fits",
        "make_master": MASTER,
        "fit_model": "flat_model_fits/flat_A_map.fits",
        "evaluate_model": "evaluation/evaluation_summary.csv",
    }
    for mode, name in plan.items():
        before = files(out)
        capsys.readouterr()
        assert flat_frames.run("--mode", mode, "--output-dir", out, "--dry-run") == 0
        assert name in capsys.readouterr().out
        assert files(out) == before
        assert flat_frames.run("--mode", mode, "--output-dir", out) == 0
        assert name in files(out)
        text = refused(capsys, "--mode", mode, "--output-dir", tmp_path / "nowhere", "--dry-run")
        assert "make it with" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda darks, flat: darks[0].update(exposure=4.0), "exposure 4 s in the list, 2 s in the header"),
        (lambda darks, flat: darks[0].update(temperature=9.0), "temperature 9 degC in the list"),
        (lambda darks, flat: darks.extend([dict(darks[0])] * 5), "named before, in entry 0"),
        (lambda darks, flat: darks[0].update(original_path=str(flat)), "tells a flat, expected a dark"),
    ],
)
def test_list_of_darks_that_cannot_be(tree, tmp_path, capsys, change, told):
    take(tree)
    darks = [
        {"original_path": str(path), "temperature": 5.0, "exposure": 2.0}
        for path in sorted((tree / "dark").iterdir())
    ]
    change(darks, next((tree / "flat").iterdir()))
    path = tmp_path / "darks.json"
    path.write_text(json.dumps(darks))
    words = ("--basepath", tree, "--output-dir", tmp_path / "out", "--dark-files-json", path)
    assert told in refused(capsys, *words)
    assert not (tmp_path / "out").exists()


def test_dark_of_another_exposure_without_a_bias_is_explained(tree, tmp_path, capsys):
    camera = take(tree, bias_n=0, dark_n=0)
    flat_frames.take(tree, camera, "dark", [(5.0, 4.0, 4, None)], 9)
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")
    assert "darks have other exposures (4 s), and none can be scaled without a bias" in text


def test_flats_without_exposure_are_explained(tree, tmp_path, capsys):
    camera = take(tree, n=0)
    flat_frames.take(tree, camera, "flat", [(5.0, 2.0, 2, 1400.0)], 3, EXPOSURE=0.0)
    for path in (tree / "flat").iterdir():
        patched = path.read_bytes().replace(
            b"EXPTIME =                  2.0", b"EXPTIME =                  0.0"
        )
        path.write_bytes(patched)
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")
    assert "expected more than 0 s" in text


@pytest.mark.parametrize(
    ("cards", "told"), [({"XBINNING": 2}, "without XBINNING, expected 2"), ({"INSTRUME": "B"}, "INSTRUME A")]
)
def test_models_of_another_camera(tree, tmp_path, capsys, cards, told):
    import dark_frames

    camera = take(tree, n=0, bias_n=0, dark_n=0)
    flat_frames.take(tree, camera, "flat", [(5.0, 2.0, 4, 1400.0)], 3, **cards)
    for kind, exposure in (("bias", 1e-5), ("dark", 2.0)):
        plan = [(t, exposure, 4, None) for t in (0.0, 5.0, 10.0)]
        flat_frames.take(tmp_path / "in", camera, kind, plan, 4, INSTRUME="A" if "INSTRUME" in cards else "")
    assert dark_frames.run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "dark") == 0
    words = ("--basepath", tree, "--output-dir", tmp_path / "out")
    for option, folder in (("--bias-model", "bias_used"), ("--dark-model", "dark_model_2d")):
        assert told in refused(capsys, *words, option, tmp_path / "dark" / folder)


def test_zero_flat_and_blank_pixels_make_no_noise_on_the_terminal(tree, tmp_path):
    take(tree, n=5, shape=(64, 64))
    zero = np.zeros((64, 64), np.uint16)
    write_frame(tree / "flat" / "z.fits", zero, IMAGETYP="Flat Frame", CCD_TEMP=5.0, EXPTIME=2.0)
    assert run(tree, tmp_path / "out") == 0  # numpy's warnings are errors here
    folder, rng = tmp_path / "floats", np.random.default_rng(1)
    for number in range(5):
        image = rng.normal(20_000, 100, (32, 40)).astype(np.float32)
        image[3:6, 4:9] = np.nan
        cards = {"IMAGETYP": "Flat Frame", "CCD_TEMP": 5.0, "EXPTIME": 2.0}
        write_frame(folder / f"flat_{number}.fits", image, **cards)
    assert run(folder, tmp_path / "nan", "--no-dark") == 0
    assert np.isnan(read_product(tmp_path / "nan" / MASTER).data).sum() == 15


def test_gain_of_sky_flats_is_not_made_up(tree, tmp_path):
    from utils.kernels.scene import Scene, StarField

    camera = flat_frames.sensor((64, 64), 3)
    stars = StarField((64, 64), 40, 3)
    steps = np.random.default_rng(3).uniform(-30, 30, (6, 2))
    flat_frames.take(tree, camera, "bias", [(5.0, 1e-5, 6, None)], 1)
    given = {"scene": lambda i: Scene(light=stars.light(*steps[i]))}
    flat_frames.take(tree, camera, "flat", [(5.0, 2.0, 6, 1000.0)], 3, **given)
    assert run(tree, tmp_path / "out", "--flat-type", "sky") == 0
    head = head_of(tmp_path / "out")
    assert "EGAIN" not in head
    assert head["GAINFROM"].startswith("unknown")
    assert "stars that move widen the scatter" in warnings(tmp_path / "out")
    assert run(tree, tmp_path / "out", "--flat-type", "sky", "--gain", "2") == 0
    assert head_of(tmp_path / "out")["EGAIN"] == 2


def test_headers_of_the_frame_by_frame_way_tell_no_more(tree, tmp_path):
    take(tree, n=5)
    out = tmp_path / "out"
    words = ("--flat-type", "sky", "--output-dir", out)
    assert flat_frames.run("--mode", "normalize_only", "--basepath", tree, *words) == 0
    for mode in ("vignetting_only", "make_master"):
        assert flat_frames.run("--mode", mode, *words) == 0
    assert flat_frames.run("--basepath", tree, "--flat-type", "sky", "--output-dir", tmp_path / "full") == 0
    for name in (MASTER, "sky_median/master_flat_sky_median.fits"):
        changing = {"DATE", "CHECKSUM", "DATASUM", "VIGNSUM"}
        assert set(head_of(out, name)) - changing == set(head_of(tmp_path / "full", name)) - changing


def test_words_of_a_card_are_cut_at_their_end():
    from flat_pipeline.products import _cut

    assert _cut("dark model here", 60) == "dark model here"
    assert _cut("dark model " + "x" * 80, 60) == "dark model " + "x" * 46 + "..."


def test_no_picture_of_a_master_less_itself(tree, tmp_path):
    take(tree)
    assert flat_frames.run("--basepath", tree, "--output-dir", tmp_path / "out", plots="summary") == 0
    assert not any(name.endswith("_diff.png") for name in files(tmp_path / "out"))
