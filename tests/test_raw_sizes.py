"""Converter: formats of samples and sizes of files."""

import numpy as np
import pytest
from astropy.io import fits
from raw_frames import CONFIG, SHAPE, campaign, check_valid, image_of, make_attempt, reasons, run, table

from utils.kernels.raw_decode import decode, pixel_format
from utils.raw_to_fits import convert_attempt


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
