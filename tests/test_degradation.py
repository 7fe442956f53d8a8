"""The degradation analysis as a command: labels, hot pixels, film, what is no alarm, faults, older path."""

import json
from collections import Counter

import numpy as np
import pytest
from astropy.io import fits
from bias_frames import DAY, START, command, files, rows, write_frame
from mission_frames import DAYS, SHAPE, mission, pixels, run

from utils.fits_io.product_reader import read_product
from utils.kernels.detector_history import Damage, Film, History, HotPixels

DAMAGE, LIKELY = "Sensor Damage", "Likely Sensor"
CHANGES = (
    Damage(15.0, 20, 0.35),
    HotPixels(15.0, 30, 12.0, anneal_day=35.0, annealed=0.5),
    Film((5.0, 40.0), (0.0, 0.05)),
)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("degradation")
    sensor, history = mission(folder / "in", changes=CHANGES, warm=3.0)
    status = run(folder / "in", folder / "out", "--calibrate", plots="summary")
    return folder / "out", sensor, history, status


def test_damaged_pixels_and_their_label(analysed):
    out, _, history, status = analysed
    assert status == 0
    truth = set(zip(*(one.tolist() for one in history.hit(0, 40.0)), strict=True))
    found = rows(out / "analysis_outliers.csv")
    assert len(pixels(found, DAMAGE) & truth) >= 19
    # Nothing else is damaged but pixels that are hot now and were not, seen through their dark.
    hot = set(zip(*(one.tolist() for one in history.hit(1, 30.0)), strict=True))
    assert pixels(found, DAMAGE, LIKELY) <= truth | hot
    for row in found:
        if (int(row["row"]), int(row["column"])) in truth:
            assert row["temp_labels"] == "T_10.0;T_20.0"
            assert len(row["times"].split(";")) == int(row["num_occurrences"]) == 18
            assert row["pixel"] == f"({row['row']}, {row['column']})"
            assert float(row["slope_significance"]) < -5


def test_slopes_of_pixels_without_damage_scatter_as_they_say(analysed):
    out, _, history, _ = analysed
    product = read_product(out / "pixel_trends" / "slope_V.fits", expect="PIXEL_TREND")
    quiet = product.dq == 0
    for number in (0, 1):
        quiet[history.hit(number, 30.0)] = False
    pulls = (product.data / product.uncert)[quiet]
    width = 1.4826 * np.median(np.abs(pulls - np.median(pulls)))
    assert abs(width - 1.0) < 5 * 1.17 / np.sqrt(pulls.size) + 0.01
    # A step of 0.35 between visit 2 and 3 of 5: the line through it rises by 3/5 of the step over 20 days.
    hit = history.hit(0, 40.0)
    mean = product.data[hit].mean()
    days = np.array(DAYS)
    expected = np.polyfit(days[[0, 2, 3, 4]], [0.0, -0.35, -0.35, -0.35], 1)[0]
    assert abs(mean / expected - 1.0) < 0.1


def test_hot_pixels_are_born_and_anneal_and_a_warm_day_makes_none(analysed):
    out, _, history, _ = analysed
    ledger = {(int(r["row"]), int(r["column"])): r for r in rows(out / "hot_pixel_ledger.csv")}
    first = set(zip(*(one.tolist() for one in history.hit(1, 30.0)), strict=True))
    left = set(zip(*(one.tolist() for one in history.hit(1, 40.0)), strict=True))
    # A new rate on a pixel that was hot before makes it hotter.
    status = Counter(ledger[p]["status"] for p in first)
    assert status["born"] + status["born, annealed"] >= 27
    assert sum(ledger[p]["status"] in ("born", "hotter") for p in left) >= 14
    healed = [ledger[p] for p in first - left if ledger[p]["status"] == "born, annealed"]
    assert len(healed) >= 13
    day = {d: np.datetime64(int(START + d * DAY), "s").astype(str)[:10] for d in DAYS}
    assert all(row["born"][:10] == day[20.0] and row["annealed"][:10] == day[40.0] for row in healed)
    assert {p for p, row in ledger.items() if row["status"] != "persistent"} <= first
    counts = rows(out / "hot_pixel_counts.csv")
    assert float(counts[1]["temperature"]) > 22.5
    assert abs(int(counts[1]["hot_pixels"]) - int(counts[0]["hot_pixels"])) <= 2
    assert int(counts[2]["hot_pixels"]) - int(counts[0]["hot_pixels"]) >= 26


