"""Products of the bias pipeline: names, headers, tables, and what programs of others make of them."""

import json
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from tests.bias_frames import (
    LABELS,
    MASTERS,
    MODEL,
    NOISE,
    OF_RUN,
    SHAPE,
    SYNTHETIC,
    TABLES,
    TEMPERATURES,
    files,
    record,
    rows,
    run,
    write_frame,
)
from utils.fits_io.product_reader import read_product
from utils.kernels.sensor import Sensor, SensorSpec

EVERYWHERE = (
    *("PRODTYPE", "BUNIT", "NCOMBINE", "TEMP", "TEMPSTD", "TEMPMIN", "TEMPMAX", "EXPTIME", "CALTYPE"),
    *("ADUSCALE", "EGAIN", "SATURATE", "DATE-BEG", "DATE-AVG", "DATE-END", "DATE", "PROGVER"),
    *("CHECKSUM", "DATASUM"),
)


def test_full_run_makes_what_is_promised_and_nothing_else(bias_run):
    evaluation = {
        f"evaluation/{kind}_{t}C.fits"
        for kind in ("real_bias", "synthetic_bias", "mae", "mape")
        for t in LABELS
    }
    assert files(bias_run) == MASTERS | NOISE | MODEL | SYNTHETIC | TABLES | OF_RUN | evaluation
    products = record(bias_run)["products"]
    assert set(products) == files(bias_run) - {"run.json"}


def test_every_product_has_every_card(bias_run):
    for name in sorted(files(bias_run)):
        if name.endswith(".fits"):
            header = fits.getheader(bias_run / name)
            assert [key for key in EVERYWHERE if key not in header] == [], name
            assert header["ADUSCALE"] == 16
            assert header["EGAIN"] == 2.0
            assert header["CALTYPE"] == "BIAS"
            assert [header[f"DQBIT{bit}"] for bit in (0, 5, 8)] == ["DO_NOT_USE", "NOISY", "UNRELIABLE_FIT"]
            with fits.open(bias_run / name) as hdus:
                assert {"DQ", "MASK", "INPUTS"} <= {hdu.name for hdu in hdus}, name


