"""A checkpoint of the smallest model that has every part, with random weights: it compiles in seconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks._case import TINY as MINI
from stableanimator_jax.config import ControlNetConfig, Kind, StableAnimatorConfig
from stableanimator_jax.family import member
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, save_checkpoint
from tests.random_params import random_params


def mini_params(name: str, seed: int = 0, config: StableAnimatorConfig = MINI) -> dict[Any, Any]:
    """One model's, norms and biases included: two seeds have nothing in common."""
    params = random_params(blueprint(config, name).abstract_params(), seed)
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf if leaf.ndim > 1 else leaf + 0.1 * generator.standard_normal(leaf.shape, np.float32), params
    )


def save_mini_model(path: Path, models: tuple[str, ...] = STABLEANIMATOR, seed: int = 0) -> Path:
    """Write it, or some of its models only."""
    params = {name: mini_params(name, seed) for name in models}
    save_checkpoint(path, MINI, params)
    return path


def save_mini_relative(path: Path, kind: Kind) -> Path:
    """Write one of SVD's relatives as small, with ArcFace."""
    unet, control_net = (
        replace(MINI.unet, id_injection="none", num_frames=3),
        ControlNetConfig(MINI.pose_net.out_channels),
    )
    config = replace(MINI, kind=kind, unet=unet, control_net=control_net)
    params = {name: mini_params(name, config=config) for name in (*member(config).models, "arcface")}
    save_checkpoint(path, config, params)
    return path
