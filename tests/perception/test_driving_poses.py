"""Poses out of a driving video, as a Python user asks for them; the script's own tests look at the rest."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax import InputError, PoseEstimator, poses_from_video
from stableanimator_jax.data.images import automatic_size
from tests.data.clips import encode
from tests.perception.standin_poses import draw_person, write_models

FRAMES, RATE = 6, 8


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dwpose")
    write_models(folder)
    return PoseEstimator.from_folder(str(folder))


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    frames = [np.zeros((120, 160, 3), np.uint8) for _ in range(FRAMES)]
    for frame in frames:
        draw_person(frame, (20, 30, 60, 100))
    path = tmp_path_factory.mktemp("walk") / "walk.mov"
    encode(path, frames, codec="png", rate=RATE, pixels="rgb24")
    return path


def rows_and_columns(frames: np.ndarray) -> np.ndarray:
    """First and last row and column of what is drawn, as shares of the picture."""
    shown = frames.any(axis=(0, 3))
    spans = [np.flatnonzero(shown.any(axis)) for axis in (1, 0)]
    return np.array([(s[0] / n, (s[-1] + 1) / n) for s, n in zip(spans, shown.shape, strict=True)])


def test_they_stay_where_they_are_without_a_reference(estimator, walk):
    poses = poses_from_video(walk, estimator, width=128, height=96)
    assert poses.frames.shape == (FRAMES, 96, 128, 3)
    assert poses.fps == RATE
    (top, bottom), (left, right) = rows_and_columns(poses.frames)
    assert 30 / 120 - 0.05 < top < bottom < 100 / 120 + 0.05
    assert 20 / 160 - 0.05 < left < right < 60 / 160 + 0.05


@pytest.mark.parametrize("kind", [np.asarray, Image.fromarray])
def test_they_come_to_the_place_and_size_of_the_references_person(estimator, walk, kind):
    photo = np.zeros((200, 200, 3), np.uint8)
    draw_person(photo, (110, 30, 190, 170))
    poses = poses_from_video(str(walk), estimator, kind(photo), width=64, height=64, start=0.25, max_frames=2)
    assert poses.frames.shape == (2, 64, 64, 3)
    (top, bottom), (left, right) = rows_and_columns(poses.frames)
    assert 30 / 200 - 0.05 < top < 0.25
    assert 0.75 < bottom < 170 / 200 + 0.05
    assert 110 / 200 - 0.05 < left < right < 190 / 200 + 0.05


def test_the_size_suits_what_is_seen(estimator, walk):
    tall = np.zeros((320, 180, 3), np.uint8)
    draw_person(tall, (50, 90, 130, 230))
    for reference, (width, height) in ((None, automatic_size(160, 120)), (tall, (576, 1024))):
        poses = poses_from_video(walk, estimator, reference, max_frames=1)
        assert poses.frames.shape == (1, height, width, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video": "nowhere.mp4"}, "nowhere.mp4"),
        ({"width": 64}, "give both width and height"),
        ({"person": "tallest"}, "must be largest, left"),
        ({"person": "2"}, "only one person is seen"),
        ({"reference": np.zeros((64, 64, 3), np.uint8)}, "nobody in the reference image"),
        ({"reference": np.zeros((64, 64, 3), np.float32)}, "reference image must be uint8 RGB"),
    ],
)
def test_what_cannot_be_used_is_refused(estimator, walk, arguments, message):
    with pytest.raises(InputError, match=message):
        poses_from_video(**{"video": walk, "estimator": estimator, "max_frames": 1} | arguments)
