"""Which clips are fit for training: each check with its measure, its limit and its reason."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from stableanimator_jax.data.keypoints import LEAST_SCORE
from stableanimator_jax.limits import Between, check_limits
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.scenes import THUMBNAIL
from stableanimator_jax.perception.skeleton import BODY
from stableanimator_jax.perception.tracking import Track

TOO_SHORT = "too short"
NO_PERSON = "no person"
NO_FACE = "no face"
SEVERAL_PEOPLE = "several people"
LITTLE_MOTION = "too little motion"
BLURRED = "blurred"
MOVING_BACKGROUND = "moving background"
REASONS = (TOO_SHORT, NO_PERSON, NO_FACE, SEVERAL_PEOPLE, LITTLE_MOTION, BLURRED, MOVING_BACKGROUND)

_LEAST_BACKGROUND = 0.05  # of the frame: less says nothing about the rest


@dataclass(frozen=True)
class FilterConfig:
    """Limits of the quality filters; a clip that fails any is left out, and all its reasons are reported."""

    person: Annotated[float, Between(0, 1)] = 0.9
    """Least share of frames in which the person is found, or is filled in over a short gap. 0 turns this off."""
    face: Annotated[float, Between(0, 1)] = 0.5
    """Least share of frames with a face."""
    others: Annotated[float, Between(0, 1)] = 0.1
    """Most share of frames with more than one person or face. 1 turns this off."""
    motion: Annotated[float, Between(0, 10)] = 0.01
    """Least motion: how far body joints stray from their mean place (root mean square), as a share of the person's
    height. 0 turns this off."""
    sharpness: Annotated[float, Between(0, 1_000_000)] = 15.0
    """Least sharpness: the variance of the Laplacian of the luma (grey levels squared) of the clip's median frame, at
    the bucket's size. 0 turns this off."""
    background: Annotated[float, Between(0, 255)] = 8.0
    """Most change of the background: mean difference (grey levels of 255) to the clip's middle frame, of the small
    image outside of all people, of the median frame. 255 turns this off."""

    def __post_init__(self):
        check_limits(self, "filters")


@dataclass(frozen=True)
class Measures:
    """What a clip is judged by; None where it could not be measured, and so is not judged."""

    person: float | None
    face: float
    others: float
    motion: float | None
    sharpness: float
    background: float | None


def judge(measures: Measures, config: FilterConfig) -> list[str]:
    """Why a clip is not fit for training, out of `REASONS`; empty where it is."""
    reasons = []
    if measures.person is not None and measures.person < config.person:
        reasons.append(NO_PERSON)
    if measures.face < config.face:
        reasons.append(NO_FACE)
    if measures.others > config.others:
        reasons.append(SEVERAL_PEOPLE)
    # How a person moves who is not there says nothing.
    if measures.motion is not None and measures.motion < config.motion and NO_PERSON not in reasons:
        reasons.append(LITTLE_MOTION)
    if measures.sharpness < config.sharpness:
        reasons.append(BLURRED)
    if measures.background is not None and measures.background > config.background:
        reasons.append(MOVING_BACKGROUND)
    return reasons


def measure(
    *,
    track: Track | None,
    faces: Int[np.ndarray, " f"],
    sharpness: Float[np.ndarray, " f"],
    smalls: UInt8[np.ndarray, "f 64 64 3"],
    people: Bool[np.ndarray, "f 64 64"] | None,
) -> Measures:
    """Measure a clip.

    Args:
        track: the person who is followed; None where skeletons were given as pictures.
        faces: how many there are in each frame.
        sharpness: of each frame, by `frame_sharpness`.
        smalls: each frame as `scenes.thumbnail` gives it.
        people: where people are in these small images; None where it is not known.
    """
    several = faces > 1
    if track is not None:
        several = several | (track.others > 0)
    return Measures(
        person=None if track is None else float((track.found | track.interpolated).mean()),
        face=float((faces > 0).mean()),
        others=float(several.mean()),
        motion=None if track is None else _motion(track),
        sharpness=float(np.median(sharpness)),
        background=None if people is None else _background_change(smalls, people),
    )


def frame_sharpness(frame: UInt8[np.ndarray, "h w 3"]) -> float:
    """The variance of the Laplacian of the luma: the more fine detail, the higher."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def people_mask(boxes: Float[np.ndarray, "n 4"], size: tuple[int, int]) -> Bool[np.ndarray, "64 64"]:
    """The small image's pixels inside of boxes, which are grown by a tenth on each side.

    Boxes are left, top, right, bottom in pixels of the frame; `size` is its width and height.
    """
    mask = np.zeros((THUMBNAIL, THUMBNAIL), bool)
    scale = THUMBNAIL / np.array([*size, *size], np.float64)
    for box in boxes:
        margin = 0.1 * np.concatenate([box[:2] - box[2:], box[2:] - box[:2]])
        left, top, right, bottom = (box + margin) * scale
        columns = slice(max(0, int(np.floor(left))), max(0, int(np.ceil(right))))
        mask[max(0, int(np.floor(top))) : max(0, int(np.ceil(bottom))), columns] = True
    return mask


def _motion(track: Track) -> float:
    """Root mean square distance of body joints from their own mean places, over the person's height."""
    seen = track.scores[:, BODY] >= LEAST_SCORE  # [f, 18]
    points = track.points[:, BODY].astype(np.float64)
    count = np.maximum(seen.sum(axis=0), 1)[:, None]
    mean = (points * seen[..., None]).sum(axis=0) / count
    squares = ((points - mean) ** 2).sum(axis=-1)[seen]
    heights = [np.ptp(frame[shown, 1]) for frame, shown in zip(points, seen, strict=True) if shown.any()]
    if not len(squares) or np.median(heights) <= 0:
        return 0.0
    return float(np.sqrt(squares.mean()) / np.median(heights))


def _background_change(smalls: UInt8[np.ndarray, "f 64 64 3"], people: Bool[np.ndarray, "f 64 64"]) -> float | None:
    middle = len(smalls) // 2
    changes = []
    for small, mask in zip(smalls, people, strict=True):
        outside = ~(mask | people[middle])
        if outside.mean() >= _LEAST_BACKGROUND:
            difference = small[outside].astype(np.float32) - smalls[middle][outside].astype(np.float32)
            changes.append(float(np.abs(difference).mean()))
    # The middle frame is compared with itself: it alone is no comparison.
    return float(np.median(changes)) if len(changes) > 1 else None
