"""Keypoints of a followed person: there and back, where they lie, and files that are no keypoints."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stableanimator_jax.data.keypoints import Keypoints, keypoints_beside, load_keypoints, save_keypoints
from stableanimator_jax.errors import InputError
from tests.data.clips import one_line


def keypoints(frames=3, **changes) -> Keypoints:
    rng = np.random.default_rng(0)
    fields = {
        "points": rng.uniform(-20, 700, (frames, 134, 2)).astype(np.float32),
        "scores": rng.uniform(0, 1, (frames, 134)).astype(np.float32),
        "width": 576,
        "height": 1024,
        "fps": 29.97,
    }
    return Keypoints(**fields | changes)


@settings(max_examples=30, deadline=None)
@given(
    coordinates=arrays(np.float32, (2, 134, 2), elements=st.floats(-1e4, 1e4, width=32)),
    scores=arrays(np.float32, (2, 134), elements=st.floats(-1, 2, width=32)),
    fps=st.none() | st.floats(0.01, 1000),
)
def test_there_and_back(tmp_path_factory, coordinates, scores, fps):
    path = tmp_path_factory.mktemp("keypoints") / "a.json"
    save_keypoints(path, keypoints(points=coordinates, scores=scores, fps=fps))
    loaded = load_keypoints(path)
    found = scores.any(axis=1)
    np.testing.assert_array_equal(loaded.points, np.where(found[:, None, None], coordinates, 0))
    np.testing.assert_array_equal(loaded.scores, scores)
    assert (loaded.points.dtype, loaded.scores.dtype) == (np.float32, np.float32)
    assert (loaded.width, loaded.height, loaded.fps) == (576, 1024, fps)


def test_a_frame_without_the_person_is_null(tmp_path):
    people = keypoints()
    people.scores[1] = 0
    save_keypoints(tmp_path / "a.json", people)
    assert [frame is None for frame in json.loads((tmp_path / "a.json").read_text())["frames"]] == [False, True, False]


@pytest.mark.mistyped
def test_what_cannot_be_kept_is_not_written(tmp_path):
    nan, few = keypoints(), keypoints(points=np.zeros((3, 133, 2), np.float32), scores=np.zeros((3, 133), np.float32))
    nan.points[0, 0, 0] = np.nan
    for bad in (nan, few, keypoints(fps=float("nan"))):
        with pytest.raises(ValueError, match=r"finite keypoints|JSON"):
            save_keypoints(tmp_path / "a.json", bad)
    with pytest.raises(InputError, match="cannot write"):
        save_keypoints(tmp_path / "none" / "a.json", keypoints())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "COCO"}, 'its "format" is not "stableanimator-jax keypoints"'),
        ({"format": ...}, 'its "format" is not'),
        ({"frames": ...}, 'there is no "frames"'),
        ({"people": 2}, 'unknown key "people"'),
        ({"width": -1}, "width must be"),
        ({"height": "1024"}, "height must be .* not '1024'"),
        ({"fps": 0}, "fps must be above 0"),
        ({"fps": "25"}, "fps: expected a number"),
        ({"fps": float("inf")}, "fps: expected a number"),
        ({"frames": []}, "there are no frames"),
        ({"frames": 3}, "frames: expected a list"),
        ({"frames": [None, [[1, 2, 1]] * 133]}, "frame 1: expected 134 lists of 3 numbers, got 133"),
        ({"frames": [None, [[1, 2]] * 134]}, "frame 1: expected 134 lists of 3 numbers, got 2 in one"),
        ({"frames": [None, [[1, 2, None]] * 134]}, "frame 1: .* not null"),
        ({"frames": [None, [[1, 2, float("nan")]] * 134]}, "frame 1: .* not nan"),
        ({"frames": [None, {}]}, "frame 1: .* got an object"),
    ],
)
def test_bad_keypoints(tmp_path, changes, words):
    path = tmp_path / "a.json"
    save_keypoints(path, keypoints())
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    with pytest.raises(InputError, match=words) as error:
        load_keypoints(path)
    assert f"keypoints {path}" in one_line(error)


def test_bad_files(tmp_path):
    (tmp_path / "empty.json").touch()
    (tmp_path / "text.json").write_text("keypoints")
    for name, words in (("missing.json", "does not exist"), ("empty.json", "is empty"), ("text.json", "not a JSON")):
        with pytest.raises(InputError, match=words) as error:
            load_keypoints(tmp_path / name)
        assert str(tmp_path / name) in one_line(error)


def test_beside_the_poses(tmp_path):
    directory, video = tmp_path / "poses", tmp_path / "dance.mp4"
    directory.mkdir()
    video.touch()
    assert keypoints_beside(directory) is keypoints_beside(video) is None
    for path in (directory / "keypoints.json", tmp_path / "dance.mp4.keypoints.json"):
        path.touch()
    assert keypoints_beside(directory) == directory / "keypoints.json"
    assert keypoints_beside(video) == tmp_path / "dance.mp4.keypoints.json"
    assert keypoints_beside(tmp_path / "missing.mp4") is None
    assert keypoints_beside(tmp_path / ("a" * 300)) is None
