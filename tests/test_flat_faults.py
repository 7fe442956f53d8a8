"""The fault table of the flat pipeline: what is refused, what is said, what is made nevertheless."""

import json

import dark_frames
import flat_frames
import numpy as np
import pytest
from bias_frames import files, record, rows, write_frame

from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ

SMALL = {"n": 4, "bias_n": 4, "dark_n": 4, "temperatures": (5.0,), "exposures": (2.0,)}
MASTER = "master_flat/master_flat_NONE_T5.0_E2.fits"


def take(folder, shape=(24, 32), seed=5, full_well=7800.0, nonlinearity=0.02, **plan):
    camera = flat_frames.sensor(shape, seed, full_well=full_well, nonlinearity=nonlinearity)
    flat_frames.campaign(folder, camera, seed, **(SMALL | plan))
    return camera


def run(tree, out, *words):
    return flat_frames.run("--basepath", tree, "--output-dir", out, *words)


def refused(capsys, *words):
    assert flat_frames.run(*words) == 2
    text = capsys.readouterr().err
    assert len([line for line in text.splitlines() if line.startswith("error")]) == 1
    return text


def warnings(out):
    return " ".join(record(out)["runs"][-1]["warnings"])


def head_of(out, name=MASTER):
    return read_product(out / name).header


def test_no_darks_takes_the_bias_and_says_so(tree, tmp_path):
    take(tree, dark_n=0)
    assert run(tree, tmp_path / "out") == 0
    assert "without a dark, bias alone subtracted: no darks" in warnings(tmp_path / "out")
    assert head_of(tmp_path / "out")["DARKFROM"] == "bias only"
    (row,) = rows(tmp_path / "out" / "dark_sources.csv")
    assert row["kind"] == "bias only"
    assert 95 < float(row["level"]) < 110


def test_neither_bias_nor_dark(tree, tmp_path, capsys):
    take(tree, dark_n=0, bias_n=0)
    out = tmp_path / "out"
    assert "neither bias nor dark" in refused(capsys, "--basepath", tree, "--output-dir", out)
    assert not out.exists()
    assert run(tree, out, "--no-dark") == 0
    assert head_of(out)["DARKFROM"] == "nothing"
    assert "nothing is subtracted" in warnings(out)


def test_no_dark_takes_the_bias_where_there_is_one(tree, tmp_path):
    take(tree)
    assert run(tree, tmp_path / "out", "--no-dark") == 0
    assert head_of(tmp_path / "out")["DARKFROM"] == "bias only"


def test_darks_of_the_same_exposure_serve_without_a_bias(tree, tmp_path):
    take(tree, bias_n=0)
    assert run(tree, tmp_path / "out") == 0
    head = head_of(tmp_path / "out")
    assert head["DARKFROM"] == "master dark"
    assert "with its bias" in head["DARKWHAT"]


def test_darks_of_another_exposure_do_not_serve_without_a_bias(tree, tmp_path, capsys):
    camera = take(tree, bias_n=0, dark_n=0)
    flat_frames.take(tree, camera, "dark", [(5.0, 20.0, 4, None)], 9)
    assert "no bias" in refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")


def test_longer_darks_are_scaled_down(tree, tmp_path):
    camera = take(tree, dark_n=0)
    flat_frames.take(tree, camera, "dark", [(5.0, 20.0, 8, None), (5.0, 40.0, 8, None)], 9)
    assert run(tree, tmp_path / "out") == 0
    head = head_of(tmp_path / "out")
    assert (head["DARKFROM"], head["DARKEXP"], head["NDARKS"]) == ("master dark", 20, 8)
    chosen = json.loads((tmp_path / "out" / "auto_dark_files.json").read_text())
    assert len(chosen) == 8
    assert {entry["exposure"] for entry in chosen} == {20}
    assert set(chosen[0]) == {"original_path", "temperature", "exposure"}


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ([(5.0, 1.0, 8, None)], "scaled only downwards"),
        ([(8.0, 20.0, 8, None)], "3.0 degC away"),
        ([(5.0, 20.0, 1, None)], "fewer than 3 darks"),
    ],
)
def test_darks_that_do_not_serve_are_explained(tree, tmp_path, plan, why):
    camera = take(tree, dark_n=0)
    flat_frames.take(tree, camera, "dark", plan, 9)
    assert run(tree, tmp_path / "out") == 0
    assert head_of(tmp_path / "out")["DARKFROM"] == "bias only"
    assert why in warnings(tmp_path / "out")


