import numpy as np
import pytest

from stableanimator_jax.perception.scenes import CutDetector, thumbnail


def picture(seed, contrast=255):
    small = np.random.default_rng(seed).integers(0, contrast, (8, 8, 3))
    return np.kron(small, np.ones((12, 16, 1))).astype(np.uint8)


def cuts(frames, threshold=25.0):
    detector = CutDetector(threshold)
    return [i for i, frame in enumerate(frames) if detector.is_cut(thumbnail(frame))]


def test_cuts_between_still_pictures_are_found():
    assert cuts([picture(0)] * 5 + [picture(1)] * 7 + [picture(2)] * 3) == [5, 12]


def test_slow_motion_noise_and_a_fade_are_no_cuts():
    random = np.random.default_rng(0)
    moving = [np.roll(picture(0), i, axis=1) for i in range(20)]
    noisy = [np.clip(f + random.normal(0, 8, f.shape), 0, 255).astype(np.uint8) for f in moving]
    fading = [(picture(0) * (1 - i / 20)).astype(np.uint8) for i in range(20)]
    assert cuts(noisy) == []
    assert cuts(fading) == []


def test_motion_that_changes_every_frame_much_is_one_shot_once_it_is_usual():
    wild = [np.roll(picture(0), 30 * i, axis=1) for i in range(12)]
    assert len(cuts([picture(0)] * 3 + wild)) <= 1


@pytest.mark.parametrize(("threshold", "found"), [(5.0, [2]), (60.0, [])])
def test_the_threshold_is_the_mean_difference_in_grey_levels(threshold, found):
    dark, light = np.full((40, 40, 3), 40, np.uint8), np.full((40, 40, 3), 80, np.uint8)
    assert cuts([dark, dark, light, light], threshold) == found


def test_a_thumbnail_is_the_mean_of_what_it_stands_for():
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:2, :4] = 200
    assert thumbnail(frame).shape == (64, 64, 3)
    assert thumbnail(frame)[0, 0].tolist() == [200] * 3
    assert thumbnail(frame)[1:].max() == 0
