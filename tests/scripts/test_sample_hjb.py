"""`sample.py` with the face optimisation: where the faces may come from, what it leaves behind, and bad input."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.face_track import Face
from stableanimator_jax.data.images import fit, load_image
from stableanimator_jax.data.keypoints import Keypoints, save_keypoints
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.scripts.sample import inputs as sampling_inputs
from tests.perception.standin_models import CELL, write_models
from tests.scripts.sample_script import QUICK, call, photo, pixels, poses, tree
from tests.training.mini_model import save_mini_model

FRAMES = 3
ON = ["--hjb.iterations", "1", "--hjb.end", "0"]
FACE = {"box": [10, 8, 40, 44], "landmarks": [[18, 20], [32, 20], [25, 28], [20, 36], [30, 36]]}
REFERENCE = {"box": [20, 20, 60, 70]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_mini_model(tmp_path_factory.mktemp("hjb") / "mini")


@pytest.fixture
def place(tmp_path, monkeypatch, checkpoint):
    """A working directory with weights, a photo and three poses of 64x64."""
    monkeypatch.chdir(tmp_path)
    Path("mini").symlink_to(checkpoint)
    photo(Path("photo.png"))
    poses(Path("poses"), FRAMES)
    return tmp_path


def boxes(frames=(FACE,) * FRAMES, **changes) -> str:
    data = {"width": 64, "height": 64, "frames": list(frames), "reference": REFERENCE} | changes
    Path("boxes.json").write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
    return "boxes.json"


def masks(*, face: bool = True, size: int = 64, count: int = FRAMES) -> str:
    Path("masks").mkdir()
    for i in range(count):
        mask = np.zeros((size, size), np.uint8)
        if face:
            mask[8:45, 10:41] = 255
        Image.fromarray(mask).save(f"masks/frame_{i}.png")
    return "masks"


def without_arcface() -> str:
    save_mini_model(Path("part"), ("unet", "pose_net", "vae", "image_encoder", "face_encoder"))
    return "part"


def embedding() -> str:
    np.save("face.npy", np.random.default_rng(0).standard_normal(512))
    return "face.npy"


def sample(*flags: object) -> int:
    given = ["--checkpoint", "mini", "--reference", "photo.png", "--poses", "poses"]
    return call(*given, *QUICK, *ON, "--output", "out.mp4", *flags)


def record() -> dict:
    return json.loads(Path("out.mp4.json").read_text())


@pytest.mark.long
def test_boxes_from_a_file(place, capsys):
    assert sample("--face-boxes", boxes([FACE, None, FACE])) == 0
    assert "boxes in " in capsys.readouterr().out
    (step,) = record()["hjb"]
    assert set(step) == {"step", "similarity_before", "similarity_after", "faces"}
    assert (step["step"], step["faces"]) == (0, 2)
    assert step["similarity_after"] > step["similarity_before"]
    assert record()["inputs"].keys() == {"reference", "poses", "checkpoint", "face_boxes"}
    with Image.open("out.mp4.hjb.png") as plot:
        assert np.asarray(plot).std() > 0

    # The record makes the same again, and notices other boxes.
    assert call("--from-json", "out.mp4.json", "--output", "again.mp4") == 0
    again = json.loads(Path("again.mp4.json").read_text())
    assert again["hjb"] == record()["hjb"]
    boxes([FACE] * FRAMES)
    assert call("--from-json", "out.mp4.json", "--output", "third.mp4") == 2
    assert "--face-boxes" in capsys.readouterr().err


@pytest.mark.long
def test_masks_and_an_embedding(place, capsys):
    assert sample("--face-masks", masks(), "--face-embedding", embedding()) == 0
    assert "masks in " in capsys.readouterr().out
    assert record()["hjb"][0]["faces"] == FRAMES


@pytest.mark.long
def test_keypoints_beside_the_poses(place, capsys):
    points = np.tile(np.float32([25, 26]), (FRAMES, 134, 1))
    points[:, 24:92] += np.random.default_rng(0).uniform(-12, 12, (68, 2)).astype(np.float32)
    save_keypoints(Path("poses/keypoints.json"), Keypoints(points, np.ones((FRAMES, 134), np.float32), 64, 64, None))
    # The file says where the reference's face is, and leaves the frames' to others.
    Path("reference.json").write_text(json.dumps({"reference": REFERENCE}))
    assert sample("--face-boxes", "reference.json") == 0
    assert "keypoints in " in capsys.readouterr().out


@pytest.mark.parametrize("text", ['{"people": []}', "[1, 2]"])
def test_another_programs_keypoints_beside_the_poses(place, capsys, text):
    Path("poses/keypoints.json").write_text(text)
    Path("reference.json").write_text(json.dumps({"reference": REFERENCE}))
    assert sample("--face-boxes", "reference.json") == 2
    err = capsys.readouterr().err
    assert re.search(r"^error: .*keypoints\.json.*move or rename it.*--face-boxes or --face-masks\n\Z", err, re.M), err
    assert sample("--face-masks", masks(), "--face-embedding", embedding()) == 0


def test_faces_found_by_insightface(place, capsys):
    write_models(Path("models/antelopev2"))
    picture = np.zeros((4 * CELL, 4 * CELL, 3), np.uint8)
    picture[CELL : 2 * CELL, CELL : 2 * CELL, 0] = 255
    Image.fromarray(picture).save("photo.png")
    assert sample("--insightface-root", ".") == 0
    assert "found by InsightFace" in capsys.readouterr().out
    (step,) = record()["hjb"]
    assert step["faces"] == 0 or step["similarity_after"] > step["similarity_before"]


def test_the_checkpoints_own_arcface_tells_the_identity(place, capsys):
    """It embeds the reference as large as the output, by the face's box; without a box there is no identity."""
    flags = ["--hjb.iterations", 0, "--identity", "checkpoint"]
    assert sample(*flags, "--output", "none") == 0
    assert 'identity: none (no --face-boxes with a "reference", ' in capsys.readouterr().out
    assert sample(*flags, "--face-boxes", boxes(), "--output", "own") == 0
    said = capsys.readouterr()
    assert f"the reference's face, its box from {place}/boxes.json, by the checkpoint's own ArcFace" in said.out
    assert "not used" not in said.err
    assert "face_boxes" in json.loads(Path("own.json").read_text())["inputs"]

    # 80x96 is cut to the middle 80x80, and made 64x64.
    small = fit(load_image("photo.png"), 64, 64, "crop", filter="lanczos")
    animator = Animator.from_pretrained("mini", dtype="float32", arcface=True)
    np.save("own.npy", animator.embed_face(small, Face(np.float32([16, 10, 48, 49]))))
    assert sample("--hjb.iterations", 0, "--face-embedding", "own.npy", "--output", "given") == 0
    np.testing.assert_array_equal(pixels(Path("own")), pixels(Path("given")))
    assert (pixels(Path("own")) != pixels(Path("none"))).any()