def test_list_of_darks_gives_what_was_chosen(tree, tmp_path):
    camera = take(tree)
    flat_frames.take(tree / "more", camera, "dark", [(5.0, 2.0, 4, None)], 11)
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(tree, one) == 0
    assert run(tree, two, "--dark-files-json", one / "auto_dark_files.json") == 0
    np.testing.assert_array_equal(read_product(one / MASTER).data, read_product(two / MASTER).data)
    assert not (two / "auto_dark_files.json").exists()


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        # The well of the default camera ends below its converter.
        ({"level": 9000.0, "shape": (64, 96)}, "less than light can"),
        ({"level": 9000.0, "full_well": 1e5, "nonlinearity": 0.0}, "range of the converter"),
    ],
)
def test_all_saturated(tree, tmp_path, capsys, plan, why):
    take(tree, **plan)
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")
    assert "SATURATED" in text
    assert why in text
    assert not (tmp_path / "out").exists()


def test_flats_of_zeros(tree, tmp_path, capsys):
    take(tree, n=1)
    for path in (tree / "flat").iterdir():
        path.unlink()
    for number in range(3):
        cards = {"IMAGETYP": "Flat Frame", "CCD_TEMP": 5.0, "EXPTIME": 2.0}
        write_frame(tree / "flat" / f"{number}.fits", np.zeros((24, 32), np.uint16), **cards)
    assert "ZERO_BLOCK" in refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")


def test_hot_pixels_at_the_top_of_12_bits_in_16_are_saturated_not_of_low_response(tmp_path):
    terms = {
        "left_justified": False,
        "full_well": 1e5,
        "hot_fraction": 0.02,
        "hot_factor": 1e4,
        "hot_spread": 0.3,
    }
    camera = flat_frames.sensor((64, 80), 5, **terms)
    flat_frames.campaign(tmp_path / "in", camera, 5, **(SMALL | {"level": 2500.0}))
    assert run(tmp_path / "in", tmp_path / "out") == 0
    product = read_product(tmp_path / "out" / MASTER)
    assert (product.header["SATURATE"], product.header["ADUSCALE"]) == (4095.0, 1.0)
    assert "stick" in product.header["SATFROM"]
    charge = (
        camera.true_dark_rate(5.0, 2.0) * 2.0
        + product.header["LEVEL"] * camera.response * camera.illumination
    )
    full = camera.hot & (charge > 4500)
    assert full.sum() >= 10
    assert ((product.dq[full] & DQ.SATURATED) != 0).all()
    assert not (product.dq[~camera.hot] & DQ.SATURATED).any()


def test_faint_and_saturated_flats_are_left_out(tree, tmp_path):
    camera = take(tree, full_well=0.0, nonlinearity=0.0)
    flat_frames.take(tree / "other", camera, "flat", [(5.0, 2.0, 1, 20.0), (5.0, 2.0, 1, 9000.0)], 3)
    assert run(tree, tmp_path / "out") == 0
    reasons = sorted(row["reason"].split(":")[0] for row in rows(tmp_path / "out" / "rejected_frames.csv"))
    assert reasons == ["SATURATED", "UNDEREXPOSED"]
    assert head_of(tmp_path / "out")["NCOMBINE"] == 4
    # Gain of the four frames that stay, from 770 pixels: the noise of the faint one is six times as large.
    assert head_of(tmp_path / "out")["NOISGAIN"] == pytest.approx(2.0, rel=5 * np.sqrt(2 / (3 * 770)))


def test_one_flat(tree, tmp_path):
    take(tree, n=1)
    assert run(tree, tmp_path / "out", "--gain", "2") == 0
    assert "1 group of one flat" in warnings(tmp_path / "out")
    product = read_product(tmp_path / "out" / MASTER)
    # sqrt(S / g) / S at 1400 ADU and 2 e-/ADU.
    expected = np.sqrt(1400 / 2 + 1.5**2) / 1400
    assert np.median(product.uncert) == pytest.approx(expected, rel=0.1)


def test_one_flat_of_unknown_gain(tree, tmp_path):
    take(tree, n=1)
    assert run(tree, tmp_path / "out") == 0
    assert "noise taken from neighbouring pixels" in warnings(tmp_path / "out")


