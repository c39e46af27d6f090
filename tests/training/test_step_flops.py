"""The useful arithmetic of a training step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.typing import DTypeLike

from stableanimator_jax.data.clips import Clips, Moments, Pixels
from stableanimator_jax.training.config import ObjectiveConfig, TrainableConfig
from stableanimator_jax.training.state import training_blueprints
from stableanimator_jax.training.step import Task
from stableanimator_jax.training.step_flops import step_flops
from stableanimator_jax.training.trainable import split_abstract
from tests.training.mini_model import MINI


def shape(*sizes: int, dtype: DTypeLike = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype))


@pytest.mark.slow
def test_a_step_counts_what_it_needs_however_it_saves_memory():
    config = MINI
    task = Task(training_blueprints(config, "float32", arcface=False), TrainableConfig(), ObjectiveConfig())
    frames, embedding = shape(1, 2, 64, 64, 3, dtype=jnp.uint8), shape(1, config.face_encoder.id_embedding_dim)
    masks, channels = shape(1, 2, 8, 8, dtype=jnp.bool_), 2 * config.vae.latent_channels
    pixels = Pixels(frames, shape(1, 64, 64, 3, dtype=jnp.uint8))
    moments = Moments(
        shape(1, 2, 8, 8, channels, dtype=jnp.float16),
        shape(1, 8, 8, channels, dtype=jnp.float16),
        shape(1, config.unet.cross_attention_dim),
    )
    clips, encoded = (Clips(images, frames, masks, embedding) for images in (pixels, moments))

    def flops(batch=encoded, remat=True, unet="attentions"):
        asked = replace(task, remat=remat, trainable=TrainableConfig(unet))
        return step_flops(asked, *split_abstract(task.blueprints, asked.trainable), batch)

    step = flops()
    assert flops(remat=False) == step
    assert flops(clips) > step  # VAE and CLIP run too
    assert flops(unet="adapters") < step < flops(unet="all")
