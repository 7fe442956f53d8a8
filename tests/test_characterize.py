"""--mode characterize on simulated cameras: the numbers of detector.json against the truth, tables, sheet, refusals."""

import csv
import json
import math

import numpy as np
import pytest
from astropy.io import fits
from flat_frames import START, run, sensor, take

from bias_pipeline.run_pipeline import main as bias_main
from dark_pipeline.run_pipeline import main as dark_main
from utils.application.command import run_command
from utils.domain.detector import Detector, Measured
from utils.errors import InputError
from utils.kernels.scene import Scene
from utils.kernels.sensor import poisson
from utils.plan_campaign import main as plan_main

SHAPES = ((72, 96), (96, 80))
LEVELS = (60, 300, 600, 900, 1200, 1500, 1800, 2100, 2400, 2700, 3000, 3300, 4500, 5200)
PER_SECOND = 300.0
LINES = {"row_noise": 0.3, "column_noise": 0.2, "prnu_row": 0.004, "prnu_column": 0.003, "dust_count": 0}


def camera_of(shape, seed, **terms):
    return sensor(shape, seed, **(LINES | terms))


def campaign(folder, camera, seed, *, n=4, levels=LEVELS, bias_n=20, darks=True, exposure=None):
    """Biases at 0 degC, darks at three temperatures, flats at 0 degC; exposure : the same for all flats [s]."""
    if bias_n:
        take(folder, camera, "bias", [(0.0, 1e-5, bias_n, None), (10.0, 1e-5, bias_n, None)], [seed, 1])
    if darks:
        plan = [(T, e, 6, None) for T in (0.0, 5.0, 10.0) for e in (5.0, 20.0, 60.0)]
        take(folder, camera, "dark", plan, [seed, 2], start=START + 3600)
    plan = [(0.0, exposure or level / PER_SECOND, n, level) for level in levels]
    take(folder, camera, "flat", plan, [seed, 3], start=START + 9000, jitter=0.0003, drift=0.0)
    return folder


def characterize(folder, out, *words, plots="none"):
    return run("--mode", "characterize", "--basepath", folder, "--output-dir", out, *words, plots=plots)


