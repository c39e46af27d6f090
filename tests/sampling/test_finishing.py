"""What is done with generated frames: the reference's colours, and its background behind the person."""

from dataclasses import replace

import numpy as np
import pytest

from stableanimator_jax import InputError, keep_background, keep_background_by_masks, match_colours
from stableanimator_jax.data.keypoints import Keypoints
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.silhouette import body_height, silhouette
from stableanimator_jax.sampling.colours import FIRST, ColourMatch

HEIGHT, WIDTH = 120, 96


def smooth(seed: int, low: int = 60, high: int = 190) -> np.ndarray:
    """A picture without extremes, so that a change of its colours is not cut off."""
    small = np.random.default_rng(seed).uniform(low, high, (8, 6, 3)).astype(np.float32)
    return np.clip(cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), 0, 255).astype(np.uint8)


def statistics(images: np.ndarray) -> np.ndarray:
    lab = np.stack([cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for image in images])
    return np.stack([lab.mean(axis=(0, 1, 2)), lab.std(axis=(0, 1, 2))])


def test_colours_come_to_have_the_references_statistics():
    frames = np.stack([smooth(seed) for seed in range(5)])
    reference = (smooth(9) * [0.9, 0.7, 0.5] + [10, 20, 60]).astype(np.uint8)
    matched = np.stack(list(match_colours(iter(frames), reference)))
    assert np.abs(statistics(frames) - statistics(reference[None])).max() > 5
    np.testing.assert_allclose(statistics(matched), statistics(reference[None]), atol=0.15)


def test_a_known_change_is_undone():
    frame = smooth(1)
    lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    other = cv2.cvtColor(lab * np.float32([0.9, 0.8, 1.1]) + np.float32([4, -3, 5]), cv2.COLOR_Lab2RGB)
    match = ColourMatch.between([np.rint(other * 255).astype(np.uint8)], frame)
    np.testing.assert_allclose(match.scale, 1 / np.array([0.9, 0.8, 1.1]), atol=0.01)
    (back,) = match_colours([np.rint(other * 255).astype(np.uint8)], frame)
    assert np.abs(back.astype(int) - frame).max() <= 2


def test_equal_colours_are_left_and_one_colour_is_only_moved():
    frame = smooth(2)
    for same in match_colours([frame, frame], frame):
        np.testing.assert_array_equal(same, frame)
    (moved,) = match_colours([np.full_like(frame, 90)], np.full_like(frame, 130))
    np.testing.assert_array_equal(moved, 130)


def test_one_change_for_all_frames_from_the_first():
    frames = [smooth(seed) for seed in range(FIRST + 3)]
    reference = smooth(50, 20, 120)
    all_of_them = list(match_colours(iter(frames), reference))
    match = ColourMatch.between(frames[:FIRST], reference)
    for frame, matched in zip(frames, all_of_them, strict=True):
        np.testing.assert_array_equal(matched, match(frame))
    taken: list[int] = []

    def watched():
        for i, frame in enumerate(frames):
            taken.append(i)
            yield frame

    stream = match_colours(watched(), reference)
    next(stream)
    assert len(taken) == FIRST  # no more are held


def standing(x: float, frames: int = 2) -> Keypoints:
    """Somebody upright around a column, 100 pixels tall."""
    places = {
        0: (0, 18), 1: (0, 30), 2: (-10, 30), 3: (-12, 45), 4: (-12, 58), 5: (10, 30), 6: (12, 45), 7: (12, 58),
        8: (-5, 60), 9: (-5, 84), 10: (-5, 108), 11: (5, 60), 12: (5, 84), 13: (5, 108),
        14: (-2, 16), 15: (2, 16), 16: (-4, 17), 17: (4, 17),
    }  # fmt: skip
    points, scores = np.zeros((frames, 134, 2), np.float32), np.zeros((frames, 134), np.float32)
    for joint, (dx, y) in places.items():
        points[:, joint], scores[:, joint] = (x + dx, y), 1
    return Keypoints(points, scores, WIDTH, HEIGHT, None)


