"""`sample.py --driving`: poses out of a video, by stand-ins for DWPose's models, and bad input."""

import json
import re
import shutil
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.keypoints import Keypoints, load_keypoints
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.perception.driving_poses import drawn
from stableanimator_jax.perception.skeleton import SkeletonStyle
from tests.data.clips import encode
from tests.perception.standin_models import CELL
from tests.perception.standin_models import write_models as write_face_models
from tests.perception.standin_poses import PERSON, SECOND, draw_person, write_models
from tests.scripts.sample_script import QUICK, call, pixels, poses, tree
from tests.training.mini_model import save_mini_model

FRAMES, RATE = 6, 8
REFERENCE_BOX = (60, 30, 140, 170)  # of a photo of 200x200


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Weights, a photo of a person, DWPose's models, and a video of a smaller person who walks to the right."""
    place = tmp_path_factory.mktemp("driving")
    save_mini_model(place / "mini")
    picture = np.zeros((200, 200, 3), np.uint8)
    draw_person(picture, REFERENCE_BOX)
    Image.fromarray(picture).save(place / "photo.png")
    write_models(place / "dwpose")
    frames = [np.zeros((120, 160, 3), np.uint8) for _ in range(FRAMES)]
    for i, frame in enumerate(frames):
        draw_person(frame, (40 + 4 * i, 30, 80 + 4 * i, 100))
    sound = {"samples": np.sin(np.arange(48000) / 20) * 0.3}
    encode(place / "walk.mov", frames, codec="png", rate=RATE, pixels="rgb24", sound=sound)
    encode(place / "empty.mov", [np.zeros((120, 160, 3), np.uint8)] * 3, codec="png", rate=RATE, pixels="rgb24")
    gap = [frame.copy() for frame in frames]
    gap[0][:] = 0
    encode(place / "late.mov", gap, codec="png", rate=RATE, pixels="rgb24")
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mini", "photo.png", "walk.mov", "empty.mov", "late.mov"):
        (tmp_path / name).symlink_to(made / name)
    shutil.copytree(made / "dwpose", tmp_path / "dwpose")
    return tmp_path


def sample(*flags: object, driving: str = "walk.mov", output: str = "out.mp4") -> int:
    given = ["--checkpoint", "mini", "--reference", "photo.png", "--driving", driving, "--dwpose", "dwpose"]
    return call(*given, *QUICK, "--output", output, *flags)


def box_of(keypoints, frame):
    """The rectangle that the stand-ins' keypoints lie in, by two corners of them."""
    points = keypoints.points[frame, keypoints.scores[frame] > 0]
    return np.array([points.min(0), points.max(0)])


