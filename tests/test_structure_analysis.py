"""The structure analysis as a command: what it finds, tables, maps, faults by the status table."""

import numpy as np
import pytest
from astropy.io import fits
from bias_frames import DAY, START, files, rows, write_frame

from structure_analysis import main
from utils.application.command import run_command
from utils.fits_io.product_reader import read_product
from utils.kernels.detector_history import Damage, Dust, History
from utils.kernels.scene import Scene
from utils.kernels.sensor import Sensor, SensorSpec

SHAPE = (72, 96)
EPOCHS, FRAMES, DAYS = 5, 3, 10.0


def campaign(folder, *, changes=(), seed=1, masters=True, swing=0.0, exposures=(1.0,), **cards):
    """Flats of five visits, with bias and darks; the lamp differs by some per cent from visit to visit."""
    sensor = Sensor(SensorSpec.preset("12left", shape=SHAPE, seed=seed))
    history, rng = History(SHAPE, changes, seed=seed), np.random.default_rng(seed)
    number = 0

    def take(kind, temperature, exposure, day, level=None, **more):
        nonlocal number
        number += 1
        temperature = round(temperature + rng.uniform(-0.1, 0.1), 2)
        scene = Scene(state=history.at(day), cosmic=5e-5)
        samples = sensor.frame(kind, temperature, exposure, rng, level=level, scene=scene)
        given = {"IMAGETYP": kind.title(), "EXPTIME": exposure, "CCD_TEMP": temperature, "FILTER": "V"}
        given["TIMESTMP"] = START + day * DAY + 5.0 * number
        return write_frame(folder / kind / f"{kind}_{number:03d}.fits", samples, **(given | more | cards))

    for temperature in (10.0, 10.0 + swing) if swing else (10.0,):
        for _ in range(10 if masters else 0):
            take("bias", temperature, 1e-5, 0.0)
            take("dark", temperature, 1.0, 0.0)
    for epoch in range(EPOCHS):
        lamp = 1.0 + 0.06 * np.sin(2.0 * epoch)
        for exposure in exposures:
            for _ in range(FRAMES):
                middle = 10.0 + (swing if epoch in (1, 3) else 0.0)
                take("flat", middle, exposure, epoch * DAYS, level=1100.0 * lamp * exposure)
    return sensor


def run(folder, out, *words):
    given = [str(folder), "--output-dir", str(out), "--plots", "none", "--quiet", *words]
    return run_command(main, given)


CHANGES = (Dust(15.0, 30, 25, 6, 0.05), Damage(25.0, 1, 0.4, 2))


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structure")
    campaign(folder / "in", changes=CHANGES)
    status = run(folder / "in", folder / "out", "--reduce", "--plots", "summary")
    return folder, status


def test_new_structures_with_place_depth_and_dates(analysed):
    folder, status = analysed
    assert status == 0
    found = rows(folder / "out" / "regions.csv")
    assert len(found) == 2
    dust = next(row for row in found if row["kind"] != "pixel")
    assert abs(float(dust["x"]) - 30) < 1
    assert abs(float(dust["y"]) - 25) < 1
    assert dust["first_seen"][:10] == np.datetime64(int(START + 20 * DAY), "s").astype(str)[:10]
    assert dust["frames"] == "9"
    cluster = next(row for row in found if row["kind"] == "pixel")
    hit = History(SHAPE, CHANGES, seed=1).at(30.0).damage < 1
    assert hit[round(float(cluster["y"])), round(float(cluster["x"]))]
    assert cluster["area"] == "4"
    assert abs(float(cluster["depth"]) - 0.4) < 5 * float(cluster["depth_error"])
    assert cluster["frames"] == "6"
    for row in found:
        assert float(row["significance"]) > 6


