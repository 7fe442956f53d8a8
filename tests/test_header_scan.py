"""The header parser against astropy, on real headers and on those that cameras should not write."""

import gzip
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import InputError
from utils.fits_io import header_scan
from utils.fits_io.header_scan import (
    FIRST_READ,
    FitsImage,
    parse_cards,
    parse_number,
    scan_header,
    scan_headers,
)

REAL = Path(__file__).resolve().parents[2] / "shared" / "realdata"
REAL_FRAMES = sorted(path for path in REAL.rglob("*") if path.suffix.lower() in (".fit", ".fits"))


def astropy_cards(header):
    """Values as astropy types them, without what the scan leaves out or spells in its own way.

    Left out: commentary cards. Spelt otherwise: a card without value is None here and Undefined there.
    """
    return {
        keyword: None if isinstance(header[keyword], fits.card.Undefined) else header[keyword]
        for keyword in header
        if keyword not in ("COMMENT", "HISTORY", "")
    }


def assert_same(found, expected):
    assert found == expected
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in expected.items()
    }


def header_bytes(*cards):
    text = "".join(card.ljust(80) for card in (*cards, "END"))
    return text.encode("latin-1").ljust(-(-len(text) // 2880) * 2880)


def write_raw(path, *cards, data=b"", shape=(2, 3)):
    """A FITS file with these cards behind the usual ones, byte by byte."""
    first = [
        "SIMPLE  =                    T",
        "BITPIX  =                   16",
        f"NAXIS   = {len(shape):20d}",
        *(f"NAXIS{n + 1}  = {length:20d}" for n, length in enumerate(reversed(shape))),
    ]
    size = int(np.prod(shape)) * 2
    path.write_bytes(header_bytes(*first, *cards) + (data or bytes(-(-size // 2880) * 2880)))
    return path


@pytest.mark.skipif(not REAL_FRAMES, reason="real frames are not here")
def test_real_headers_are_those_of_astropy():
    assert len(REAL_FRAMES) == 285
    for path in REAL_FRAMES:
        with fits.open(path) as hdus:
            header = hdus[0].header
            image = scan_header(path)
            assert_same(image.cards, astropy_cards(header))
            assert image.shape == hdus[0].shape
            assert image.offset == hdus[0]._data_offset
        assert (image.size, image.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)


CARDS = [
    "INT     =                   42 / forty-two",
    "NEG     =                  -42",
    "PLUS    =                 +007",
    "FLOAT   =          -1.2500E-03 / E",
    "DEXP    =                  1D5 / D exponent",
    "LOWEXP  = 2.5e-1",
    "ZEROEXP = +0.000E+000",
    "DOT     = 3.",
    "POINT   = .5",
    "SPACED  = - 5",
    "EXPGAP  = 1.5 E +3",
    "BIG     = 123456789012345678901234567890",
    "YES     =                    T / true",
    "NO      =                    F",
    "LEFT    = T",
    "CPLX    = (1.5, -2)",
    "NOTHING =                      / no value",
    "EMPTY   = ''",
    "BLANKS  = '        '           / quoted blanks",
    "TRAIL   = 'abc     '",
    "LEAD    = '  abc'",
    "QUOTE   = 'it''s'              / doubled quote",
    "QUOTES  = ''''''",
    "SLASH   = 'a/b // c'           / a slash / in the comment",
    "AMP     = 'ends with &'",
    "lower   = 5",
    "TWICE   = 'first'",
    "TWICE   = 'second'",
    "COMMENT = not a value",
    "HISTORY what was done",
    "        = 3",
    "HIERARCH ESO DET TEMP = -10.5 / hierarch",
    "HIERARCH TIMESTAMP = 1700000000.25",
    "HIERARCH ESO text = 'a = b'",
    "LONG    = 'first part &'",
    "CONTINUE  'second &'",
    "CONTINUE  'third' / comment",
    "AFTER   = 1",
    "NOTE    = 'the END     of it'",
    "DATE-OBS= '2021-09-17 T10:17:09'",
    "NAN     = 'NAN'",
]


def test_odd_cards_are_typed_as_astropy_types_them(tmp_path):
    path = write_raw(tmp_path / "odd.fits", *CARDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of the lower-case and the '= ' cards
        expected = {key.upper(): value for key, value in astropy_cards(fits.getheader(path)).items()}
    found = scan_header(path).cards
    assert_same(found, expected)
    assert found["DEXP"] == 1e5
    assert found["QUOTE"] == "it's"
    assert found["LONG"] == "first part second third"
    assert found["TWICE"] == "first"
    assert found["NOTHING"] is None


def test_cards_that_astropy_refuses_keep_their_text():
    cards = parse_cards(
        header_bytes("TEMP    = NaN", "GAIN    = 1_000", "OPEN    = 'no end", "TIGHT   =-10.5 / no blank")
    )
    assert cards["TEMP"] == "NaN"
    assert cards["GAIN"] == "1_000"
    assert cards["OPEN"] == "no end"
    assert cards["TIGHT"] == -10.5


def test_a_string_goes_on_only_in_the_card_that_follows():
    cards = parse_cards(header_bytes("LONG    = 'a&'", "COMMENT between", "CONTINUE  'b'", "CONTINUE  'c'"))
    assert cards == {"LONG": "a&"}


@pytest.mark.parametrize("text", ["", "nan", "inf", "0x10", "1_0", "1e", "--1", "1 2"])
def test_what_is_no_fits_number(text):
    assert parse_number(text) is None


values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(values, min_size=1, max_size=8))
def test_whatever_astropy_writes_is_read_as_astropy_reads_it(listed):
    header = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # long values, cut comments
        for number, value in enumerate(listed):
            header[f"KEY{number}" if number % 2 else f"HIERARCH A LONGER KEY {number}"] = value
        text = header.tostring()
        expected = astropy_cards(fits.Header.fromstring(text))
    block = text.encode()
    assert_same(parse_cards(block[: header_scan._find_end(block)]), expected)


def test_image_facts(tmp_path):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.arange(6, dtype=np.uint16).reshape(2, 3)).writeto(path)
    image = scan_header(path)
    assert isinstance(image, FitsImage)
    assert (image.shape, image.bitpix, image.bzero, image.bscale) == ((2, 3), 16, 32768.0, 1.0)
    assert (image.offset, image.compressed, image.blank) == (2880, False, None)
    data = np.frombuffer(path.read_bytes(), ">i2", 6, image.offset) + image.bzero
    assert data.tolist() == [0, 1, 2, 3, 4, 5]


def test_scale_and_blank(tmp_path):
    path = write_raw(tmp_path / "a.fits", "BLANK   = -32768", "BSCALE  = 0.5", "BZERO   = 1D1")
    image = scan_header(path)
    assert (image.blank, image.bscale, image.bzero) == (-32768, 0.5, 10.0)


def test_trailing_axis_of_length_one_is_dropped(tmp_path):
    assert scan_header(write_raw(tmp_path / "a.fits", shape=(1, 4, 5))).shape == (4, 5)


def test_header_longer_than_the_first_read(tmp_path):
    path = tmp_path / "long.fits"
    header = fits.Header([(f"KEY{n}", n) for n in range(700)])
    fits.PrimaryHDU(np.zeros((2, 2), np.int16), header).writeto(path)
    image = scan_header(path)
    assert image.offset > 4 * FIRST_READ
    assert image.cards["KEY699"] == 699


def test_image_extension_below_an_empty_primary(tmp_path):
    path = tmp_path / "mef.fits"
    primary = fits.PrimaryHDU(header=fits.Header([("EXPTIME", 3.0), ("GAIN", 1)]))
    table = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=np.arange(2000))])
    image = fits.ImageHDU(np.ones((3, 4), np.float32), fits.Header([("GAIN", 2)]))
    fits.HDUList([primary, table, image]).writeto(path)
    scanned = scan_header(path)
    with fits.open(path) as hdus:
        assert scanned.offset == hdus[2]._data_offset
    assert scanned.shape == (3, 4)
    assert scanned.cards["EXPTIME"] == 3.0  # from the primary header
    assert scanned.cards["GAIN"] == 2  # the image's own
    assert scanned.cards["NAXIS"] == 2


@pytest.mark.parametrize("algorithm", ["RICE_1", "GZIP_1"])
def test_tile_compressed_image(tmp_path, algorithm):
    path = tmp_path / "a.fits.fz"
    data = np.arange(50 * 70, dtype=np.uint16).reshape(50, 70)
    header = fits.Header([("EXPTIME", 2.5), ("TEMP", -10.0), ("IMAGETYP", "Dark Frame")])
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, header, compression_type=algorithm)]).writeto(
        path
    )
    image = scan_header(path)
    assert (image.shape, image.bitpix, image.bzero) == ((50, 70), 16, 32768.0)
    assert (image.compressed, image.offset) == (True, -1)
    expected = astropy_cards(fits.getheader(path, 1))
    for structural in ("XTENSION", "PCOUNT", "GCOUNT"):
        expected.pop(structural, None)
    assert expected.items() <= image.cards.items()
    assert not {"TFIELDS", "TTYPE1", "ZIMAGE", "ZCMPTYPE", "ZNAXIS1"} & image.cards.keys()