@pytest.mark.long
def test_poses_are_found_aligned_kept_and_used(place, capsys):
    flags = ["--hjb.iterations", 1, "--hjb.end", 0, "--face-embedding", face()]
    assert sample("--save-poses", "kept", *flags, output="out") == 0
    captured = capsys.readouterr()
    assert "faces to optimise: the face's keypoints in the driving video" in captured.out
    assert "warning" not in captured.err
    assert tree(Path("kept")) == {*(f"frame_{i}.png" for i in range(FRAMES)), "keypoints.json", "preview.mp4"}

    # The walk is centred on where the person stands in the photo, which is fitted to 64x64; and made as large.
    keypoints = load_keypoints(Path("kept/keypoints.json"))
    assert (keypoints.width, keypoints.height, keypoints.fps) == (64, 64, RATE)
    boxes = np.stack([box_of(keypoints, i) for i in range(FRAMES)])
    np.testing.assert_allclose(np.ptp(boxes, axis=1), np.ptp(boxes, axis=1)[:1].repeat(FRAMES, 0), atol=1)
    assert (np.diff(boxes[:, 0, 0]) > 1).all()
    left, top, right, bottom = np.array(REFERENCE_BOX) * 64 / 200
    assert boxes[:, 0, 1].mean() == pytest.approx(top + 0.05 * (bottom - top), abs=2)
    assert boxes[:, 1, 1].mean() == pytest.approx(bottom - 0.05 * (bottom - top), abs=2)
    assert boxes[:, :, 0].mean() == pytest.approx((left + right) / 2, abs=2)

    record = json.loads(Path("out.json").read_text())
    assert {"reference", "driving", "dwpose", "checkpoint", "face_embedding"} == set(record["inputs"])
    assert record["configuration"]["output_fps"] is None  # the driving video's
    assert record["result"]["frames"] == FRAMES
    with read_frames(Path("kept/preview.mp4")) as (info, frames):
        preview = list(frames)
    assert (len(preview), info.fps) == (FRAMES, RATE)
    assert preview[0].std() > 10

    # What was kept makes the same video, without the models; and so does the record, with them.
    given = ["--checkpoint", "mini", "--reference", "photo.png", "--poses", "kept"]
    assert call(*given, *QUICK, *flags, "--output", "again") == 0
    assert "keypoints in " in capsys.readouterr().out
    np.testing.assert_array_equal(pixels_of("again"), pixels_of("out"))
    assert call("--from-json", "out.json", "--output", "third") == 0
    np.testing.assert_array_equal(pixels_of("third"), pixels_of("out"))


def black(name: str) -> str:
    Image.new("RGB", (80, 80), (0, 0, 0)).save(name)
    return name


def face() -> str:
    np.save("face.npy", np.random.default_rng(0).standard_normal(512))
    return "face.npy"


def pixels_of(directory: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(f"{directory}/frame_{i}.png")) for i in range(FRAMES)])


@pytest.mark.long
def test_a_range_with_sound_not_aligned(place):
    flags = ["--driving-start", 0.25, "--driving-max-frames", 3, "--align", "off", "--sound", "--save-poses", "kept"]
    assert sample(*flags) == 0
    with av.open("out.mp4") as container:
        assert container.streams.video[0].frames == 3
        assert len(container.streams.audio) == 1
    keypoints = load_keypoints(Path("kept/keypoints.json"))
    assert len(keypoints.points) == 3
    # The middle square of the video's 160x120, frame 2 of it first.
    left = (48 - 20) * 64 / 120
    width = 40 * 64 / 120
    assert box_of(keypoints, 0)[:, 0].mean() == pytest.approx(left + width / 2, abs=1.5)

    assert call("--from-json", "out.mp4.json", "--output", "again.mp4", "--save-poses", "kept_again") == 0
    for first, second in (("out.mp4", "again.mp4"), ("kept/preview.mp4", "kept_again/preview.mp4")):
        assert Path(first).read_bytes() == Path(second).read_bytes()


def test_frames_with_nobody_are_said(place, capsys):
    assert sample("--align", "limbs", driving="late.mov", output="frames") == 0
    err = capsys.readouterr().err
    assert "warning: the person is not found in the driving video at 0.00 to 0.12 s: those skeletons are empty" in err
    assert len(pixels(Path("frames"))) == FRAMES


def test_a_tall_photo_that_the_size_cuts_is_said(place, capsys):
    picture = np.zeros((400, 200, 3), np.uint8)
    draw_person(picture, (60, 30, 140, 370))
    Image.fromarray(picture).save("tall.png")
    assert sample("--reference", "tall.png") == 0
    assert re.search(
        rf"^warning: \d+ of \d+ keypoints lie outside of the picture \(64x64\), in {FRAMES} of {FRAMES} frames",
        capsys.readouterr().err,
        re.M,
    )
    assert sample("--reference", "tall.png", "--fit", "pad", output="padded.mp4") == 0
    assert "outside of the picture" not in capsys.readouterr().err


