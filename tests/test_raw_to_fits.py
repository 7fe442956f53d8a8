import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import raw_to_fits
from utils.errors import InputError, OptionError, OutputError
from utils.fits_io import frame_cards, raw_attempt
from utils.fits_io.capture_log import CaptureLog, Config
from utils.fits_io.find_frames import FoundFile
from utils.fits_io.frame_index import FrameIndex
from utils.fits_io.keywords import ALIASES, describe
from utils.kernels.raw_decode import decode, pixel_format
from utils.raw_to_fits import (
    convert_attempt,
    convert_many,
    gather_attempts,
    parse_filename_metadata,
    parse_frame_number,
    read_config,
)

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (6, 10)
CONFIG = "WIDTH=10\nHEIGHT=6\nBIT_DEPTH=16\n"
COLUMNS = (
    "FrameNum,TimeStamp,ExpTime,RealExpTime,ExpGain,Temperature,InitialTemp,ExtTemperature,"
    "DeltaTemperature,PowerCons"
)
ROW = "1700000000.25,100000,100014,120,-10.5,-10,21.5,0.5,3.25"


def image_of(number):
    return np.random.default_rng(number).integers(0, 65536, SHAPE, dtype=np.uint16)


def make_attempt(folder, *, frames=3, config=CONFIG, log=None, name="f{}.raw", subdir="frames"):
    """An attempt of small frames; log None: the usual columns, '': no log."""
    (folder / subdir).mkdir(parents=True)
    if config is not None:
        (folder / "configFile.txt").write_bytes(config if isinstance(config, bytes) else config.encode())
    if log is None:
        log = "\n".join([COLUMNS, *(f"{number},{ROW}" for number in range(frames)), ""])
    if log:
        (folder / "temperatureLog.csv").write_bytes(log if isinstance(log, bytes) else log.encode())
    for number in range(frames):
        image_of(number).astype("<u2").tofile(folder / subdir / name.format(number))
    return folder


def header_of(tmp_path, *, config=CONFIG, log=None, name="f{}.raw"):
    attempt = make_attempt(tmp_path / "attempt1", frames=1, config=config, log=log, name=name)
    (path,) = convert_attempt(attempt, "DARK")
    check_valid(path)
    return fits.getheader(path)


def check_valid(path):
    """Both checksums right, the header verifies: astropy warns otherwise, and warnings are errors."""
    with fits.open(path, checksum=True) as hdus:
        assert len(hdus) == 1
        hdus.verify("exception")
        assert hdus[0].header["DATASUM"].isdigit()
        return hdus[0].data.copy(), hdus[0].header.copy()


def campaign(tmp_path, **arguments):
    for section in ("Bias/T-10/attempt1", "Darks/20Frames/1s/T-10/attempt1", "Flats/R/T20/attempt1"):
        make_attempt(tmp_path / section, **arguments)
    return [str(tmp_path / name) for name in ("Bias", "Darks", "Flats")]


def table(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def run(*arguments):
    return raw_to_fits.main([str(argument) for argument in arguments])


def reasons(tmp_path, name):
    rows = [row for row in table(tmp_path / "conversion_report.csv") if row["PATH"].endswith(name)]
    return [(row["SEVERITY"], row["REASON"]) for row in rows]


# --- file names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("f0.raw", 0),
        ("exp_1.2e-05s_frame7.raw", 7),
        ("BiasT0_exp0.1sAt0f12.raw", 12),
        ("Frame_0003_T5.RAW", 3),
        ("f2.8_f0004.raw", 4),
        ("frame9_f2.raw", 9),
        ("exp0.1sf7.raw", 7),
        ("DarkT5_exp_1.2e-05sframe7.raw", 7),
        ("flatf9.raw", 9),
        ("biasf3.raw", 3),
        ("DarkF12.raw", 12),
        ("darksf4.raw", 4),
        ("biasframe0005.raw", 5),
        ("flatf2.8_f5.raw", 5),
        ("flat12.raw", None),
        ("flatf2.8.raw", None),
        ("exp0.1sflat12.raw", None),
        ("chef7.raw", None),
        ("offsetframe7.raw", None),
        ("/some/f5/image.raw", None),
        ("half12.raw", None),
        ("0001.raw", None),
        ("f" + "9" * 5000 + ".raw", None),
    ],
)
def test_frame_number(name, number):
    assert parse_frame_number(name) == number


@pytest.mark.parametrize(
    ("name", "exposure", "temperature"),
    [
        ("BiasT0_exp0.1sAt0f0.raw", 0.1, 0.0),
        ("exp_1.2e-05s_frame0.raw", 1.2e-5, None),
        ("DARK_T-10.5_f1.raw", None, -10.5),
        ("DarkT-10.raw", None, -10.0),
        ("TEST1_f1.raw", None, None),
        ("exp100ms_f1.raw", None, None),
        ("exp1e999s.raw", None, None),
        ("expert.raw", None, None),
    ],
)
def test_name_metadata(name, exposure, temperature):
    assert parse_filename_metadata(name) == (exposure, temperature)


