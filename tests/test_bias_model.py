"""The bias model read back from maps, and the masters that it is fitted to."""

import json

import numpy as np
import pytest

from utils.domain.bias_fit import combined_quality, open_masters
from utils.domain.bias_model import A_MAP, B_MAP, COVARIANCE, BiasModel, model_summary, unusable
from utils.errors import InputError
from utils.fits_io.products import DQ, write_product

SHAPE = (7, 13)
RANGE = {"T_MIN": -20.0, "T_MAX": 20.0, "TTOL": 0.5, "ADUSCALE": 16.0}


def write_model(folder, *, b_shape=SHAPE, covariance=True, b_cards=None, **cards):
    """Write maps of a centred fit at 5 degC: value with sigma 0.3, slope with sigma 0.02; returns their truth."""
    rng = np.random.default_rng(1)
    a, b = 100 + rng.normal(0, 5, SHAPE), rng.normal(0.2, 0.01, b_shape)
    var_a, var_b, cov = 0.3**2 + 25 * 0.02**2, 0.02**2, -5 * 0.02**2
    shared = RANGE | cards
    dq = np.zeros(SHAPE, np.int16)
    dq[2, 3] = DQ.NOISY
    write_product(
        folder / A_MAP,
        a,
        prodtype="BIAS_A",
        unit="adu",
        cards=shared,
        uncert=np.full(SHAPE, np.sqrt(var_a)),
        dq=dq,
    )
    write_product(
        folder / B_MAP,
        b,
        prodtype="BIAS_B",
        unit="adu/K",
        cards=shared | (b_cards or {}),
        uncert=np.full(b_shape, np.sqrt(var_b)),
    )
    if covariance:
        write_product(
            folder / COVARIANCE, np.full(SHAPE, cov), prodtype="BIAS_COVARIANCE", unit="adu2/K", cards=shared
        )
    return a, b


@pytest.mark.parametrize("temperature", [-273.15, -20.0, 0.0, 5.0, 12.3, 60.0])
def test_value_and_error_of_a_centred_fit(tmp_path, temperature):
    a, b = write_model(tmp_path)
    value, sigma, dq = BiasModel.load(tmp_path).evaluate(temperature)
    np.testing.assert_allclose(value, a + b * temperature, rtol=1e-6)
    # About its centre the fit's value and slope are independent.
    expected = np.sqrt(0.3**2 + (0.02 * (temperature - 5)) ** 2)
    np.testing.assert_allclose(sigma, expected, rtol=1e-4)
    assert value.dtype == sigma.dtype == np.float32
    assert dq[2, 3] == DQ.NOISY
    assert np.count_nonzero(dq) == 1


def test_without_covariance_the_centre_is_mid_range(tmp_path):
    write_model(tmp_path, covariance=False, T_MIN=0.0, T_MAX=10.0)
    sigma = BiasModel.load(tmp_path).evaluate(17.0)[1]
    np.testing.assert_allclose(sigma, np.sqrt(0.3**2 + (0.02 * 12) ** 2), rtol=1e-4)


