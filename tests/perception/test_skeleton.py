from pathlib import Path

import numpy as np
import pytest

from stableanimator_jax.perception.skeleton import draw_skeletons

GOLDEN = Path(__file__).parents[1] / "golden"


def draw(points: dict[int, tuple[float, float]], score: float, side: int = 512):
    """One person of whom only `points` are there; the rest lies off the canvas without a score."""
    keypoints, scores = np.full((1, 134, 2), -1.0), np.zeros((1, 134))
    for row, xy in points.items():
        keypoints[0, row], scores[0, row] = xy, score
    return draw_skeletons(keypoints, scores, side, side)


@pytest.mark.parametrize("name", ["skeleton_512x512", "skeleton_1024x576"])
def test_golden(name):
    case = np.load(GOLDEN / f"{name}.npz")
    image = draw_skeletons(case["keypoints"], case["scores"], int(case["height"]), int(case["width"]))
    assert image.shape == case["rgb"].shape
    assert image.dtype == np.uint8
    difference = np.abs(image.astype(int) - case["rgb"]).max(axis=-1)
    # Identical with the OpenCV that made the golden images; another version may round a line's edge otherwise.
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3


def test_nobody_is_black():
    image = draw_skeletons(np.zeros((0, 134, 2)), np.zeros((0, 134)), 64, 128)
    assert image.shape == (64, 128, 3)
    assert not image.any()


def test_points_off_the_canvas_are_not_drawn():
    everything_outside = dict.fromkeys(range(134), (-1.0, -1.0))
    assert not draw(everything_outside, 1.0).any()


@pytest.mark.parametrize("xy", [(0.0, 0.5), (0.5, 0.0)])
def test_hands_and_face_skip_the_first_row_and_column(xy):
    assert not draw({100: xy}, 1.0).any()
    assert not draw({30: xy}, 1.0).any()


def test_body_threshold_and_score_as_brightness():
    def brightest(score):
        neck_and_right_shoulder = {1: (0.5, 0.5), 2: (0.25, 0.5)}  # the first limb, red
        return draw(neck_and_right_shoulder, score)[:, 150:230].max(axis=(0, 1))

    assert not brightest(0.29).any()
    assert brightest(1.0).tolist() == [153, 0, 0]  # 0.6 of 255
    assert brightest(0.5)[0] == 37  # 255 · 0.5² · 0.6, made whole twice


def test_face_has_no_threshold():
    assert draw({30: (0.5, 0.5)}, 0.2, side=2160)[1080, 1080].tolist() == [51, 51, 51]


def test_people_are_all_drawn():
    case = np.load(GOLDEN / "skeleton_1024x576.npz")
    height, width = 1024, 576
    both = draw_skeletons(case["keypoints"], case["scores"], height, width)
    one = draw_skeletons(case["keypoints"][:1], case["scores"][:1], height, width)
    other = draw_skeletons(case["keypoints"][1:], case["scores"][1:], height, width)
    assert one.any()
    assert other.any()
    assert both.astype(int).sum() > 1.2 * max(one.astype(int).sum(), other.astype(int).sum())
