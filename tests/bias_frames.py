"""What the tests of the bias pipeline share: frames of the simulated sensor, runs in and out of process."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits

from bias_pipeline.run_pipeline import main
from utils.application.command import run_command
from utils.fits_io.fits_cards import card
from utils.kernels.sensor import Sensor, SensorSpec

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "realdata"
START = 1.7e9  # s, Unix time of the first frame
DAY = 86400.0

# What a full run of the small campaign in the fixture bias_campaign makes.
TEMPERATURES = (-20, -10, 0, 10, 20)
LABELS = ("-20.0", "-10.0", "0.0", "10.0", "20.0")
SHAPE = (32, 40)
MASTERS = {f"bias_grouped_by_temp/master_bias_{t}C.fits" for t in LABELS}
NOISE = {f"read_noise/read_noise_{t}C.fits" for t in LABELS} | {"read_noise/read_noise.fits"}
MODEL = {f"bias_model/{name}" for name in ("bias_a_map.fits", "bias_b_map.fits", "bias_ab_covariance.fits")}
SYNTHETIC = {f"bias_masks_by_temp/synthetic_bias_{t}C.fits" for t in LABELS}
TABLES = {
    "bias_grouped_by_temp/frame_levels.csv",
    "bias_model/bias_model.json",
    "evaluation/evaluation_summary.csv",
}
OF_RUN = {"run.json", "rejected_frames.csv", "summary.csv", "report.html"}


def write_frame(path, samples, **cards):
    """Write stored samples (uint16 or float32) as a FITS file, a bias at -10 degC unless cards say otherwise."""
    given = {"IMAGETYP": "Bias Frame", "CCD-TEMP": -10.0, "EXPTIME": 1e-5, "INSTRUME": "SIM"}
    given |= {key.replace("_", "-"): value for key, value in cards.items()}
    ny, nx = samples.shape
    lines = [card("SIMPLE", True), card("BITPIX", 16 if samples.dtype == np.uint16 else -32)]
    lines += [card("NAXIS", 2), card("NAXIS1", nx), card("NAXIS2", ny)]
    if samples.dtype == np.uint16:
        lines += [card("BZERO", 32768), card("BSCALE", 1)]
        stored = (samples ^ 0x8000).astype(">u2").tobytes()
    else:
        stored = samples.astype(">f4").tobytes()
    lines += [card(key, value) for key, value in given.items() if value is not None]
    head = ("".join(lines) + "END".ljust(80)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        head.ljust(-(-len(head) // 2880) * 2880) + stored.ljust(-(-len(stored) // 2880) * 2880, b"\0")
    )
    return path


def take(folder, sensor, temperatures, n, seed, *, drift=0.0, sessions=None, **cards):
    """Take n frames at each temperature, which drifts by ``drift`` degC within them; returns the paths.

    sessions : session of each temperature, two days apart; the truth is that of session 0.
    """
    rng = np.random.default_rng(seed)
    paths = []
    for k, middle in enumerate(temperatures):
        session = 0 if sessions is None else sessions[k]
        for i in range(n):
            # Read out to a hundredth of a degree, as cameras do; the sensor is at the same temperature.
            temperature = round(middle + drift * (i / max(n - 1, 1) - 0.5), 2)
            given = {"CCD_TEMP": temperature, "TIMESTMP": START + session * 2 * DAY + k * 600 + i * 2}
            samples = sensor.frame("bias", temperature, 1e-5, rng, session=session)
            paths.append(write_frame(folder / f"bias_{k:02d}_{i:03d}.fits", samples, **(given | cards)))
    return paths


def campaign(folder, *, shape=(32, 40), temperatures=(-20, -10, 0, 10, 20), n=6, seed=1, bits="12left"):
    """Take a small bias campaign in its own folder; returns the sensor."""
    sensor = Sensor(SensorSpec.preset(bits, shape=shape, seed=seed, row_noise=0.0))
    take(folder, sensor, temperatures, n, seed)
    return sensor


def run(*words, plots="none"):
    """Run the pipeline in this process; returns its exit status."""
    return run_command(main, [*(str(word) for word in words), "--plots", plots])


def command(*words, program="bias_pipeline/run_pipeline.py", **options):
    """Run a command as a process of its own from the repository root."""
    start = ["-m", program] if "/" not in program else [program]
    words = [sys.executable, *start, *(str(word) for word in words)]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, **options
    )


def files(folder):
    """All files below a folder, relative, with slashes; hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def rows(path):
    """Rows of a CSV file as dicts."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def record(out):
    """Content of run.json."""
    return json.loads((Path(out) / "run.json").read_text(encoding="utf-8"))


def content(path):
    """Everything in a FITS file but dates of writing and checksums: comparable with ==."""
    found = []
    with fits.open(path) as hdus:
        for hdu in hdus:
            cards = [
                tuple(card) for card in hdu.header.cards if card[0] not in ("DATE", "CHECKSUM", "DATASUM")
            ]
            found.append((cards, None if hdu.data is None else hdu.data.tobytes()))
    return found


def without_datasums(path):
    """As ``content``, the sums in the INPUTS table left out too (those of masters hold their dates)."""
    found = content(path)
    with fits.open(path) as hdus:
        for number, hdu in enumerate(hdus):
            if hdu.name == "INPUTS":
                table = [tuple(str(cell) for cell in row)[:-1] for row in hdu.data]
                found[number] = (found[number][0], table)
    return found


def same_products(one, other, names):
    for name in sorted(names):
        if name.endswith(".fits"):
            assert without_datasums(one / name) == without_datasums(other / name), name
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def only_line(capsys):
    """The one line on stderr of a refused run, without 'error: '."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in line
    return line.removeprefix("error: ")


def assert_whole(out):
    """Assert that no file of a folder is half-written: no temporary ones, every FITS file complete."""
    for name in files(out):
        assert not name.endswith(".tmp"), name
        if name.endswith(".fits"):
            # A wrong checksum warns, which is an error here.
            with fits.open(out / name, checksum=True) as hdus:
                assert all(hdu.data is not None for hdu in hdus)
