"""MimicMotion's preprocessing: its stride, its fit, and its drawing, against the published code's own."""

import numpy as np
import pytest

from stableanimator_jax.data.images import cover
from stableanimator_jax.data.keypoints import Keypoints
from stableanimator_jax.family import FAMILY
from stableanimator_jax.perception.alignment import align
from stableanimator_jax.perception.skeleton import BODY, draw_skeletons
from tests.golden_data import load


@pytest.fixture(scope="module")
def case() -> dict[str, np.ndarray]:
    return load("mimicmotion_poses")


def people(case: dict, frame: int) -> list[int]:
    """Those in a frame; absent ones are NaN."""
    return [p for p in range(2) if np.isfinite(case["driving_keypoints"][frame, p]).any()]


def test_frames_are_taken_at_the_published_stride(case):
    kind = FAMILY["mimicmotion"]
    assert kind.driving_stride == int(case["sample_stride"])
    stride = kind.driving_stride * max(1, int(float(case["driving_fps"]) / 24))
    assert list(range(0, len(case["driving_keypoints"]), stride)) == case["sampled_frames"].tolist()


def test_alignment_and_drawing_are_the_published_ones(case):
    height, width = int(case["height"]), int(case["width"])
    of = int(case["driving_width"]), int(case["driving_height"])
    frames = case["sampled_frames"].tolist()
    reference = Keypoints(case["reference_keypoints"][None], case["reference_scores"][None], width, height, None)
    alone = [frame for frame in frames if len(people(case, frame)) == 1]
    assert len(alone) < len(frames)

    # The published fit counts driving joints of any score.
    points, scores = case["driving_keypoints"][alone, 0], np.ones_like(case["driving_scores"][alone, 0])
    fit = align(Keypoints(points, scores, *of, None), reference)
    np.testing.assert_allclose(fit.scale, case["scale"], rtol=1e-5)
    np.testing.assert_allclose(fit.offset, case["shift"], rtol=1e-4)

    images = [draw(reference.points / [width, height], reference.scores, height, width)]
    for i, frame in enumerate(frames):
        there = people(case, frame)
        shares = case["driving_keypoints"][frame, there] / np.array(of) * fit.scale + fit.offset
        np.testing.assert_allclose(shares[:, BODY], case["aligned_body"][i, there], atol=2e-5)
        images.append(draw(shares, case["driving_scores"][frame, there], height, width))
    # Its drawing hands out red and blue exchanged, and so does `swaps_colours` with ours.
    assert FAMILY["mimicmotion"].swaps_colours
    np.testing.assert_array_equal(np.stack(images)[..., ::-1], case["pose_images"])


def draw(points: np.ndarray, scores: np.ndarray, height: int, width: int) -> np.ndarray:
    return draw_skeletons(points, scores, height, width)


@pytest.mark.parametrize(("height", "width"), [(2, 40_000), (40_000, 2), (1, 1)])
def test_a_photo_of_any_aspect_is_resized_without_being_made_huge(height, width):
    image = np.full((height, width, 3), 90, np.uint8)
    np.testing.assert_array_equal(cover(image, 128, 192, "crop"), np.full((192, 128, 3), 90))


@pytest.mark.parity
@pytest.mark.parametrize(("height", "width"), [(300, 200), (200, 300), (97, 341), (128, 64), (640, 1000)])
def test_the_reference_is_resized_as_torchvision_does_without_antialiasing(height, width):
    """Scaled to cover 128x192, its free side rounded up, and cut in the middle."""
    import torch

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    scale = max(192 / height, 128 / width)
    high, wide = (192, -(-width * 192 // height)) if scale == 192 / height else (-(-height * 128 // width), 128)
    channels_first = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(channels_first, (high, wide), mode="bilinear", align_corners=False)
    top, left = round((high - 192) / 2), round((wide - 128) / 2)
    expected = resized[0, :, top : top + 192, left : left + 128].permute(1, 2, 0).numpy()
    found = cover(image, 128, 192, "crop")
    assert found.shape == (192, 128, 3)
    assert np.abs(found - expected).max() <= 0.51
