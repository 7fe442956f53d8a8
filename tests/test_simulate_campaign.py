"""Simulated campaigns: tree, logs, frames against the written truth, faults, the command line."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from utils.domain import campaign_plan
from utils.errors import OptionError
from utils.kernels.sensor import SensorSpec
from utils.simulate_campaign import LOG_COLUMNS, main, simulate
from utils.version import __version__

ROOT = Path(__file__).resolve().parents[1]

SMALL_PLAN = {
    "sessions": [0, 1.5],
    "bias": [
        {"temperatures": [-10, 5.5], "frames": 12, "drift": 3.0},
        {"temperatures": [5.5], "frames": 12, "session": 1, "exposure": 2e-5},
    ],
    "darks": [
        {"temperatures": [5], "exposures": [0.25, 20], "frames": 5, "session": 1},
        {"temperatures": [0], "exposures": [2.5e-5], "frames": 3, "tree": "ContinuousFrames"},
    ],
    "flats": [{"temperatures": [0], "exposures": [2], "frames": 6, "flux": 0.2, "filter": "UV"}],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A campaign of 12-bit left-justified frames, not square, with faults."""
    return simulate(
        tmp_path_factory.mktemp("small"), SensorSpec(shape=(40, 56), seed=3), SMALL_PLAN, faults=True
    )


def folders(out):
    return {path.parent.relative_to(out).as_posix() for path in out.rglob("frames")}


