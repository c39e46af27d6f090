"""A driving person's keypoints moved to where the reference's person stands, and made as large.

Source: the published code's alignment, but for two things. It takes the aspect of the driving frames from the
reference, which stretches people where the two differ, and it fails where a frame has not exactly one person.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from stableanimator_jax.data.keypoints import LEAST_SCORE, Keypoints
from stableanimator_jax.perception.skeleton import BODY

Align = Literal["linear", "similarity", "limbs", "off"]
"""How a driving person is brought to the reference's: `align` here, or `similarity.align`, without or with the limbs'
lengths, or not at all. docs/alignment.md compares them."""

# Of OpenPose's joints: nose, neck, shoulders, hips, knees, ankles, eyes, ears. Elbows and wrists move too freely.
JOINTS = [0, 1, 2, 5, *range(8, 18)]
LEAST_SPREAD = 0.01  # of the frame's height: what is flatter than this has no size that could be compared

# A standing person with one knee lifted in half of the frames comes to 0.05, and so does one who sits where the
# reference stands.
_MOST_RESIDUAL = 0.05
_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Alignment:
    """Aligned keypoints, and how far they can be trusted."""

    keypoints: Keypoints
    """In pixels of the reference image, whose size they have. A frame without the person stays without."""
    scale: tuple[float, float]
    """(a_x, a_y) of x_ref = a_x x + b_x and y_ref = a_y y + b_y, where 1 is the width or the height of an image."""
    offset: tuple[float, float]
    """(b_x, b_y)."""
    residual: float | None
    """Root mean square of the fit's vertical error as a share of the height of the reference's visible body; None
    where there is nothing to measure."""
    share: float
    """Share of the fit's 14 joints, over all frames with the person, that are seen there and in the reference."""
    poor: str | None
    """One line that says, with numbers, why not to trust the fit; None where it is good."""


def align(driving: Keypoints, reference: Keypoints) -> Alignment:
    """Fit the driving person to the reference's, with one scale and offset for all frames.

    The vertical scale and offset are the least-squares fit of y over the joints that both show, in all frames; the
    horizontal scale is the vertical one with the two images' aspects taken into account, so that nobody is
    stretched, and the horizontal offset is the mean difference.

    Where the joints that both show say nothing about size (one joint, all at one height, or upside down), people
    keep the share of the image's height that they had, and the means of the joints are laid on each other; with no
    such joint, the middle of the image is.

    Args:
        driving: the person who is followed, in every frame.
        reference: the reference's person; one frame.

    Returns:
        the aligned keypoints. `poor` says so where the residual is more than 5 % of the reference person's height,
        fewer than half of the joints were used, or the size could not be fitted.

    Raises:
        ValueError: the reference has not exactly one frame.
    """
    if len(reference.points) != 1:
        raise ValueError(f"the reference has one frame, not {len(reference.points)}")
    size, reference_size = _size(driving), _size(reference)
    points = driving.points / size  # [f, 134, 2]
    target = reference.points[0] / reference_size  # [134, 2]
    present = np.any(driving.scores, axis=1, keepdims=True)  # [f, 1]
    visible = reference.scores[0] >= LEAST_SCORE
    used = np.zeros(driving.scores.shape, bool)
    used[:, JOINTS] = (driving.scores[:, JOINTS] >= LEAST_SCORE) & visible[JOINTS]
    share = float(used.sum() / max(1, present.sum() * len(JOINTS)))

    x, y = points[used].T  # [joints of all frames]
    x_target, y_target = np.broadcast_to(target, points.shape)[used].T
    slope = _slope(y, y_target)
    a_y = 1.0 if slope is None else slope
    a_x = a_y / (_aspect(size) / _aspect(reference_size))
    scale = np.array([a_x, a_y])
    middle, target_middle = np.full(2, 0.5), np.full(2, 0.5)
    if used.any():
        middle, target_middle = np.array([x.mean(), y.mean()]), np.array([x_target.mean(), y_target.mean()])
    offset = target_middle - scale * middle

    residual = None
    height = height_of(target, visible)
    if used.any() and height > LEAST_SPREAD:
        error = a_y * y + offset[1] - y_target
        residual = float(np.sqrt(np.mean(error**2)) / height)
    aligned = np.where(present[:, :, None], (points * scale + offset) * reference_size, 0)
    keypoints = Keypoints(aligned.astype(np.float32), driving.scores, reference.width, reference.height, driving.fps)
    return Alignment(
        keypoints,
        scale=(float(a_x), float(a_y)),
        offset=(float(offset[0]), float(offset[1])),
        residual=residual,
        share=share,
        poor=_complaint(slope, int(used.any(axis=0).sum()), residual, share),
    )


def _complaint(slope: float | None, joints: int, residual: float | None, share: float) -> str | None:
    if joints == 0:
        return (
            "the poses are not aligned to the reference: no joint of head, trunk or legs is seen both there and in"
            " the driving video; people keep their place and their share of the image's height"
        )
    if slope is None:
        return (
            f"the poses' size is not fitted to the reference: the {joints} joints that both show lie at one height or"
            " upside down; people keep their share of the image's height"
        )
    return poor_fit(residual, share)


def poor_fit(residual: float | None, share: float) -> str | None:
    """What makes a fit one not to be trusted, in one line; None where it is good."""
    reasons = []
    if residual is not None and residual > _MOST_RESIDUAL:
        reasons.append(
            f"joints are off by {residual:.1%} of the reference person's height (more than {_MOST_RESIDUAL:.0%})"
        )
    if share < _LEAST_SHARE:
        reasons.append(f"only {share:.0%} of the joints are seen in both (fewer than {_LEAST_SHARE:.0%})")
    if not reasons:
        return None
    return f"the poses fit the reference poorly: {', and '.join(reasons)}"


def _slope(y: Float[np.ndarray, " n"], target: Float[np.ndarray, " n"]) -> float | None:
    """Of the least-squares line; None where it has none that is above 0, or no use."""
    if not len(y) or min(np.ptp(y), np.ptp(target)) < LEAST_SPREAD:
        return None
    centred = y - y.mean()
    slope = float(centred @ (target - target.mean()) / (centred @ centred))
    return slope if slope > 0 else None


def height_of(points: Float[np.ndarray, "134 2"], visible: Bool[np.ndarray, "134"]) -> float:
    """Of the body as far as it is visible."""
    y = points[BODY, 1][visible[BODY]]
    return float(np.ptp(y)) if len(y) else 0.0


def _size(keypoints: Keypoints) -> Float[np.ndarray, " 2"]:
    return np.array([keypoints.width, keypoints.height], np.float64)


def _aspect(size: Float[np.ndarray, " 2"]) -> float:
    return float(size[1] / size[0])
