from pathlib import Path

import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.skeleton import FACE, HANDS, SkeletonStyle, draw_skeletons

GOLDEN = Path(__file__).parents[1] / "golden"


def draw(points: dict[int, tuple[float, float]], score: float, side: int = 512, **style: str):
    """One person of whom only `points` are there; the rest lies off the canvas without a score."""
    keypoints, scores = np.full((1, 134, 2), -1.0), np.zeros((1, 134))
    for row, xy in points.items():
        keypoints[0, row], scores[0, row] = xy, score
    return draw_skeletons(keypoints, scores, side, side, SkeletonStyle(**style))


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


def test_what_of_the_face_and_the_hands_is_drawn():
    body = {0: (0.5, 0.2), 1: (0.5, 0.4), 2: (0.3, 0.4), 5: (0.7, 0.4)}
    face = dict.fromkeys(range(*FACE.indices(134)), (0.8, 0.1))
    hands = {row: (0.2, 0.5 + row / 400) for hand in HANDS for row in range(*hand.indices(134))}
    everybody, side = body | face | hands, 2160
    whole = draw(everybody, 0.8, side)
    np.testing.assert_array_equal(draw(everybody, 0.8, side, face_keypoints="full", hands="on"), whole)
    np.testing.assert_array_equal(draw(everybody, 0.8, side, face_keypoints="off"), draw(body | hands, 0.8, side))
    np.testing.assert_array_equal(draw(everybody, 0.8, side, hands="off"), draw(body | face, 0.8, side))
    neither = draw(everybody, 0.8, side, face_keypoints="off", hands="off")
    np.testing.assert_array_equal(neither, draw(body, 0.8, side))

    # Faint is of 0.3 of the brightness, and nothing else changes.
    faint = draw(everybody, 0.8, side, face_keypoints="faint")
    on_the_face = (216, 1728)
    assert whole[on_the_face].tolist() == [204] * 3
    assert faint[on_the_face].tolist() == [61] * 3
    changed = (faint != whole).any(axis=-1)
    np.testing.assert_array_equal(changed, (draw(face, 0.8, side) > 0).any(axis=-1))


@pytest.mark.mistyped
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"face_keypoints": "dim"}, "face-keypoints must be one of full, faint, off, got 'dim'"),
        ({"hands": False}, "hands must be one of on, off, got False"),
    ],
)
def test_styles_that_there_are_not(wrong, words):
    with pytest.raises(InputError, match=words):
        SkeletonStyle(**wrong)
