"""Kernels of change detection: epochs, contrasts, significance, regions, smooth part, trends."""

import numpy as np
import pytest

from utils.kernels import changes, epochs, film, regions, significance, templates, trends

SHAPE = (96, 112)


def noise_planes(rng, information, shape=SHAPE):
    sigma = 1.0 / np.sqrt(np.asarray(information, float))
    return (rng.standard_normal((len(information), *shape)) * sigma[:, None, None]).astype(np.float32)


def all_windows(information):
    n = len(information)
    return epochs.contrasts(np.zeros(n, int), np.arange(n), information, np.full(n, 2))


def test_epochs_follow_sessions_and_stay_between_their_limits():
    times = np.concatenate([100.0 * s + np.arange(3) for s in range(9)])
    assert epochs.cut_epochs(times, 10.0).tolist() == np.repeat(np.arange(9), 3).tolist()
    shuffled = np.random.default_rng(1).permutation(27)
    assert (epochs.cut_epochs(times[shuffled], 10.0) == np.repeat(np.arange(9), 3)[shuffled]).all()
    assert epochs.cut_epochs(np.arange(5.0), 10.0).tolist() == [0, 1, 2, 3, 4]
    many = epochs.cut_epochs(100.0 * np.arange(300), 10.0)
    assert many.max() == 15
    assert (np.diff(many) >= 0).all()
    assert np.bincount(epochs.cut_epochs(np.arange(80.0), 10.0)).tolist() == [10] * 8


def test_contrasts_know_their_variance_and_drop_what_a_group_shares():
    rng = np.random.default_rng(2)
    group = np.array([0, 0, 0, 1, 1])
    epoch = np.array([0, 1, 2, 0, 2])
    information = np.array([2.0, 4.0, 3.0, 5.0, 1.0])
    found = epochs.contrasts(group, epoch, information, np.full(5, 2))
    assert {tuple(w) for w in found.windows} == {(1, 2), (1, 3), (2, 3)}
    for number in (0, 1):
        assert np.abs(found.weights[:, group == number].sum(axis=1)).max() < 1e-12
    z = found.unit() @ (rng.standard_normal((5, 40000)) / np.sqrt(information)[:, None])
    # The standard deviation of n Gaussian samples is known to 1 / sqrt(2 n).
    assert np.abs(z.std(axis=1) - 1.0).max() < 5 / np.sqrt(2 * 40000)
    # Epoch 1 was taken by the first group only: the second has nothing to say of it.
    only = found.weights[found.windows.tolist().index([1, 2])]
    assert (only[group == 1] == 0).all()


def test_nothing_to_compare():
    assert len(epochs.contrasts(np.array([0]), np.array([0]), np.array([1.0]), np.array([9])).windows) == 0
    assert len(epochs.contrasts(np.array([0, 1]), np.array([0, 1]), np.ones(2), np.full(2, 5)).windows) == 0
    # A single frame in the last epoch, or in the first, was not seen in two.
    assert len(epochs.contrasts(np.zeros(2, int), np.arange(2), np.ones(2), np.array([5, 1])).windows) == 0


def test_lifetime_finds_the_frames_of_a_step():
    rng = np.random.default_rng(3)
    group = np.arange(24) % 2
    values = rng.standard_normal(24) * 0.1 + group * 3.0
    values[9:17] -= 1.0
    found = epochs.lifetime(values, np.full(24, 0.01), group, 6, 20)
    assert (found.first, found.last, found.frames) == (9, 16, 8)
    assert abs(found.depth + 1.0) < 5 * found.sigma
    assert found.steady
    # A group that was never without the change cannot tell when it came.
    other = np.where(np.arange(24) == 3, 2, group)
    assert epochs.lifetime(values, np.full(24, 0.01), other, 2, 20).first == 9
    values[9:17] += 1.0
    values[12] -= 4.0
    alone = epochs.lifetime(values, np.full(24, 0.01), group, 11, 14)
    assert alone is None or not alone.steady


def test_one_odd_frame_without_the_change_makes_none():
    values = np.r_[0.0, 8.0, np.zeros(18)] + np.random.default_rng(4).standard_normal(20)
    found = epochs.lifetime(values, np.ones(20), np.zeros(20, int), 2, 20)
    assert found is None or not found.steady


@pytest.mark.parametrize("count", [1, 6])
def test_trials_of_windows_are_those_of_simulated_noise(count):
    rng = np.random.default_rng(5)
    information = np.full(8, 2.0)
    unit = all_windows(information).scores()[:count] if count == 1 else all_windows(information).scores()
    score, n = 3.0, 300000
    beyond = np.zeros(n, bool)
    for start in range(0, n, 50000):
        z = unit @ (rng.standard_normal((8, 50000)) / np.sqrt(2.0))
        beyond[start : start + 50000] = np.abs(z).max(axis=0) > score
    measured = beyond.mean() / (2 * 0.0013499)
    if count == 1:
        spread = np.sqrt((unit**2).sum() / 2.0)
        assert spread == pytest.approx(epochs.PASSING)
    trials = significance.window_trials(unit, information, score)
    assert trials == pytest.approx(measured, rel=5 / np.sqrt(beyond.sum()) + 0.05)


