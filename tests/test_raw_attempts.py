"""Attempts and the names in them: what is found, and what a name tells."""

import os

import pytest
from raw_frames import make_attempt

from utils.raw_to_fits import convert_attempt, gather_attempts, parse_filename_metadata, parse_frame_number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("f0.raw", 0),
        ("exp_1.2e-05s_frame7.raw", 7),
        ("BiasT0_exp0.1sAt0f12.raw", 12),
        ("Frame_0003_T5.RAW", 3),
        ("f2.8_f0004.raw", 4),
        ("frame9_f2.raw", 9),
        ("exp0.1sf7.raw", 7),
        ("DarkT5_exp_1.2e-05sframe7.raw", 7),
        ("flatf9.raw", 9),
        ("biasf3.raw", 3),
        ("DarkF12.raw", 12),
        ("darksf4.raw", 4),
        ("biasframe0005.raw", 5),
        ("flatf2.8_f5.raw", 5),
        ("flat12.raw", None),
        ("flatf2.8.raw", None),
        ("exp0.1sflat12.raw", None),
        ("chef7.raw", None),
        ("offsetframe7.raw", None),
        ("/some/f5/image.raw", None),
        ("half12.raw", None),
        ("0001.raw", None),
        ("f" + "9" * 5000 + ".raw", None),
    ],
)
def test_frame_number(name, number):
    assert parse_frame_number(name) == number


@pytest.mark.parametrize(
    ("name", "exposure", "temperature"),
    [
        ("BiasT0_exp0.1sAt0f0.raw", 0.1, 0.0),
        ("exp_1.2e-05s_frame0.raw", 1.2e-5, None),
        ("DARK_T-10.5_f1.raw", None, -10.5),
        ("DarkT-10.raw", None, -10.0),
        ("TEST1_f1.raw", None, None),
        ("exp100ms_f1.raw", None, None),
        ("exp1e999s.raw", None, None),
        ("expert.raw", None, None),
    ],
)
def test_name_metadata(name, exposure, temperature):
    assert parse_filename_metadata(name) == (exposure, temperature)


def test_attempts_are_found_in_natural_order(tmp_path):
    for name in ("T0/attempt10", "T0/attempt2", "T-5/Attempt1"):
        (tmp_path / name).mkdir(parents=True)
    make_attempt(tmp_path / "T0" / "run_a")
    (tmp_path / "T0" / "other" / "frames").mkdir(parents=True)  # neither config nor log
    (tmp_path / ".hidden" / "attempt1").mkdir(parents=True)
    found = [os.path.relpath(path, tmp_path) for path in gather_attempts(tmp_path)]
    assert sorted(found) == ["T-5/Attempt1", "T0/attempt10", "T0/attempt2", "T0/run_a"]
    assert found.index("T0/attempt2") < found.index("T0/attempt10")


def test_attempts_below_a_folder_of_attempts(tmp_path):
    make_attempt(tmp_path / "attempts" / "attempt1")
    assert gather_attempts(tmp_path) == [str(tmp_path / "attempts" / "attempt1")]
    # The root itself may be the attempt.
    assert gather_attempts(tmp_path / "attempts" / "attempt1") == [str(tmp_path / "attempts" / "attempt1")]


@pytest.mark.parametrize("name", ["Frames", "FRAMES"])
def test_frames_folder_in_other_case(tmp_path, name):
    attempt = make_attempt(tmp_path / "run_a", subdir=name)
    assert gather_attempts(tmp_path) == [str(attempt)]
    assert [os.path.relpath(path, attempt) for path in convert_attempt(attempt, "BIAS")] == [
        *("fits/f0.fits", "fits/f1.fits", "fits/f2.fits")
    ]


def test_search_depth(tmp_path):
    make_attempt(tmp_path / "a" / "b" / "c" / "attempt1")
    assert gather_attempts(tmp_path, 3) == []
    assert len(gather_attempts(tmp_path, 4)) == 1


def test_symbolic_links_in_a_circle(tmp_path):
    make_attempt(tmp_path / "T0" / "attempt1")
    (tmp_path / "T0" / "loop").symlink_to(tmp_path)
    (tmp_path / "T0" / "self").symlink_to("self")
    assert gather_attempts(tmp_path, 40) == [str(tmp_path / "T0" / "attempt1")]
