"""Converter: which row of the log belongs to which file."""

import os

import numpy as np
import pytest
from astropy.io import fits
from raw_frames import campaign, check_valid, image_of, make_attempt, run, table

from utils.errors import InputError, OptionError
from utils.fits_io import raw_attempt
from utils.raw_to_fits import convert_attempt


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
