"""The screen on frames on disk: each fault is found by its code, clean frames pass, and levels and noise are right."""

import numpy as np
import pytest

from tests.bias_frames import DAY, START
from tests.frame_sets import group_of
from utils.domain.screening import converter_maximum, screen_groups
from utils.errors import InputError

SHAPE = (96, 130)


def clean(rng, n, *, shape=SHAPE, level=100.0, sigma=3.0, pattern=4.0):
    return level + rng.normal(0, pattern, shape) + rng.normal(0, sigma, (n, *shape))


def rejected(screening):
    """Reason code of each frame that was left out, by its number."""
    return {int(path[-8:-5]): reason.split(":")[0] for path, reason in screening.rejected}


# --- faults ---------------------------------------------------------------------------------------


def level_jump(stack):
    stack[3] += 12


def light_leak(stack):
    stack[3, :, 80:] += 60


def zero_block(stack):
    stack[3, 40:60] = 0


def zero_rows_in_part(stack):
    stack[3, 40, 30:] = 0


def dropped_rows(stack):
    stack[3, 41:44] = stack[3, 40]


def constant_rows(stack):
    stack[3, 41] = 250


def saturated(stack):
    stack[3, ::8] = 65535


def dead(stack):
    stack[3] = 0


FAULTS = [
    (level_jump, "LEVEL_JUMP"),
    (light_leak, "LIGHT_LEAK"),
    (zero_block, "ZERO_BLOCK"),
    (zero_rows_in_part, "ZERO_BLOCK"),
    (dropped_rows, "DROPPED_ROWS"),
    (constant_rows, "DROPPED_ROWS"),
    (saturated, "SATURATED"),
    (dead, "ZERO_BLOCK"),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
@pytest.mark.parametrize("n", [5, 12])
def test_each_fault_is_found_by_its_code(tmp_path, fault, code, n):
    stack = np.rint(clean(np.random.default_rng(1), n))
    fault(stack)
    screening = screen_groups([group_of(tmp_path, stack)])
    assert rejected(screening) == {3: code}
    assert len(screening.groups[0].frames) == n - 1
    assert not any(path.endswith("003.fits") for path in map(str, _paths(screening)))
    # A frame that is left out does not speak of the pixels of the others.
    assert not any("cut at 0" in note for note in screening.notes)
    # What is left has the noise and the level of clean frames.
    noise = np.sqrt(9 + 1 / 12)
    assert screening.groups[0].within == pytest.approx(noise, rel=0.03)
    assert np.abs(screening.groups[0].levels - 100).max() < 1


def _paths(screening):
    return [entry["original_path"] for group in screening.groups for entry in group.frames.entries]


def test_temperature_that_changes_during_the_exposure(tmp_path):
    stack = clean(np.random.default_rng(2), 8)
    temperatures = [0, 0, 0, 0.7, 1.4, 1.4, 1.4, 1.4]
    group = group_of(tmp_path, stack, temperatures, START + 100.0 * np.arange(8), exposure=90.0)
    assert rejected(screen_groups([group])) == {3: "UNSTABLE_TEMPERATURE"}


def test_no_frame_left_is_an_error_that_says_why(tmp_path):
    group = group_of(tmp_path, np.zeros((3, *SHAPE)))
    with pytest.raises(
        InputError, match=r"no frame passed the screen, the first was .*000\.fits \(ZERO_BLOCK"
    ):
        screen_groups([group])


def test_a_group_that_loses_all_frames_is_gone(tmp_path):
    rng = np.random.default_rng(3)
    groups = [
        group_of(tmp_path / "dead", np.zeros((3, *SHAPE)), np.full(3, -10.0)),
        group_of(tmp_path / "good", clean(rng, 5), np.full(5, 10.0)),
    ]
    screening = screen_groups(groups)
    assert [group.frames.temperature for group in screening.groups] == [10.0]
    assert len(screening.rejected) == 3


# --- clean frames ---------------------------------------------------------------------------------


CLEAN = {
    "plain": {},
    "noise of 0.4 LSB": {"sigma": 0.4},
    "noise of 0.25 LSB without pattern": {"sigma": 0.25, "pattern": 0.0},
    "noise of 0.15 LSB without pattern": {"sigma": 0.15, "pattern": 0.0},
    "one row": {"shape": (1, 300)},
    "one column": {"shape": (300, 1)},
    "few pixels": {"shape": (3, 5)},
}


@pytest.mark.parametrize("case", CLEAN)
@pytest.mark.parametrize(("n", "groups"), [(5, 6), (100, 1)])
def test_clean_frames_pass(tmp_path, case, n, groups):
    rng = np.random.default_rng(n)
    made = [
        group_of(tmp_path / str(k), clean(rng, n, **CLEAN[case]), np.full(n, 5.0 * k)) for k in range(groups)
    ]
    assert screen_groups(made, adu_scale=1.0).rejected == []


@pytest.mark.parametrize(("n", "groups"), [(5, 6), (100, 1)])
def test_drift_hot_pixels_cosmics_and_row_noise_pass(tmp_path, n, groups):
    rng = np.random.default_rng(10 + n)
    made = []
    for k in range(groups):
        stack = clean(rng, n)
        hot = rng.random(SHAPE) < 0.05
        stack[:, hot] += rng.lognormal(5, 1.5, hot.sum())
        stack[:, 70] += 3000
        stack[:, :, 17] = 0
        hits = rng.random(stack.shape) < 1e-3
        stack[hits] += rng.uniform(100, 6e4, hits.sum())
        stack += rng.normal(0, 1.0, (n, SHAPE[0], 1))
        temperatures = 5.0 * k + np.linspace(-0.5, 0.5, n)
        stack += 2.0 * temperatures[:, None, None] + 20
        made.append(group_of(tmp_path / str(k), stack, temperatures))
    screening = screen_groups(made, adu_scale=1.0)
    assert screening.rejected == []
    # Levels follow temperature; 0.05 ADU is what row noise and cosmic hits leave of a frame of 12,000 pixels.
    assert screening.zero.slope == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(("n", "groups"), [(5, 8), (20, 2), (100, 1)])
def test_a_zero_level_that_moves_is_kept(tmp_path, n, groups):
    rng = np.random.default_rng(20 + n)
    made = []
    for k in range(groups):
        stack = clean(rng, n) + rng.normal(0, 2.0, n)[:, None, None]
        made.append(group_of(tmp_path / str(k), stack, np.full(n, 0.0)))
    assert screen_groups(made, adu_scale=1.0).rejected == []


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 4, 16])
def test_units_noise_and_levels_in_product_adu(tmp_path, scale):
    rng = np.random.default_rng(4)
    true = rng.normal(0, 0.5, 10)
    stack = np.rint(clean(rng, 10, sigma=2.0) + true[:, None, None]) * scale
    screening = screen_groups([group_of(tmp_path, stack)])
    (group,) = screening.groups
    assert screening.adu_scale == scale
    assert screening.lsb == 1.0
    assert screening.saturation == 65535 // scale
    noise = np.sqrt(4 + 1 / 12)
    samples = 9 * 16 * SHAPE[1]
    assert abs(group.within / noise - 1) < 5 / np.sqrt(2 * samples)
    error = (group.levels - group.levels.mean()) - (true - true.mean())
    assert np.abs(error).max() < 5 * noise / np.sqrt(16 * SHAPE[1])
    # The noise of a sample with the scatter of the frames' levels; the spread of one frame is that of its pixels.
    assert group.sigma == pytest.approx(np.hypot(noise, true.std(ddof=1)), rel=0.03)
    assert group.spreads == pytest.approx(noise, rel=0.1)
    # Between neighbouring pixels noise and pattern (4 ADU) add.
    assert group.spatial == pytest.approx(np.hypot(noise, 4), rel=0.1)


