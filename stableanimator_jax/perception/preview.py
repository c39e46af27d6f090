"""What was found, drawn over where it was found: for people to look at."""

import numpy as np
from jaxtyping import UInt8


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
