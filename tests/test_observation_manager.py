"""ObservationManager on real trees and on small ones with every trouble a folder of frames can have."""

import csv
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from utils.errors import InputError, OptionError
from utils.fits_io.scan_cache import ScanCache, user_cache_folder
from utils.observation_manager import COLUMNS, ObservationManager, one_value

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "realdata"


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    """No test touches the cache of the user who runs it."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "campaign"
    folder.mkdir()
    return folder


def frame(path, shape=(2, 3), **cards):
    """A FITS file of zeros, bias at -10 degC unless cards say otherwise; a card None is left out."""
    given = {"IMAGETYP": "Bias Frame", "TEMP": -10.0, "EXPTIME": 0.0, "FILTER": "R"}
    given |= {key.replace("_", "-") if key == "CCD_TEMP" else key: value for key, value in cards.items()}
    lines = [
        "SIMPLE  =                    T",
        "BITPIX  =                   16",
        "NAXIS   =                    2",
    ]
    lines += [f"NAXIS1  = {shape[1]:20d}", f"NAXIS2  = {shape[0]:20d}"]
    for key, value in given.items():
        if isinstance(value, bool):
            value = "T" if value else "F"
        elif isinstance(value, str):
            value = f"'{value}'"
        elif isinstance(value, complex):
            value = f"({value.real}, {value.imag})"
        if value is not None:
            lines.append(f"{key:8s}= {value}")
    text = "".join(line.ljust(80) for line in [*lines, "END"])
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytes(-(-shape[0] * shape[1] * 2 // 2880) * 2880)
    path.write_bytes(text.ljust(-(-len(text) // 2880) * 2880).encode() + data)
    return path


def load(base, **options):
    return ObservationManager(base, **options).load_and_organize()


def names(entries):
    return [entry["original_name"] for entry in entries]


def kinds(manager):
    return {entry["identifier"]: entry["caltype"] for entry in manager.entries}


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


# --- real trees ----------------------------------------------------------------------------------


def real(name):
    if not (REAL / name).is_dir():
        pytest.skip("real frames are not here")
    return load(REAL / name)


def counts(entries, *keys):
    return Counter(tuple(entry[key] for key in keys) for entry in entries)


def test_atik_one_by_one_bias_beside_two_by_two_darks():
    manager = real("atik_ast326")
    assert counts(manager.entries, "subcat", "binning", "full_shape") == {
        ("bias", "1x1", (1039, 1391)): 3,
        ("darks", "2x2", (519, 695)): 12,
        ("flats", "2x2", (519, 695)): 3,  # 'Light Frame' in a file called flat
    }
    assert counts(manager.filter_files(subcat="darks"), "exposure") == {
        (1.0,): 3,
        (8.0,): 3,
        (10.0,): 3,
        (300.0,): 3,
    }
    assert {entry["temperature"] for entry in manager.entries} == {-10.03, -9.78, -9.700000000000001}
    assert manager.rejected == []
    with pytest.raises(
        InputError, match=r"binning differs.*1x1 in .*Bias-0001.fit, 2x2 in .*Dark-0001_10s.fit"
    ):
        one_value(manager.entries, "binning")


def test_orion_kind_from_imagtyp_and_dates_with_a_blank():
    manager = real("orion_g3_astroluminance")
    assert counts(manager.entries, "subcat", "exposure") == {
        ("bias", 0.001): 30,
        ("darks", 20.0): 30,
        ("flats", 0.03): 30,
    }
    assert {entry["kind_source"] for entry in manager.entries} == {"IMAGTYP"}
    bias = manager.filter_files(subcat="bias")
    assert min(entry["temperature"] for entry in bias) == pytest.approx(2.29, abs=0.01)
    assert max(entry["temperature"] for entry in bias) == pytest.approx(11.38, abs=0.01)
    assert max(e["timestamp"] for e in bias) - min(e["timestamp"] for e in bias) == pytest.approx(70, abs=5)
    flats = manager.filter_files(subcat="flats", temp_min=24.7, temp_max=25.0)
    assert len(flats) == 30
    assert manager.rejected == []


def test_st7_kind_from_the_file_name_and_everything_else_under_other_keywords():
    manager = real("st7_astr480_uw")
    assert counts(manager.entries, "subcat", "kind_source") == {
        ("bias", "file name"): 8,
        ("flats", "file name"): 47,
    }
    assert {round(entry["temperature"], 2) for entry in manager.entries} == {-4.82, -5.23}
    assert {entry["exposure"] for entry in manager.filter_files(subcat="bias")} == {0.0}
    assert len(manager.filter_files(subcat="flats", exp_min=29.5, exp_max=29.5)) == 3
    assert {(entry["egain"], entry["gain"]) for entry in manager.entries} == {(0.46, None)}
    first = manager.filter_files(subcat="bias")[0]
    assert first["original_name"] == "bias1.FIT"
    assert first["timestamp"] == 1556751912.0  # 2019-05-01 in DATE-OBS, 23:05:12 in TIME-OBS
    assert manager.rejected == []


def test_stl1001_four_nights_in_upper_case_files():
    manager = real("stl1001_ast443")
    assert counts(manager.entries, "caltype") == {("bias",): 36, ("dark",): 66, ("flat",): 10, ("light",): 10}
    near = {-15: 1, -10: 12, -5: 12, 0: 10, 10: 1}
    for temperature, number in near.items():
        limits = {"temp_min": temperature - 0.6, "temp_max": temperature + 0.6}
        assert len(manager.filter_files("CALIBRATION", subcat="bias", **limits)) == number
    assert {entry["egain"] for entry in manager.entries} == {2.06}
    assert {entry["filter"] for entry in manager.entries} == {"Visible", "Blue", "Red"}
    # 'Light Frame', and 'final' is not 'flat': nothing says that these are flats.
    lights = manager.get_file_list("FIELDS", field_name="2024_brady-ryan", mode="vis")
    assert len(lights) == 10
    assert {entry["original_name"].split(".")[0] for entry in lights} == {"lab1_3_3_final"}
    assert {entry["exposure"] for entry in manager.filter_files(subcat="flats")} == {23.0}
    assert manager.rejected == []


# --- kinds ---------------------------------------------------------------------------------------


def test_folders_above_the_base_folder_do_not_tell_the_kind(tmp_path):
    base = tmp_path / "flat_campaign" / "flats" / "night1"
    frame(base / "a.fits", IMAGETYP="Light Frame", EXPTIME=5.0)
    frame(base / "b.fits", IMAGETYP=None, EXPTIME=5.0)
    assert kinds(load(base)) == {"a.fits": "light", "b.fits": "light"}
    campaign = tmp_path / "flat_campaign"
    shutil.move(base, campaign / "night1")
    (campaign / "flats").rmdir()
    assert set(kinds(load(campaign)).values()) == {"light"}


def test_a_base_folder_called_after_a_kind_tells_it(tmp_path):
    frame(tmp_path / "Flats" / "a.fits", IMAGETYP="Light Frame", EXPTIME=5.0)
    frame(tmp_path / "Flats" / "dark_1.fits", IMAGETYP=None, EXPTIME=5.0)
    assert kinds(load(tmp_path / "Flats")) == {"a.fits": "flat", "dark_1.fits": "dark"}


def test_only_a_frame_without_a_kind_is_judged_by_its_exposure(tree):
    frame(tree / "zero.fits", IMAGETYP=None, EXPTIME=0.0)
    frame(tree / "short.fits", IMAGETYP=None, EXPTIME=1e-4)
    frame(tree / "unknown.fits", IMAGETYP=None, EXPTIME=None)
    frame(tree / "dark.fits", IMAGETYP="Dark Frame", EXPTIME=0.0)
    frame(tree / "bias.fits", IMAGETYP="Bias Frame", EXPTIME=0.001)
    manager = load(tree)
    assert kinds(manager) == {
        "zero.fits": "bias",
        "short.fits": "light",
        "dark.fits": "dark",
        "bias.fits": "bias",
    }
    [rejection] = manager.rejected
    assert rejection == {
        "path": str(tree / "unknown.fits"),
        "reason": "no exposure; no kind in header, file name or folder",
    }


def test_a_bias_frame_needs_no_exposure(tree):
    frame(tree / "a.fits", EXPTIME=None)
    [entry] = load(tree).entries
    assert entry["exposure"] == entry["exposure_time"] == 0.0


def test_entry_holds_what_the_contract_names(tree):
    path = frame(
        tree / "M31" / "a.fits",
        shape=(4, 5),
        **{
            "IMAGETYP": "Light Frame",
            "TEMP": None,
            "CCD_TEMP": -5.5,
            "EXPTIME": 2.0,
            "GAIN": 100,
            "EGAIN": 0.8,
        },
        **{
            "DATE-OBS": "2023-11-14T22:13:20",
            "XBINNING": 2,
            "INSTRUME": "X",
            "FRAMENUM": 3,
            "SATURATE": 4095,
        },
    )
    manager = load(tree)
    [entry] = manager.entries
    expected = {
        **{
            "original_path": str(path),
            "original_name": "a.fits",
            "identifier": "M31/a.fits",
            "category": "FIELDS",
        },
        **{"field_name": "M31", "subcat": None, "mode": "vis", "caltype": "light", "temperature": -5.5},
        **{"exposure": 2.0, "exposure_time": 2.0, "filter": "R", "gain": 100.0, "egain": 0.8},
        **{
            "timestamp": 1.7e9,
            "time_source": "DATE-OBS",
            "binning": "2x2",
            "shape": (4, 5),
            "full_shape": None,
        },
        **{"camera": "X", "saturate": 4095.0, "bit_depth": None, "badsize": False, "frame_number": 3},
        **{"datasum": None, "kind_source": "IMAGETYP"},
    }
    assert entry == expected
    image = manager.images[str(path)]
    assert (image.shape, image.offset) == ((4, 5), 2880)


# --- what is no frame, and what cannot be used -----------------------------------------------------


def test_each_rejected_frame_has_its_reason(tree):
    frame(tree / "good.fits")
    frame(tree / "badsize.fits", BADSIZE=True)
    frame(tree / "no_temperature.fits", TEMP=None, SETTEMP=-10.0)
    frame(tree / "nan.fits", TEMP="NAN")
    frame(tree / "sentinel.fits", TEMP=-273.15)
    frame(tree / "no_exposure.fits", IMAGETYP="Dark Frame", EXPTIME=None)
    frame(tree / "inf_exposure.fits", IMAGETYP="Dark Frame", EXPTIME="INF")
    frame(tree / "master.fits", IMAGETYP="Master Bias")
    frame(tree / "twice.fits", NAXIS=3)
    (tree / "empty.fits").write_bytes(b"")
    (tree / "text.FIT").write_text("hello")
    whole = frame(tree / "cut.fits", shape=(100, 100)).read_bytes()
    (tree / "cut.fits").write_bytes(whole[:5000])
    (tree / "broken_link.fits").symlink_to(tree / "nowhere.fits")
    os.mkfifo(tree / "pipe.fits")
    manager = load(tree)
    reasons = {os.path.relpath(row["path"], tree): row["reason"] for row in manager.rejected}
    expected = {
        "badsize.fits": "BADSIZE",
        "broken_link.fits": "cannot be read (No such file",
        "cut.fits": "truncated, 2120 bytes of data, expected 20000",
        "empty.fits": "empty file",
        "inf_exposure.fits": "no exposure (EXPTIME = INF is not a number)",
        "master.fits": "IMAGETYP calls it a master of other software",
        "nan.fits": "no temperature (TEMP = NAN is not a number)",
        "no_exposure.fits": "no exposure",
        "no_temperature.fits": "no temperature",
        "pipe.fits": "not a regular file",
        "sentinel.fits": "no temperature (TEMP = -273.15 is a mark for no temperature)",
        "text.FIT": "not a FITS file",
    }
    # Of two NAXIS cards the first counts.
    assert names(manager.entries) == ["good.fits", "twice.fits"]
    assert reasons.keys() == expected.keys()
    for name, start in expected.items():
        assert reasons[name].startswith(start)
    again = load(tree)
    assert again.rejected == manager.rejected


def test_products_are_counted_and_never_taken_for_frames(tree):
    frame(tree / "bias_1.fits")
    frame(tree / "out" / "master_bias.fits", PRODTYPE="MASTER_BIAS", BADSIZE=True)
    text = frame(tree / "out" / "cov.fits", PRODTYPE="BIAS_COV").read_bytes()
    text = text.replace(b"NAXIS   =                    2", b"NAXIS   =                    3")
    text = text.replace(b"FILTER  = 'R'", b"NAXIS3  = 3  ")
    (tree / "out" / "cov.fits").write_bytes(text)
    for _ in range(2):  # scanned, and from the cache
        manager = load(tree)
        assert names(manager.entries) == ["bias_1.fits"]
        assert (manager.skipped_products, manager.rejected) == (2, [])


def test_excluded_and_hidden_folders_and_temporary_files(tree):
    frame(tree / "a.fits")
    for name in (
        "out/b.fits",
        ".hidden/c.fits",
        ".d.fits.123.tmp",
        "._e.fits",
        "~f.fits",
        "g.fits.part",
        "h.png",
    ):
        frame(tree / name)
    assert names(load(tree, exclude=[tree / "out"]).entries) == ["a.fits"]
    assert names(load(tree).entries) == ["a.fits", "b.fits"]
    # A link into an excluded folder is as good as the folder.
    (tree / "link.fits").symlink_to(frame(tree / "out" / "c.fits"))
    assert names(load(tree, exclude=[tree / "out"]).entries) == ["a.fits"]
    (tree / "out" / "c.fits").unlink()
    (tree / "link.fits").unlink()
    # A folder that holds the frames themselves is no output folder below them.
    assert names(load(tree, exclude=[tree, tree.parent]).entries) == ["a.fits", "b.fits"]
    (tree / "link.fits").symlink_to(frame(tree.parent / "beside.fits"))
    assert names(load(tree, exclude=[tree.parent]).entries) == ["a.fits", "link.fits", "b.fits"]


def test_all_extensions_in_any_case(tree):
    for name in ("a.fits", "b.FIT", "c.fts", "d.Fits"):
        frame(tree / name)
    manager = load(tree)
    assert names(manager.entries) == ["a.fits", "b.FIT", "c.fts", "d.Fits"]
    assert names(manager.filter_files(ext_filter=".fit")) == ["b.FIT"]
    assert names(manager.filter_files(ext_filter=["FITS", ".fts"])) == ["a.fits", "c.fts", "d.Fits"]


def test_links_in_a_circle_and_a_file_reached_twice(tree):
    real_file = frame(tree / "z" / "a.fits")
    (tree / "z" / "circle").symlink_to(tree, target_is_directory=True)
    (tree / "alias").symlink_to(tree / "z", target_is_directory=True)
    (tree / "a_link.fits").symlink_to(real_file)
    os.link(real_file, tree / "z" / "hard.fits")
    outside = frame(tree.parent / "elsewhere" / "b.fits")
    (tree / "linked").symlink_to(outside.parent, target_is_directory=True)
    assert [entry["identifier"] for entry in load(tree).entries] == ["linked/b.fits", "z/a.fits"]


@pytest.mark.parametrize(("name", "message"), [("missing", "no such folder"), ("file", "not a folder")])
def test_a_base_that_is_no_folder(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"{name}: {message}"):
        load(tmp_path / name)


def test_a_folder_without_frames(tree):
    manager = load(tree)
    assert (manager.entries, manager.rejected, manager.filter_files()) == ([], [], [])
    assert list(manager.table.columns) == list(COLUMNS)


# --- cache and index -------------------------------------------------------------------------------


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


# --- questions -----------------------------------------------------------------------------------


@pytest.fixture
def varied(tree):
    for temperature in (-20.0, -10.0, 0.0):
        frame(tree / "Bias" / f"b{temperature:g}.fits", TEMP=temperature, GAIN=100)
        for exposure in (1.0, 10.0):
            cards = {"TEMP": temperature, "EXPTIME": exposure, "GAIN": 100, "INSTRUME": "Two Words"}
            frame(tree / "Dark" / f"d{temperature:g}_{exposure:g}.fits", IMAGETYP="DARK", **cards)
    frame(
        tree / "Flat" / "f.fits",
        IMAGETYP="FLAT",
        EXPTIME=2.0,
        FILTER="Blue",
        GAIN=200,
        XBINNING=2,
        shape=(3, 2),
    )
    frame(tree / "M31" / "uv" / "m.fits", IMAGETYP="LIGHT", EXPTIME=2.0, GAIN=100)
    frame(tree / "M33" / "m.fits", IMAGETYP="LIGHT", EXPTIME=2.0, GAIN=100)
    return tree


def test_filters_combine_and_limits_belong_to_the_range(varied):
    manager = load(varied)
    assert len(manager.filter_files()) == len(manager.entries) == 12
    assert len(manager.filter_files(category="CALIBRATION")) == 10
    assert len(manager.filter_files("calibration", subcat="Dark")) == 6
    assert names(manager.filter_files(subcat="darks", temp_min=-10, temp_max=-10)) == [
        "d-10_1.fits",
        "d-10_10.fits",
    ]
    assert names(manager.filter_files(subcat="darks", temp_max=-10.0, exp_min=10)) == [
        "d-10_10.fits",
        "d-20_10.fits",
    ]
    assert names(manager.filter_files(subcat="darks", exp_max=1.0, temp_min=-5)) == ["d0_1.fits"]
    assert names(manager.filter_files(category="FIELDS", field_name="M31")) == ["m.fits"]
    assert [e["field_name"] for e in manager.filter_files(mode="uv")] == ["M31"]
    assert [e["field_name"] for e in manager.get_file_list("FIELDS", mode="vis")] == ["M33"]
    assert names(manager.get_file_list("CALIBRATION", None, None, "flats")) == ["f.fits"]
    assert manager.filter_files(category="FIELDS", subcat="bias") == []
    assert manager.filter_files(subcat="bias", field_name="Bias") == []


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"category": "CALIB"}, "category 'CALIB', expected one of CALIBRATION, FIELDS"),
        ({"subcat": "lights"}, "subcat 'lights', expected one of bias, darks, flats"),
        ({"mode": "ir"}, "mode 'ir', expected one of vis, uv"),
    ],
)
def test_questions_that_cannot_be_answered(varied, question, message):
    with pytest.raises(OptionError, match=message):
        load(varied).filter_files(**question)


def test_questions_before_the_tree_was_looked_at(tree):
    with pytest.raises(RuntimeError, match="load_and_organize"):
        ObservationManager(tree).filter_files()


def test_table_is_the_entries(varied):
    manager = load(varied)
    table = manager.table
    assert list(table.columns) == list(COLUMNS)
    assert table["identifier"].tolist() == [entry["identifier"] for entry in manager.entries]
    assert table["identifier"].is_unique
    assert table.loc[table["subcat"] == "darks", "exposure"].sum() == 33.0
    assert table["egain"].isna().all()


@pytest.mark.parametrize(
    ("select", "number"),
    [
        (["gain=100"], 11),
        (["GAIN=200.0"], 1),
        (["gain=100", "gain=200"], 12),
        (["gain=100", "filter=r", "camera=two words"], 6),
        (["binning=2x2"], 1),
        (["binning=2"], 1),
        (["shape=2x3"], 11),
        (["shape=3x2"], 1),
    ],
)
def test_select(varied, select, number):
    manager = load(varied, select=select)
    assert len(manager.entries) == number == len(manager.images)
    assert manager.deselected == 12 - number
    assert manager.rejected == []


@pytest.mark.parametrize("select", ["temperature=5", "gain", "gain=", "=5", ""])
def test_select_must_be_key_and_value(tree, select):
    with pytest.raises(
        OptionError, match="expected KEY=VALUE with KEY one of gain, binning, filter, camera, shape"
    ):
        ObservationManager(tree, select=[select])


def test_select_that_fits_nothing_names_what_there_is(varied):
    with pytest.raises(InputError, match="no frame with gain=300, there is 100, 200"):
        load(varied, select=["gain=300"])
    with pytest.raises(InputError, match="no frame with shape=9x9, there is 2x3, 3x2"):
        load(varied, select=["shape=9x9"])


def test_one_value(varied):
    manager = load(varied)
    assert one_value(manager.filter_files(subcat="darks"), "gain") == 100.0
    message = (
        r"gain differs, expected one value: 100 in .*\.fits, 200 in .*f.fits; choose with --select gain=100"
    )
    with pytest.raises(InputError, match=message):
        one_value(manager.entries, "gain")
    with pytest.raises(InputError, match=r"shape differs.*2x3 in .*, 3x2 in .*f.fits"):
        one_value(manager.entries, "shape")
    with pytest.raises(InputError, match="no frames"):
        one_value([], "gain")


# --- what is said ----------------------------------------------------------------------------------


def test_things_are_said_once_with_a_count(tree, caplog):
    for number in range(4):
        frame(tree / f"{number}.fits", FILTER=None)
    frame(tree / "product.fits", PRODTYPE="MASTER_BIAS")
    (tree / "bad.fits").write_bytes(b"")
    with caplog.at_level("INFO", logger="calibration"):
        load(tree)
    text = "\n".join(caplog.messages)
    assert text.count("FILTER") == 1
    assert "frames without FILTER, taken as NONE: 4" in text
    assert "products (PRODTYPE), which are no frames, left out: 1" in text
    assert "frames: 4 bias of 6 FITS files (6 opened)" in text
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("frames that cannot be used: 1, the first: ")
    assert warning.endswith("bad.fits: empty file, expected FITS")


def test_importing_the_manager_is_light():
    code = (
        "import sys, utils.observation_manager\n"
        "print({'pandas', 'astropy', 'matplotlib', 'scipy', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
