"""Which of several people is meant: what a user may say, who that is among boxes, and whose a face is."""

import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from stableanimator_jax.data.face_track import Face
from stableanimator_jax.data.keypoints import LEAST_SCORE
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.boxes import areas, centres
from stableanimator_jax.perception.face_points import track_from_keypoints

PersonChoice = Literal["largest", "left", "right", "centre"] | int | tuple[float, float]
"""By size or place; by number, counted from the left, the leftmost 1; or by a point, x and y in pixels."""

HOW_TO_CHOOSE = "largest, left, right, centre, a number (1 is the leftmost) or a point X,Y in pixels"

_HEAD_MARGIN = 0.5  # of the head's size: the detectors of faces and of keypoints do not agree exactly


def parse_choice(text: str, flag: str) -> PersonChoice:
    """What a flag's text means.

    Raises:
        InputError: it means nobody; `flag` is named.
    """
    if text in ("largest", "left", "right", "centre"):
        return text
    parts = text.split(",")
    try:
        if len(parts) == 1 and int(text) >= 1:
            return int(text)
        if len(parts) == 2 and np.isfinite(point := (float(parts[0]), float(parts[1]))).all() and min(point) >= 0:
            return point
    except ValueError:
        pass
    raise InputError(f"{flag} must be {HOW_TO_CHOOSE}, got {text}")


def check_choice(choice: PersonChoice, people: int, size: tuple[int, int], where: str, flag: str) -> None:
    """Check that somebody can be meant.

    Args:
        choice: whom.
        people: how many are seen.
        size: width and height of the image, in pixels.
        where, flag: name the image and the flag in errors.

    Raises:
        InputError: there are fewer people, or the point lies outside of the image.
    """
    if isinstance(choice, int) and choice > people:
        seen = "only one person is" if people == 1 else f"only {people} people are"
        raise InputError(f"{flag} {choice}: {seen} seen in {where}")
    if isinstance(choice, tuple) and (choice[0] > size[0] or choice[1] > size[1]):
        x, y = choice
        raise InputError(f"{flag} {x:g},{y:g} lies outside of {where}, which has {size[0]}x{size[1]} pixels")


def pick(choice: PersonChoice, boxes: Float[np.ndarray, "n 4"], width: int) -> int:
    """The index of the one who is meant among the boxes of people, or of faces.

    By a point it is the one around it, or else nearest to it; by a number beyond the last it is the rightmost.

    Args:
        choice: whom.
        boxes: one or more.
        width: of the image, for its middle from side to side.
    """
    x = centres(boxes)[:, 0]
    if isinstance(choice, tuple):
        point = np.array(choice)
        outside = np.maximum(np.maximum(boxes[:, :2] - point, point - boxes[:, 2:]), 0)
        away, off_centre = np.linalg.norm(outside, axis=1), np.linalg.norm(centres(boxes) - point, axis=1)
        return int(np.lexsort([off_centre, away])[0])
    if isinstance(choice, int):
        return int(np.argsort(x, kind="stable")[min(choice, len(x)) - 1])
    measure = {"largest": areas(boxes), "left": -x, "right": x, "centre": -np.abs(x - width / 2)}[choice]
    return int(np.argmax(measure))


def choose(
    choice: PersonChoice | None, boxes: Float[np.ndarray, "n 4"], size: tuple[int, int], where: str, flag: str
) -> int:
    """Pick one of one or more people; where nobody was named, the largest, with a warning that there are several.

    Raises:
        InputError: as `check_choice`.
    """
    check_choice(choice or "largest", len(boxes), size, where, flag)
    index = pick(choice or "largest", boxes, size[0])
    if choice is None and len(boxes) > 1:
        x, y = centres(boxes)[index].round().astype(int).tolist()
        print(
            f"warning: {where} shows {len(boxes)} people; the largest, around {x},{y}, is taken; {flag} chooses: "
            f"{HOW_TO_CHOOSE}",
            file=sys.stderr,
        )
    return index


def largest(boxes: Float[np.ndarray, "n 4"]) -> int:
    """The index of the largest of one or more boxes."""
    return pick("largest", boxes, 0)


def face_of(
    faces: Sequence[Face], points: Float[np.ndarray, "134 2"], scores: Float[np.ndarray, " 134"]
) -> Face | None:
    """The face of a person whose keypoints are known, or None where none of the faces is theirs.

    It is the one nearest to the middle of their head, within half a head around it. Where the keypoints show no face,
    it is the largest whose middle lies in their body.

    Args:
        faces: found in the same image, the largest first.
        points, scores: as `dwpose.People` has them, of one person.
    """
    seen = points[scores >= LEAST_SCORE]
    if not len(seen):
        return None
    head = track_from_keypoints(points[None], scores[None])
    if not head.valid[0]:
        return next(iter(faces_within(faces, seen.min(axis=0), seen.max(axis=0))), None)
    left_top, right_bottom = head.boxes[0, :2], head.boxes[0, 2:]
    middle = (left_top + right_bottom) / 2
    near = faces_within(faces, left_top, right_bottom, margin=_HEAD_MARGIN)
    return min(near, key=lambda face: float(np.linalg.norm(_middle(face) - middle)), default=None)


def faces_within(
    faces: Sequence[Face],
    left_top: Float[np.ndarray, " 2"],
    right_bottom: Float[np.ndarray, " 2"],
    margin: float = 0.1,
) -> list[Face]:
    """The faces whose middles lie in a box that is grown on each side by a share of its size.

    By a tenth for bodies, whose topmost keypoints are the eyes.
    """
    grown = margin * (right_bottom - left_top)
    return [
        f
        for f in faces
        if (abs(_middle(f) - (left_top + right_bottom) / 2) <= (right_bottom - left_top) / 2 + grown).all()
    ]


def _middle(face: Face) -> Float[np.ndarray, " 2"]:
    return centres(face.box[None])[0]
