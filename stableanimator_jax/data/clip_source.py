"""What the loader reads training videos from: the interface of every kind of data set."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from stableanimator_jax.data.clips import PIXELS_PER_LATENT, Clips, Moments, Pixels


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

    def read(self, indices: Sequence[int], *, mirrored: bool = False) -> Clips[np.ndarray]:
        """Read frames as a batch of one row.

        Args:
            indices: from 0, in any order, repeated ones too; the last one is the reference.
            mirrored: exchange left and right.

        Raises:
            InputError: a file cannot be read; names it.
        """
        ...


class PixelClip(ABC):
    """A `Clip` of which any part of any frame can be read by itself."""

    name: str
    length: int
    size: tuple[int, int]
    embeddings: Float32[np.ndarray, "length 512"]
    """Raw ArcFace embeddings, not normalised; zeros in a frame without a face."""

    @abstractmethod
    def read_frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        """RGB. Raises `InputError` where one cannot be read, as the others do."""

    @abstractmethod
    def read_poses(self, indices: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        """Drawn skeletons of the person in the frames, RGB on black."""

    @abstractmethod
    def read_masks(self, indices: Sequence[int]) -> Bool[np.ndarray, "k h w"]:
        """True inside the boxes of the faces; True all over in a frame where no face is known."""

    @property
    def has_face(self) -> Bool[np.ndarray, "length"]:
        return np.asarray(self.embeddings.any(axis=1))

    def read(self, indices: Sequence[int], *, mirrored: bool = False) -> Clips[np.ndarray]:
        frames = self.read_frames(indices)[:, :, :: -1 if mirrored else None]
        return self.read_with(Pixels(frames[None, :-1], frames[None, -1]), indices, mirrored=mirrored)

    def read_with(
        self, images: Pixels[np.ndarray] | Moments[np.ndarray], indices: Sequence[int], *, mirrored: bool = False
    ) -> Clips[np.ndarray]:
        """As `read`, but with these images of the frames."""
        seen = slice(None, None, -1 if mirrored else None)
        poses, masks = (x[None, :-1, :, seen] for x in (self.read_poses(indices), self.read_masks(indices)))
        masks = masks[:, :, ::PIXELS_PER_LATENT, ::PIXELS_PER_LATENT]  # exactly as torch's "nearest" resizes them
        return Clips(images, poses, masks, self.embeddings[None, indices[-1]], names=(self.name,))


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
