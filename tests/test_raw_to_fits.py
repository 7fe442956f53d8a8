"""The command of the converter: index, report, what is kept, faults, interrupts."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from raw_frames import CONFIG, campaign, check_valid, image_of, make_attempt, reasons, run, table

from utils.errors import InputError, OutputError
from utils.fits_io import raw_attempt
from utils.fits_io.find_frames import FoundFile
from utils.fits_io.frame_index import FrameIndex
from utils.fits_io.keywords import describe
from utils.raw_to_fits import convert_attempt, convert_many, read_config

ROOT = Path(__file__).resolve().parents[1]


def test_index_and_summary(tmp_path, capsys, monkeypatch):
    campaign(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("Bias", "./Darks", "Flats") == 0
    rows = table("fits_index.csv")
    assert list(rows[0])[:12] == [
        *("PATH", "RELPATH", "CALTYPE", "FRAMENUM", "EXPTIME", "REXPTIME", "TEMP", "TEMP_0", "GAIN"),
        *("FILETEMP", "EQTEMP", "BADSIZE"),
    ]
    assert [row["CALTYPE"] for row in rows] == ["BIAS"] * 3 + ["DARK"] * 3 + ["FLAT"] * 3
    for row in rows:
        header = fits.getheader(row["PATH"])
        assert os.path.samefile(row["RELPATH"], row["PATH"])
        assert not os.path.isabs(row["PATH"])
        for key in ("FRAMENUM", "EXPTIME", "TEMP", "NAXIS1", "BZERO", "TIMESTMP"):
            assert float(row[key]) == header[key]
        status = os.stat(row["PATH"])
        assert (int(row["SIZE"]), int(row["MTIME_NS"])) == (status.st_size, status.st_mtime_ns)
        assert row["DATASUM"] == header["DATASUM"]
        stored = np.fromfile(row["PATH"], ">i2", 60, offset=int(row["DATAOFF"]))
        assert (stored.astype(int) + 32768).tolist() == fits.getdata(row["PATH"]).reshape(-1).tolist()
    assert table("conversion_report.csv") == []
    assert "9 converted, 0 kept, 0 BADSIZE, 0 not converted in" in capsys.readouterr().out


def test_index_row_reads_like_the_header(tmp_path):
    roots = campaign(tmp_path, config=CONFIG + "CAMERA=X\nE-GAIN=1.5\nBINNING=2\nSATLEVEL=60000\n", frames=1)
    assert run(*roots) == 0
    for row in table(tmp_path / "fits_index.csv"):
        cards = {key: cell for key, cell in row.items() if cell}
        assert describe(cards, "x") == describe(dict(fits.getheader(row["PATH"])), "x")


def test_infinite_and_nan_stand_in_the_index(tmp_path):
    log = (
        "FrameNum,Temperature,ExpTime,RealExpTime,ExpGain\n0,nan,-inf,inf,NaN\n1,inf,1,nan,1\n2,-inf,1,1,1\n"
    )
    roots = campaign(tmp_path, log=log)
    for _ in range(2):  # converted, then kept
        assert run(*roots) == 0
        rows = table(tmp_path / "fits_index.csv")
        assert [row["TEMP"] for row in rows] == ["NAN", "INF", "-INF"] * 3
        assert [rows[0][key] for key in ("EXPTIME", "REXPTIME", "GAIN")] == ["-INF", "INF", "NAN"]
        index = FrameIndex([tmp_path / "fits_index.csv"])
        for row in rows:
            status = os.stat(row["PATH"])
            image = index.get(FoundFile(row["PATH"], "x", status.st_size, status.st_mtime_ns, 0))
            header = describe(dict(fits.getheader(row["PATH"])), "x")
            assert header["problems"]["temperature"] == f"TEMP = {row['TEMP']} is not a number"
            assert describe(image.cards, "x") == header
            assert describe({key: cell for key, cell in row.items() if cell}, "x") == header


def test_up_to_date_files_are_kept(tmp_path, capsys):
    roots = campaign(tmp_path, frames=2)
    assert run(*roots) == 0
    attempt = tmp_path / "Bias" / "T-10" / "attempt1"
    before = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*.fits")}
    first = table(tmp_path / "fits_index.csv")
    assert run(*roots) == 0
    assert {path: os.stat(path).st_mtime_ns for path in before} == before
    assert table(tmp_path / "fits_index.csv") == first
    assert "0 converted, 6 kept" in capsys.readouterr().out

    def converted_after(change):
        time.sleep(0.01)
        change()
        assert run(*roots) == 0
        return int(re.search(r"(\d+) converted", capsys.readouterr().out)[1])

    fits_file = attempt / "fits" / "f0.fits"
    assert converted_after((attempt / "frames" / "f0.raw").touch) == 1
    assert converted_after((attempt / "temperatureLog.csv").touch) == 2
    assert converted_after((attempt / "configFile.txt").touch) == 2
    assert converted_after(lambda: fits_file.write_bytes(fits_file.read_bytes()[:-2880])) == 1
    assert converted_after(lambda: fits_file.write_bytes(b"")) == 1
    assert converted_after(lambda: fits.setval(fits_file, "CALTYPE", value="FLAT")) == 1
    assert converted_after(lambda: None) == 0
    # What the user adds to a header stays, and is in the index.
    assert converted_after(lambda: fits.setval(fits_file, "FILTER", value="OIII")) == 0
    assert [row["FILTER"] for row in table(tmp_path / "fits_index.csv")] == ["OIII"] + [""] * 5
    assert run(*roots, "--overwrite") == 0
    assert "6 converted, 0 kept" in capsys.readouterr().out


def test_skipped_sections(tmp_path, capsys):
    roots = campaign(tmp_path)
    shutil.rmtree(tmp_path / "Flats")
    assert run(*roots) == 2
    text = f"error: {roots[2]}: no such folder, expected the FLAT section (--skip-flat)\n"
    assert capsys.readouterr() == ("", text)
    assert not list(tmp_path.rglob("*.fits"))
    assert run(*roots, "--skip_flat", "--skip-bias") == 0
    assert [row["CALTYPE"] for row in table(tmp_path / "fits_index.csv")] == ["DARK"] * 3
    # The darks stay in the index of a run without them, unless their files have gone.
    os.remove(tmp_path / "Darks" / "20Frames" / "1s" / "T-10" / "attempt1" / "fits" / "f1.fits")
    assert run(*roots, "--skip-flat", "--skip-dark") == 0
    rows = table(tmp_path / "fits_index.csv")
    assert [(row["CALTYPE"], row["FRAMENUM"]) for row in rows] == [
        *(("BIAS", "0"), ("BIAS", "1"), ("BIAS", "2"), ("DARK", "0"), ("DARK", "2"))
    ]
    assert run(*roots, "--skip-flat", "--skip-dark", "--skip-bias") == 2
    assert "all sections are skipped" in capsys.readouterr().err


def test_damaged_index_is_made_anew(tmp_path):
    roots = campaign(tmp_path)
    (tmp_path / "fits_index.csv").write_bytes(b'\xff\x00garbage\n"')
    assert run(*roots) == 0
    assert len(table(tmp_path / "fits_index.csv")) == 9


def test_nothing_found_suggests_a_depth(tmp_path, capsys):
    for name in ("B", "D", "F"):
        (tmp_path / name).mkdir()
    make_attempt(tmp_path / "D" / "1" / "2" / "3" / "attempt1")
    roots = [tmp_path / name for name in ("B", "D", "F")]
    assert run(*roots, "--search-depth", 3) == 2
    assert "D: no attempt found down to 3 levels below it: try --search-depth 5" in capsys.readouterr().err
    assert not (tmp_path / "fits_index.csv").exists()
    assert run(*roots, "--search_depth", 5) == 1
    assert len(table(tmp_path / "fits_index.csv")) == 3
    text = "no attempt found down to 5 levels below it: try --search-depth 7"
    assert reasons(tmp_path, "/B") == [("ERROR", text)]


def test_attempts_without_raw_files(tmp_path, capsys):
    roots = campaign(tmp_path, frames=0)
    assert run(*roots) == 2
    assert "3 attempts without a raw file, expected frames/*.raw" in capsys.readouterr().err
    assert not (tmp_path / "fits_index.csv").exists()


def test_one_attempt_in_two_sections(tmp_path, capsys):
    roots = campaign(tmp_path)
    assert run(roots[0], tmp_path, roots[2]) == 2
    assert "in both sections BIAS and DARK" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.fits"))


def test_dry_run_writes_nothing(tmp_path, capsys):
    roots = campaign(tmp_path)
    (tmp_path / "Bias" / "T-10" / "attempt1" / "frames" / "f0.raw").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    assert run(*roots, "--dry-run") == 1
    assert sorted(tmp_path.rglob("*")) == before
    out = capsys.readouterr().out
    assert "attempt1: 3 frames, 10 x 6 pixels Mono16, 0 up to date" in out
    assert "9 would be converted, 0 kept, 1 BADSIZE, 0 not converted" in out


def test_metadata_warnings_are_printed_when_asked(tmp_path, capsys):
    roots = campaign(tmp_path, log="FrameNum,Temperature\n0,1\n1,\nrubbish\n")
    assert run(*roots) == 0
    assert "f1.raw" not in capsys.readouterr().err
    assert run(*roots, "--verbose") == 0
    err = capsys.readouterr().err
    assert err.count("f1.raw: no temperature in the log") == 3
    assert err.count("f2.raw: no log row") == 3
    assert reasons(tmp_path, "Bias/T-10/attempt1/frames/f1.raw") == [("WARNING", "no temperature in the log")]


def test_no_log(tmp_path, capsys):
    roots = campaign(tmp_path, log="", frames=1)
    for section in ("Bias/T-10", "Darks/20Frames/1s/T-10", "Flats/R/T20"):
        (tmp_path / section / "attempt1" / "frames" / "f0.raw").stat()
    assert run(*roots) == 0
    assert reasons(tmp_path, "Bias/T-10/attempt1") == [
        ("WARNING", "no temperatureLog.csv: frames without temperature")
    ]
    assert reasons(tmp_path, "Bias/T-10/attempt1/frames/f0.raw") == [("WARNING", "no log")]
    assert capsys.readouterr().err.count("no temperatureLog.csv") == 3


def test_folder_that_cannot_be_written(tmp_path):
    roots = campaign(tmp_path)
    (tmp_path / "Bias" / "T-10" / "attempt1" / "fits").write_text("in the way")
    assert run(*roots) == 1
    found = reasons(tmp_path, "Bias/T-10/attempt1/frames/f0.raw")
    assert len(found) == 1
    assert re.match(r"not converted: .*fits/f0.fits: cannot write, a part of the path is a file", found[0][1])
    assert len(table(tmp_path / "fits_index.csv")) == 6


def test_index_that_cannot_be_written(tmp_path, capsys):
    roots = campaign(tmp_path)
    (tmp_path / "fits_index.csv").mkdir()
    assert run(*roots) == 2
    assert "fits_index.csv: cannot write, a folder stands there" in capsys.readouterr().err


def test_files_that_are_none(tmp_path):
    roots = campaign(tmp_path)
    frames = tmp_path / "Bias" / "T-10" / "attempt1" / "frames"
    os.mkfifo(frames / "f7.raw")
    (frames / "f8.raw").symlink_to("nowhere")
    assert run(*roots) == 1
    assert ("ERROR", "not converted: not a regular file") in reasons(tmp_path, "f7.raw")
    assert ("ERROR", "not converted: No such file or directory") in reasons(tmp_path, "f8.raw")


def test_full_disk_ends_the_run(tmp_path, monkeypatch, capsys):
    roots = campaign(tmp_path)

    def full(*arguments):
        raise OutputError("f0.fits: disk full while writing")

    monkeypatch.setattr(raw_attempt, "write_frame", full)
    assert run(*roots) == 1
    assert capsys.readouterr().err.strip() == "error: f0.fits: disk full while writing"
    assert not (tmp_path / "fits_index.csv").exists()


def test_inputs_are_not_changed(tmp_path):
    roots = campaign(tmp_path)
    inputs = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(*roots) == 0
    assert {path: path.read_bytes() for path in inputs} == inputs
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_jobs_do_not_change_the_result(tmp_path, jobs):
    roots = campaign(tmp_path, frames=5)
    assert run(*roots, "--jobs", jobs) == 0
    files = sorted(tmp_path.rglob("*.fits"))
    assert len(files) == 15
    for path in files:
        np.testing.assert_array_equal(check_valid(path)[0], image_of(int(path.stem[1:])))
    assert [row["FRAMENUM"] for row in table(tmp_path / "fits_index.csv")] == list("01234") * 3


def test_convert_many(tmp_path):
    roots = campaign(tmp_path)
    shutil.rmtree(roots[2])
    done = convert_many(*roots, search_depth=6, skip_bias=True)
    assert (len(done.converted), done.status) == (3, 1)
    assert [problem.reason for problem in done.problems] == ["no such folder, expected the FLAT section"]
    assert Path(done.index) == tmp_path / "fits_index.csv"
    done = convert_many(*roots, skip_flat=True)
    assert (len(done.converted), len(done.kept), done.status) == (3, 3, 0)
    with pytest.raises(InputError, match="no attempt found down to 1 levels below it: try --search-depth 3"):
        convert_many(*roots, search_depth=1, skip_bias=True, skip_flat=True)


def test_read_config_is_importable(tmp_path):
    (tmp_path / "config.txt").write_text(CONFIG)
    assert read_config(tmp_path / "config.txt")["width"] == 10


def test_memory_does_not_grow_with_the_frame(tmp_path):
    import tracemalloc

    shape = (3000, 2000)  # 12 MB
    attempt = make_attempt(tmp_path / "attempt1", config=f"WIDTH={shape[1]}\nHEIGHT={shape[0]}\n", frames=0)
    np.zeros(shape, np.uint16).tofile(attempt / "frames" / "f0.raw")
    tracemalloc.start()
    try:
        convert_attempt(attempt, "BIAS")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two blocks of 0.5 MB; what is imported on the way may take as much again.
    assert peak < 4e6


def test_ctrl_c_leaves_nothing_half_written(tmp_path):
    config = "WIDTH=1024\nHEIGHT=1024\n"
    attempt = make_attempt(
        tmp_path / "Bias" / "T0" / "attempt1", config=config, log="Temperature\n1\n", frames=0
    )
    frame = np.zeros((1024, 1024), np.uint16)
    frame.tofile(attempt / "frames" / "f0.raw")
    for number in range(1, 3000):
        os.link(attempt / "frames" / "f0.raw", attempt / "frames" / f"f{number}.raw")
    command = [
        sys.executable,
        "-m",
        "utils.raw_to_fits",
        tmp_path / "Bias",
        "-",
        "-",
        "--skip-dark",
        "--skip-flat",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (attempt / "fits").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    names = os.listdir(attempt / "fits")
    assert 0 < len(names) < 3000
    assert all(re.fullmatch(r"f\d+\.fits", name) for name in names)
    assert {os.path.getsize(attempt / "fits" / name) for name in names} == {
        os.path.getsize(attempt / "fits" / names[0])
    }
    shutil.rmtree(attempt)


def test_command_line_as_script_and_module(tmp_path):
    roots = campaign(tmp_path)
    for start in (["-m", "utils.raw_to_fits"], [str(ROOT / "utils" / "raw_to_fits.py")]):
        done = subprocess.run(
            [sys.executable, "-W", "error", *start, *roots],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert "0 converted, 9 kept" in done.stdout


def test_simulated_campaign(tmp_path):
    from utils.kernels.sensor import SensorSpec
    from utils.simulate_campaign import simulate

    plan = {"bias": [{"temperatures": [-10], "frames": 4}], "darks": [], "flats": []}
    truth = simulate(tmp_path / "c", SensorSpec(shape=(32, 48)), plan, 1)
    done = convert_many(tmp_path / "c" / "Bias", "", "", skip_dark=True, skip_flat=True)
    assert len(done.converted) == len(truth.frames)
    assert done.problems == []
    for row, frame in zip(done.rows, truth.frames, strict=True):
        data, header = check_valid(row["PATH"])
        assert data.tobytes() == np.fromfile(tmp_path / "c" / frame["file"], "<u2").tobytes()
        # The log has the temperature in steps of 0.01 degC, the time in steps of 1 ms.
        assert abs(header["TEMP"] - frame["temperature"]) < 0.02
        assert abs(header["TIMESTMP"] - frame["time"]) < 0.002
