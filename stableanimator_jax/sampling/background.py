"""The reference's own background behind the generated person, where a fixed camera shows it."""

from collections.abc import Iterable, Iterator
from itertools import count

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from stableanimator_jax.data.keypoints import Keypoints
from stableanimator_jax.errors import InputError
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.silhouette import body_height, silhouette

WHITE = 128
"""Of 255: what masks have for white; grey edges come of resizing."""
# Shares of the person's height.
_REACH = 0.09  # around the silhouette, in which hair and clothes may be
_SOFT = 0.02  # over which the edge fades
_RIM = 0.008  # around the reference's person, where pixels are half theirs
_DIFFERENT = 30  # of 255, in any channel: what differs so from the background is the person or their shadow


def composite(
    frame: UInt8[np.ndarray, "h w 3"], reference: UInt8[np.ndarray, "h w 3"], kept: Float32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame where `kept` is 1, the reference where it is 0, exactly, and a mixture in between."""
    part = kept[..., None]
    return np.rint(frame * part + reference * (1 - part)).astype(np.uint8)


def keep_background(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    reference: UInt8[np.ndarray, "h w 3"],
    mask: Shaped[np.ndarray, "h w"],
    keypoints: Keypoints,
    *,
    first_frame: int = 0,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Lay generated frames over the reference's background, one by one.

    Generated pixels stay where the person is, and where the reference's person hides the background. The person is
    where their keypoints say, in limbs of usual thickness, and near by where the frame differs from the background; in
    a frame without keypoints they are where the nearest frame's say. The edge fades over 2 % of their height.

    Args:
        frames: 8-bit RGB.
        reference: at the frames' size.
        mask: of the reference's person, at that size: uint8, white (128 and more) or bool.
        keypoints: of the generated person in every frame, in pixels of it; those that the poses were drawn from.
        first_frame: the number of the first of `frames` among the keypoints.

    Raises:
        InputError: a mask without anybody or without background, keypoints without anybody, or sizes that differ.
    """
    person = _checked(reference, mask)
    height, width = person.shape
    if (keypoints.width, keypoints.height) != (width, height):
        raise InputError(
            f"the keypoints are in frames of {keypoints.width}x{keypoints.height} pixels, the reference is "
            f"{width}x{height}"
        )
    try:
        tall = body_height(keypoints)
    except ValueError:
        raise InputError("the keypoints show nobody, so nothing says where the generated person is") from None
    hidden = _grown(person, _RIM * tall)
    smooth = cv2.blur(reference, (3, 3)).astype(np.int16)
    known = np.flatnonzero(keypoints.scores.any(axis=1))

    def kept(frame: UInt8[np.ndarray, "h w 3"], number: int) -> Float32[np.ndarray, "h w"]:
        nearest = known[np.abs(known - number).argmin()]
        body = silhouette(keypoints.points[nearest], keypoints.scores[nearest], tall, width, height)
        differs = np.abs(cv2.blur(frame, (3, 3)).astype(np.int16) - smooth).max(axis=-1) > _DIFFERENT
        there = hidden | body | (_grown(body, _REACH * tall) & differs)
        return _soft(there, max(1.0, _SOFT * tall))

    return (
        composite(_same_size(frame, reference), reference, kept(frame, number))
        for number, frame in zip(count(first_frame), frames, strict=False)
    )


def keep_background_by_masks(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    reference: UInt8[np.ndarray, "h w 3"],
    masks: Iterable[UInt8[np.ndarray, "h w"]],
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Lay generated frames over the reference by masks, one a frame: 255 keeps the frame's pixel, 0 takes the
    reference's, grey mixes them. One frame is held at a time.

    Raises:
        InputError: sizes that differ, said when the frame comes.
    """
    for frame, mask in zip(frames, masks, strict=False):
        if mask.shape != reference.shape[:2]:
            raise InputError(f"a mask is {_size(mask)} pixels, the reference {_size(reference)}")
        yield composite(_same_size(frame, reference), reference, mask.astype(np.float32) / 255)


def _checked(reference: UInt8[np.ndarray, "h w 3"], mask: Shaped[np.ndarray, "h2 w2"]) -> Bool[np.ndarray, "h2 w2"]:
    person = mask if mask.dtype == bool else mask >= WHITE
    if person.shape != reference.shape[:2]:
        raise InputError(f"the mask is {_size(mask)} pixels, the reference {_size(reference)}")
    if not person.any():
        raise InputError("the mask is black all over: the person must be white in it")
    if person.all():
        raise InputError("the mask is white all over: it leaves no background to keep")
    return person


def _same_size(
    frame: UInt8[np.ndarray, "h w 3"], reference: UInt8[np.ndarray, "h2 w2 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    if frame.shape != reference.shape:
        raise InputError(f"a frame is {_size(frame)} pixels, the reference {_size(reference)}")
    return frame


def _size(image: Shaped[np.ndarray, "h w ..."]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _grown(area: Bool[np.ndarray, "h w"], pixels: float) -> Bool[np.ndarray, "h w"]:
    return _distance(area) <= max(1.0, pixels)


def _soft(area: Bool[np.ndarray, "h w"], pixels: float) -> Float32[np.ndarray, "h w"]:
    """1 in it, 0 from so many pixels around it on."""
    return np.clip(1 - _distance(area) / (pixels + 1), 0, 1).astype(np.float32)


def _distance(area: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """To the nearest pixel of an area that is not empty."""
    return cv2.distanceTransform((~area).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float32)