def test_every_flat_has_its_row(analysed):
    folder, _ = analysed
    found = rows(folder / "out" / "detections.csv")
    assert [int(row["regions"]) for row in found] == [0] * 6 + [1] * 3 + [2] * 6
    assert all(row["filter"] == "V" and float(row["exposure"]) == 1.0 for row in found)
    assert {row["epoch"] for row in rows(folder / "out" / "trends.csv")} == {str(e) for e in range(8)}
    fits_found = rows(folder / "out" / "trend_fits.csv")
    assert {row["against"] for row in fits_found} >= {"time", "temperature"}


def test_difference_map_has_difference_ratio_error_and_inputs(analysed):
    folder, _ = analysed
    (path,) = (folder / "out" / "difference_maps").glob("*.fits")
    product = read_product(path, expect="DIFFERENCE_MAP")
    level = product.header["REFLEVEL"]
    with fits.open(path) as hdus:
        ratio = hdus["RATIO"].data
        good = product.dq == 0
        scale = (product.data / (ratio - 1.0))[good & (np.abs(ratio - 1) > 0.01)]
    assert abs(np.median(scale) / level - 1.0) < 0.1
    # Pixels far from the changes: their pulls are those of the quoted error.
    far = good.copy()
    far[15:36, 20:41] = False
    pulls = (product.data / product.uncert)[far]
    scatter = 1.4826 * np.median(np.abs(pulls - np.median(pulls)))
    assert abs(scatter - 1.0) < 5 * 1.17 / np.sqrt(pulls.size) + 0.02
    assert len(product.inputs) == product.header["NREF"] + product.header["NNEW"]


def test_bias_and_dark_maps_and_report(analysed):
    folder, _ = analysed
    made = files(folder / "out")
    assert {"bias_used/bias_a_map.fits", "dark_maps/dark_T10.0_E1.fits", "film.csv", "report.html"} <= made
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "cannot be told from a weaker lamp" in page
    assert "expected by chance" in page
    assert "Times from TIMESTMP (15 flats)" in page
    assert {"figures/trend_time.png", "figures/regions_V.png", "figures/film_V.png"} <= made


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (2, {}),
        (3, {"swing": 5.0}),
        (4, {"exposures": (1.0, 0.6)}),
        (5, {"swing": 5.0, "exposures": (1.0, 0.6)}),
    ],
)
def test_nothing_new_is_no_alarm(tmp_path, seed, options):
    campaign(tmp_path / "in", seed=seed, **options)
    assert run(tmp_path / "in", tmp_path / "out", "--reduce") == 0
    assert rows(tmp_path / "out" / "regions.csv") == []


def test_without_reduce_the_lamp_is_still_no_change(tmp_path):
    campaign(tmp_path / "in", changes=CHANGES, seed=6)
    assert run(tmp_path / "in", tmp_path / "out") == 0
    assert len(rows(tmp_path / "out" / "regions.csv")) == 2


def test_exposures_compared_with_each_other(tmp_path):
    campaign(tmp_path / "in", changes=CHANGES, seed=7, exposures=(1.0, 0.5))
    for path in sorted((tmp_path / "in" / "flat").iterdir()):
        day = (fits.getval(path, "TIMESTMP") - START) / DAY
        if (fits.getval(path, "EXPTIME") == 1.0) != (day < 15):
            path.unlink()
    assert run(tmp_path / "in", tmp_path / "apart", "--reduce") == 0
    assert len(rows(tmp_path / "apart" / "regions.csv")) == 1
    assert run(tmp_path / "in", tmp_path / "together", "--reduce", "--across-exposures") == 0
    assert len(rows(tmp_path / "together" / "regions.csv")) == 2


