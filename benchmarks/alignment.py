"""How near the ways of aligning a driving person come to the truth, on made-up people who move.

    python -m benchmarks.alignment

Prints docs/alignment.md's tables: the mean distance of the body's joints that both show, over all frames, from the
reference's body doing the same motion, in % of its height; first of the ways that `--align` has, then of estimators of
the similarity that were tried.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks._device import processor, versions
from benchmarks._moving_people import CHILD, HEAD_AND_SHOULDERS, Pair, moving_pair, showing, turned_round, with_wild
from stableanimator_jax.data.keypoints import LEAST_SCORE, Keypoints
from stableanimator_jax.perception import alignment as linear
from stableanimator_jax.perception import similarity
from stableanimator_jax.perception.alignment import JOINTS

SEEDS = 4
WALL = (1280, 720)  # of the driving frames; the reference's are 512x512
UPPER = [*range(8), 8, 11, *range(14, 18), *range(24, 134)]


def cases() -> dict[str, Callable[[int], Pair]]:
    """Pairs by what is changed, each made from a seed."""

    def case(**what: Any) -> Callable[[int], Pair]:
        what.setdefault("noise", 0.005)
        return lambda seed: moving_pair(seed=seed, **what)

    def partly(of: str, rows: list[int]) -> Callable[[int], Pair]:
        def make(seed: int) -> Pair:
            pair = moving_pair(seed=seed, noise=0.005)
            return replace(pair, **{of: showing(getattr(pair, of), rows)})

        return make

    def wild(seed: int) -> Pair:
        pair = moving_pair(seed=seed, noise=0.005)
        return replace(pair, driving=with_wild(pair.driving, 0.1, seed))

    return {
        "arms only, exact": case(kind="arms", noise=0.0),
        "arms only": case(kind="arms"),
        "walk to and fro": case(),
        "walk, crouching a third of the time": case(kind="crouch"),
        "scale 0.4": case(scale=0.4),
        "scale 2.5": case(scale=2.5),
        "driver at the side, 1.5 heights off": case(offset=1.5 + 0.2j),
        "576x1024 driven by 1280x720": case(reference_size=(576, 1024)),
        "camera rolled by 5°": case(roll=5.0),
        "camera rolled by 15°": case(roll=15.0),
        "camera rolled by 30°": case(roll=-30.0),
        "reference in another pose (bones ±6°)": case(pose=0.1),
        "the same, arms only": case(pose=0.1, kind="arms"),
        "reference down to the hips": partly("reference", UPPER),
        "reference head and shoulders": partly("reference", HEAD_AND_SHOULDERS),
        "driver down to the hips": partly("driving", UPPER),
        "driver head and shoulders": partly("driving", HEAD_AND_SHOULDERS),
        "10 % of the joints wild": wild,
        "driver seen from behind": lambda seed: turned_round(moving_pair(seed=seed, noise=0.005)),
        "child driven by an adult": case(sizes=CHILD),
        "child, arms only": case(sizes=CHILD, kind="arms"),
        "child, head and shoulders": lambda seed: _cut(moving_pair(seed=seed, noise=0.005, sizes=CHILD)),
        "child, crouching": case(sizes=CHILD, kind="crouch"),
        "child, rolled by 15°": case(sizes=CHILD, roll=15.0),
    }


def _cut(pair: Pair) -> Pair:
    return replace(pair, reference=showing(pair.reference, HEAD_AND_SHOULDERS))


METHODS: dict[str, Callable[[Keypoints, Keypoints], Keypoints]] = {
    "linear": lambda driving, reference: linear.align(driving, reference).keypoints,
    "similarity": lambda driving, reference: similarity.align(driving, reference).keypoints,
    "limbs": lambda driving, reference: similarity.align(driving, reference, limbs=True).keypoints,
}


def pooled(points: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> tuple[complex, complex]:
    """All frames' joints against the reference's, in one least squares."""
    frames = len(points)
    return similarity.weighted_similarity(points.ravel(), np.tile(targets, frames), weights.ravel())


def means(points: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> tuple[complex, complex]:
    """Least squares of each joint's mean over the frames."""
    return similarity.weighted_similarity(np.average(points, axis=0, weights=weights), targets, weights.sum(axis=0))


