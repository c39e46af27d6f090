"""A clip source in memory whose pixels say which clip and which frame they are of; for worker processes too."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stableanimator_jax.data.clip_source import PixelClip
from stableanimator_jax.errors import InputError


@dataclass(frozen=True)
class SyntheticClip(PixelClip):
    number: int
    length: int
    size: tuple[int, int]
    finite: bool = True

    @property
    def name(self) -> str:
        return f"{self.size[0]}x{self.size[1]}-{self.number}"

    @property
    def embeddings(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        numbers = np.arange(self.length, dtype=np.float32)
        embeddings = np.where(numbers % 3 == 0, 0, numbers)[:, None] * np.ones(512, np.float32)
        return embeddings if self.finite else np.full_like(embeddings, np.nan)

    def read_frames(self, indices: Sequence[int]) -> np.ndarray:
        width, height = self.size
        frames = np.zeros((len(indices), height, width, 3), np.uint8)
        frames[..., 0], frames[..., 1] = self.number, np.array(indices)[:, None, None]
        frames[..., 2] = np.arange(width)
        return frames

    def read_poses(self, indices: Sequence[int]) -> np.ndarray:
        return 255 - self.read_frames(indices)

    def read_masks(self, indices: Sequence[int]) -> np.ndarray:
        rng = np.random.default_rng(self.number)
        return (rng.random((self.length, *self.size[::-1])) < 0.5)[list(indices)]


@dataclass(frozen=True)
class SyntheticClips:
    count: int
    size: tuple[int, int] = (24, 16)
    length: int = 40
    unreadable: tuple[int, ...] = ()
    """Clips that fail when they are read."""
    not_finite: tuple[int, ...] = ()
    version: int = 0
    """Of what the clips show."""

    @property
    def damaged(self) -> dict[int, str]:
        return {}

    def contents(self) -> dict[str, str]:
        return {str(number): f"{self.length} {self.version}" for number in range(self.count)}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> SyntheticClip:
        if index in self.unreadable:
            raise InputError(f"clip {index} is damaged")
        return SyntheticClip(index, self.length, self.size, index not in self.not_finite)
