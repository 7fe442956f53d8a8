"""Faulty and scarce frames: each is left out with its reason or used for what it is worth, and said."""

import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tests.bias_frames import SHAPE, START, only_line, rows, run, take, write_frame
from utils.fits_io.product_reader import read_product
from utils.fits_io.products import DQ
from utils.kernels.sensor import Sensor, SensorSpec


@pytest.fixture
def sensor():
    return Sensor(SensorSpec.preset("12left", shape=SHAPE, seed=3, row_noise=0.0))


@pytest.fixture
def night(tmp_path, sensor):
    """A folder with six good frames at 0 and six at 10 degC."""
    take(tmp_path / "night", sensor, [0.0, 10.0], 6, 1)
    return tmp_path / "night"


# --- frames that cannot be used ----------------------------------------------------------------------------


def test_unusable_frames_are_listed_and_the_run_goes_on(night, out, sensor, capsys):
    good = (night / "bias_00_000.fits").read_bytes()
    (night / "text.fits").write_bytes(b"no FITS here" * 300)
    (night / "cut.fits").write_bytes(good[:4000])
    (night / "empty.fits").write_bytes(b"")
    samples = sensor.frame("bias", 0.0, 0.0, 1)
    write_frame(night / "badsize.fits", samples, BADSIZE=True)
    write_frame(night / "nan.fits", samples, CCD_TEMP="NAN")
    write_frame(night / "sentinel.fits", samples, CCD_TEMP=-273.15)
    write_frame(night / "without.fits", samples, CCD_TEMP=None)
    assert run("--basepath", night, "--output-dir", out) == 0
    assert "frames that cannot be used: 7, the first: " in capsys.readouterr().err
    reasons = {Path(row["path"]).name: row["reason"] for row in rows(out / "rejected_frames.csv")}
    assert reasons.keys() == {
        *("text.fits", "cut.fits", "empty.fits", "badsize.fits", "nan.fits", "sentinel.fits", "without.fits")
    }
    assert reasons["text.fits"].startswith("not a FITS file")
    assert reasons["cut.fits"] == "truncated, 1120 bytes of data, expected 2560 for 32 rows of 40 pixels"
    assert reasons["empty.fits"].startswith("empty file")
    assert reasons["badsize.fits"].startswith("BADSIZE")
    assert all(
        reasons[name].startswith("no temperature") for name in ("nan.fits", "sentinel.fits", "without.fits")
    )
    assert fits.getval(out / "bias_grouped_by_temp" / "master_bias_0.0C.fits", "NCOMBINE") == 6
    html = (out / "report.html").read_text(encoding="utf-8")
    assert all(name in html for name in reasons)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda x: x.__setitem__(slice(None), 65520), "SATURATED: 100.0% of the sampled pixels"),
        (lambda x: x.__iadd__(16 * 60), "LEVEL_JUMP: level +"),
        (lambda x: x.__isub__(16 * 30), "LEVEL_JUMP: level -"),
        (lambda x: x.__setitem__(slice(10, 14), 0), "ZERO_BLOCK: 4 rows, the first is row 10"),
        (lambda x: x.__setitem__(slice(20, 25), x[20]), "DROPPED_ROWS: 4 rows, the first is row 21"),
        (lambda x: x.__setitem__(slice(None), 1600), "DROPPED_ROWS: all 32 rows"),
        (lambda x: x.__setitem__(slice(None), 0), "ZERO_BLOCK: all 32 rows"),
        (lambda x: x[:, :20].__iadd__(16 * 20), "LIGHT_LEAK: level +"),
    ],
)
def test_frame_that_does_not_belong_is_left_out(night, out, sensor, capsys, spoil, code):
    samples = sensor.frame("bias", 0.0, 0.0, 99)
    spoil(samples)
    write_frame(night / "bad.fits", samples, CCD_TEMP=0.0, TIMESTMP=START + 30)
    assert run("--basepath", night, "--output-dir", out) == 0
    (row,) = rows(out / "rejected_frames.csv")
    assert row["path"] == str(night / "bad.fits")
    assert row["reason"].startswith(code)
    assert "1 frame left out by the screen (rejected_frames.csv), the first: " in capsys.readouterr().err
    master = read_product(out / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    assert master.header["NCOMBINE"] == 6
    assert "bad.fits" not in " ".join(row["file"] for row in master.inputs)
    # What is left is right: 1280 pixels, 6 frames.
    error = (master.data - sensor.true_bias(0.0))[~sensor.telegraph]
    assert abs(error.mean()) < 5 * 1.6 / np.sqrt(6 * error.size)


def test_several_bad_frames_of_one_group(night, out, sensor):
    """Five of eleven are out: the saturated one does not make the jump of the others look common."""
    spoiled = [sensor.frame("bias", 0.0, 0.0, 50 + i) for i in range(5)]
    spoiled[0][:] = 65520
    spoiled[1] += 16 * 60
    spoiled[2][10:14] = 0
    spoiled[3][20:24] = spoiled[3][20]
    spoiled[4][:, :20] += 16 * 20
    for i, samples in enumerate(spoiled):
        write_frame(night / f"bad_{i}.fits", samples, CCD_TEMP=0.0, TIMESTMP=START + 30 + i)
    assert run("--basepath", night, "--output-dir", out) == 0
    reasons = {
        Path(row["path"]).name: row["reason"].partition(":")[0] for row in rows(out / "rejected_frames.csv")
    }
    assert reasons == {
        "bad_0.fits": "SATURATED",
        "bad_1.fits": "LEVEL_JUMP",
        "bad_2.fits": "ZERO_BLOCK",
        "bad_3.fits": "DROPPED_ROWS",
        "bad_4.fits": "LIGHT_LEAK",
    }


def test_levels_in_two_sets_are_kept_and_said(tmp_path, out, sensor, capsys):
    for i in range(10):
        samples = sensor.frame("bias", 0.0, 0.0, i) + np.uint16(16 * 20 * (i % 2))
        write_frame(tmp_path / "night" / f"{i}.fits", samples, CCD_TEMP=0.0, TIMESTMP=START + i)
    assert run("--basepath", tmp_path / "night", "--output-dir", out) == 0
    err = capsys.readouterr().err
    assert re.search(r"levels of the frames at 0\.0 degC scatter by 14\.\d+ ADU", err)  # 1.4826 times 10 ADU
    assert "is the zero level stable?" in err
    assert fits.getval(out / "bias_grouped_by_temp" / "master_bias_0.0C.fits", "NCOMBINE") == 10


def test_bias_level_near_zero_is_no_fault(tmp_path, out, capsys):
    """Seven samples in ten are 0: blocks of 16 zeros come by chance, one or two in a frame."""
    sensor = Sensor(SensorSpec.bare(shape=(64, 48), seed=4, bias_level=0.0, read_noise=0.9))
    take(tmp_path / "night", sensor, [0.0], 8, 4)
    assert run("--basepath", tmp_path / "night", "--output-dir", out) == 0
    assert rows(out / "rejected_frames.csv") == []
    err = capsys.readouterr().err
    assert re.search(r"[4-8] frames at 0\.0 degC hold blocks of zeros: is the bias level near 0\?", err)


def test_no_frame_passes_the_screen(tmp_path, out, capsys):
    for i in range(6):
        write_frame(tmp_path / "night" / f"{i}.fits", np.full(SHAPE, 65520, np.uint16))
    assert run("--basepath", tmp_path / "night", "--output-dir", out) == 2
    assert "no frame passed the screen, the first was " in only_line(capsys)
    assert not out.exists()


def test_blank_samples_of_float_frames(tmp_path, out, sensor):
    """NaN in some frames: the others count; in all frames: NO_DATA, masked, everything else is made."""
    for i in range(12):
        samples = sensor.to_adu(sensor.frame("bias", 10.0 * (i // 6), 0.0, i))
        samples[3, 4] = np.nan
        samples[5, 6] = np.nan if i % 6 == 1 else samples[5, 6]
        write_frame(tmp_path / "night" / f"{i:02d}.fits", samples, CCD_TEMP=10.0 * (i // 6))
    write_frame(tmp_path / "night" / "void.fits", np.full(SHAPE, np.nan, np.float32), CCD_TEMP=0.0)
    assert run("--basepath", tmp_path / "night", "--output-dir", out) == 0
    (row,) = rows(out / "rejected_frames.csv")
    assert (Path(row["path"]).name, row["reason"]) == ("void.fits", "NO_DATA: no finite sample")
    master = read_product(out / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    a_map = read_product(out / "bias_model" / "bias_a_map.fits")
    for product in (master, a_map):
        assert product.dq[3, 4] & DQ.NO_DATA
        assert np.argwhere(product.mask).tolist() == [[3, 4]]
        assert np.isfinite(product.data[~product.mask]).all()
    assert master.uncert[5, 6] > master.uncert[5, 7] * 1.02  # five frames instead of six


# --- scarce data -------------------------------------------------------------------------------------------


def test_one_temperature(tmp_path, out, sensor, capsys):
    take(tmp_path / "night", sensor, [5.0], 6, 2)
    assert run("--basepath", tmp_path / "night", "--output-dir", out) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == "warning: one temperature (5.00 degC): b = 0 everywhere, flagged; the model holds there only"
    )
    a_map, b_map = (read_product(out / "bias_model" / f"bias_{which}_map.fits") for which in "ab")
    master = read_product(out / "bias_grouped_by_temp" / "master_bias_5.0C.fits")
    np.testing.assert_array_equal(a_map.data, master.data)
    np.testing.assert_array_equal(b_map.data, 0)
    assert ((b_map.dq & DQ.UNRELIABLE_FIT) != 0).all()
    assert b_map.header["BFIXED"] is True
    synthetic = read_product(out / "bias_masks_by_temp" / "synthetic_bias_5.0C.fits")
    np.testing.assert_allclose(synthetic.uncert, master.uncert, rtol=1e-5)
    verdict = {row["name"]: row["value"] for row in rows(out / "summary.csv")}
    assert (
        verdict["extrapolation beyond the fitted range"] == "cannot be judged: fewer than three temperatures"
    )


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_frames(tmp_path, out, capsys, n):
    sensor = Sensor(SensorSpec.preset("12left", shape=(96, 160), seed=2, row_noise=0.0))
    take(tmp_path / "night", sensor, [0.0, 10.0, 20.0], n, 2)
    assert run("--basepath", tmp_path / "night", "--output-dir", out) == 0
    err = capsys.readouterr().err
    assert "fewer than 5 frames at 0.0, 10.0, 20.0 degC: errors pooled over all pixels and groups" in err
    master = read_product(out / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    assert np.isfinite(master.uncert).all()
    noise = read_product(out / "read_noise" / "read_noise.fits")
    if n == 1:
        assert "noise from what lines through the frames leave" in err
        error = (master.data - sensor.true_bias(0.0))[~sensor.telegraph]
        # A median, for hits of single frames stay; one degree of freedom a pixel, and 15,360 pixels: 0.6 %.
        width = 1.4826 * np.median(np.abs(error / master.uncert[~sensor.telegraph]))
        assert width == pytest.approx(1, abs=0.06)
        assert ((noise.dq & DQ.UNRELIABLE_FIT) != 0).all()
        names = {row["name"] for row in rows(out / "summary.csv")}
        assert "read noise (median pixel)" not in names
    else:
        # 3 (n - 1) degrees of freedom a pixel and 15,360 pixels: the pooled scatter is known to 0.3 %.
        error = (master.data - sensor.true_bias(0.0))[~sensor.telegraph]
        assert np.std(error / master.uncert[~sensor.telegraph]) == pytest.approx(1, abs=0.05)
        assert np.median(noise.data) == pytest.approx(1.5, rel=0.02)


def test_one_frame_taken_six_times(tmp_path, out, sensor, capsys):
    """Copies have no scatter: that is no measurement of noise, and nothing is divided by it."""
    samples = sensor.frame("bias", 0.0, 0.0, 1)
    for i in range(6):
        write_frame(tmp_path / "night" / f"{i}.fits", samples, CCD_TEMP=0.0)
    assert run("--basepath", tmp_path / "night", "--output-dir", out) == 0
    assert "no temperature has two frames or they are equal" in capsys.readouterr().err
    master = read_product(out / "bias_grouped_by_temp" / "master_bias_0.0C.fits")
    np.testing.assert_array_equal(master.data, samples / 16)
    assert (master.uncert > 0).all()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (None, "among 0 usable frames"),
        ("Light Frame", "among 1 usable frame"),
        ("cut", "and 1 unusable, the first"),
    ],
)
def test_no_bias_frame(tmp_path, out, capsys, kind, said):
    (tmp_path / "night").mkdir()
    if kind:
        path = write_frame(tmp_path / "night" / "x.fits", np.ones(SHAPE, np.uint16), IMAGETYP=kind)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:3000])
    assert run("--basepath", tmp_path / "night", "--output-dir", out) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "got no bias frame" in line
    assert said in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("cards", "shape", "values"),
    [
        ({"GAIN": 200}, SHAPE, ("gain differs", "100", "200", "--select gain=")),
        (
            {"XBINNING": 2, "YBINNING": 2, "GAIN": 100},
            SHAPE,
            ("binning differs", "1x1", "2x2", "--select binning="),
        ),
        ({"GAIN": 100}, (16, 40), ("shape differs", "32x40", "16x40", "--select shape=")),
        ({"GAIN": 100, "INSTRUME": "OTHER"}, SHAPE, ("camera differs", "SIM", "OTHER", "--select camera=")),
    ],
)
def test_mixed_settings_are_refused(tmp_path, out, sensor, capsys, cards, shape, values):
    night = tmp_path / "night"
    take(night, sensor, [0.0], 5, 1, GAIN=100, XBINNING=1, YBINNING=1)
    other = Sensor(SensorSpec.preset("12left", shape=shape, seed=5)).frame("bias", 0.0, 0.0, 1)
    write_frame(night / "zz_other.fits", other, **({"CCD_TEMP": 0.0, "XBINNING": 1, "YBINNING": 1} | cards))
    assert run("--basepath", night, "--output-dir", out) == 2
    line = only_line(capsys)
    assert all(value in line for value in values), line
    assert str(night / "bias_00_000.fits") in line
    assert str(night / "zz_other.fits") in line
    assert not out.exists()
