"""What was found, drawn over where it was found: for people to look at."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stableanimator_jax.data.video import open_writer


def overlay(frame: UInt8[np.ndarray, "h w 3"], skeleton: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Lay a skeleton, RGB on black, over a frame.

    The skeleton covers as much of the frame as it is bright, so that it is seen over black and over white.

    Raises:
        ValueError: they differ in size.
    """
    if frame.shape != skeleton.shape:
        raise ValueError(f"a skeleton of shape {skeleton.shape} does not fit a frame of shape {frame.shape}")
    opacity = skeleton.max(axis=-1, keepdims=True).astype(np.float32) / 255
    return np.rint(frame * (1 - opacity) + skeleton).astype(np.uint8)


def write_preview(
    path: Path | str,
    driving_frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    driving_skeletons: Iterable[UInt8[np.ndarray, "h w 3"]],
    reference: UInt8[np.ndarray, "h w 3"],
    aligned_skeletons: Iterable[UInt8[np.ndarray, "h w 3"]],
    fps: float,
) -> None:
    """Write what was found over the driving frames, on the left, and what was made of it over the reference.

    The driving side is scaled to the reference's height. One frame of each is held at a time.

    Args:
        path: an MP4, or what else `open_writer` writes.
        driving_frames: 8-bit RGB, of one size.
        driving_skeletons: RGB on black, one for each frame and of its size.
        reference: 8-bit RGB.
        aligned_skeletons: RGB on black, one for each frame, of the reference's size.
        fps: frames a second.

    Raises:
        InputError: as `open_writer`.
        ValueError: there are no frames, their numbers differ, or a skeleton has another size than its picture.
    """
    triples = zip(driving_frames, driving_skeletons, aligned_skeletons, strict=True)
    first = next(triples, None)
    if first is None:
        raise ValueError("there are no frames to preview")
    height = reference.shape[0]
    left_size = max(1, round(first[0].shape[1] * height / first[0].shape[0])), height
    with open_writer(path, left_size[0] + reference.shape[1], height, fps) as video:
        for frame, skeleton, aligned in chain([first], triples):
            left = Image.fromarray(overlay(frame, skeleton)).resize(left_size, Image.Resampling.BICUBIC)
            video.write(np.concatenate([np.asarray(left), overlay(reference, aligned)], axis=1))