def test_products_open_as_ccddata_without_a_warning(bias_run):
    for name, unit in (
        ("bias_grouped_by_temp/master_bias_0.0C.fits", "adu"),
        ("read_noise/read_noise.fits", "adu"),
        ("bias_model/bias_a_map.fits", "adu"),
        ("bias_model/bias_b_map.fits", "adu / K"),
        ("bias_masks_by_temp/synthetic_bias_10.0C.fits", "adu"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = CCDData.read(bias_run / name)
        assert image.unit.to_string() == unit
        assert image.shape == SHAPE
        assert image.data.dtype == np.dtype(">f4")
        assert np.isfinite(image.uncertainty.array).all()
        assert image.uncertainty.uncertainty_type == "std"
        assert image.mask.dtype == bool


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify_finds_no_error_and_no_warning(bias_run):
    paths = sorted(bias_run / name for name in files(bias_run) if name.endswith(".fits"))
    result = subprocess.run(
        ["fitsverify", "-q", *map(str, paths)], capture_output=True, text=True, check=False
    )
    lines = result.stdout.splitlines()
    assert len([line for line in lines if line.startswith("verification OK")]) == len(paths)
    assert result.returncode == 0


def test_checksums_hold(bias_run):
    for name in sorted(MASTERS | MODEL):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with fits.open(bias_run / name, checksum=True) as hdus:
                assert len(hdus) > 3


def test_master_tells_its_frames(bias_run, bias_campaign):
    master = read_product(bias_run / "bias_grouped_by_temp" / "master_bias_-10.0C.fits")
    assert [Path(row["file"]).name for row in master.inputs] == [f"bias_01_{i:03d}.fits" for i in range(6)]
    assert [row["time"] for row in master.inputs] == [1.7e9 + 600 + 2 * i for i in range(6)]
    assert {row["temperature"] for row in master.inputs} == {-10.0}
    assert {row["exposure"] for row in master.inputs} == {1e-5}
    # The sum of the stored data, as astropy computes it.
    with fits.open(bias_campaign / "bias_01_000.fits", do_not_scale_image_data=True) as hdus:
        hdus[0].add_datasum()
        expected = hdus[0].header["DATASUM"]
    assert master.inputs[0]["datasum"] == expected
    header = master.header
    assert (header["NCOMBINE"], header["COMBINE"], header["CLIPSIG"]) == (6, "sigclip", 4.0)
    assert (header["TEMP"], header["TEMPSTD"], header["TEMPMIN"], header["TEMPMAX"]) == (-10, 0, -10, -10)
    assert header["SATURATE"] == 4095
    assert header["DATE-BEG"] == "2023-11-14T22:23:20.000"
    assert header["DATE-AVG"] == "2023-11-14T22:23:25.000"


def test_model_can_be_evaluated_from_its_headers_alone(bias_run):
    a, b = (fits.open(bias_run / "bias_model" / f"bias_{which}_map.fits") for which in "ab")
    cov = fits.getdata(bias_run / "bias_model" / "bias_ab_covariance.fits").astype(float)
    header = a[0].header
    assert header["MODEL"] == "bias(T) = a + b * T, T in degC"
    assert header["ERRMODEL"] == "UNCERT(T)^2 = sa^2 + 2 T cov + T^2 sb^2"
    assert (header["T_MIN"], header["T_MAX"], header["T_REF"], header["NMASTER"]) == (-20, 20, 0, 5)
    assert (header["NCOMBINE"], header["TEMP"]) == (30, 0)
    assert header["DATE-BEG"] == "2023-11-14T22:13:20.000"
    assert header["DATE-AVG"] == "2023-11-14T22:33:25.000"
    t = 10.0
    with fits.open(bias_run / "bias_masks_by_temp" / "synthetic_bias_10.0C.fits") as synthetic:
        np.testing.assert_allclose(synthetic[0].data, a[0].data + t * b[0].data, rtol=1e-6)
        variance = (
            a["UNCERT"].data.astype(float) ** 2 + 2 * t * cov + t * t * b["UNCERT"].data.astype(float) ** 2
        )
        np.testing.assert_allclose(synthetic["UNCERT"].data, np.sqrt(variance), rtol=1e-5)
        assert synthetic[0].header["EXTRAP"] is False
        assert synthetic[0].header["TEMP"] == 10.0
    for hdus in (a, b):
        hdus.close()
    summary = json.loads((bias_run / "bias_model" / "bias_model.json").read_text())
    assert summary["temperatures"] == list(TEMPERATURES)
    assert summary["maps"]["a"] == "bias_a_map.fits"


def test_numbers_of_the_run(bias_run):
    found = {
        (row["section"], row["name"], row["unit"]): float_or_text(row["value"])
        for row in rows(bias_run / "summary.csv")
    }
    assert found["camera", "stored units per ADU", ""] == 16
    assert found["camera", "saturation", "adu"] == 4095
    assert found["camera", "read noise (median pixel)", "adu"] == pytest.approx(1.5, rel=0.05)
    assert found["camera", "read noise (median pixel)", "e-"] == pytest.approx(3.0, rel=0.05)
    assert found["bias level", "slope of the zero level", "adu/degC"] == pytest.approx(0.3, abs=0.005)
    assert found["bias model", "a (median pixel)", "adu"] == pytest.approx(100, abs=1.5)
    assert found["bias model", "b (median pixel)", "adu/K"] == pytest.approx(0.3, abs=0.01)
    # 1280 pixels with 3 degrees of freedom: the mean is known to sqrt(2 / 3 / 1280) = 2.3 %.
    assert found["bias model", "reduced chi2 (mean of good pixels)", ""] == pytest.approx(1, abs=0.1)
    assert found["evaluation", "extrapolation beyond the fitted range", ""].startswith("trusted")
    table = rows(bias_run / "evaluation" / "evaluation_summary.csv")
    assert [float(row["temperature"]) for row in table] == list(TEMPERATURES)
    assert [row["left_out_is"] for row in table] == ["extrapolation", *["interpolation"] * 3, "extrapolation"]
    assert all(float(row["left_out_rmse"]) > float(row["rmse"]) for row in table)
    assert all(float(row["within_3sigma"]) > 0.98 for row in table)


def float_or_text(text):
    try:
        return float(text)
    except ValueError:
        return text


def test_run_is_recorded(bias_run, bias_campaign):
    (one,) = record(bias_run)["runs"]
    assert (one["mode"], one["status"], one["error"], one["warnings"]) == ("full", 0, None, [])
    assert one["inputs"]["count"] == 30
    assert one["inputs"]["files"][0]["path"] == str(bias_campaign / "bias_00_000.fits")
    assert [step["name"] for step in one["steps"]] == [
        *("select_frames", "make_masters", "fit_model", "synthesize", "evaluate", "report")
    ]
    assert one["options"]["shared"]["gain"] == 2.0


def test_frames_without_a_clock_or_a_camera_name(tmp_path):
    sensor = Sensor(SensorSpec.preset("16", shape=SHAPE, seed=17))
    rng = np.random.default_rng(17)
    for k, t in enumerate((0.0, 10.0)):
        for i in range(5):
            write_frame(
                tmp_path / "frames" / f"b{k}{i}.fits",
                sensor.frame("bias", t, 0.0, rng),
                CCD_TEMP=t,
                INSTRUME=None,
            )
    assert run("--basepath", tmp_path / "frames", "--output-dir", tmp_path / "out") == 0
    header = fits.getheader(tmp_path / "out" / "bias_model" / "bias_a_map.fits")
    assert "DATE-BEG" not in header
    assert "INSTRUME" not in header
