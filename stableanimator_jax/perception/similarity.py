"""A driving person brought to the reference's by scale, rotation and translation, which wild joints hardly move.

Points of the plane are complex numbers here, x + iy in pixels, so that a similarity is z -> a z + b: |a| scales, the
angle of a turns, and b moves. docs/alignment.md has the formulas and what was measured.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float, Int

from stableanimator_jax.data.keypoints import LEAST_SCORE, Keypoints
from stableanimator_jax.perception import alignment as linear
from stableanimator_jax.perception.alignment import JOINTS, LEAST_SPREAD, height_of, poor_fit
from stableanimator_jax.perception.limbs import with_lengths_of

# The same joints of who turns their back: left and right of the picture are exchanged.
_FROM_BEHIND = [0, 1, 5, 2, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
_LEAST_JOINTS = 3  # two fit any similarity exactly, so nothing tells a good one from a bad one
_MOST_ROLL = math.radians(45)  # of a camera; what turns people further is a handstand or a left taken for a right
# An adult against a child comes to 0.03, bones turned at random by 12 degrees to 0.13; a head and shoulders half as
# wide as the reference's, half turned away, to 0.27, where heights say more.
_MOST_LOSS = 0.2
_ITERATIONS = 10
_MIDDLE_ITERATIONS = 30
_SHARP = 1e-3  # of the frame's height: middles are medians of what differs by more, means of what differs by less


@dataclass(frozen=True)
class SimilarityAlignment:
    """Aligned keypoints, and how far they can be trusted."""

    keypoints: Keypoints
    """In pixels of the reference image, whose size they have. A frame without the person stays without."""
    scale: float
    """Pixels of the reference for one of the driving video."""
    roll: float
    """By how many degrees the person was turned, clockwise as one sees it."""
    offset: tuple[float, float]
    """(x, y) in pixels of the reference: where the driving frames' top left corner comes to lie."""
    residual: float | None
    """Root mean square distance of the joints' middles over all frames from the reference's joints, as a share of the
    height of the reference's visible body; None where there is nothing to measure."""
    share: float
    """Share of the fit's 14 joints, over all frames with the person, that are seen there and in the reference."""
    poor: str | None
    """One line that says, with numbers, why not to trust the fit; None where it is good."""


def align(driving: Keypoints, reference: Keypoints, *, limbs: bool = False) -> SimilarityAlignment:
    """Fit the driving person to the reference's, with one similarity for all frames.

    Each joint's middle over the frames, less the person's own travel, is laid on the reference's joint, by Umeyama's
    closed form (1991) with confidences as weights, in iteratively reweighted least squares with Tukey's biweight. The
    person's median place over the frames, across and down, comes to where the reference stands. Left and right are
    exchanged for the fit where that fits better: of people who turn their back.

    Where fewer than 3 joints are seen in both, or they lie at one place, or no similarity that turns people by less
    than 45 degrees brings them near, people are not turned, and are aligned as by `alignment.align`.

    Args:
        driving: the person who is followed, in every frame.
        reference: the reference's person; one frame.
        limbs: whether bones get the lengths of the reference's; see `limbs.with_lengths_of`.

    Returns:
        the aligned keypoints. `poor` says so where the residual is more than 5 % of the reference person's height,
        fewer than half of the joints were used, or no similarity could be fitted.

    Raises:
        ValueError: the reference has not exactly one frame.
    """
    if len(reference.points) != 1:
        raise ValueError(f"the reference has one frame, not {len(reference.points)}")
    points, target = _complex(driving.points), _complex(reference.points[0])
    present = np.any(driving.scores, axis=1)
    seen, visible = driving.scores >= LEAST_SCORE, reference.scores[0] >= LEAST_SCORE
    matches = [_match(driving, reference, rows) for rows in (JOINTS, _FROM_BEHIND)]
    match = min(matches, key=lambda match: match.loss)
    rows, weights, joints, ends, fitted = match.rows, match.weights, match.joints, match.ends, match.fitted
    if fitted is None:
        return _by_heights(driving, reference, len(rows))
    share = float(np.count_nonzero(weights) / max(1, present.sum() * len(JOINTS)))
    a, b = fitted[0], fitted[1] - _median(fitted[0] * match.places)
    placed = a * points + b
    joints = fitted[0] * joints + fitted[1]
    if limbs:
        placed = with_lengths_of(placed, seen, target, visible)
        joints, places = middles(placed[:, rows], weights, _SHARP * reference.height)
        joints = joints + _median(places)
        moved = middle(ends - joints, match.importance, _SHARP * reference.height)
        placed, joints = placed + moved, joints + moved

    height = height_of(reference.points[0].astype(np.float64) / reference.height, visible)
    residual = None
    if height > LEAST_SPREAD:
        residual = float(np.sqrt(np.mean(np.abs(joints - ends) ** 2)) / reference.height / height)
    aligned = np.where(present[:, None, None], np.stack([np.real(placed), np.imag(placed)], axis=-1), 0)
    return SimilarityAlignment(
        Keypoints(aligned.astype(np.float32), driving.scores, reference.width, reference.height, driving.fps),
        scale=float(abs(a)),
        roll=math.degrees(np.angle(a)),
        offset=(float(np.real(b)), float(np.imag(b))),
        residual=residual,
        share=share,
        poor=poor_fit(residual, share),
    )


