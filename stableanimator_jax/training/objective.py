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


class EncodedBatch(NamedTuple):
    """Clips as the trainable models see them: images are latents and embeddings already."""

    latents: Float[Array, "b f h w c"]
    """Posterior samples, multiplied by the VAE's scaling factor."""
    condition_latents: Float[Array, "b h w c"]
    """Posterior sample of the reference with noise augmentation; not scaled."""
    poses: Float[Array, "b f H W 3"]
    """Skeletons in [-1, 1]."""
    masks: Bool[Array, "b f h w"]
    """True inside the faces, at latent resolution."""
    image_embedding: Float[Array, "b d"]
    """CLIP's, of the reference."""
    id_embedding: Float[Array, "b e"]
    """Raw ArcFace embedding of the reference."""


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


def denoising_error(
    unet: UNet,
    pose_net: PoseNet,
    face_encoder: FaceEncoder,
    batch: EncodedBatch,
    draws: Draws,
    added_time_ids: Float[Array, "3"],
    *,
    dropout: float = 0.1,
    face_weight: float = 1.0,
    remat: bool = False,
) -> Error:
    """Noise the clips, denoise them, and measure by how much that fails.

    Conditions are dropped as `guidance.dropped_at_random` has it. Face tokens are computed from the undropped image
    embedding.

    Args:
        unet, pose_net, face_encoder: the models.
        batch: the clips.
        draws: the random part.
        added_time_ids: fps - 1, motion bucket, noise augmentation.
        dropout: of the conditions; 0 is none.
        face_weight: how much more the inside of the faces counts; 0 is the ablation without masks.
        remat: compute the UNet's blocks once more in the backward pass rather than keep what is inside them.
    """
    b = len(batch.latents)
    sigma = draws.sigma.reshape(b, 1, 1, 1, 1)
    noisy = batch.latents + sigma * draws.noise
    conditioning = Conditioning(
        image_embedding=batch.image_embedding,
        face_tokens=face_encoder(batch.id_embedding, batch.image_embedding),
        added_time_ids=jnp.broadcast_to(added_time_ids[None], (b, len(added_time_ids))),
        image_latents=batch.condition_latents,
        pose_features=pose_net(batch.poses),
    )
    conditioning = dropped_at_random(conditioning, draws.dropout, dropout)
    prediction = predict_v(unet, noisy, draws.sigma, conditioning, remat=remat)
    denoised = diffusion.denoised(prediction, noisy, sigma)
    squared = diffusion.loss_weight(sigma) * jnp.square(denoised - batch.latents)
    inside = batch.masks.astype(jnp.float32)[..., None]
    return Error(prediction, squared, (squared * (1 + face_weight * inside)).mean(axis=(1, 2, 3, 4)))
