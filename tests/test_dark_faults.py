"""The fault table of the dark pipeline: what is refused, what is said, what is made nevertheless."""

import dark_frames
import numpy as np
import pytest
from bias_frames import REAL, files, record, rows, write_frame

from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ

SMALL = {"n": 4, "bias_n": 4}


def take(folder, **plan):
    camera = dark_frames.sensor((16, 20), 5)
    dark_frames.campaign(folder, camera, 5, **(SMALL | plan))
    return camera


def refused(capsys, *words):
    assert dark_frames.run(*words) == 2
    text = capsys.readouterr().err
    assert len([line for line in text.splitlines() if line.startswith("error")]) == 1
    return text


def test_one_temperature_gives_maps_and_hot_pixels_but_no_model(tree, tmp_path):
    take(tree, temperatures=(5,))
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") == 1
    made = files(tmp_path / "out")
    assert "dark_model_2d/hot_pixels.fits" in made
    assert any(name.startswith("dark_masks_by_temp/exp_5p00/") for name in made)
    assert "dark_model_2d/A_map_2D.fits" not in made
    missing = {one["what"] for one in record(tmp_path / "out")["runs"][-1]["missing"]}
    assert {"dark_model_2d", "dark_model/exp_5p00"} <= missing


def test_one_exposure_holds_gamma(tree, tmp_path):
    take(tree, exposures=(20,))
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") == 0
    gamma = read_product(tmp_path / "out/dark_model_2d/GAMMA_map_2D.fits")
    assert not gamma.data.any()
    assert gamma.header["GFIXED"]
    assert ((gamma.dq & DQ.UNRELIABLE_FIT) != 0).all()


def test_no_bias(tree, tmp_path, capsys):
    take(tree, bias_n=0)
    text = refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")
    assert "no bias frame" in text
    assert not (tmp_path / "out").exists()
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out", "--no-bias") == 0
    head = read_product(next((tmp_path / "out/dark_masks_by_temp/exp_5p00").iterdir())).header
    assert head["NOBIAS"]


def test_a_gain_that_the_darks_contradict_is_said(tree, tmp_path):
    take(tree)
    words = ("--basepath", tree, "--output-dir", tmp_path / "out")
    assert dark_frames.run(*words, "--gain", "20") == 0
    warnings = " ".join(record(tmp_path / "out")["runs"][-1]["warnings"])
    assert "gain 20 e-/adu (EGAIN, --gain or --detector) is used, scatter of the darks says" in warnings
    assert dark_frames.run(*words) == 0
    assert not any("scatter of the darks" in one for one in record(tmp_path / "out")["runs"][-1]["warnings"])


def test_one_bias_frame_at_each_temperature(tree, tmp_path):
    take(tree, bias_n=1, bias_temperatures=(-5, 5, 15))
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") == 0
    warnings = " ".join(record(tmp_path / "out")["runs"][-1]["warnings"])
    assert "no temperature has two frames" in warnings


@pytest.mark.parametrize("terms", [{"dark_rate": 1e-9, "hot_fraction": 0.0, "warm_fraction": 0.0}])
@pytest.mark.parametrize("exposures", [(5, 60), (1e-5, 2e-5)])
def test_darks_without_dark_signal_have_no_model(tree, tmp_path, terms, exposures):
    camera = dark_frames.sensor((24, 32), 5, telegraph_fraction=0.0, cosmic_rate=0.0, **terms)
    dark_frames.campaign(tree, camera, 5, exposures=exposures, **SMALL)
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") == 1
    missing = record(tmp_path / "out")["runs"][-1]["missing"]
    assert "dark_model_2d" in [one["what"] for one in missing]
    assert all("do not tell how the rate grows" in one["reason"] for one in missing)


def test_exposures_that_do_not_tell_gamma(tree, tmp_path):
    # Ordinary pixels of 0.3 to 2 ADU in both exposures, which differ by 7 %.
    camera = dark_frames.sensor((24, 32), 5, dark_rate=0.02, hot_fraction=0.0, warm_fraction=0.0)
    dark_frames.campaign(tree, camera, 5, exposures=(30, 32), **SMALL)
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") == 0
    gamma = read_product(tmp_path / "out/dark_model_2d/GAMMA_map_2D.fits")
    assert gamma.header["GFIXED"]
    assert not gamma.data.any()
    assert "do not tell GAMMA" in " ".join(record(tmp_path / "out")["runs"][-1]["warnings"])


@pytest.mark.parametrize(
    ("bits", "words", "told"),
    [
        ("12left", ("--adu-scale", "8"), "ADUSCALE 16, expected 8 as --adu-scale says"),
        ("12", (), "ADUSCALE 1, expected 16 as the dark"),
    ],
)
def test_a_bias_model_in_other_units_is_refused(tree, tmp_path, capsys, bits, words, told):
    dark_frames.campaign(tree, dark_frames.sensor((16, 20), 5, left_justified=bits == "12left"), 5, **SMALL)
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "first") == 0
    darks = tmp_path / "darks"
    dark_frames.campaign(darks, dark_frames.sensor((16, 20), 5), 5, **(SMALL | {"bias_n": 0}))
    bias = ("--bias-model", tmp_path / "first" / "bias_used")
    capsys.readouterr()
    text = refused(capsys, "--basepath", darks, "--output-dir", tmp_path / "out", *bias, *words)
    assert told in text
    assert "bias_used" in text
    assert not list((tmp_path / "out").rglob("A_map*.fits"))


def test_no_darks(tree, tmp_path, capsys):
    take(tree, temperatures=())
    assert "no dark frame" in refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out")


