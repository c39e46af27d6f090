"""Which frames of a clip a training step sees: arithmetic and random numbers alone, no files."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from stableanimator_jax.errors import InputError


class ChosenFrames(NamedTuple):
    """Frames of one clip, counted from 0."""

    indices: Int64[np.ndarray, "frames"]
    """The frames to denoise, ascending, no frame twice."""
    reference: int
    """The frame that shows the person; none of `indices`."""


def shortest_length(frames: int) -> int:
    """The fewest frames that a clip must have: one is left over for the reference."""
    return frames + 1


def sample_frames(
    has_face: Bool[np.ndarray, "length"], *, frames: int, stride: int, rng: np.random.Generator, name: str
) -> ChosenFrames:
    """Draw the frames and the reference of one training sample, as the published training does.

    The frames are `stride` apart and begin anywhere. Of a clip too short for that they are spread evenly from its
    first to its last. The reference is any other frame, between them too: one with a face where there is one.

    Args:
        has_face: which of the clip's frames can be the reference; as many as it has frames.
        frames: how many to take.
        stride: from one to the next.
        rng: drawn from at most twice.
        name: of the clip, for the message.

    Raises:
        InputError: the clip is too short.
    """
    length = len(has_face)
    if length < shortest_length(frames):
        raise InputError(
            f"clip {name} has {length} frames, but {frames} and another one for the reference are needed; "
            "leave it out, or prepare the data for as many frames"
        )
    span = (frames - 1) * stride + 1
    if length >= span:
        indices = int(rng.integers(length - span + 1)) + stride * np.arange(frames)
    else:
        indices = np.arange(frames) * (length - 1) // (frames - 1)  # whole numbers: no frame comes twice
    outside = np.ones(length, bool)
    outside[indices] = False
    with_face = outside & has_face
    choices = np.flatnonzero(with_face if with_face.any() else outside)
    return ChosenFrames(indices, int(choices[rng.integers(len(choices))]))