def trunk(points: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> tuple[complex, complex]:
    """Scale and roll by the medians of the line from the hips' middle to the shoulders', or else from neck to nose."""
    del weights

    def axis(joints: np.ndarray) -> np.ndarray:
        where = {joint: i for i, joint in enumerate(JOINTS)}
        right, left, hips = where[2], where[5], (where[8], where[11])
        return (joints[..., right] + joints[..., left] - joints[..., hips[0]] - joints[..., hips[1]]) / 2

    axes, target = axis(points), axis(targets)
    scale = abs(target) / np.median(np.abs(axes))
    a = complex(scale * np.exp(1j * (np.angle(target) - np.median(np.angle(axes)))))
    return a, _median(targets - a * points)


def _median(points: np.ndarray) -> complex:
    return complex(np.median(np.real(points)), np.median(np.imag(points)))


def estimated(estimator: Callable[..., tuple[complex, complex]]) -> Callable[[Keypoints, Keypoints], Keypoints]:
    def align(driving: Keypoints, reference: Keypoints) -> Keypoints:
        points = driving.points @ np.array([1, 1j])
        targets = (reference.points[0] @ np.array([1, 1j]))[JOINTS]
        a, b = estimator(points[:, JOINTS], driving.scores[:, JOINTS].astype(float), targets)
        moved = a * points + b
        return replace(driving, points=np.stack([moved.real, moved.imag], axis=-1).astype(np.float32))

    return align


ESTIMATORS = {
    "all frames pooled": estimated(pooled),
    "joints' means": estimated(means),
    "trunk": estimated(trunk),
    "similarity": METHODS["similarity"],
}
TRIED = [
    "arms only", "walk to and fro", "walk, crouching a third of the time", "camera rolled by 15°",
    "reference in another pose (bones ±6°)", "10 % of the joints wild", "driver seen from behind",
    "child driven by an adult",
]  # fmt: skip


def error(align: Callable[[Keypoints, Keypoints], Keypoints], make: Callable[[int], Pair]) -> float:
    """Over the joints that both show, without those that were made wild; in % of the reference's height."""
    errors = []
    for seed in range(SEEDS):
        pair = make(seed)
        placed = align(pair.driving, pair.reference).points[:, :18]
        off = np.linalg.norm(placed - pair.truth[:, :18], axis=-1) / pair.height
        seen = np.minimum(pair.driving.scores, pair.reference.scores)[:, :18] >= LEAST_SCORE
        if make is WILD:
            seen &= _kept(seed)[:, :18]
        errors.append(off[seen].mean())
    return 100 * float(np.mean(errors))


def _kept(seed: int) -> np.ndarray:
    pair = moving_pair(seed=seed, noise=0.005)
    return (pair.driving.points == with_wild(pair.driving, 0.1, seed).points).all(axis=-1)


CASES = cases()
WILD = CASES["10 % of the joints wild"]


def table(methods: dict[str, Callable[[Keypoints, Keypoints], Keypoints]], names: list[str]) -> str:
    rows = [f"| pair | {' | '.join(methods)} |", f"|---|{'---|' * len(methods)}"]
    for name in names:
        errors = [error(align, CASES[name]) for align in methods.values()]
        rows.append(f"| {name} | {' | '.join(f'{e:.2f}' for e in errors)} |")
    return "\n".join(rows)


def main() -> None:
    print(f"{processor()}; {versions('numpy')}\n")
    print(table(METHODS, list(CASES)))
    print("\n" + table(ESTIMATORS, TRIED))


if __name__ == "__main__":
    main()