def test_film_apart_from_pixels(analysed):
    out, _, history, _ = analysed
    film = rows(out / "film.csv")
    truth = history.at(40.0).film
    deepest = float(np.quantile(truth, 0.95))
    assert abs(float(film[-1]["depth"]) - deepest) < 0.2 * deepest
    assert float(film[-1]["beyond_tilt"]) > 10


def test_all_products_of_the_contract(analysed):
    out, *_ = analysed
    made = files(out)
    assert {
        *("analysis_flats.csv", "analysis_outliers.csv", "suspicious_bias.log", "suspicious_darks.log"),
        *("report.html", "run.json", "sensor_plane_outliers/all_outliers_sensor_plane.png"),
        *(f"sensor_plane_outliers/outliers_T{t}.png" for t in ("10.0", "20.0")),
        *(f"summary_plots/outliers_vs_{x}.png" for x in ("time", "temperature")),
        *(f"summary_plots/mean_std_vs_{x}.png" for x in ("time", "temp")),
    } <= made
    assert sum(name.startswith("flats_norm_reduced/") and name.endswith("_norm.fits") for name in made) == 30
    for folder in ("analysis_by_temperature/T_10.0/", "analysis_by_time_ignore_temp/"):
        assert any(name.startswith(f"{folder}diffmap_") for name in made)
    listed = set(json.loads((out / "run.json").read_text(encoding="utf-8"))["products"])
    assert listed == made - {"run.json"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "cannot be told from a weaker lamp" in page
    assert "Times from TIMESTMP (30 flats)" in page


def test_flats_table_tells_the_noise(analysed):
    out, *_ = analysed
    table = rows(out / "analysis_flats.csv")
    columns = ("analysis_type", "approx_temp", "file_path", "time_header", "n_outliers", "std_diff")
    assert tuple(table[0])[:8] == (*columns, "mean_flat", "std_flat")
    assert Counter(row["analysis_type"] for row in table) == {"by_temperature": 30, "by_time_ignore_temp": 30}
    early = [row for row in table if row["days"] < "1" and row["analysis_type"] == "by_temperature"]
    for row in early:
        assert int(row["n_outliers"]) == 0
        assert abs(float(row["std_diff"]) / float(row["std_expected"]) - 1.0) < 0.1


def test_normalised_flat_opens_and_tells_its_error(analysed):
    out, sensor, *_ = analysed
    product = read_product(out / "flats_norm_reduced" / "0001_norm.fits", expect="FLAT_NORMALIZED")
    good = ~(sensor.dead | sensor.low_qe | sensor.hot | sensor.telegraph_step.astype(bool))
    truth = sensor.true_flat()
    pulls = ((product.data - truth / truth[good].mean()) / product.uncert)[good]
    width = 1.4826 * np.median(np.abs(pulls - np.median(pulls)))
    assert abs(width - 1.0) < 5 * 1.17 / np.sqrt(pulls.size) + 0.03
    assert product.header["LEVEL"] > 500
    assert len(product.inputs) == 1


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (2, {"lamp": 0.2}),
        (3, {"warm": 4.0}),
        (4, {"exposures": (1.0, 0.6)}),
        (5, {"cosmic": 3e-4}),
    ],
)
def test_nothing_new_is_no_alarm(tmp_path, seed, options):
    mission(tmp_path / "in", seed=seed, **options)
    assert run(tmp_path / "in", tmp_path / "out", "--calibrate") == 0
    found = rows(tmp_path / "out" / "analysis_outliers.csv")
    assert pixels(found, DAMAGE, LIKELY) == set()
    status = {row["status"] for row in rows(tmp_path / "out" / "hot_pixel_ledger.csv")}
    assert status == {"persistent"}