# --- attempts ----------------------------------------------------------------------------------------


def test_attempts_are_found_in_natural_order(tmp_path):
    for name in ("T0/attempt10", "T0/attempt2", "T-5/Attempt1"):
        (tmp_path / name).mkdir(parents=True)
    make_attempt(tmp_path / "T0" / "run_a")
    (tmp_path / "T0" / "other" / "frames").mkdir(parents=True)  # neither config nor log
    (tmp_path / ".hidden" / "attempt1").mkdir(parents=True)
    found = [os.path.relpath(path, tmp_path) for path in gather_attempts(tmp_path)]
    assert sorted(found) == ["T-5/Attempt1", "T0/attempt10", "T0/attempt2", "T0/run_a"]
    assert found.index("T0/attempt2") < found.index("T0/attempt10")


def test_attempts_below_a_folder_of_attempts(tmp_path):
    make_attempt(tmp_path / "attempts" / "attempt1")
    assert gather_attempts(tmp_path) == [str(tmp_path / "attempts" / "attempt1")]
    # The root itself may be the attempt.
    assert gather_attempts(tmp_path / "attempts" / "attempt1") == [str(tmp_path / "attempts" / "attempt1")]


@pytest.mark.parametrize("name", ["Frames", "FRAMES"])
def test_frames_folder_in_other_case(tmp_path, name):
    attempt = make_attempt(tmp_path / "run_a", subdir=name)
    assert gather_attempts(tmp_path) == [str(attempt)]
    assert [os.path.relpath(path, attempt) for path in convert_attempt(attempt, "BIAS")] == [
        *("fits/f0.fits", "fits/f1.fits", "fits/f2.fits")
    ]


def test_search_depth(tmp_path):
    make_attempt(tmp_path / "a" / "b" / "c" / "attempt1")
    assert gather_attempts(tmp_path, 3) == []
    assert len(gather_attempts(tmp_path, 4)) == 1


def test_symbolic_links_in_a_circle(tmp_path):
    make_attempt(tmp_path / "T0" / "attempt1")
    (tmp_path / "T0" / "loop").symlink_to(tmp_path)
    (tmp_path / "T0" / "self").symlink_to("self")
    assert gather_attempts(tmp_path, 40) == [str(tmp_path / "T0" / "attempt1")]


# --- one attempt -------------------------------------------------------------------------------------


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


# --- rows and files ----------------------------------------------------------------------------------


def temperatures(attempt):
    return [fits.getheader(path).get("TEMP") for path in convert_attempt(attempt, "BIAS")]


def test_rows_belong_by_number(tmp_path):
    log = "FrameNum,Temperature\n2,12\ngarbage\n0,10\n"
    assert temperatures(make_attempt(tmp_path / "attempt1", log=log)) == [10, None, 12]


@pytest.mark.parametrize(
    ("first_file", "rows", "told"),
    [
        (0, "1,10\n2,11\n3,12\n", "the log counts frames from 1, file names from 0"),
        (1, "0,10\n1,11\n2,12\n", "the log counts frames from 0, file names from 1"),
        (0, "3,12\n1,10\n2,11\n2,11\n", "the log counts frames from 1, file names from 0"),
    ],
)
def test_log_and_names_that_count_from_different_numbers(tmp_path, capsys, first_file, rows, told):
    roots = campaign(tmp_path, frames=0, log="FrameNum,Temperature\n" + rows)
    attempt = tmp_path / "Bias" / "T-10" / "attempt1"
    for number in range(3):
        image_of(number).tofile(attempt / "frames" / f"f{first_file + number}.raw")
    assert run(*roots) == 0
    assert [row["TEMP"] for row in table(tmp_path / "fits_index.csv")] == ["10", "11", "12"]
    report = [row for row in table(tmp_path / "conversion_report.csv") if "Bias" in row["PATH"]]
    text = f"{told}: log rows are taken in order"
    assert [(row["SEVERITY"], row["REASON"]) for row in report] == [("WARNING", text)]
    assert capsys.readouterr().err.count(text) == 1


def test_counting_from_one_with_a_damaged_row(tmp_path):
    log = "FrameNum,Temperature\n1,10\ngarbage\n3,12\n"
    assert temperatures(make_attempt(tmp_path / "attempt1", log=log)) == [10, None, 12]


@pytest.mark.parametrize("rows", ["1,11\n2,12\n", "1,11\n2,12\n4,14\n", "0,10\n2,12\n3,13\n"])
def test_rows_that_are_missing_are_no_other_count(tmp_path, rows):
    told = dict(line.split(",") for line in rows.split())
    attempt = make_attempt(tmp_path / "attempt1", log="FrameNum,Temperature\n" + rows)
    expected = [int(told[number]) if number in told else None for number in "012"]
    assert temperatures(attempt) == expected


