"""Latents to frames, chunk by chunk, so that neither device nor host ever holds the whole video as pixels."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.vae import VAE


@jax.jit
def decode_chunk(vae: Model[VAE], latents: Float[Array, "f h w c"]) -> Float[Array, "f H W 3"]:
    """Decode the frames of one chunk together. Latents as the UNet sees them; frames about [-1, 1], unclamped."""
    module = vae.module()
    return module.decode(latents[None] / module.config.scaling_factor)[0].astype(jnp.float32)


@jax.jit
def to_pixels(frames: Float[Array, "f H W 3"]) -> UInt8[Array, "f H W 3"]:
    """[-1, 1] to 0..255, clamped and rounded."""
    return jnp.round(jnp.clip(frames / 2 + 0.5, 0, 1) * 255).astype(jnp.uint8)


def decode_frames(
    vae: Model[VAE],
    latents: Float[Array, "f h w c"],
    chunk: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Yield RGB frames in order, `chunk` at a time; the last chunk holds what is left.

    Chunks do not see each other, as published. A chunk is computed while the one before it is being written.
    """
    total = len(latents)
    starts = range(0, total, chunk)
    pending = None
    for start in (*starts, None):
        following = None if start is None else to_pixels(decode_chunk(vae, latents[start : start + chunk]))
        if pending is not None:
            frames = np.asarray(pending)
            done = total if start is None else start
            if on_progress:
                on_progress(done, total)
            yield frames
        pending = following
