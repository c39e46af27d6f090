"""`sample.py` with SVD's relatives: each by its published defaults, what it needs, and what does not apply."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.keypoints import save_keypoints
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.family import FAMILY
from stableanimator_jax.scripts.sample.settings import kind_of
from tests.data.clips import encode
from tests.data.keypoint_files import dance
from tests.perception.standin_models import write_models as write_face_models
from tests.perception.standin_poses import draw_person, write_models
from tests.scripts.sample_script import call, photo, pixels, poses, tree
from tests.training.mini_model import save_mini_relative

RELATIVES = [kind for kind in FAMILY if kind != "stableanimator"]
QUICK = ["--width=64", "--height=64", "--steps=2", "--window=4", "--overlap=1", "--no-compilation-cache"]
FRAMES, RATE = 12, 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Weights of each kind, a photo of a person, DWPose's models, and a video of somebody who walks."""
    place = tmp_path_factory.mktemp("family")
    for kind in RELATIVES:
        save_mini_relative(place / kind, kind)
    photo(place / "photo.png")
    picture = np.zeros((200, 200, 3), np.uint8)
    draw_person(picture, (60, 30, 140, 170))
    Image.fromarray(picture).save(place / "person.png")
    write_models(place / "dwpose")
    frames = [np.zeros((120, 160, 3), np.uint8) for _ in range(FRAMES)]
    for i, frame in enumerate(frames):
        draw_person(frame, (40 + 2 * i, 30, 80 + 2 * i, 100))
    encode(place / "walk.mov", frames, codec="png", rate=RATE, pixels="rgb24")
    poses(place / "poses", 4)
    Image.open(place / "poses/frame_0.png").save(place / "own.png")
    (place / "boxes.json").write_text(
        json.dumps(
            {"width": 64, "height": 64, "frames": [{"box": [8, 8, 55, 55]}] * 3, "reference": {"box": [8, 8, 70, 80]}}
        )
    )
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize("kind", RELATIVES)
def test_a_checkpoint_says_what_it_is(made, kind):
    assert kind_of(str(made / kind)) == kind
    assert kind_of(str(made)) == "stableanimator"  # is no checkpoint, which is said later


@pytest.mark.long
@pytest.mark.parametrize("kind", [pytest.param("svd", marks=pytest.mark.slow), "animatelcm"])
def test_a_picture_comes_alive(place, capsys, kind):
    assert call("--checkpoint", kind, "--reference", "photo.png", *QUICK, "--output", "out.mp4") == 0
    assert f"poses: none ({FAMILY[kind].title} moves by itself), 3 frames" in capsys.readouterr().out
    with read_frames(Path("out.mp4")) as (info, frames):
        assert info.fps == (8 if kind == "animatelcm" else 7)
        assert len(list(frames)) == 3
    record = json.loads(Path("out.mp4.json").read_text())
    assert set(record["inputs"]) == {"reference", "checkpoint"}
    assert record["configuration"]["sampling"]["sampler"] == FAMILY[kind].published.get("sampler", "euler")
    assert call("--from-json", "out.mp4.json", "--output", "again", "--frames", 5) == 0
    assert pixels(place / "again").shape == (5, 64, 64, 3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "frames"), [("mimicmotion", 3), pytest.param("controlnext", 4, marks=pytest.mark.slow)]
)
def test_driven_from_a_video(place, capsys, kind, frames):
    """Every second frame, and every fourth of one with 48 frames a second and more, as MimicMotion is published."""
    flags = ["--checkpoint", kind, "--reference", "person.png", *QUICK]
    driving = ["--driving", "walk.mov", "--dwpose", "dwpose", "--driving-max-frames", 3]
    assert call(*flags, *driving, "--save-poses", "kept", "--output", "out") == 0
    assert "3 frames" in capsys.readouterr().out
    assert tree(Path("kept")) == {
        *(f"frame_{i}.png" for i in range(3)), "keypoints.json", "preview.mp4", "reference_pose.png",
    }  # fmt: skip
    assert pixels(place / "out").shape == (frames, 64, 64, 3)
    with read_frames(Path("kept/preview.mp4")) as (info, _):
        assert info.fps == (FAMILY[kind].output_fps or RATE / 2)  # as the output plays

    # What was kept makes the same, the reference's own pose found beside the others.
    assert call(*flags, "--poses", "kept", "--output", "again") == 0
    np.testing.assert_array_equal(pixels(place / "again"), pixels(place / "out"))
    assert call("--from-json", "again.json", "--output", "third") == 0
    np.testing.assert_array_equal(pixels(place / "third"), pixels(place / "out"))
    assert call(*flags, *driving, "--driving-stride", 1, "--output", "slower") == 0
    assert (pixels(place / "slower") != pixels(place / "out")).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "count", "fps"),
    [
        ([], 3, 15.0),  # of 6 frames every second, as published
        (["--driving-stride", 3], 2, 8.0),  # at the video's own speed
        (["--driving-fps", 12], 3, 12.0),
        (["--driving-stride", 1, "--poses-fps", 10], 6, 10.0),
        (["--driving-stride", 1, "--output-fps", 48], 12, 48.0),
        (["--output-fps", 5], 1, 5.0),  # of the published 15
    ],
)
def test_how_fast_a_driven_output_plays(place, flags, count, fps):
    given = ["--checkpoint", "mimicmotion", "--reference", "person.png", *QUICK, "--steps=1", "--align=off"]
    driving = ["--driving", "walk.mov", "--dwpose", "dwpose", "--driving-end", 6 / RATE]
    assert call(*given, *driving, *flags, "--output", "out.mp4") == 0
    with read_frames(Path("out.mp4")) as (info, frames):
        assert (info.fps, len(list(frames))) == (fps, count)


