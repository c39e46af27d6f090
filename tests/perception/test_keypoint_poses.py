"""Keypoints as poses: drawn alike whatever file they came from, at the output's size, of one person."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples.drawn_world.clips import draw_frames, small_skeletons
from stableanimator_jax import InputError, Keypoints, SkeletonStyle, poses_from_keypoints
from stableanimator_jax.data.keypoints import save_keypoints
from stableanimator_jax.perception.keypoint_poses import output_keypoints
from stableanimator_jax.perception.skeleton import draw_skeletons
from tests.data.keypoint_files import (
    BODY_25,
    controlnet_frames,
    dance,
    openpose_folder,
    person,
    rows,
    wholebody,
    written,
)

DANCE = dance(2)


def test_every_file_is_drawn_as_ours(tmp_path, capsys):
    """Feet are not drawn, so that BODY_18 is as good."""
    save_keypoints(tmp_path / "ours.json", replace(DANCE, fps=12.0))
    poses = poses_from_keypoints(tmp_path / "ours.json")
    assert poses.frames.shape == (2, 256, 512, 3)
    assert poses.frames.any(axis=(1, 2, 3)).all()
    assert poses.fps == 12
    np.testing.assert_array_equal(poses_from_keypoints(DANCE).frames, poses.frames)
    for path in (
        openpose_folder(tmp_path / "body_18", DANCE),
        openpose_folder(tmp_path / "body_25", DANCE, BODY_25),
        written(tmp_path / "whole.npy", wholebody(DANCE)),
    ):
        drawn = poses_from_keypoints(str(path), 512, 256)
        np.testing.assert_array_equal(drawn.frames, poses.frames)
        assert drawn.fps is None
    one_handed = replace(DANCE, scores=DANCE.scores.copy(), points=DANCE.points.copy())
    one_handed.scores[:, 92:113] = one_handed.points[:, 92:113] = 0
    frames = controlnet_frames(DANCE, shares=True)
    for data, expected in ((frames, one_handed), (frames[0], first(one_handed))):
        drawn = poses_from_keypoints(written(tmp_path / "list.json", data))
        np.testing.assert_array_equal(drawn.frames, poses_from_keypoints(expected).frames)
        assert (drawn.frames != poses.frames[: len(drawn.frames)]).any()
    assert capsys.readouterr().err == ""


def first(keypoints: Keypoints) -> Keypoints:
    return replace(keypoints, points=keypoints.points[:1], scores=keypoints.scores[:1])


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_the_picture_is_brought_to_the_outputs_aspect(fit):
    placed = output_keypoints(DANCE, 128, 128, fit)
    x, y = DANCE.points[..., 0], DANCE.points[..., 1]
    expected = ((x - 128) / 2, y / 2) if fit == "crop" else (x / 4, (y + 128) / 4)
    np.testing.assert_allclose(placed.points, np.stack(expected, axis=-1), rtol=1e-6, atol=1e-4)
    assert (placed.width, placed.height) == (128, 128)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_missing_joints_are_not_drawn(fit):
    """They are as if they were far outside, and not in a padded picture's corner."""
    missing = [4, 30, 95, 100, 113, 133]
    keypoints = replace(DANCE, points=DANCE.points.copy(), scores=DANCE.scores.copy())
    keypoints.points[:, missing] = keypoints.scores[:, missing] = 0
    outside = replace(keypoints, points=keypoints.points.copy())
    outside.points[:, missing] = -1e4
    drawn = poses_from_keypoints(keypoints, 256, 512, fit).frames
    np.testing.assert_array_equal(drawn, poses_from_keypoints(outside, 256, 512, fit).frames)
    assert (drawn != poses_from_keypoints(DANCE, 256, 512, fit).frames).any()


def two_people(path: Path, frames: int = 4) -> tuple[Path, Keypoints]:
    """The larger one stands still on the right, the other on the left; they take turns to be the first in the file."""
    points = np.random.default_rng(1).integers(0, 100, (134, 2))
    large, small = points * 2 + np.array([300, 40]), points + np.array([10, 50])
    people = [np.concatenate([p, np.ones((134, 1))], axis=1).astype(np.float32) for p in (large, small)]
    data = [
        {"people": [person(p, BODY_25) for p in people[:: 1 - 2 * (i % 2)]], "canvas_width": 512, "canvas_height": 256}
        for i in range(frames)
    ]
    data[2]["people"] = data[2]["people"][1:]  # the smaller one alone
    return written(path, data), Keypoints(people[0][None, :, :2], people[0][None, :, 2], 512, 256, None)


def test_the_largest_is_followed(tmp_path, capsys):
    path, large = two_people(tmp_path / "two.json")
    placed = output_keypoints(path, None, None, "crop")
    for i in (0, 1, 3):
        np.testing.assert_array_equal(placed.points[i], large.points[0])
    assert not placed.scores[2].any()
    (line,) = capsys.readouterr().err.splitlines()
    assert "show several people in 3 of 4 frames; the one who is largest when first seen is followed" in line
    assert "without them, 1 skeletons are empty; to take another, leave only theirs" in line


def test_a_size_that_seems_wrong_is_said(tmp_path, capsys):
    path = written(tmp_path / "a.npy", rows(DANCE))
    output_keypoints(path, 256, 256, "crop")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: keypoints {path} do not say how large their picture is, and ")
    assert "lie outside of 256x256, which --width and --height were taken for" in line


def test_what_is_cut_off_is_said(capsys):
    output_keypoints(DANCE, 128, 256, "crop")
    assert "keypoints lie outside of the picture (128x256)" in capsys.readouterr().err


@pytest.mark.mistyped
def test_what_cannot_be_used_is_refused():
    nan = replace(DANCE, points=np.full_like(DANCE.points, np.nan))
    few = replace(DANCE, points=DANCE.points[:, :133], scores=DANCE.scores[:, :133])
    none = replace(DANCE, points=DANCE.points[:0], scores=DANCE.scores[:0])
    for keypoints, words in ((nan, "not finite"), (few, r"got \[2, 133, 2\]"), (none, "not empty")):
        with pytest.raises(InputError, match=words):
            poses_from_keypoints(keypoints)
    with pytest.raises(InputError, match="give both width and height, or neither"):
        poses_from_keypoints(DANCE, 64)


def test_without_face_and_hands_it_is_the_body_alone():
    body = replace(DANCE, points=DANCE.points.copy(), scores=DANCE.scores.copy())
    body.points[:, 24:] = body.scores[:, 24:] = 0
    drawn = poses_from_keypoints(DANCE, style=SkeletonStyle(face_keypoints="off", hands="off")).frames
    np.testing.assert_array_equal(drawn, poses_from_keypoints(body).frames)
    assert (drawn != poses_from_keypoints(DANCE).frames).any()


def test_small_skeletons_are_those_that_the_weights_in_this_package_were_trained_on():
    clip = draw_frames(1, 2, 3, range(3), 64)
    poses = poses_from_keypoints(Keypoints(clip.points, clip.scores, 64, 64, None))
    np.testing.assert_array_equal(poses.frames, small_skeletons(clip))


def test_skeletons_of_the_published_sizes_are_drawn_as_large_as_they_are():
    given = dance(1, 512, 448)
    expected = draw_skeletons(given.points / [512, 448], given.scores, 448, 512)
    np.testing.assert_array_equal(poses_from_keypoints(given).frames[0], expected)