def contents(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def log_rows(attempt):
    with open(attempt / "temperatureLog.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def config(attempt):
    lines = (attempt / "configFile.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=") for line in lines if not line.startswith("#"))


def pixels(truth, frame):
    """A frame in product ADU, read as its config says."""
    spec = truth.sensor.spec
    data = np.fromfile(truth.out / frame["file"], "<u2").reshape(spec.shape)
    return data / truth.sensor.adu_scale


def test_tree(small):
    assert folders(small.out) == {
        "Bias/T-10/attempt1",
        "Bias/T5.5/attempt1",
        "Bias/T5.5/attempt2",
        "Darks/20Frames/0.25s/T5/attempt1",
        "Darks/20Frames/20s/T5/attempt1",
        "Darks/ContinuousFrames/T0/2.5e-05s/attempt1",
        "Flats/UV/T0/2s/attempt1",
        "Bias/T-10/attempt2",
    }
    assert {path.name for path in small.out.iterdir()} == {"Bias", "Darks", "Flats", "truth"}
    on_disk = {name for name in contents(small.out) if name.endswith(".raw")}
    assert on_disk == {frame["file"] for frame in small.frames}
    assert len(small.frames) == 12 + 12 + 12 + 5 + 5 + 3 + 6 + 10
    for name, pattern in (
        ("Bias/T-10/attempt1", r"f00\d\d_T-10\.raw"),
        ("Darks/20Frames/0.25s/T5/attempt1", r"frame000\d_exp0\.25s\.raw"),
        ("Darks/ContinuousFrames/T0/2.5e-05s/attempt1", r"frame000\d_exp_2\.5e-05s\.raw"),
    ):
        for path in (small.out / name / "frames").iterdir():
            assert re.fullmatch(pattern, path.name)


def test_logs_tell_the_truth(small):
    for folder in folders(small.out):
        frames = [f for f in small.frames if f["file"].startswith(f"{folder}/")]
        if any(frame["fault"] for frame in frames):
            continue
        attempt = small.out / folder
        rows = log_rows(attempt)
        assert len(rows) == len(frames)
        for number, (row, frame) in enumerate(zip(rows, frames, strict=True), 1):
            assert tuple(row) == LOG_COLUMNS
            assert int(row["FrameNum"]) == number
            assert float(row["TimeStamp"]) == frame["time"]
            assert abs(float(row["Temperature"]) - frame["temperature"]) < 0.00501
            assert abs(float(row["InitialTemp"]) - frames[0]["temperature"]) < 0.00501
            assert float(row["DeltaTemperature"]) == pytest.approx(
                frame["temperature"] - frames[0]["temperature"], abs=0.006
            )
            assert float(row["RealExpTime"]) == pytest.approx(frame["exposure"] * 1e6, abs=1e-3)
            assert 0 < float(row["RealExpTime"]) - float(row["ExpTime"]) < 10
            assert float(row["ExpGain"]) == 120
            assert float(row["PowerCons"]) > 0
    exposures = {f["file"].split("/frames/")[0]: f["exposure"] for f in small.frames}
    assert exposures["Darks/20Frames/20s/T5/attempt1"] == pytest.approx(20, abs=1e-5)
    assert log_rows(small.out / "Darks/20Frames/20s/T5/attempt1")[0]["ExpTime"] == "20000000"
    assert log_rows(small.out / "Bias/T5.5/attempt2")[0]["ExpTime"] == "20"


def test_times_of_sessions_attempts_and_frames(small):
    sessions = [[f["time"] for f in small.frames if f["session"] == number] for number in (0, 1)]
    assert min(sessions[0]) >= campaign_plan.EPOCH
    assert min(sessions[1]) - min(sessions[0]) == pytest.approx(1.5 * 86400, abs=1)
    for times in sessions:
        assert times == sorted(times)
        assert min(np.diff(times)) > 0.5
    dark = [f["time"] for f in small.frames if f["file"].startswith("Darks/20Frames/20s")]
    np.testing.assert_allclose(np.diff(dark), 20.8, atol=2e-3)


def test_drift_runs_through_the_attempt_around_its_label(small):
    drifting = [f["temperature"] for f in small.frames if f["file"].startswith("Bias/T-10/attempt1")]
    steady = [f["temperature"] for f in small.frames if f["file"].startswith("Bias/T5.5/attempt2")]
    # 1 sigma of the regulation is 0.01 degC, of the set point 0.05 degC.
    assert np.polyfit(range(12), drifting, 1)[0] == pytest.approx(3.0 / 12, abs=0.005)
    assert np.mean(drifting) == pytest.approx(-10, abs=0.25)
    assert np.ptp(steady) < 0.08
    assert np.mean(steady) == pytest.approx(5.5, abs=0.25)


def test_bias_frames_have_the_true_bias_of_the_written_maps(small):
    truth = {
        name: fits.getdata(small.out / "truth" / f"{name}.fits").astype(float)
        for name in ("bias_a", "bias_b", "read_noise", "telegraph")
    }
    shifts = json.loads((small.out / "truth/truth.json").read_text())["plan"]["camera"]["session_shifts"]
    good = truth["telegraph"] == 0
    for session in (0, 1):
        frames = [
            f for f in small.frames if f["kind"] == "bias" and f["session"] == session and not f["fault"]
        ]
        residuals = np.array(
            [
                pixels(small, f) - truth["bias_a"] - truth["bias_b"] * f["temperature"] - shifts[session]
                for f in frames
            ]
        )[:, good]
        sigma = np.sqrt(1.5**2 + 0.15**2 + 1 / 12)
        # The median is not moved by cosmic hits, and 1.25 times as noisy as the mean.
        bound = 5 * 1.253 * np.sqrt((sigma**2 + 56 * 0.15**2) / residuals.size)
        assert abs(np.median(np.median(residuals, axis=0))) < bound + 0.5 / np.sqrt(len(frames))
        calm = residuals[np.abs(residuals) < 8]
        assert abs(calm.std() / sigma - 1) < 0.02


def test_darks_and_flats_are_what_the_sensor_gives(small):
    for kind in ("dark", "flat"):
        for frame in (f for f in small.frames if f["kind"] == kind):
            sensor, at = small.sensor, (frame["temperature"], frame["exposure"])
            expected = sensor.true_bias(at[0], frame["session"]) + sensor.true_signal(
                kind, *at, frame["level"]
            )
            pull = (pixels(small, frame) - expected) / sensor.true_noise(kind, *at, frame["level"])
            # Cosmic hits and saturated hot pixels are few: the middle of the distribution does not see them.
            low, middle, high = np.percentile(pull, [15.87, 50, 84.13])
            assert abs(middle) < 0.15
            assert abs((high - low) / 2 - 1) < 0.12
    (level,) = {f["level"] for f in small.frames if f["kind"] == "flat"}
    assert level == pytest.approx(0.2 * 4095 * 2, rel=1e-4)


def test_truth_maps_and_json(small):
    stored = json.loads((small.out / "truth/truth.json").read_text(encoding="utf-8"))
    assert stored["frames"] == small.frames
    assert stored["plan"]["camera"]["shape"] == [40, 56]
    assert stored["seed"] == 3
    files = sorted(path.name for path in (small.out / "truth").glob("*.fits"))
    assert len(files) == 15
    for name in files:
        with fits.open(small.out / "truth" / name, checksum=True) as hdus:
            header, data = hdus[0].header, hdus[0].data
            stem = name.removesuffix(".fits")
            assert "20" not in header.comments["CHECKSUM"] + header.comments["DATASUM"]  # no date: same bytes
            assert header["PRODTYPE"] == f"TRUTH_{stem.upper()}"
            assert data.shape == (40, 56)
            np.testing.assert_array_equal(
                data, getattr(small.sensor, "read_noise_map" if stem == "read_noise" else stem)
            )
    units = {
        n: fits.getval(small.out / "truth" / f"{n}.fits", "BUNIT")
        for n in ("bias_a", "bias_b", "dark_a", "dark_b")
    }
    assert units == {"bias_a": "adu", "bias_b": "adu/K", "dark_a": "adu/s", "dark_b": "1/K"}
    assert sum(frame["cosmic_pixels"] for frame in small.frames) > 0


def test_faults(small):
    faulty = {int(re.search(r"f(\d{4})_", f["file"])[1]): f for f in small.frames if f["fault"]}
    assert {number: frame["fault"] for number, frame in faulty.items()} == campaign_plan.FAULTS
    assert {frame["file"].split("/frames/")[0] for frame in faulty.values()} == {"Bias/T-10/attempt2"}
    size = 40 * 56 * 2
    sizes = {number: (small.out / frame["file"]).stat().st_size for number, frame in faulty.items()}
    assert sizes == {2: size * 3 // 5, 3: 0, 4: size + 1000, 5: size, 6: size, 7: size}
    lines = (small.out / "Bias/T-10/attempt2/temperatureLog.csv").read_text(encoding="utf-8").splitlines()
    # The header, and a row for each of the 10 frames but the fifth.
    assert [line.split(",")[0] for line in lines] == [
        "FrameNum",
        "1",
        "2",
        "3",
        "4",
        "6",
        "x7f;;??",
        "8",
        "9",
        "10",
    ]
    assert lines[5].split(",")[5] == "NaN"
    others = [row.split(",")[5] for row in (*lines[1:5], *lines[7:])]
    assert all(abs(float(value) + 10) < 2 for value in others)


def test_same_seed_same_bytes_and_faults_leave_the_rest(small, tmp_path):
    spec = small.sensor.spec
    again = contents(simulate(tmp_path / "again", spec, SMALL_PLAN, faults=True).out)
    assert again == contents(small.out)
    clean = contents(simulate(tmp_path / "clean", spec, SMALL_PLAN).out)
    without = {name: data for name, data in again.items() if not name.startswith("Bias/T-10/attempt2/")}
    clean.pop("truth/truth.json")
    without.pop("truth/truth.json")
    assert clean == without
    other = contents(simulate(tmp_path / "other", spec, SMALL_PLAN, seed=4).out)
    changed = {name for name in clean if clean[name] != other[name]}
    # Another seed of the frames: the same sensor.
    assert {name for name in clean if name.endswith(".raw")} <= changed
    assert not any(name.endswith(".fits") for name in changed)


def test_the_written_plan_makes_the_campaign_again(small, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(json.loads((small.out / "truth/truth.json").read_text())["plan"]))
    assert main([str(tmp_path / "out"), "--plan", str(plan), "--faults"]) == 0
    assert contents(tmp_path / "out") == contents(small.out)


@pytest.mark.parametrize(
    ("bits", "expected", "highest"),
    [
        ("12left", {"BIT_DEPTH": "16", "PIXEL_FORMAT": "Mono16", "EGAIN": "0.125"}, 65520),
        ("12", {"BIT_DEPTH": "12", "PIXEL_FORMAT": "Mono12", "EGAIN": "2"}, 4095),
        ("16", {"BIT_DEPTH": "16", "PIXEL_FORMAT": "Mono16", "EGAIN": "0.8"}, 65535),
    ],
)
def test_converters_and_configs(tmp_path, capsys, bits, expected, highest):
    plan = tmp_path / "plan.json"
    # Light far above the converter's range, and wells without limit.
    light = {"temperatures": [0], "exposures": [1], "frames": 2, "flux": 3.0}
    plan.write_text(json.dumps({"flats": [light], "camera": {"full_well": 0, "nonlinearity": 0}}))
    out = tmp_path / "out"
    assert main([str(out), "--plan", str(plan), "--bits", bits, "--size", "6", "10", "--seed", "9"]) == 0
    attempt = out / "Flats/VIS/T0/1s/attempt1"
    assert config(attempt) == {
        "INSTRUME": "Simulated CMOS",
        "WIDTH": "10",
        "HEIGHT": "6",
        "BYTE_ORDER": "little",
        "FILTER": "VIS",
        **expected,
    }
    raw = np.fromfile(attempt / "frames/frame0001_exp1s.raw", "<u2")
    assert raw.size == 60
    assert np.median(raw) == highest
    assert "simulated 2 frames (0 with a fault) of 6 x 10" in capsys.readouterr().out


def test_eight_bits_are_one_byte(tmp_path):
    spec = SensorSpec(shape=(5, 7), bit_depth=8, left_justified=False, bias_level=30.0)
    truth = simulate(tmp_path, spec, {"bias": [{"temperatures": [0], "frames": 2}]})
    assert (tmp_path / truth.frames[0]["file"]).stat().st_size == 35
    assert config(tmp_path / "Bias/T0/attempt1")["PIXEL_FORMAT"] == "Mono8"
    assert abs(np.median(np.fromfile(tmp_path / truth.frames[0]["file"], "u1")) - 30) < 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "0", "5"], r"camera: shape: got \(0, 5\), expected two positive"),
        (["--seed", "-1"], "camera: seed: got -1, expected a whole number"),
        (["--frames", "0"], "--frames: got 0, expected 1 or more"),
    ],
)
def test_unusable_options_are_refused(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        main([str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_a_used_folder_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(OptionError, match="got a folder with 1 entries, expected a new or empty folder"):
        main([str(tmp_path)])
    with pytest.raises(OptionError, match=r"mine\.txt: got a file, expected a new or empty folder"):
        main([str(tmp_path / "mine.txt")])
    assert contents(tmp_path) == {"mine.txt": b"kept"}


def test_frames_option_holds_for_every_attempt(tmp_path):
    assert main([str(tmp_path / "out"), "--frames", "2", "--size", "3", "5"]) == 0
    numbers = {len(list(path.iterdir())) for path in (tmp_path / "out").rglob("frames")}
    assert numbers == {2}


@pytest.mark.parametrize("made_before", [False, True])
def test_a_full_disk_leaves_nothing(tmp_path, made_before):
    """A file size limit stands for the full disk: frames fit under it, the truth does not."""
    out = tmp_path / "out"
    if made_before:
        out.mkdir()
    code = (
        "import resource, signal, sys\n"
        "from utils.errors import OutputError\n"
        "from utils.kernels.sensor import SensorSpec\n"
        "from utils.simulate_campaign import simulate\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    plan = {'bias': [{'temperatures': [0], 'frames': 3}]}\n"
        "    simulate(sys.argv[1], SensorSpec(shape=(30, 40)), plan)\n"
        "except OutputError as error:\n"
        "    print(error.status, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, out], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"1 {out}: ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert (list(out.iterdir()) if made_before else out.exists()) == ([] if made_before else False)


def test_command_line():
    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )

    shown = run("-m", "utils.simulate_campaign", "--help")
    assert shown.returncode == 0
    assert "A plan is a JSON object" in shown.stdout
    assert shown.stderr == ""
    for script in (("-m", "utils.simulate_campaign"), ("utils/simulate_campaign.py",)):
        assert run(*script, "--version").stdout.strip().endswith(__version__)
    refused = run("-m", "utils.simulate_campaign", "utils")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert re.fullmatch(
        r".*utils: got a folder with \d+ entries, expected a new or empty folder\n", refused.stderr
    )
    wrong = run("-m", "utils.simulate_campaign", "out", "--bits", "13")
    assert wrong.returncode == 2
    assert re.fullmatch(r".*argument --bits: invalid choice: '13'.*\n", wrong.stderr)
    heavy = (
        "import sys, utils.simulate_campaign; print({'numpy', 'astropy', 'tqdm', 'scipy'} & set(sys.modules))"
    )
    assert run("-c", heavy).stdout == "set()\n"
