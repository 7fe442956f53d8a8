"""Headers kept between runs, and the index of the converter in their place."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_frames import frame, load
from utils.errors import OptionError
from utils.fits_io.scan_cache import ScanCache, user_cache_folder
from utils.observation_manager import ObservationManager

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def opened(monkeypatch):
    """Names of the FITS files that are opened from here on."""
    seen = []
    real_open = open

    def counting(file, *args, **kwargs):
        if str(file).lower().endswith((".fits", ".fit", ".gz", ".fz")):
            seen.append(os.path.basename(file))
        return real_open(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", counting)
    return seen


def test_a_second_scan_opens_no_fits_file(tree, opened):
    for number in range(5):
        frame(tree / f"{number}.fits", FRAMENUM=number, CPLX=1.5 + 2j, EMPTY="")
    (tree / "bad.fits").write_bytes(b"")
    opened.clear()
    first = load(tree)
    assert sorted(opened) == sorted(["bad.fits", *(f"{number}.fits" for number in range(5))])
    opened.clear()
    second = load(tree)
    assert opened == []
    assert (second.entries, second.rejected, second.images) == (first.entries, first.rejected, first.images)
    assert second.images[str(tree / "0.fits")].cards["CPLX"] == 1.5 + 2j


def test_only_changed_files_are_opened_again(tree, opened):
    for number in range(3):
        frame(tree / f"{number}.fits", TEMP=-10.0)
    load(tree)
    # Another content, of the same size and with the old time of change.
    before = (tree / "1.fits").stat()
    frame(tree / "1.fits", TEMP=-12.0)
    os.utime(tree / "1.fits", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tree / "2.fits").unlink()
    frame(tree / "3.fits")
    opened.clear()
    manager = load(tree)
    assert sorted(opened) == ["1.fits", "3.fits"]
    assert [entry["temperature"] for entry in manager.entries] == [-10.0, -12.0, -10.0]


def damage_cut(content):
    return content[: len(content) // 2]


def damage_flip(content):
    return content.replace(b"-10.0", b"-11.0")


def damage_empty(content):
    return b""


def damage_other(content):
    return b'{"format": 1}\n[]'


def damage_binary(content):
    return bytes(range(256)) * 10


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_empty, damage_other, damage_binary])
def test_a_damaged_cache_is_as_good_as_none(tree, damage, opened):
    frame(tree / "a.fits", TEMP=-10.0)
    cache = ScanCache(tree, user_cache_folder()).path
    load(tree)
    content = cache.read_bytes()
    assert damage(content) != content
    cache.write_bytes(damage(content))
    opened.clear()
    assert [entry["temperature"] for entry in load(tree).entries] == [-10.0]
    assert opened == ["a.fits"]
    assert cache.read_bytes() == content  # mended


def test_processes_that_share_a_cache(tree, cache_home):
    for number in range(60):
        frame(tree / f"{number:02d}.fits", FRAMENUM=number)
    code = (
        "import sys; from utils.observation_manager import ObservationManager\n"
        "for _ in range(10):\n"
        "    found = ObservationManager(sys.argv[1], jobs=1).load_and_organize().entries\n"
        "    assert [entry['frame_number'] for entry in found] == list(range(60))\n"
        "    import pathlib; frame = pathlib.Path(sys.argv[1], '00.fits'); frame.touch()\n"
    )
    command = [sys.executable, "-c", code, str(tree)]
    running = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    assert len(list((cache_home / "calibration-pipelines").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_no_error(tree, tmp_path):
    frame(tree / "a.fits")
    (tmp_path / "file").write_text("")
    assert len(load(tree, cache_dir=tmp_path / "file" / "cache").entries) == 1


def test_the_cache_never_lies_in_the_input_tree(tree, monkeypatch):
    frame(tree / "a.fits")
    with pytest.raises(OptionError, match=r"cache lies in the input folder .*campaign, expected outside"):
        ObservationManager(tree, cache_dir=tree / "cache")
    before = sorted(tree.rglob("*"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tree))
    assert len(load(tree).entries) == 1
    assert sorted(tree.rglob("*")) == before
    # An output folder within the tree is no part of the input.
    load(tree, exclude=[tree / "out"], cache_dir=tree / "out")
    assert [path.suffix for path in (tree / "out").iterdir()] == [".json"]


def write_index(path, frames, **changes):
    """The converter's index of frames made by frame(): dark, 5 s, -20 degC, whatever their headers say."""
    columns = [
        "PATH",
        "RELPATH",
        "CALTYPE",
        "FRAMENUM",
        "EXPTIME",
        "TEMP",
        "GAIN",
        "BADSIZE",
        "NAXIS1",
        "NAXIS2",
    ]
    columns += ["BITPIX", "BZERO", "BSCALE", "DATAOFF", "DATASUM", "DATE-OBS", "FILTER", "SIZE", "MTIME_NS"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for number, one in enumerate(frames):
            row = {
                "PATH": one,
                "RELPATH": os.path.relpath(one, path.parent),
                "CALTYPE": "DARK",
                "FRAMENUM": number,
            }
            row |= {"EXPTIME": 5.0, "TEMP": -20.0, "BADSIZE": "False", "NAXIS1": 3, "NAXIS2": 2, "BITPIX": 16}
            row |= {"BZERO": 32768.0, "BSCALE": 1.0, "DATAOFF": 2880, "DATASUM": "0123", "FILTER": ""}
            row |= {"SIZE": one.stat().st_size, "MTIME_NS": one.stat().st_mtime_ns, **changes}
            writer.writerow(row)


def test_a_fresh_index_is_used_in_place_of_the_headers(tree, opened):
    frames = [frame(tree / "Dark" / "attempt1" / "fits" / f"{n}.fits") for n in range(3)]
    write_index(tree / "fits_index.csv", frames)
    opened.clear()
    manager = load(tree)
    assert opened == []
    assert {(e["caltype"], e["temperature"], e["exposure"], e["filter"]) for e in manager.entries} == {
        ("dark", -20.0, 5.0, "NONE")
    }
    assert [entry["frame_number"] for entry in manager.entries] == [0, 1, 2]
    assert {(entry["datasum"], entry["gain"], entry["badsize"]) for entry in manager.entries} == {
        ("0123", None, False)
    }
    image = manager.images[str(frames[0])]
    assert (image.shape, image.bzero, image.offset, image.compressed) == ((2, 3), 32768.0, 2880, False)
    # The index of a section's parent serves the section too, and the tree can be moved.
    assert {entry["caltype"] for entry in load(tree / "Dark").entries} == {"dark"}
    moved = tree.rename(tree.parent / "moved")
    assert {entry["caltype"] for entry in load(moved).entries} == {"dark"}
    assert opened == []


def test_a_frame_that_changed_after_the_index_is_scanned(tree, opened):
    frames = [frame(tree / f"{n}.fits") for n in range(3)]
    write_index(tree / "fits_index.csv", frames)
    frame(tree / "1.fits", TEMP=-7.0)
    frame(tree / "new.fits", TEMP=-8.0)
    opened.clear()
    assert [entry["temperature"] for entry in load(tree).entries] == [-20.0, -7.0, -20.0, -8.0]
    assert opened == ["1.fits", "new.fits"]


@pytest.mark.parametrize("changes", [{"DATAOFF": ""}, {"NAXIS1": "x"}, {"BITPIX": 17}, {"NAXIS2": 10**6}])
def test_an_index_row_that_does_not_describe_the_image_is_not_used(tree, changes):
    frames = [frame(tree / "a.fits")]
    write_index(tree / "fits_index.csv", frames, **changes)
    assert [entry["temperature"] for entry in load(tree).entries] == [-10.0]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"A,B\n1,2\n", b'PATH,RELPATH\n"open,1\n'])
def test_a_damaged_index_is_not_used(tree, content):
    frame(tree / "a.fits")
    (tree / "fits_index.csv").write_bytes(content)
    assert [entry["temperature"] for entry in load(tree).entries] == [-10.0]


def test_badsize_and_missing_temperature_in_the_index(tree):
    write_index(tree / "fits_index.csv", [frame(tree / "a.fits")], BADSIZE="True", TEMP="NAN")
    [rejection] = load(tree).rejected
    assert "BADSIZE" in rejection["reason"]
    assert "no temperature (TEMP = NAN is not a number)" in rejection["reason"]