@pytest.mark.parametrize("name", ["a.fits.gz", "gzipped_under_another_name.fits"])
def test_gzipped_file(tmp_path, name):
    fits.PrimaryHDU(np.ones((30, 40), np.int16), fits.Header([("TEMP", 1.5)])).writeto(tmp_path / "a.fits")
    path = tmp_path / name
    path.write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    image = scan_header(path)
    assert (image.shape, image.compressed, image.offset) == ((30, 40), True, -1)
    assert image.cards["TEMP"] == 1.5
    assert image.size == path.stat().st_size


def test_gzip_file_of_two_members_is_counted_whole(tmp_path):
    fits.PrimaryHDU(np.ones((300, 400), np.int16)).writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    path = tmp_path / "two.fits.gz"
    path.write_bytes(gzip.compress(content[:200000]) + gzip.compress(content[200000:]))
    assert scan_header(path).shape == (300, 400)


def test_bytes_outside_ascii_do_no_harm(tmp_path):
    path = write_raw(tmp_path / "a.fits", "OBSERVER= 'Zo\xeb'", "COMMENT \xb0C", "TEMP    = -5.0 / \xb0C")
    cards = scan_header(path).cards
    assert cards["TEMP"] == -5.0
    assert cards["OBSERVER"] == "Zo\xeb"