def test_rows_in_order_where_names_have_no_numbers(tmp_path):
    attempt = make_attempt(
        tmp_path / "attempt1", log="FrameNum,Temperature\n7,17\nx,y,z,w\n9,19\n", name="{}.raw"
    )
    assert temperatures(attempt) == [17, None, 19]
    _, problems = raw_attempt.plan_attempt(attempt, "BIAS")
    told = [problem.reason for problem in problems if "in order" in problem.reason]
    assert told == ["file names have no frame numbers: log rows are taken in order"]


def test_one_column_log(tmp_path):
    attempt = make_attempt(tmp_path / "attempt1", log="Temperature\n10\n11\n")
    assert temperatures(attempt) == [10, 11, None]
    _, problems = raw_attempt.plan_attempt(attempt, "BIAS")
    told = [problem.reason for problem in problems]
    assert told == ["the log has no frame numbers: log rows are taken in order (3 files, 2 rows)"]


def test_natural_order_of_names(tmp_path):
    attempt = make_attempt(
        tmp_path / "attempt1", frames=12, log="Temperature\n" + "\n".join(map(str, range(12)))
    )
    assert temperatures(attempt) == list(range(12))


def test_frame_number_that_comes_twice(tmp_path):
    attempt = make_attempt(
        tmp_path / "attempt1",
        frames=1,
        log="FrameNum,ExpTime,Temperature\n0,100000,1\n0,200000,2\n0,200000,3\n",
        name="exp0.1s_f{}.raw",
    )
    image_of(1).tofile(attempt / "frames" / "exp0.2s_f0.raw")
    assert temperatures(attempt) == [1, 3]
    frames, _ = raw_attempt.plan_attempt(attempt, "BIAS")
    assert frames[0].problems == (
        "3 log rows for this number, that with the exposure of the name is taken",
        "frame number 0 comes 2 times among the files",
    )


def test_two_raw_files_for_one_name(tmp_path):
    attempt = make_attempt(tmp_path / "attempt1", frames=1)
    image_of(1).tofile(attempt / "frames" / "f0.RAW")
    frames, problems = raw_attempt.plan_attempt(attempt, "BIAS")
    assert len(frames) == 1
    assert [problem.reason for problem in problems] == ["not converted: f0.RAW has the same name in fits/"]


def test_raw_files_in_the_attempt_itself(tmp_path):
    attempt = make_attempt(tmp_path / "attempt1", subdir=".")
    assert len(convert_attempt(attempt, "FLAT")) == 3


def test_names_with_blanks_quotes_and_other_alphabets(tmp_path):
    roots = campaign(tmp_path, frames=1, name="it's “ünï” f{} , x.raw")
    assert run(*roots) == 0
    (row,) = [row for row in table(tmp_path / "fits_index.csv") if row["CALTYPE"] == "BIAS"]
    data, header = check_valid(row["PATH"])
    np.testing.assert_array_equal(data, image_of(0))
    assert header["RAWFILE"].encode().decode("unicode_escape") == "it's “ünï” f0 , x.raw"


def test_name_that_is_no_utf8(tmp_path):
    roots = campaign(tmp_path, frames=1)
    image_of(1).tofile(os.path.join(os.fsencode(roots[0]), b"T-10/attempt1/frames/\xff\nf1.raw"))
    assert run(*roots) == 0
    assert len(table(tmp_path / "fits_index.csv")) == 4


def test_kind_that_is_none(tmp_path):
    with pytest.raises(OptionError, match="calibration 'science', expected BIAS, DARK or FLAT"):
        convert_attempt(make_attempt(tmp_path / "attempt1"), "science")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        convert_attempt(tmp_path / "nowhere", "BIAS")


# --- formats and sizes -------------------------------------------------------------------------------


def test_one_byte_samples(tmp_path):
    attempt = make_attempt(tmp_path / "attempt1", config="width=10\nheight=6\nbit_depth=8\n", frames=0)
    image = np.arange(60, dtype=np.uint8).reshape(SHAPE) + 190
    image.tofile(attempt / "frames" / "f0.raw")
    data, header = check_valid(convert_attempt(attempt, "BIAS")[0])
    np.testing.assert_array_equal(data, image)
    assert (header["BITPIX"], header["BITDEPTH"]) == (8, 8)
    assert "BZERO" not in header


def test_big_endian_samples(tmp_path):
    attempt = make_attempt(tmp_path / "attempt1", config=CONFIG + "BYTE_ORDER=Big\n", frames=0)
    image_of(0).astype(">u2").tofile(attempt / "frames" / "f0.raw")
    np.testing.assert_array_equal(check_valid(convert_attempt(attempt, "BIAS")[0])[0], image_of(0))


