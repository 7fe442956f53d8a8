"""The tool that makes one synthetic bias from the maps of a model."""

import re

import numpy as np
import pytest
from astropy.io import fits

from bias_pipeline import generate_bias
from tests.bias_frames import SHAPE, campaign, files, run
from utils.application.command import run_command
from utils.fits_io.product_reader import read_product


def one_bias(bias_run, *words):
    maps = [("--a-map", "bias_a_map.fits"), ("--b_map", "bias_b_map.fits")]
    words = [
        *(str(w) for option, name in maps for w in (option, bias_run / "bias_model" / name)),
        *map(str, words),
    ]
    return run_command(generate_bias.main, words)


def test_one_bias_to_a_file_and_to_a_folder(bias_run, tmp_path, capsys):
    assert one_bias(bias_run, "--temperature", 10, "--output", tmp_path / "deep" / "mine.fits") == 0
    assert one_bias(bias_run, "--temperature", 10, "--output", tmp_path / "folder") == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = re.findall(r"(\S+): mean (\S+) adu, std (\S+) adu", out)
    assert [path for path, _, _ in found] == [
        str(tmp_path / "deep" / "mine.fits"),
        str(tmp_path / "folder" / "synthetic_bias_10.0C.fits"),
    ]
    expected = read_product(bias_run / "bias_masks_by_temp" / "synthetic_bias_10.0C.fits")
    for path, mean, std in found:
        made = read_product(path)
        np.testing.assert_array_equal(made.data, expected.data)
        np.testing.assert_array_equal(made.uncert, expected.uncert)
        assert float(mean) == pytest.approx(expected.data.mean(dtype=float), abs=1e-4)
        assert float(std) == pytest.approx(expected.data.std(dtype=float), abs=1e-4)


def test_one_bias_outside_the_range(bias_run, tmp_path, capsys):
    assert one_bias(bias_run, "--temperature", -35, "--output", tmp_path) == 0
    assert "-35 degC is outside the fitted range -20.0 to 20.0 degC: extrapolated" in capsys.readouterr().err
    header = fits.getheader(tmp_path / "synthetic_bias_-35.0C.fits")
    assert (header["EXTRAP"], header["TEMP"]) == (True, -35)


def test_one_bias_never_writes_over_a_file_unasked(bias_run, tmp_path, capsys):
    (tmp_path / "mine.fits").write_text("mine")
    words = ("--temperature", 0, "--output", tmp_path / "mine.fits")
    assert one_bias(bias_run, *words) == 2
    assert "mine.fits: exists, expected a new name or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine.fits").read_text() == "mine"
    assert one_bias(bias_run, *words, "--overwrite") == 0
    assert fits.getval(tmp_path / "mine.fits", "PRODTYPE") == "SYNTHETIC_BIAS"


@pytest.mark.parametrize("temperature", ["nan", "-300", "warm"])
def test_one_bias_at_no_temperature_is_refused(bias_run, tmp_path, capsys, temperature):
    assert one_bias(bias_run, f"--temperature={temperature}", "--output", tmp_path / "x.fits") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--temperature" in line
    assert files(tmp_path) == set()


def test_one_bias_from_maps_that_do_not_belong_together(bias_run, tmp_path, capsys):
    other = tmp_path / "frames"
    campaign(other, shape=(24, 40), temperatures=(0, 10), n=5, seed=16)
    assert run("--basepath", other, "--output-dir", tmp_path / "out") == 0
    capsys.readouterr()
    b_map = tmp_path / "out" / "bias_model" / "bias_b_map.fits"
    words = ["--a-map", bias_run / "bias_model" / "bias_a_map.fits", "--b-map", b_map, "--temperature", 0]
    words = [str(word) for word in [*words, "--output", tmp_path / "x.fits"]]
    assert run_command(generate_bias.main, words) == 2
    assert f"{b_map}: shape (24, 40), expected {SHAPE}" in capsys.readouterr().err
    words[3] = words[1]  # the a map twice
    assert run_command(generate_bias.main, words) == 2
    assert "got PRODTYPE BIAS_A, expected BIAS_B" in capsys.readouterr().err
    assert not (tmp_path / "x.fits").exists()
