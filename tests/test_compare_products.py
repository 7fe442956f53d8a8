"""python -m utils.compare_products: equal within errors passes, a change fails, another kind is refused."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.application.command import run_command
from utils.compare_products import main
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ, write_product
from utils.kernels.product_difference import compare

ROOT = Path(__file__).resolve().parents[1]
SHAPE, SIGMA = (90, 130), 0.5


def product(path, rng, change=0.0, *, sigma=SIGMA, dq=None, **cards):
    base = np.random.default_rng(0).normal(1000.0, 20.0, SHAPE)
    data = base + SIGMA * rng.standard_normal(SHAPE) + change
    given = {"ADUSCALE": 1.0, "GAIN": 100.0, "TEMP": -5.0, "CALTYPE": "BIAS"} | cards
    quality = np.zeros(SHAPE, np.int16) if dq is None else dq
    write_product(
        path,
        data,
        prodtype="MASTER_BIAS",
        unit="adu",
        cards=given,
        uncert=np.broadcast_to(sigma, SHAPE),
        dq=quality,
    )
    return path


def verdict(out):
    with open(out / "comparison.csv", newline="") as stream:
        return {row["criterion"].split(" [")[0]: row["passed"] == "True" for row in csv.DictReader(stream)}


def run(tmp_path, change=0.0, words=(), **second):
    rng = np.random.default_rng(3)
    old, new = product(tmp_path / "old.fits", rng), product(tmp_path / "new.fits", rng, change, **second)
    out = tmp_path / "out"
    return run_command(main, [str(new), str(old), "--output-dir", str(out), *words]), out


def test_equal_within_errors_passes_as_a_command(tmp_path):
    rng = np.random.default_rng(3)
    old, new = product(tmp_path / "old.fits", rng), product(tmp_path / "new.fits", rng)
    words = [str(new), str(old), "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "utils.compare_products", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"pass: {new} against {old}"
    assert all(verdict(tmp_path / "out").values())
    assert "data:image/png" in (tmp_path / "out" / "report.html").read_text()


ROWS = np.random.default_rng(1).normal(0.0, 0.5, (SHAPE[0], 1))
COLUMNS = np.random.default_rng(2).normal(0.0, 0.5, (1, SHAPE[1]))
SLOPE = np.linspace(-1.4, 1.4, SHAPE[1])[None, :] * np.linspace(-1, 1, SHAPE[0])[:, None]
SPOTS = np.where(np.random.default_rng(4).random(SHAPE) < 0.003, 20.0, 0.0)


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (1.0, {"level"}),
        (ROWS, {"pattern of rows"}),
        (COLUMNS, {"pattern of columns"}),
        (SLOPE, {"pattern of large scales"}),
        (SPOTS, {"changed pixels beyond chance"}),
    ],
    ids=["level", "rows", "columns", "large scales", "pixels"],
)
def test_each_kind_of_change_fails_its_criterion(tmp_path, change, failing):
    status, out = run(tmp_path, change)
    assert status == 1
    failed = {name for name, passed in verdict(out).items() if not passed}
    assert failing <= failed
    assert failed <= failing | {"scatter of difference / error", "pattern of large scales"}


def test_changes_below_the_limits_pass_and_limits_are_options(tmp_path):
    assert run(tmp_path / "a", 0.3)[0] == 0
    assert run(tmp_path / "b", 0.3, ("--level", "0.2"))[0] == 1
    assert run(tmp_path / "c", 1.0, ("--level", "3"))[0] == 0


def test_flags_are_compared(tmp_path):
    dq = np.zeros(SHAPE, np.int16)
    dq[:5, :10] = DQ.HOT
    status, out = run(tmp_path, dq=dq)
    assert status == 1
    rows = list(csv.DictReader((out / "dq_changes.csv").read_text().splitlines()))
    assert rows == [{"bit": "HOT", "old": "0", "new": "50", "gained": "50", "lost": "0"}]


def test_pixels_without_value_or_error_are_left_out_and_counted(tmp_path, capsys):
    """NaN and infinite errors tell nothing: not compared, and a change where only one product has them."""
    rng = np.random.default_rng(3)
    good = product(tmp_path / "good.fits", rng)
    sigma = np.full(SHAPE, SIGMA)
    for hole, few, failing in ((np.nan, 5, []), (np.nan, 500, ["DQ changed"]), (np.inf, 500, ["DQ changed"])):
        holes = sigma.copy()
        holes.flat[:few] = hole  # limit: 1e-3 of 11,700 pixels
        bare = product(tmp_path / "bare.fits", rng, 100.0 * (holes != SIGMA), sigma=holes)
        out = tmp_path / "out"
        assert run_command(main, [str(bare), str(good), "--output-dir", str(out)]) == len(failing)
        assert [criterion for criterion, passed in verdict(out).items() if not passed] == failing
    assert run_command(main, [str(bare), str(bare), "--output-dir", str(out)]) == 0
    none = product(tmp_path / "none.fits", rng, sigma=sigma * np.nan)
    capsys.readouterr()
    assert run_command(main, [str(none), str(good), "--output-dir", str(tmp_path / "out")]) == 2
    assert "none.fits: no pixel that it and" in capsys.readouterr().err
    values = product(tmp_path / "values.fits", rng, np.where(np.arange(SHAPE[1]) < 4, np.nan, 0.0))
    assert run_command(main, [str(values), str(good), "--output-dir", str(tmp_path / "out")]) == 1
    assert read_product(values).dq[0, 0] == DQ.NO_DATA


def test_another_temperature_is_no_comparison(tmp_path):
    status, out = run(tmp_path, TEMP=10.0)
    assert status == 1
    assert [name for name, passed in verdict(out).items() if not passed] == ["validity"]
    assert run(tmp_path / "near", TTOL=0.5, TEMP=-5.4)[0] == 0


@pytest.mark.parametrize(
    ("cards", "message"),
    [({"GAIN": 200.0}, "GAIN 200.0, expected 100.0"), ({"ADUSCALE": 16.0}, "ADUSCALE 16.0")],
)
def test_other_cameras_are_refused(tmp_path, capsys, cards, message):
    assert run(tmp_path, **cards)[0] == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_no_product_is_refused(tmp_path, capsys):
    good = product(tmp_path / "a.fits", np.random.default_rng(1))
    (tmp_path / "b.fits").write_bytes(b"nothing")
    for words in ([good, tmp_path / "b.fits"], [good, tmp_path / "none.fits"]):
        assert run_command(main, [*map(str, words), "--output-dir", str(tmp_path / "out")]) == 2
    all_bad = product(tmp_path / "c.fits", np.random.default_rng(1), dq=np.full(SHAPE, 512, np.int16))
    assert run_command(main, [str(all_bad), str(good), "--output-dir", str(tmp_path / "out")]) == 2
    assert "no pixel that it and" in capsys.readouterr().err


def test_kernel_tells_scatter_and_chance():
    rng = np.random.default_rng(9)
    shape = (300, 400)
    new, old = (rng.normal(0.0, 1.0, shape).astype(np.float32) for _ in range(2))
    one = np.ones(shape, np.float32)
    found = compare(new, old, one, one, np.ones(shape, bool), k=3.0)
    assert found.scatter == pytest.approx(1.0, abs=5 * 1.17 / np.sqrt(2 * new.size) * 1.4)
    assert abs(found.level) < 4 * found.level_error
    assert abs(found.changed - found.expected) < 4 * np.sqrt(found.expected)
    for rms, error in (found.rows, found.columns, found.blocks):
        assert abs(rms) < 2.2 * error  # squares: 4.8 sigma
    half = compare(new, old, 2 * one, 2 * one, np.ones(shape, bool))
    assert half.scatter == pytest.approx(0.5 * found.scatter, rel=1e-4)


def test_maps_without_errors_are_judged_by_their_own_scatter():
    rng = np.random.default_rng(9)
    new = rng.normal(0.0, 1.0, (100, 100)).astype(np.float32)
    found = compare(new, np.zeros_like(new), None, None, np.ones(new.shape, bool))
    assert found.assumed
    assert found.scatter == pytest.approx(1.0, abs=0.01)
    same = compare(new, new, None, None, np.ones(new.shape, bool))
    assert (same.changed, same.level, same.scatter) == (0, 0.0, 0.0)
