"""Campaigns with epochs, sky and satellite flats: what their frames hold against the truth that is written."""

import json

import numpy as np
import pytest
from astropy.io import fits

from utils.errors import OptionError
from utils.kernels.sensor import SensorSpec
from utils.raw_to_fits import convert_many
from utils.simulate_campaign import main, simulate

SHAPE = (48, 72)
SPEC = SensorSpec.bare(
    shape=SHAPE, seed=3, bit_depth=16, left_justified=False, bias_level=100.0, dark_rate=0.2, prnu=0.01
)
CHANGES = [
    {"kind": "dust", "day": 10, "x": 0.25, "y": 0.5, "radius": 0.06, "depth": 0.2},
    {"kind": "film", "days": [5, 20], "depths": [0, 0.1]},
    {"kind": "damage", "day": 20, "count": 9, "drop": 0.4},
    {"kind": "hot_pixels", "day": 10, "count": 20, "rate": 30.0, "anneal_day": 15, "annealed": 0.5},
]
EPOCHS = {
    "sessions": [0, 10, 20],
    "lamp": [1.0, 0.9, 1.1],
    "temperature_swing": [0.0, 2.0, 0.0],
    "darks": [{"temperatures": [5], "exposures": [10], "frames": 12, "session": [0, 1, 2]}],
    "flats": [{"temperatures": [5], "exposures": [2], "frames": 12, "flux": 0.05, "session": [0, 1, 2]}],
    "changes": CHANGES,
}


@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("epochs") / "out", SPEC, EPOCHS)


def stored(truth):
    return json.loads((truth.out / "truth/truth.json").read_text(encoding="utf-8"))


def truth_map(truth, name):
    return fits.getdata(truth.out / "truth" / f"{name}.fits").astype(float)


def frames_of(truth, **wanted):
    return [f for f in truth.frames if all(f[key] == value for key, value in wanted.items())]


def mean_of(truth, frames):
    data = [np.fromfile(truth.out / frame["file"], "<u2").reshape(SHAPE) for frame in frames]
    return np.mean(data, axis=0) - 100.0


def test_epochs_tell_what_is_there(epochs):
    told = stored(epochs)["epochs"]
    assert [(e["day"], e["lamp"], e["temperature_swing"]) for e in told] == [
        (0, 1.0, 0.0),
        (10, 0.9, 2.0),
        (20, 1.1, 0.0),
    ]
    assert np.diff([e["time"] for e in told]) == pytest.approx(10 * 86400)
    kinds = [{c["kind"] for c in e["changes"]} for e in told]
    assert kinds == [set(), {"dust", "film", "hot_pixels"}, {"dust", "film", "damage", "hot_pixels"}]
    (dust,) = (c for c in told[1]["changes"] if c["kind"] == "dust")
    assert (dust["x"], dust["y"], dust["depth"]) == (0.25 * 72 - 0.5, 0.5 * 48 - 0.5, 0.2)
    assert dust["radius"] == pytest.approx(0.06 * np.hypot(48, 72))
    film = [c["depth"] for e in told for c in e["changes"] if c["kind"] == "film"]
    assert film == pytest.approx([0.1 / 3, 0.1])
    hot = [{tuple(p) for p in c["pixels"]} for e in told for c in e["changes"] if c["kind"] == "hot_pixels"]
    assert [len(pixels) for pixels in hot] == [20, 10]
    assert hot[1] < hot[0]
    (damage,) = (c for c in told[2]["changes"] if c["kind"] == "damage")
    rows, columns = np.transpose(damage["pixels"])
    assert np.all(truth_map(epochs, "damage_S2")[rows, columns] == np.float32(0.6))


def test_maps_of_each_session_are_what_its_frames_show(epochs):
    names = {path.stem for path in (epochs.out / "truth").glob("*_S?.fits")}
    assert names == {"film_S1", "film_S2", "dust_S1", "dust_S2", "damage_S2", "dark_S1", "dark_S2"}
    response = truth_map(epochs, "response") * truth_map(epochs, "illumination")
    for session, damage in ((0, 1.0), (1, 1.0), (2, truth_map(epochs, "damage_S2"))):
        film = truth_map(epochs, f"film_S{session}") if session else 0.0
        dust = truth_map(epochs, f"dust_S{session}") if session else 1.0
        grown = truth_map(epochs, f"dark_S{session}") if session else 0.0
        for kind in ("dark", "flat"):
            frames = frames_of(epochs, kind=kind, session=session)
            rate = [(0.2 + grown) * 2 ** (f["temperature"] / 6.5) * f["exposure"] for f in frames]
            light = [(f["level"] or 0) * response * (1 - film) * dust * damage for f in frames]
            expected = np.mean(rate, axis=0) + np.mean(light, axis=0)
            pull = (mean_of(epochs, frames) - expected) / np.sqrt((expected / 2 + 1 / 12) / len(frames))
            assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
            assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)
    lamp = [f["level"] / (0.05 * 65535 * f["exposure"]) for f in frames_of(epochs, kind="flat")[::12]]
    assert lamp == pytest.approx([1.0, 0.9, 1.1])


def test_converted_frames_carry_the_dates(epochs):
    convert_many(None, None, epochs.out / "Flats", skip_bias=True, skip_dark=True)
    paths = sorted((epochs.out / "Flats").rglob("*.fits"))
    assert len(paths) == 36
    cards = [fits.getheader(path) for path in paths]
    expected = {"2024-03-01": 12, "2024-03-11": 12, "2024-03-21": 12}
    assert {day: sum(c["DATE-OBS"].startswith(day) for c in cards) for day in expected} == expected
    times = sorted(f["time"] for f in frames_of(epochs, kind="flat"))
    assert sorted(float(c["TIMESTMP"]) for c in cards) == pytest.approx(times)


