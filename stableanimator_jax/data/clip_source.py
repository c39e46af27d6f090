"""What the loader reads training videos from: the interface of every kind of data set."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from stableanimator_jax.data.batches import AnyBatch, Batch, at_latents


@runtime_checkable
class ChosenClip(Protocol):
    """What was read of a clip for one training sample: the frames to denoise and, as the last one, the reference."""

    def batch(self, name: str, *, mirrored: bool) -> AnyBatch:
        """As a batch of one row.

        Args:
            name: of the clip.
            mirrored: exchange left and right.
        """
        ...


class Annotations(NamedTuple):
    """What is known of chosen frames of a clip besides their pixels."""

    poses: UInt8[np.ndarray, "k h w 3"]
    """Drawn skeletons of the person in the frames, RGB on black."""
    masks: Bool[np.ndarray, "k h w"]
    """True inside the boxes of the faces; True all over in a frame where no face is known."""
    embeddings: Float32[np.ndarray, "k 512"]
    """Raw ArcFace embeddings, not normalised; zeros in a frame without a face."""


class ClipFrames(NamedTuple):
    """Chosen frames of a clip, all at the size of its bucket. A `ChosenClip`."""

    frames: UInt8[np.ndarray, "k h w 3"]
    """RGB, 0 to 255."""
    poses: UInt8[np.ndarray, "k h w 3"]
    """This and what follows: as in `Annotations`."""
    masks: Bool[np.ndarray, "k h w"]
    embeddings: Float32[np.ndarray, "k 512"]

    def batch(self, name: str, *, mirrored: bool) -> Batch:
        frames, poses, masks, embeddings = self
        if mirrored:
            frames, poses, masks = (x[:, :, ::-1] for x in (frames, poses, masks))
        return Batch(
            frames[None, :-1],
            poses[None, :-1],
            at_latents(masks)[None, :-1],
            frames[None, -1],
            embeddings[None, -1],
            names=(name,),
        )


@runtime_checkable
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

    def read(self, indices: Sequence[int]) -> ChosenClip:
        """Read these frames, counted from 0, in this order, repeated ones too.

        Raises:
            InputError: a file cannot be read; names it.
        """
        ...


@runtime_checkable
class ClipSource(Protocol):
    """The clips of one bucket: all of one size. Picklable and cheap to pickle, because it goes to worker processes."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of all its clips in pixels."""
        ...

    @property
    def damaged(self) -> Mapping[int, str]:
        """What is wrong with the clips that are known, without reading them, to be damaged, by index."""
        ...

    def __len__(self) -> int:
        """Number of clips, damaged ones too."""
        ...

    def __getitem__(self, index: int, /) -> Clip:
        """The clip at `index`, from 0; reads no frames yet. Raises `InputError` where it is damaged."""
        ...

    def contents(self) -> dict[str, str]:
        """What the clips are made of, in their order: a hash of each part, by a name for people.

        Where it is the same, an index means the same clip. It takes file names, sizes and samples, not all bytes, and
        is the same wherever the files lie.

        Raises:
            InputError: a file cannot be read.
        """
        ...
