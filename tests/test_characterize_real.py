"""--mode characterize on published frames, and beside the emva1288 package on the same ones; skipped where absent."""

import csv
import json
import re

import numpy as np
import pytest
from astropy.io import fits
from bias_frames import REAL, START, write_frame
from flat_frames import run

EMVA = REAL / "emva1288_ref001_ccd12"
ORION = REAL / "orion_g3_astroluminance"
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
    slope = np.polyfit(signal[some], variance[some], 1)[0]
    assert slope == pytest.approx(0.272, abs=0.0015)
    assert found["line_slope"]["value"] == pytest.approx(slope, rel=1e-6)
    assert found["line_slope"]["levels"] == 3
    # No curve from the dark describes the levels (v / m falls by 4 % from 783 to 2291 DN and is as low at 16 DN), a line
    # with an offset does; the way through the dark is 3 % off and in the error.
    gain = found["gain"]
    assert 1.0 / gain["value"] == pytest.approx(0.272, abs=0.0015)
    assert found["photon_transfer"]["offset_of_its_own"] == pytest.approx(21.6, abs=1.0)
    assert not found["photon_transfer"]["response_taken_out"]
    assert gain["error"] / gain["value"] ** 2 > abs(found["system_gain_emva"]["value"] - 1.0 / gain["value"])
    assert any("does not meet the variance without light" in note for note in found["notes"])
    assert [row["use"] for row in levels].count("full well") == 2


def test_beside_the_emva1288_package(reference, monkeypatch):
    """The same means, variances, full scale, linearity and system gain K."""
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
    gain = found["system_gain_emva"]
    assert gain["value"] == pytest.approx(peer.K, rel=1e-4)
    assert gain["value"] == pytest.approx(0.2791, abs=0.0001)
    assert 0.001 < gain["error"] < 0.003


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
    assert found["gain_in_headers"]["value"] == pytest.approx(2.06)
    assert any("EGAIN of the frames is 2.06" in note for note in found["notes"])
    dark = found["dark_current"]
    assert (dark["temperature"], dark["value"]) == (
        pytest.approx(-5.0, abs=0.3),
        pytest.approx(0.37, abs=0.06),
    )
    assert 3.5 < found["doubling_temperature"]["value"] < 8.0


@pytest.mark.skipif(not ORION.is_dir(), reason="no frames of the Orion G3")
def test_flats_above_the_usual_range(tmp_path):
    """Flats of 49,000 ADU lie above 70 % of the converter's range: the gain is given all the same, and that is said.

    Even and odd rows change against one another from frame to frame (interlaced): differences of pairs give 0.02 to 0.52.
    """
    found = characterize(ORION, tmp_path)
    one, other = (fits.getdata(path).astype(float) for path in sorted(ORION.glob("Flats/*"))[:2])
    level = one.mean() - found["bias_level"]
    apart = (one - other)[:, 1:] - (one - other)[:, :-1]
    # Neighbours in a row; 43,000 differences: 0.6 %, and the bias is 14 degC away.
    assert found["gain"]["value"] == pytest.approx(level / (apart.var() / 4.0), rel=0.025)
    assert any("pattern of the light changes" in note for note in found["notes"])
    assert any("above 70 % of the range" in note for note in found["notes"])
