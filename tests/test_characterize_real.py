"""--mode characterize on published frames, and beside the emva1288 package on the same ones; skipped where absent."""

import csv
import json
import re

import numpy as np
import pytest
from bias_frames import REAL, START, write_frame
from flat_frames import run

EMVA = REAL / "emva1288_ref001_ccd12"
STL = REAL / "stl1001_ast443"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="no real frames beside the repository")


def listed():
    """Frames of the reference set that are there: (path, kind, exposure in ns, photons)."""
    found, kind, exposure, photons = [], "", 0.0, 0.0
    for line in (EMVA / "EMVA1288_Data.txt").read_text().splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in ("b", "d"):
            kind, exposure = words[0], float(words[1])
            photons = float(words[2]) if kind == "b" else 0.0
        name = re.match(r"i images\\(.*\.png)", line)
        if name and (EMVA / "images" / name[1]).is_file():
            found.append((EMVA / "images" / name[1], kind, exposure, photons))
    return found


def characterize(folder, out):
    assert run("--mode", "characterize", "--basepath", folder, "--output-dir", out) == 0
    return json.loads((out / "detector.json").read_text())


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """detector.json and levels of the CCD of the reference set; its shortest darks stand for biases."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("emva")
    for number, (path, kind, exposure, _) in enumerate(listed()):
        samples = np.asarray(image.open(path)).astype(np.uint16)
        what = "Flat" if kind == "b" else "Bias" if exposure == 40000.0 else "Dark"
        cards = {"IMAGETYP": f"{what} Frame", "EXPTIME": exposure * 1e-9, "CCD_TEMP": 25.0, "BITDEPTH": 12}
        write_frame(folder / "in" / f"{path.stem}.fits", samples, TIMESTMP=START + number, **cards)
    found = characterize(folder / "in", folder / "out")
    with open(folder / "out" / "characterization" / "levels.csv", newline="", encoding="utf-8") as stream:
        levels = [row for row in csv.DictReader(stream) if row["kind"] == "flat"]
    return found, levels


def test_reference_camera(reference):
    """Saturation 4080 DN above the dark; variance grows by 0.272 from level to level between 3 and 60 % of it."""
    found, levels = reference
    assert found["full_well"]["value"] == pytest.approx(4080.2, abs=0.5)
    assert found["limited_by_converter"]
    signal = np.array([float(row["signal"]) for row in levels])
    variance = np.array([float(row["variance"]) for row in levels])
    some = (signal > 0.03 * 4080) & (signal < 0.6 * 4080)
    assert np.polyfit(signal[some], variance[some], 1)[0] == pytest.approx(0.272, abs=0.0015)
    # With the variance in the dark, and as the levels scatter about any curve by 2 %: said, and in the error.
    gain = found["gain"]
    assert abs(1.0 / gain["value"] - 0.272) < 4.0 * gain["error"] / gain["value"] ** 2
    assert found["photon_transfer"]["error_factor"] > 2.0
    assert [row["use"] for row in levels].count("full well") == 2


def test_beside_the_emva1288_package(reference, monkeypatch):
    """The same means, variances, full scale and linearity; gain within their different weights."""
    pytest.importorskip("emva1288")
    # Removed in numpy 2, which the package does not know.
    monkeypatch.setattr(np, "asfarray", lambda a: np.asarray(a, float), raising=False)
    from emva1288.process.data import Data1288
    from emva1288.process.loader import LoadImageData
    from emva1288.process.results import Results1288

    images = {}
    for path, _, exposure, photons in listed():
        images.setdefault(exposure, {}).setdefault(photons, []).append(str(path))
    half = sorted(images)[3]
    loaded = LoadImageData({"temporal": images, "spatial": {half: images[half]}}, loglevel=40)
    peer = Results1288(Data1288(loaded.data, loglevel=40).data, loglevel=40)
    found, levels = reference
    signal = np.array([float(row["signal"]) for row in levels])
    variance = np.array([float(row["variance"]) for row in levels])
    np.testing.assert_allclose(signal, peer.temporal["u_y"] - peer.temporal["u_ydark"], rtol=1e-4)
    np.testing.assert_allclose(variance, peer.temporal["s2_y"], rtol=1e-4)
    line = found["linearity"]
    assert line["emva_least_percent"] == pytest.approx(peer.LE_min, abs=0.002)
    assert line["emva_largest_percent"] == pytest.approx(peer.LE_max, abs=0.002)
    assert found["saturation_emva"]["value"] == pytest.approx(signal[peer.index_u_ysat])
    read = found["read_noise"]
    assert read["value"] == pytest.approx(np.sqrt(peer.sigma_y_dark**2 - 1 / 12), abs=4 * read["error"])
    # All levels count alike there, the brightest most.
    assert 1.0 / found["gain"]["value"] == pytest.approx(peer.K, rel=0.015)


@pytest.mark.skipif(not STL.is_dir(), reason="no frames of the STL-1001")
def test_flats_of_one_exposure(tmp_path):
    """Ten flats of 20,000 ADU: 1.91 to 1.94 e-/ADU from pairs, 2.06 in the header."""
    found = characterize(STL / "2017_CelestialGoonSquad", tmp_path)
    gain = found["gain"]
    assert 1.91 - 2 * gain["error"] < gain["value"] < 1.94 + 2 * gain["error"]
    assert gain["error"] < 0.01
    assert 6.0 < found["read_noise"]["value"] < 6.9
    assert found["linearity"] is None
    assert found["full_well"] is None
    dark = found["dark_current"]
    assert (dark["temperature"], dark["value"]) == (
        pytest.approx(-5.0, abs=0.3),
        pytest.approx(0.37, abs=0.06),
    )
    assert 3.5 < found["doubling_temperature"]["value"] < 8.0