def film(name: str, *boxes: list[tuple[int, int, int, int]]) -> str:
    """A video of 320x180 with up to two people in each frame: the first is the surer one."""
    frames = [np.zeros((180, 320, 3), np.uint8) for _ in boxes]
    for frame, people in zip(frames, boxes, strict=True):
        for box, kind in zip(people, (PERSON, SECOND), strict=False):
            draw_person(frame, box, kind)
    encode(Path(name), frames, codec="png", rate=RATE, pixels="rgb24")
    return name


def found_in(directory: str) -> np.ndarray:
    return load_keypoints(Path(directory, "keypoints.json")).scores.any(axis=1)


def warnings_in(err: str) -> list[str]:
    """All but those of keypoints outside of the picture, which whoever walks far or stands at its edge leaves."""
    return [line for line in err.splitlines() if "warning" in line and "keypoints lie outside" not in line]


def test_the_only_person_is_followed_when_fast(place, capsys):
    """More than a box's width a frame, and back to the left at once; at a lower rate too."""
    film("fast.mov", *([(20 + 60 * (i % 5), 30, 70 + 60 * (i % 5), 150)] for i in range(10)))
    assert sample("--save-poses", "kept", driving="fast.mov") == 0
    assert found_in("kept").tolist() == [True] * 10
    assert warnings_in(capsys.readouterr().err) == []
    lefts = [box_of(load_keypoints(Path("kept/keypoints.json")), i)[0, 0] for i in range(10)]
    np.testing.assert_allclose(np.diff(lefts)[[0, 5]], 60 * (140 * 64 / 200) / 120, atol=1)


def test_who_left_is_not_replaced_by_who_stays(place, capsys):
    walker = [(200 + 24 * i, 30, 250 + 24 * i, 150) for i in range(5)]
    bystander = (20, 60, 50, 140)
    film("leave.mov", *([box, bystander] for box in walker), *([(0, 0, 0, 0), bystander] for _ in range(5)))
    assert sample("--save-poses", "kept", driving="leave.mov") == 0
    assert found_in("kept").tolist() == [True] * 5 + [False] * 5
    err = capsys.readouterr().err
    assert "warning: the person is not found in the driving video at 0.62 to 1.25 s: those skeletons are empty; " in err
    assert "others who are in view there are not followed instead" in err
    assert "shows other people in 10 of 10 frames; the one followed was the largest when first seen; --driving-" in err
    # All that is seen of the walker lies within the output, as large as the person in the photo.
    keypoints = load_keypoints(Path("kept/keypoints.json"))
    assert np.ptp(box_of(keypoints, 0)[:, 1]) == pytest.approx(0.9 * 140 * 64 / 200, abs=2)

    assert sample("--driving-person", "left", "--save-poses", "other", driving="leave.mov", output="other.mp4") == 0
    assert found_in("other").tolist() == [True] * 10
    assert "warning" not in capsys.readouterr().err


@pytest.mark.long
def test_who_is_meant_in_a_group_photo(place, capsys):
    """The larger body's owner has the smaller face: the identity is of the body that poses are aligned to."""
    picture = np.zeros((640, 640, 3), np.uint8)
    small, large = (40, 200, 200, 560), (340, 60, 600, 620)
    draw_person(picture, small, PERSON)
    draw_person(picture, large, SECOND)
    faces = {"small": (3 * CELL, 8 * CELL, 250), "large": (14 * CELL, 6 * CELL, 190)}
    for x, y, red in faces.values():
        picture[y : y + CELL, x : x + CELL] = (red, 0, 0)
    Image.fromarray(picture).save("group.png")
    write_face_models(Path("models/antelopev2"))
    given = ["--reference", "group.png", "--insightface-root", "."]

    for flags, box, face, warns in (
        ([], large, "464,208", True),
        (["--reference-person", "largest"], large, "464,208", False),
        (["--reference-person", "1"], small, "112,272", False),
        (["--reference-person", "100,400"], small, "112,272", False),
    ):
        shutil.rmtree("kept", ignore_errors=True)
        assert sample(*given, *flags, "--save-poses", "kept", "--overwrite") == 0
        said = capsys.readouterr()
        assert f"identity: the face around {face} in " in said.out
        assert (
            "warning: the reference image shows 2 people; the largest, around 470,340, is taken" in said.err
        ) == warns
        assert bool(warnings_in(said.err)) == warns
        keypoints = load_keypoints(Path("kept/keypoints.json"))
        middle = np.mean([box_of(keypoints, i) for i in range(FRAMES)], axis=(0, 1))
        np.testing.assert_allclose(middle * 10, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], atol=20)
    record = json.loads(Path("out.mp4.json").read_text())
    assert record["configuration"]["reference_person"] == "100,400"
    assert "the face around 112,272 in " in record["result"]["identity"]


