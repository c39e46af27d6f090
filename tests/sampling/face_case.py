"""A small VAE and ArcFace and a video for them: the face optimisation's tests compile its program many times."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stableanimator_jax.config import ArcFaceConfig, VAEConfig
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.face_crop import ARCFACE_LANDMARKS, Crops
from stableanimator_jax.sampling.hjb import face_similarities
from tests.golden_models import FLOAT32
from tests.random_params import random_params

VAE_CONFIG = VAEConfig(block_out_channels=(32, 32), layers_per_block=1)
ARCFACE_CONFIG = ArcFaceConfig(layers=(1, 1, 1, 1), widths=(8, 8, 16, 16), embedding_dim=32)
CELLS = 16
DOWNSCALE = VAE_CONFIG.downscale
ITERATIONS = 3
LEARNING_RATE = 0.06


def small_models() -> tuple[Model[VAE], Model[ArcFace]]:
    """Random ones. ArcFace's PReLUs have a slope of 1: rounding that tips one unit over a kink shows in all latents,
    for Adam makes the same step however small a gradient is.
    """
    vae = Blueprint(VAE, VAE_CONFIG, FLOAT32)
    arcface = Blueprint(ArcFace, ARCFACE_CONFIG, FLOAT32)
    smooth = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.ones_like(x) if path[-1].key == "slope" else x, _random(arcface, 2)
    )
    return Model(_random(vae, 1), vae), Model(smooth, arcface)


def _random(blueprint: Blueprint[Any], seed: int) -> dict[Any, Any]:
    return jax.tree.map(jnp.asarray, random_params(blueprint.abstract_params(), seed))


@jax.jit
def similarities(vae: Model[VAE], arcface: Model[ArcFace], latents: jax.Array, crops: Crops) -> jax.Array:
    """Cosines of each frame's face with `identity()`."""
    return face_similarities(vae.module(), arcface.module(), latents, crops, identity())


def video(frames: int, seed: int = 0) -> jax.Array:
    """Clean latents of `frames` frames, about as large as SVD's."""
    shape = (frames, CELLS, CELLS, VAE_CONFIG.latent_channels)
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def identity(seed: int = 3) -> jax.Array:
    """A reference embedding."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(ARCFACE_CONFIG.embedding_dim, np.float32))


def boxes(frames: int, faceless: tuple[int, ...] = ()) -> FaceTrack:
    """A face of 12 x 9 pixels that moves by a pixel a frame."""
    move = np.arange(frames, dtype=np.float32)[:, None] % 8
    return FaceTrack(np.array([[8, 6, 16, 17]], np.float32) + move, None, ~np.isin(np.arange(frames), faceless))


def aligned(frames: int) -> FaceTrack:
    """A face of about the same size, turned a little."""
    turn = 0.1 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    landmarks = ARCFACE_LANDMARKS @ turn.T + np.array([10, 6]) + np.arange(frames)[:, None, None] % 8
    return FaceTrack(np.zeros((frames, 4), np.float32), landmarks.astype(np.float32), np.ones(frames, bool))
