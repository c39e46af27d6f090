"""Whether the person does what the driving poses ask for: keypoints found in generated frames against those fed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from stableanimator_jax.data.keypoints import POINTS, Keypoints
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.protocol import Protocol
from stableanimator_jax.perception.people import People
from stableanimator_jax.perception.person_choice import largest

PARTS = {"body": slice(0, 18), "hands": slice(92, 134), "face": slice(24, 92)}
"""Rows of the keypoints."""
_NECK, _HIPS = 1, (8, 11)


class PoseError(NamedTuple):
    """Of one video, frame by frame; NaN where there is nothing to compare."""

    distance: dict[str, Float[np.ndarray, "f"]]
    """By part: mean distance of keypoints that both show, over the diagonal of the driving person's box."""
    pck: Float[np.ndarray, "f"]
    """Share of the driving person's body keypoints that are found within a tenth of the torso."""
    missed: Float[np.ndarray, "f"]
    """Share of the driving person's keypoints that are not found."""


def pose_error(people: Sequence[People], size: tuple[int, int], driving: Keypoints, protocol: Protocol) -> PoseError:
    """Hold the largest person of each generated frame against the driving poses.

    Args:
        people: who is in each frame, in its pixels.
        size: width and height of those frames.
        driving: the poses as they were fed; they are scaled to `size`.
        protocol: says which keypoints count as seen.

    Raises:
        InputError: other numbers of frames.
    """
    if len(people) != len(driving.points):
        raise InputError(f"the video has {len(people)} frames, its driving poses {len(driving.points)}")
    scale = np.array([size[0] / driving.width, size[1] / driving.height])
    distance = {part: [] for part in PARTS}
    pck, missed = [], []
    for found, points, scores in zip(people, driving.points * scale, driving.scores, strict=True):
        asked = scores > protocol.least_confidence
        ours, our_scores = _person(found)
        seen = asked & (our_scores > protocol.least_confidence)
        apart = np.linalg.norm(ours - points, axis=-1)
        diagonal = float(np.linalg.norm(np.ptp(points[asked], axis=0))) if asked.any() else 0.0
        for part, rows in PARTS.items():
            distance[part].append(
                apart[rows][seen[rows]].mean() / diagonal if diagonal and seen[rows].any() else np.nan
            )
        pck.append(_pck(apart, seen, points, asked, protocol.pck))
        missed.append(1 - seen.sum() / asked.sum() if asked.any() else np.nan)
    return PoseError({p: np.array(d, np.float64) for p, d in distance.items()}, np.array(pck), np.array(missed))


def _person(people: People) -> tuple[Float32[np.ndarray, "134 2"], Float32[np.ndarray, "134"]]:
    if not len(people.boxes):
        return np.zeros((POINTS, 2), np.float32), np.zeros(POINTS, np.float32)
    i = largest(people.boxes)
    return people.keypoints[i], people.scores[i]


def _pck(
    apart: Float[np.ndarray, "134"],
    seen: Bool[np.ndarray, "134"],
    points: Float[np.ndarray, "134 2"],
    asked: Bool[np.ndarray, "134"],
    share: float,
) -> float:
    """NaN where the driving person shows no torso, from the neck to the middle of the hips."""
    if not asked[[_NECK, *_HIPS]].all():
        return float("nan")
    torso = float(np.linalg.norm(points[_NECK] - points[list(_HIPS)].mean(axis=0)))
    body = PARTS["body"]
    right = seen[body] & (apart[body] <= share * torso)
    return float(right.sum() / asked[body].sum())
