"""Trained weights into the package: all six models of a run, small enough to ship."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import stableanimator_jax
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing_directory
from stableanimator_jax.weights.checkpoint import (
    STABLEANIMATOR,
    describe,
    require_replaceable,
    save_checkpoint,
    stream_params,
)

MOST_BYTES = 20_000_000
LARGEST_FILE = 16 * 2**20
"""In bytes."""


@dataclass(frozen=True)
class ShipConfig:
    """What to ship."""

    weights: Path = Path("outputs/drawn_world/runs/full/run/checkpoints/700/weights")
    """The weights that a run of `train.py` left."""
    arcface: Path = Path("outputs/drawn_world/arcface")
    """The checkpoint with its ArcFace, which training leaves alone."""
    output: Path = Path(stableanimator_jax.__path__[0]) / "assets" / "weights"
    """Where the package looks for them."""
    overwrite: bool = False
    """Replace the checkpoint that is there."""


def ship(config: ShipConfig, *, limited: bool = True) -> None:
    """Write the checkpoint, kernels in bfloat16.

    Args:
        config: see there.
        limited: whether it must be small enough for the package.

    Raises:
        InputError: a model is missing, or the checkpoint would be too large; what is there then stays.
    """
    run = describe(config.weights)
    places = {model: config.arcface if model == "arcface" else config.weights for model in STABLEANIMATOR}
    for model, place in places.items():
        if model not in describe(place).models:
            raise InputError(f"{place} has no {model}")
    require_replaceable(config.output, overwrite=config.overwrite)
    # Where the run was and what it began from are folders of whoever trained.
    source = {name: value for name, value in run.source.items() if name not in ("trained_from", "run")}
    with replacing_directory(config.output, overwrite=True) as made:
        # VAE and ArcFace compute in float32, from what they are stored as.
        params = {model: _rounded(place, model) for model, place in places.items()}
        save_checkpoint(made, run.config, params, {**source, "trained on": "drawn people"})
        sizes = [path.stat().st_size for path in made.rglob("*") if path.is_file()]
        size = sum(sizes)
        if limited and size > MOST_BYTES:
            raise InputError(f"these weights would take {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}")
        if limited and max(sizes) > LARGEST_FILE:
            raise InputError(f"these weights would have a file of {max(sizes) / 2**20:.1f} MiB, more than 16")
    print(f"{config.output}: {size / 1e6:.1f} MB")


def _rounded(place: Path, model: str) -> Iterator[tuple[Any, Any]]:
    for name, array in stream_params(place, model):
        kernel = np.ndim(array) >= 2
        yield tuple(name.split(".")), jnp.asarray(array, jnp.bfloat16 if kernel else jnp.float32)
