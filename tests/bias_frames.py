"""What the tests of the bias pipeline share: frames of the simulated sensor, runs in and out of process."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from bias_pipeline.run_pipeline import main
from utils.application.command import run_command
from utils.fits_io.fits_cards import card
from utils.kernels.sensor import Sensor, SensorSpec

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "realdata"
START = 1.7e9  # s, Unix time of the first frame
DAY = 86400.0


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
