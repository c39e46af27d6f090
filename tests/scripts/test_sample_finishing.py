"""`sample.py --match-colours` and `--keep-background`."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax import keep_background, load_image, match_colours
from stableanimator_jax.data.images import fit
from stableanimator_jax.data.keypoints import save_keypoints
from tests.sampling.test_finishing import standing
from tests.scripts.sample_script import QUICK, call, pixels, prepare_dance
from tests.training.mini_model import save_mini_model

FRAMES = 5
_STANDING = standing(60, FRAMES)
DANCE = replace(_STANDING, points=_STANDING.points * np.float32(0.5), width=64, height=64, fps=8.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_mini_model(tmp_path_factory.mktemp("finishing") / "mini")


@pytest.fixture
def place(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    prepare_dance(checkpoint, DANCE)
    mask = np.zeros((96, 80), np.uint8)
    mask[30:70, 30:50] = 255
    Image.fromarray(mask).save("mask.png")
    return tmp_path


def sample(output: str, *flags: object, poses: str = "dance.json") -> int:
    given = ["--checkpoint", "mini", "--reference", "photo.png", "--poses", poses, *QUICK]
    return call(*given, "--output", output, *flags)


@pytest.mark.slow
def test_frames_are_finished_as_in_python(place):
    assert sample("plain") == 0
    frames = pixels(Path("plain"))
    reference = fit(load_image("photo.png"), 64, 64, "crop", filter="lanczos")
    mask = fit(load_image("mask.png"), 64, 64, "crop", filter="lanczos")[..., 0]
    matched = np.stack(list(match_colours(frames, reference)))
    expected = np.stack(list(keep_background(matched, reference, mask, DANCE)))
    assert (matched != frames).any()
    assert (expected != matched).any()

    assert sample("colours", "--match-colours") == 0
    np.testing.assert_array_equal(pixels(Path("colours")), matched)
    assert sample("both", "--match-colours", "--keep-background", "mask.png") == 0
    np.testing.assert_array_equal(pixels(Path("both")), expected)
    record = json.loads(Path("both.json").read_text())
    assert record["configuration"]["match_colours"] is True
    assert record["configuration"]["keep_background"] == str(place / "mask.png")
    assert record["inputs"].keys() == {"reference", "poses", "keep_background", "checkpoint"}
    assert call("--from-json", "both.json", "--output", "again") == 0
    np.testing.assert_array_equal(pixels(Path("again")), expected)

    Path("masks").mkdir()
    for i in range(FRAMES):
        Image.fromarray(np.pad(np.full((32, 64), 255, np.uint8), ((16, 16), (0, 0)))).save(f"masks/frame_{i}.png")
    assert sample("masked", "--keep-background", "masks") == 0
    masked = pixels(Path("masked"))
    np.testing.assert_array_equal(masked[:, 16:48], frames[:, 16:48])
    for rows in (slice(0, 16), slice(48, 64)):
        np.testing.assert_array_equal(masked[:, rows], np.broadcast_to(reference[rows], (FRAMES, 16, 64, 3)))


def test_check_draws_the_background(place, capsys):
    assert sample("out.mp4", "--check", "--match-colours", "--keep-background", "mask.png") == 0
    assert "frames get: colours as the reference's; the reference's background, by " in capsys.readouterr().out
    assert "background that stays" in Path("out.mp4.check.html").read_text()


def masks(count: int, size: int = 64, level: int = 255) -> str:
    Path("masks").mkdir()
    for i in range(count):
        Image.fromarray(np.full((size, size), level, np.uint8)).save(f"masks/frame_{i}.png")
    return "masks"


def mask(name: str, size: tuple[int, int] = (80, 96), level: int = 0) -> str:
    Image.new("L", size, level).save(name)
    return name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: mask("a.png", (64, 64)), r"mask .*a.png is 64x64 pixels, but the reference is 80x96"),
        (lambda: mask("a.png"), r"a.png: the mask is black all over"),
        (lambda: mask("a.png", level=255), r"a.png: the mask is white all over"),
        (lambda: "photo.png", r"photo.png is no mask: only \d+% of its pixels|photo.png.*input"),
        (lambda: "none.png", r"mask .*none.png does not exist"),
        (lambda: "none.mp4", r"masks .*none.mp4 does not exist"),
        (lambda: "dance.json", r"masks .*dance.json"),
        (lambda: masks(3), r"masks .*: there are 3, but the output has 5 frames"),
        (lambda: masks(5, 32), r"mask 0 of .*masks is 32x32 pixels, but the output 64x64"),
        (lambda: masks(5, level=0), r"masks .* are black all over"),
    ],
)
def test_what_cannot_be_used(place, capsys, given, words):
    path = given()
    assert sample("out.mp4", "--keep-background", path) == 2
    err = capsys.readouterr().err
    assert re.search(rf"^error: .*({words}).*\n\Z", err), err


def test_pictures_need_keypoints_or_masks(place, capsys):
    poses = "skeletons"
    assert sample("out.mp4", "--keep-background", "mask.png", poses=poses) == 2
    assert "skeletons are pictures: give keypoints as --poses" in capsys.readouterr().err
    save_keypoints(Path("skeletons/keypoints.json"), DANCE)
    assert sample("out.mp4", "--check", "--keep-background", "mask.png", poses=poses) == 0
