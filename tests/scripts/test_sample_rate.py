"""`sample.py --output-fps` and `--poses-fps`: more poses between keypoints, fewer of anything, in the same time."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stableanimator_jax import poses_from_keypoints
from stableanimator_jax.data.images import load_image
from stableanimator_jax.data.keypoints import save_keypoints
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.sampling.config import HJBConfig
from stableanimator_jax.scripts.sample.inputs import read_inputs
from stableanimator_jax.scripts.sample.record import as_meant_now
from stableanimator_jax.scripts.sample.settings import SampleConfig
from tests.data.keypoint_files import dance
from tests.scripts.sample_script import QUICK, call, pixels, prepare_dance
from tests.training.mini_model import save_mini_model

FRAMES = 3
DANCE = replace(dance(FRAMES, 64, 64), fps=8.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_mini_model(tmp_path_factory.mktemp("rate") / "mini")


@pytest.fixture
def place(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    prepare_dance(checkpoint, DANCE)
    return tmp_path


def inputs(poses: str, **settings):
    given = {"checkpoint": "mini", "reference": Path("photo.png"), "width": 64, "height": 64, "output": Path("a.mp4")}
    return read_inputs(SampleConfig(**{**given, "poses": Path(poses), **settings}))


def test_poses_are_those_of_python(place):
    made = inputs("dance.json", output_fps=16)
    poses = poses_from_keypoints("dance.json", output_fps=16)
    np.testing.assert_array_equal(made.poses, poses.frames)
    assert (made.frames, made.fps, poses.fps) == (6, 16, 16)
    np.testing.assert_array_equal(poses.frames[::2], poses_from_keypoints(DANCE).frames)
    slower = inputs("dance.json", poses_fps=4, output_fps=16)
    assert (slower.frames, slower.fps) == (12, 16)


@pytest.mark.parametrize("poses", ["dance.json", "skeletons"])
def test_a_lower_rate_leaves_frames_out(place, poses):
    made = inputs(poses, poses_fps=8, output_fps=4)
    np.testing.assert_array_equal(made.poses, poses_from_keypoints(DANCE).frames[[0, 2]])
    assert (made.frames, made.fps) == (2, 4)


def test_pictures_without_a_speed_play_at_the_output_s(place):
    made = inputs("skeletons", output_fps=30)
    assert (made.frames, made.fps) == (FRAMES, 30)
    assert inputs("skeletons").fps == SampleConfig().sampling.fps


def test_face_boxes_follow(place):
    boxes = [{"box": [10, 10, 29, 29]}, {"box": [20, 10, 39, 29]}, None]
    told = {"width": 64, "height": 64, "frames": boxes, "reference": {"box": [20, 20, 60, 70]}}
    Path("boxes.json").write_text(json.dumps(told))
    settings = {"face_boxes": Path("boxes.json"), "hjb": HJBConfig(iterations=1)}
    face = inputs("dance.json", output_fps=16, **settings).face
    assert face is not None
    assert face.faces.boxes[:4, 0].tolist() == [10, 15, 20, 20]
    assert face.faces.valid.tolist() == [True, True, True, True, False, False]
    face = inputs("skeletons", poses_fps=8, output_fps=4, **settings).face
    assert face is not None
    assert face.faces.valid.tolist() == [True, False]


@pytest.mark.long
def test_a_video_of_as_long_and_its_record(place, capsys):
    given = ["--checkpoint", "mini", "--reference", "photo.png", *QUICK, "--poses"]
    assert call(*given, "dance.json", "--output-fps", 20, "--output", "out.mp4") == 0
    with read_frames(Path("out.mp4")) as (info, frames):
        assert (info.fps, len(list(frames))) == (20, 8)  # 3 / 8 s, as far as whole frames go
    record = json.loads(Path("out.mp4.json").read_text())
    assert (record["result"]["frames"], record["result"]["fps"]) == (8, 20)
    assert call("--from-json", "out.mp4.json", "--output", "again.mp4") == 0
    assert Path("again.mp4").read_bytes() == Path("out.mp4").read_bytes()

    # A record from before: its --output-fps was how fast all poses were played.
    assert call(*given, "dance.json", "--output", "slow", "--poses-fps", 5) == 0
    record = json.loads(Path("slow.json").read_text())
    del record["configuration"]["poses_fps"]
    record["configuration"]["output_fps"] = 5.0
    Path("before.json").write_text(json.dumps(record))
    assert call("--from-json", "before.json", "--output", "old") == 0
    np.testing.assert_array_equal(pixels(Path("old")), pixels(Path("slow")))
    assert json.loads(Path("old.json").read_text())["result"]["fps"] == 5
    assert load_image("old/frame_2.png").std() > 5


def test_records_of_weights_without_poses_mean_the_same():
    told = {"checkpoint": "svd", "poses": None, "driving": None, "output_fps": 8.0}
    assert as_meant_now(told) == told
    assert as_meant_now(told | {"poses": "p"}) == told | {"poses": "p", "poses_fps": 8.0, "output_fps": None}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--poses-fps", 8, "--output-fps", 16], r"skeletons are pictures, 8 a second, .*keypoints.*--poses-fps 16"),
        (["--poses-fps", 0], r"poses-fps must be from 0.01 to 1000"),
        (["--poses", "still.json"], r"still.json play at 1e-09 frames a second, .* --poses-fps"),
        (["--poses", "still.json", "--output-fps", 25], r"still.json play at 1e-09 frames a second, .* --poses-fps"),
    ],
)
def test_what_cannot_be_done(place, capsys, flags, words):
    save_keypoints(Path("still.json"), replace(DANCE, fps=1e-9))
    given = ["--checkpoint", "mini", "--reference", "photo.png", *QUICK, "--poses", "skeletons"]
    assert call(*given, *flags, "--output", "out.mp4") == 2
    err = capsys.readouterr().err
    assert re.search(rf"^error: .*{words}.*\n\Z", err), err
