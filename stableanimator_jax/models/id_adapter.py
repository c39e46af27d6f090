"""The distribution-aware ID adapter: how face tokens enter SVD's spatial cross-attention (paper section 3.3)."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.config import IdInjection
from stableanimator_jax.models.attention import attention
from stableanimator_jax.models.layers import LayerKwargs, linear


class IdCrossAttention(nnx.Module):
    """Cross-attention of spatial tokens to one image token and a few face tokens.

    With a single image token the softmax over keys is 1, so SVD's own part of this layer is `to_v(token)` at
    every position whatever the query. `to_k` is kept for the checkpoint's sake, and `to_q` serves the face tokens.
    """

    def __init__(
        self, channels: int, context_dim: int, heads: int, *, id_injection: IdInjection, **kw: Unpack[LayerKwargs]
    ):
        self.heads = heads
        self.id_injection = id_injection
        self.to_q = linear(channels, channels, bias=False, **kw)
        self.to_k = linear(context_dim, channels, bias=False, **kw)
        self.to_v = linear(context_dim, channels, bias=False, **kw)
        self.id_to_k = linear(context_dim, channels, bias=False, **kw)
        self.id_to_v = linear(context_dim, channels, bias=False, **kw)
        self.to_out = linear(channels, channels, **kw)

    def __call__(
        self,
        x: Float[Array, "b f t c"],
        image_embedding: Float[Array, "b d"],
        face_tokens: Float[Array, "b n d"] | None,
        face_strength: Float[Array, "b"] | None = None,
    ) -> Float[Array, "b f #t c"]:
        """The layer's output, of one position where it is the same at all of them (no face tokens).

        What the face tokens add to the image token's part is multiplied by `face_strength`, where it is given.
        """
        z_image = self.to_v(image_embedding)[:, None, None]  # [b, 1, 1, c]
        if face_tokens is None or self.id_injection == "none":
            return self.to_out(jnp.broadcast_to(z_image, (*x.shape[:2], 1, x.shape[-1])))
        z_face = self._attend_to_faces(x, face_tokens)
        if self.id_injection == "addition":
            return self.to_out(z_image + _times(z_face, face_strength))
        return self.to_out(align_distribution(z_image, z_face, face_strength))

    def _attend_to_faces(self, x: Float[Array, "b f t c"], face_tokens: Float[Array, "b n d"]):
        def split(y: jax.Array) -> jax.Array:
            return y.reshape(*y.shape[:-1], self.heads, x.shape[-1] // self.heads)

        tokens = face_tokens[:, None]  # the same for every frame
        z = attention(split(self.to_q(x)), split(self.id_to_k(tokens)), split(self.id_to_v(tokens)))
        return z.reshape(x.shape)


def align_distribution(
    z_image: Float[Array, "b 1 1 c"],
    z_face: Float[Array, "b f t c"],
    strength: Float[Array, "b"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "b f t c"]:
    """Give the face features of each frame the mean and spread of its image features, and add them (paper eq. 3).

    `z = z_image + (z_face - mean(z_face)) / (std(z_face) + eps) * std(z_image) + mean(z_image)`, with mean and
    (sample) standard deviation over the tokens and channels of one frame, in float32. `z_image` stands for all
    t tokens of every frame: they are equal. A `strength` multiplies all that is added to the first `z_image`.
    """
    t, c = z_face.shape[-2:]
    dtype = z_face.dtype
    z_image, z_face = z_image.astype(jnp.float32), z_face.astype(jnp.float32)
    mean_image, mean_face = z_image.mean((2, 3), keepdims=True), z_face.mean((2, 3), keepdims=True)
    # The sum over t equal tokens is t times the sum over one; the -1 makes it torch's `std`.
    std_image = _sqrt(t * jnp.square(z_image - mean_image).sum((2, 3), keepdims=True) / (t * c - 1))
    std_face = _sqrt(jnp.square(z_face - mean_face).sum((2, 3), keepdims=True) / (t * c - 1))
    aligned = (z_face - mean_face) * (std_image / (std_face + eps)) + mean_image
    return (z_image + _times(aligned, strength)).astype(dtype)


def _times(z: Float[Array, "b f t c"], strength: Float[Array, "b"] | None) -> Float[Array, "b f t c"]:
    return z if strength is None else z * strength.astype(z.dtype)[:, None, None, None]


def _sqrt(x: jax.Array) -> jax.Array:
    """Square root whose gradient at 0 is 0, as in torch's `std`: a dropped image token has no spread at all."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
