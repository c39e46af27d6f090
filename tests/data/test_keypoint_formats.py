"""Keypoints in other programs' files: the same joints as in ours, whoever wrote them; and what cannot be used."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stableanimator_jax.data.keypoint_formats import holds_keypoints, keypoint_files, read_keypoint_file, stated_size
from stableanimator_jax.data.keypoints import save_keypoints
from stableanimator_jax.data.poses import load_poses, pose_files, pose_size
from stableanimator_jax.errors import InputError
from tests.data.clips import one_line
from tests.data.keypoint_files import (
    BODY_18,
    BODY_25,
    controlnet_frames,
    dance,
    openpose_folder,
    person,
    rows,
    wholebody,
    written,
)

DANCE = dance()
SIZE = (DANCE.width, DANCE.height)
WHOLE = wholebody(DANCE)


def ours(path: Path) -> Path:
    save_keypoints(path, DANCE)
    return path


# What is written, what it lacks of ours (rows), and whether it states the picture's size.
NOTHING, FEET, LEFT_HAND = slice(0), slice(18, 24), slice(92, 113)
FORMS = {
    "ours": (lambda d: ours(d / "a.json"), NOTHING, True),
    "openpose, BODY_18": (lambda d: openpose_folder(d / "a", DANCE), FEET, False),
    "openpose, BODY_25": (lambda d: openpose_folder(d / "a", DANCE, BODY_25), NOTHING, False),
    "openpose with a canvas": (
        lambda d: openpose_folder(d / "a", DANCE, BODY_25, canvas_width=SIZE[0], canvas_height=SIZE[1]),
        NOTHING,
        True,
    ),
    "controlnet": (lambda d: written(d / "a.json", controlnet_frames(DANCE)), FEET, True),
    "controlnet, shares": (lambda d: written(d / "a.JSON", controlnet_frames(DANCE, shares=True)), FEET, True),
    "npy, COCO-WholeBody": (lambda d: written(d / "a.npy", WHOLE), NOTHING, False),
    "npy, ours, doubles": (lambda d: written(d / "a.npy", rows(DANCE).astype(np.float64)), NOTHING, False),
    "npz": (lambda d: written(d / "a.npz", {"keypoints": WHOLE[..., :2], "scores": WHOLE[..., 2]}), NOTHING, False),
    "npz with a size, shares": (
        lambda d: written(
            d / "a.npz",
            {"keypoints": WHOLE[..., :2] / SIZE, "scores": WHOLE[..., 2], "width": SIZE[0], "height": SIZE[1]},
        ),
        NOTHING,
        True,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_has_the_same_joints(tmp_path, form):
    write, lacks, states_size = FORMS[form]
    path = write(tmp_path)
    expected = rows(DANCE)
    expected[:, lacks] = 0
    if form.startswith("controlnet"):
        expected[:, LEFT_HAND] = 0
    assert holds_keypoints(path)
    file = read_keypoint_file(path, None if states_size else SIZE)
    np.testing.assert_array_equal(np.stack(file.frames), expected[:, None])
    assert (file.size, file.states_size, file.fps) == (SIZE, states_size, None)
    assert file.frames[0].dtype == np.float32
    assert pose_files(path) == keypoint_files(path)
    if states_size:
        assert stated_size(path) == pose_size(path) == SIZE
    else:
        with pytest.raises(InputError, match=r"do not say how large the picture is .* give --width and --height"):
            pose_size(path)


def test_one_frame_of_openposes(tmp_path):
    """The numbers are those of OpenPose's documentation."""
    numbers = [582.349, 507.866, 0.845918, 746.975, 631.307, 0.587007, *[0] * 16 * 3]
    hand = [617.581, 472.65, 0.797508, 0, 0, 0, 723.431, 462.783, 0.88765, *[0] * 18 * 3]
    frame = {"version": 1.1, "people": [{"pose_keypoints_2d": numbers, "hand_right_keypoints_2d": hand}]}
    ((row,),) = read_keypoint_file(written(tmp_path / "dance_keypoints.json", frame), (1280, 720)).frames
    seen = {0: numbers[:3], 1: numbers[3:6], 113: hand[:3], 115: hand[6:9]}
    assert set(np.flatnonzero(row.any(axis=1)).tolist()) == set(seen)
    for i, joint in seen.items():
        np.testing.assert_allclose(row[i], joint, rtol=1e-6)


def test_the_folders_files_are_its_frames_in_order(tmp_path):
    folder = openpose_folder(tmp_path / "a", dance(12))
    assert [file.name for file in keypoint_files(folder)] == [f"dance_{i:012}_keypoints.json" for i in range(12)]
    (folder / "dance_000000000007_keypoints.json").unlink()
    with pytest.raises(InputError, match=r"missing dance_000000000007_keypoints\.json"):
        read_keypoint_file(folder, SIZE)


