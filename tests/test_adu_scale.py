"""Left-justified samples: the power of two that all values of a camera share."""

import numpy as np
import pytest

from utils.kernels.adu_scale import sample_bits, shared_factor
from utils.kernels.sensor import Sensor, SensorSpec


def votes(*frames, ceiling=65535):
    return [sample_bits(frame, ceiling) for frame in frames]


@pytest.mark.parametrize(("bits", "factor"), [(8, 256), (10, 64), (12, 16), (14, 4), (16, 1)])
@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_converters_in_16_bits(bits, factor, dtype):
    rng = np.random.default_rng(bits)
    frames = np.rint(rng.normal(100, 3, (5, 20, 30))).astype(dtype) * factor
    assert shared_factor(votes(*frames)) == factor


def test_native_12_bits_need_no_factor():
    rng = np.random.default_rng(1)
    assert shared_factor(votes(rng.integers(0, 4096, (16, 16), dtype=np.uint16))) == 1


@pytest.mark.parametrize(("preset", "factor"), [("12left", 16), ("16", 1)])
def test_simulated_sensors(preset, factor):
    sensor = Sensor(SensorSpec.preset(preset, shape=(24, 32), seed=1))
    assert shared_factor(votes(*(sensor.frame("bias", 0.0, rng=k) for k in range(4)))) == factor


def test_one_frame_of_few_values_does_not_decide():
    frames = [np.array([[0, 256]], np.uint16), np.array([[16, 48]], np.uint16)]
    assert shared_factor(votes(frames[0])) == 256
    assert shared_factor(votes(*frames)) == 16


def test_saturated_constant_and_float_frames_have_no_vote():
    full = np.full((8, 8), 65535, np.uint16)
    assert votes(full) == [None]
    mostly = full.copy()
    mostly[:3] = 160
    mostly[0] = 320
    assert votes(mostly) == [None]
    partly = full.copy()
    partly[:5] = 160
    partly[0] = 320
    assert votes(partly) == [160 | 320]
    assert votes(np.full((8, 8), 1600, np.uint16)) == [None]
    assert votes(np.zeros((8, 8), np.uint16)) == [None]
    assert votes(np.array([[16.0, 32.0]])) == [None]
    assert votes(np.zeros((0, 4), np.uint16)) == [None]
    assert shared_factor(votes(full, np.array([[48, 64]], np.uint16))) == 16


def test_nobody_votes():
    assert shared_factor([]) == 1
    assert shared_factor([None, None]) == 1


def test_signed_samples():
    assert shared_factor(votes(np.array([[-32, 16, 64]], np.int16), ceiling=None)) == 16
