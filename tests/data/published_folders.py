"""Folders in the published layout, made small."""

from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def make_folder(folder: Path, frames: int, *, size: tuple[int, int] = (24, 16), first: int = 0, seed: int = 0) -> None:
    """Random images and poses, masks of a box that moves right, embeddings of the frame's number (0: no face)."""
    width, height = size
    rng = np.random.default_rng(seed)
    for i in range(frames):
        name = f"frame_{first + i}.png"
        save(folder / "images" / name, rng.integers(0, 256, (height, width, 3), np.uint8))
        save(folder / "poses" / name, rng.integers(0, 256, (height, width, 3), np.uint8))
        mask = np.zeros((height, width), np.uint8)
        mask[2:9, i : i + 8] = 255
        save(folder / "faces" / name, mask)
    np.save(folder / "embeddings.npy", np.arange(frames, dtype=np.float32)[:, None] * np.ones(512, np.float32))


def image_of(folder: Path, kind: str, number: int) -> np.ndarray:
    return np.asarray(Image.open(folder / kind / f"frame_{number}.png"))