@pytest.mark.parametrize("order", ["BIG", "big_endian", "Big-Endian", "bigendian", "BE", "be"])
@pytest.mark.parametrize("key", ["ByteOrder", "BYTE-ORDER", "byte order"])
def test_spellings_of_the_byte_order(tmp_path, key, order):
    config = f"Width=10\nHeight=6\nPixelFormat=Mono16\nBitDepth=16\n{key}={order}\n"
    attempt = make_attempt(tmp_path / "attempt1", config=config, frames=0)
    image_of(0).astype(">u2").tofile(attempt / "frames" / "f0.raw")
    np.testing.assert_array_equal(check_valid(convert_attempt(attempt, "BIAS")[0])[0], image_of(0))


@pytest.mark.parametrize("order", ["LITTLE", "little_endian", "Little-Endian", "LE"])
def test_spellings_of_little_endian(tmp_path, order):
    attempt = make_attempt(tmp_path / "attempt1", config=CONFIG + f"ByteOrder: {order}\n", frames=1)
    np.testing.assert_array_equal(fits.getdata(convert_attempt(attempt, "BIAS")[0]), image_of(0))


@pytest.mark.parametrize(("name", "samples"), [("Mono10p", 4), ("Mono12p", 2), ("Mono12Packed", 2)])
def test_odd_packed_frames_of_both_sizes(tmp_path, name, samples):
    roots = campaign(tmp_path, config=f"Width=7\nHeight=5\nPixelFormat={name}\n", frames=0)
    frames = tmp_path / "Bias" / "T-10" / "attempt1" / "frames"
    fmt = pixel_format(name)
    sizes = (fmt.frame_bytes(35), -(-35 // samples) * samples * fmt.bits // 8)
    assert sizes[0] < sizes[1]
    raw = np.random.default_rng(2).integers(0, 256, sizes[0], np.uint8)
    for number, size in enumerate((*sizes, sizes[1] + 1, sizes[0] - 1)):
        (frames / f"f{number}.raw").write_bytes(raw.tobytes().ljust(size, b"\0")[:size])
    assert run(*roots) == 1
    headers = [fits.getheader(frames.parent / "fits" / f"f{number}.fits") for number in range(4)]
    assert [header["BADSIZE"] for header in headers] == [False, False, True, True]
    for number in range(2):
        image, _ = check_valid(frames.parent / "fits" / f"f{number}.fits")
        np.testing.assert_array_equal(image, decode(raw, (5, 7), fmt))
    text = f"expected {sizes[0]} or {sizes[1]} (7 x 5, {name})"
    assert reasons(tmp_path, "f2.raw")[0] == ("ERROR", f"BADSIZE: {sizes[1] + 1} bytes, {text}: cut")
    assert reasons(tmp_path, "f0.raw") == [("WARNING", "no log row")]


def test_a_kept_file_with_another_verdict_on_its_size_is_converted_again(tmp_path):
    attempt = make_attempt(tmp_path / "attempt1", frames=1)
    (path,) = convert_attempt(attempt, "BIAS")
    fits.setval(path, "BADSIZE", value=True)
    convert_attempt(attempt, "BIAS")
    assert fits.getheader(path)["BADSIZE"] is False


@pytest.mark.parametrize(("name", "bits"), [("Mono10p", 10), ("Mono12p", 12)])
def test_packed_samples_of_more_than_one_block(tmp_path, name, bits):
    shape = (601, 1003)
    config = f"WIDTH={shape[1]}\nHEIGHT={shape[0]}\nPIXEL_FORMAT={name}\n"
    attempt = make_attempt(tmp_path / "attempt1", config=config, frames=0)
    image = np.random.default_rng(1).integers(0, 2**bits, shape, dtype=np.uint16)
    stream = np.unpackbits(image.reshape(-1, 1).view(np.uint8), axis=1, bitorder="little")[:, :bits]
    np.packbits(stream.reshape(-1), bitorder="little").tofile(attempt / "frames" / "f0.raw")
    data, header = check_valid(convert_attempt(attempt, "BIAS")[0])
    np.testing.assert_array_equal(data, image)
    assert (header["BADSIZE"], header["BITDEPTH"], header["PIXFMT"]) == (False, bits, name)


def test_wrong_sizes(tmp_path, capsys):
    roots = campaign(tmp_path)
    frames = tmp_path / "Bias" / "T-10" / "attempt1" / "frames"
    raw = image_of(0).tobytes()
    (frames / "f0.raw").write_bytes(raw[:51])
    (frames / "f1.raw").write_bytes(b"")
    (frames / "f2.raw").write_bytes(raw + b"more")
    assert run(*roots) == 1
    images, bad = zip(*(check_valid(frames.parent / "fits" / f"f{n}.fits") for n in range(3)), strict=True)
    assert all(header["BADSIZE"] is True for header in bad)
    assert images[0].tobytes() == raw[:51] + bytes(len(raw) - 51)
    assert not images[1].any()
    np.testing.assert_array_equal(images[2], image_of(0))
    assert reasons(tmp_path, "f0.raw")[0] == (
        "ERROR",
        "BADSIZE: 51 bytes, expected 120 (10 x 6, Mono16): padded with zeros",
    )
    assert reasons(tmp_path, "f2.raw")[0] == (
        "ERROR",
        "BADSIZE: 124 bytes, expected 120 (10 x 6, Mono16): cut",
    )
    index = table(tmp_path / "fits_index.csv")
    assert [row["BADSIZE"] for row in index if row["CALTYPE"] == "BIAS"] == ["True"] * 3
    assert capsys.readouterr().err.count("BADSIZE") == 3
    # Kept files are listed again, and the status stays.
    assert run(*roots) == 1
    assert reasons(tmp_path, "f0.raw")[0] == ("ERROR", "BADSIZE: 51 bytes, expected 120 (kept as it was)")


def test_no_config(tmp_path):
    roots = campaign(tmp_path, config=None, frames=1)
    assert run(*roots) == 1
    attempt = tmp_path / "Bias" / "T-10" / "attempt1"
    assert not (attempt / "fits").exists()
    text = "not converted: frame size not told, and 120 bytes are not 2048 x 2048 pixels (8388608)"
    assert reasons(tmp_path, "attempt1/frames/f0.raw") == [("ERROR", text)] * 3
    np.zeros(2048 * 2048, np.uint16).tofile(attempt / "frames" / "f0.raw")
    assert run(*roots) == 1
    assert fits.getheader(attempt / "fits" / "f0.fits")["NAXIS1"] == 2048
    text = "no configFile.txt: 2048 x 2048 pixels of 16 bits where the size fits"
    assert ("WARNING", text) in reasons(tmp_path, "Bias/T-10/attempt1")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("PIXEL_FORMAT=BayerRG8\n", "unknown pixel format 'BayerRG8', expected one of Mono8"),
        ("BIT_DEPTH=32\n", "bit depth 32, expected a whole number from 1 to 16"),
        ("WIDTH=0\n", "WIDTH is '0', expected 1 to 65535"),
        ("WIDTH=ten\n", "WIDTH is 'ten', expected 1 to 65535"),
        ("HEIGHT=1e999\n", "HEIGHT is 'inf', expected 1 to 65535"),
        ("WIDTH=65535\nHEIGHT=65535\n", "65535 x 65535 pixels, expected at most"),
        ("BYTE_ORDER=middle\n", "BYTE_ORDER is 'middle', expected little or big"),
        ("ByteOrder=Motorola\n", "BYTE_ORDER is 'Motorola', expected little or big"),
        ("BYTE-ORDER=\n", "BYTE_ORDER is '', expected little or big"),
        ("BitDepth=32\n", "bit depth 32, expected a whole number from 1 to 16"),
        ("Pixel-Format=Mono14\n", "unknown pixel format 'Mono14'"),
    ],
)
def test_config_that_describes_no_frame(tmp_path, config, reason):
    roots = campaign(tmp_path)
    (tmp_path / "Bias" / "T-10" / "attempt1" / "configFile.txt").write_text(CONFIG + config)
    assert run(*roots) == 1
    assert len(table(tmp_path / "fits_index.csv")) == 6
    found = reasons(tmp_path, "Bias/T-10/attempt1/frames/f0.raw")
    assert len(found) == 1
    assert found[0][1].startswith(f"not converted: {reason}")


