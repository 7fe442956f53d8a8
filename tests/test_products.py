import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.units import Unit

from utils.errors import InputError, OptionError
from utils.fits_io.product_reader import read_plane, read_product, view_planes
from utils.fits_io.products import DQ, DQ_NAMES, header_from_inputs, iso_time, write_product
from utils.version import __version__

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "realdata"
INPUTS = [
    {
        "file": "Bias/T-5/f1.fits",
        "temperature": -5.04,
        "exposure": 0.0,
        "time": 1.7e9,
        "datasum": "4294967295",
    },
    {
        "file": "Bias/Tø/long name of a frame.fits",
        "temperature": None,
        "exposure": None,
        "time": None,
        "datasum": None,
    },
]


# Products ---------------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path):
    """One product with everything in it: path, data, uncert, dq, chi2."""
    rng = np.random.default_rng(3)
    data = rng.normal(300, 2, (37, 51)).astype(np.float32)
    data[3, 4] = np.nan
    uncert = rng.uniform(0.1, 0.5, data.shape).astype(np.float32)
    dq = np.zeros(data.shape, np.int16)
    dq[0, 0], dq[1, 1], dq[2, 2] = DQ.HOT | DQ.NOISY, DQ.DO_NOT_USE, DQ.NO_DATA
    chi2 = rng.chisquare(5, data.shape)
    path = tmp_path / "deep" / "master.fits"
    write_product(
        path,
        data,
        prodtype="MASTER_BIAS",
        unit="adu",
        cards={
            "NCOMBINE": (10, "frames that went in"),
            "TEMP": (-5.04, "[degC] mean"),
            "TEMPSTD": (np.nan, "[degC]"),
            "EGAIN": None,
            "EQUATION": (
                "bias(T) = BIAS_A + BIAS_B * T  with T in degC, it's the whole model; " * 2,
                "model",
            ),
            "DATE-BEG": "2024-01-02T03:04:05.678",
            "DATE-END": "2024-01-02T03:05:05",
            "DATE-AVG": iso_time(1704164675.5),
            "DATE-OBS": "2024-01-02T03:04:05.678",
            "EXTRAP": True,
        },
        uncert=uncert,
        dq=dq,
        inputs=INPUTS,
        extra=[("CHI2", chi2, ""), ("NUSED", np.full(data.shape, 10, np.int16), "")],
        history=["made by a test " * 10],
    )
    return path, data, uncert, dq, chi2


def test_astropy_reads_everything_and_the_checksums_hold(full):
    path, data, uncert, dq, chi2 = full
    with fits.open(path, checksum=True) as hdus:  # A wrong sum is a warning, and warnings are errors.
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "UNCERT", "MASK", "DQ", "CHI2", "NUSED", "INPUTS"]
        assert all("CHECKSUM" in hdu.header and "DATASUM" in hdu.header for hdu in hdus)
        assert all(hdu.header["PRODTYPE"] == "MASTER_BIAS" for hdu in hdus)
        head = hdus[0].header
        assert hdus[0].data.dtype == np.dtype(">f4")
        np.testing.assert_array_equal(hdus[0].data, data)
        np.testing.assert_array_equal(hdus["UNCERT"].data, uncert)
        np.testing.assert_array_equal(hdus["CHI2"].data, chi2.astype(np.float32))
        assert hdus["UNCERT"].header["UTYPE"] == "StdDevUncertainty"
        assert hdus["UNCERT"].header["BUNIT"] == head["BUNIT"] == "adu"
        assert hdus["DQ"].data.dtype == np.dtype(">i2")
        assert hdus["DQ"].data[3, 4] == DQ.NO_DATA
        assert hdus["NUSED"].data[5, 5] == 10
        mask = hdus["MASK"].data
        assert mask.dtype == np.uint8
        assert sorted(zip(*np.nonzero(mask), strict=True)) == [(1, 1), (2, 2), (3, 4)]
        assert mask.max() == 1
        table = hdus["INPUTS"].data
        assert table["FILE"][0] == "Bias/T-5/f1.fits"
        assert table["FILE"][1] == "Bias/T\\xf8/long name of a frame.fits"
        assert table["TEMP"][0] == -5.04
        assert np.isnan([table[name][1] for name in ("TEMP", "EXPTIME", "TIME")]).all()
        assert list(table["DATASUM"]) == ["4294967295", ""]
    assert head["NCOMBINE"] == 10
    assert head["TEMPSTD"] == "NAN"
    assert "EGAIN" not in head
    assert head["EXTRAP"] is True
    assert head["PROGVER"] == __version__
    assert head["EQUATION"].count("whole model") == 2
    assert head["MJD-BEG"] == pytest.approx(60311 + (3 * 3600 + 4 * 60 + 5.678) / 86400, abs=1e-9)
    assert tuple(head[f"DQBIT{n}"] for n in range(10)) == DQ_NAMES
    assert dq[3, 4] == 0  # The caller's array is not touched.