def test_one_temperature_is_likely_sensor(tmp_path):
    change = Damage(15.0, 15, 0.4)
    mission(tmp_path / "in", changes=(change,), seed=6, temperatures=(10.0,), darks=False)
    assert run(tmp_path / "in", tmp_path / "out", "--calibrate", "--no-norm-files") == 0
    truth = set(zip(*(one.tolist() for one in History(SHAPE, (change,), seed=6).hit(0, 40.0)), strict=True))
    found = rows(tmp_path / "out" / "analysis_outliers.csv")
    assert len(pixels(found, LIKELY) & truth) >= 14
    assert pixels(found, DAMAGE) == set()
    assert not (tmp_path / "out" / "flats_norm_reduced").exists()


def test_without_calibrate_damage_is_found_too(tmp_path):
    change = Damage(15.0, 15, 0.4)
    mission(tmp_path / "in", changes=(change,), seed=7)
    assert run(tmp_path / "in", tmp_path / "out") == 0
    truth = set(zip(*(one.tolist() for one in History(SHAPE, (change,), seed=7).hit(0, 40.0)), strict=True))
    assert len(pixels(rows(tmp_path / "out" / "analysis_outliers.csv"), DAMAGE) & truth) >= 14
    assert any(name.startswith("flats_norm/") for name in files(tmp_path / "out"))


def test_reference_adds_the_uniform_part(tmp_path):
    mission(tmp_path / "in", seed=8, temperatures=(10.0,), lamp=0.06, darks=False)
    # The lamp did not change: what looked like a lamp was a loss.
    lines = [f"{START - DAY:.1f},5.0", f"{START + 100 * DAY:.1f},5.0"]
    (tmp_path / "lamp.csv").write_text("time,level\n" + "\n".join(lines) + "\n")
    assert (
        run(tmp_path / "in", tmp_path / "out", "--calibrate", "--reference-csv", tmp_path / "lamp.csv") == 0
    )
    table = rows(tmp_path / "out" / "throughput.csv")
    for row in table:
        day = (np.datetime64(row["time"]) - np.datetime64(int(START), "s")) / np.timedelta64(1, "D")
        truth = -0.06 * np.sin(2.0 * round(day / 10.0))
        assert abs(float(row["mean_loss"]) - truth) < 5 * float(row["mean_loss_error"]) + 5e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,light\n1,2\n", "expected time, level"),
        ("time,level\nyesterday,2\n", "line 2: time 'yesterday'"),
        ("time,level\n5,-1\n", "line 2: level '-1'"),
        ("time,level\n", "got no row"),
    ],
)
def test_reference_that_cannot_be_read_is_refused(tmp_path, capsys, text, message):
    mission(tmp_path / "in", days=(0.0,), frames=1, darks=False, bias=False, temperatures=(10.0,))
    (tmp_path / "lamp.csv").write_text(text)
    assert message in refused(tmp_path, capsys, "--reference-csv", tmp_path / "lamp.csv")


def refused(tmp_path, capsys, *words):
    assert run(tmp_path / "in", tmp_path / "out", *words) == 2
    assert not (tmp_path / "out").exists() or not files(tmp_path / "out")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_one_flat_is_told(tmp_path, capsys):
    mission(tmp_path / "in", days=(0.0,), frames=1, temperatures=(10.0,))
    assert run(tmp_path / "in", tmp_path / "out", "--calibrate") == 1
    assert "1 flat in 1 group" in capsys.readouterr().err
    assert len(rows(tmp_path / "out" / "analysis_flats.csv")) == 2
    assert rows(tmp_path / "out" / "analysis_outliers.csv") == []