def test_skeletons_are_drawn_as_asked_for(place):
    assert sample("--check", "--save-poses", "kept", "--face-keypoints", "faint", "--hands", "off") == 0
    keypoints = load_keypoints(Path("kept/keypoints.json"))
    np.testing.assert_array_equal(pixels_of("kept"), drawn(keypoints, SkeletonStyle("faint", "off")))
    assert (pixels_of("kept") != drawn(keypoints)).any()


def test_a_check_counts_frames_of_the_video(place, capsys):
    assert sample("--check", "--output-fps", 2 * RATE, driving="late.mov") == 0
    said = capsys.readouterr().out
    assert f"the person is found in {FRAMES - 1} of {FRAMES} frames" in said
    assert f"output: {2 * FRAMES} frames" in said


def test_a_wrong_mask_is_found_before_the_poses_and_leaves_nothing(place, capsys):
    black("mask.png")
    assert sample("--save-poses", "kept", "--keep-background", "mask.png", driving="none.mov") == 2
    assert "mask.png is 80x80 pixels, but the reference is 200x200" in capsys.readouterr().err
    Image.new("L", (200, 200)).save("mask.png")
    assert sample("--save-poses", "kept", "--keep-background", "mask.png") == 2
    assert "the mask is black all over" in capsys.readouterr().err
    assert not Path("kept").exists()


@pytest.mark.long
def test_skeletons_are_held_once():
    points = np.random.default_rng(0).uniform(0, 128, (400, 134, 2)).astype(np.float32)

    def peak(count: int) -> int:
        keypoints = Keypoints(points[:count], np.ones((count, 134), np.float32), 128, 128, None)
        tracemalloc.start()
        try:
            skeletons = drawn(keypoints)
            assert skeletons.shape == (count, 128, 128, 3)
            assert all(skeleton.any() for skeleton in skeletons)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(400) - peak(200) < 1.3 * 200 * 128 * 128 * 3  # whatever the drawing of one needs


def test_a_frame_rate_that_is_not_stated_is_said(place, capsys):
    frames = [np.zeros((120, 160, 3), np.uint8) for _ in range(4)]
    for i, frame in enumerate(frames):
        draw_person(frame, (40 + 4 * i, 30, 80 + 4 * i, 100))
    encode("clock.mkv", frames, "libx264rgb", 1000, times=[0, 121, 250, 375], pixels="rgb24", crf="0", bf="0")
    assert sample(driving="clock.mkv", output="frames") == 0
    err = capsys.readouterr().err
    assert re.search(
        r"^warning: the driving video .*clock.mkv states no frame rate.* about 8 a second.*--driving-fps", err, re.M
    )
    assert len(pixels(Path("frames"))) == 4


