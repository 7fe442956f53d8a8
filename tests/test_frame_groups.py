"""Groups of entries, and the cards and table rows that they give to a product."""

import numpy as np
import pytest

from tests.bias_frames import START
from tests.frame_sets import entry, group_of
from utils.domain.frame_groups import FrameGroup, date_cards, group_entries, sample_frames
from utils.errors import InputError


def entries_of(*frames):
    """Entries from (path, temperature, time, exposure), and images by path."""
    made = [entry(path, t, time, exposure=exposure) for path, t, time, exposure in frames]
    return made, {one["original_path"]: f"image of {one['original_path']}" for one in made}


def paths(groups):
    return [[one["original_path"] for one in group.entries] for group in groups]


def test_coldest_first_and_frames_in_order_of_time():
    entries, images = entries_of(
        ("c", 14.96, 30.0, 0.0), ("b", -10.0, 20.0, 0.0), ("a", 14.94, 10.0, 0.0), ("d", -10.1, 5.0, 0.0)
    )
    groups = group_entries(entries, images, temp_tolerance=0.5)
    assert paths(groups) == [["d", "b"], ["a", "c"]]
    assert [group.images for group in groups] == [["image of d", "image of b"], ["image of a", "image of c"]]
    assert groups[1].temperature == pytest.approx(14.95)
    assert groups[1].drift == pytest.approx(0.02)


def test_unknown_times_come_last_by_their_path():
    entries, images = entries_of(("z", 0, 50.0, 0), ("y", 0, None, 0), ("x", 0, None, 0), ("w", 0, 0.0, 0))
    assert paths(group_entries(entries, images, temp_tolerance=0.5)) == [["w", "z", "x", "y"]]


def test_exposures_part_groups_where_asked():
    entries, images = entries_of(
        ("a", 0, 1.0, 10.0), ("b", 0, 2.0, None), ("c", 0, 3.0, 10.0), ("d", 9, 4.0, 10.0)
    )
    assert paths(group_entries(entries, images, temp_tolerance=0.5)) == [["a", "b", "c"], ["d"]]
    by_exposure = group_entries(entries, images, temp_tolerance=0.5, by_exposure=True)
    assert paths(by_exposure) == [["b"], ["a", "c"], ["d"]]
    assert [group.exposure for group in by_exposure] == [0.0, 10.0, 10.0]


def test_no_frames_are_refused():
    with pytest.raises(InputError, match="no frames to group"):
        group_entries([], {}, temp_tolerance=0.5)


def test_cards_tell_mean_spread_and_range(tmp_path):
    temperatures = [9.9, 10.0, 10.4]
    group = group_of(
        tmp_path, np.zeros((3, 4, 5)), temperatures, START + np.array([0.0, 10.0, 50.0]), exposure=2.5
    )
    cards = {key: value[0] if isinstance(value, tuple) else value for key, value in group.cards().items()}
    assert cards["NCOMBINE"] == 3
    assert cards["CALTYPE"] == "BIAS"
    assert cards["TEMP"] == pytest.approx(10.1)
    assert cards["TEMPSTD"] == pytest.approx(np.std(temperatures, ddof=1))
    assert (cards["TEMPMIN"], cards["TEMPMAX"], cards["EXPTIME"]) == (9.9, 10.4, 2.5)
    # START is 2023-11-14T22:13:20 UTC.
    assert cards["DATE-BEG"].startswith("2023-11-14T22:13:20")
    assert cards["DATE-AVG"].startswith("2023-11-14T22:13:40")
    assert cards["DATE-END"].startswith("2023-11-14T22:14:10")
    assert cards["INSTRUME"] == "SIM"
    alone = group.subset([2]).cards()
    assert alone["TEMPSTD"][0] == 0.0
    assert alone["TEMP"][0] == 10.4


def test_subset_keeps_entries_and_images_together():
    group = FrameGroup([entry(str(k), k) for k in range(5)], list("abcde"))
    part = group.subset([3, 1])
    assert (len(part), part.images, list(part.temperatures)) == (2, ["d", "b"], [3.0, 1.0])


def test_rows_of_the_table_of_inputs():
    group = FrameGroup([entry("a.fits", 1.0, 5.0), entry("b.fits", 2.0, None)], [None, None])
    assert group.inputs([77, None]) == [
        {"file": "a.fits", "temperature": 1.0, "exposure": 1e-5, "time": 5.0, "datasum": "77"},
        {"file": "b.fits", "temperature": 2.0, "exposure": 1e-5, "time": None, "datasum": None},
    ]
    with pytest.raises(ValueError, match="zip"):
        group.inputs([1])


def test_dates_of_unknown_times():
    assert date_cards([np.nan, np.nan]) == {}
    assert date_cards([]) == {}
    cards = date_cards([np.nan, START])
    assert cards["DATE-BEG"][0] == cards["DATE-END"][0] == cards["DATE-AVG"][0]


def test_a_frame_under_two_names_counts_once(tmp_path):
    rng = np.random.default_rng(5)
    frames = rng.normal(1000.0, 3.0, (5, 24, 30)).round()
    frames[3] = frames[1]
    group = group_of(tmp_path, frames, [5.0] * 5)
    kept, sample, rejected = sample_frames(group)
    names = [one["original_path"] for one in group.entries]
    assert rejected == [(names[3], f"DUPLICATE: the same data as {names[1]}, counted once")]
    assert [one["original_path"] for one in kept.entries] == [*names[:3], names[4]]
    assert len(sample.rows) == 4


def test_frames_without_noise_are_no_duplicates(tmp_path):
    """A saturated lamp, a camera that shows no noise: equal data are no sign of a copy."""
    for number, frames in enumerate((np.full((4, 24, 30), 4095.0), np.zeros((4, 24, 30)) + np.arange(30.0))):
        kept, _, rejected = sample_frames(group_of(tmp_path / str(number), frames, [5.0] * 4))
        assert (len(kept), rejected) == (4, [])
