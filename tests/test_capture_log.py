import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from utils.errors import InputError
from utils.fits_io.capture_log import as_number, read_config, read_log, read_text, typed


def config_of(tmp_path, data):
    path = tmp_path / "configFile.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_config(path)


def log_of(tmp_path, data):
    path = tmp_path / "temperatureLog.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_log(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        (" -3 ", -3),
        ("0", 0),
        ("1.50", 1.5),
        (".5", 0.5),
        ("1e-05", 1e-5),
        ("TRUE", True),
        ("false", False),
        ("007", "007"),
        ("123456789012345678", 123456789012345678),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("1_000", "1_000"),
        ("1,5", "1,5"),
        ("0x1F", "0x1F"),
        ("", ""),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        ("1.#INF", math.inf),
        ("1e999", math.inf),
        ("Mono12p", "Mono12p"),
    ],
)
def test_types(text, value):
    got = typed(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan(ind)", "1.#QNAN", "-1.#IND"])
def test_not_a_number(text):
    assert math.isnan(typed(text))


def test_decimal_comma_where_the_delimiter_allows_it():
    assert typed("-10,25", decimal_comma=True) == -10.25
    assert typed("1,2,3", decimal_comma=True) == "1,2,3"


def test_numbers_of_numeric_columns():
    assert as_number("0007") == 7
    assert as_number("-05.5") == -5.5
    assert as_number("000") == 0
    assert as_number("true") is None
    assert as_number("12 C") is None


def test_config_syntax(tmp_path):
    config = config_of(
        tmp_path,
        "# comment\n[camera]\nWIDTH=64\nheight : 32   # rows\nBit_Depth: 12\n; old style\n"
        "NAME = \"My # 'Cam'\"\n"
        "serial='0042'\nurl=http://x:80/a=b\ncolour=#ff8800\nempty=\ntime: 10:30\nEGAIN=1.5#e/ADU\n",
    )
    assert config == {
        "WIDTH": 64,
        "HEIGHT": 32,
        "BIT_DEPTH": 12,
        "NAME": "My # 'Cam'",
        "SERIAL": "0042",
        "URL": "http://x:80/a=b",
        "COLOUR": "#ff8800",
        "EMPTY": "",
        "TIME": "10:30",
        "EGAIN": 1.5,
    }
    assert config["Width"] == config.get("width") == 64
    assert "bit_depth" in config
    assert "absent" not in config
    assert config.get("absent", 5) == 5
    assert config.spelling["BIT_DEPTH"] == "Bit_Depth"
    assert config.problems == []


@pytest.mark.parametrize("spell", [str.upper, str.lower, str])
@pytest.mark.parametrize("sign", ["", "_", "-", " "])
def test_layout_keys_in_other_spellings(tmp_path, spell, sign):
    names = ("Width", "Height", f"Bit{sign}Depth", f"Byte{sign}Order", f"Pixel{sign}Format")
    config = config_of(tmp_path, "".join(f"{spell(name)}={number}\n" for number, name in enumerate(names)))
    assert config == {"WIDTH": 0, "HEIGHT": 1, "BIT_DEPTH": 2, "BYTE_ORDER": 3, "PIXEL_FORMAT": 4}
    assert [config[spell(name)] for name in names] == [0, 1, 2, 3, 4]
    assert config.spelling["BIT_DEPTH"] == spell(names[2])


def test_spellings_of_one_layout_key_are_one_entry(tmp_path):
    config = config_of(tmp_path, "ByteOrder=big\nBYTE_ORDER=little\nLensName=a\nLENS_NAME=b\n")
    assert config == {"BYTE_ORDER": "little", "LENSNAME": "a", "LENS_NAME": "b"}
    assert config.problems == ["line 2: BYTE_ORDER comes again, 'little' counts"]


def test_config_lines_that_cannot_be_used_are_told(tmp_path):
    config = config_of(tmp_path, "nonsense\n=5\nWIDTH=1\nwidth=2\n")
    assert config == {"WIDTH": 2}
    assert config.problems == [
        "line 1 is not key=value: 'nonsense'",
        "line 2 is not key=value: '=5'",
        "line 4: width comes again, 2 counts",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, newline):
    config = config_of(tmp_path, newline.join(["WIDTH=8", "Größe: für", ""]).encode(encoding))
    assert config == {"WIDTH": 8, "GRÖSSE": "für"}
    log = log_of(tmp_path, newline.join(["FrameNum;Maß", "1;2,5", ""]).encode(encoding))
    assert (log.columns, log.rows, log.problems) == (("FrameNum", "Maß"), [("1", "2,5")], [])


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: cannot be read \(No such file"):
        read_text(tmp_path / "none.txt")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
def test_delimiters(tmp_path, delimiter):
    lines = [["FrameNum", "Temperature", "PowerCons"], ["0", "-10.5", "3"], ["1", "-10.4", "4"]]
    log = log_of(tmp_path, "\n".join(delimiter.join(line) for line in lines))
    assert log.columns == ("FrameNum", "Temperature", "PowerCons")
    assert log.rows == [("0", "-10.5", "3"), ("1", "-10.4", "4")]
    assert log.decimal_comma is (delimiter != ",")
    assert log.problems == []


@pytest.mark.parametrize("header", ["Temperature", "Chip Temp"])
def test_one_column(tmp_path, header):
    log = log_of(tmp_path, f"{header}\n-10.5\n-10.4\n")
    assert (log.columns, log.rows, log.decimal_comma) == ((header,), [("-10.5",), ("-10.4",)], False)


def test_rows_that_do_not_fit(tmp_path):
    log = log_of(tmp_path, 'A,B\n1,2,3\n\n4\n5,6,\n"7,8\n,\n# end\n9,"x ""y"""\n')
    assert log.rows == [None, ("4", ""), ("5", "6"), ("7,8", ""), None, ("9", 'x "y"')]
    assert [problem.partition(":")[0] for problem in log.problems] == [
        "line 2 does not fit the 2 columns",
        "line 4 has 1 of 2 cells",
        "line 6 has 1 of 2 cells",
        "line 7 does not fit the 2 columns",
    ]


def test_header_that_is_commented_out(tmp_path):
    log = log_of(tmp_path, "# FrameNum,Temperature\n1,2\n")
    assert (log.columns, log.rows) == (("FrameNum", "Temperature"), [("1", "2")])


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"\x00\x00"])
def test_empty_log(tmp_path, data):
    log = log_of(tmp_path, data)
    assert log.rows == []
    assert log.problems == ["the log is empty"]


def test_a_cell_longer_than_the_csv_module_takes(tmp_path):
    log = log_of(tmp_path, "A,B\n" + "x" * 200_000 + ",1\n2,3\n")
    assert log.rows == [None, ("2", "3")]


@settings(max_examples=300, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
    )
)
@example(data=b"A=1\x85B=2\xff")
@example(data=b'"\n"\n,')
def test_parsers_take_any_bytes(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    config = config_of(folder, data)
    assert all(key and isinstance(value, (int, float, bool, str)) for key, value in config.items())
    assert set(config.spelling) == set(config)
    log = log_of(folder, data)
    assert all(row is None or len(row) == len(log.columns) for row in log.rows)
    assert all("\n" not in text for text in log.problems + config.problems)


_KEY = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,12}", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(
    entries=st.dictionaries(
        _KEY.map(str.upper), st.one_of(st.integers(-(10**17), 10**17), st.floats(allow_nan=False)), max_size=8
    ),
    sign=st.sampled_from(["=", ": ", " = "]),
)
def test_config_round_trip(tmp_path_factory, entries, sign):
    text = "".join(f"{key}{sign}{value!r}\n" for key, value in entries.items())
    assert config_of(tmp_path_factory.getbasetemp(), text) == entries
