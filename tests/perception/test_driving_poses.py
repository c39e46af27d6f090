"""Poses out of a driving video, as a Python user asks for them; the script's own tests look at the rest."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax import DWPose, InputError, People, PoseEstimator, SkeletonStyle, poses_from_video
from stableanimator_jax.data.images import automatic_size
from stableanimator_jax.data.keypoints import POINTS
from tests.data.clips import encode
from tests.perception.standin_poses import draw_person, write_models

FRAMES, RATE = 6, 8


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dwpose")
    write_models(folder)
    return DWPose.from_folder(str(folder))


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


@pytest.mark.parametrize("align", ["linear", "similarity", "limbs", "off"])
def test_ways_to_align(estimator, tmp_path, align, capsys):
    """Each way brings who stands still to the photo's person; `off` only fits the picture."""
    frames = [np.zeros((160, 240, 3), np.uint8) for _ in range(3)]
    for frame in frames:
        draw_person(frame, (20, 30, 100, 150))
    encode(tmp_path / "still.mov", frames, codec="png", rate=RATE, pixels="rgb24")
    photo = np.zeros((200, 200, 3), np.uint8)
    draw_person(photo, (110, 30, 190, 150))
    poses = poses_from_video(tmp_path / "still.mov", estimator, photo, align=align, fit="pad")
    assert poses.frames.shape == (3, 512, 512, 3)
    (top, bottom), (left, right) = rows_and_columns(poses.frames)
    found = (left + right) / 2, (top + bottom) / 2
    if align == "off":
        assert found == pytest.approx((60 / 240, 0.5 + (90 - 80) / 240), abs=0.04)
    else:
        assert found == pytest.approx((150 / 200, 90 / 200), abs=0.04)
        assert bottom - top == pytest.approx(0.9 * 120 / 200, abs=0.06)
    assert "poorly" not in capsys.readouterr().err


def test_the_size_suits_what_is_seen(estimator, walk):
    tall = np.zeros((320, 180, 3), np.uint8)
    draw_person(tall, (50, 90, 130, 230))
    for reference, (width, height) in ((None, automatic_size(160, 120)), (tall, (576, 1024))):
        poses = poses_from_video(walk, estimator, reference, max_frames=1)
        assert poses.frames.shape == (1, height, width, 3)


class WhiteRectangle:
    """A second `PoseEstimator`: the one person in view is what is white, their keypoints along its diagonal."""

    def people(self, images):
        return [self._person(image) for image in images]

    def _person(self, image):
        rows, columns = np.nonzero(image.min(axis=2) > 128)
        seen = int(rows.size > 0)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if seen else np.zeros(4)
        boxes = np.tile(np.float32(box), (seen, 1))
        share = np.linspace(0, 1, POINTS, dtype=np.float32)[:, None]
        keypoints = boxes[:, None, :2] + share * (boxes[:, None, 2:] - boxes[:, None, :2])
        return People(boxes, keypoints, np.ones((seen, POINTS), np.float32))


def test_another_estimator_can_take_dwposes_place(estimator, tmp_path):
    other = WhiteRectangle()
    assert isinstance(other, PoseEstimator)
    assert isinstance(estimator, PoseEstimator)
    frames = np.zeros((FRAMES, 120, 160, 3), np.uint8)
    encode(tmp_path / "nobody.mov", list(frames), codec="png", rate=RATE, pixels="rgb24")
    for i, frame in enumerate(frames):
        frame[30:90, 40 + 4 * i : 80 + 4 * i] = 255
    encode(tmp_path / "walk.mov", list(frames), codec="png", rate=RATE, pixels="rgb24")
    poses = poses_from_video(tmp_path / "walk.mov", other, width=160, height=128)
    assert poses.frames.shape == (FRAMES, 128, 160, 3)
    for i, frame in enumerate(poses.frames):
        (top, bottom), (left, right) = rows_and_columns(frame[None])
        np.testing.assert_allclose([left, right], [(40 + 4 * i) / 160, (80 + 4 * i) / 160], atol=0.05)
        np.testing.assert_allclose([top, bottom], [30 / 120, 90 / 120], atol=0.05)
    with pytest.raises(InputError, match=r"^WhiteRectangle finds nobody in the driving video .*nobody.mov$"):
        poses_from_video(tmp_path / "nobody.mov", other)
    with pytest.raises(InputError, match=r"^WhiteRectangle finds nobody in the reference image"):
        poses_from_video(tmp_path / "walk.mov", other, np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video": "nowhere.mp4"}, "nowhere.mp4"),
        ({"width": 64}, "give both width and height"),
        ({"person": "tallest"}, "must be largest, left"),
        pytest.param({"align": "limb"}, "align must be linear, .*, off, got limb", marks=pytest.mark.mistyped),
        ({"person": "2"}, "only one person is seen"),
        ({"reference": np.zeros((64, 64, 3), np.uint8)}, "nobody in the reference image"),
        pytest.param(
            {"reference": np.zeros((64, 64, 3), np.float32)},
            "reference image must be uint8 RGB",
            marks=pytest.mark.mistyped,
        ),
    ],
)
def test_what_cannot_be_used_is_refused(estimator, walk, arguments, message):
    with pytest.raises(InputError, match=message):
        poses_from_video(**{"video": walk, "estimator": estimator, "max_frames": 1} | arguments)


def test_what_skeletons_show(estimator, walk):
    """The face's points alone are white: together they are the brighter the more of them is shown."""
    size = {"width": 480, "height": 360, "max_frames": 1}
    white = {
        shown: int(poses_from_video(walk, estimator, **size, style=SkeletonStyle(shown, "off")).frames.min(-1).sum())
        for shown in ("full", "faint", "off")
    }
    assert white["full"] > 2 * white["faint"] > 2 * white["off"]
