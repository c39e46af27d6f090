"""A checkpoint of the smallest model that has every part, with random weights: it compiles in seconds."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks._case import TINY as MINI
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.checkpoint import MODELS, save_checkpoint
from tests.random_params import random_params


def mini_params(name: str, seed: int = 0) -> dict[Any, Any]:
    """One model's, norms and biases included: two seeds have nothing in common."""
    params = random_params(blueprint(MINI, name).abstract_params(), seed)
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf if leaf.ndim > 1 else leaf + 0.1 * generator.standard_normal(leaf.shape, np.float32), params
    )


def save_mini_model(path: Path, models: tuple[str, ...] = MODELS, seed: int = 0) -> Path:
    """Write it, or some of its models only."""
    params = {name: mini_params(name, seed) for name in models}
    save_checkpoint(path, MINI, params)
    return path