def test_dq_bits_are_those_of_the_contract():
    names = ["DO_NOT_USE", "SATURATED", "DEAD", "HOT", "LOW_QE"]
    names += ["NOISY", "TELEGRAPH", "WARM", "UNRELIABLE_FIT", "NO_DATA"]
    assert [(bit.name, bit.value) for bit in DQ] == [(name, 1 << n) for n, name in enumerate(names)]


@pytest.mark.parametrize("unit", ["adu", "adu/s", "adu/K", "1/K", ""])
def test_ccddata_reads_it_as_it_is(full, tmp_path, unit):
    path, data, uncert, _, _ = full
    if unit != "adu":
        path = tmp_path / "other.fits"
        write_product(path, data, prodtype="X", unit=unit, uncert=uncert, cards={"DATE-BEG": "2024-01-02"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ccd = CCDData.read(path)
    assert ccd.unit == Unit(unit)
    np.testing.assert_array_equal(ccd.uncertainty.array, uncert)
    assert ccd.uncertainty.uncertainty_type == "std"
    assert ccd.mask[3, 4]
    assert not ccd.mask[5, 5]


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify_has_nothing_to_say(full, tmp_path):
    hot = tmp_path / "hot.fits"
    write_product(hot, np.eye(5, dtype=np.uint8), prodtype="HOT_PIXELS", unit="")
    for path in (full[0], hot):
        result = subprocess.run(["fitsverify", path], capture_output=True, text=True, check=False)
        assert "found 0 warning(s) and 0 error(s)" in result.stdout, result.stdout


def test_reader_gives_back_what_was_written(full):
    path, data, uncert, dq, chi2 = full
    product = read_product(path, expect=("MASTER_DARK", "MASTER_BIAS"))
    np.testing.assert_array_equal(product.data, data)
    np.testing.assert_array_equal(product.uncert, uncert)
    assert product.dq[0, 0] == dq[0, 0]
    assert product.data.dtype == np.float32
    assert product.data.dtype.isnative
    assert product.data.flags.writeable
    assert product.mask.sum() == 3
    assert (product.unit, product.prodtype) == ("adu", "MASTER_BIAS")
    head = fits.getheader(path)
    assert product.header == {key: head[key] for key in head if key not in ("HISTORY", "COMMENT")}
    assert product.inputs[0] == INPUTS[0]
    assert product.inputs[1]["temperature"] is None
    np.testing.assert_array_equal(read_plane(path, "CHI2"), chi2.astype(np.float32))
    with pytest.raises(InputError, match=r"master\.fits: got UNCERT, .*, INPUTS, expected an extension COV"):
        read_plane(path, "COV")


def test_mask_products_stay_bytes(tmp_path):
    mask = np.zeros((5, 7), bool)
    mask[2, 3] = True
    write_product(tmp_path / "hot.fits", mask, prodtype="HOT_PIXELS", unit="")
    with fits.open(tmp_path / "hot.fits") as hdus:
        assert len(hdus) == 1
        assert hdus[0].header["BITPIX"] == 8
        np.testing.assert_array_equal(hdus[0].data, mask)
    product = read_product(tmp_path / "hot.fits")
    assert product.data.dtype == np.uint8
    assert not product.mask.any()
    assert product.dq is None
    assert product.uncert is None


def test_files_that_are_not_the_product_wanted(full, tmp_path):
    path = full[0]
    with pytest.raises(InputError, match=r"master\.fits: got PRODTYPE MASTER_BIAS, expected BIAS_A"):
        read_product(path, expect="BIAS_A")
    with pytest.raises(InputError, match=r"none\.fits: No such file or directory"):
        read_product(tmp_path / "none.fits")
    (tmp_path / "text.fits").write_text("hello")
    with pytest.raises(InputError, match=r"text\.fits: got no FITS file"):
        read_product(tmp_path / "text.fits")
    content = path.read_bytes()
    (tmp_path / "short.fits").write_bytes(content[: 2880 * 2 + 100])
    with pytest.raises(InputError, match=r"short\.fits: truncated, got 5860 bytes"):
        read_product(tmp_path / "short.fits")
    (tmp_path / "head.fits").write_bytes(content[:2000])
    with pytest.raises(InputError, match=r"head\.fits: got a damaged header at byte 0"):
        read_product(tmp_path / "head.fits")
    (tmp_path / "bitpix.fits").write_bytes(content.replace(b"BITPIX  ", b"BITTPIX ", 1))
    with pytest.raises(InputError, match=r"bitpix\.fits: damaged header at byte 0, expected BITPIX"):
        read_product(tmp_path / "bitpix.fits")
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "frame.fits")
    with pytest.raises(InputError, match="got PRODTYPE missing, expected a product of these pipelines"):
        read_product(tmp_path / "frame.fits")


def test_mistakes_of_the_caller_write_nothing(tmp_path):
    data = np.zeros((4, 5), np.float32)
    path = tmp_path / "x.fits"
    wrong = [
        ({"uncert": np.zeros((5, 4))}, r"uncert has shape \(5, 4\), expected \(4, 5\)"),
        ({"dq": np.zeros((5, 4), int)}, "dq must be integer"),
        ({"dq": np.zeros((4, 5))}, "dq must be integer"),
        ({"cards": {"BITPIX": 8}}, "BITPIX is written by write_product itself"),
        ({"cards": {"DQBIT1": "X"}}, "DQBIT1 is written"),
        ({"cards": {"long keyword": 8}}, "illegal FITS keyword"),
        ({"cards": {"DATE-OBS": "yesterday"}}, "DATE-OBS: expected YYYY"),
        ({"cards": {"DATE-OBS": "2024-01-02T00:00:00+01:00"}}, "DATE-OBS: expected YYYY"),
        ({"prodtype": ""}, "prodtype is empty"),
    ]
    for options, words in wrong:
        with pytest.raises(ValueError, match=words):
            write_product(path, data, **({"prodtype": "X", "unit": "adu"} | options))
    with pytest.raises(ValueError, match=r"data must be \(ny, nx\)"):
        write_product(path, np.zeros(5), prodtype="X", unit="adu")
    with pytest.raises(TypeError, match="complex128 is not stored"):
        write_product(path, data.astype(complex), prodtype="X", unit="adu")
    assert os.listdir(tmp_path) == []


def test_date_of_writing_can_be_fixed(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    for name in ("a", "b"):
        write_product(tmp_path / name, np.zeros((4, 5)), prodtype="X", unit="adu")
    assert fits.getheader(tmp_path / "a")["DATE"] == "2001-09-09T01:46:40"
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "noon")
    with pytest.raises(OptionError, match="SOURCE_DATE_EPOCH: got 'noon'"):
        write_product(tmp_path / "c", np.zeros((4, 5)), prodtype="X", unit="adu")


def test_values_beyond_float32_are_masked(tmp_path):
    data = np.ones((4, 5))
    data[1, 2] = 1e300
    write_product(tmp_path / "x", data, prodtype="X", unit="adu")
    product = read_product(tmp_path / "x")
    assert product.mask.sum() == 1
    assert product.dq[1, 2] == DQ.NO_DATA


# Cards common to the inputs ---------------------------------------------------------------------------------


def test_common_cards():
    first = {
        "SIMPLE": True,
        "BITPIX": 16,
        "INSTRUME": "ATIK",
        "GAIN": 2,
        "TEMP": -5.0,
        "DATE-OBS": "x",
        "XB": True,
    }
    first |= {"CRPIX1": 3.0, "CD1_1": 1.0, "HISTORY": "x", "TIMESTAMP": 3.0, "NAN": np.nan, "CDATA": 1}
    second = first | {"TEMP": -5.1, "XB": 1}
    assert header_from_inputs([first, second]) == {"INSTRUME": "ATIK", "GAIN": 2, "CDATA": 1}
    assert header_from_inputs([]) == {}


@pytest.mark.skipif(not REAL.is_dir(), reason="no real frames here")
def test_common_cards_of_real_frames_make_clean_products(tmp_path):
    frames = [p for p in sorted(REAL.rglob("*")) if p.suffix.lower() in (".fits", ".fit", ".fts")][::25]
    assert frames
    for n, frame in enumerate(frames):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cards = dict(fits.getheader(frame))
        common = header_from_inputs([cards])
        path = tmp_path / f"{n}.fits"
        write_product(path, np.zeros((4, 5)), prodtype="X", unit="adu", cards=common)
        ccd = CCDData.read(path)
        assert {key: ccd.header[key] for key in common} == common


# Cost -------------------------------------------------------------------------------------------------------


def test_importing_the_writer_does_not_import_astropy():
    code = "import sys, utils.fits_io.products, utils.fits_io.product_reader; print('astropy' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "False"


# Damaged products -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PRIMARY", "UNCERT", "MASK", "DQ", "CHI2"])
def test_flipped_bit_of_each_plane_is_noticed(full, name):
    path = full[0]
    with fits.open(path) as hdus:
        found = hdus[name]._data_offset
    content = bytearray(path.read_bytes())
    content[found + 101] ^= 0x20
    path.write_bytes(bytes(content))
    match = f"master.fits: the data of {name} are not those of its DATASUM [0-9]+: damaged, make it anew"
    read = (lambda: read_plane(path, name)) if name == "CHI2" else (lambda: read_product(path))
    with pytest.raises(InputError, match=match):
        read()
    with pytest.raises(InputError, match=match):
        view_planes(path, verify=True)
    view_planes(path)
