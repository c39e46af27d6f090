"""What training minimises: EDM's denoising error, weighted up inside the face (paper section 3.3).

Pure functions of arrays; noise, noise levels and dropout draws are arguments.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stableanimator_jax import diffusion
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet, predict_v
from stableanimator_jax.sampling.guidance import dropped_at_random


class Draws(NamedTuple):
    """The random part of a training step."""

    noise: Float[Array, "b f h w c"]
    """Unit Gaussian."""
    sigma: Float[Array, "b"]
    """Noise levels; see `diffusion.training_sigmas`."""
    dropout: Float[Array, "b"]
    """Uniform in [0, 1): decides which conditions a clip goes without."""


class Error(NamedTuple):
    """The weighted squared error of the denoised latents."""

    prediction: Float[Array, "b f h w c"]
    """The UNet's, a v-prediction."""
    squared: Float[Array, "b f h w c"]
    """(denoised - latents)^2 times EDM's weight, before the face's."""
    losses: Float[Array, "b"]
    """Each clip's mean of it, with `1 + face_weight` inside the faces. What is minimised is their mean."""


def training_conditioning(
    pose_net: PoseNet,
    face_encoder: FaceEncoder,
    *,
    image_latents: Float[Array, "b h w c"],
    image_embedding: Float[Array, "b d"],
    id_embedding: Float[Array, "b e"],
    poses: Float[Array, "b f H W 3"],
    added_time_ids: Float[Array, "3"],
) -> Conditioning:
    """What the UNet is told of clips before any of it is dropped.

    Args:
        pose_net, face_encoder: the models.
        image_latents: the reference's with noise augmentation; not scaled.
        image_embedding: CLIP's, of the reference.
        id_embedding: ArcFace's of the reference, not normalised.
        poses: skeletons in [-1, 1].
        added_time_ids: fps - 1, motion bucket, noise augmentation; of all clips.
    """
    return Conditioning(
        image_embedding=image_embedding,
        face_tokens=face_encoder(id_embedding, image_embedding),
        added_time_ids=jnp.broadcast_to(added_time_ids[None], (len(image_embedding), len(added_time_ids))),
        image_latents=image_latents,
        pose_features=pose_net(poses),
    )


def denoising_error(
    unet: UNet,
    latents: Float[Array, "b f h w c"],
    masks: Bool[Array, "b f h w"],
    conditioning: Conditioning,
    draws: Draws,
    *,
    dropout: float = 0.1,
    face_weight: float = 1.0,
    remat: bool = False,
) -> Error:
    """Noise the clips, denoise them, and measure by how much that fails.

    Args:
        unet: the model.
        latents: of the clips, multiplied by the VAE's scaling factor.
        masks: true inside the faces.
        conditioning: of the clips, from which `guidance.dropped_at_random` drops some.
        draws: the random part.
        dropout: of the conditions; 0 is none.
        face_weight: how much more the inside of the faces counts; 0 is the ablation without masks.
        remat: compute the UNet's blocks once more in the backward pass rather than keep what is inside them.
    """
    sigma = draws.sigma.reshape(-1, 1, 1, 1, 1)
    noisy = latents + sigma * draws.noise
    kept = dropped_at_random(conditioning, draws.dropout, dropout)
    prediction = predict_v(unet, noisy, draws.sigma, kept, remat=remat)
    denoised = diffusion.denoised(prediction, noisy, sigma)
    squared = diffusion.loss_weight(sigma) * jnp.square(denoised - latents)
    inside = masks.astype(jnp.float32)[..., None]
    return Error(prediction, squared, (squared * (1 + face_weight * inside)).mean(axis=(1, 2, 3, 4)))
