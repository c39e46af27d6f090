"""Windows against a straightforward restatement of the published tiling."""

import numpy as np
import pytest

from stableanimator_jax.sampling.windows import plan_windows

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
        np.testing.assert_allclose(plan_windows(20, window, 2).weights, expected, rtol=1e-6)
