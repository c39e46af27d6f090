"""Small smooth videos that move, and networks of a few lines in place of the published ones."""

import numpy as np

from stableanimator_jax.evaluation.measures import Tools

DIM = 6
BACKGROUND = (150.0, 110.0, 80.0)


def video(seed: int, *, frames: int = 20, height: int = 40, width: int = 32) -> np.ndarray:
    """Three waves, of different colours and speeds, that cross the picture. [f, h, w, 3] in uint8."""
    rng = np.random.default_rng(seed)
    time, y, x = np.ogrid[0:frames, 0:height, 0:width]
    found = np.full((frames, height, width, 3), BACKGROUND)
    for _ in range(3):
        wave = np.sin(0.2 * rng.normal() * x + 0.2 * rng.normal() * y + 0.4 * rng.normal() * time + 6 * rng.random())
        found += wave[..., None] * rng.uniform(-40, 40, 3)
    return np.clip(found.round(), 0, 255).astype(np.uint8)


def noisy(frames: np.ndarray, seed: int) -> np.ndarray:
    levels = frames + np.random.default_rng(seed).normal(0, 4, frames.shape)
    return np.clip(levels.round(), 0, 255).astype(np.uint8)


class MeanColour:
    """A face is seen wherever the picture is not black, and recognised by its mean colour."""

    def embeddings(self, images):
        return [(i.mean(axis=(0, 1)) - BACKGROUND).astype(np.float32) if i.any() else None for i in images]


def networks(**others) -> Tools:
    """Features are colours and their changes; `lpips` is a mean square."""
    projection = np.random.default_rng(0).normal(size=(9, DIM)).astype(np.float32)

    def image(images):
        a = images[:, ::8, ::8].reshape(len(images), -1, 3)
        return np.concatenate([a.mean(1), a.std(1), np.abs(np.diff(a, axis=1)).mean(1)], axis=1) @ projection

    def clip(clips):
        a = clips[:, :, ::8, ::8].reshape(*clips.shape[:2], -1, 3)
        change = np.diff(a, axis=1)
        return np.concatenate([a.mean((1, 2)), a.std((1, 2)), np.abs(change).mean((1, 2))], axis=1) @ projection

    def distance(a, b):
        return np.square(a - b).mean(axis=(1, 2, 3))

    tools = {"inception": image, "i3d": clip, "resnet_3d": clip, "recogniser": MeanColour()}
    return Tools(lpips={"vgg": distance, "alex": distance}, **(tools | others))
