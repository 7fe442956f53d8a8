"""Every mode of the dark pipeline in a fresh process, on a copy of an earlier output folder, without the frames."""

import shutil

import dark_frames
import numpy as np
import pytest
from astropy.io import fits
from bias_frames import command, files, record, rows

from dark_pipeline.run_pipeline import MODES
from utils.fits_io.product_reader import read_plane, read_product

PROGRAM = "dark_pipeline/run_pipeline.py"
SINGLE = ("--temp_single", "3", "--exptime_single", "30")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A full run, with pictures; the frames are gone afterwards."""
    folder = tmp_path_factory.mktemp("modes")
    camera = dark_frames.sensor((24, 32), 3)
    dark_frames.campaign(folder / "in", camera, 3, temperatures=(-5, 5, 15), n=5, bias_n=5)
    words = ("--basepath", folder / "in", "--output_dir", folder / "out", *SINGLE, "--save-corrected")
    assert dark_frames.run(*words, plots="summary") == 0
    shutil.rmtree(folder / "in")
    return folder / "out"


MADE_BY = {
    "synthetic_only": ("exp_5p00/synthetic_dark_-5.00.fits",),
    "evaluation_only": ("evaluation_model_1d_summary.csv", "evaluation_model_2d_summary.csv"),
    "evaluate_dark_current": ("evaluation_model_1d_summary.csv",),
    "fit_2d_model": (
        "dark_model_2d/A_map_2D.fits",
        "dark_model_2d/B_map_2D.fits",
        "dark_model_2d/GAMMA_map_2D.fits",
        "dark_model_2d/covariance_2D.fits",
    ),
    "evaluate_2d_model": ("evaluation_model_2d_summary.csv",),
    "synthetic_2d": ("synthetic_2d_exp_5.00/synthetic_2d_dark_t-5.00_e5.00.fits",),
    "synthetic_2d_single": ("synthetic_2d_dark_T3.00_E30.00.fits",),
}


def test_full_makes_what_is_promised(done):
    expected = {
        *(name for names in MADE_BY.values() for name in names),
        "dark_masks_by_temp/exp_5p00/dark_mask_t-5.00_e5.00.fits",
        "dark_model/exp_5p00/A_map.fits",
        "dark_model/exp_5p00/B_map.fits",
        "dark_model/exp_5p00/hot_pixels.fits",
        "dark_model/exp_5p00/global_params.npz",
        "dark_model_2d/hot_pixels.fits",
        "dark_model_2d/global_params_2d.npz",
        "dark_model_2d/dark_model_2d.json",
        "bias_corrected_darks/exp_5p00/dark_corrected_0001.fits",
        "exp_5p00/dark_current_vs_temperature.png",
        *(
            f"exp_5p00/model_evaluation_masks_{name}.png"
            for name in ("all", "mape_less_100", "mape_100_200", "mape_over_200")
        ),
        *(f"heatmap_{name}_2d.png" for name in ("mae", "mape", "dark_real", "dark_synthetic")),
        "plots_2d_comparison/scatter_Tm5p0_E5p0.png".replace("Tm5", "T-5"),
        "plots_2d_comparison/line_compare_T-5p0_E5p0.png",
        *("report.html", "run.json", "summary.csv", "rejected_frames.csv"),
    }
    assert expected <= files(done)
    assert record(done)["runs"][-1]["status"] == 0
    with np.load(done / "dark_model_2d" / "global_params_2d.npz") as values:
        assert {"A_g", "B_g", "t_min"} <= set(values.files)
    with np.load(done / "dark_model" / "exp_5p00" / "global_params.npz") as values:
        assert {"A_g", "B_g", "t_min"} == set(values.files)
    assert read_plane(done / "bias_corrected_darks/exp_5p00/dark_corrected_0001.fits", "BIAS_MAP").shape == (
        24,
        32,
    )


@pytest.mark.parametrize("mode", sorted(MADE_BY))
def test_mode_gives_what_full_gave(done, tmp_path, mode):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    for name in MADE_BY[mode]:
        (out / name).unlink()
    # The products that a mode starts from are there, what it makes is gone.
    words = SINGLE if mode == "synthetic_2d_single" else ()
    listed = record(out)
    for name in MADE_BY[mode]:
        listed["products"].pop(name)
    import json

    (out / "run.json").write_text(json.dumps(listed))
    result = command("--mode", mode, "--output-dir", out, "--plots", "none", *words, program=PROGRAM)
    assert result.returncode == 0, result.stderr
    for name in MADE_BY[mode]:
        if name.endswith(".csv"):
            assert rows(out / name) == rows(done / name)
            continue
        ours, theirs = read_product(out / name), read_product(done / name)
        np.testing.assert_array_equal(ours.data, theirs.data)
        if theirs.uncert is not None:
            np.testing.assert_array_equal(ours.uncert, theirs.uncert)
        np.testing.assert_array_equal(ours.dq, theirs.dq)
        assert ours.prodtype == theirs.prodtype
    # Nothing else has changed either: the mode made the rest of its products anew, or left them alone.
    for path in done.rglob("*.fits"):
        np.testing.assert_array_equal(
            read_product(out / path.relative_to(done)).data, read_product(path).data, err_msg=str(path)
        )


def test_every_mode_is_tested():
    assert set(MADE_BY) | {"full"} == set(MODES)


def test_single_synthetic_darks_of_one_model_stand_side_by_side(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    first, second, third = ((3.0, 30.0), (4.0, 20.0), (5.0, 20.0))
    names = [f"synthetic_2d_dark_T{T:.2f}_E{t:.2f}.fits" for T, t in (first, second, third)]

    def single(at, *words):
        words = ("--temp-single", str(at[0]), "--exptime-single", str(at[1]), *words)
        assert dark_frames.run("--mode", "synthetic_2d_single", "--output-dir", out, *words) == 0

    single(first)
    before = read_product(out / names[0]).data
    single(second, "--unit", "adu")
    assert set(names[:2]) <= set(record(out)["products"])
    np.testing.assert_array_equal(read_product(out / names[0]).data, before)
    # Of another model they are stale.
    other = tmp_path / "other"
    shutil.copytree(out / "dark_model_2d", other)
    with fits.open(other / "A_map_2D.fits", mode="update") as planes:
        planes[0].data *= 2
        planes[0].add_checksum()
    single(third, "--model-dir", str(other))
    assert not any((out / name).exists() for name in names[:2])


def test_synthetic_darks_where_and_as_asked(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    words = ("--temps", "3 25", "--exptimes", "10", "--unit", "adu", "--add-bias", "--plots", "none")
    result = command("--mode", "synthetic_2d", "--output-dir", out, *words, program=PROGRAM)
    assert result.returncode == 0
    assert "extrapolated" in result.stderr
    folder = out / "synthetic_2d_exp_10.00"
    inside = read_product(folder / "synthetic_2d_dark_t3.00_e10.00.fits")
    outside = read_product(folder / "synthetic_2d_dark_t25.00_e10.00.fits")
    assert inside.unit == "adu"
    assert not inside.header["EXTRAP"]
    assert outside.header["EXTRAP"]
    assert not (out / "synthetic_2d_exp_5.00").exists() or not any((out / "synthetic_2d_exp_5.00").iterdir())
    # 100 ADU of bias at 0 degC and 0.3 ADU/degC.
    assert 95 < np.median(inside.data) < 115
    assert np.median(outside.uncert) > np.median(inside.uncert)