def test_speed_and_frames_without_anybody(tmp_path):
    """In every form; a size that is stated goes before one that is given."""
    gone = replace(DANCE, scores=DANCE.scores.copy(), fps=12.5)
    gone.scores[1] = 0
    save_keypoints(tmp_path / "ours.json", gone)
    frames = controlnet_frames(DANCE)
    frames[1]["people"] = []
    written(tmp_path / "list.json", frames)
    written(tmp_path / "a.npz", {"keypoints": gone.points, "scores": gone.scores, "width": 512, "height": 256})
    for name, fps in (("ours.json", 12.5), ("list.json", None), ("a.npz", None)):
        file = read_keypoint_file(tmp_path / name, (64, 64))
        assert [len(people) for people in file.frames] == [1, 0, 1]
        assert (file.size, file.fps) == (SIZE, fps)


def test_shares_may_reach_out_of_the_picture_and_be_of_one_part_only(tmp_path):
    frames = controlnet_frames(DANCE, shares=True)
    (somebody,) = frames[0]["people"]
    somebody["pose_keypoints_2d"][:2] = [-0.2, 1.3]
    pixels = person(rows(DANCE)[0])
    somebody["face_keypoints_2d"] = pixels["face_keypoints_2d"]
    ((row,),) = read_keypoint_file(written(tmp_path / "a.json", frames[0])).frames
    np.testing.assert_allclose(row[0, :2], [-0.2 * SIZE[0], 1.3 * SIZE[1]], rtol=1e-6)
    np.testing.assert_array_equal(row[1:18], rows(DANCE)[0, 1:18])
    np.testing.assert_array_equal(row[24:92], rows(DANCE)[0, 24:92])


def test_images_go_before_keypoints_in_a_folder(tmp_path):
    assert not holds_keypoints(tmp_path)
    openpose_folder(tmp_path / "a", DANCE)
    (tmp_path / "a" / "dance_0_rendered.png").touch()
    assert not holds_keypoints(tmp_path / "a")
    assert not holds_keypoints(tmp_path / "dance.mp4")
    assert not holds_keypoints(tmp_path / ("a" * 300))


def test_skeletons_are_not_loaded_from_keypoints(tmp_path):
    with pytest.raises(InputError, match="are keypoints, not skeletons: poses_from_keypoints draws them"):
        load_poses(ours(tmp_path / "a.json"), *SIZE)


def body(count: int) -> dict:
    return {"people": [{"pose_keypoints_2d": [5.0] * 3 * count}]}


def frame(**changes: object) -> dict:
    return {"people": [person(rows(DANCE)[0]) | changes], "canvas_width": 512, "canvas_height": 256}


def arrays(**changes: object) -> dict:
    data = {"keypoints": WHOLE[..., :2], "scores": WHOLE[..., 2]} | changes
    return {name: value for name, value in data.items() if value is not None}


def changed(value: float, column: int = 0) -> np.ndarray:
    array = WHOLE.copy()
    array[1, 3, column] = value
    return array