def test_a_given_scale_leaves_a_step_of_its_own(tmp_path):
    stack = np.rint(clean(np.random.default_rng(5), 5)) * 16
    screening = screen_groups([group_of(tmp_path, stack)], adu_scale=4.0)
    assert (screening.adu_scale, screening.lsb) == (4.0, 4.0)


def test_drift_is_brought_to_the_mean_of_the_group(tmp_path):
    rng = np.random.default_rng(6)
    temperatures = np.linspace(-0.5, 0.5, 20)
    stack = clean(rng, 20) + 3.0 * temperatures[:, None, None]
    (group,) = screen_groups([group_of(tmp_path, stack, temperatures)], adu_scale=1.0).groups
    assert group.offsets == pytest.approx(-3.0 * temperatures, abs=0.1)
    assert group.offsets.mean() == pytest.approx(0, abs=1e-9)
    assert group.sigma == pytest.approx(3.0, rel=0.03)
    quiet = clean(rng, 20) + 0.01 * temperatures[:, None, None]
    (group,) = screen_groups([group_of(tmp_path / "quiet", quiet, temperatures)], adu_scale=1.0).groups
    assert group.offsets is None


def test_session_shifts_are_taken_out(tmp_path):
    rng = np.random.default_rng(7)
    groups = []
    for k, temperature in enumerate((-10.0, 0.0, 10.0)):
        stack = clean(rng, 12, level=200.0) + 0.5 * temperature
        stack[6:] += 4.0
        times = START + 60.0 * np.arange(12) + np.repeat([0, 2 * DAY], 6)
        groups.append(group_of(tmp_path / str(k), stack, np.full(12, temperature), times))
    screening = screen_groups(groups, adu_scale=1.0)
    assert screening.rejected == []
    np.testing.assert_allclose(screening.zero.shifts, [0, 4], atol=0.2)
    for group in screening.groups:
        np.testing.assert_array_equal(group.sessions, np.repeat([0, 1], 6))
        np.testing.assert_allclose(group.offsets, np.repeat([2.0, -2.0], 6), atol=0.1)


@pytest.mark.parametrize("jobs", [1, 3])
def test_threads_change_nothing(tmp_path, jobs):
    group = group_of(tmp_path, clean(np.random.default_rng(8), 6))
    one, many = screen_groups([group]), screen_groups([group], jobs=jobs)
    np.testing.assert_array_equal(one.groups[0].levels, many.groups[0].levels)
    assert one.groups[0].within == many.groups[0].within


@pytest.mark.parametrize(
    ("scale", "more", "expected"),
    [
        (1.0, {}, 65535),
        (16.0, {}, 4095),
        (16.0, {"bit_depth": 12}, 4095),
        (1.0, {"bit_depth": 12}, 4095),
        (4.0, {"bit_depth": 16}, 16383),
        (1.0, {"saturate": 60000.0}, 60000),
        (16.0, {"saturate": 60000.0}, 3750),
    ],
)
def test_top_of_the_converter(tmp_path, scale, more, expected):
    group = group_of(tmp_path, np.zeros((2, 4, 5)), **more)
    assert converter_maximum([group], scale) == expected


def test_top_of_signed_samples_and_of_floats(tmp_path):
    from tests.frame_sets import entry
    from tests.stack_frames import write_fits
    from utils.domain.frame_groups import FrameGroup

    for kind, bzero, expected in (("i2", 0, 32767), ("i2", 32768, 65535), ("u1", 0, 255), ("f4", 0, np.inf)):
        image = write_fits(tmp_path / f"{kind}{bzero}.fits", np.zeros((4, 5), kind), bzero=bzero)
        assert converter_maximum([FrameGroup([entry(image.path)], [image])], 1.0) == expected