def _by_heights(driving: Keypoints, reference: Keypoints, joints: int) -> SimilarityAlignment:
    plain = linear.align(driving, reference)
    poor = plain.poor
    if joints:
        poor = (
            f"the poses' roll is not fitted to the reference: the {joints} joints that both show are fewer than 3, lie "
            "at one place, or match by no turn of up to 45 degrees; people are aligned by their heights"
        ) + (f", and {poor}" if poor else "")
    return SimilarityAlignment(
        plain.keypoints,
        scale=plain.scale[1] * reference.height / driving.height,
        roll=0.0,
        offset=(plain.offset[0] * reference.width, plain.offset[1] * reference.height),
        residual=plain.residual,
        share=plain.share,
        poor=poor,
    )


@dataclass(frozen=True)
class _Match:
    """The driver's joints against the reference's; n that both show."""

    rows: Int[np.ndarray, " n"]
    """Of the driver's keypoints."""
    weights: Float[np.ndarray, "f n"]
    """The driver's confidence, 0 where a joint is not seen."""
    joints: Complex[np.ndarray, " n"]
    places: Complex[np.ndarray, " p"]
    """As `middles` finds them."""
    ends: Complex[np.ndarray, " n"]
    """Where the reference has the joints."""
    importance: Float[np.ndarray, " n"]
    """Both confidences together."""
    fitted: tuple[complex, complex] | None
    """Of `joints` to `ends`."""
    loss: float


def _match(driving: Keypoints, reference: Keypoints, rows: list[int]) -> _Match:
    """The fit of the keypoints in `rows` to `JOINTS` of the reference."""
    found, given = driving.scores[:, rows], reference.scores[0, JOINTS]
    weights = np.where((found >= LEAST_SCORE) & (given >= LEAST_SCORE), found, 0).astype(np.float64)
    common = weights.any(axis=0)
    weights = weights[:, common]
    ends, importance = _complex(reference.points[0, JOINTS])[common], weights.sum(axis=0) * given[common]
    kept = np.array(rows)[common]
    joints, places = middles(_complex(driving.points[:, kept]), weights, _SHARP * driving.height)
    fitted, loss = None, math.inf
    if min(_spread(joints) / driving.height, _spread(ends) / reference.height) >= LEAST_SPREAD:
        fitted, loss = robust_similarity(joints, ends, importance)
    return _Match(kept, weights, joints, places, ends, importance, fitted, loss)