BAD = {
    "no JSON": ("a.json", "keypoints", "not a JSON file"),
    "empty file": ("a.json", "", "is empty"),
    "a number": ("a.json", 3, 'expected an object with "people"'),
    "no frames": ("a.json", [], "there is nobody in them"),
    "COCO's results": ("a.json", [{"image_id": 1, "keypoints": [1, 2]}], 'frame 0: expected an object with "people"'),
    "animals": ("a.json", [{"animals": [], "canvas_width": 1, "canvas_height": 1}], 'an object with "people"'),
    "an editor's": ("a.json", {"width": 5, "height": 5, "keypoints": []}, 'an object with "people"'),
    "people no list": ("a.json", {"people": {}}, "expected a list"),
    "a person no object": ("a.json", {"people": [[1, 2]]}, 'person 0: expected an object with "pose_keypoints_2d"'),
    "nobody": ("a.json", {"people": []}, "there is nobody in them"),
    "nobody seen": ("a.json", {"people": [{"pose_keypoints_2d": [0] * 54}]}, "there is nobody in them"),
    "BODY_135": ("a.json", body(135), r"a body of 135 points \(OpenPose's BODY_135\); take OpenPose's BODY_18"),
    "MediaPipe": ("a.json", body(33), r"33 points \(MediaPipe's\)"),
    "COCO": ("a.json", body(17), r"17 points \(COCO's, without a neck\)"),
    "unknown": ("a.json", body(7), "a body of 7 points; take"),
    "3D only": ("a.json", {"people": [{"pose_keypoints_2d": [], "pose_keypoints_3d": [1] * 100}]}, "3D points only"),
    "pairs": ("a.json", frame(pose_keypoints_2d=[5.0] * 50), "50 numbers are not x, y and score of each point"),
    "nested": ("a.json", frame(pose_keypoints_2d=[[5.0, 5.0, 1.0]] * 18), "pose_keypoints_2d: "),
    "NaN": ("a.json", frame(pose_keypoints_2d=[float("nan")] * 54), "pose_keypoints_2d: .* not nan"),
    "text": ("a.json", frame(face_keypoints_2d="none"), "face_keypoints_2d: expected a list"),
    "a small hand": ("a.json", frame(hand_left_keypoints_2d=[5] * 60), "hand_left_keypoints_2d: 20 points; it has 21"),
    "a face mesh": ("a.json", frame(face_keypoints_2d=[5] * 468 * 3), "face_keypoints_2d: 468 points; it has 68 or 70"),
    "half a canvas": ("a.json", frame() | {"canvas_height": None}, "canvas: height must be a whole number"),
    "mixed canvases": ("a.json", [frame(), frame() | {"canvas_width": 64}], "frame 1: .* is 64x256, but .* 512x256"),
    "one canvas": ("a.json", [frame(), body(18)], "frame 1: its canvas is not stated, but .* 512x256"),
    "OpenPose's -1 to 1": ("a.json", frame(pose_keypoints_2d=[-0.9, 0.8, 1] * 18), "take --keypoint_scale 0 or 3"),
    "depths": ("a.json", frame(pose_keypoints_2d=[90, 80, 400] * 18), "scores are numbers from .* to 400.*3D points"),
    "no array": ("a.npy", b"hello", "not a plain .npy or .npz file"),
    "pickled": ("a.npy", np.array([{}]), "not a plain .npy or .npz file"),
    "COCO array": ("a.npy", np.ones((3, 17, 3)), r"shape \[3, 17, 3\], 17 points \(COCO's, without a neck\)"),
    "MediaPipe array": ("a.npy", np.ones((3, 33, 3)), r"33 points \(MediaPipe's\)"),
    "3D array": ("a.npy", np.ones((3, 133, 4)), r"shape \[3, 133, 4\]: expected .*; 3D points cannot be drawn"),
    "without scores": ("a.npy", np.ones((3, 133, 2)), r"shape \[3, 133, 2\]: expected \[frames, 133 or 134, 3\]"),
    "one frame": ("a.npy", np.ones((133, 3)), r"shape \[133, 3\]: expected"),
    "several people": ("a.npy", np.ones((3, 2, 133, 3)), r"shape \[3, 2, 133, 3\]: expected"),
    "no frames in an array": ("a.npy", np.ones((0, 133, 3)), r"shape \[0, 133, 3\]"),
    "NaN in an array": ("a.npy", changed(np.nan), "not finite numbers"),
    "too large": ("a.npy", changed(1e9), "not finite numbers of at most 1,000,000"),
    "complex": ("a.npy", WHOLE.astype(complex), r"\(complex128\) has values"),
    "nobody in an array": ("a.npy", np.zeros((3, 133, 3)), "there is nobody"),
    "depths in an array": ("a.npy", changed(-300, 2), "scores are numbers from -300"),
    "npz without scores": ("a.npz", arrays(scores=None), "there is no array 'scores'"),
    "npz of 3D": ("a.npz", arrays(keypoints=WHOLE), r"keypoints \[3, 133, 3\] and scores .*; 3D points cannot"),
    "npz unlike": ("a.npz", arrays(scores=WHOLE[:2, :, 2]), r"scores \[2, 133\] are not"),
    "npz of half a size": ("a.npz", arrays(width=512), "height must be a whole number of pixels, at least 1, not null"),
    "npz of a long size": ("a.npz", arrays(width=[5, 5], height=5), "width must be .* not a list of 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used(tmp_path, case):
    name, data, words = BAD[case]
    path = tmp_path / name
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        written(path, data)
    with pytest.raises(InputError, match=words) as error:
        read_keypoint_file(path, SIZE)
    assert str(path) in one_line(error)


def test_what_cannot_be_used_in_a_folder(tmp_path):
    folder = openpose_folder(tmp_path / "a", DANCE, BODY_18)
    bad = folder / "dance_000000000001_keypoints.json"
    for text, words in (("[]", "expected an object"), (json.dumps(body(33)), "MediaPipe"), ("{", "not a JSON file")):
        bad.write_text(text)
        with pytest.raises(InputError, match=words) as error:
            read_keypoint_file(folder, SIZE)
        assert bad.name in one_line(error)
    with pytest.raises(InputError, match="does not exist"):
        read_keypoint_file(tmp_path / "none.npz")