def test_no_flats(tree, tmp_path, capsys):
    take(tree, n=0)
    assert "no flat frame" in refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")


def test_light_frames_outside_a_folder_of_flats_are_told(tree, tmp_path, capsys):
    samples = np.full((24, 32), 20_000, np.uint16)
    cards = {"IMAGETYP": "Light Frame", "CCD_TEMP": 5.0, "EXPTIME": 2.0}
    for number in range(2):
        write_frame(tree / "lab" / f"one_{number}.fits", samples, **cards)
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")
    assert "2 light frames: those in a folder or file called flat are flats" in text


@pytest.mark.parametrize("key", ["GAIN", "XBINNING"])
def test_two_camera_settings(tree, tmp_path, capsys, key):
    camera = take(tree)
    flat_frames.take(tree / "a", camera, "flat", [(5.0, 2.0, 2, 1400.0)], 3, **{key: 2})
    flat_frames.take(tree / "b", camera, "flat", [(5.0, 2.0, 2, 1400.0)], 4, **{key: 4})
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")
    assert "--select" in text
    assert "differs" in text


def test_filters_are_apart(tree, tmp_path):
    camera = take(tree, n=0)
    for number, name in enumerate(("V", "g' sloan")):
        folder = tree / str(number)
        flat_frames.take(folder, camera, "flat", [(5.0, 2.0, 4, 1400.0)], number, FILTER=name)
    assert run(tree, tmp_path / "out") == 0
    made = files(tmp_path / "out")
    assert {"master_flat/master_flat_V_T5.0_E2.fits", "master_flat/master_flat_g_sloan_T5.0_E2.fits"} <= made
    assert {"flat_model_fits/flat_A_map_V.fits", "vignetting/vignetting_g_sloan.fits"} <= made


