"""ObservationManager on small trees with every trouble that a folder of frames can have."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_frames import frame, load, names
from utils.errors import InputError, OptionError
from utils.observation_manager import COLUMNS, ObservationManager, one_value

ROOT = Path(__file__).resolve().parents[1]


def kinds(manager):
    return {entry["identifier"]: entry["caltype"] for entry in manager.entries}


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
