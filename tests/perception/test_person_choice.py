"""Whom a flag means among boxes, and whose a face is."""

import numpy as np
import pytest

from stableanimator_jax.data.face_track import Face
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.person_choice import check_choice, choose, face_of, parse_choice, pick

# From the left: 2, 0, 3, 1. The largest is 3, the nearest to the middle of 600 is 0.
BOXES = np.float32([[240, 0, 300, 200], [500, 0, 560, 220], [10, 50, 60, 200], [340, 0, 480, 300]])


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("largest", 3), ("left", 2), ("right", 1), ("centre", 0),
        ("1", 2), ("2", 0), ("3", 3), ("4", 1),
        ("350,290", 3), ("20,60", 2), ("510.5,100", 1),
        ("0,0", 2), ("310,100", 0), ("330,100", 3),  # nobody is there: who is nearest
    ],
)  # fmt: skip
def test_who_is_meant(text, index):
    choice = parse_choice(text, "--flag")
    check_choice(choice, len(BOXES), (600, 400), "the photo", "--flag")
    assert pick(choice, BOXES, 600) == index


@pytest.mark.parametrize("text", ["", "biggest", "0", "-1", "1.5", "1,2,3", "a,b", "nan,3", "-4,5", ","])
def test_words_that_mean_nobody(text):
    with pytest.raises(InputError, match=r"--flag must be largest, left, right, centre, a number .*, got "):
        parse_choice(text, "--flag")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (5, "--flag 5: only 4 people are seen in the photo"),
        ((601.0, 5.0), "--flag 601,5 lies outside of the photo, which has 600x400 pixels"),
    ],
)
def test_who_is_not_there(choice, message):
    with pytest.raises(InputError, match=message):
        check_choice(choice, 4, (600, 400), "the photo", "--flag")


def test_a_warning_where_several_could_be_meant(capsys):
    assert choose(None, BOXES, (600, 400), "the photo", "--flag") == 3
    err = capsys.readouterr().err
    assert err.startswith("warning: the photo shows 4 people; the largest, around 410,150, is taken; --flag chooses: ")
    assert err.count("\n") == 1
    assert choose("largest", BOXES, (600, 400), "the photo", "--flag") == 3
    assert choose(None, BOXES[:1], (600, 400), "the photo", "--flag") == 0
    assert capsys.readouterr().err == ""


def face(x: float, y: float, half: float = 10) -> Face:
    return Face(np.float32([x - half, y - half, x + half, y + half]), np.zeros((5, 2), np.float32), score=0.9)


def body(*, head_seen: bool = True):
    """Someone of 100x300 at (200, 100), whose head is of 40x40 around (250, 130)."""
    points = np.zeros((134, 2), np.float32)
    points[:, 0], points[:, 1] = np.linspace(200, 300, 134), np.linspace(100, 400, 134)
    points[24:92] = np.float32([250, 130]) + 20 * np.random.default_rng(0).uniform(-1, 1, (68, 2)).astype(np.float32)
    scores = np.full(134, 0.8, np.float32)
    scores[24:92] = 0.8 if head_seen else 0.1
    return points, scores


def test_the_face_of_a_body():
    """Not the largest, nor one in the body's box: the one at the head."""
    child, own, other = face(280, 250, 30), face(253, 128, 15), face(500, 100, 40)
    assert face_of([other, child, own], *body()) is own
    assert face_of([other, child], *body()) is None
    assert face_of([], *body()) is None
    assert face_of([own], np.zeros((134, 2), np.float32), np.zeros(134, np.float32)) is None


def test_a_body_whose_head_is_not_seen_by_its_keypoints():
    own, other = face(253, 128, 15), face(500, 100, 40)
    assert face_of([other, own], *body(head_seen=False)) is own
    assert face_of([other], *body(head_seen=False)) is None