def gaussian_stars(stars, frame, fwhm):
    """Light of catalogued stars in one frame [ADU], by the sum over all of them."""
    sigma = fwhm / np.sqrt(8 * np.log(2))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = np.zeros(SHAPE)
    for x0, y0, flux in zip(stars["x"], stars["y"], stars["flux"], strict=True):
        r2 = (x - x0 - frame["dither"][0]) ** 2 + (y - y0 - frame["dither"][1]) ** 2
        light += flux * frame["star_scale"] * np.exp(-0.5 * r2 / sigma**2) / (2 * np.pi * sigma**2)
    return light


def test_sky_and_satellite_flats_against_their_truth(tmp_path):
    group = {"temperatures": [5], "exposures": [2], "frames": 8, "flux": 0.01}
    plan = {
        "flats": [
            {**group, "type": "sky", "light_scatter": 0.2},
            {**group, "type": "satellite", "cosmic": 2e-3, "light_drift": 0.3, "filter": "UV"},
        ],
        "stars": {"count": 20, "dither": 6, "psf": "gaussian", "fwhm": 2.5},
        "led": {"height": 0.3},
    }
    truth = simulate(tmp_path / "out", SPEC, plan)
    response = truth_map(truth, "response") * truth_map(truth, "illumination")
    dark = 0.2 * 2 ** (5 / 6.5) * 2

    sky = frames_of(truth, type="sky")
    assert all(f["file"].startswith("SkyFlats/VIS/T5/2s/attempt1/") for f in sky)
    assert np.std([f["level"] for f in sky]) > 0.05 * sky[0]["level"]
    stars = stored(truth)["stars"]
    for frame in sky:
        stars_light = gaussian_stars(stars, frame, fwhm=2.5)
        assert np.sum(stars_light > 0.2 * frame["level"]) > 20
        expected = dark + (frame["level"] + stars_light) * response
        pull = (mean_of(truth, [frame]) - expected) / np.sqrt(expected / 2 + 1 / 12)
        assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
        assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)

    led, satellite = truth_map(truth, "led_UV"), frames_of(truth, type="satellite")
    assert led.mean() == pytest.approx(1, abs=1e-6)
    assert satellite[-1]["level"] / satellite[0]["level"] == pytest.approx(
        (1 + 0.3 * 3.5 / 8) / (1 - 0.3 * 3.5 / 8)
    )
    hit = sum(f["cosmic_pixels"] for f in satellite)
    tracks = 2e-3 * 8 * SHAPE[0] * SHAPE[1]
    assert abs(hit / (1.875 * tracks) - 1) < 5 * 1.15 / np.sqrt(tracks) + 0.05
    for frame in satellite:
        expected = dark + frame["level"] * response * led
        pull = (mean_of(truth, [frame]) - expected) / np.sqrt(expected / 2 + 1 / 12)
        low, middle, high = np.percentile(pull, [15.87, 50, 84.13])
        assert abs(middle) < 5 * 1.25 / np.sqrt(pull.size)
        assert abs((high - low) / 2 - 1) < 5 * 1.2 / np.sqrt(2 * pull.size)


def test_underexposed_and_saturated_flats(tmp_path):
    group = {"temperatures": [5], "exposures": [0.01, 2, 8], "frames": 2, "flux": 0.3}
    truth = simulate(tmp_path / "out", SensorSpec(shape=SHAPE, seed=2), {"flats": [group]})
    means, spreads = [], []
    for exposure in (0.01, 2, 8):
        frames = frames_of(truth, kind="flat", label=5)
        pair = [f for f in frames if abs(f["exposure"] - exposure) < 1e-3]
        one, other = (np.fromfile(truth.out / f["file"], "<u2").reshape(SHAPE) / 16.0 for f in pair)
        means.append(np.median(one))
        spreads.append(1.4826 * np.median(np.abs(one - other - np.median(one - other))))
    assert means[0] < 130
    assert 0.5 < means[1] / 4095 < 0.65
    # The wells are full below the converter's end, and the photon noise is gone.
    assert 0.9 < means[2] / 4095 < 0.98
    assert spreads[2] < 3 < 20 < spreads[1]


def test_a_named_plan_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(out), "--plan", "epochs", "--size", "40", "40", "--frames", "1"]) == 0
    assert "simulated 60 frames" in capsys.readouterr().out
    written = json.loads((out / "truth/truth.json").read_text(encoding="utf-8"))
    assert [len(e["changes"]) for e in written["epochs"]] == [0, 1, 3, 5, 6, 6]
    assert main([str(tmp_path / "flats"), "--plan", "flats", "--size", "20", "24", "--frames", "1"]) == 0
    assert {p.name for p in (tmp_path / "flats").iterdir()} == {
        *("Bias", "Darks", "Flats", "SkyFlats", "SatelliteFlats", "truth")
    }
    with pytest.raises(OptionError, match=r"camera: session: got 2, expected 0 to 1"):
        simulate(tmp_path / "no", SensorSpec(shape=(4, 4)), EPOCHS)


def test_a_change_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"plan: damage: got Damage.*, expected to fit into 2 x 3 pixels"):
        simulate(tmp_path / "out", SensorSpec.bare(shape=(2, 3)), EPOCHS)
    assert not (tmp_path / "out").exists()
