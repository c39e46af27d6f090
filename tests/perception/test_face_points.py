"""The face in whole-body keypoints, on a face whose proportions are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stableanimator_jax.perception.face_points import track_from_keypoints

CENTRE = np.array([200.0, 150.0])
EYES = ((170, 140), (230, 140))
NOSE, MOUTH, CHIN = (200, 170), ((180, 195), (220, 195)), (200, 230)


def face() -> np.ndarray:
    """68 points of an upright face, 100 pixels wide, its brows 100 above the chin."""
    points = np.tile(CENTRE, (68, 1))
    angle = np.linspace(np.pi, 0, 17)  # the jaw: half an ellipse from ear to ear
    points[:17] = np.stack([200 + 50 * np.cos(angle), 150 + 80 * np.sin(angle)], axis=-1)
    points[17:27] = np.stack([np.linspace(160, 240, 10), np.full(10, 130)], axis=-1)
    points[30] = NOSE
    ring = np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], axis=-1)
    for rows, eye in zip((slice(36, 42), slice(42, 48)), EYES, strict=True):
        points[rows] = np.array(eye) + 5 * (ring - ring.mean(axis=0))
    points[[48, 54]] = MOUTH
    assert points[8] == pytest.approx(CHIN)
    return points


def person(points: np.ndarray, score: float = 0.9):
    """Only the face is where it matters: the rest would spoil the box if it counted."""
    keypoints = np.full((1, 134, 2), -1000.0)
    keypoints[0, 24:92] = points
    scores = np.zeros((1, 134))
    scores[0, 24:92] = score
    return keypoints, scores


def test_landmarks_and_box():
    track = track_from_keypoints(*person(face()))
    assert track.valid.tolist() == [True]
    assert track.landmarks is not None
    np.testing.assert_allclose(track.landmarks[0], [*EYES, NOSE, *MOUTH], atol=1e-4)
    assert track.boxes.tolist() == [[150, 100, 250, 230]]  # the brows at 130, raised by 0.3 of 100
    assert (track.boxes.dtype, track.landmarks.dtype) == (np.float32, np.float32)


@settings(max_examples=50, deadline=None)
@given(degrees=st.floats(-180, 180), scale=st.floats(0.3, 5), x=st.floats(-300, 300), y=st.floats(-300, 300))
def test_a_face_held_in_any_way(degrees, scale, x, y):
    """Landmarks turn with the face; the box has every point and the forehead in it, and no more."""
    a = np.radians(degrees)
    rotation = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])

    def moved(points):
        return (np.asarray(points) - CENTRE) @ rotation.T + CENTRE + [x, y]

    track = track_from_keypoints(*person(moved(face())))
    assert track.landmarks is not None
    np.testing.assert_allclose(track.landmarks[0], moved([*EYES, NOSE, *MOUTH]), rtol=1e-5, atol=1e-3)
    forehead = np.stack([np.linspace(160, 240, 10), np.full(10, 100)], axis=-1)
    head = moved(np.concatenate([face(), forehead]))
    np.testing.assert_allclose(track.boxes[0], [*head.min(axis=0), *head.max(axis=0)], atol=0.51)


def test_only_faces_that_were_seen():
    keypoints, scores = (np.repeat(a, 4, axis=0) for a in person(face()))
    scores[:, 24:92] = np.array([0.31, 0.29, 0.0, 0.9])[:, None]
    scores[1, :24] = 1  # a body alone is no face
    track = track_from_keypoints(keypoints, scores)
    assert track.valid.tolist() == [True, False, False, True]
    assert track.landmarks is not None
    assert not track.boxes[1:3].any()
    assert not track.landmarks[1:3].any()


def test_part_of_the_face_unsure():
    keypoints, scores = person(face())
    scores[0, 24:54] = 0.05  # of a face from the side
    assert track_from_keypoints(keypoints, scores).valid[0]
    scores[0, 24:80] = 0.05
    assert not track_from_keypoints(keypoints, scores).valid[0]
