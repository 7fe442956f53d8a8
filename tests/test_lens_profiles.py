"""Given illuminations: lensfun's database and crop factors against lensfun itself, JSON and its faults."""

import json

import numpy as np
import pytest
from flat_scenes import simulate_flat

from utils.domain.lens_profiles import read_empirical, read_lensfun, read_radial
from utils.errors import InputError, OptionError

MEIKE = {"lens": "Meike 25mm f/1.8", "focal_length": 25, "aperture": 4.0, "distance": 10.0}


def written(folder, content):
    path = folder / "profile.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("camera", "lens"),
    [
        ("Nikon D300s", MEIKE),
        ("nikon corporation  nikon d300S", MEIKE),
        ("X-T3", MEIKE),
        ("Nikon 1 J5", MEIKE),
    ],
)
@pytest.mark.parametrize("shape", [(64, 64), (90, 161)])
def test_profile_is_what_lensfun_applies(tmp_path, camera, lens, shape):
    import lensfunpy

    profile = read_lensfun(written(tmp_path, {"camera": camera, **lens}))
    value, sigma = profile.model(shape).evaluate()
    database = lensfunpy.Database()
    model = camera.casefold().split("corporation  ")[-1]
    body = next(c for c in database.cameras if c.model.casefold() == model)
    optics = next(one for one in database.lenses if one.model == lens["lens"] and one.calib_vignetting)
    modifier = lensfunpy.Modifier(optics, body.crop_factor, shape[1], shape[0])
    flags = lensfunpy.ModifyFlags.VIGNETTING
    modifier.initialize(25.0, 4.0, 10.0, scale=1.0, pixel_format=np.float32, flags=flags)
    corrected = np.ones((*shape, 3), np.float32)
    assert modifier.apply_color_modification(corrected)
    np.testing.assert_allclose(value * corrected[..., 1], 1, atol=2e-4)
    assert value.min() < 0.95
    assert (sigma == 0).all()
    assert f"{optics.crop_factor:.3f} / {body.crop_factor:.3f}" in profile.words


def test_lens_calibrated_on_a_smaller_sensor_is_said(tmp_path):
    profile = read_lensfun(written(tmp_path, {"camera": "Nikon D3S", **MEIKE}))
    assert "is calibrated to 0.65 of the diagonal of Nikon D3S" in profile.notes[0]
    wide_open = written(tmp_path, {"camera": "Nikon D3S", **MEIKE, "aperture": 1.8})
    steep = read_lensfun(wide_open)
    # 2.35 of r^2 at the corner: 1 - 0.7 x 2.35 ... turns up again, and stays positive there.
    assert steep.model((100, 150)).evaluate()[0].min() > 0


def test_aperture_beyond_the_calibration_is_said(tmp_path):
    profile = read_lensfun(written(tmp_path, {"camera": "Nikon D300s", **MEIKE, "aperture": 32}))
    assert "f/32 is beyond the calibration of Meike 25mm f/1.8, which ends at f/16" in profile.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"camera": "Nikon D301"},
            r"camera 'Nikon D301' is not in lensfun's database; near ones: .*Nikon D30",
        ),
        ({"lens": "Meike 26mm f1.8"}, r"lens 'Meike 26mm f1.8' is not in .*; near ones: .*Meike 25mm f/1.8"),
        ({"lens": "zzz"}, r"lens 'zzz' is not in lensfun's database; near ones: none"),
        ({"focal_length": 50}, r"50 mm f/4 at 10 m, expected 25 to 25 mm and f/1.8 to f/16, for which Meike"),
        ({"aperture": 1.0}, r"25 mm f/1 at 10 m, expected 25 to 25 mm and f/1.8"),
    ],
)
def test_what_the_database_lacks(tmp_path, change, message):
    path = written(tmp_path, {"camera": "Nikon D300s", **MEIKE, **change})
    with pytest.raises(InputError, match=message) as caught:
        read_lensfun(path)
    assert str(path) in str(caught.value)


def test_lens_without_vignetting_calibration(tmp_path):
    import lensfunpy

    names = {lens.model for lens in lensfunpy.Database().lenses if lens.calib_vignetting}
    bare = next(lens for lens in lensfunpy.Database().lenses if lens.model not in names)
    path = written(tmp_path, {"camera": "Nikon D300s", **MEIKE, "lens": bare.model})
    with pytest.raises(InputError, match="has no vignetting calibration in lensfun; near ones with"):
        read_lensfun(path)


