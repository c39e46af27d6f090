"""Mistakes that a mean hides, planted and found; a video that is merely bad has none."""

import numpy as np
import pytest

from stableanimator_jax.evaluation.faults import suspicions
from tests.scripts.evaluate_script import noisy, video


def early(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames[1:], frames[-1:]])


def late(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames[:1], frames[:1], frames[:-2]])


def astray(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames[:9], frames[11:12], frames[10:]])


def dark(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames[:4], 0 * frames[4:5], frames[5:]])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (np.zeros_like, "frames 0 to 17 are of one colour"),
        (lambda x: x[..., ::-1], "red and blue look swapped"),
        (lambda x: x[:, :, ::-1], "it looks mirrored"),
        (lambda x: x[:, ::-1], "it looks upside down"),
        (lambda x: 255 - x, "it looks inverted"),
        (early, "it looks 1 frame too early"),
        (late, "it looks 2 frames too late"),
        (astray, "it looks like frame 11 of the truth"),
        (dark, "frame 4 is of one colour"),
    ],
)
@pytest.mark.parametrize("seed", [7, 8])
def test_a_fault_is_named(fault, said, seed):
    truth = video(seed)
    found = suspicions(fault(noisy(truth, seed)), truth)
    assert said in "; ".join(found)


@pytest.mark.parametrize("seed", range(6))
def test_noise_and_another_persons_video_are_no_fault(seed):
    truth = video(seed)
    assert not suspicions(truth, truth)
    assert not suspicions(noisy(truth, seed), truth)
    assert not suspicions(noisy(noisy(noisy(truth, 1), 2), 3), truth)


def test_without_a_truth_only_the_frames_speak():
    assert not suspicions(video(0), None)
    assert suspicions(np.full((3, 8, 8, 3), 7, np.uint8), None) == ["frames 0 to 2 are of one colour"]
    assert not suspicions(video(0), video(0)[:-1])  # which is an error elsewhere
