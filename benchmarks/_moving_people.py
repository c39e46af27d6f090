"""Made-up people who move, as keypoints: one body by the directions of another's bones, seen by another camera."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Complex, Float

from stableanimator_jax.data.keypoints import Keypoints
from stableanimator_jax.perception.skeleton import FACE, HANDS, LIMBS

ADULT = np.array([
    (0, 0.1), (0, 0.2), (-0.1, 0.2), (-0.15, 0.35), (-0.16, 0.5), (0.1, 0.2), (0.15, 0.35), (0.16, 0.5),
    (-0.06, 0.52), (-0.07, 0.75), (-0.07, 1), (0.06, 0.52), (0.07, 0.75), (0.07, 1),
    (-0.02, 0.08), (0.02, 0.08), (-0.05, 0.09), (0.05, 0.09),
]) @ [1, 1j]  # fmt: skip
"""A standing person 1 high in OpenPose's order, x + iy."""
HEAD_AND_SHOULDERS = [0, 1, 2, 5, 14, 15, 16, 17, *range(24, 92)]
CHILD = {"head": 1.6, "neck": 1.3, "trunk": 0.95, "arm": 0.85, "leg": 0.8}
"""Of about 5 years: the lengths of bones over an adult's of the same height, before it is made 1 high again."""
_PARTS = {
    "neck": ((1, 0),), "head": ((0, 14), (0, 15), (14, 16), (15, 17)), "trunk": ((1, 2), (1, 5), (1, 8), (1, 11)),
    "arm": ((2, 3), (3, 4), (5, 6), (6, 7)), "leg": ((8, 9), (9, 10), (11, 12), (12, 13)),
}  # fmt: skip
_ROOTS = ((slice(18, 21), 13, "leg"), (slice(21, 24), 10, "leg"), (FACE, 0, "head"), (HANDS[0], 7, "arm"),
          (HANDS[1], 4, "arm"))  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """What an alignment is given, and what it should make of it."""

    driving: Keypoints
    reference: Keypoints
    truth: Float[np.ndarray, "f 134 2"]
    """The driving person's motion by the reference's body, in pixels of the reference."""
    height: float
    """Of the reference's whole body in pixels."""


def person(
    turns: dict[tuple[int, int], Float[np.ndarray, " f"]], frames: int, sizes: dict[str, float] | None = None
) -> Complex[np.ndarray, "f 134"]:
    """A body 1 high whose bones are turned by so many radians from the standing pose, its ankles' middle at 0."""
    sizes = sizes or dict.fromkeys(_PARTS, 1.0)
    size_of = {bone: sizes[part] for part, bones in _PARTS.items() for bone in bones}
    rest = np.zeros(18, complex)
    moving = np.zeros((frames, 134), complex)
    for bone in LIMBS:
        vector = (ADULT[bone[1]] - ADULT[bone[0]]) * size_of[bone]
        rest[bone[1]] = rest[bone[0]] + vector
        moving[:, bone[1]] = moving[:, bone[0]] + vector * np.exp(1j * turns.get(bone, np.zeros(frames)))
    random = np.random.default_rng(0)
    for hanging, root, part in _ROOTS:
        count = hanging.stop - hanging.start
        around = random.uniform(-0.04, 0.04, (count, 2)) @ [1, 1j] * sizes[part]
        moving[:, hanging] = moving[:, root, None] + around
    moving -= moving[:, [10, 13]].mean(axis=1, keepdims=True)
    return moving / np.ptp(np.imag(rest))


def motion(frames: int, kind: str) -> tuple[dict[tuple[int, int], np.ndarray], Complex[np.ndarray, " f"]]:
    """Turns of the bones, and where the ankles' middle goes, in heights of the body."""
    t = 2 * np.pi * np.arange(frames) / frames
    turns: dict[tuple[int, int], np.ndarray] = {}
    for side, (upper, lower) in enumerate((((2, 3), (3, 4)), ((5, 6), (6, 7)))):
        turns[upper] = (1 - 2 * side) * (0.6 + 0.6 * np.sin(3 * t))
        turns[lower] = turns[upper] + 0.5 * np.sin(5 * t + side)
    path = np.zeros(frames, complex)
    if kind != "arms":
        path = 0.4 * np.sin(t) + 0j
    if kind in ("walk", "crouch"):
        for side, (thigh, shank) in enumerate((((8, 9), (9, 10)), ((11, 12), (12, 13)))):
            turns[thigh] = 0.35 * np.sin(6 * t + np.pi * side)
            turns[shank] = 0.35 * np.sin(6 * t + np.pi * side - 0.6)
    if kind == "crouch":  # for a third of the time, on bent legs
        low = (np.arange(frames) % 12 < 4) * 1.0
        for side, (thigh, shank) in enumerate((((8, 9), (9, 10)), ((11, 12), (12, 13)))):
            turns[thigh] = turns[thigh] + (1 - 2 * side) * 0.9 * low
            turns[shank] = turns[shank] - (1 - 2 * side) * 0.9 * low
    sway = 0.06 * np.sin(2 * t)
    for bone in ((1, 8), (1, 11), (1, 0), *_PARTS["head"]):
        turns[bone] = sway
    return turns, path


