"""ObservationManager on the real frames of five cameras."""

from collections import Counter
from pathlib import Path

import pytest

from tests.small_frames import load
from utils.errors import InputError
from utils.observation_manager import one_value

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "realdata"


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
