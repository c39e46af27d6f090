import re

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from stableanimator_jax.data.images import resize
from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.perception.skeleton import draw_skeletons
from stableanimator_jax.shipped import EXAMPLE
from tests.data.clips import encode

POSES = EXAMPLE / "poses"


def person(scale=1.0):
    """Somebody standing, hands apart, with a face: shares of the image."""
    body = [
        (50, 15),
        (50, 25),
        (42, 25),
        (37, 38),
        (33, 50),
        (58, 25),
        (63, 38),
        (67, 50),
        (45, 52),
        (44, 70),
        (43, 88),
    ]
    body += [(55, 52), (56, 70), (57, 88), (48, 13), (52, 13), (46, 15), (54, 15)]
    feet = [(43, 92)] * 3 + [(57, 92)] * 3
    turn = np.linspace(0, 2 * np.pi, 68)
    face = np.stack([50 + 4 * np.cos(turn), 14 + 5 * np.sin(turn)], -1)
    fingers = [(0, 0), *((x * reach / 3, 2 + reach) for x in (-2, -1, 0, 1, 2) for reach in (1, 2, 3, 4))]
    points = np.concatenate([body, feet, face, np.add(fingers, (33, 50)), np.add(fingers, (67, 50))]) / 100
    return (points - 0.5) * scale + 0.5


def drawn(side, scale=1.0):
    return draw_skeletons(person(scale)[None], np.full((1, 134), 0.95), side, side)


def thick(image, side):
    """As ControlNet's OpenPose draws: lines and joints of 8 pixels at 512."""
    return cv2.dilate(image, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side // 64, side // 64)))


def said(tmp_path, capsys, frames, size=64):
    for i, frame in enumerate(frames):
        Image.fromarray(np.ascontiguousarray(frame)).save(tmp_path / f"frame_{i}.png")
    load_poses(tmp_path, size, size)
    return capsys.readouterr().err


@pytest.mark.parametrize("scale", [0.2, 0.5, 1, 3])
@pytest.mark.parametrize("side", [64, 96, 128, 256, 512, 1024])
def test_our_own_skeletons_pass(tmp_path, capsys, side, scale):
    assert said(tmp_path, capsys, [drawn(side, scale)]) == ""


@pytest.mark.parametrize("filter", ["bicubic", "lanczos"])
def test_shrunk_skeletons_empty_frames_and_the_example_pass(tmp_path, capsys, filter):
    large = drawn(1024)
    for side in (64, 128, 256, 512):
        assert said(tmp_path, capsys, [np.zeros((side, side, 3), np.uint8), resize(large, side, side, filter)]) == ""
    for side in (64, 512):
        load_poses(POSES, side, side)
    assert capsys.readouterr().err == ""


def test_an_ordinary_video(tmp_path, capsys):
    frames = np.stack([resize(astronaut(), 128, 128, "bicubic")] * 3)
    words = r"do not look like skeletons: only 1.% of the pixels are black; .*--driving"
    err = said(tmp_path, capsys, frames)
    assert re.fullmatch(rf"warning: poses {tmp_path} {words}\n", err), err
    video = encode(tmp_path / "a.mp4", frames)
    load_poses(video, 64, 64)
    err = capsys.readouterr().err
    assert re.fullmatch(rf"warning: poses {video} {words}\n", err), err


@pytest.mark.parametrize("side", [256, 512, 768])
def test_thick_skeletons(tmp_path, capsys, side):
    err = said(tmp_path, capsys, [thick(drawn(side), side), thick(drawn(side, 0.6), side)])
    assert err.startswith(f"warning: poses {tmp_path} have thick lines")
    assert err.count("\n") == 1


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_red_and_blue_exchanged(tmp_path, capsys, side):
    err = said(tmp_path, capsys, [drawn(side)[..., ::-1], drawn(side, 0.7)[..., ::-1]])
    assert err.startswith(f"warning: poses {tmp_path} seem to have red and blue exchanged")
    assert err.count("\n") == 1
