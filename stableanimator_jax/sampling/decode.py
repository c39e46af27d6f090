"""Latents to frames, chunk by chunk, so that neither device nor host ever holds the whole video as pixels."""

import warnings
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.vae import VAE


class Overflowed(UserWarning):
    """Some frames' numbers were too large for a decoder that computes in float16."""

    def __init__(self, first: int, last: int):
        super().__init__(f"frames {first} to {last} have numbers too large for float16: they are decoded in float32")


@jax.jit
def decode_chunk(vae: Model[VAE], latents: Float[Array, "f h w c"]) -> Float[Array, "f H W 3"]:
    """Decode the frames of one chunk together. Latents as the UNet sees them; frames about [-1, 1], unclamped."""
    module = vae.module()
    return module.decode(latents[None] / module.config.scaling_factor)[0]


@jax.jit
def to_pixels(frames: Float[Array, "f H W 3"]) -> UInt8[Array, "f H W 3"]:
    """[-1, 1] to 0..255, clamped and rounded."""
    return jnp.round(jnp.clip(frames / 2 + 0.5, 0, 1) * 255).astype(jnp.uint8)


@jax.jit
def _all_finite(frames: Array) -> Array:
    return jnp.isfinite(frames).all()


def decode_frames(
    vae: Model[VAE],
    latents: Float[Array, "f h w c"],
    chunk: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Yield RGB frames in order, `chunk` at a time; the last chunk holds what is left.

    Chunks do not see each other, as published. A chunk is computed while the one before it is being written. One that
    the decoder, in float16, has numbers too large for is decoded again in float32, with an `Overflowed` warning.
    """
    total = len(latents)
    pending = None
    for start in (*range(0, total, chunk), None):
        following = None
        if start is not None:
            frames = decode_chunk(vae, latents[start : start + chunk])
            following = start, to_pixels(frames), _all_finite(frames)
        if pending is not None:
            first, computed, finite = pending
            frames = np.asarray(computed)
            done = total if start is None else start
            if vae.blueprint.precision.compute == np.float16 and not finite:
                warnings.warn(Overflowed(first, done - 1), stacklevel=2)
                exact = vae.computing_in(np.float32)
                frames = np.asarray(to_pixels(decode_chunk(exact, latents[first:done])))
            if on_progress:
                on_progress(done, total)
            yield frames
        pending = following
