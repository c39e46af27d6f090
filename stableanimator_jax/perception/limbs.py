"""A person's bones made as long as another's, in the directions that they had."""

import numpy as np
from jaxtyping import Bool, Complex

from stableanimator_jax.perception.skeleton import FACE, HANDS, LIMBS

# Right and left bones of one length, and the head's, which is one: a side that is not seen is as long as the other.
_ALIKE = (
    ((1, 2), (1, 5)), ((2, 3), (5, 6)), ((3, 4), (6, 7)), ((1, 8), (1, 11)), ((8, 9), (11, 12)), ((9, 10), (12, 13)),
    ((1, 0),), ((0, 14), (0, 15), (14, 16), (15, 17)),
)  # fmt: skip
_NECK, _NOSE, _ANKLES = 1, 0, (10, 13)
# What has no bones of its own is scaled about a joint like the bone that ends there; the nose like the eyes' bones.
_HANGING = (
    (slice(18, 21), 13, (12, 13)), (slice(21, 24), 10, (9, 10)),  # the left and the right foot
    (FACE, _NOSE, (0, 14)), (HANDS[0], 7, (6, 7)), (HANDS[1], 4, (3, 4)),
)  # fmt: skip
_MOST = 2.0  # by how much a bone may grow or shrink: one that points at the camera has no length to compare


def with_lengths_of(
    points: Complex[np.ndarray, "f 134"],
    seen: Bool[np.ndarray, "f 134"],
    reference: Complex[np.ndarray, "134"],
    visible: Bool[np.ndarray, "134"],
) -> Complex[np.ndarray, "f 134"]:
    """Each bone's length times the reference's over the person's own median length; its direction stays.

    Bones hang on each other from the neck outward, as OpenPose's tree has them. Face, hands and feet are scaled about
    nose, wrists and ankles, like the head, the forearms and the shanks. A bone that either does not show keeps its
    length, and is shifted with the joint that it hangs on. Where ankles are seen, the middle between them stays where
    it was in every frame, so that feet keep to the ground; else the neck does.

    Args:
        points: the person to be changed, x + iy in pixels, about as large as the reference.
        seen: which of them are to be trusted.
        reference: whose lengths are wanted.
        visible: which of them are to be trusted.

    Returns:
        the points of every frame, changed by at most a factor of 2 a bone.
    """
    ratios = _ratios(points, seen, reference, visible)
    shifts = np.zeros_like(points)  # of each joint, by the bones between it and the neck
    for parent, child in LIMBS:
        ratio, usual = ratios[parent, child]
        bone = points[:, child] - points[:, parent]
        bone *= np.minimum(1, _MOST * usual / np.maximum(np.abs(bone), 1e-9))  # a wild joint takes nothing along
        grown = (ratio - 1) * bone
        shifts[:, child] = shifts[:, parent] + np.where(seen[:, parent] & seen[:, child], grown, 0)
    for hanging, root, bone in _HANGING:
        around = points[:, hanging] - points[:, root, None]
        grown = np.where(seen[:, root, None] & seen[:, hanging], (ratios[bone][0] - 1) * around, 0)
        shifts[:, hanging] = shifts[:, root, None] + grown
    standing = np.flatnonzero(seen[:, list(_ANKLES)].all(axis=1))
    if len(standing):
        sunk = shifts[standing][:, list(_ANKLES)].mean(axis=1)
        shifts -= np.interp(np.arange(len(points)), standing, sunk)[:, None]
    return points + shifts


def _ratios(
    points: Complex[np.ndarray, "f 134"],
    seen: Bool[np.ndarray, "f 134"],
    reference: Complex[np.ndarray, "134"],
    visible: Bool[np.ndarray, "134"],
) -> dict[tuple[int, int], tuple[float, float]]:
    """By how much each bone is longer in the reference, and its own length in most frames."""
    ratios = {}
    for alike in _ALIKE:
        bones = [bone for bone in alike if visible[list(bone)].all()]
        known = [bone for bone in alike if seen[:, list(bone)].all(axis=1).any()]
        ratio = 1.0
        if len(alike) > 2:  # the head's bones differ in length, so that the same ones must be compared
            bones = known = [bone for bone in bones if bone in known]
        if bones and known:
            theirs = np.mean([abs(reference[b] - reference[a]) for a, b in bones])
            own = np.mean([_length(points, seen, bone) for bone in known])
            ratio = float(np.clip(theirs / max(own, 1e-9), 1 / _MOST, _MOST))
        ratios |= {bone: (ratio, _length(points, seen, bone)) for bone in alike}
    return ratios


def _length(points: Complex[np.ndarray, "f 134"], seen: Bool[np.ndarray, "f 134"], bone: tuple[int, int]) -> float:
    both = seen[:, list(bone)].all(axis=1)
    first, second = bone
    return float(np.median(np.abs(points[both, second] - points[both, first]))) if both.any() else 0.0
