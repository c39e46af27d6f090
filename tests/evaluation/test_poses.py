"""Keypoints that are off by a known amount."""

import numpy as np
import pytest

from stableanimator_jax.data.keypoints import POINTS, Keypoints
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.poses import pose_error
from stableanimator_jax.evaluation.protocol import PROTOCOLS
from stableanimator_jax.perception.people import People

PROTOCOL = PROTOCOLS["disco"]
NECK, HIPS = 1, [8, 11]


@pytest.fixture
def driving():
    """Three frames of 100x200 pixels; the box is 30x40, its diagonal 50, and the torso 20 long."""
    points = np.random.default_rng(0).uniform([35, 65], [60, 95], (POINTS, 2))
    points[0], points[2] = (30, 60), (60, 100)
    points[NECK], points[HIPS] = (45, 65), [(40, 85), (50, 85)]
    return Keypoints(
        np.repeat(points[None], 3, axis=0).astype(np.float32), np.ones((3, POINTS), np.float32), 100, 200, None
    )


def people(points, scores=None):
    """One person, and a smaller one who is surer and elsewhere."""
    boxes = np.array([[0, 0, 5, 5], [30, 60, 60, 100]], np.float32)
    scores = np.ones(POINTS, np.float32) if scores is None else scores
    both = np.stack([np.zeros_like(points), points]).astype(np.float32)
    return People(boxes, both, np.stack([np.ones_like(scores), scores]))


NOBODY = People(np.zeros((0, 4), np.float32), np.zeros((0, POINTS, 2), np.float32), np.zeros((0, POINTS), np.float32))


def test_a_known_offset(driving):
    moved = driving.points[0] + [3, 4]  # a tenth of the diagonal; more than a tenth of the torso
    found = pose_error([people(driving.points[0]), people(moved), NOBODY], (100, 200), driving, PROTOCOL)
    for part in ("body", "hands", "face"):
        np.testing.assert_allclose(found.distance[part], [0, 0.1, np.nan], atol=1e-6)
    np.testing.assert_allclose(found.pck, [1, 0, 0])
    np.testing.assert_allclose(found.missed, [0, 0, 1])


def test_frames_of_another_size(driving):
    found = pose_error([people(driving.points[0] * [4, 2])] * 3, (400, 400), driving, PROTOCOL)
    np.testing.assert_allclose(found.distance["body"], 0, atol=1e-6)


def test_only_what_is_asked_for_and_seen_counts(driving):
    """What nobody asked for is not missed; what is not found is not measured, but missed and not right."""
    driving.scores[:, 92:] = 0.3  # hands
    scores = np.ones(POINTS, np.float32)
    scores[:9] = 0.1
    moved = driving.points[0].copy()
    moved[:9] += 1000
    found = pose_error([people(moved, scores)] * 3, (100, 200), driving, PROTOCOL)
    np.testing.assert_allclose(found.distance["body"], 0, atol=1e-6)
    assert np.isnan(found.distance["hands"]).all()
    np.testing.assert_allclose(found.missed, 9 / 92)
    np.testing.assert_allclose(found.pck, 0.5)


def test_no_torso_no_pck_and_no_person_nothing(driving):
    driving.scores[0, HIPS[0]] = 0
    driving.scores[1] = 0
    found = pose_error([people(driving.points[0])] * 3, (100, 200), driving, PROTOCOL)
    np.testing.assert_allclose(found.pck, [np.nan, np.nan, 1])
    np.testing.assert_allclose(found.missed, [0, np.nan, 0])
    assert np.isnan(found.distance["body"][1])


def test_other_numbers_of_frames_are_refused(driving):
    with pytest.raises(InputError, match="1 frames, its driving poses 3"):
        pose_error([NOBODY], (100, 200), driving, PROTOCOL)