def test_expected_number_of_false_regions_is_that_of_noise():
    rng = np.random.default_rng(6)
    information = np.full(4, 2.0)
    contrast = all_windows(information)
    bank = templates.template_bank((192, 192))
    weight = np.ones((192, 192), np.float32)
    threshold = significance.threshold_for(3.0, weight.size, contrast.scores(), information)
    found = sum(
        len(
            regions.find_regions(
                regions.Planes(noise_planes(rng, information, weight.shape)),
                weight,
                contrast,
                bank,
                threshold,
            )
        )
        for _ in range(12)
    )
    # 36 are expected; the expectation itself is known to a tenth.
    assert abs(found - 36) < 3 * np.sqrt(36) + 0.1 * 36


def test_strong_structures_are_outlined_once_each_with_window_and_depth():
    rng = np.random.default_rng(7)
    information = np.full(8, 2e4)
    planes = noise_planes(rng, information)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    spot = np.hypot(y - 30, x - 40) < 6.5
    planes[3:, spot] -= 0.05
    planes[5:7, 70:72, 80:82] -= 0.2
    planes[2:, 60, 20] += 0.4
    contrast = all_windows(information)
    bank = templates.template_bank(SHAPE)
    weight = np.ones(SHAPE, np.float32)
    weight[10, 10] = 0.0
    planes[4:, 10, 10] = 5.0
    threshold = significance.threshold_for(0.01, weight.size, contrast.scores(), information)
    found = regions.find_regions(regions.Planes(planes), weight, contrast, bank, threshold)
    assert len(found) == 3
    by_place = {(round(one.x), round(one.y)): one for one in found}
    big = by_place[40, 30]
    assert big.window == (3, 8)
    assert abs(big.area - spot.sum()) < 0.1 * spot.sum()
    assert abs(big.depth - 0.05) < 5 * big.sigma + 0.002
    cluster = by_place[80, 70] if (80, 70) in by_place else by_place[81, 71]
    assert cluster.window == (5, 7)
    assert cluster.area == 4
    assert by_place[20, 60].significance < 0 < cluster.significance


def test_bands_do_not_change_what_is_found(monkeypatch):
    rng = np.random.default_rng(8)
    information = np.full(4, 2e4)
    planes = noise_planes(rng, information, (300, 64))
    for y in (20, 99, 101, 160, 240):
        planes[2:, y : y + 3, 30:33] -= 0.03
    contrast, bank = all_windows(information), templates.template_bank((300, 64))
    found = []
    for pixels in (1 << 19, 64 * 70):
        monkeypatch.setattr(regions, "BAND_PIXELS", pixels)
        weight = np.ones((300, 64), np.float32)
        one = regions.find_regions(regions.Planes(planes), weight, contrast, bank, 6.0)
        found.append(sorted((r.rows.tolist(), r.columns.tolist(), round(r.significance, 3)) for r in one))
    assert found[0] == found[1]
    assert len(found[0]) == 4


def frames_of(rng, n, shape, truth, level=2000.0, gain=2.0):
    expected = changes.FrameNoise(0.0, 1.0 / (gain * level))
    return [
        (truth + rng.standard_normal(shape) * np.sqrt(truth / (gain * level))).astype(np.float32)
        for _ in range(n)
    ], expected


def test_group_means_are_cleaned_of_hits_and_their_noise_is_measured():
    rng = np.random.default_rng(9)
    truth = 1.0 + 0.05 * rng.standard_normal(SHAPE)
    frames, expected = frames_of(rng, 12, SHAPE, truth)
    noisy = expected.photon * 1.2**2
    for frame in frames:
        frame += rng.standard_normal(SHAPE).astype(np.float32) * np.float32(np.sqrt(noisy - expected.photon))
    hit = (np.arange(12) * 7 + 3, np.arange(12) * 9 + 1)
    for k, frame in enumerate(frames):
        frame[hit[0][k], hit[1][k]] += 0.8
    for frame in frames[6:]:
        frame[50:55, 50:55] *= 0.9
    means = changes.GroupMeans(SHAPE, [expected] * 12, np.repeat(np.arange(4), 3))
    for frame in frames:
        means.add(frame.copy())
    found = means.finish()
    assert found.hits >= 12
    assert found.noise_ratio == pytest.approx(1.2, abs=5 * 1.2 / np.sqrt(2 * SHAPE[0] * SHAPE[1] * 7))
    sigma = 1.0 / np.sqrt(found.information[3] / 2)  # the reference has as many frames
    for k in range(12):
        at = hit[0][k], hit[1][k]
        assert abs(found.changes[3][at]) < 6 * sigma / np.sqrt(found.weight[at])
    inner = found.changes[3][51:54, 51:54]
    assert abs(inner.mean() + 0.1) < 5 * sigma / 3
    assert np.std(found.quiet * np.sqrt(found.weight)) == pytest.approx(
        np.sqrt(found.quiet_variance), rel=0.05
    )


