"""Faulty files in the input of every pipeline: named with their reason, and the rest gives what it gives alone."""

import gzip
import os
from pathlib import Path

import fault_frames
import numpy as np
import pytest
from astropy.io import fits
from bias_frames import content, files, record, rows

from utils.fits_io import frame_stack
from utils.fits_io.product_reader import read_product
from utils.observation_manager import ObservationManager

PIPELINES = tuple(fault_frames.PIPELINES)


# --- what is done to a file ------------------------------------------------------------------------


def add_sums(path):
    with fits.open(path, mode="update", checksum=True, do_not_scale_image_data=True):
        pass


def flip(path, place=2880 + 100):
    changed = bytearray(path.read_bytes())
    changed[place] ^= 4
    path.write_bytes(bytes(changed))


def flip_with_sum(path):
    add_sums(path)
    flip(path)


def packed(path, suffix, spoil):
    """Put a compressed and spoilt file in the place of a plain one."""
    if suffix == "gz":
        data = gzip.compress(path.read_bytes())
    else:
        with fits.open(path) as hdus:
            other = fits.CompImageHDU(hdus[0].data, hdus[0].header)
        other.writeto(path, overwrite=True, checksum=True)
        data = path.read_bytes()
    path.unlink()
    path.with_name(f"{path.name}.{suffix}").write_bytes(spoil(data))


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_link(path, target):
    path.unlink()
    path.symlink_to(target)


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def spoil_header(path):
    changed = bytearray(path.read_bytes())
    changed[90:400] = bytes(range(156, 256)) * 3 + bytes(10)
    path.write_bytes(bytes(changed))


