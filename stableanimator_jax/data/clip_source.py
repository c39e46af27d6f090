"""What the loader reads training videos from: the interface of every kind of data set."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float32, UInt8


class ClipFrames(NamedTuple):
    """Chosen frames of a clip, all at the size of its bucket."""

    frames: UInt8[np.ndarray, "k h w 3"]
    """RGB, 0 to 255."""
    poses: UInt8[np.ndarray, "k h w 3"]
    """Drawn skeletons of the person in the frames, RGB on black."""
    masks: Bool[np.ndarray, "k h w"]
    """True inside the boxes of the faces; True all over in a frame where no face is known."""
    embeddings: Float32[np.ndarray, "k 512"]
    """Raw ArcFace embeddings, not normalised; zeros in a frame without a face."""


class Clip(Protocol):
    """One video of one person, without cuts."""

    @property
    def name(self) -> str:
        """What to call it in messages; no two clips of a source have the same."""
        ...

    @property
    def length(self) -> int:
        """Number of frames."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its frames in pixels."""
        ...

    @property
    def has_face(self) -> Bool[np.ndarray, "length"]:
        """Which frames have an embedding, and so can be the reference."""
        ...

    def read(self, indices: Sequence[int]) -> ClipFrames:
        """Decode these frames, counted from 0, in this order, repeated ones too.

        Raises:
            InputError: a file cannot be read; names it.
        """
        ...


class ClipSource(Protocol):
    """The clips of one bucket: all of one size. Picklable and cheap to pickle, because it goes to worker processes."""

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def __getitem__(self, index: int, /) -> Clip:
        """The clip at `index`, from 0; reads no frames yet."""
        ...
