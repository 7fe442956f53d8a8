"""The alias table: kinds, temperatures, times and the rest in the spellings of many cameras."""

from datetime import UTC, datetime

import pytest

from utils.fits_io.keywords import (
    ALIASES,
    describe,
    field_of,
    is_kind_alone,
    kind_of_header_text,
    kind_of_name,
    kind_of_path,
    mode_of,
    parse_date,
)


def unix(*parts):
    return datetime(*parts, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("BIAS", "bias"),
        ("Bias Frame", "bias"),
        ("zero", "bias"),
        ("Offset", "bias"),
        ("Dark Frame", "dark"),
        ("DARKFLAT", "dark"),
        ("Flat Field", "flat"),
        ("skyflat", "flat"),
        ("Twilight Flat", "flat"),
        ("Light Frame", "light"),
        ("object", "light"),
        ("SCIENCE", "light"),
        ("comparison lamp", None),
        ("", None),
        (None, None),
        (17, None),
    ],
)
def test_kind_of_header_text(text, kind):
    assert kind_of_header_text(text) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Bias-0001.fit", "bias"),
        ("bias1.FIT", "bias"),
        ("biases-Neg5-Vis.00000001.BIAS.FIT", "bias"),
        ("bias-Neg10-Vis.00000000.BIAS.FIT", "bias"),
        ("lab1_bias.00000001.BIAS.FIT", "bias"),
        ("MasterBias.fits", "bias"),
        ("DARKS", "dark"),
        ("DarkFrames", "dark"),
        ("dark_series_0c_1m30s.00000000.DARK.FIT", "dark"),
        ("flat_darks", "dark"),
        ("DarkFlat_001.fits", "dark"),
        ("Pencil0.16.FLAT.FIT", "flat"),
        ("flat29.5_2_.FIT", "flat"),
        ("skyflat-3.fits.gz", "flat"),
        ("flatfields", "flat"),
        ("Lights", "light"),
        # words that only hold such a word, or two that contradict each other, tell nothing
        ("lab1_3_3_final.00000000.FIT", None),
        ("inflation", None),
        ("unbiased", None),
        ("deflated_flatter.fits", None),
        ("darkness.fits", None),
        ("bias_and_darks", None),
        ("9_17_21_2deg10B.fit", None),
        ("20Frames", None),
        ("T-10.0", None),
    ],
)
def test_kind_of_name(name, kind):
    assert kind_of_name(name) == kind


def test_the_nearest_part_of_the_path_tells_the_kind():
    assert kind_of_path("Flats/Darks/bias_1.fits") == ("bias", "file name")
    assert kind_of_path("Flats/Darks/1.fits") == ("dark", "folder Darks")
    assert kind_of_path("Flats/20Frames/1.fits") == ("flat", "folder Flats")
    assert kind_of_path("a/b.fits") == (None, "")


@pytest.mark.parametrize(
    ("name", "alone"),
    [("Flats", True), ("BIAS", True), ("darks_2", True), ("flat_campaign", False), ("x", False)],
)
def test_names_that_say_a_kind_and_nothing_else(name, alone):
    assert is_kind_alone(name) is alone


@pytest.mark.parametrize(
    ("cards", "path", "kind", "source"),
    [
        ({"CALTYPE": "DARK", "IMAGETYP": "Bias Frame"}, "Flats/a.fits", "dark", "CALTYPE"),
        ({"IMAGTYP": "Bias Frame", "OBSTYPE": "dark"}, "a.fits", "bias", "IMAGTYP"),
        ({"OBSTYPE": "dark", "FRAME": "Flat"}, "a.fits", "dark", "OBSTYPE"),
        ({"FRAME": "Flat"}, "a.fits", "flat", "FRAME"),
        ({"FRAME": 12}, "Bias/a.fits", "bias", "folder Bias"),
        ({"IMAGETYP": "  "}, "dark1.fits", "dark", "file name"),
        ({"CALTYPE": "unknown", "IMAGETYP": "Bias Frame"}, "a.fits", "bias", "IMAGETYP"),
        ({"IMAGETYP": "Light Frame"}, "Flat-1s_01.fit", "flat", "file name"),
        ({"IMAGETYP": "Light Frame"}, "Flats/M31.fit", "flat", "folder Flats"),
        ({"IMAGETYP": "Light Frame"}, "Flats/darks/M31.fit", "light", "IMAGETYP"),
        ({"IMAGETYP": "Light Frame"}, "lab1_3_3_final.fit", "light", "IMAGETYP"),
        ({"IMAGETYP": "Dark Frame"}, "Flats/flat.fit", "dark", "IMAGETYP"),
        ({}, "a.fits", None, ""),
    ],
)
def test_kind_of_frame(cards, path, kind, source):
    facts = describe(cards, path)
    assert (facts["caltype"], facts["kind_source"]) == (kind, source)