def content(out):
    return json.loads((out / "detector.json").read_text())


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def characterised(request, tmp_path_factory):
    """Camera and detector.json of one size and seed; every second camera is bent all along."""
    shape = SHAPES[request.param % 2]
    camera = camera_of(shape, 20 + request.param, gain_droop=0.02 * (request.param // 2))
    folder = tmp_path_factory.mktemp("camera")
    campaign(folder / "in", camera, request.param)
    assert characterize(folder / "in", folder / "out") == 0
    return camera, content(folder / "out"), folder


def within(entry, true, floor=0.0):
    """Whether a number lies within four of its errors of the truth."""
    return abs(entry["value"] - true) < 4.0 * entry["error"] + floor


def test_gain_read_noise_and_full_well(characterised):
    camera, found, _ = characterised
    spec = camera.spec
    assert within(found["gain"], camera.gain)
    # 12 levels of 4 frames, about 5000 pixels: 0.3 %.
    assert found["gain"]["error"] < 0.005 * camera.gain
    ordinary = np.square(camera.read_noise_map[~camera.telegraph].astype(float)).mean()
    read = math.sqrt(ordinary + spec.row_noise**2 + spec.column_noise**2)
    assert within(found["read_noise"], read)
    assert found["read_noise"]["error"] < 0.01 * read
    assert found["full_well"]["value"] == pytest.approx(
        camera.measured_charge(1e6).mean() / camera.gain, rel=0.002
    )
    assert found["full_well_from"] == "plateau"
    assert found["brighter_fatter_a00"] is None
    assert found["saturation"]["value"] == pytest.approx(found["full_well"]["value"] + found["bias_level"])


def test_linearity_to_a_tenth_of_a_percent(characterised):
    camera, found, _ = characterised
    spec, line = camera.spec, found["linearity"]
    charge = np.linspace(1.0, 7500.0, 5000)
    part = charge / spec.full_well
    true = -spec.nonlinearity * part**6 - spec.gain_droop * part
    expected = np.interp(line["signal"], charge * (1.0 + true) / spec.gain, true)
    away = np.array(line["deviation_percent"]) / 100.0 - expected
    error = np.array(line["error_percent"]) / 100.0
    assert np.all(np.abs(away) < 0.001 + 4.0 * error)
    assert np.median(error) < 0.0015
    low, high = line["usable_range"]
    assert low < 100
    assert high > (1000 if spec.gain_droop else 2500)
    assert line["emva_least_percent"] <= 0 <= line["emva_largest_percent"]


def test_temporal_noise_of_rows_and_columns(characterised):
    camera, found, folder = characterised
    temporal, spec = found["temporal"], camera.spec
    for name, true in (("row", spec.row_noise), ("column", spec.column_noise)):
        assert abs(temporal[name] - true) < 4.0 * temporal[f"{name}_error"]
        assert temporal[f"{name}_error"] < 0.05 * true
    rows = table(folder / "out", "binned_noise")
    many = rows[-1]
    # 64 x 64 pixels: rows and columns are most of what is left.
    pixel = math.hypot(spec.read_noise, 12**-0.5) / 64.0
    left = math.hypot(spec.row_noise, spec.column_noise) / 8.0
    assert float(many["noise"]) == pytest.approx(math.hypot(left, pixel), rel=0.1)
    assert float(many["noise_of_pixels_alone"]) < 0.6 * float(many["noise"])


def test_non_uniformity(characterised):
    camera, found, _ = characterised
    prnu, dsnu, spec = found["prnu"], found["dsnu"], camera.spec
    ny, nx = camera.shape
    # The scatter of so few rows and columns about that of their population.
    for name, true, count in (("row", 0.4, ny), ("column", 0.3, nx)):
        assert abs(prnu[name] - true) < 4.0 * (true / math.sqrt(2 * count) + prnu[f"{name}_error"])
    # Pixels of low quantum efficiency within 8 sigma of the others count.
    assert prnu["pixel"] == pytest.approx(100.0 * spec.prnu, rel=0.08)
    assert prnu["all_pixels"] > prnu["total"]
    for name, true, count in (("row", 0.8, ny), ("column", 1.2, nx)):
        assert abs(dsnu[name] - true) < 4.0 * (true / math.sqrt(2 * count) + dsnu[f"{name}_error"])
    assert dsnu["pixel"] == pytest.approx(spec.bias_pixel, rel=0.03)


def test_dark_current_and_doubling_temperature(characterised):
    camera, found, _ = characterised
    dark = found["dark_current"]
    true = float(np.mean(camera.true_dark_rate(0.0, 60.0)[~(camera.hot | camera.warm)]))
    # A few warm pixels remain; gamma bends the line by 2 %.
    assert dark["value"] == pytest.approx(true, rel=0.05)
    assert dark["from_variance"]["value"] == pytest.approx(true, rel=0.1)
    assert dark["t"] == pytest.approx([0.0, 5.0, 10.0], abs=0.01)
    assert found["doubling_temperature"]["value"] == pytest.approx(camera.spec.dark_doubling, rel=0.03)


def table(out, name):
    with open(out / "characterization" / f"{name}.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_group_has_its_row(characterised):
    _, found, folder = characterised
    rows = table(folder / "out", "levels")
    assert [row["kind"] for row in rows].count("flat") == len(LEVELS)
    assert [row["kind"] for row in rows].count("dark") == 9
    uses = [row["use"] for row in rows if row["kind"] == "flat"]
    assert uses.count("gain") == found["photon_transfer"]["levels"]
    assert uses[-2:] == ["full well", "full well"]
    assert {row["pattern"] for row in table(folder / "out", "spectra")} == {"dsnu", "prnu"}


def test_detector_is_read_by_the_pipelines(characterised, tmp_path):
    _, found, folder = characterised
    detector = folder / "out" / "detector.json"
    assert Detector.load(detector).gain.value == found["gain"]["value"]
    words = [
        "--basepath",
        str(folder / "in"),
        "--output-dir",
        str(tmp_path / "bias"),
        "--detector",
        str(detector),
    ]
    assert run_command(bias_main, [*words, "--mode", "make_master", "--plots", "none"]) == 0
    product = next((tmp_path / "bias" / "bias_grouped_by_temp").glob("*.fits"))
    assert fits.getheader(product)["EGAIN"] == pytest.approx(found["gain"]["value"])
    words[3] = str(tmp_path / "flat")
    assert run(*words, "--mode", "make_master") == 0
    product = next((tmp_path / "flat" / "master_flat").glob("*.fits"))
    assert fits.getheader(product)["EGAIN"] == pytest.approx(found["gain"]["value"])


def test_dark_pipeline_reads_the_detector(tmp_path):
    camera = camera_of((24, 32), 9)
    plan = [(0.0, 1e-5, 6, None)], [(0.0, e, 5, None) for e in (10.0, 40.0)]
    take(tmp_path / "in", camera, "bias", plan[0], 1)
    take(tmp_path / "in", camera, "dark", plan[1], 2, start=START + 3600)
    Detector(Measured(1.87, 0.01, "e-/adu"), 16.0).write(tmp_path / "detector.json")
    words = ["--basepath", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"), "--plots", "none"]
    # One temperature: maps, and no model.
    assert run_command(dark_main, [*words, "--detector", str(tmp_path / "detector.json")]) == 1
    product = next((tmp_path / "out" / "dark_masks_by_temp").rglob("*.fits"))
    assert fits.getheader(product)["EGAIN"] == pytest.approx(1.87)


def test_plan_takes_the_camera(characterised, capsys):
    _, found, folder = characterised
    words = ["--detector", str(folder / "out" / "detector.json"), "--temps", "0 10", "--exptimes", "10 60"]
    assert plan_main(words) == 0
    shown = capsys.readouterr().out
    assert f"gain {found['gain']['value']:g}" in shown
    assert f"doubled by {found['doubling_temperature']['value']:g}" in shown


def test_result_does_not_depend_on_jobs_or_memory(characterised, tmp_path):
    _, found, folder = characterised
    assert characterize(folder / "in", tmp_path, "--jobs", "3", "--memory-limit", "16MB") == 0
    again = content(tmp_path)
    again.pop("date"), found.pop("date", None)
    # Sums of float32 in another order.
    assert same(again, found)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-5, abs=1e-9)
    return one == other


def test_pictures_and_sheet(tmp_path):
    camera = camera_of((48, 64), 3)
    campaign(tmp_path / "in", camera, 3, n=2)
    assert characterize(tmp_path / "in", tmp_path / "out", plots="summary") == 0
    page = (tmp_path / "out" / "detector_sheet.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 4
    for words in ("gain", "read noise", "full well above bias", "PRNU, row", "Temporal variance", "e-/adu"):
        assert words in page
    made = {path.name for path in (tmp_path / "out" / "characterization").glob("*.png")}
    assert made == {"photon_transfer.png", "linearity.png", "dsnu_spectra.png", "prnu_spectra.png"}


def notes_of(out):
    return " | ".join(content(out)["notes"])


def test_one_exposure_tells_no_linearity(tmp_path):
    camera = camera_of((48, 64), 4, nonlinearity=0.0)
    campaign(tmp_path / "in", camera, 4, levels=(1500,), exposure=2.0, darks=False, n=6)
    assert characterize(tmp_path / "in", tmp_path / "out") == 0
    found = content(tmp_path / "out")
    assert found["linearity"] is None
    assert found["full_well"] is None
    assert found["dark_current"] is None
    for words in ("linearity not told", "gain from 1 level", "full well not reached", "no darks"):
        assert words in notes_of(tmp_path / "out")
    assert within(found["gain"], camera.gain)


def test_without_bias_frames_the_darks_serve(tmp_path):
    camera = camera_of((48, 64), 5)
    folder = tmp_path / "in"
    exposures = [level / PER_SECOND for level in LEVELS[:8]]
    take(folder, camera, "dark", [(0.0, e, 6, None) for e in exposures], 6, start=START + 3600)
    plan = [(0.0, e, 4, level) for e, level in zip(exposures, LEVELS, strict=False)]
    take(folder, camera, "flat", plan, 7, start=START + 9000)
    assert characterize(folder, tmp_path / "out") == 0
    found = content(tmp_path / "out")
    assert within(found["gain"], camera.gain, floor=0.01)
    assert "noise without light from darks of 0.2 s" in notes_of(tmp_path / "out")
    assert "DSNU not told" in notes_of(tmp_path / "out")


def test_single_flats_tell_no_gain(tmp_path):
    """No gain is a product missing, status 1; what single frames tell is told."""
    camera = camera_of((48, 64), 6)
    campaign(tmp_path / "in", camera, 8, n=1, levels=(*LEVELS, 6000), darks=False)
    assert characterize(tmp_path / "in", tmp_path / "out", plots="summary") == 1
    found = content(tmp_path / "out")
    assert found["gain"] is None
    assert found["read_noise_electrons"] is None
    assert "gain not told: no group has two flats" in notes_of(tmp_path / "out")
    # Three levels of longer exposures are no brighter.
    assert found["full_well_from"] == "no brighter"
    assert found["full_well"]["value"] == pytest.approx(camera.measured_charge(1e6).mean() / 2.0, rel=0.002)
    line = found["linearity"]
    assert np.abs(line["deviation_percent"][:8]).max() < 1.0
    with pytest.raises(InputError, match='got no "gain"'):
        Detector.load(tmp_path / "out" / "detector.json")


def test_saturated_flats_tell_nothing(tmp_path):
    camera = camera_of((48, 64), 6)
    campaign(tmp_path / "in", camera, 8, levels=(4500, 5200, 6000), darks=False)
    assert characterize(tmp_path / "in", tmp_path / "out") == 1
    found = content(tmp_path / "out")
    assert found["gain"] is found["prnu"] is found["linearity"] is None
    for words in ("gain not told: no level", "PRNU not told", "full well not told", "linearity not told"):
        assert words in notes_of(tmp_path / "out")


def test_settings_of_a_lamp_at_one_exposure_are_levels(tmp_path):
    """Taken as one group, levels of 60 to 3300 ADU gave a gain 10 sigma off."""
    camera = camera_of((72, 96), 11, nonlinearity=0.0)
    campaign(tmp_path / "in", camera, 11, exposure=2.0, darks=False)
    assert characterize(tmp_path / "in", tmp_path / "out") == 0
    found = content(tmp_path / "out")
    assert within(found["gain"], camera.gain)
    assert found["photon_transfer"]["levels"] >= 7
    assert found["linearity"] is None
    assert found["full_well_from"] == "plateau"


def test_light_that_moves_between_frames_does_not_enter(tmp_path):
    """A tilt of 2 % from frame to frame is a fifth of the variance at 2500 ADU."""
    camera = camera_of((72, 96), 12, nonlinearity=0.0)
    tilt = np.broadcast_to(np.linspace(-1.0, 1.0, 96, dtype=np.float32), (72, 96))
    take(tmp_path / "in", camera, "bias", [(0.0, 1e-5, 20, None)], 1)
    plan = [(0.0, level / PER_SECOND, 4, level) for level in LEVELS[1:10]]
    scene = dict(scene=lambda i: Scene(pattern=1.0 + 0.02 * (i % 2) * tilt))
    take(tmp_path / "in", camera, "flat", plan, 2, start=START + 9000, drift=0.0, **scene)
    assert characterize(tmp_path / "in", tmp_path / "out") == 0
    assert within(content(tmp_path / "out")["gain"], camera.gain)
    assert "the pattern of the light changes between frames" in notes_of(tmp_path / "out")


def test_mosaic_of_colours_is_measured_in_one(tmp_path):
    camera = camera_of((72, 96), 13, nonlinearity=0.0)
    mosaic = np.ones((72, 96), np.float32)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 0.45, 0.6
    take(tmp_path / "in", camera, "bias", [(0.0, 1e-5, 20, None)], 1)
    plan = [(0.0, level / PER_SECOND, 4, level) for level in LEVELS[1:]]
    take(
        tmp_path / "in", camera, "flat", plan, 2, start=START + 9000, drift=0.0,
        scene=lambda i: Scene(pattern=mosaic),
    )  # fmt: skip
    assert characterize(tmp_path / "in", tmp_path / "out") == 0
    found = content(tmp_path / "out")
    assert within(found["gain"], camera.gain)
    assert found["full_well_from"] == "plateau"
    assert found["prnu"]["pixel"] == pytest.approx(1.0, rel=0.15)
    assert "a mosaic of colours" in notes_of(tmp_path / "out")


def test_gain_of_the_headers_that_is_not_that_of_the_frames(tmp_path):
    """EGAIN is per stored unit, of which 16 make an ADU."""
    camera = camera_of((72, 96), 14)
    for name, egain in (("right", 2.0 / 16.0), ("wrong", 1.7 / 16.0)):
        take(tmp_path / name, camera, "bias", [(0.0, 1e-5, 20, None)], 1, EGAIN=egain)
        plan = [(0.0, level / PER_SECOND, 4, level) for level in LEVELS[1:8]]
        take(tmp_path / name, camera, "flat", plan, 2, start=START + 9000, drift=0.0, EGAIN=egain)
        assert characterize(tmp_path / name, tmp_path / f"{name}_out") == 0
    assert content(tmp_path / "wrong_out")["gain_in_headers"]["value"] == pytest.approx(1.7)
    assert "EGAIN of the frames is 1.7 e-/ADU" in notes_of(tmp_path / "wrong_out")
    assert "EGAIN" not in notes_of(tmp_path / "right_out")


def test_frames_of_a_broken_transfer_are_left_out(tmp_path):
    camera = camera_of((48, 64), 7)
    campaign(tmp_path / "in", camera, 9, n=4, levels=(300, 600, 1200, 1800, 2400), darks=False)
    path = sorted((tmp_path / "in" / "flat").glob("*.fits"))[5]
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[10:20] = 0
    paths = sorted((tmp_path / "in" / "flat").glob("*.fits"))
    paths[0].write_bytes(paths[0].read_bytes()[:4000])
    assert characterize(tmp_path / "in", tmp_path / "out") == 0
    with open(tmp_path / "out" / "rejected_frames.csv", newline="", encoding="utf-8") as stream:
        rows = {row["path"]: row["reason"] for row in csv.DictReader(stream)}
    assert set(rows) == {str(paths[0]), str(path)}
    assert rows[str(path)].startswith("ZERO_BLOCK")
    assert within(content(tmp_path / "out")["gain"], camera.gain)


def test_light_and_bias_that_scatter_less_than_a_step(tmp_path):
    """Read noise of 0.45 steps: variances of integers, where a median of differences is 0 or 1."""
    camera = camera_of((64, 64), 8, read_noise=0.45, row_noise=0.0, column_noise=0.0, bias_pixel=2.0)
    campaign(tmp_path / "in", camera, 10, levels=(60, 300, 900, 1500, 2100), darks=False)
    assert characterize(tmp_path / "in", tmp_path / "out") == 0
    found = content(tmp_path / "out")
    true = math.sqrt(np.square(camera.read_noise_map[~camera.telegraph].astype(float)).mean())
    assert within(found["read_noise"], true, floor=0.005)
    assert within(found["gain"], camera.gain)


def test_brighter_fatter_is_written_where_it_is(tmp_path):
    """16 bits, 50,000 e-, pixels that push 4 % of the variance of full ones away."""
    from bias_frames import write_frame

    rng = np.random.default_rng(12)
    shape, gain, a00 = (160, 160), 1.5, -8e-7
    for i in range(20):
        samples = np.rint(1000.0 + 4.0 * rng.standard_normal(shape)).astype(np.uint16)
        write_frame(tmp_path / "in" / f"bias_{i:02d}.fits", samples, CCD_TEMP=0.0, TIMESTMP=START + i)
    for number, level in enumerate(np.linspace(2000.0, 33000.0, 12)):
        charge = gain * level
        narrow = math.sqrt((math.exp(2 * a00 * charge) - 1) / (2 * a00 * charge))
        for i in range(4):
            electrons = charge + narrow * (poisson(np.full(shape, charge, np.float32), rng) - charge)
            samples = np.rint(1000.0 + electrons / gain + 4.0 * rng.standard_normal(shape)).astype(np.uint16)
            cards = {"IMAGETYP": "Flat Frame", "EXPTIME": float(level / 1000.0), "CCD_TEMP": 0.0}
            name = f"flat_{number:02d}_{i}.fits"
            write_frame(tmp_path / "in" / name, samples, TIMESTMP=START + 100 + 10 * number + i, **cards)
    assert characterize(tmp_path / "in", tmp_path / "out") == 0
    found = content(tmp_path / "out")
    assert within(found["gain"], gain)
    assert within(found["brighter_fatter_a00"], a00)
    assert found["brighter_fatter_a00"]["value"] < 0