def test_bias_model_of_another_shape(tree, tmp_path, capsys):
    take(tree)
    dark_frames.campaign(tmp_path / "in", dark_frames.sensor((16, 20), 5), 5, n=4, bias_n=4)
    assert dark_frames.run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "dark") == 0
    words = ("--basepath", tree, "--output-dir", tmp_path / "out")
    text = refused(capsys, *words, "--bias-model", tmp_path / "dark" / "bias_used")
    assert "(16, 20)" in text
    assert "(24, 32)" in text
    text = refused(capsys, *words, "--dark-model", tmp_path / "dark" / "dark_model_2d")
    assert "(16, 20)" in text
    assert "no such folder" in refused(capsys, *words, "--dark-model", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "A_map_2D.fits" in refused(capsys, *words, "--dark-model", tmp_path / "empty")


def test_dark_model_with_its_bias(tree, tmp_path, capsys):
    take(tree, dark_n=0, bias_n=0)
    camera = dark_frames.sensor((24, 32), 5)
    dark_frames.campaign(tmp_path / "in", camera, 5, n=6, bias_n=8)
    assert dark_frames.run("--basepath", tmp_path / "in", "--output-dir", tmp_path / "dark") == 0
    model = tmp_path / "dark" / "dark_model_2d"
    assert run(tree, tmp_path / "out", "--dark-model", model) == 0
    head = head_of(tmp_path / "out")
    assert head["DARKFROM"] == "dark model"
    true = np.median(camera.true_bias(5.0) + camera.true_dark_rate(5.0, 2.0) * 2.0)
    assert head["DARKLEV"] == pytest.approx(true, abs=0.3)
    (tmp_path / "alone").mkdir()
    model.rename(tmp_path / "alone" / "dark_model_2d")
    words = ("--basepath", tree, "--output-dir", tmp_path / "more", "--dark-model")
    assert "no bias with this dark model" in refused(capsys, *words, tmp_path / "alone" / "dark_model_2d")
    assert (
        flat_frames.run(
            *words, tmp_path / "alone" / "dark_model_2d", "--bias-model", tmp_path / "dark/bias_used"
        )
        == 0
    )


@pytest.mark.parametrize(
    ("option", "content", "told"),
    [
        ("--radial-json", {"k1": -0.1, "k2": 0}, "missing k3"),
        ("--radial-json", {"k1": -0.1, "k2": 0, "k3": 0, "centre": [1, 2]}, "unknown centre"),
        ("--radial-json", {"k1": -0.9, "k2": -0.5, "k3": 0}, "illumination falls to"),
        ("--empirical-json", {"method": "spline"}, "method"),
        ("--empirical-json", {"method": "polynomial", "sigma": 2}, "degree"),
        ("--lensfun-json", {"model": "pa", "k1": 0}, "missing k2, k3"),
        ("--lensfun-json", {"camera": "X"}, "missing lens"),
        ("--dark-files-json", [{"path": "x"}], "original_path"),
        ("--dark-files-json", {}, "expected a list"),
        ("--dark-files-json", [], "empty list"),
    ],
)
def test_json_with_wrong_keys(tree, tmp_path, capsys, option, content, told):
    take(tree)
    path = tmp_path / "given.json"
    path.write_text(json.dumps(content))
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out", option, path)
    assert told in text
    assert "given.json" in text


def test_unknown_lens_names_those_that_are_near(tree, tmp_path, capsys):
    take(tree)
    path = tmp_path / "lens.json"
    content = {"camera": "Canon EOS 5D Mark III", "lens": "Canon EF 50mm f/1.8 IX", "focal_length": 50}
    path.write_text(json.dumps(content | {"aperture": 2.8, "distance": 10}))
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out", "--lensfun-json", path)
    assert "near ones: " in text
    assert "50mm f/1.8" in text.split("near ones: ")[1]


@pytest.mark.parametrize(
    ("option", "content"),
    [
        ("--radial-json", {"k1": -0.18, "k2": -0.06, "k3": 0.02, "center": [16.78, 10.78]}),
        ("--lensfun-json", {"model": "pa", "k1": -0.18, "k2": -0.06, "k3": 0.02}),
        ("--empirical-json", {"method": "polynomial", "degree": 4}),
        ("--empirical-json", {"method": "gaussian", "sigma": 8}),
        ("--empirical-json", {"method": "median", "size": 9}),
    ],
)
def test_illumination_that_is_given(tree, tmp_path, option, content):
    camera = take(tree)
    path = tmp_path / "given.json"
    path.write_text(json.dumps(content))
    assert run(tree, tmp_path / "out", option, path) == 0
    light = read_product(tmp_path / "out/vignetting/vignetting_NONE.fits").data
    truth = camera.illumination / np.median(camera.illumination)
    assert np.std(light / np.median(light) / truth) < (1e-4 if "center" in content else 0.03)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--no-dark", "--dark-model", "."), "--no-dark"),
        (("--t-ref", "-300"), "--t-ref: got -300"),
        (("--exp-ref", "0"), "--exp-ref: got 0"),
        (("--dead-limit", "0.95"), "--dead-limit"),
        (("--flat-type", "dome"), "--flat-type"),
        (("--norm-method", "mode"), "--norm-method"),
        (("--combine", "mean", "--clip-sigma", "3"), "--clip-sigma"),
    ],
)
def test_options_that_cannot_be(tree, tmp_path, capsys, words, told):
    assert flat_frames.run("--basepath", tree, "--output-dir", tmp_path / "out", *words) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_older_names_of_options(tree, tmp_path):
    take(tree)
    from flat_pipeline.run_pipeline import main

    words = ["--basepath", str(tree), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--master-method", "median", "--no-save-plots"]) == 0
    assert head_of(tmp_path / "out")["COMBINE"] == "median"
    assert not any(name.endswith(".png") for name in files(tmp_path / "out"))


@pytest.mark.parametrize("method", ["median", "mean", "max"])
def test_levels_that_frames_are_normalised_by(tree, tmp_path, method):
    camera = take(tree, n=6, shape=(96, 128))
    assert run(tree, tmp_path / "out", "--norm-method", method, "--mode", "full_no_vignetting") == 0
    product = read_product(tmp_path / "out" / MASTER)
    # Noise and defects do not set the brightest part: it is that of the light.
    light = camera.illumination
    expected = {"median": np.median, "mean": np.mean, "max": np.max}[method](light) / np.median(light)
    assert np.median(product.data) == pytest.approx(1 / expected, rel=0.03)


def test_dry_run_writes_nothing(tree, tmp_path, capsys):
    take(tree)
    assert run(tree, tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    text = capsys.readouterr().out
    assert MASTER in text
    assert "group: flat, filter NONE" in text