def test_range_with_the_tolerance_of_a_group(tmp_path):
    write_model(tmp_path)
    model = BiasModel.load(tmp_path)
    assert [model.extrapolates(t) for t in (-20.6, -20.5, 0.0, 20.5, 20.6)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert (model.t_min, model.t_max, model.adu_scale) == (-20.0, 20.0, 16.0)


def test_a_slope_that_was_not_measured_adds_no_error(tmp_path):
    write_model(tmp_path, BFIXED=True)
    model = BiasModel.load(tmp_path)
    assert model.fixed_slope
    np.testing.assert_allclose(model.evaluate(50.0)[1], np.sqrt(0.3**2 + 25 * 0.02**2), rtol=1e-5)


def test_folders_and_maps_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder, expected a bias model"):
        BiasModel.load(tmp_path / "none")
    with pytest.raises(InputError, match=r"bias_a_map\.fits"):
        BiasModel.load(tmp_path)
    write_model(tmp_path / "shape", b_shape=(13, 7))
    with pytest.raises(InputError, match=r"bias_b_map\.fits: shape \(13, 7\), expected \(7, 13\) as in"):
        BiasModel.load(tmp_path / "shape")
    for key, value in (("ADUSCALE", 1.0), ("T_MAX", 30.0)):
        write_model(tmp_path / key, b_cards={key: value})
        with pytest.raises(
            InputError, match=rf"bias_b_map\.fits: {key} {value}, expected {RANGE[key]} as in"
        ):
            BiasModel.load(tmp_path / key)
    write_model(tmp_path / "swapped")
    with pytest.raises(InputError, match="got PRODTYPE BIAS_B, expected BIAS_A"):
        BiasModel.from_maps(tmp_path / "swapped" / B_MAP, tmp_path / "swapped" / A_MAP)


def test_summary(tmp_path):
    (tmp_path / "bias_model.json").write_text(json.dumps({"t_min": -20}), encoding="utf-8")
    assert model_summary(tmp_path) == {"t_min": -20}
    (tmp_path / "bias_model.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"bias_model\.json: .*expected the summary"):
        model_summary(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        model_summary(tmp_path / "none")


def test_unusable_pixels():
    dq = np.array([0, 1, 2, 32, 256, 512, 513], np.int16)
    np.testing.assert_array_equal(unusable(dq), [False, True, False, False, False, True, True])


# --- masters --------------------------------------------------------------------------------------


def write_masters(folder, temperatures, levels=None, *, level_error=0.01, shape=SHAPE, uncert=True, **cards):
    """Write masters of constant level; cards may be sequences, one value each; returns their paths."""
    temperatures = np.asarray(temperatures, float)
    levels = 100 + 0.2 * temperatures if levels is None else levels
    paths = []
    for k, (temperature, level) in enumerate(zip(temperatures, levels, strict=True)):
        own = {key: value[k] if isinstance(value, list) else value for key, value in cards.items()}
        path = folder / f"master_{k}.fits"
        write_product(
            path,
            np.full(shape[k] if isinstance(shape, list) else shape, level),
            prodtype=own.pop("prodtype", "MASTER_BIAS"),
            unit="adu",
            cards={
                "TEMP": temperature,
                "NCOMBINE": 10,
                "LEVEL": level,
                "LEVELERR": level_error,
                "ADUSCALE": 16.0,
                **own,
            },
            uncert=np.full(shape[k] if isinstance(shape, list) else shape, 0.5) if uncert else None,
            dq=np.zeros(shape[k] if isinstance(shape, list) else shape, np.int16),
        )
        paths.append(path)
    return paths


def test_masters_come_coldest_first_in_blocks(tmp_path, monkeypatch):
    from utils.domain import bias_fit

    paths = write_masters(
        tmp_path, [10.0, -10.0, 0.0], [3.0, 1.0, 2.0], ZSHIFT=[0.5, 0.0, 0.0], LEVEL=[2.5, 1.0, 2.0]
    )
    masters = open_masters(paths)
    assert masters.paths == [paths[1], paths[2], paths[0]]
    np.testing.assert_array_equal(masters.temperatures, [-10, 0, 10])
    np.testing.assert_array_equal(masters.shifts, [0, 0, 0.5])
    for pixels in (1, 26, 1000):
        monkeypatch.setattr(bias_fit, "BLOCK_PIXELS", pixels)
        blocks = list(masters.blocks())
        assert [row for rows, *_ in blocks for row in range(rows.start, rows.stop)] == list(range(7))
        values = np.concatenate([values for _, values, *_ in blocks], axis=1)
        variances = np.concatenate([block[2] for block in blocks], axis=1)
        # The shift of the session is taken out.
        np.testing.assert_array_equal(values, np.repeat([[1.0], [2.0], [2.5]], 91, axis=1))
        np.testing.assert_allclose(variances, 0.25 + masters.common_error**2)


def test_masters_that_do_not_fit_are_refused(tmp_path):
    paths = write_masters(tmp_path / "shape", [0.0, 10.0], shape=[SHAPE, (13, 7)])
    with pytest.raises(
        InputError, match=r"master_1\.fits: shape \(13, 7\), expected \(7, 13\) as in .*master_0"
    ):
        open_masters(paths)
    for key, values in (("ADUSCALE", [16.0, 1.0]), ("GAIN", [100, 200]), ("XBINNING", [1, 2])):
        paths = write_masters(tmp_path / key, [0.0, 10.0], **{key: values})
        with pytest.raises(
            InputError, match=rf"master_1\.fits: {key} {values[1]}, expected {values[0]} as in"
        ):
            open_masters(paths)
    paths = write_masters(tmp_path / "kind", [0.0, 10.0], prodtype=["MASTER_BIAS", "MASTER_DARK"])
    with pytest.raises(InputError, match=r"master_1\.fits: got MASTER_DARK, expected MASTER_BIAS"):
        open_masters(paths)
    paths = write_masters(tmp_path / "bare", [0.0], uncert=False)
    with pytest.raises(InputError, match="expected MASTER_BIAS with UNCERT and DQ"):
        open_masters(paths)


def test_levels_within_their_errors_have_no_common_error(tmp_path):
    rng = np.random.default_rng(2)
    temperatures = np.linspace(-20, 20, 6)
    for k in range(20):
        levels = 100 + 0.2 * temperatures + rng.normal(0, 0.01, 6)
        masters = open_masters(write_masters(tmp_path / str(k), temperatures, levels, LEVEL=list(levels)))
        assert masters.common_error == 0.0


def test_levels_that_no_line_describes_have_a_common_error(tmp_path):
    temperatures = np.linspace(-20, 20, 6)
    bends = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    levels = 100 + 0.2 * temperatures + bends
    residual = bends - np.polyval(np.polyfit(temperatures, bends, 1), temperatures)
    masters = open_masters(write_masters(tmp_path, temperatures, levels))
    assert masters.common_error == pytest.approx(np.sqrt(residual @ residual / 4), rel=1e-3)


def test_sessions_that_are_not_separable_count_as_common_error(tmp_path):
    masters = open_masters(write_masters(tmp_path, [0.0, 10.0], ZSEPAR=False, ZSCATTER=0.7))
    assert masters.common_error == 0.7
    masters = open_masters(write_masters(tmp_path, [0.0, 10.0], ZSEPAR=True, ZSCATTER=0.7))
    assert masters.common_error == 0.0


def test_quality_of_a_model():
    noisy, lost, dead = int(DQ.NOISY), int(DQ.NO_DATA), int(DQ.DO_NOT_USE | DQ.SATURATED)
    dqs = [np.array([[0, noisy, lost, lost, dead]], np.int16), np.array([[0, 0, 0, lost, noisy]], np.int16)]
    got = combined_quality(dqs)
    # One usable master is enough for a pixel; every other bit stays.
    np.testing.assert_array_equal(got, [[0, noisy, 0, lost, noisy | int(DQ.SATURATED)]])
    assert got.dtype == np.int16


def test_a_map_without_its_error_is_refused(tmp_path):
    write_model(tmp_path)
    write_product(tmp_path / B_MAP, np.ones(SHAPE), prodtype="BIAS_B", unit="adu/K", cards=RANGE)
    with pytest.raises(InputError, match=r"bias_b_map\.fits: got no plane UNCERT .* expected BIAS_B"):
        BiasModel.load(tmp_path)


def test_a_mapped_model_gives_the_same_bias(tmp_path):
    write_model(tmp_path)
    maps = [tmp_path / name for name in (A_MAP, B_MAP, COVARIANCE)]
    whole, mapped = BiasModel.from_maps(*maps), BiasModel.from_maps(*maps, mapped=True)
    assert not mapped.a.flags.writeable
    for rows in (slice(None), slice(2, 5)):
        for expected, got in zip(whole.evaluate(12.3, rows), mapped.evaluate(12.3, rows), strict=True):
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
    np.testing.assert_array_equal(mapped.evaluate(12.3, slice(2, 5))[0], whole.evaluate(12.3)[0][2:5])
