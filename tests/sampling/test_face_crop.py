"""Face crops: what the boxes and the alignment promise."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from insightface.utils import face_align

from stableanimator_jax.sampling.face_crop import ARCFACE_LANDMARKS, alignment_transforms, crop_boxes, warp_aligned


def test_a_box_of_the_crops_own_size_is_copied():
    frames = jnp.asarray(np.random.default_rng(0).standard_normal((1, 150, 160, 3)), jnp.float32)
    out = crop_boxes(frames, jnp.asarray([[20, 7, 131, 118]], jnp.float32))
    np.testing.assert_allclose(out[0], frames[0, 7:119, 20:132], atol=1e-6)


def test_alignment_brings_the_landmarks_to_arcfaces_places():
    """Dots drawn at a turned, scaled and shifted face's landmarks are found where ArcFace wants them."""
    angle, scale = 0.4, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = ARCFACE_LANDMARKS @ turn.T + np.array([90, 20])
    transforms = alignment_transforms(landmarks[None])
    np.testing.assert_allclose(transforms[0, :, :2], turn, atol=1e-4)
    np.testing.assert_allclose(transforms[0, :, 2], [90, 20], atol=1e-2)
    y, x = np.mgrid[:300, :320]
    dots = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18) for px, py in landmarks)
    frames = jnp.asarray(dots[None, ..., None], jnp.float32)
    out = np.asarray(warp_aligned(frames, jnp.asarray(transforms)))[0, ..., 0]
    for px, py in ARCFACE_LANDMARKS:
        assert out[round(float(py)), round(float(px))] > 0.9


def test_warping_is_opencvs():
    rng = np.random.default_rng(1)
    frame = cv2.GaussianBlur(rng.standard_normal((120, 140, 3)).astype(np.float32), (0, 0), 3)
    landmarks = ARCFACE_LANDMARKS * 0.9 + rng.normal(0, 2, (5, 2)) + 8
    transform = alignment_transforms(landmarks[None])[0]
    expected = cv2.warpAffine(frame, transform, (112, 112), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    out = warp_aligned(jnp.asarray(frame[None]), jnp.asarray(transform)[None])[0]
    np.testing.assert_allclose(out, expected, atol=5e-3 * np.abs(frame).max())  # OpenCV rounds to 1/32 pixel


TURNED = {
    "from the front": (1.0, 0.0, 0.0),
    "turned a little": (0.8, 0.0, 0.2),
    "turned": (0.6, 5.0, -0.4),
    "turned far, its nose beside it": (0.5, 12.0, 3.0),
}


@pytest.mark.parametrize(("squeeze", "nose", "angle"), TURNED.values(), ids=TURNED)
@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")  # InsightFace's call of scikit-image
def test_alignment_is_insightfaces(squeeze, nose, angle):
    """Of faces that are turned, which no similarity transform brings onto the template."""
    landmarks = (ARCFACE_LANDMARKS - ARCFACE_LANDMARKS.mean(0)) * [squeeze, 1.0]
    landmarks[2, 0] += nose
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (1.5 * landmarks @ rotation.T + [200, 150]).astype(np.float32)
    expected = cv2.invertAffineTransform(face_align.estimate_norm(landmarks, 112))
    np.testing.assert_allclose(alignment_transforms(landmarks[None])[0], expected, rtol=1e-4, atol=1e-3)


def test_sizes_of_turned_faces():
    """The sides of the crops in pixels of the frame, as InsightFace 2.1 gives them."""
    squeezed = [(ARCFACE_LANDMARKS - ARCFACE_LANDMARKS.mean(0)) * [x, 1.0] * 1.5 + 200 for x in (1.0, 0.8, 0.6)]
    sides = 112 * np.linalg.norm(alignment_transforms(np.stack(squeezed))[:, :, 0], axis=1)
    np.testing.assert_allclose(sides, [168.0, 156.7, 149.5], atol=0.05)


def test_landmarks_in_one_place_give_a_crop_of_it():
    transforms = alignment_transforms(np.stack([np.zeros((5, 2)), np.full((5, 2), 7.0)]))
    np.testing.assert_allclose(transforms[:, :, :2], 0, atol=1e-6)
    np.testing.assert_allclose(transforms[:, :, 2], [[0, 0], [7, 7]], atol=1e-6)


def test_alignment_does_not_mirror():
    """Landmarks of a mirrored face still give a proper rotation."""
    mirrored = ARCFACE_LANDMARKS * np.float32([-1, 1]) + np.float32([112, 0])
    assert np.linalg.det(alignment_transforms(mirrored[None])[0, :, :2]) > 0
