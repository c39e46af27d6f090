"""The guided step of any of SVD's family, abstract: what its program takes, to be counted or compiled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stableanimator_jax.config import Dtype, StableAnimatorConfig
from stableanimator_jax.family import member
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.conditioning import Conditioning, Control
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling.denoiser import Rows

Array = Callable[..., Any]
"""A `jax.ShapeDtypeStruct`: called with sides, and perhaps a `dtype`; float32 where none is given."""


def abstract_model(config: StableAnimatorConfig, name: str, dtype: Dtype, array: Array) -> Model[Any]:
    """One model, its parameters where `array` puts them."""
    made_from = blueprint(config, name, dtype)
    leaves = jax.tree.map(lambda leaf: array(*leaf.shape, dtype=leaf.dtype), made_from.abstract_params())
    return Model(leaves, made_from)


def step_arguments(
    config: StableAnimatorConfig, frames: int, width: int, height: int, dtype: Dtype, array: Array, rows: int = 2
) -> tuple[Model[Any], Rows, Any]:
    """What `denoiser.predict` takes for so many rows of so many frames."""
    kind, scale, channels = member(config), config.vae.downscale, config.vae.latent_channels
    size, compute = (height // scale, width // scale), jnp.dtype(dtype)
    pose_features, control = None, None
    if kind.driver == "pose_net":
        pose_features = array(rows, frames, *size, config.pose_net.out_channels, dtype=compute)
    if kind.driver == "control_net":
        net, poses = abstract_model(config, "control_net", dtype, array), array(1, frames, height, width, 3)
        sides = jax.eval_shape(lambda model, poses: model.module()(poses, jnp.zeros(1)), net, poses).shape[1:]
        control = Control(array(rows, *sides, dtype=compute), array(rows))
    faces = array(rows, config.face_encoder.num_tokens, config.unet.cross_attention_dim) if kind.takes_face else None
    conditioning = Conditioning(
        image_embedding=array(rows, config.image_encoder.projection_dim),
        face_tokens=faces,
        added_time_ids=array(rows, 3),
        image_latents=array(rows, *size, channels),
        pose_features=pose_features,
        control=control,
    )
    unet = abstract_model(config, "unet", dtype, array)
    return unet, Rows(array(rows, frames, *size, channels), conditioning), array()
