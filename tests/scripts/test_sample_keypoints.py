"""`sample.py` on keypoints: the same video as of the skeletons that are drawn from them."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stableanimator_jax import Animator, SamplingConfig, SkeletonStyle, poses_from_keypoints
from stableanimator_jax.data.images import resize
from stableanimator_jax.data.keypoints import Keypoints, save_keypoints
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.perception.preview import overlay
from stableanimator_jax.scripts.sample.inputs import read_inputs
from stableanimator_jax.scripts.sample.settings import SampleConfig
from tests.data.keypoint_files import controlnet_frames, dance, openpose_folder, written
from tests.scripts.sample_script import QUICK, call, pixels, prepare_dance
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
    prepare_dance(checkpoint, DANCE)
    return tmp_path


def sample(poses: str, output: str, *flags: object, size: tuple[str, ...] = tuple(QUICK[:2])) -> int:
    given = ["--checkpoint", "mini", "--reference", "photo.png", "--poses", poses, "--output", output]
    return call(*given, *size, *QUICK[2:], *flags)


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_strengths_and_skeletons_of_a_check_and_a_run_are_those_asked_for(place, capsys):
    """`--check` draws what a run would be given, and says what acts how."""
    flags = ["--pose.strength", "0.8", "--pose.end", "0.5", "--face-keypoints", "off", "--hands", "off"]
    assert sample("dance.json", "out.mp4", *flags, "--check") == 0
    said = capsys.readouterr().out
    assert "pose strength: 0.8, from 0% to 50% of the steps" in said
    assert "face strength" not in said
    config = SampleConfig(
        checkpoint="mini", reference=Path("photo.png"), poses=Path("dance.json"), skeletons=SkeletonStyle("off", "off")
    )
    expected = poses_from_keypoints(DANCE, style=SkeletonStyle("off", "off")).frames
    inputs = read_inputs(config)
    np.testing.assert_array_equal(inputs.poses, expected)
    reference = resize(inputs.reference, 64, 64, "lanczos")
    with read_frames(Path("out.mp4.check.mp4")) as (_, frames):
        shown = next(frames).astype(float)
    overlaid = overlay(reference, expected[0]).astype(float)
    full = overlay(reference, poses_from_keypoints(DANCE).frames[0]).astype(float)
    assert np.abs(shown - overlaid).mean() < np.abs(shown - full).mean()


@pytest.mark.long
def test_a_record_repeats_strengths_and_skeletons(place):
    flags = ["--pose.strength", "0.5", "--face.strength", "2", "--image.end", "0.5", "--face-keypoints", "off"]
    assert sample("dance.json", "first", *flags) == 0
    assert sample("dance.json", "published") == 0
    assert call("--from-json", "first.json", "--output", "again") == 0
    np.testing.assert_array_equal(pixels(Path("again")), pixels(Path("first")))
    assert (pixels(Path("published")) != pixels(Path("first"))).any()
    back = ["--pose.strength", "1", "--face.strength", "1", "--image.end", "1", "--face-keypoints", "full"]
    assert call("--from-json", "first.json", "--output", "third", *back) == 0
    np.testing.assert_array_equal(pixels(Path("third")), pixels(Path("published")))


@pytest.mark.parametrize(
    ("poses", "flags", "words"),
    [
        ("skeletons", ["--hands", "off"], "poses .*skeletons are pictures already: leave out --face-keypoints and"),
        ("skeletons", ["--face-keypoints", "faint"], "are pictures already: leave out --face-keypoints and --hands"),
        ("dance.json", ["--face-keypoints", "none"], "--face-keypoints"),
        ("dance.json", ["--pose.strength", "3.5"], "pose.strength must be from 0 to 3, got 3.5"),
        ("dance.json", ["--image.start", "1"], "image.start 1 to image.end 1 holds none of the 2 steps"),
    ],
)
def test_controls_that_do_not_apply(place, capsys, poses, flags, words):
    assert sample(poses, "out.mp4", *flags) == 2
    err = capsys.readouterr().err
    assert re.search(rf"^error: .*{words}.*\n\Z", err), err


@pytest.mark.parametrize(
    ("poses", "size", "words"),
    [
        ("poses.npy", (), r"poses.npy do not say how large .* give --width and --height"),
        ("tall.json", (), r"the output has the poses' size, but .* 64x100 does not work"),
        ("huge.json", (), r"the output has the poses' size, 64000x64000, but at most 16384 pixels a side"),
        ("bad.json", QUICK[:2], r"33 points \(MediaPipe's\)"),
        ("none.json", QUICK[:2], r"none.json does not exist"),
    ],
)
def test_what_cannot_be_used(place, capsys, poses, size, words):
    np.save("poses.npy", np.ones((2, 134, 3)))
    save_keypoints(Path("tall.json"), replace(DANCE, height=100))
    save_keypoints(Path("huge.json"), replace(DANCE, width=64000, height=64000))
    written(Path("bad.json"), {"people": [{"pose_keypoints_2d": [5] * 99}]})
    assert sample(poses, "out.mp4", size=tuple(size)) == 2
    err = capsys.readouterr().err
    assert re.search(rf"^error: .*{words}.*\n\Z", err), err
    assert not Path("out.mp4").exists()
