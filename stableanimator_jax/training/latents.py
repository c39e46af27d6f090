"""What the frozen models make of a batch before the trained ones see it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, UInt8

from stableanimator_jax.data.clips import Moments, Pixels
from stableanimator_jax.models.clip_input import clip_pixels
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.pixels import pixels
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.parallel import leading_shards, spread


class EncodingNoise(NamedTuple):
    """The random part of encoding. Unit Gaussian."""

    posterior: Float[Array, "b f h w c"]
    """Of the frames' latents."""
    condition_posterior: Float[Array, "b h w c"]
    """Of the reference's."""
    augmentation: Float[Array, "b H W 3"]
    """Of the reference's pixels. Clips encoded ahead have it in them: for these it counts for nothing."""


def encode(
    vae: VAE,
    image_encoder: ImageEncoder,
    images: Pixels[Array],
    augmentation: Float[Array, "b H W 3"],
) -> Moments[Array]:
    """What clips encoded ahead have already.

    Args:
        vae, image_encoder: the models.
        images: the clips.
        augmentation: noise that the VAE's copy of the references has, in pixels of [-1, 1].
    """
    reference = pixels(images.reference)
    condition = jnp.concatenate(vae.encode(reference + augmentation), axis=-1)
    embedding = image_encoder(clip_pixels(reference)).astype(jnp.float32)
    return Moments(frame_moments(vae, images.frames), condition, embedding)


def frame_moments(vae: VAE, frames: UInt8[Array, "b f H W 3"]) -> Float[Array, "b f h w c2"]:
    """Mean and log-variance of the posterior of every frame.

    One frame of each row after the other, on each of the devices that share a row's frames: all at once would be the
    largest thing in memory.
    """
    _, shards = leading_shards(frames.shape)
    turns = rearrange(spread(frames), "b (shard turn) h w c -> turn b shard h w c", shard=shards)

    def encode(some: UInt8[Array, "b shard H W 3"]) -> Float[Array, "b shard h w c2"]:
        return jnp.concatenate(vae.encode(pixels(spread(some))), axis=-1)

    return rearrange(jax.lax.map(encode, turns), "turn b shard h w c -> b (shard turn) h w c")


def sample(
    vae: VAE, moments: Moments[Array], noise: EncodingNoise
) -> tuple[Float[Array, "b f h w c"], Float[Array, "b h w c"]]:
    """Posterior samples: the frames' times the VAE's scaling factor, the reference's not, as published."""
    latents = _draw(moments.frames, noise.posterior) * vae.config.scaling_factor
    return latents, _draw(moments.reference, noise.condition_posterior)


def _draw(moments: Float[Array, "*batch c2"], noise: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
    mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    return mean + jnp.exp(0.5 * log_variance) * noise
