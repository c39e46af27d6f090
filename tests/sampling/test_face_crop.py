"""Face crops: what the boxes and the alignment promise."""

import cv2
import jax.numpy as jnp
import numpy as np

from stableanimator_jax.sampling.face_crop import ARCFACE_LANDMARKS, alignment_transforms, crop_boxes, warp_aligned


def test_a_box_of_the_crops_own_size_is_copied():
    frames = np.random.default_rng(0).standard_normal((1, 150, 160, 3)).astype(np.float32)
    out = crop_boxes(frames, jnp.asarray([[7, 118, 20, 131]], jnp.float32))
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
    out = np.asarray(warp_aligned(dots[None, ..., None].astype(np.float32), jnp.asarray(transforms)))[0, ..., 0]
    for px, py in ARCFACE_LANDMARKS:
        assert out[round(float(py)), round(float(px))] > 0.9


def test_warping_is_opencvs():
    rng = np.random.default_rng(1)
    frame = cv2.GaussianBlur(rng.standard_normal((120, 140, 3)).astype(np.float32), (0, 0), 3)
    landmarks = ARCFACE_LANDMARKS * 0.9 + rng.normal(0, 2, (5, 2)) + 8
    transform = alignment_transforms(landmarks[None])[0]
    expected = cv2.warpAffine(frame, transform, (112, 112), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    out = warp_aligned(frame[None], jnp.asarray(transform)[None])[0]
    np.testing.assert_allclose(out, expected, atol=5e-3 * np.abs(frame).max())  # OpenCV rounds to 1/32 pixel


def test_alignment_does_not_mirror():
    """Landmarks of a mirrored face still give a proper rotation."""
    mirrored = ARCFACE_LANDMARKS * np.float32([-1, 1]) + np.float32([112, 0])
    assert np.linalg.det(alignment_transforms(mirrored[None])[0, :, :2]) > 0
