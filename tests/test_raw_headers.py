"""Converter: pixels and header of the frames of one attempt."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_frames import CONFIG, check_valid, header_of, image_of, make_attempt

from utils.fits_io import frame_cards
from utils.fits_io.capture_log import CaptureLog, Config
from utils.fits_io.keywords import ALIASES, describe
from utils.raw_to_fits import convert_attempt


def test_pixels_and_header(tmp_path):
    rows = []
    attempt = make_attempt(tmp_path / "attempt1", config=CONFIG + "EGAIN=1.5\nFILTER=R\nOwner: A 'B' C\n")
    paths = convert_attempt(str(attempt), "dark", index_rows=rows)
    assert paths == [str(attempt / "fits" / f"f{number}.fits") for number in range(3)]
    for number, path in enumerate(paths):
        data, header = check_valid(path)
        np.testing.assert_array_equal(data, image_of(number))
        assert data.dtype == np.uint16
        expected = {
            "CALTYPE": "DARK",
            "IMAGETYP": "DARK",
            "BADSIZE": False,
            "FRAMENUM": number,
            "TIMESTMP": 1700000000.25,
            "TIMESTAMP": 1700000000.25,
            "DATE-OBS": "2023-11-14T22:13:20.250000",
            "EXPTIME": 0.1,
            "REXPTIME": 0.100014,
            "GAIN": 120,
            "TEMP": -10.5,
            "CCD-TEMP": -10.5,
            "TEMP_0": -10,
            "EQTEMP": 21.5,
            "DELTMP": 0.5,
            "POWCONS": 3.25,
            "WIDTH": 10,
            "HEIGHT": 6,
            "BITDEPTH": 16,
            "EGAIN": 1.5,
            "FILTER": "R",
            "OWNER": "A 'B' C",
            "RAWFILE": f"f{number}.raw",
        }
        assert {key: header[key] for key in expected} == expected
        assert isinstance(header["FRAMENUM"], int)
    assert [row["RELPATH"] for row in rows] == ["fits/f0.fits", "fits/f1.fits", "fits/f2.fits"]


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify_is_content(tmp_path):
    config = CONFIG + "\n".join(
        [
            "INSTRUME=6200",
            "EQUINOX=J2000",
            "CTYPE1=5",
            "TFORM1=x",
            "DATE=now",
            "BLANK=1",
            "TELESCOP=1.5",
            "MJD-OBS=x",
        ]
    )
    long = "\nNOTE=" + "it's long " * 30 + "\nSIGN=°C ±5\nHUGE=12345678901234567890123\nNOTHING="
    attempt = make_attempt(tmp_path / "attempt1", config=config + long)
    attempt8 = make_attempt(tmp_path / "attempt2", config="WIDTH=10\nHEIGHT=6\nBIT_DEPTH=8\n")
    paths = convert_attempt(attempt, "BIAS") + convert_attempt(attempt8, "FLAT")
    done = subprocess.run(["fitsverify", *paths], capture_output=True, text=True, check=False)
    assert done.stdout.count("**** Verification found 0 warning(s) and 0 error(s). ****") == len(paths), (
        done.stdout
    )


def test_values_too_long_for_a_card(tmp_path):
    value = "a'b" * 100
    assert header_of(tmp_path, config=CONFIG + f"NOTE={value}\n")["NOTE"] == value


def test_characters_outside_ascii_and_huge_numbers(tmp_path):
    config = CONFIG + "PLACE=Kraków °\nHUGE=12345678901234567890123\nSERIAL=007\nTINY=1e-300\n"
    header = header_of(tmp_path, config=config.encode("utf-8"))
    assert header["PLACE"].encode().decode("unicode_escape") == "Kraków °"
    assert (header["HUGE"], header["SERIAL"], header["TINY"]) == ("12345678901234567890123", "007", 1e-300)


def test_infinite_and_nan_are_texts(tmp_path):
    log = "FrameNum,Temperature,ExpTime,PowerCons,Other\n0,nan,inf,-inf,NaN\n"
    header = header_of(tmp_path, log=log)
    assert [header[key] for key in ("TEMP", "CCD-TEMP", "EXPTIME", "POWCONS", "OTHER")] == [
        *("NAN", "NAN", "INF", "-INF", "NAN")
    ]


@pytest.mark.parametrize(
    "name",
    ["Temperature", "CCDTemp", "CCD_Temp", "ccd temp", "CCDTemperature", "ChipTemp", "Temperature [C]"],
)
def test_names_of_the_sensor_temperature(tmp_path, name):
    header = header_of(tmp_path, log=f"FrameNum,{name}\n0,-5.5\n")
    assert header["TEMP"] == header["CCD-TEMP"] == -5.5


def test_units_in_the_names_of_columns(tmp_path):
    header = header_of(
        tmp_path, log="FrameNum,ExpTime (s),RealExpTime [ms],Temperature (K)\n0,2,2500,263.15\n"
    )
    assert (header["EXPTIME"], header["REXPTIME"], header["TEMP"]) == (2, 2.5, -10)


def test_columns_that_compete_for_a_keyword(tmp_path):
    log = "FrameNum,CCDTemp,Temperature,LensTemp,Temperature2,Long_Name_A,Long_Name_B\n0,1,2,3,4,5,6\n"
    header = header_of(
        tmp_path, config=CONFIG + "TEMP=99\nEXPTIME=5\nFrame=7\nLong_Name_A=8\nGAIN=3\n", log=log
    )
    # 'Temperature' is the sensor's whatever the order; nobody else reads as a temperature.
    assert header["TEMP"] == header["CCD-TEMP"] == 2
    assert header["GAIN"] == 3
    assert "EXPTIME" not in header
    comments = {header.comments[key]: header[key] for key in header}
    for comment, value in {
        "log CCDTemp": 1,
        "log LensTemp": 3,
        "log Temperature2": 4,
        "log Long_Name_A": 5,
        "log Long_Name_B": 6,
        "config TEMP": 99,
        "config EXPTIME": 5,
        "config Frame": 7,
        "config Long_Name_A": 8,
    }.items():
        assert comments[comment] == value
    told = describe(dict(header), "")
    assert (told["temperature"], told["exposure"], told["frame_number"]) == (2, None, 0)


@settings(max_examples=300, deadline=None)
@given(
    keys=st.lists(
        st.one_of(st.text(max_size=14), st.sampled_from(sorted(sum(ALIASES.values(), ())))), max_size=12
    ),
    columns=st.lists(
        st.one_of(st.text(max_size=14), st.sampled_from(["Temperature", "ExpTime", "TEMP", "Simple"])),
        max_size=8,
    ),
)
def test_keywords_are_legal_and_unique(keys, columns):
    config = Config()
    for key in keys:
        config[key.upper()] = 1
        config.spelling[key.upper()] = key
    plan = frame_cards.plan_header(config, CaptureLog("log", tuple(columns)), 16)
    words = [keyword for keyword, _, _ in plan.constant] + [column[0] for column in plan.columns]
    assert len(words) == len(set(words)) == len(config) + len(columns) + 1
    assert all(re.fullmatch(r"[A-Z0-9_-]{1,8}", word) for word in words)
    assert not {"SIMPLE", "NAXIS", "END", "BZERO", "CALTYPE", "BADSIZE", "CCD-TEMP"} & set(words)
    generated = {keyword for keyword, _, _ in plan.constant}
    for field in ("temperature", "exposure", "caltype", "unix_time", "date", "mjd", "jd", "frame_number"):
        assert not generated & set(ALIASES[field])


def test_names_tell_what_the_log_does_not(tmp_path):
    header = header_of(tmp_path, log="FrameNum,Temperature\n0,-5\n", name="DarkT-10_exp0.5s_f{}.raw")
    assert (header["EXPTIME"], header["FILETEMP"], header["TEMP"]) == (0.5, -10, -5)
    other = tmp_path / "other"
    header = header_of(other, log="FrameNum,ExpTime\n0,100\n", name="DarkT-10_exp0.5s_f{}.raw")
    assert (header["EXPTIME"], header["FILETEMP"]) == (0.0001, -10)
    assert "TEMP" not in header


@pytest.mark.parametrize(
    "stamp", ["1700000000.5", "1700000000500", "1700000000500000000", "2023-11-14T23:13:20.5+01:00"]
)
def test_times_in_utc(tmp_path, stamp):
    header = header_of(tmp_path, log=f"FrameNum,TimeStamp\n0,{stamp}\n")
    assert header["DATE-OBS"] == "2023-11-14T22:13:20.500000"
    assert str(header["TIMESTAMP"]) == str(header["TIMESTMP"]) == stamp


def test_a_camera_clock_is_no_date(tmp_path):
    header = header_of(tmp_path, log="FrameNum,TimeStamp\n0,100\n")
    assert header["TIMESTAMP"] == 100
    assert "DATE-OBS" not in header


def test_log_with_decimal_commas(tmp_path):
    header = header_of(tmp_path, log="\ufeffFrameNum;Temperature;ExpTime\r\n0;-10,5;1500,5\r\n")
    assert (header["TEMP"], header["EXPTIME"]) == (-10.5, 0.0015005)