def test_masters_of_other_software_are_told():
    assert describe({"IMAGETYP": "Master Dark"})["foreign_master"] is True
    assert describe({"IMAGETYP": "Dark Frame"}, "master_darks/a.fits")["foreign_master"] is False


@pytest.mark.parametrize("keyword", ["TEMP", "CCD-TEMP", "CCDTEMP", "TEMPERAT", "TEMPERATURE", "DET-TEMP"])
def test_temperature_keywords(keyword):
    assert describe({keyword: -10, "SET-TEMP": 5.0})["temperature"] == -10.0
    assert describe({keyword: "-10.5"})["temperature"] == -10.5


def test_temperature_is_asked_in_the_order_of_the_table():
    assert describe({"CCD-TEMP": 2.0, "TEMP": 1.0})["temperature"] == 1.0
    assert describe({"TEMPERAT": 3.0, "CCD-TEMP": 2.0})["temperature"] == 2.0


def test_what_is_no_temperature_of_the_sensor():
    cards = {"SET-TEMP": -10.0, "FILETEMP": -10.0, "TEMP_0": -9.0, "EQTEMP": 20.0}
    assert describe(cards)["temperature"] is None
    assert not set(cards) & {alias for aliases in ALIASES.values() for alias in aliases}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-273.15, "TEMP = -273.15 is a mark for no temperature"),
        (999, "TEMP = 999 is a mark for no temperature"),
        (-999.0, "TEMP = -999.0 is a mark for no temperature"),
        ("NAN", "TEMP = NAN is not a number"),
        ("INF", "TEMP = INF is not a number"),
        (True, "TEMP = True is not a number"),
        (263.15, r"TEMP = 263.15 is outside -200 to 100 degC (kelvin?)"),
        (-250.0, "TEMP = -250.0 is outside -200 to 100 degC"),
    ],
)
def test_temperatures_that_cannot_be_meant(value, reason):
    facts = describe({"TEMP": value})
    assert facts["temperature"] is None
    assert facts["problems"]["temperature"] == reason
    # The next keyword of the table may have it.
    facts = describe({"TEMP": value, "CCD-TEMP": -5.0})
    assert facts["temperature"] == -5.0
    assert "temperature" not in facts["problems"]


def test_zero_degrees_and_an_absent_temperature():
    assert describe({"TEMP": 0})["temperature"] == 0.0
    facts = describe({})
    assert facts["temperature"] is None
    assert facts["problems"] == {}


def test_exposure():
    assert describe({"EXPOSURE": 2, "EXPTIME": 1})["exposure"] == 1.0
    assert describe({"EXPOSURE": 2})["exposure"] == 2.0
    assert describe({"EXP_TIME": "1.2e-05"})["exposure"] == 1.2e-5
    assert describe({"EXPTIME": 0})["exposure"] == 0.0
    facts = describe({"EXPTIME": -1.0})
    assert facts["exposure"] is None
    assert facts["problems"]["exposure"] == "EXPTIME = -1.0 is negative"


def test_gain_setting_and_electrons_per_adu_are_two_things():
    facts = describe({"GAIN": 120, "E-GAIN": 0.46})
    assert (facts["gain"], facts["egain"]) == (120.0, 0.46)
    assert describe({"EGAIN": 2.06})["egain"] == 2.06
    assert describe({"EGAIN": 2.06})["gain"] is None
    assert describe({"EGAIN": 0})["egain"] is None
    assert describe({"GAIN": 0})["gain"] == 0.0


@pytest.mark.parametrize(
    ("cards", "binning"),
    [
        ({}, "1x1"),
        ({"XBINNING": 2, "YBINNING": 2}, "2x2"),
        ({"CCDXBIN": 1, "CCDYBIN": 2}, "1x2"),
        ({"XBINNING": 3}, "3x3"),
        ({"CCDSUM": "2 4"}, "2x4"),
        ({"BINNING": "2x2"}, "2x2"),
        ({"BINNING": 2}, "2x2"),
        ({"BINNING": ""}, "1x1"),
    ],
)
def test_binning(cards, binning):
    assert describe(cards)["binning"] == binning


def test_the_rest():
    facts = describe(
        {
            **{"FILTER": " R ", "INSTRUME": "Atik ", "SATURATE": 4095, "BITDEPTH": 12, "FRAMENUM": 7},
            **{"ORIGNX": 1391, "ORIGNY": 1039, "DATASUM": "12345", "BADSIZE": True, "PRODTYPE": "BIAS_MODEL"},
        }
    )
    expected = {"filter": "R", "camera": "Atik", "saturate": 4095.0, "bit_depth": 12, "frame_number": 7}
    expected |= {"full_shape": (1039, 1391), "datasum": "12345", "badsize": True, "prodtype": "BIAS_MODEL"}
    assert {key: facts[key] for key in expected} == expected
    empty = describe({"FILTER": "   ", "INSTRUME": None, "BADSIZE": False})
    expected = {"filter": "NONE", "camera": "", "saturate": None, "bit_depth": None, "frame_number": None}
    expected |= {"full_shape": None, "datasum": None, "badsize": False, "prodtype": None}
    assert {key: empty[key] for key in expected} == expected


