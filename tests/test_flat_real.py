"""The flat pipeline on frames of real cameras (skipped where they are absent)."""

import os

import flat_frames
import numpy as np
import pytest
from bias_frames import REAL, record, rows

from utils.fits_io.product_reader import read_product

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="no real frames")


def linked(folder, paths, below="Flats"):
    """Links to frames in a folder whose name tells their kind."""
    (folder / below).mkdir(parents=True, exist_ok=True)
    for path in paths:
        os.symlink(path, folder / below / path.name)
    return folder


def master(out):
    (path,) = (out / "master_flat").glob("*.fits")
    return read_product(path)


def warnings(out):
    return " ".join(record(out)["runs"][-1]["warnings"])


def values(out):
    return {row["name"]: row["value"] for row in rows(out / "summary.csv")}


def halves_agree(folder, flats, rest, tmp_path):
    """Difference of the masters of every second frame, in units of their errors: its robust width."""
    found = []
    for half in (0, 1):
        tree = linked(tmp_path / f"half{half}", flats[half::2])
        linked(tree, rest, "others")
        out = tmp_path / f"out{half}"
        assert flat_frames.run("--basepath", tree, "--output-dir", out, "--mode", "full_no_vignetting") == 0
        found.append(master(out))
    one, two = found
    good = (one.dq == 0) & (two.dq == 0)
    pull = ((one.data - two.data) / np.hypot(one.uncert, two.uncert))[good]
    return 1.4826 * np.median(np.abs(pull - np.median(pull)))


STL = REAL / "stl1001_ast443"
SETS = {
    "2017": (STL / "2017_CelestialGoonSquad", "flat-*.FIT", "master dark"),
    "2024": (STL / "2024_brady-ryan", "lab1_3_3_final*.FIT", "master dark"),
}


@pytest.mark.parametrize("year", sorted(SETS))
def test_stl1001(tmp_path, year):
    folder, pattern, dark = SETS[year]
    flats = sorted(folder.glob(pattern))
    rest = sorted(set(folder.iterdir()) - set(flats))
    tree = linked(tmp_path / "in", flats)
    linked(tree, rest, "others")
    assert flat_frames.run("--basepath", tree, "--output-dir", tmp_path / "out") == 0
    product = master(tmp_path / "out")
    assert product.header["NCOMBINE"] == 10
    assert product.header["DARKFROM"] == dark
    # EGAIN 2.06 in the headers; pairs of these flats give 1.91 to 1.94.
    assert 1.8 < float(values(tmp_path / "out")["gain from the scatter of the flats"]) < 2.1
    assert 0.2 < product.header["PRNU"] < 1.0
    expected = np.sqrt(19_500 / 1.95) / 19_500 / np.sqrt(10)
    assert np.median(product.uncert) == pytest.approx(expected, rel=0.1)
    assert 0.95 < halves_agree(folder, flats, rest, tmp_path) < 1.05


def test_orion_says_the_extrapolation_and_screens_the_jump(tmp_path):
    out = tmp_path / "out"
    assert flat_frames.run("--basepath", REAL / "orion_g3_astroluminance", "--output-dir", out) == 0
    (left,) = rows(out / "rejected_frames.csv")
    assert left["path"].endswith("9_17_21_17F.fit")
    assert left["reason"].startswith("LEVEL_JUMP")
    text = warnings(out)
    assert "bias alone subtracted: the darks nearest in temperature are at 3.8 degC, 21.1 degC away" in text
    assert "flats lie up to 13.5 degC outside the temperatures of the bias (2.7 to 11.4 degC)" in text
    product = master(out)
    assert product.header["DARKEXTR"]
    assert product.header["NCOMBINE"] == 29


def test_st7_plateau_is_found_and_left_out(tmp_path):
    out = tmp_path / "out"
    assert flat_frames.run("--basepath", REAL / "st7_astr480_uw", "--output-dir", out) == 0
    left = {row["path"].rsplit("/", 1)[1]: row["reason"] for row in rows(out / "rejected_frames.csv")}
    full = {name for name, reason in left.items() if reason.startswith("SATURATED")}
    # From 108 s and 75 s on all pixels stand at 35,000 to 49,000 ADU.
    plateau = {f"flat{t}.FIT" for t in (108, 117, 126, 135, 144, 153, 180)}
    plateau |= {f"Pencil{t}.FLAT.FIT" for t in (75, 85, 90, 95, 105)}
    assert plateau <= full
    assert {"flat0.14.FIT", "Pencil0.16.FLAT.FIT"} <= set(left) - full
    kept = {"flat45.FIT", "flat63.FIT", "Pencil25.FLAT.FIT", "slitview.00000357.FLAT.FIT"}
    assert not kept & set(left)
    assert "one flat" in warnings(out)


def test_other_binning_of_the_bias_is_refused(tmp_path, capsys):
    words = ("--basepath", REAL / "atik_ast326", "--output-dir", tmp_path / "out")
    assert flat_frames.run(*words) == 2
    text = capsys.readouterr().err
    assert "1x1" in text
    assert "2x2" in text


def test_orion_halves_agree_though_its_fields_vary(tmp_path):
    folder = REAL / "orion_g3_astroluminance"
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    flats = [path for path in every if path.parent.name == "Flats" and "17F" not in path.name]
    rest = [path for path in every if path.parent.name != "Flats"]
    assert 0.95 < halves_agree(folder, flats, rest, tmp_path) < 1.05
    text = warnings(tmp_path / "out0")
    assert "the ratio of even to odd rows scatters by up to 1." in text
    # The stripes would be taken for noise: 0.12 e-/ADU.
    assert float(values(tmp_path / "out0")["gain from the scatter of the flats"]) > 0.45