# --- the command -------------------------------------------------------------------------------------


def test_index_and_summary(tmp_path, capsys, monkeypatch):
    campaign(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("Bias", "./Darks", "Flats") == 0
    rows = table("fits_index.csv")
    assert list(rows[0])[:12] == [
        *("PATH", "RELPATH", "CALTYPE", "FRAMENUM", "EXPTIME", "REXPTIME", "TEMP", "TEMP_0", "GAIN"),
        *("FILETEMP", "EQTEMP", "BADSIZE"),
    ]
    assert [row["CALTYPE"] for row in rows] == ["BIAS"] * 3 + ["DARK"] * 3 + ["FLAT"] * 3
    for row in rows:
        header = fits.getheader(row["PATH"])
        assert os.path.samefile(row["RELPATH"], row["PATH"])
        assert not os.path.isabs(row["PATH"])
        for key in ("FRAMENUM", "EXPTIME", "TEMP", "NAXIS1", "BZERO", "TIMESTMP"):
            assert float(row[key]) == header[key]
        status = os.stat(row["PATH"])
        assert (int(row["SIZE"]), int(row["MTIME_NS"])) == (status.st_size, status.st_mtime_ns)
        assert row["DATASUM"] == header["DATASUM"]
        stored = np.fromfile(row["PATH"], ">i2", 60, offset=int(row["DATAOFF"]))
        assert (stored.astype(int) + 32768).tolist() == fits.getdata(row["PATH"]).reshape(-1).tolist()
    assert table("conversion_report.csv") == []
    assert "9 converted, 0 kept, 0 BADSIZE, 0 not converted in" in capsys.readouterr().out


def test_index_row_reads_like_the_header(tmp_path):
    roots = campaign(tmp_path, config=CONFIG + "CAMERA=X\nE-GAIN=1.5\nBINNING=2\nSATLEVEL=60000\n", frames=1)
    assert run(*roots) == 0
    for row in table(tmp_path / "fits_index.csv"):
        cards = {key: cell for key, cell in row.items() if cell}
        assert describe(cards, "x") == describe(dict(fits.getheader(row["PATH"])), "x")


def test_infinite_and_nan_stand_in_the_index(tmp_path):
    log = (
        "FrameNum,Temperature,ExpTime,RealExpTime,ExpGain\n0,nan,-inf,inf,NaN\n1,inf,1,nan,1\n2,-inf,1,1,1\n"
    )
    roots = campaign(tmp_path, log=log)
    for _ in range(2):  # converted, then kept
        assert run(*roots) == 0
        rows = table(tmp_path / "fits_index.csv")
        assert [row["TEMP"] for row in rows] == ["NAN", "INF", "-INF"] * 3
        assert [rows[0][key] for key in ("EXPTIME", "REXPTIME", "GAIN")] == ["-INF", "INF", "NAN"]
        index = FrameIndex([tmp_path / "fits_index.csv"])
        for row in rows:
            status = os.stat(row["PATH"])
            image = index.get(FoundFile(row["PATH"], "x", status.st_size, status.st_mtime_ns, 0))
            header = describe(dict(fits.getheader(row["PATH"])), "x")
            assert header["problems"]["temperature"] == f"TEMP = {row['TEMP']} is not a number"
            assert describe(image.cards, "x") == header
            assert describe({key: cell for key, cell in row.items() if cell}, "x") == header


def test_up_to_date_files_are_kept(tmp_path, capsys):
    roots = campaign(tmp_path, frames=2)
    assert run(*roots) == 0
    attempt = tmp_path / "Bias" / "T-10" / "attempt1"
    before = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*.fits")}
    first = table(tmp_path / "fits_index.csv")
    assert run(*roots) == 0
    assert {path: os.stat(path).st_mtime_ns for path in before} == before
    assert table(tmp_path / "fits_index.csv") == first
    assert "0 converted, 6 kept" in capsys.readouterr().out

    def converted_after(change):
        time.sleep(0.01)
        change()
        assert run(*roots) == 0
        return int(re.search(r"(\d+) converted", capsys.readouterr().out)[1])

    fits_file = attempt / "fits" / "f0.fits"
    assert converted_after((attempt / "frames" / "f0.raw").touch) == 1
    assert converted_after((attempt / "temperatureLog.csv").touch) == 2
    assert converted_after((attempt / "configFile.txt").touch) == 2
    assert converted_after(lambda: fits_file.write_bytes(fits_file.read_bytes()[:-2880])) == 1
    assert converted_after(lambda: fits_file.write_bytes(b"")) == 1
    assert converted_after(lambda: fits.setval(fits_file, "CALTYPE", value="FLAT")) == 1
    assert converted_after(lambda: None) == 0
    # What the user adds to a header stays, and is in the index.
    assert converted_after(lambda: fits.setval(fits_file, "FILTER", value="OIII")) == 0
    assert [row["FILTER"] for row in table(tmp_path / "fits_index.csv")] == ["OIII"] + [""] * 5
    assert run(*roots, "--overwrite") == 0
    assert "6 converted, 0 kept" in capsys.readouterr().out


def test_skipped_sections(tmp_path, capsys):
    roots = campaign(tmp_path)
    shutil.rmtree(tmp_path / "Flats")
    assert run(*roots) == 2
    text = f"error: {roots[2]}: no such folder, expected the FLAT section (--skip-flat)\n"
    assert capsys.readouterr() == ("", text)
    assert not list(tmp_path.rglob("*.fits"))
    assert run(*roots, "--skip_flat", "--skip-bias") == 0
    assert [row["CALTYPE"] for row in table(tmp_path / "fits_index.csv")] == ["DARK"] * 3
    # The darks stay in the index of a run without them, unless their files have gone.
    os.remove(tmp_path / "Darks" / "20Frames" / "1s" / "T-10" / "attempt1" / "fits" / "f1.fits")
    assert run(*roots, "--skip-flat", "--skip-dark") == 0
    rows = table(tmp_path / "fits_index.csv")
    assert [(row["CALTYPE"], row["FRAMENUM"]) for row in rows] == [
        *(("BIAS", "0"), ("BIAS", "1"), ("BIAS", "2"), ("DARK", "0"), ("DARK", "2"))
    ]
    assert run(*roots, "--skip-flat", "--skip-dark", "--skip-bias") == 2
    assert "all sections are skipped" in capsys.readouterr().err


def test_damaged_index_is_made_anew(tmp_path):
    roots = campaign(tmp_path)
    (tmp_path / "fits_index.csv").write_bytes(b'\xff\x00garbage\n"')
    assert run(*roots) == 0
    assert len(table(tmp_path / "fits_index.csv")) == 9


def test_nothing_found_suggests_a_depth(tmp_path, capsys):
    for name in ("B", "D", "F"):
        (tmp_path / name).mkdir()
    make_attempt(tmp_path / "D" / "1" / "2" / "3" / "attempt1")
    roots = [tmp_path / name for name in ("B", "D", "F")]
    assert run(*roots, "--search-depth", 3) == 2
    assert "D: no attempt found down to 3 levels below it: try --search-depth 5" in capsys.readouterr().err
    assert not (tmp_path / "fits_index.csv").exists()
    assert run(*roots, "--search_depth", 5) == 1
    assert len(table(tmp_path / "fits_index.csv")) == 3
    text = "no attempt found down to 5 levels below it: try --search-depth 7"
    assert reasons(tmp_path, "/B") == [("ERROR", text)]


def test_attempts_without_raw_files(tmp_path, capsys):
    roots = campaign(tmp_path, frames=0)
    assert run(*roots) == 2
    assert "3 attempts without a raw file, expected frames/*.raw" in capsys.readouterr().err
    assert not (tmp_path / "fits_index.csv").exists()


def test_one_attempt_in_two_sections(tmp_path, capsys):
    roots = campaign(tmp_path)
    assert run(roots[0], tmp_path, roots[2]) == 2
    assert "in both sections BIAS and DARK" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.fits"))


def test_dry_run_writes_nothing(tmp_path, capsys):
    roots = campaign(tmp_path)
    (tmp_path / "Bias" / "T-10" / "attempt1" / "frames" / "f0.raw").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    assert run(*roots, "--dry-run") == 1
    assert sorted(tmp_path.rglob("*")) == before
    out = capsys.readouterr().out
    assert "attempt1: 3 frames, 10 x 6 pixels Mono16, 0 up to date" in out
    assert "9 would be converted, 0 kept, 1 BADSIZE, 0 not converted" in out


def test_metadata_warnings_are_printed_when_asked(tmp_path, capsys):
    roots = campaign(tmp_path, log="FrameNum,Temperature\n0,1\n1,\nrubbish\n")
    assert run(*roots) == 0
    assert "f1.raw" not in capsys.readouterr().err
    assert run(*roots, "--verbose") == 0
    err = capsys.readouterr().err
    assert err.count("f1.raw: no temperature in the log") == 3
    assert err.count("f2.raw: no log row") == 3
    assert reasons(tmp_path, "Bias/T-10/attempt1/frames/f1.raw") == [("WARNING", "no temperature in the log")]


def test_no_log(tmp_path, capsys):
    roots = campaign(tmp_path, log="", frames=1)
    for section in ("Bias/T-10", "Darks/20Frames/1s/T-10", "Flats/R/T20"):
        (tmp_path / section / "attempt1" / "frames" / "f0.raw").stat()
    assert run(*roots) == 0
    assert reasons(tmp_path, "Bias/T-10/attempt1") == [
        ("WARNING", "no temperatureLog.csv: frames without temperature")
    ]
    assert reasons(tmp_path, "Bias/T-10/attempt1/frames/f0.raw") == [("WARNING", "no log")]
    assert capsys.readouterr().err.count("no temperatureLog.csv") == 3


def test_folder_that_cannot_be_written(tmp_path):
    roots = campaign(tmp_path)
    (tmp_path / "Bias" / "T-10" / "attempt1" / "fits").write_text("in the way")
    assert run(*roots) == 1
    found = reasons(tmp_path, "Bias/T-10/attempt1/frames/f0.raw")
    assert len(found) == 1
    assert re.match(r"not converted: .*fits/f0.fits: cannot write, a part of the path is a file", found[0][1])
    assert len(table(tmp_path / "fits_index.csv")) == 6


def test_index_that_cannot_be_written(tmp_path, capsys):
    roots = campaign(tmp_path)
    (tmp_path / "fits_index.csv").mkdir()
    assert run(*roots) == 2
    assert "fits_index.csv: cannot write, a folder stands there" in capsys.readouterr().err


def test_files_that_are_none(tmp_path):
    roots = campaign(tmp_path)
    frames = tmp_path / "Bias" / "T-10" / "attempt1" / "frames"
    os.mkfifo(frames / "f7.raw")
    (frames / "f8.raw").symlink_to("nowhere")
    assert run(*roots) == 1
    assert ("ERROR", "not converted: not a regular file") in reasons(tmp_path, "f7.raw")
    assert ("ERROR", "not converted: No such file or directory") in reasons(tmp_path, "f8.raw")


def test_full_disk_ends_the_run(tmp_path, monkeypatch, capsys):
    roots = campaign(tmp_path)

    def full(*arguments):
        raise OutputError("f0.fits: disk full while writing")

    monkeypatch.setattr(raw_attempt, "write_frame", full)
    assert run(*roots) == 1
    assert capsys.readouterr().err.strip() == "error: f0.fits: disk full while writing"
    assert not (tmp_path / "fits_index.csv").exists()


def test_inputs_are_not_changed(tmp_path):
    roots = campaign(tmp_path)
    inputs = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(*roots) == 0
    assert {path: path.read_bytes() for path in inputs} == inputs
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_jobs_do_not_change_the_result(tmp_path, jobs):
    roots = campaign(tmp_path, frames=5)
    assert run(*roots, "--jobs", jobs) == 0
    files = sorted(tmp_path.rglob("*.fits"))
    assert len(files) == 15
    for path in files:
        np.testing.assert_array_equal(check_valid(path)[0], image_of(int(path.stem[1:])))
    assert [row["FRAMENUM"] for row in table(tmp_path / "fits_index.csv")] == list("01234") * 3


def test_convert_many(tmp_path):
    roots = campaign(tmp_path)
    shutil.rmtree(roots[2])
    done = convert_many(*roots, search_depth=6, skip_bias=True)
    assert (len(done.converted), done.status) == (3, 1)
    assert [problem.reason for problem in done.problems] == ["no such folder, expected the FLAT section"]
    assert Path(done.index) == tmp_path / "fits_index.csv"
    done = convert_many(*roots, skip_flat=True)
    assert (len(done.converted), len(done.kept), done.status) == (3, 3, 0)
    with pytest.raises(InputError, match="no attempt found down to 1 levels below it: try --search-depth 3"):
        convert_many(*roots, search_depth=1, skip_bias=True, skip_flat=True)


def test_read_config_is_importable(tmp_path):
    (tmp_path / "config.txt").write_text(CONFIG)
    assert read_config(tmp_path / "config.txt")["width"] == 10


def test_memory_does_not_grow_with_the_frame(tmp_path):
    import tracemalloc

    shape = (3000, 2000)  # 12 MB
    attempt = make_attempt(tmp_path / "attempt1", config=f"WIDTH={shape[1]}\nHEIGHT={shape[0]}\n", frames=0)
    np.zeros(shape, np.uint16).tofile(attempt / "frames" / "f0.raw")
    tracemalloc.start()
    try:
        convert_attempt(attempt, "BIAS")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two blocks of 0.5 MB; what is imported on the way may take as much again.
    assert peak < 4e6


def test_ctrl_c_leaves_nothing_half_written(tmp_path):
    config = "WIDTH=1024\nHEIGHT=1024\n"
    attempt = make_attempt(
        tmp_path / "Bias" / "T0" / "attempt1", config=config, log="Temperature\n1\n", frames=0
    )
    frame = np.zeros((1024, 1024), np.uint16)
    frame.tofile(attempt / "frames" / "f0.raw")
    for number in range(1, 3000):
        os.link(attempt / "frames" / "f0.raw", attempt / "frames" / f"f{number}.raw")
    command = [
        sys.executable,
        "-m",
        "utils.raw_to_fits",
        tmp_path / "Bias",
        "-",
        "-",
        "--skip-dark",
        "--skip-flat",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (attempt / "fits").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    names = os.listdir(attempt / "fits")
    assert 0 < len(names) < 3000
    assert all(re.fullmatch(r"f\d+\.fits", name) for name in names)
    assert {os.path.getsize(attempt / "fits" / name) for name in names} == {
        os.path.getsize(attempt / "fits" / names[0])
    }
    shutil.rmtree(attempt)


def test_command_line_as_script_and_module(tmp_path):
    roots = campaign(tmp_path)
    for start in (["-m", "utils.raw_to_fits"], [str(ROOT / "utils" / "raw_to_fits.py")]):
        done = subprocess.run(
            [sys.executable, "-W", "error", *start, *roots],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert "0 converted, 9 kept" in done.stdout


def test_simulated_campaign(tmp_path):
    from utils.kernels.sensor import SensorSpec
    from utils.simulate_campaign import simulate

    plan = {"bias": [{"temperatures": [-10], "frames": 4}], "darks": [], "flats": []}
    truth = simulate(tmp_path / "c", SensorSpec(shape=(32, 48)), plan, 1)
    done = convert_many(tmp_path / "c" / "Bias", "", "", skip_dark=True, skip_flat=True)
    assert len(done.converted) == len(truth.frames)
    assert done.problems == []
    for row, frame in zip(done.rows, truth.frames, strict=True):
        data, header = check_valid(row["PATH"])
        assert data.tobytes() == np.fromfile(tmp_path / "c" / frame["file"], "<u2").tobytes()
        # The log has the temperature in steps of 0.01 degC, the time in steps of 1 ms.
        assert abs(header["TEMP"] - frame["temperature"]) < 0.02
        assert abs(header["TIMESTMP"] - frame["time"]) < 0.002
