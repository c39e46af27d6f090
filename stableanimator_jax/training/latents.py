"""What the frozen models make of a batch before the trained ones see it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, UInt8

from stableanimator_jax.data.device_batches import AnyDeviceBatch, DeviceBatch
from stableanimator_jax.models.clip_input import clip_pixels
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.pixels import pixels
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.parallel import leading_shards, spread
from stableanimator_jax.training.objective import EncodedBatch


class EncodingNoise(NamedTuple):
    """The random part of encoding. Unit Gaussian."""

    posterior: Float[Array, "b f h w c"]
    """Of the frames' latents."""
    condition_posterior: Float[Array, "b h w c"]
    """Of the reference's."""
    augmentation: Float[Array, "b H W 3"]
    """Of the reference's pixels. Clips encoded ahead have it in them: for these it counts for nothing."""


def encode_batch(
    vae: VAE, image_encoder: ImageEncoder, batch: DeviceBatch, noise: EncodingNoise, noise_augmentation: float
) -> EncodedBatch:
    """Latents and embeddings of clips of pixels.

    Latents are posterior samples, the frames' times the VAE's scaling factor, the reference's not, as published.
    """
    reference = pixels(batch.reference)
    condition = jnp.concatenate(vae.encode(reference + noise_augmentation * noise.augmentation), axis=-1)
    embedding = image_encoder(clip_pixels(reference))
    return _sampled(vae, batch, frame_moments(vae, batch.frames), condition, embedding, noise)


def from_moments(vae: VAE, batch: AnyDeviceBatch, noise: EncodingNoise) -> EncodedBatch:
    """The same of clips that were encoded ahead."""
    assert not isinstance(batch, DeviceBatch)
    moments, condition = (m.astype(jnp.float32) for m in (batch.moments, batch.condition_moments))
    return _sampled(vae, batch, moments, condition, batch.image_embedding, noise)


def frame_moments(vae: VAE, frames: UInt8[Array, "b f H W 3"]) -> Float[Array, "b f h w 2c"]:
    """Mean and log-variance of the posterior of every frame.

    One frame of each row after the other, on each of the devices that share a row's frames: all at once would be the
    largest thing in memory.
    """
    _, shards = leading_shards(frames.shape)
    turns = rearrange(spread(frames), "b (shard turn) h w c -> turn b shard h w c", shard=shards)

    def encode(some: UInt8[Array, "b shard H W 3"]) -> Float[Array, "b shard h w 2c"]:
        return jnp.concatenate(vae.encode(pixels(spread(some))), axis=-1)

    return rearrange(jax.lax.map(encode, turns), "turn b shard h w c -> b (shard turn) h w c")


def _sampled(
    vae: VAE,
    batch: AnyDeviceBatch,
    moments: Float[Array, "b f h w 2c"],
    condition_moments: Float[Array, "b h w 2c"],
    image_embedding: Float[Array, "b d"],
    noise: EncodingNoise,
) -> EncodedBatch:
    return EncodedBatch(
        latents=_draw(moments, noise.posterior) * vae.config.scaling_factor,
        condition_latents=_draw(condition_moments, noise.condition_posterior),
        poses=pixels(batch.poses),
        masks=batch.masks,
        image_embedding=image_embedding.astype(jnp.float32),
        id_embedding=batch.id_embedding,
    )


def _draw(moments: Float[Array, "*batch 2c"], noise: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    return mean + jnp.exp(0.5 * log_variance) * noise
