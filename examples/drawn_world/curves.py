"""The loss curves of everything that is trained in the drawn world, as one picture."""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from examples.drawn_world.settings import make_folder
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing

_PANELS = (
    ("ArcFace: accuracy, 1000 people", "arcface.progress", "accuracy"),
    ("a second ArcFace", "second_arcface.progress", "accuracy"),
    ("VAE, single frames: PSNR (dB)", "vae.progress/frames", "psnr"),
    ("VAE, chunks of 4: PSNR (dB)", "vae.progress/chunks", "psnr"),
    ("VAE, decoder alone: PSNR (dB)", "vae.progress/decoder", "psnr"),
    ("image encoder: accuracy, 64 people", "image_encoder.progress", "accuracy"),
    ("StableAnimator, first run: loss", "run", "train/loss"),
    ("on from there, full: loss", "runs/full/run", "train/loss"),
    ("without face masks: loss", "runs/no_masks/run", "train/loss"),
    ("without refinement: loss", "runs/no_refinement/run", "train/loss"),
    ("plain addition: loss", "runs/addition/run", "train/loss"),
    ("without ID tokens: loss", "runs/no_id/run", "train/loss"),
    ("fit: validation loss", "fit/run", "validation/loss"),
    ("glasses: accuracy, 32 people", "glasses.progress", "accuracy"),
)


@dataclass(frozen=True)
class CurvesConfig:
    """Where the curves are."""

    world: Path = Path("outputs/drawn_world")
    """The folder that the recipe's parts are in."""
    output: Path = Path("docs/images/drawn_world_curves.png")


def plot_curves(config: CurvesConfig) -> None:
    """Draw what is there. Raises `InputError` where nothing is."""
    panels = [(title, _points(config.world / place / "metrics.jsonl", name)) for title, place, name in _PANELS]
    found = [(title, points) for title, points in panels if len(points)]
    if not found:
        raise InputError(f"there are no curves in {config.world}; give the recipe's folder by --world")
    rows = -(-len(found) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(11, 2.7 * rows), squeeze=False)
    for axis, (title, points) in zip(axes.flat, found, strict=False):
        axis.plot(points[:, 0], points[:, 1], linewidth=0.8)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    figure.tight_layout()
    make_folder(config.output.parent)
    with replacing(config.output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def _points(file: Path, name: str) -> np.ndarray:
    """Steps and values [n, 2]; none where there is no such file."""
    if not file.exists():
        return np.empty((0, 2))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return np.array([(line["step"], line[name]) for line in lines if name in line])