def test_flats_without_time_go_by_file(tmp_path):
    campaign(tmp_path / "in", changes=CHANGES, seed=8, TIMESTMP=None)
    assert run(tmp_path / "in", tmp_path / "out", "--reduce") == 0
    found = rows(tmp_path / "out" / "regions.csv")
    assert sorted(row["first_seen"] for row in found) == ["file 10", "file 7"]
    assert "file order" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_date_with_blank_and_time_apart(tmp_path):
    campaign(tmp_path / "in", changes=CHANGES, seed=8, TIMESTMP=None, masters=False)
    for number, path in enumerate(sorted((tmp_path / "in" / "flat").iterdir())):
        with fits.open(path, mode="update") as hdus:
            day = 1 + number
            hdus[0].header["DATE-OBS"] = (
                f"2024/03/{day:02d}" if number % 2 else f"2024-03-{day:02d} T01:02:03"
            )
            hdus[0].header["TIME-OBS"] = "01:02:03.5"
    assert run(tmp_path / "in", tmp_path / "out") == 0
    found = rows(tmp_path / "out" / "regions.csv")
    assert sorted(row["first_seen"][:19] for row in found) == ["2024-03-07T01:02:03", "2024-03-10T01:02:03"]


def test_one_flat_is_told(tmp_path, capsys):
    campaign(tmp_path / "in")
    for path in sorted((tmp_path / "in" / "flat").iterdir())[1:]:
        path.unlink()
    assert run(tmp_path / "in", tmp_path / "out", "--reduce") == 1
    assert "1 flat in 1 group" in capsys.readouterr().err
    assert len(rows(tmp_path / "out" / "trends.csv")) == 1


def refused(tmp_path, capsys, *words):
    assert run(tmp_path / "in", tmp_path / "out", *words) == 2
    assert not (tmp_path / "out").exists() or not files(tmp_path / "out")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_reduce_without_bias_and_dark_is_refused(tmp_path, capsys):
    campaign(tmp_path / "in", masters=False)
    assert "neither bias nor dark" in refused(tmp_path, capsys, "--reduce")


def test_reduce_without_darks_uses_the_bias(tmp_path, capsys):
    campaign(tmp_path / "in")
    for path in (tmp_path / "in" / "dark").iterdir():
        path.unlink()
    assert run(tmp_path / "in", tmp_path / "out", "--reduce") == 0
    assert "no dark frames" in capsys.readouterr().err


def test_all_saturated_is_refused(tmp_path, capsys):
    campaign(tmp_path / "in")
    for path in (tmp_path / "in" / "flat").iterdir():
        path.unlink()
    for number in range(4):
        samples = np.full(SHAPE, 65520, np.uint16)
        write_frame(
            tmp_path / "in" / f"flat_{number}.fits",
            samples,
            IMAGETYP="Flat",
            EXPTIME=1.0,
            TIMESTMP=START + number,
        )
    assert "no flat can be used" in refused(tmp_path, capsys)


def test_mixed_shapes_are_refused(tmp_path, capsys):
    campaign(tmp_path / "in", masters=False)
    write_frame(
        tmp_path / "in" / "flat" / "x.fits",
        np.full((20, 30), 9000, np.uint16),
        IMAGETYP="Flat",
        EXPTIME=1.0,
        FILTER="V",
    )
    message = refused(tmp_path, capsys)
    assert "shape differs" in message
    assert "20x30" in message


def test_no_flats_and_options_that_do_not_fit(tmp_path, capsys):
    campaign(tmp_path / "in")
    for path in (tmp_path / "in" / "flat").iterdir():
        path.unlink()
    assert "no flat that can be used" in refused(tmp_path, capsys)
    assert run_command(main, [str(tmp_path / "in"), "--across-exposures"]) == 2
    assert "expected it" in capsys.readouterr().err


def test_show_without_display_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    campaign(tmp_path / "in", masters=False)
    assert run(tmp_path / "in", tmp_path / "out", "--show") == 0
    assert "no display" in capsys.readouterr().err


def test_dry_run_writes_nothing(tmp_path, capsys):
    campaign(tmp_path / "in")
    assert (
        run_command(
            main, [str(tmp_path / "in"), "--output-dir", str(tmp_path / "out"), "--dry-run", "--reduce"]
        )
        == 0
    )
    assert "exposure 1.00 s, 15 frames" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