def test_no_face_in_any_mask_is_a_warning(place, capsys):
    assert sample("--face-masks", masks(face=False), "--face-embedding", embedding()) == 0
    err = capsys.readouterr().err
    assert re.search(r"^warning: masks in .*masks show no face in any frame.*the face optimisation is off$", err, re.M)
    assert record()["hjb"] == []
    assert "out.mp4.hjb.png" not in tree(place)


BAD = {
    "iterations": (lambda: ["--hjb.iterations", -1], r"hjb.iterations must be from 0 to 1000, got -1"),
    "iterations in words": (lambda: ["--hjb.iterations", "many"], r"--hjb.iterations"),
    "end": (lambda: ["--hjb.end", 2], r"hjb.end is 2, but the last of 2 denoising steps is 1"),
    "start": (lambda: ["--hjb.start", 2, "--hjb.end", 3], r"hjb.start is 2, but the last of 2 denoising steps is 1"),
    "start after end": (lambda: ["--hjb.start", 1], r"hjb.end \(0\) is before hjb.start \(1\)"),
    "a mistyped flag": (lambda: ["--hjb.iteration", 1], r"did you mean --hjb.iterations\?"),
    "nothing to go by": (list, r"needs the reference's face: give --insightface-root"),
    "no place of the faces": (
        lambda: ["--face-embedding", embedding()],
        r"must know where the faces are: give --face-boxes or --face-masks, or --insightface",
    ),
    "no reference face": (lambda: ["--face-masks", masks()], r"needs the reference's face: give --insightface-root"),
    "boxes and masks": (lambda: ["--face-boxes", boxes(), "--face-masks", "poses"], r"--face-masks, not both"),
    "boxes missing": (lambda: ["--face-boxes", "none.json"], r"face boxes .*none.json does not exist"),
    "boxes outside": (
        lambda: ["--face-boxes", boxes([FACE, {"box": [70, 70, 80, 80]}, FACE])],
        r"boxes.json, frame 1: the box \[70, 70, 80, 80\] lies outside of the image of 64x64",
    ),
    "boxes inverted": (
        lambda: ["--face-boxes", boxes([FACE, FACE, {"box": [40, 8, 10, 44]}])],
        r"boxes.json, frame 2: the box .* is inverted",
    ),
    "boxes empty": (lambda: ["--face-boxes", boxes([{"box": []}, FACE, FACE])], r"boxes.json, frame 0"),
    "boxes of other frames": (lambda: ["--face-boxes", boxes([FACE])], r"has 1 frames, but the poses have 3"),
    "boxes of another size": (
        lambda: ["--face-boxes", boxes(width=128)],
        r"boxes.json are of frames of 128x64 pixels, but the poses .* are 64x64",
    ),
    "reference's box outside": (
        lambda: ["--face-boxes", boxes(reference={"box": [90, 100, 99, 120]})],
        r"boxes.json, reference: the box .* lies outside of the image of 80x96 pixels",
    ),
    "masks of another size": (
        lambda: ["--face-masks", masks(size=32), "--face-embedding", embedding()],
        r"masks are of frames of 32x32 pixels, but the poses .* are 64x64",
    ),
    "masks of other frames": (
        lambda: ["--face-masks", masks(count=2), "--face-embedding", embedding()],
        r"there are 2, but the poses have 3 frames",
    ),
    "aligned without landmarks": (
        lambda: ["--face-masks", masks(), "--face-embedding", embedding(), "--hjb.crop", "aligned"],
        r"--hjb.crop aligned needs the faces' landmarks",
    ),
    "no landmarks of the reference": (
        lambda: ["--face-boxes", boxes(), "--hjb.crop", "aligned"],
        r"--hjb.crop aligned needs the landmarks of the reference's face",
    ),
    "an embedding of zeros": (
        lambda: ["--face-masks", masks(), "--face-embedding", (np.save("face.npy", np.zeros(512)), "face.npy")[1]],
        r"the reference face's embedding must be finite and not all zeros",
    ),
    "no InsightFace models": (lambda: ["--insightface-root", "poses"], r"no InsightFace models: .*unpack antelopev2"),
    "a checkpoint without ArcFace": (
        lambda: ["--checkpoint", without_arcface(), "--face-boxes", boxes()],
        r"checkpoint .* has no arcface, which the face optimisation needs: import .* again with --arcface glintr100",
    ),
    "no ArcFace for the identity": (
        lambda: ["--checkpoint", without_arcface(), "--identity", "checkpoint", "--hjb.iterations", 0],
        r"checkpoint .* has no arcface, which --identity checkpoint needs",
    ),
    "the reference's face is cut off": (
        lambda: ["--face-boxes", boxes(reference={"box": [20, 0, 60, 6]})],
        r"the reference's face lies outside of what --fit crop leaves of the image at 64x64: take --fit pad",
    ),
    "the plot's place is taken": (
        lambda: ["--face-boxes", boxes(), "--output", (Path("new.mp4.hjb.png").mkdir(), "new.mp4")[1]],
        r"cannot write .*new.mp4.hjb.png: it is a directory",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), BAD.values(), ids=BAD)
def test_bad_input(place, capsys, flags, message):
    argv = flags()
    before = tree(place)
    assert sample(*argv) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(rf"error: .*{message}.*\n", err), err
    assert tree(place) == before


def test_a_reference_without_a_face(place, capsys, monkeypatch):
    write_models(Path("models/antelopev2"))
    monkeypatch.setattr(sampling_inputs.FaceAnalyser, "embedding", lambda self, image: None)
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save("photo.png")
    assert sample("--insightface-root", ".") == 2
    assert "InsightFace finds no face of the person in the reference image" in capsys.readouterr().err
