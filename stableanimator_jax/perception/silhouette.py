"""About where a person is in a picture, out of their keypoints: limbs as thick as people's are."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from stableanimator_jax.data.keypoints import LEAST_SCORE, Keypoints
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.skeleton import FACE, HANDS, LIMBS

# About what two joints span as shares of a grown person's height: thighs and shanks as Drillis and Contini (1966) have
# them, the others by eye. They tell the height where a part of the person is seen.
_SPANS = (
    (1, 8, 0.30), (1, 11, 0.30), (2, 5, 0.22), (8, 9, 0.245), (11, 12, 0.245), (9, 10, 0.246), (12, 13, 0.246),
    (0, 1, 0.13),
)  # fmt: skip
# Half thicknesses as shares of the height, with clothes on.
_ARM, _LEG, _NECK, _TRUNK, _HEAD, _END = 0.035, 0.055, 0.04, 0.045, 0.075, 0.045
_SHOULDERS, _HIPS = (2, 5), (8, 11)
_ARMS, _LEGS = ((2, 3), (3, 4), (5, 6), (6, 7)), ((8, 9), (9, 10), (11, 12), (12, 13))
_TORSO, _SKULL, _ENDS = [2, 5, 11, 8], [0, 14, 15, 16, 17], (4, 7, 10, 13)
_WHOLE_HEAD = 1.35  # of the distance from its middle to the farthest point of the face that is seen: hair and crown


def body_height(keypoints: Keypoints) -> float:
    """How tall the person would stand, in pixels: the median over the frames that show them; by the longest of what is
    seen in a frame, for what points at the camera looks short.

    Raises:
        ValueError: no frame shows two joints of a bone.
    """
    points, seen = keypoints.points, keypoints.scores >= LEAST_SCORE
    spans = np.stack(
        [
            np.where(seen[:, a] & seen[:, b], np.linalg.norm(points[:, a] - points[:, b], axis=-1) / share, 0)
            for a, b, share in _SPANS
        ]
    ).max(axis=0)
    if not spans.any():
        raise ValueError("no bone of the person is seen")
    return float(np.median(spans[spans > 0]))


def silhouette(
    points: Float[np.ndarray, "134 2"], scores: Float[np.ndarray, "134"], tall: float, width: int, height: int
) -> Bool[np.ndarray, "height width"]:
    """Where the person is, roughly: limbs, trunk, head and hands in usual thickness. Of hips that are not seen, as in a
    portrait, it is supposed that they are below the shoulders.

    Args:
        points: (x, y) in pixels; rows as in `data.keypoints.Keypoints`.
        scores: confidence; what is below 0.3 is left out.
        tall: as `body_height` tells.
        width, height: of the picture.
    """
    canvas = np.zeros((height, width), np.uint8)
    seen = (scores >= LEAST_SCORE) & (np.abs(points) < 1e5).all(axis=-1)  # OpenCV counts in 32 bits
    if seen[list(_SHOULDERS)].all():
        points, seen = points.copy(), seen.copy()
        across = points[_SHOULDERS[1]] - points[_SHOULDERS[0]]
        down = np.array([-across[1], across[0]]) / max(float(np.linalg.norm(across)), 1e-9)
        down = down if down[1] >= 0 else -down
        for shoulder, hip in zip(_SHOULDERS, _HIPS, strict=True):
            if not seen[hip]:
                points[hip], seen[hip] = points[shoulder] + _SPANS[0][2] * tall * down, True

    def thick(pairs: tuple[tuple[int, int], ...], share: float) -> None:
        for a, b in pairs:
            if seen[a] and seen[b]:
                cv2.line(canvas, _pixel(points[a]), _pixel(points[b]), 255, thickness=_wide(2 * share * tall))

    thick(_ARMS, _ARM)
    thick(_LEGS, _LEG)
    thick(((1, 0),), _NECK)
    thick(tuple(limb for limb in LIMBS if 1 in limb and 0 not in limb), _TRUNK)
    _hull(canvas, points[_TORSO][seen[_TORSO]], 2 * _TRUNK * tall)
    for hand in HANDS:
        _hull(canvas, points[hand][seen[hand]], _ARM * tall)
    for end in _ENDS:
        if seen[end]:
            cv2.circle(canvas, _pixel(points[end]), _wide(_END * tall), 255, thickness=-1)
    head = np.concatenate([points[_SKULL][seen[_SKULL]], points[FACE][seen[FACE]]])
    if len(head):
        middle = (head.min(axis=0) + head.max(axis=0)) / 2
        reach = _WHOLE_HEAD * float(np.linalg.norm(head - middle, axis=-1).max())
        cv2.circle(canvas, _pixel(middle), _wide(max(_HEAD * tall, min(reach, 3 * _HEAD * tall))), 255, thickness=-1)
    return canvas > 0


def _hull(canvas: UInt8[np.ndarray, "h w"], points: Float[np.ndarray, "n 2"], thickness: float) -> None:
    if len(points) > 2:
        outline = cv2.convexHull(np.rint(points).astype(np.int32).reshape(-1, 1, 2))
        cv2.fillConvexPoly(canvas, outline, 255)
        cv2.polylines(canvas, [outline], True, 255, thickness=_wide(thickness))


def _pixel(point: Float[np.ndarray, "2"]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _wide(pixels: float) -> int:
    return min(max(1, round(pixels)), 32767)  # OpenCV draws no thicker line
