"""Windows against a straightforward restatement of the published tiling."""

import numpy as np
import pytest

from stableanimator_jax.sampling.windows import plan_fitted, plan_runs, plan_whole, plan_windows, tile

LENGTHS = [1, 2, 15, 16, 17, 29, 100]


def restated(frames, tile, overlap):
    """The published loop, as it reads, for videos of at least one window."""
    windows, s = [], 0
    while s + tile <= frames:
        windows.append([0, *range(s + 1, s + tile)])
        s += tile - overlap
    covered = {i for window in windows for i in window}
    if frames - 1 not in covered:
        windows.append([0, *range(frames - tile + 1, frames)])
    return windows


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize(("window", "overlap"), [(16, 4), (16, 1), (16, 15), (5, 2), (2, 1)])
def test_windows_are_the_published_ones(frames, window, overlap):
    plan = plan_windows(frames, window, overlap)
    assert plan.frames == max(frames, window)
    assert plan.indices.tolist() == restated(plan.frames, window, overlap)


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("overlap", [1, 4, 15])
def test_every_frame_is_seen(frames, overlap):
    plan = plan_windows(frames, 16, overlap)
    assert set(plan.indices.ravel()) == set(range(plan.frames))
    assert all(len(set(window)) == 16 for window in plan.indices.tolist())


def test_weights_are_the_published_triangle():
    for window in (16, 5):
        expected = [min(w, 2 - w) for w in ((i + 0.5) * 2 / window for i in range(window))]
        plan = plan_windows(20, window, 2)
        np.testing.assert_allclose(plan.weights, np.broadcast_to(expected, (len(plan.indices), window)), rtol=1e-6)


def test_guidance_rises_over_the_video_and_stays():
    plan = plan_windows(3, 5, 1)
    np.testing.assert_allclose(plan.rise, [[0, 0.5, 1, 1, 1]])
    np.testing.assert_allclose(plan_windows(1, 4, 1).rise, [[0, 0, 0, 0]])
    plan = plan_windows(9, 4, 1)
    np.testing.assert_allclose(plan.rise, plan.indices / 8)


def test_a_window_of_noise_is_repeated_over_the_video():
    plan = plan_windows(9, 4, 1)
    assert plan.draws == 4
    assert plan.noise.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


@pytest.mark.parametrize("frames", LENGTHS)
def test_a_fitted_window_is_no_longer_than_the_video(frames):
    plan = plan_fitted(frames, 16, 4)
    assert plan.frames == frames
    if frames >= 16:
        np.testing.assert_array_equal(plan.indices, plan_windows(frames, 16, 4).indices)
    else:
        assert plan.indices.tolist() == [list(range(frames))]
        assert plan.draws == frames


def test_runs_are_the_published_ones():
    """ControlNeXt's: 9 frames in windows of 5 that overlap by 2 begin at 0, 3 and 4."""
    plan = plan_runs(9, 5, 2)
    assert plan.indices.tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [4, 5, 6, 7, 8]]
    assert plan.poses.tolist() == [[0, 1, 2, 3, 4], [0, 4, 5, 6, 7], [0, 5, 6, 7, 8]]
    assert plan.weights.tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 1, 1, 1, 1]]
    np.testing.assert_allclose(plan.rise, [[0, 0.25, 0.5, 0.75, 1]] * 3)
    assert plan.noise.tolist() == list(range(9))


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize(("window", "overlap"), [(16, 4), (16, 1), (16, 15), (5, 2), (2, 1)])
def test_every_frame_of_runs_counts(frames, window, overlap):
    plan = plan_runs(frames, window, overlap)
    counts = np.zeros(frames)
    np.add.at(counts, plan.indices, plan.weights)
    assert counts.min() >= 1
    assert plan.window == min(window, frames)
    assert all(np.diff(run).tolist() == [1] * (plan.window - 1) for run in plan.indices)


def test_a_whole_video_is_one_window():
    for frames in (1, 25):
        plan = plan_whole(frames, 16, 4)
        assert plan.indices.tolist() == [list(range(frames))]
        assert plan.draws == frames


@pytest.mark.parametrize(("tiling", "plan"), [("filled", plan_windows), ("runs", plan_runs), ("whole", plan_whole)])
def test_tilings_go_by_their_names(tiling, plan):
    np.testing.assert_array_equal(tile(tiling, 20, 16, 4).indices, plan(20, 16, 4).indices)
