"""A clip source in memory whose pixels say which clip and which frame they are of; for worker processes too."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stableanimator_jax.data.clip_source import ClipFrames


@dataclass(frozen=True)
class SyntheticClip:
    number: int
    length: int
    size: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.size[0]}x{self.size[1]}-{self.number}"

    @property
    def has_face(self) -> np.ndarray:
        return np.arange(self.length) % 3 != 0

    def read(self, indices: Sequence[int]) -> ClipFrames:
        width, height = self.size
        frames = np.zeros((len(indices), height, width, 3), np.uint8)
        frames[..., 0], frames[..., 1] = self.number, np.array(indices)[:, None, None]
        frames[..., 2] = np.arange(width)
        rng = np.random.default_rng(self.number)
        masks = rng.random((self.length, height, width)) < 0.5
        embeddings = np.arange(self.length, dtype=np.float32)[:, None] * self.has_face[:, None] * np.ones(512)
        return ClipFrames(frames, 255 - frames, masks[list(indices)], embeddings[list(indices)].astype(np.float32))


@dataclass(frozen=True)
class SyntheticClips:
    count: int
    size: tuple[int, int] = (24, 16)
    length: int = 40

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> SyntheticClip:
        return SyntheticClip(index, self.length, self.size)
