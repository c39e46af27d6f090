"""Frames at another rate: when each is shown, and what keypoints and faces are in between."""

from dataclasses import replace

import numpy as np
import pytest

from stableanimator_jax.data.face_track import Face, FaceTrack
from stableanimator_jax.data.keypoints import Keypoints, load_keypoints, save_keypoints
from stableanimator_jax.data.timing import at_rate, checked_rates, shown_at
from stableanimator_jax.errors import InputError


def moving(count: int, fps: float | None = 10.0, cuts: tuple[int, ...] = ()) -> Keypoints:
    """Everything moves evenly, each joint at a speed of its own."""
    points = np.arange(134)[None, :, None] + np.arange(count)[:, None, None] * np.stack(
        [np.arange(134) % 5 + 1, -(np.arange(134) % 3)], axis=-1
    )
    return Keypoints(points.astype(np.float32), np.full((count, 134), 0.75, np.float32), 640, 480, fps, cuts)


@pytest.mark.parametrize(("wanted", "count"), [(20, 10), (25, 13), (30, 15), (12.5, 7)])
def test_even_motion_is_interpolated_exactly(wanted, count):
    keypoints = moving(5)
    timing = at_rate(5, 10, wanted)
    slow = keypoints.at(timing, wanted)
    assert slow.points.shape == (count, 134, 2)
    assert count / wanted == pytest.approx(0.5, abs=1 / wanted)  # as long as before
    assert slow.fps == wanted
    when = np.arange(count) * 10 / wanted
    moved = when < 4  # what comes behind the last frame is that frame
    expected = keypoints.points[0] + when[:, None, None] * (keypoints.points[1] - keypoints.points[0])
    np.testing.assert_allclose(slow.points[moved], expected[moved], atol=1e-4)
    np.testing.assert_array_equal(slow.points[~moved], np.broadcast_to(keypoints.points[4], slow.points[~moved].shape))
    np.testing.assert_array_equal(slow.scores, np.float32(0.75))


@pytest.mark.parametrize(("wanted", "frames"), [(10, range(8)), (5, (0, 2, 4, 6)), (4, (0, 2, 5, 7)), (8, range(7))])
def test_at_a_lower_rate_frames_are_left_out(wanted, frames):
    timing = at_rate(8, 10, wanted)
    expected = [int(k * 10 / wanted) for k in range(len(frames))]
    assert timing.frame.tolist() == expected
    assert not timing.share.any()
    assert timing.unchanged == (wanted == 10)
    np.testing.assert_array_equal(moving(8).at(timing, wanted).points, moving(8).points[expected])
    assert [*shown_at("abcdefgh", timing.frame)] == ["abcdefgh"[i] for i in expected]


def test_rates_that_are_nearly_the_same_are():
    assert at_rate(1000, 29.97, 30000 / 1001).unchanged


def test_nothing_is_interpolated_across_a_cut():
    keypoints = moving(6, cuts=(3,))
    slow = keypoints.at(at_rate(6, 10, 40, keypoints.cuts), 40)
    for k in (8, 9, 10, 11):
        np.testing.assert_array_equal(slow.points[k], keypoints.points[2])
    np.testing.assert_array_equal(slow.points[12], keypoints.points[3])
    assert (slow.points[13] != keypoints.points[3]).any()
    assert slow.cuts == (12,)
    fast = moving(6, cuts=(2, 5)).at(at_rate(6, 10, 4), 4)  # of frames 0, 2 and 5
    assert fast.cuts == (1, 2)


def test_a_joint_that_one_frame_shows_is_the_nearer_frames():
    keypoints = moving(2)
    keypoints.points[1, 4] = keypoints.scores[1, 4] = 0  # missing
    keypoints.scores[0, 7] = 0.1  # a guess
    slow = keypoints.at(at_rate(2, 10, 40), 40)
    for joint in (4, 7):
        for k, frame in ((0, 0), (1, 0), (2, 0), (3, 1), (4, 1)):
            np.testing.assert_array_equal(slow.points[k, joint], keypoints.points[frame, joint])
            assert slow.scores[k, joint] == keypoints.scores[frame, joint]
    np.testing.assert_allclose(slow.points[2, 5], keypoints.points[:, 5].mean(axis=0))


def test_a_person_who_leaves_is_not_drawn_out_to_the_corner():
    keypoints = moving(2)
    keypoints.points[1] = keypoints.scores[1] = 0
    slow = keypoints.at(at_rate(2, 10, 40), 40)
    np.testing.assert_array_equal(slow.points[:3], keypoints.points[[0, 0, 0]])
    assert not slow.scores[3:].any()


def test_faces_follow():
    faces = [Face(np.array([10, 20, 30, 40], np.float32)), Face(np.array([20, 20, 44, 40], np.float32)), None]
    track = FaceTrack.of(faces).at(at_rate(3, 5, 10))
    assert track.valid.tolist() == [True, True, True, True, False, False]  # the middle is the earlier frame's
    np.testing.assert_array_equal(track.boxes[:4, 0], [10, 15, 20, 20])
    np.testing.assert_array_equal(track.boxes[:4, 2], [30, 37, 44, 44])
    assert not track.boxes[4:].any()
    points = np.arange(10, dtype=np.float32).reshape(5, 2)
    marked = [Face(np.array([0, 0, 9, 9], np.float32), points + shift) for shift in (0, 4)]
    landmarks = FaceTrack.of(marked).at(at_rate(2, 5, 20)).landmarks
    assert landmarks is not None
    np.testing.assert_allclose(landmarks[:, 0, 0], [0, 1, 2, 3, 4, 4, 4, 4])


def test_cuts_are_kept_in_the_file(tmp_path):
    keypoints = moving(4, cuts=(1, 3))
    save_keypoints(tmp_path / "a.json", keypoints)
    assert load_keypoints(tmp_path / "a.json").cuts == (1, 3)
    save_keypoints(tmp_path / "b.json", replace(keypoints, cuts=()))
    assert "cuts" not in (tmp_path / "b.json").read_text()
    text = (tmp_path / "a.json").read_text()
    for bad in ("[0]", "[4]", "[1.5]", "1"):
        (tmp_path / "c.json").write_text(text.replace("[1, 3]", bad))
        with pytest.raises(InputError, match="cuts"):
            load_keypoints(tmp_path / "c.json")


def test_rates_out_of_range():
    assert checked_rates(None, None) is None
    assert checked_rates(8, None) == (8, 8)
    for rates in ((0, None), (8, 5000), (None, float("nan"))):
        with pytest.raises(InputError, match="frames a second must lie between"):
            checked_rates(*rates)
