"""DWPose's skeleton drawing, pixel by pixel as in the images that PoseNet was trained on.

A skeleton is drawn large (the short side 2160 pixels), with lines and discs of fixed width, then shrunk: so the
lines of a small image are thin and faint, and drawing at the final size would look different to the model.
"""

import colorsys
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from stableanimator_jax.data.keypoints import LEAST_SCORE
from stableanimator_jax.errors import InputError
from stableanimator_jax.opencv import cv2

BODY = slice(0, 18)
FACE = slice(24, 92)  # 18 to 23 are the feet, which are not drawn
HANDS = (slice(92, 113), slice(113, 134))

_CANVAS_SIDE = 2160
_LIMB_HALF_WIDTH = 4
_JOINT_RADIUS = 4
_FACE_RADIUS = 3
_FACE_BRIGHTNESS = {"full": 1.0, "faint": 0.3, "off": 0.0}
_DIM_LIMBS = (np.arange(256) * 0.6).astype(np.uint8)

# OpenPose's 18 joints: nose, neck, right shoulder, elbow, wrist, left ones, right hip, knee, ankle, left ones,
# right and left eye, right and left ear.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
_HAND_EDGES = tuple((0 if i % 4 == 0 else i, i + 1) for i in range(20))

# The RGB colour wheel in 18 steps of 20 degrees as OpenPose rounds it: one a joint, and one a limb by its place.
_BODY_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
_HAND_COLOURS = tuple(colorsys.hsv_to_rgb(i / 20, 1.0, 1.0) for i in range(20))


@dataclass(frozen=True)
class SkeletonStyle:
    """What of a person a skeleton shows (docs/control.md)."""

    face_keypoints: Literal["full", "faint", "off"] = "full"
    """The face's 68 points, where skeletons are drawn here, out of a driving video or keypoints: as DWPose draws them;
    faint, of 0.3 of the brightness, by which they tell less of whose face drives; or left out."""
    hands: Literal["on", "off"] = "on"
    """The hands' 42 points and the lines between them, where skeletons are drawn here: off leaves them out."""

    def __post_init__(self):
        for name, choices in (("face_keypoints", tuple(_FACE_BRIGHTNESS)), ("hands", ("on", "off"))):
            if (value := getattr(self, name)) not in choices:
                raise InputError(f"{name.replace('_', '-')} must be one of {', '.join(choices)}, got {value!r}")


DWPOSE_STYLE = SkeletonStyle()


def draw_skeletons(
    keypoints: Float[np.ndarray, "people 134 2"],
    scores: Float[np.ndarray, "people 134"],
    height: int,
    width: int,
    style: SkeletonStyle = DWPOSE_STYLE,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw people in DWPose's style (RGB on black).

    Args:
        keypoints: (x, y) as shares of the width and the height; points outside [0, 1] are clipped away by the
            canvas. Rows: 18 body joints in OpenPose's order, 6 of the feet, 68 of the face, 21 of each hand.
        scores: confidence in [0, 1], which is also the brightness. Body joints under 0.3 are left out, with
            their limbs; of the face and the hands everything is drawn that lies right of and below pixel 0.
        height: of the image in pixels.
        width: of the image in pixels.
        style: what is left out, or drawn otherwise than DWPose does.
    """
    ratio = _CANVAS_SIDE / min(height, width)
    canvas_height, canvas_width = int(height * ratio), int(width * ratio)
    canvas = np.zeros((canvas_height, canvas_width, 3), np.uint8)
    points = keypoints * np.array([canvas_width, canvas_height], np.float64)

    for limb, colour in zip(LIMBS, _BODY_COLOURS, strict=False):  # 17 limbs, 18 joints
        for xy, s in zip(points, scores, strict=True):
            _draw_limb(canvas, xy[list(limb)], s[list(limb)], colour)
    canvas = cv2.LUT(canvas, _DIM_LIMBS)  # so that joints stand out
    for joint, colour in enumerate(_BODY_COLOURS):
        for xy, s in zip(points[:, joint], scores[:, joint], strict=True):
            if s >= LEAST_SCORE:
                cv2.circle(canvas, _pixel(xy), _JOINT_RADIUS, [int(c * s) for c in colour], thickness=-1)
    for xy, s in zip(points, scores, strict=True):
        for hand in HANDS if style.hands == "on" else ():
            _draw_hand(canvas, xy[hand], s[hand])
    brightness = 255 * _FACE_BRIGHTNESS[style.face_keypoints]
    for xy, s in zip(points, scores, strict=True):
        for point, score in zip(xy[FACE], s[FACE], strict=True) if brightness else ():
            if min(_pixel(point)) > 0:
                cv2.circle(canvas, _pixel(point), _FACE_RADIUS, [int(brightness * score)] * 3, thickness=-1)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _draw_limb(canvas: np.ndarray, xy: np.ndarray, scores: np.ndarray, colour: tuple[int, ...]) -> None:
    if scores.min() < LEAST_SCORE:
        return
    (dx, dy), (x, y) = xy[0] - xy[1], xy.mean(axis=0)
    angle = math.degrees(math.atan2(dy, dx))
    axes = (int(math.hypot(dx, dy) / 2), _LIMB_HALF_WIDTH)
    outline = cv2.ellipse2Poly((int(x), int(y)), axes, int(angle), 0, 360, 1)
    cv2.fillConvexPoly(canvas, np.asarray(outline), [int(c * scores[0] * scores[1]) for c in colour])


def _draw_hand(canvas: np.ndarray, xy: np.ndarray, scores: np.ndarray) -> None:
    pixels = [_pixel(point) for point in xy]
    for (a, b), colour in zip(_HAND_EDGES, _HAND_COLOURS, strict=True):
        if min(*pixels[a], *pixels[b]) > 0:
            brightness = int(scores[a] * scores[b] * 255)
            cv2.line(canvas, pixels[a], pixels[b], [c * brightness for c in colour], thickness=2)
    for pixel, score in zip(pixels, scores, strict=True):
        if min(pixel) > 0:
            cv2.circle(canvas, pixel, _JOINT_RADIUS, (0, 0, int(255 * score)), thickness=-1)


def _pixel(xy: np.ndarray) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])
