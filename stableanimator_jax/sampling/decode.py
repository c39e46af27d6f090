"""Latents to frames, chunk by chunk, so that neither device nor host ever holds the whole video as pixels."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, UInt8

from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.parallel import on_each_device, replicated
from stableanimator_jax.sampling.programs import kept


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


@kept
@jax.jit
def decode_pixels(vae: Model[VAE], latents: Float[Array, "f h w c"]) -> tuple[UInt8[Array, "f H W 3"], Bool[Array, ""]]:
    """`decode_chunk` as pixels, and whether all of it was finite."""
    frames = decode_chunk(vae, latents)
    return to_pixels(frames), jnp.isfinite(frames).all()


@kept
@partial(jax.jit, static_argnames="mesh")
def decode_each(
    vae: Model[VAE], latents: Float[Array, "n f h w c"], *, mesh: Mesh
) -> tuple[UInt8[Array, "n f H W 3"], Bool[Array, "n"]]:
    """`decode_pixels` of as many chunks as the mesh has devices, each on one of them."""
    return on_each_device(decode_pixels, mesh)(vae, (latents,))


def chunk_groups(total: int, chunk: int, at_once: int) -> list[slice]:
    """The frames of the chunks that are decoded at once. A last chunk that is shorter than the others is by itself."""
    whole = total // chunk * chunk
    groups = [slice(start, min(start + at_once * chunk, whole)) for start in range(0, whole, at_once * chunk)]
    return groups if whole == total else [*groups, slice(whole, total)]


def _decode(vae: Model[VAE], latents: Array, chunk: int, mesh: Mesh | None) -> tuple[Array, Array]:
    """Pixels of one of `chunk_groups`, chunk by chunk on a mesh, where some fill it up; and whether all are finite."""
    chunks = -(-len(latents) // chunk)
    if mesh is None or chunks == 1:
        return decode_pixels(vae, latents)
    apart = latents.reshape(chunks, chunk, *latents.shape[1:])
    return decode_each(vae, apart[np.minimum(np.arange(mesh.size), chunks - 1)], mesh=mesh)


def _here(computed: Array, finite: Array, mesh: Mesh | None) -> tuple[Array, Array]:
    """Both where this process can read them: others may have some."""
    if computed.is_fully_addressable and finite.is_fully_addressable:
        return computed, finite
    return jax.device_put((computed, finite), replicated(mesh))


def decode_frames(
    vae: Model[VAE],
    latents: Float[Array, "f h w c"],
    chunk: int,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    mesh: Mesh | None = None,
    first_frame: int = 0,
) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Yield RGB frames in order, `chunk` at a time, on a mesh as many times that as it has devices.

    Chunks do not see each other, as published. Some are computed while those before them are being written. Those that
    the decoder, in float16, has numbers too large for are decoded again in float32, with an `Overflowed` warning, whose
    numbers begin at `first_frame`.
    """
    total = len(latents)
    pending = None
    for part in (*chunk_groups(total, chunk, 1 if mesh is None else mesh.size), None):
        following = None
        if part is not None:
            following = part, *_decode(vae, latents[part], chunk, mesh)
        if pending is not None:
            last, computed, finite = pending
            computed, finite = _here(computed, finite, mesh)
            if vae.blueprint.precision.compute == np.float16 and not np.asarray(finite).all():
                warnings.warn(Overflowed(first_frame + last.start, first_frame + last.stop - 1), stacklevel=2)
                computed, _ = _here(*_decode(vae.computing_in(np.float32), latents[last], chunk, mesh), mesh)
            frames = np.asarray(computed)
            if on_progress:
                on_progress(last.stop, total)
            yield frames.reshape(-1, *frames.shape[-3:])[: last.stop - last.start]
        pending = following


def without_first(chunks: Iterator[UInt8[np.ndarray, "n H W 3"]], count: int) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Chunks of frames, but for the first `count` frames."""
    for chunk in chunks:
        if len(chunk) > count:
            yield chunk[count:]
        count = max(0, count - len(chunk))