BAD = {
    "third person of one": (
        lambda: ["--reference-person", "3"],
        r"--reference-person 3: only one person is seen in the reference image",
    ),
    "second driving person of one": (
        lambda: ["--driving-person", "2"],
        r"--driving-person 2: only one person is seen in the driving video at 0.00 s",
    ),
    "a point beside the video": (
        lambda: ["--driving-person", "500,20"],
        r"--driving-person 500,20 lies outside of the driving video .*, which has 160x120 pixels",
    ),
    "who is that": (lambda: ["--driving-person", "tallest"], r"--driving-person must be largest, left, .*got tallest"),
    "driving and poses": (
        lambda: ["--poses", poses(Path("poses"), 2)],
        r"give --driving or --poses, not both",
    ),
    "no such video": (lambda: ["--driving", "none.mp4"], r"driving video .*none.mp4 does not exist"),
    "no video": (lambda: ["--driving", "photo.png"], r"driving video .*photo.png"),
    "start too late": (lambda: ["--driving-start", 100], r"cannot start at 100 s"),
    "end before start": (lambda: ["--driving-start", 0.5, "--driving-end", 0.2], r"must lie after the start"),
    "no fps": (lambda: ["--driving-fps", 0], r"fps must lie between"),
    "no frames": (lambda: ["--driving-max-frames", 0], r"number of frames must be at least 1"),
    "nobody in the video": (lambda: ["--driving", "empty.mov"], r"finds nobody in the driving video .*empty.mov"),
    "nobody in the photo": (
        lambda: ["--reference", black("other.png")],
        r"DWPose finds nobody in the reference image.*--align off",
    ),
    "no models": (lambda: ["--dwpose", "nothing"], r"--dwpose .*nothing is not a directory"),
    "one model": (
        lambda: (Path("dwpose/dw-ll_ucoco_384.onnx").unlink(), [])[1],
        r"pose estimator .*dw-ll_ucoco_384.onnx does not exist; download .*DWPose",
    ),
    "models swapped": (
        lambda: (Path("dwpose/yolox_l.onnx").write_bytes(Path("dwpose/dw-ll_ucoco_384.onnx").read_bytes()), [])[1],
        r"person detector .*yolox_l.onnx has input .*not the model that is expected",
    ),
    "poses kept over others": (
        lambda: ["--save-poses", poses(Path("poses"), 2)],
        r"cannot write .*poses: the directory is not empty",
    ),
    "poses kept in the output": (lambda: ["--save-poses", "new/poses", "--output", "new"], r"must lie side by side"),
    "poses kept before an error": (
        lambda: ["--save-poses", "kept", "--hjb.iterations", 1],
        r"needs the reference's face",
    ),
    "poses kept in a file": (lambda: ["--save-poses", "kept.mp4"], r"--save-poses .*kept.mp4 must be a directory"),
    "sound at another speed": (
        lambda: ["--sound", "--poses-fps", 12],
        r"--sound keeps time only at the driving video's 8 frames a second",
    ),
    "poses kept by the date in the output": (
        lambda: ["--save-poses", "new/2026.11.27", "--output", "new"],
        r"must lie side by side",
    ),
    "sound in a gif": (lambda: ["--sound", "--output", "out.gif"], r"out.gif cannot hold sound"),
}  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), BAD.values(), ids=BAD)
def test_bad_input(place, capsys, flags, message):
    argv = flags()
    before = tree(place)
    assert sample(*argv) == 2
    err = capsys.readouterr().err
    assert re.search(rf"^error: .*{message}.*\n\Z", err, re.M), err
    assert tree(place) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--driving", "walk.mov"], "--driving needs --dwpose DIR"),
        (["--sound"], "--sound needs --driving VIDEO"),
        (["--save-poses", "kept"], "--save-poses needs --driving VIDEO"),
        (["--driving-person", "left"], "--driving-person needs --driving VIDEO"),
        (["--reference-person", "left"], "--reference-person needs --driving VIDEO, aligned, or --insightface-root"),
        (["--driving-start", "3"], "--driving-start needs --driving VIDEO"),
    ],
)
def test_flags_that_need_another(place, capsys, flags, message):
    assert call(*flags, "--output", "out.mp4") == 2
    assert message in capsys.readouterr().err
