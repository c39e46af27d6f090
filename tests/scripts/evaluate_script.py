"""What the tests of `evaluate.py` share: small videos, networks of a few lines, and the script."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.evaluation.measures import Tools
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.scripts.evaluate import run
from stableanimator_jax.scripts.evaluate.command import main
from stableanimator_jax.scripts.evaluate.tools import Opened

FRAMES, SIDE = 18, 48


def call(*argv: object) -> int:
    """The script within this process: its exit status."""
    return run_script(main, [str(argument) for argument in argv])


def video(seed: int, frames: int = FRAMES) -> np.ndarray:
    """A disc that crosses a smooth picture. [f, h, w, 3] in uint8."""
    rng = np.random.default_rng(seed)
    time, y, x = np.ogrid[0:frames, 0:SIDE, 0:SIDE]
    walls = np.stack(
        [120 + 60 * np.sin(0.05 * a * x + 0.05 * b * y + c) for a, b, c in rng.normal(size=(3, 3))], axis=-1
    )
    disc = (x - 5 - 2 * time) ** 2 + (y - SIDE // 2 - 5 * rng.normal()) ** 2 < 80
    return np.where(disc[..., None], rng.permutation([230, 120, 30]), walls).astype(np.uint8)


def noisy(frames: np.ndarray, seed: int) -> np.ndarray:
    return np.clip(frames + np.random.default_rng(seed).normal(0, 4, frames.shape), 0, 255).astype(np.uint8)


def save(folder: Path, frames: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame_{i}.png", compress_level=1)
    return folder


def save_all(folder: Path, count: int, *, generated: dict[int, np.ndarray] | None = None) -> tuple[Path, Path]:
    """(generated, truth): videos v0, v1, …; some of the generated ones are given."""
    for i in range(count):
        truth = video(i)
        save(folder / "truth" / f"v{i}", truth)
        save(folder / "generated" / f"v{i}", (generated or {}).get(i, noisy(truth, i)))
    return folder / "generated", folder / "truth"


class _MeanColour:
    """A face is seen wherever the picture is not black, and recognised by its mean colour."""

    def embeddings(self, images):
        return [(i.mean(axis=(0, 1)) - 118).astype(np.float32) if i.any() else None for i in images]


def _image(images: np.ndarray) -> np.ndarray:
    return images[:, ::64, ::64].reshape(len(images), -1)[:, :40]


def _clip(clips: np.ndarray) -> np.ndarray:
    clips = clips[:, :, ::28, ::28]
    return np.concatenate([clips.mean((1, 2, 3)), np.diff(clips, axis=1).std((1, 2, 3)), clips.std((1, 2, 3))], axis=1)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.square(a - b).mean(axis=(1, 2, 3))


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stand-ins for the networks, whatever files are given; the weights that they say they are."""
    weights = {"i3d": "1" * 64, "inception": "2" * 64}

    def opened(files, protocol, batch, conditioning):
        lpips = dict.fromkeys(protocol.lpips, _distance)
        tools = Tools(lpips, _image, _clip, _clip, _MeanColour(), batch=batch, weights=dict(weights))
        return Opened(tools, ["pose errors take DWPose"], [])

    monkeypatch.setattr(run, "open_tools", opened)
    return weights
