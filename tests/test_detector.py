"""detector.json: what is written is read back, what is wrong is named."""

import json

import pytest

from utils.domain.detector import Detector, Measured
from utils.errors import InputError


def write(path, **changes):
    content = {"format": "detector", "version": 1, "aduscale": 1.0, "gain": {"value": 2.0, "error": 0.01}}
    content |= changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))
    return path


def test_what_is_written_is_read_back(tmp_path):
    camera = {"INSTRUME": "Kamera", "GAIN": 100}
    detector = Detector(
        Measured(1.9, 0.005, "e-/adu"),
        16.0,
        Measured(3.25, 0.02, "adu"),
        None,
        camera,
        {"prnu": {"total": 0.8, "row": float("nan")}},
    )
    detector.write(tmp_path / "detector.json")
    again = Detector.load(tmp_path / "detector.json")
    assert (again.gain, again.read_noise, again.full_well) == (detector.gain, detector.read_noise, None)
    assert (again.adu_scale, again.camera) == (16.0, camera)
    assert again.more == {"prnu": {"total": 0.8, "row": None}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "lens"}, "expected a detector.json"),
        ({"format": "absent"}, "expected a detector.json"),
        ({"version": 2}, "version 2, expected 1"),
        ({"gain": "absent"}, 'got no "gain"'),
        ({"gain": None}, 'got no "gain"'),
        ({"gain": 2.0}, "gain 2.0, expected"),
        ({"gain": {"value": -1}}, "expected .* a number above 0"),
        ({"gain": {"value": True}}, "expected .* a number above 0"),
        ({"gain": {"value": 1.0, "error": "x"}}, "error of gain 'x'"),
        ({"read_noise": {"error": 1.0}}, "read_noise"),
        ({"aduscale": "absent"}, "aduscale None"),
        ({"aduscale": 0}, "aduscale 0"),
        ({"camera": []}, "camera"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, changes, message):
    path = write(tmp_path / "d.json", **changes)
    with pytest.raises(InputError, match=message) as caught:
        Detector.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2", "[]", "3", "\x00", "[" * 100000])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"expected a detector\.json"):
        Detector.load(path)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        Detector.load(tmp_path / "none.json")
    (tmp_path / "d.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not JSON"):
        Detector.load(tmp_path / "d.json")