def test_explicit_coefficients(tmp_path):
    pa = read_lensfun(written(tmp_path, {"model": "pa", "k1": -0.3, "k2": 0.05, "k3": 0}))
    model = pa.model((80, 120))
    assert (model.k1, model.k2, model.k3, model.x0, model.y0) == (-0.3, 0.05, 0.0, 59.5, 39.5)
    # r = 1 at the corner of the corner pixel.
    assert abs(model.at(-0.5, -0.5) - 0.75) < 1e-12
    radial = read_radial(written(tmp_path, {"k1": -0.3, "k2": 0.05, "k3": 0, "center": [50, 30.5]}))
    assert (radial.model((80, 120)).x0, radial.model((80, 120)).y0) == (50.0, 30.5)
    assert read_radial(written(tmp_path, {"k1": -0.3, "k2": 0.05, "k3": 0})).model((80, 120)).x0 == 59.5


def test_illumination_that_is_not_positive(tmp_path):
    path = written(tmp_path, {"k1": -1.5, "k2": 0, "k3": 0})
    with pytest.raises(
        InputError, match=r"illumination falls to -0.4\d+ in a frame of 120 x 80, expected more than 0"
    ):
        read_radial(path).model((80, 120))


@pytest.mark.parametrize(
    ("content", "truth"),
    [
        ({"method": "polynomial", "degree": 6}, "polynomial, degree 6"),
        ({"method": "gaussian", "sigma": 8.5}, "gaussian, sigma 8.5"),
        ({"method": "median", "size": 31}, "median, size 31"),
    ],
)
def test_empirical_methods_fit_the_flat(tmp_path, content, truth):
    profile = read_empirical(written(tmp_path, content))
    assert profile.words == truth
    scene = simulate_flat(1, (128, 160), dust=0)
    error = profile.fit(scene.flat, scene.sigma).value * scene.light[64, 80] / scene.light - 1
    assert np.abs(error).max() < 0.02


OBJECT = '{"k1": -0.1, "k2": 0, "k3": 0'


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (read_radial, {"k1": 1, "k2": 0}, "missing k3, expected k1, k2, k3 and, if wanted, center"),
        (read_radial, OBJECT + ', "centre": [1, 2]}', "unknown centre, expected"),
        (read_radial, {"k4": 1}, "missing k1, k2, k3; unknown k4"),
        (read_radial, OBJECT + ', "center": [1]}', r"center \[1\], expected \[x, y\] in pixels"),
        (read_radial, {"k1": "a", "k2": 0, "k3": 0}, 'k1 "a", expected a number'),
        (read_radial, '{"k1": NaN, "k2": 0, "k3": 0}', "k1 NaN, expected a number"),
        (read_radial, {"k1": True, "k2": 0, "k3": 0}, "k1 true, expected a number"),
        (read_radial, [1, 2], "list, expected a JSON object"),
        (read_lensfun, {"lens": "x"}, "missing camera, focal_length, aperture, distance"),
        (read_lensfun, {"model": "pa", "k1": 0, "k2": 0, "k3": 0, "k4": 0}, "unknown k4, expected model, k1"),
        (read_lensfun, {"model": "pb", "k1": 0, "k2": 0, "k3": 0}, 'model "pb", expected "pa"'),
        (read_lensfun, {"camera": 5, **MEIKE}, "camera 5, expected its name"),
        (read_lensfun, {"camera": "a", **MEIKE, "distance": 0}, "distance 0, expected more than 0"),
        (read_empirical, {"degree": 3}, "method null, expected one of polynomial, gaussian, median"),
        (read_empirical, {"method": "spline"}, 'method "spline", expected one of'),
        (read_empirical, {"method": "polynomial"}, "missing degree, expected method, degree"),
        (read_empirical, {"method": "gaussian", "size": 3}, "missing sigma; unknown size"),
        (
            read_empirical,
            {"method": "polynomial", "degree": 2.5},
            "degree 2.5, expected a whole number from 0 to 12",
        ),
        (read_empirical, {"method": "gaussian", "sigma": 0}, "sigma 0, expected more than 0"),
        (read_empirical, {"method": "median", "size": 0}, "size 0, expected a whole number from 1"),
    ],
)
def test_json_that_cannot_be_used(tmp_path, reader, content, message):
    path = written(tmp_path, content)
    with pytest.raises(OptionError, match=message) as caught:
        reader(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_json(tmp_path):
    with pytest.raises(InputError, match="expected a JSON object"):
        read_radial(written(tmp_path, "{k1: 2"))
    with pytest.raises(InputError, match=r"absent.json.*expected a JSON object"):
        read_radial(tmp_path / "absent.json")