def test_without_time_the_files_order_stands_for_it(tmp_path):
    mission(tmp_path / "in", changes=CHANGES[:1], seed=9, temperatures=(10.0,), TIMESTMP=None)
    assert run(tmp_path / "in", tmp_path / "out", "--calibrate") == 0
    found = rows(tmp_path / "out" / "analysis_outliers.csv")
    assert len(pixels(found, LIKELY)) >= 19
    assert all(time.startswith("file ") for time in found[0]["times"].split(";"))
    assert "without a time" in (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8")


def test_calibrate_without_darks_uses_the_bias(tmp_path, capsys):
    mission(tmp_path / "in", darks=False, days=(0.0, 10.0))
    assert run(tmp_path / "in", tmp_path / "out", "--calibrate") == 0
    assert "no dark frames" in capsys.readouterr().err


def test_calibrate_with_neither_is_refused(tmp_path, capsys):
    mission(tmp_path / "in", darks=False, bias=False, days=(0.0,))
    assert "neither bias nor dark" in refused(tmp_path, capsys, "--calibrate")


def test_all_saturated_is_refused(tmp_path, capsys):
    for number in range(4):
        cards = {"IMAGETYP": "Flat", "EXPTIME": 1.0, "TIMESTMP": START + number}
        write_frame(tmp_path / "in" / f"flat_{number}.fits", np.full(SHAPE, 65520, np.uint16), **cards)
    assert "no flat can be used" in refused(tmp_path, capsys)


def test_mixed_shapes_are_refused(tmp_path, capsys):
    mission(tmp_path / "in", darks=False, bias=False, days=(0.0,))
    cards = {"IMAGETYP": "Flat", "EXPTIME": 1.0, "FILTER": "V"}
    write_frame(tmp_path / "in" / "flat" / "x.fits", np.full((20, 30), 9000, np.uint16), **cards)
    assert "shape differs" in refused(tmp_path, capsys)


def test_suspicious_darks_are_listed(tmp_path):
    mission(tmp_path / "in", days=(0.0, 10.0), seed=10)
    path = sorted((tmp_path / "in" / "dark").iterdir())[1]
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[5:9] = 0
    assert run(tmp_path / "in", tmp_path / "out", "--calibrate") == 0
    text = (tmp_path / "out" / "suspicious_darks.log").read_text(encoding="utf-8")
    assert path.name in text
    assert "0 remarks" in (tmp_path / "out" / "suspicious_bias.log").read_text(encoding="utf-8")


def test_jobs_do_not_change_a_number(tmp_path):
    mission(tmp_path / "in", changes=CHANGES[:1], days=(0.0, 20.0), frames=5, seed=11)
    for jobs in (1, 3):
        assert run(tmp_path / "in", tmp_path / str(jobs), "--calibrate", "--jobs", jobs) == 0
    for name in ("analysis_flats.csv", "analysis_outliers.csv", "film.csv", "hot_pixel_ledger.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


@pytest.mark.parametrize(
    "program",
    [
        "dark_pipeline/steps/outgasing_destruction_analysis.py",
        "dark_pipeline/dark_pipeline/steps/outgasing_destruction_analysis.py",
        "dark_pipeline.steps.outgasing_destruction_analysis",
    ],
)
def test_runs_from_every_path(tmp_path, program):
    mission(tmp_path / "in", days=(0.0, 10.0), frames=2, temperatures=(10.0,), darks=False)
    done = command(
        tmp_path / "in", "--calibrate", "--output_dir", tmp_path / "out", "--plots", "all", "--no-norm-files",
        program=program,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    maps = {name for name in files(tmp_path / "out") if "diffmap_0" in name}
    assert len(maps) == 8


def test_dry_run_writes_nothing(tmp_path, capsys):
    mission(tmp_path / "in", days=(0.0, 10.0), frames=2, temperatures=(10.0,), darks=False)
    assert run(tmp_path / "in", tmp_path / "out", "--calibrate", "--dry-run") == 0
    assert not (tmp_path / "out").exists()