def test_the_largest_sample_is_no_saturation_level():
    assert describe({"DATAMAX": 65535})["saturate"] is None


@pytest.mark.parametrize(
    ("cards", "seconds", "source"),
    [
        ({"TIMESTMP": 1700000000.25}, 1700000000.25, "TIMESTMP"),
        ({"TIMESTAMP": "1700000000.25"}, 1700000000.25, "TIMESTAMP"),
        ({"TIMESTMP": "2023-11-14T22:13:20"}, 1700000000.0, "TIMESTMP"),
        # a camera's own clock is no Unix time
        ({"TIMESTMP": 12345.0, "DATE-OBS": "2023-11-14T22:13:20"}, 1700000000.0, "DATE-OBS"),
        ({"TIMESTMP": 12345.0}, None, None),
        ({"DATE-OBS": "2022-10-14T21:28:28.89"}, unix(2022, 10, 14, 21, 28, 28, 890000), "DATE-OBS"),
        ({"DATE-OBS": "2021-09-17 T10:17:09"}, unix(2021, 9, 17, 10, 17, 9), "DATE-OBS"),
        ({"DATE-OBS": "2021/09/17 10:17"}, unix(2021, 9, 17, 10, 17), "DATE-OBS"),
        ({"DATE-OBS": "2021-09-17T10:17:09Z"}, unix(2021, 9, 17, 10, 17, 9), "DATE-OBS"),
        ({"DATE-OBS": "2021-09-17T10:17:09+02:00"}, unix(2021, 9, 17, 8, 17, 9), "DATE-OBS"),
        ({"DATE-OBS": "2019-05-01  ", "TIME-OBS": "23:05:12"}, unix(2019, 5, 1, 23, 5, 12), "DATE-OBS"),
        # the date's own time counts, not a second one
        (
            {"DATE-OBS": "2017-09-08T21:18:13", "TIME-OBS": "01:00:00"},
            unix(2017, 9, 8, 21, 18, 13),
            "DATE-OBS",
        ),
        ({"DATE-OBS": "31/12/98", "UT": "12:00:00"}, unix(1998, 12, 31, 12), "DATE-OBS"),
        ({"DATE-OBS": "2019-05-01", "MJD-OBS": 58604.5}, unix(2019, 5, 1, 12), "MJD-OBS"),
        ({"DATE-OBS": "garbage", "JD": 2458605.0}, unix(2019, 5, 1, 12), "JD"),
        ({"DATE-OBS": "2019-05-01"}, unix(2019, 5, 1), "DATE-OBS"),
        ({"DATE-OBS": "2019-13-01T00:00:00"}, None, None),
        ({"DATE-OBS": "2019-05-01T25:00:00"}, None, None),
        ({}, None, None),
    ],
)
def test_times(cards, seconds, source):
    facts = describe(cards)
    assert facts["time_source"] == source
    assert facts["timestamp"] == (None if seconds is None else pytest.approx(seconds, abs=1e-4))


def test_a_date_without_time_of_day_says_so():
    assert parse_date("2019-05-01") == (unix(2019, 5, 1), False)
    assert parse_date("2019-05-01T00:00:00") == (unix(2019, 5, 1), True)
    assert parse_date("yesterday") is None


@pytest.mark.parametrize(
    ("path", "filter_name", "exposure", "mode"),
    [
        ("M31/uv/a_vis_1.fits", "UV", 1.0, "vis"),
        ("M31/uv/a.fits", "R", 100.0, "uv"),
        ("M31/uv_and_vis/a.fits", "R", 1.0, "vis"),
        ("nuv1.fits", "NONE", 100.0, "uv"),
        ("M31/a.fits", "U", 100.0, "uv"),
        ("M31/a.fits", "UVW2", 100.0, "uv"),
        ("M31/a.fits", "Red", 1.0, "vis"),
        ("M31/a.fits", "Visible", 1.0, "vis"),
        ("M31/a.fits", "NONE", 1.5, "uv"),
        ("M31/a.fits", "NONE", 1.6, "vis"),
        ("visitors/survey.fits", "NONE", 1.0, "uv"),
    ],
)
def test_mode_of_light_frames(path, filter_name, exposure, mode):
    assert mode_of(path, filter_name, exposure) == mode


def test_field_of_light_frames():
    assert field_of("M31/vis/attempt1/fits/a.fits") == "M31"
    assert field_of("night1/M31/a.fits") == "M31"
    assert field_of("a.fits") is None