def weighted_similarity(
    points: Complex[np.ndarray, " n"], targets: Complex[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> tuple[complex, complex]:
    """(a, b) of the least squares of a z + b: Umeyama (1991) in the plane, where it needs no singular values.

    Points of weight lie at two places at least.
    """
    total = weights.sum()
    mean, target_mean = weights @ points / total, weights @ targets / total
    centred = points - mean
    a = (weights * centred.conj()) @ (targets - target_mean) / (weights @ np.abs(centred) ** 2)
    return complex(a), complex(target_mean - a * mean)


def robust_similarity(
    points: Complex[np.ndarray, " n"], targets: Complex[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> tuple[tuple[complex, complex] | None, float]:
    """(a, b) of a z + b, and its loss from 0 to 1, by Tukey's biweight.

    The biweight's end, from which on a point has no say, is the targets' mean distance from their middle. Each two
    points give a similarity; the best of them begins, and 10 steps of iteratively reweighted least squares follow. So
    up to about half of the points may be anywhere, and what only stands in another pose keeps some say.

    Returns:
        None and infinity where there are fewer than 3 points, or what turns them by less than 45 degrees has a loss of
        more than 0.2: then too many are too far off.
    """
    if len(points) < _LEAST_JOINTS:
        return None, math.inf
    weights = weights / weights.sum()
    end = np.mean(np.abs(targets - middle(targets, weights, 1e-6 * _spread(targets))))
    first, second = np.triu_indices(len(points), 1)
    apart = np.abs(points[second] - points[first]) > 1e-6 * _spread(points)
    first, second = first[apart], second[apart]
    a = (targets[second] - targets[first]) / (points[second] - points[first])
    b = targets[first] - a * points[first]
    upright = (np.abs(np.angle(a)) <= _MOST_ROLL) & (a != 0)
    if not upright.any():
        return None, math.inf
    a, b = a[upright], b[upright]

    def doubt(a: np.ndarray | complex, b: np.ndarray | complex) -> np.ndarray:
        return np.minimum(np.abs(a * points + b - targets) / end, 1)

    def loss(a: np.ndarray | complex, b: np.ndarray | complex) -> np.ndarray | np.floating:
        return (1 - (1 - doubt(a, b) ** 2) ** 3) @ weights

    best = int(np.argmin(loss(a[:, None], b[:, None])))
    fit = complex(a[best]), complex(b[best])
    for _ in range(_ITERATIONS):
        fit = weighted_similarity(points, targets, weights * (1 - doubt(*fit) ** 2) ** 2)
    lost = float(loss(*fit))
    if abs(np.angle(fit[0])) > _MOST_ROLL or not fit[0] or lost > _MOST_LOSS:
        return None, math.inf
    return fit, lost


def middle(points: Complex[np.ndarray, " n"], weights: Float[np.ndarray, " n"], sharp: float) -> complex:
    """The geometric median by Weiszfeld's iteration, where `sharp` is a distance that does not matter."""
    place = complex(np.average(points, weights=weights))
    for _ in range(_MIDDLE_ITERATIONS):
        place = complex(np.average(points, weights=weights / np.maximum(np.abs(points - place), sharp)))
    return place


def middles(
    points: Complex[np.ndarray, "f n"], weights: Float[np.ndarray, "f n"], sharp: float
) -> tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, " p"]]:
    """Each joint's middle over frames of a person who travels, and where the person is in each frame.

    A joint in a frame is where the person is in that frame, plus where the joint is of the person: the two that leave
    the least sum of distances, by iteratively reweighted means. So joints may be seen in different frames, and a few
    may be wild.

    Args:
        points: in pixels.
        weights: each joint has some in one frame at least.
        sharp: as in `middle`.

    Returns:
        the joints as the person has them, and the places of the frames that show any.
    """
    if not weights.any():
        return np.zeros(points.shape[1], complex), np.zeros(0, complex)
    points, weights = points[weights.any(axis=1)], weights[weights.any(axis=1)]
    places = np.average(points, axis=1, weights=weights)  # [f]
    joints = np.average(points - places[:, None], axis=0, weights=weights)  # [n]
    for _ in range(_MIDDLE_ITERATIONS):
        # Twice, for they depend on each other where a joint is not seen in every frame.
        shares = weights / np.maximum(np.abs(points - places[:, None] - joints), sharp)
        for _ in range(2):
            joints = np.average(points - places[:, None], axis=0, weights=shares)
            places = np.average(points - joints, axis=1, weights=shares)
    return joints, places


def _median(places: Complex[np.ndarray, " n"]) -> complex:
    """Across and down by itself: who walks to and fro and crouches at times stands upright in most frames."""
    return complex(np.median(np.real(places)), np.median(np.imag(places))) if len(places) else 0j


def _spread(points: Complex[np.ndarray, " n"]) -> float:
    """The longer side of the rectangle around them."""
    return float(max(np.ptp(np.real(points)), np.ptp(np.imag(points)))) if len(points) else 0.0


def _complex(points: Float[np.ndarray, "*n 2"]) -> Complex[np.ndarray, "*n"]:
    return points[..., 0].astype(np.float64) + 1j * points[..., 1]
