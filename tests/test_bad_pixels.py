"""python -m utils.bad_pixels: bits of all products merged, reasons counted, changes listed."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.application.command import run_command
from utils.bad_pixels import main
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ, write_product

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (30, 40)


def folder(path, products):
    """An output folder whose run.json lists products {name: (prodtype, {(row, column): bits})}."""
    listed = {}
    for name, (prodtype, pixels) in products.items():
        dq = np.zeros(SHAPE, np.int16)
        for (row, column), bits in pixels.items():
            dq[row, column] = bits
        write_product(
            path / name, np.ones(SHAPE), prodtype=prodtype, unit="adu", dq=dq, cards={"INSTRUME": "Kamera"}
        )
        listed[name] = {"prodtype": prodtype, "pipeline": "x", "step": "x"}
    (path / "run.json").write_text(json.dumps({"format": 1, "products": listed, "runs": []}))
    return path


@pytest.fixture
def folders(tmp_path):
    bias = {"bias_a_map.fits": ("BIAS_A", {(2, 3): DQ.NOISY, (9, 9): DQ.UNRELIABLE_FIT})}
    dark = {
        "A_map_2D.fits": ("DARK_A_2D", {(2, 3): DQ.HOT, (5, 6): DQ.TELEGRAPH, (7, 7): DQ.WARM}),
        # What the 2-D model tells better is not taken: a saturated long dark says nothing of a pixel.
        "A_map.fits": ("DARK_A", {(20, 20): DQ.HOT}),
        "map.fits": ("DARK_CURRENT", {(21, 21): DQ.SATURATED}),
    }
    flat = {"master_flat.fits": ("MASTER_FLAT", {(0, 0): DQ.DEAD, (29, 39): DQ.LOW_QE})}
    made = [
        folder(tmp_path / name, content) for name, content in (("bias", bias), ("dark", dark), ("flat", flat))
    ]
    return [str(path) for path in made]


def table(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_command_merges_counts_and_marks(tmp_path, folders):
    output = tmp_path / "bad.fits"
    words = [*folders, "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "utils.bad_pixels", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{output}: 4 bad pixels (0.333 %) from 3 products" in done.stdout
    product = read_product(output, expect="BAD_PIXELS")
    assert sorted(zip(*np.nonzero(product.data), strict=True)) == [(0, 0), (2, 3), (5, 6), (29, 39)]
    assert product.dq[2, 3] == DQ.NOISY | DQ.HOT
    assert product.dq[7, 7] == DQ.WARM
    assert len(product.inputs) == 3
    assert {(row["x"], row["y"]): row["reasons"] for row in table(tmp_path / "bad.csv")} == {
        ("1", "1"): "DEAD",
        ("4", "3"): "HOT;NOISY",
        ("7", "6"): "TELEGRAPH",
        ("40", "30"): "LOW_QE",
    }
    merged = {
        row["bit"]: row["pixels"] for row in table(tmp_path / "bad_counts.csv") if row["kind"] == "merged"
    }
    assert merged == dict.fromkeys(
        ("DEAD", "HOT", "LOW_QE", "NOISY", "TELEGRAPH", "WARM", "UNRELIABLE_FIT"), "1"
    )
    regions = (tmp_path / "bad.reg").read_text().splitlines()
    assert regions[2] == "image"
    assert [line.split(" #")[0] for line in regions[3:]] == [
        "point(1,1)",
        "point(4,3)",
        "point(7,6)",
        "point(40,30)",
    ]
    assert "color=red" in regions[4]
    page = (tmp_path / "bad.html").read_text()
    assert "By product" in page
    assert "data:image/png" in page


def test_astropy_opens_the_map_as_it_is(tmp_path, folders):
    from astropy.io import fits

    assert run_command(main, [*folders, "--output", str(tmp_path / "bad.fits")]) == 0
    with fits.open(tmp_path / "bad.fits", checksum=True) as hdus:
        assert hdus[0].data.dtype == np.uint8
        assert hdus[0].header["NBAD"] == hdus[0].data.sum() == 4


def test_changes_against_an_earlier_map(tmp_path, folders, capsys):
    old, new = tmp_path / "old.fits", tmp_path / "new.fits"
    assert run_command(main, [*folders[1:], "--output", str(old)]) == 0
    words = [folders[0], folders[2], "--output", str(new), "--earlier", str(old)]
    assert run_command(main, words) == 0
    assert "1 new" not in capsys.readouterr().out.splitlines()[0]
    assert [
        (row["change"], row["x"], row["y"], row["reasons"]) for row in table(tmp_path / "new_changes.csv")
    ] == [("gone", "7", "6", "TELEGRAPH")]
    # Without --earlier the list of the former map of this name goes away.
    assert run_command(main, [*folders, "--output", str(new)]) == 0
    assert not (tmp_path / "new_changes.csv").exists()


def test_bits_are_chosen_by_name(tmp_path, folders, capsys):
    output = tmp_path / "bad.fits"
    assert run_command(main, [*folders, "--output", str(output), "--bits", "WARM", "DEAD"]) == 0
    assert read_product(output).data.sum() == 2
    assert run_command(main, [*folders, "--output", str(output), "--bits", "WARN"]) == 2
    assert "--bits: got WARN, expected among DO_NOT_USE" in capsys.readouterr().err


def test_one_product_may_be_named(tmp_path, folders):
    path = f"{folders[1]}/map.fits"
    assert run_command(main, [path, "--output", str(tmp_path / "bad.fits"), "--bits", "SATURATED"]) == 0
    assert read_product(tmp_path / "bad.fits").data.sum() == 1


def test_refusals(tmp_path, folders, capsys):
    other = tmp_path / "other.fits"
    write_product(other, np.ones((3, 3)), prodtype="MASTER_FLAT", unit="", dq=np.zeros((3, 3), np.int16))
    plain = tmp_path / "plain.fits"
    write_product(plain, np.ones(SHAPE), prodtype="EVALUATION_MAE", unit="")
    flags = np.zeros(SHAPE, np.int16)
    camera, small, foreign = (tmp_path / f"{name}.fits" for name in ("camera", "small", "foreign"))
    write_product(camera, flags + 1.0, prodtype="BIAS_A", unit="adu", dq=flags, cards={"INSTRUME": "Other"})
    write_product(small, np.ones((3, 3), np.uint8), prodtype="BAD_PIXELS", unit="")
    write_product(
        foreign, flags.astype(np.uint8), prodtype="BAD_PIXELS", unit="", cards={"INSTRUME": "Other"}
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.csv").write_text("x\n")
    output = str(tmp_path / "bad.fits")
    for words, message in (
        ([folders[0], str(other), "--output", output], "shape (3, 3), expected (30, 40) as in"),
        ([folders[0], str(camera), "--output", output], "INSTRUME Other, expected Kamera as in"),
        ([str(plain), "--output", output], "expected a product with a DQ plane"),
        ([str(tmp_path / "none"), "--output", output], "No such file"),
        ([str(tmp_path / "empty"), "--output", output], "got no such file, expected products"),
        ([*folders, "--output", str(tmp_path / "bad.txt")], "expected a name that ends in .fits"),
        ([*folders, "--output", str(tmp_path / "mine.fits")], "mine.csv: stands there"),
        ([*folders, "--output", output, "--earlier", str(other)], "expected BAD_PIXELS"),
        ([*folders, "--output", output, "--earlier", str(small)], "shape (3, 3), expected (30, 40) as in"),
        ([*folders, "--output", output, "--earlier", str(foreign)], "INSTRUME Other, expected Kamera as in"),
    ):
        assert run_command(main, words) == 2, message
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not Path(output).exists()