FAULTS = {
    "truncated, ": lambda path: path.write_bytes(path.read_bytes()[:3500]),
    "empty file, ": lambda path: path.write_bytes(b""),
    "not a FITS file, ": lambda path: path.write_bytes(b"no FITS here" * 500),
    "NAXIS = ": spoil_header,
    "DATASUM: the data have ": flip_with_sum,
    "damaged gzip file": lambda path: packed(path, "gz", lambda data: data[:-300]),
    "cannot be unpacked (Datasum": lambda path: packed(
        path, "fz", lambda data: data[:-2800] + bytes(99) + data[-2701:]
    ),
    "cannot be read (No such file": lambda path: make_link(path, "nowhere.fits"),
    "cannot be read (Too many levels": lambda path: make_link(path, path.name),
    "not a regular file": make_pipe,
}
"""Beginning of the reason -> what is done to a frame."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "campaign"
    # Enough frames at one setting that each fault has its own.
    fault_frames.campaign(folder, n=len(FAULTS) + 5)
    return folder


@pytest.fixture
def night(campaign, tmp_path):
    return fault_frames.copy(campaign, tmp_path / "night")


def products(out):
    return {name: content(out / name) for name in files(out) if name.endswith(".fits")}


@pytest.mark.parametrize("name", PIPELINES)
def test_each_fault_has_its_reason_and_harms_nothing_else(night, tmp_path, name):
    victims = sorted((night / name).iterdir())[: len(FAULTS)]
    for path, spoil in zip(victims, FAULTS.values(), strict=True):
        spoil(path)
    (night / "in_a_circle").symlink_to(night)
    assert fault_frames.run(name, "--basepath", night, "--output-dir", tmp_path / "one") == 0
    found = {
        Path(row["path"]).name.split(".")[0]: row["reason"]
        for row in rows(tmp_path / "one/rejected_frames.csv")
    }
    assert found.keys() == {path.name.split(".")[0] for path in victims}
    for path, reason in zip(victims, FAULTS, strict=True):
        assert found[path.name.split(".")[0]].startswith(reason), (reason, found)
    for path in victims:
        for one in path.parent.glob(f"{path.name}*"):
            one.unlink()
    assert fault_frames.run(name, "--basepath", night, "--output-dir", tmp_path / "other") == 0
    assert rows(tmp_path / "other/rejected_frames.csv") == []
    assert products(tmp_path / "one") == products(tmp_path / "other")


@pytest.mark.parametrize("name", PIPELINES)
def test_flipped_bit_without_a_sum_is_one_pixel(night, tmp_path, name):
    """Nothing in the file tells; the clipping of the combination takes the one sample out."""
    flip(sorted((night / name).iterdir())[0], 2880 + 100)
    assert fault_frames.run(name, "--basepath", night, "--output-dir", tmp_path / "out") == 0
    assert rows(tmp_path / "out/rejected_frames.csv") == []


# --- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_nan_and_infinite_pixels(night, tmp_path, name):
    """Blank in one frame: the others count.  In all: masked.  No value that is not masked is NaN or infinite."""
    for number, path in enumerate(sorted(night.glob("*/*.fits"))):
        with fits.open(path) as hdus:
            samples, header = hdus[0].data.astype(np.float32), hdus[0].header.copy()
        samples[3, 4] = np.nan
        samples[5, 6] = np.inf
        if number % 10 == 0:
            samples[7, 8], samples[9, 10], samples[11, 12] = np.nan, np.inf, -np.inf
        fits.PrimaryHDU(samples, header).writeto(path, overwrite=True)
    options = ("--adu-scale", "16")
    assert fault_frames.run(name, "--basepath", night, "--output-dir", tmp_path / "out", *options) == 0
    assert rows(tmp_path / "out/rejected_frames.csv") == []
    refs = [one for one in record(tmp_path / "out")["products"] if one.endswith(".fits")]
    masters = 0
    for ref in refs:
        product = read_product(tmp_path / "out" / ref)
        if product.dq is None:
            continue
        assert np.isfinite(product.data[~product.mask]).all(), ref
        assert product.uncert is None or np.isfinite(product.uncert[~product.mask]).all(), ref
        if product.prodtype in ("MASTER_BIAS", "DARK_CURRENT", "MASTER_FLAT"):
            masters += 1
            assert product.mask[3, 4], ref
            assert product.mask[5, 6], ref
            assert not product.mask[[7, 9, 11], [8, 10, 12]].any(), ref
    assert masters >= 2


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_names_with_blanks_quotes_other_alphabets_and_no_utf8(night, tmp_path, name):
    plain = tmp_path / "plain"
    assert fault_frames.run(name, "--basepath", night, "--output-dir", plain) == 0
    odd = night.rename(tmp_path / "my 'night' \"é\" 雪")
    names = [
        "two  blanks.fits",
        'quote\'d "x".fits',
        "é雪.fits",
        "new\nline.fits",
        "<b>&amp;.fits",
        "%s {0}.fits",
        "-x.fits",
    ]
    first, *others = sorted((odd / name).iterdir())
    os.rename(os.fsencode(first), os.fsencode(odd / name) + b"/no\xff utf8.fits")
    for path, new in zip(others, names, strict=False):
        path.rename(path.parent / new)
    out = tmp_path / "out 'é'"
    assert fault_frames.run(name, "--basepath", odd, "--output-dir", out) == 0
    assert rows(out / "rejected_frames.csv") == []
    # Read back, the name is the one that opens the file.
    assert any(
        os.fsencode(one["path"]).endswith(b"/no\xff utf8.fits")
        for one in record(out)["runs"][-1]["inputs"]["files"]
    )
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "<b>&amp;.fits" not in html
    for product in files(plain):
        if product.endswith(".fits"):
            one, other = (read_product(folder / product) for folder in (plain, out))
            np.testing.assert_array_equal(one.data, other.data, err_msg=product)


# --- files that go or change while the run is on ----------------------------------------------------


def vanish(path):
    path.unlink()


def shrink(path):
    os.truncate(path, 3000)


def rewrite(path):
    """The same size, other content."""
    flip(path)


CHANGES = {
    vanish: "file vanished during the run",
    shrink: "file changed during the run (3000 bytes, ",
    rewrite: "file changed during the run (written anew)",
}


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("change", CHANGES)
def test_change_between_listing_and_reading(night, tmp_path, monkeypatch, name, change):
    victim = sorted((night / name).iterdir())[1]
    plain = ObservationManager.load_and_organize

    def load(manager, *words):
        result = plain(manager, *words)
        change(victim)
        return result

    monkeypatch.setattr(ObservationManager, "load_and_organize", load)
    assert fault_frames.run(name, "--basepath", night, "--output-dir", tmp_path / "out") == 0
    (row,) = rows(tmp_path / "out/rejected_frames.csv")
    assert row["path"] == str(victim)
    assert row["reason"].startswith(CHANGES[change])


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("change", CHANGES)
def test_change_while_frames_are_combined(night, tmp_path, monkeypatch, capsys, name, change):
    """A vanished file stays open and whole; one that changed ends the run with one line, nothing half-written."""
    victim = sorted((night / name).iterdir())[1]
    plain = frame_stack.FrameStack._combine_rows

    def combine(stack, *words):
        result = plain(stack, *words)
        if any(image.path == str(victim) for image in stack.images) and not done:
            done.append(True)
            change(victim)
        return result

    done = []
    monkeypatch.setattr(frame_stack.FrameStack, "_combine_rows", combine)
    status = fault_frames.run(name, "--basepath", night, "--output-dir", tmp_path / "out", "--jobs", "1")
    assert done
    if change is vanish:
        assert status in (0, 2)
    else:
        assert status == 2
    if status:
        line = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(line) == 1
        assert str(victim) in line[0]
    assert not [one for one in files(tmp_path) if one.endswith(".tmp")]
