"""A checkpoint of the smallest model that has every part, with random weights: it compiles in seconds."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from stableanimator_jax.config import (
    ArcFaceConfig,
    FaceEncoderConfig,
    ImageEncoderConfig,
    PoseNetConfig,
    StableAnimatorConfig,
    UNetConfig,
    VAEConfig,
)
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.checkpoint import MODELS, save_checkpoint
from tests.random_params import random_params

MINI = StableAnimatorConfig(
    unet=UNetConfig(
        block_out_channels=(32, 64),
        num_attention_heads=(2, 2),
        layers_per_block=1,
        cross_attention_dim=64,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
    ),
    vae=VAEConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1),
    image_encoder=ImageEncoderConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        patch_size=112,
        projection_dim=64,
    ),
    face_encoder=FaceEncoderConfig(cross_attention_dim=64, image_embedding_dim=64, depth=1),
    pose_net=PoseNetConfig(out_channels=32),
    arcface=ArcFaceConfig(layers=(1, 1, 1, 1), widths=(8, 8, 16, 16)),
)


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