def moving_pair(
    *,
    kind: str = "walk",
    frames: int = 48,
    scale: float = 1.4,
    roll: float = 0.0,
    offset: complex = 0,
    size: tuple[int, int] = (1280, 720),
    reference_size: tuple[int, int] = (512, 512),
    sizes: dict[str, float] | None = None,
    noise: float = 0.0,
    pose: float = 0.0,
    seed: int = 0,
) -> Pair:
    """An adult's motion and a standing reference.

    Args:
        kind: "arms" only, "glide" to and fro on stiff legs, "walk", or "crouch" on the way.
        frames: of the motion.
        scale: pixels of the reference for one of the driving video.
        roll: of the driving camera in degrees.
        offset: of the driving person, in heights of their body.
        size, reference_size: of driving frames and reference, (width, height).
        sizes: the reference's proportions; an adult's by default.
        noise: of every keypoint, in heights of the body (standard deviation).
        pose: by how many radians the reference's bones are turned from standing (standard deviation).
        seed: of noise and pose.
    """
    random = np.random.default_rng(seed)
    height = 0.75 * reference_size[1]
    turns, path = motion(frames, kind)
    feet = complex(0.55 * reference_size[0], 0.9 * reference_size[1])
    own = {bone: random.normal(0, pose, 1) for bone in LIMBS if bone not in _PARTS["head"]}
    standing = person(own, 1, sizes) * height + feet
    truth = (person(turns, frames, sizes) + path[:, None]) * height + feet
    adult = (person(turns, frames) + path[:, None]) * height
    seen = adult / scale * np.exp(-1j * np.radians(roll))
    seen += complex(0.5 * size[0], 0.9 * size[1]) + offset * height / scale

    def noisy(points: np.ndarray, height: float) -> np.ndarray:
        return points + random.normal(0, 1, (*points.shape, 2)) @ [1, 1j] * noise * height

    driving = keypoints(noisy(seen, height / scale), size, 25.0)
    return Pair(driving, keypoints(noisy(standing, height), reference_size, None), plane(truth), height)


def keypoints(points: Complex[np.ndarray, "f 134"], size: tuple[int, int], fps: float | None) -> Keypoints:
    return Keypoints(plane(points).astype(np.float32), np.full(points.shape, 0.9, np.float32), *size, fps)


def plane(points: Complex[np.ndarray, "f 134"]) -> Float[np.ndarray, "f 134 2"]:
    return np.stack([np.real(points), np.imag(points)], axis=-1)


def showing(keypoints: Keypoints, rows: list[int]) -> Keypoints:
    """Only these keypoints are seen; the others lie in the corner, as a detector may leave them."""
    kept = np.isin(np.arange(134), rows)
    return replace(
        keypoints,
        points=np.where(kept[:, None], keypoints.points, 0).astype(np.float32),
        scores=np.where(kept, keypoints.scores, 0.05).astype(np.float32),
    )


def with_wild(found: Keypoints, share: float, seed: int = 1) -> Keypoints:
    """So many of the joints, in each frame others, anywhere in twice the frame, with all confidence."""
    random = np.random.default_rng(seed)
    wild = random.uniform(size=found.scores.shape) < share
    anywhere = random.uniform(-0.5, 1.5, found.points.shape) * [found.width, found.height]
    return replace(found, points=np.where(wild[..., None], anywhere, found.points).astype(np.float32))


def turned_round(pair: Pair) -> Pair:
    """The driving person shows their back: what was the right side's is the left's."""
    rows = np.arange(134)
    rows[:18] = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
    driving = replace(pair.driving, points=pair.driving.points[:, rows])
    return replace(pair, driving=driving, truth=pair.truth[:, rows])
