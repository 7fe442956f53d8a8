"""The bias pipeline on frames of real cameras, as they were published; skipped where they are not at hand."""

import numpy as np
import pytest
from astropy.io import fits

from tests.bias_frames import REAL, files, record, rows, run
from utils.fits_io.product_reader import read_product

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="no real frames beside the repository")


def calibrate(camera, out, *words, plots="none"):
    """Run the pipeline on one camera's folder; returns the warnings and the numbers of the run."""
    before = files(REAL / camera)
    assert run("--basepath", REAL / camera, "--output-dir", out, *words, plots=plots) == 0
    assert files(REAL / camera) == before  # nothing is written among the frames
    numbers = {(row["name"], row["unit"]): row["value"] for row in rows(out / "summary.csv")}
    return record(out)["runs"][-1]["warnings"], numbers


def masters(out):
    return [fits.getheader(path) for path in sorted((out / "bias_grouped_by_temp").glob("*.fits"))]


def test_warm_up_is_cut_into_groups(tmp_path):
    """Orion G3: 2.3 to 11.4 degC within 70 s, the level follows by about 0.28 ADU a degree."""
    _, numbers = calibrate("orion_g3_astroluminance", tmp_path)
    found = masters(tmp_path)
    assert sum(header["NCOMBINE"] for header in found) == 30
    assert min(header["TEMPMIN"] for header in found) == pytest.approx(2.3, abs=0.5)
    assert max(header["TEMPMAX"] for header in found) == pytest.approx(11.4, abs=0.1)
    assert len(found) >= 5
    assert all(header["TEMPMAX"] - header["TEMPMIN"] <= 2 * 0.5 for header in found)
    b_map = read_product(tmp_path / "bias_model" / "bias_b_map.fits")
    good = ~b_map.mask
    # About 0.4 ADU/degC a pixel and 43,000 pixels: the mean is known far better than to 0.02.
    assert np.mean(b_map.data[good], dtype=float) == pytest.approx(0.28, abs=0.03)
    assert float(numbers["reduced chi2 (mean of good pixels)", ""]) == pytest.approx(1.0, abs=0.1)
    assert float(numbers["read noise (median pixel)", "adu"]) == pytest.approx(7.5, abs=0.3)


def test_zero_level_that_moves_between_nights(tmp_path, capsys):
    """STL-1001: upper-case .FIT, nights of 2017 to 2024, one frame at -15 and one at +10 degC."""
    warnings, numbers = calibrate("stl1001_ast443", tmp_path)
    found = masters(tmp_path)
    assert sorted(round(header["TEMP"]) for header in found) == [-15, -10, -5, 0, 10]
    assert sum(header["NCOMBINE"] for header in found) == 36
    inputs = [
        row["file"]
        for path in (tmp_path / "bias_grouped_by_temp").glob("*.fits")
        for row in read_product(path).inputs
    ]
    assert all(path.endswith(".FIT") for path in inputs)
    assert any(text.startswith("fewer than 5 frames at -14.8, 10.2 degC") for text in warnings)
    assert any(text.startswith("zero level differs between 4 sessions") for text in warnings)
    # The level at +10 degC lies 20 ADU above the line of the others: an error common to all pixels is quoted.
    assert any("more than their frames explain: included in the errors" in text for text in warnings)
    header = fits.getheader(tmp_path / "bias_model" / "bias_a_map.fits")
    assert header["COMMONER"] > 3
    assert header["EGAIN"] == pytest.approx(2.06, abs=0.01)
    assert float(numbers["read noise (median pixel)", "adu"]) == pytest.approx(6.6, abs=0.5)
    assert numbers["extrapolation beyond the fitted range", ""].startswith("not trusted")
    a_map = read_product(tmp_path / "bias_model" / "bias_a_map.fits")
    assert np.median(a_map.uncert) > 2


def test_header_with_few_of_the_usual_keywords(tmp_path):
    """ST-7: temperature only in TEMPERAT, exposure in EXPOSURE, gain in E-GAIN, kind from the file name."""
    warnings, numbers = calibrate("st7_astr480_uw", tmp_path)
    (header,) = masters(tmp_path)
    assert header["TEMP"] == pytest.approx(-5.1, abs=0.1)
    assert header["NCOMBINE"] == 8
    assert header["EGAIN"] > 0
    assert float(numbers["read noise (median pixel)", "e-"]) == pytest.approx(
        header["EGAIN"] * float(numbers["read noise (median pixel)", "adu"])
    )
    assert [text.partition(" (")[0] for text in warnings] == ["one temperature"]
    # The readings scatter by 0.4 degC at one temperature: no slope is made of that.
    assert ("slope of the zero level", "adu/degC") not in numbers
    assert header["DRIFTCOR"] is False


def test_unbinned_bias_beside_binned_darks(tmp_path, capsys):
    """Atik: the crops share a shape; XBINNING tells the 1 x 1 bias frames from the 2 x 2 darks."""
    warnings, _ = calibrate("atik_ast326", tmp_path)
    (header,) = masters(tmp_path)
    assert (header["NCOMBINE"], header["XBINNING"], header["YBINNING"]) == (3, 1, 1)
    assert "3 bias, 12 dark, 3 flat of 18 FITS files" in capsys.readouterr().out
    assert any(text.startswith("fewer than 5 frames at -9.8 degC") for text in warnings)
    assert (
        run("--basepath", REAL / "atik_ast326", "--output-dir", tmp_path / "x", "--select", "binning=2x2")
        == 2
    )
    assert "got no bias frame among 15 usable frames" in capsys.readouterr().err


@pytest.mark.parametrize("camera", ["orion_g3_astroluminance", "stl1001_ast443"])
def test_pictures_and_report_of_real_frames(camera, tmp_path):
    calibrate(camera, tmp_path, plots="summary")
    assert sum(name.endswith(".png") for name in files(tmp_path)) >= 10
    assert "data:image/png;base64," in (tmp_path / "report.html").read_text(encoding="utf-8")