def unusable_files(folder):
    """(path, what the message says) of each file that must be refused."""
    good = write_raw(folder / "good.fits", "TEMP    = 1.0", shape=(100, 100)).read_bytes()

    def made(name, content):
        (folder / name).write_bytes(content)
        return folder / name

    fits.PrimaryHDU().writeto(folder / "no_image.fits")
    no_end = good[:2880].replace(b"END", b"   ") + bytes(3 * 2880)
    return [
        (made("empty.fits", b""), "empty file"),
        (made("text.fits", b"hello\n" * 1000), "not a FITS file"),
        (made("cut_header.fits", good[:400]), "no END card"),
        (made("no_end.fits", no_end), "no END card"),
        (
            made("cut_data.fits", good[:-9000]),
            "truncated, 11160 bytes of data, expected 20000 for 100 rows",
        ),
        (made("cut_in_padding_of_header.fits", good[:1000]), "truncated, 0 bytes of data"),
        (made("cut.fits.gz", gzip.compress(good)[:-30]), "damaged gzip|truncated"),
        (made("cut_data.fits.gz", gzip.compress(good[:-9000])), "truncated"),
        (made("bad_gzip.fits.gz", b"\x1f\x8b" + bytes(100)), "damaged gzip"),
        (folder / "no_image.fits", "no image"),
        (write_raw(folder / "cube.fits", shape=(3, 4, 5)), "not two-dimensional, .* 5 x 4 x 3"),
        (write_raw(folder / "line.fits", shape=(40,)), "not two-dimensional"),
        (
            made("simple_f.fits", good.replace(b"=                    T", b"=                    F", 1)),
            "SIMPLE",
        ),
        (made("bitpix.fits", good.replace(b"16", b"17", 1)), "BITPIX = 17, expected one of"),
        (
            made("naxis.fits", good.replace(b"NAXIS1  = ", b"NAXIS1  =-")),
            "NAXIS1 = .*, expected a whole number",
        ),
        (write_raw(folder / "bzero.fits", "BZERO   = 'x'"), "BZERO = 'x', expected a finite number"),
        (folder / "missing.fits", "cannot be read"),
    ]


def test_unusable_files_are_told_in_one_line(tmp_path):
    for path, message in unusable_files(tmp_path):
        with pytest.raises(InputError, match=message) as caught:
            scan_header(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_an_unpadded_last_block_is_enough(tmp_path):
    path = write_raw(tmp_path / "a.fits", shape=(10, 10))
    path.write_bytes(path.read_bytes()[: 2880 + 200])
    assert scan_header(path).shape == (10, 10)


def test_product_of_three_axes_tells_its_prodtype(tmp_path):
    path = write_raw(tmp_path / "a.fits", "PRODTYPE= 'BIAS_COV'", shape=(3, 4, 5))
    [error] = scan_headers([path])
    assert error.prodtype == "BIAS_COV"


@pytest.mark.parametrize("jobs", [None, 1, 3])
def test_many_files_in_order_with_errors_in_their_place(tmp_path, jobs):
    paths = [write_raw(tmp_path / f"{n}.fits", f"FRAMENUM= {n}") for n in range(150)]
    paths.insert(70, tmp_path / "missing.fits")
    results = scan_headers(paths, jobs)
    assert isinstance(results[70], InputError)
    del results[70]
    assert [image.cards["FRAMENUM"] for image in results] == list(range(150))


def test_progress_sees_each_result(tmp_path):
    paths = [write_raw(tmp_path / f"{n}.fits") for n in range(5)]
    seen = []

    def progress(results, total, what):
        for result in results:
            seen.append((total, what))
            yield result

    assert len(scan_headers(paths, progress=progress)) == 5
    assert seen == [(5, "headers")] * 5


def test_a_slow_disk_is_read_by_threads(tmp_path, monkeypatch):
    paths = [write_raw(tmp_path / f"{n}.fits") for n in range(640)]
    read = header_scan.scan_header

    threads = set()

    def slow(path):
        threads.add(threading.get_ident())
        time.sleep(0.004)
        return read(path)

    monkeypatch.setattr(header_scan, "scan_header", slow)
    assert [image.path for image in scan_headers(paths)] == [str(path) for path in paths]
    assert len(threads) > 4  # this one as long as the disk seems fast, then those that wait for it