def test_sums_of_rows_are_joined_to_those_of_whole_frames():
    rng = np.random.default_rng(4)
    expected, epoch = changes.FrameNoise(1e-5, 1e-4), np.repeat(np.arange(3), 4)
    frames = 1.0 + 0.01 * rng.standard_normal((12, 30, 20)).astype(np.float32)
    frames[5, 12, 3] += 1.0
    frames[7, 2, 2] = np.nan

    def added(rows):
        means = changes.GroupMeans((rows.stop - rows.start, 20), [expected] * 12, epoch, forgive_step=True)
        for frame in frames:
            means.add(frame[rows].copy())
        means.flush()
        return means

    whole = added(slice(0, 30)).finish()
    joined = changes.GroupMeans((30, 20), [expected] * 12, epoch, forgive_step=True)
    for rows in (slice(11, 30), slice(0, 11)):
        joined.join(rows, added(rows))
    found = joined.finish()
    assert whole.hits >= 1
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(value, getattr(found, name), err_msg=name)


def test_smooth_part_takes_a_film_and_leaves_a_spot():
    rng = np.random.default_rng(10)
    shape = (128, 160)
    y, x = np.mgrid[:128, :160]
    surface = -0.03 * (((y - 64) / 64) ** 2 + ((x - 80) / 80) ** 2) / 2
    change = surface + 0.003 * rng.standard_normal(shape)
    change[40:46, 60:66] -= 0.03
    means, known = film.cell_means(change.astype(np.float32), np.ones(shape, np.float32), 8)
    fit = film.smooth_part(means, known / 0.003**2, shape, 8)
    assert np.abs(fit.rows(0, 128) - surface).mean() < 0.001
    quiet, known = film.cell_means(0.003 * rng.standard_normal(shape), np.ones(shape), 8)
    assert len(film.smooth_part(quiet, known / 0.003**2, shape, 8).heights) == 1


def test_film_depths_have_the_errors_they_quote():
    rng = np.random.default_rng(11)
    shape, sigma = (128, 160), 0.004
    y, x = np.mgrid[:128, :160]
    loss = 0.03 * np.exp(-((y - 40) ** 2 + (x - 50) ** 2) / (2 * 25.0**2))
    pulls = []
    for _ in range(12):
        change = (-loss + sigma * rng.standard_normal(shape)).astype(np.float32)
        means, known = film.cell_means(change, np.ones(shape, np.float32), 8)
        surface = film.smooth_part(means, known / sigma**2, shape, 8)
        means, known = film.cell_means(change, np.ones(shape, np.float32), 16)
        found = film.film_map(means, known / sigma**2, surface, 16)
        true, _ = film.cell_means(loss.astype(np.float32), np.ones(shape, np.float32), 16)
        pulls.append((found.loss - (true - true[found.undisturbed].mean())) / found.sigma)
        assert found.beyond_tilt > 5
    pulls = np.concatenate([one.ravel() for one in pulls])
    assert 0.9 < pulls.std() < 1.1


def test_a_line_and_its_error():
    rng = np.random.default_rng(12)
    x, pulls = np.linspace(0, 50, 11), []
    for _ in range(400):
        found = trends.fit_trend(x, 3.0 + 0.02 * x + 0.1 * rng.standard_normal(11), np.full(11, 0.1))
        pulls.append((found.slope - 0.02) / found.slope_error)
    # Errors are widened where the scatter asks for it, and never narrowed.
    assert 0.8 < np.std(pulls) < 1.05
    assert trends.fit_trend(x[:2], x[:2], np.ones(2)) is None
    both = trends.fit_two_causes(
        x, np.tile([1.0, -1.0], 6)[:11], 0.02 * x + 0.3 * np.tile([1.0, -1.0], 6)[:11], np.full(11, 0.1)
    )
    assert both.slopes == pytest.approx([0.02, 0.3])
    assert trends.fit_two_causes(x, 2 * x, x, np.ones(11)) is None


def test_levels_of_epochs_from_groups_that_overlap():
    group = np.array([0, 0, 0, 1, 1])
    epoch = np.array([0, 1, 2, 1, 2])
    level = np.array([0.0, -0.1, -0.3])
    values = level[epoch] + np.array([0.0, 0.5])[group]
    found, cov = trends.epoch_levels(values, group, epoch, np.full(5, 100.0))
    assert found == pytest.approx(level)
    assert cov[0, 0] == 0
    assert 0 < cov[1, 1] < 0.02
    alone, _ = trends.epoch_levels(np.zeros(4), np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), np.ones(4))
    assert np.isnan(alone[2:]).all()