def test_bias_at_one_temperature_says_how_far(tree, tmp_path):
    take(tree, bias_temperatures=(0,))
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") == 0
    warnings = " ".join(record(tmp_path / "out")["runs"][-1]["warnings"])
    assert "15.0 degC outside the temperatures of the bias" in warnings


def test_bias_model_missing_or_of_another_shape(tree, tmp_path, capsys):
    take(tree)
    words = ("--basepath", tree, "--output-dir", tmp_path / "out", "--bias-model")
    assert "no such folder" in refused(capsys, *words, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "bias_a_map.fits" in refused(capsys, *words, tmp_path / "empty")
    other = tmp_path / "other"
    dark_frames.campaign(other / "in", dark_frames.sensor((12, 20), 5), 5, **SMALL)
    assert dark_frames.run("--basepath", other / "in", "--output-dir", other / "out") == 0
    text = refused(capsys, *words, other / "out" / "bias_used")
    assert "(12, 20)" in text
    assert "(16, 20)" in text
    assert not (tmp_path / "out").exists()


def test_a_bias_model_serves_as_the_frames_do(tree, tmp_path):
    take(tree)
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "one") == 0
    words = (
        "--basepath",
        tree,
        "--output-dir",
        tmp_path / "two",
        "--bias-model",
        tmp_path / "one" / "bias_used",
    )
    assert dark_frames.run(*words) == 0
    name = "dark_model_2d/A_map_2D.fits"
    one, two = (read_product(tmp_path / out / name) for out in ("one", "two"))
    np.testing.assert_allclose(two.data, one.data, atol=0.02 * np.median(one.uncert))


def test_frames_that_cannot_be_used_are_listed(tree, tmp_path):
    camera = take(tree)
    samples = camera.frame("dark", 5.0, 20.0, 1)
    cards = {"IMAGETYP": "Dark Frame"}
    zero = write_frame(tree / "dark" / "zero.fits", samples, **cards, CCD_TEMP=5.0, EXPTIME=0.0)
    nan = write_frame(tree / "dark" / "nan.fits", samples, **cards, CCD_TEMP="NAN", EXPTIME=20.0)
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") == 0
    listed = {row["path"] for row in rows(tmp_path / "out" / "rejected_frames.csv")}
    assert {str(zero), str(nan)} <= listed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--temps", "warm"), "--temps: got 'warm'"),
        (("--temps", "-300"), "--temps: got -300"),
        (("--exptimes", "0"), "--exptimes: got 0"),
        (("--add-bias",), "--add-bias"),
        (("--hot-sigma", "3"), "--hot-sigma: got 3"),
        (("--mode", "synthetic_2d_single"), "--temp_single"),
        (("--no-bias", "--bias-model", "."), "--no-bias"),
    ],
)
def test_options_that_cannot_be(tree, tmp_path, capsys, words, told):
    assert told in refused(capsys, "--basepath", tree, "--output-dir", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_model_folder_with_a_missing_or_foreign_map(tree, tmp_path, capsys):
    take(tree)
    out = tmp_path / "out"
    assert dark_frames.run("--basepath", tree, "--output-dir", out) == 0
    target = out / "dark_model_2d" / "B_map_2D.fits"
    target.unlink()
    words = ("--mode", "synthetic_2d", "--output-dir", out, "--model_dir", out / "dark_model_2d")
    assert "B_map_2D.fits" in refused(capsys, *words)
    target.write_bytes((out / "dark_model_2d" / "A_map_2D.fits").read_bytes())
    assert "DARK_B_2D" in refused(capsys, *words)


def test_dry_run_writes_nothing(tree, tmp_path):
    take(tree)
    assert dark_frames.run("--basepath", tree, "--output-dir", tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="no real frames")
class TestReal:
    def test_bias_and_darks_of_different_binning_are_refused(self, tmp_path, capsys):
        text = refused(capsys, "--basepath", REAL / "atik_ast326", "--output-dir", tmp_path / "out")
        assert "1x1" in text
        assert "2x2" in text

    def test_stl1001(self, tmp_path):
        words = ("--basepath", REAL / "stl1001_ast443", "--output-dir", tmp_path / "out", "--plots", "none")
        # Status 1: some exposures are at one temperature only.
        assert dark_frames.run(*words) == 1
        warnings = " ".join(record(tmp_path / "out")["runs"][-1]["warnings"])
        assert "-15.2 degC 120 s" in warnings
        measured = {}
        for path in (tmp_path / "out/dark_masks_by_temp").rglob("*.fits"):
            product = read_product(path)
            head = product.header
            assert bool(head["MISFIT"]) == (head["TEMP"] < -14)
            if head["EXPTIME"] >= 299:
                measured[round(head["TEMP"])] = np.median(product.data[product.dq == 0])
        # Read off the frames by hand; the bias line misses the levels of this camera by some ADU (0.02 ADU/s in 300 s).
        for temperature, rate in {-10: 0.18, -5: 0.36, 0: 0.69, 10: 3.1}.items():
            assert abs(measured[temperature] - rate) < 0.03 + 0.05 * rate

    def test_orion_says_what_its_frames_do_not_tell(self, tmp_path):
        words = ("--basepath", REAL / "orion_g3_astroluminance", "--output-dir", tmp_path / "out")
        assert dark_frames.run(*words) == 1
        missing = record(tmp_path / "out")["runs"][-1]["missing"]
        assert [one["what"] for one in missing] == ["dark_model/exp_20p00", "dark_model_2d"]
        assert all("do not tell how the rate grows" in one["reason"] for one in missing)
        warnings = " ".join(record(tmp_path / "out")["runs"][-1]["warnings"])
        assert "darks of one exposure (20 s)" in warnings