@pytest.mark.long
def test_a_references_own_pose_is_given_beside_poses(place):
    flags = ["--checkpoint", "mimicmotion", "--reference", "photo.png", "--poses", "poses", *QUICK]
    assert call(*flags, "--reference-pose", "own.png", "--output", "out.mp4") == 0
    with read_frames(Path("out.mp4")) as (info, frames):
        assert (info.fps, len(list(frames))) == (15, 4)
    assert "reference_pose" in json.loads(Path("out.mp4.json").read_text())["inputs"]


def test_a_references_own_pose_lies_beside_keypoints_too(place, capsys):
    (place / "kept").mkdir()
    save_keypoints(place / "kept/keypoints.json", dance(4, 64, 64))
    given = ["--checkpoint", "mimicmotion", "--reference", "photo.png", "--poses", "kept/keypoints.json", *QUICK]
    assert call(*given, "--check", "--output", "out.mp4") == 2
    assert "begins with the reference's own pose" in capsys.readouterr().err
    (place / "own.png").rename(place / "kept/reference_pose.png")
    assert call(*given, "--check", "--output", "out.mp4") == 0
    assert "the reference's own pose: kept/reference_pose.png" in capsys.readouterr().out.replace(f"{place}/", "")


@pytest.mark.slow
def test_the_face_optimisation_of_svd(place, capsys):
    flags = ["--checkpoint", "svd", "--reference", "photo.png", *QUICK, "--identity", "checkpoint"]
    hjb = ["--hjb.iterations", 2, "--face-boxes", "boxes.json"]
    assert call(*flags, *hjb, "--output", "out") == 0
    assert "boxes in " in capsys.readouterr().out
    reports = json.loads(Path("out.json").read_text())["hjb"]
    assert reports
    assert all(report["similarity_after"] > report["similarity_before"] for report in reports)


@pytest.mark.slow
def test_faces_of_svd_are_looked_for_in_its_own_frames(place, capsys):
    """Not where the example of this package has them, whatever the output's size and length."""
    write_face_models(place / "models" / "antelopev2")
    flags = ["--checkpoint", "svd", "--reference", "photo.png", *QUICK, "--frames", 32]
    np.save("face.npy", np.random.default_rng(0).standard_normal(512).astype(np.float32))
    find = ["--insightface-root", "models/antelopev2", "--face-embedding", "face.npy"]
    assert call(*flags, *find, "--hjb.iterations", 1, "--output", "out") == 0
    assert "faces to optimise: found by InsightFace in the predicted frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "svd", "--poses", "poses"], "takes no poses: it moves the picture by itself; leave out"),
        (["--checkpoint", "animatelcm", "--driving", "walk.mov", "--dwpose", "dwpose"], "takes no poses"),
        (["--checkpoint", "svd", "--hands", "off"], "takes no poses: leave out --face-keypoints and --hands"),
        (["--checkpoint", "svd", "--pose.strength", "0.5"], "takes no poses: leave out pose.strength"),
        (["--checkpoint", "mimicmotion", "--poses", "poses", "--face.end", "0.5"], "have no ID adapter: leave out"),
        (["--checkpoint", "animatelcm", "--steps", "41"], "sampler lcm takes at most 40 steps"),
        (["--checkpoint", "animatelcm", "--preset", "fast"], "preset fast is not for AnimateLCM's few steps"),
        (["--checkpoint", "mimicmotion"], "give the movement"),
        (["--checkpoint", "mimicmotion", "--poses", "poses"], "begins with the reference's own pose"),
        (["--checkpoint", "mimicmotion", "--poses", "poses", "--reference-pose", "no.png"], "no.png"),
        (["--checkpoint", "controlnext", "--poses", "poses", "--frames", "3"], "--frames is for weights that take no"),
        (["--checkpoint", "svd", "--reference-pose", "own.png"], "leave out --reference-pose"),
        (
            ["--checkpoint", "svd", "--driving", "walk.mov", "--dwpose", "dwpose", "--reference-pose", "own.png"],
            "leave out --reference-pose: with --driving it is found",
        ),
        (
            ["--checkpoint", "mimicmotion", "--driving", "walk.mov", "--dwpose", "dwpose", "--driving-fps", "8",
             "--driving-stride", "2"],
            "give --driving-fps or --driving-stride, not both",
        ),
        (
            ["--checkpoint", "controlnext", "--driving", "walk.mov", "--dwpose", "dwpose", "--sound"],
            "leave out --sound: ControlNeXt-SVD-v2's output begins with the photo",
        ),
        (["--checkpoint", "svd", "--driving-stride", "2"], "--driving-stride needs --driving VIDEO"),
    ],
)  # fmt: skip
def test_what_does_not_apply_is_refused(place, capsys, flags, message):
    before = tree(place)
    assert call("--reference", "photo.png", *QUICK, *flags, "--output", "out.mp4") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert tree(place) == before
