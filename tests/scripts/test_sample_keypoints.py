"""`sample.py` on keypoints: the same video as of the skeletons that are drawn from them."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax import Animator, SamplingConfig, poses_from_keypoints
from stableanimator_jax.data.keypoints import Keypoints, save_keypoints
from stableanimator_jax.data.video import read_frames
from tests.data.keypoint_files import controlnet_frames, dance, openpose_folder, written
from tests.scripts.sample_script import QUICK, call, photo, pixels
from tests.training.mini_model import save_mini_model

FRAMES = 3
DANCE = replace(dance(FRAMES, 64, 64), fps=12.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_mini_model(tmp_path_factory.mktemp("keypoints") / "mini")


@pytest.fixture
def place(tmp_path, monkeypatch, checkpoint):
    """A working directory with weights, a photo, keypoints and the skeletons drawn from them."""
    monkeypatch.chdir(tmp_path)
    Path("mini").symlink_to(checkpoint)
    photo(Path("photo.png"))
    save_keypoints(Path("dance.json"), DANCE)
    Path("skeletons").mkdir()
    for i, frame in enumerate(poses_from_keypoints(DANCE).frames):
        Image.fromarray(frame).save(f"skeletons/frame_{i}.png")
    return tmp_path


def sample(poses: str, output: str, *flags: object, size: tuple[str, ...] = tuple(QUICK[:2])) -> int:
    given = ["--checkpoint", "mini", "--reference", "photo.png", "--poses", poses, "--output", output]
    return call(*given, *size, *QUICK[2:], *flags)


@pytest.mark.long
def test_the_same_frames_as_of_the_skeletons(place, capsys):
    assert sample("skeletons", "of_skeletons") == 0
    assert sample("dance.json", "of_keypoints", size=()) == 0  # of their size
    frames = pixels(Path("of_skeletons"))
    assert frames.std() > 5
    np.testing.assert_array_equal(pixels(Path("of_keypoints")), frames)
    record = json.loads(Path("of_keypoints.json").read_text())
    assert record["inputs"]["poses"]["sha256"] == hashlib.sha256(Path("dance.json").read_bytes()).hexdigest()
    assert record["inputs"].keys() == {"reference", "poses", "checkpoint"}
    assert sample("dance.json", "film.mp4") == 0
    with read_frames(Path("film.mp4")) as (info, _):
        assert info.fps == 12

    openpose_folder(Path("openpose"), DANCE)
    assert sample("openpose", "of_openpose") == 0
    np.testing.assert_array_equal(pixels(Path("of_openpose")), frames)

    settings = SamplingConfig(steps=2, window=4, overlap=1)
    of_python = Animator.from_pretrained("mini").animate("photo.png", "dance.json", sampling=settings)
    np.testing.assert_array_equal(of_python, frames)

    # A record makes the same again, and notices other keypoints in the folder.
    assert call("--from-json", "of_openpose.json", "--output", "again") == 0
    np.testing.assert_array_equal(pixels(Path("again")), frames)
    shutil.copy("openpose/dance_000000000000_keypoints.json", "openpose/dance_000000000001_keypoints.json")
    capsys.readouterr()
    assert call("--from-json", "of_openpose.json", "--output", "third") == 2
    assert "the recorded run's --poses" in capsys.readouterr().err


@pytest.mark.long
def test_the_faces_are_where_the_keypoints_say(place, capsys):
    points, scores = DANCE.points.copy(), DANCE.scores.copy()
    points[:, 24:92] = np.random.default_rng(0).integers(14, 38, (FRAMES, 68, 2))
    points[0, 24:92] = scores[0, 24:92] = 0
    points[1, 30] = scores[1, 30] = 0  # a face without a nose has no landmarks
    written(Path("list.json"), controlnet_frames(Keypoints(points, scores, 64, 64, None)))
    Path("reference.json").write_text(json.dumps({"reference": {"box": [20, 20, 60, 70]}}))
    Path("list.json.keypoints.json").write_text("another program's, and not read")
    optimise = ["--hjb.iterations", "1", "--hjb.end", "0", "--face-boxes", "reference.json"]
    assert sample("list.json", "out", *optimise) == 0
    assert f"the face's keypoints in {place / 'list.json'}, 1 of {FRAMES} frames" in capsys.readouterr().out
    record = json.loads(Path("out.json").read_text())
    assert record["hjb"][0]["faces"] == 1
    assert record["inputs"].keys() == {"reference", "poses", "checkpoint", "face_boxes"}


@pytest.mark.parametrize(
    ("poses", "size", "words"),
    [
        ("poses.npy", (), r"poses.npy do not say how large .* give --width and --height"),
        ("tall.json", (), r"the output has the poses' size, but .* 64x100 does not work"),
        ("bad.json", QUICK[:2], r"33 points \(MediaPipe's\)"),
        ("none.json", QUICK[:2], r"none.json does not exist"),
    ],
)
def test_what_cannot_be_used(place, capsys, poses, size, words):
    np.save("poses.npy", np.ones((2, 134, 3)))
    save_keypoints(Path("tall.json"), replace(DANCE, height=100))
    written(Path("bad.json"), {"people": [{"pose_keypoints_2d": [5] * 99}]})
    assert sample(poses, "out.mp4", size=tuple(size)) == 2
    err = capsys.readouterr().err
    assert re.search(rf"^error: .*{words}.*\n\Z", err), err
    assert not Path("out.mp4").exists()