def test_background_is_the_references_and_the_person_the_frames():
    reference, frame = smooth(3), smooth(4)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:110, 55:75] = 255  # where the photo's person is
    (kept,) = keep_background([frame], reference, mask, standing(30))
    same, own = (kept == reference).all(axis=-1), (kept == frame).all(axis=-1)
    assert own[20:110, 55:75].all()  # nobody knows what is behind
    for x, y in ((30, 45), (30, 70), (30, 20), (42, 50), (25, 90), (35, 105)):
        assert own[y, x]
    assert same[:, 85:].all()
    assert same[:, :3].all()
    assert same[112:, :8].all()
    assert (~(same | own)).mean() < 0.2  # the soft edge


def test_what_differs_near_the_person_is_theirs_and_far_away_is_not():
    reference = smooth(3)
    frame = reference.copy()
    frame[60:66, 44:50] = frame[60:66, 80:86] = 255 - frame[60:66, 44:50]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[0, 0] = True
    (kept,) = keep_background([frame], reference, mask, standing(30))
    np.testing.assert_array_equal(kept[61:65, 45:49], frame[61:65, 45:49])
    np.testing.assert_array_equal(kept[60:66, 80:86], reference[60:66, 80:86])


def test_a_frame_without_keypoints_has_the_nearest_ones():
    reference, frame = smooth(3), smooth(4)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[0, 0] = True
    keypoints = standing(30, 3)
    keypoints.scores[[0, 2]] = 0
    kept = list(keep_background([frame] * 3, reference, mask, keypoints))
    np.testing.assert_array_equal(kept[0], kept[1])
    np.testing.assert_array_equal(kept[2], kept[1])
    (last,) = keep_background([frame], reference, mask, standing(60, 3), first_frame=2)
    assert (last != kept[2]).any()


def test_a_wild_joint_makes_no_line_thicker_than_can_be_drawn():
    keypoints = standing(60)
    points = keypoints.points.copy()
    points[:, 10] = 300_000  # an ankle
    tall = body_height(replace(keypoints, points=points))
    assert silhouette(points[0], keypoints.scores[0], tall, 120, 120).all()


def test_masks_of_the_frames():
    reference, frames = smooth(3), [smooth(4), smooth(5)]
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    masks[0, 10:50], masks[1, 60:] = 255, 128
    first, second = keep_background_by_masks(iter(frames), reference, iter(masks))
    np.testing.assert_array_equal(first[10:50], frames[0][10:50])
    np.testing.assert_array_equal(np.delete(first, np.s_[10:50], 0), np.delete(reference, np.s_[10:50], 0))
    np.testing.assert_array_equal(second[:60], reference[:60])
    middle = (frames[1][60:].astype(int) + reference[60:]) / 2
    assert np.abs(second[60:] - middle).max() <= 1


@pytest.mark.mistyped
def test_what_cannot_be_used():
    reference, keypoints = smooth(3), standing(30)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:9, 5:9] = 255
    nobody = Keypoints(keypoints.points, np.zeros_like(keypoints.scores), WIDTH, HEIGHT, None)
    other = Keypoints(keypoints.points, keypoints.scores, 64, 64, None)
    for wrong, points, words in (
        (mask * 0, keypoints, "black all over"),
        (mask | 255, keypoints, "white all over"),
        (mask[:9], keypoints, "the mask is 96x9 pixels, the reference 96x120"),
        (mask, nobody, "show nobody"),
        (mask, other, "frames of 64x64"),
    ):
        with pytest.raises(InputError, match=words):
            keep_background([], reference, wrong, points)
    with pytest.raises(InputError, match="a frame is 96x9 pixels"):
        next(keep_background([reference[:9]], reference, mask, keypoints))
    with pytest.raises(InputError, match="a mask is 96x9 pixels"):
        next(keep_background_by_masks([reference], reference, [mask[:9]]))
    with pytest.raises(InputError, match="reference must be uint8 RGB"):
        match_colours([], reference[..., 0])
