"""StableAnimator's global content-aware Face Encoder: an ArcFace embedding to face tokens (paper section 3.2)."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.config import FaceEncoderConfig
from stableanimator_jax.models.attention import attention
from stableanimator_jax.models.layers import LayerKwargs, LayerNorm, linear


class FaceEncoder(nnx.Module):
    """Projects the identity embedding to a few tokens and refines them by the whole reference image.

    Without `config.refine` (the paper's ablation) the projected tokens are the output and `fusion` is None.
    """

    def __init__(self, config: FaceEncoderConfig, **kw: Unpack[LayerKwargs]):
        dim, hidden = config.cross_attention_dim, 2 * config.id_embedding_dim
        self.num_tokens = config.num_tokens
        self.proj_in = linear(config.id_embedding_dim, hidden, **kw)
        self.proj_out = linear(hidden, config.num_tokens * dim, **kw)
        self.norm = LayerNorm(dim, **kw)
        self.fusion = ImageFusion(config, **kw) if config.refine else None

    def __call__(
        self, id_embedding: Float[Array, "b id"], image_embedding: Float[Array, "b image"]
    ) -> Float[Array, "b n d"]:
        """Face tokens of the raw (not normalised) ArcFace embedding and CLIP's projected image embedding."""
        tokens = self.proj_out(jax.nn.gelu(self.proj_in(id_embedding), approximate=False))
        tokens = self.norm(tokens.reshape(tokens.shape[0], self.num_tokens, -1))  # [b, n, d]
        if self.fusion is None:
            return tokens
        return self.fusion(tokens, image_embedding[:, None])


class ImageFusion(nnx.Module):
    """Perceiver layers in which the face tokens attend to the image tokens and to themselves."""

    def __init__(self, config: FaceEncoderConfig, **kw: Unpack[LayerKwargs]):
        dim = config.cross_attention_dim
        self.proj_in = linear(config.image_embedding_dim, dim, **kw)
        self.layers = nnx.List(PerceiverLayer(dim, config.head_dim, **kw) for _ in range(config.depth))
        self.proj_out = linear(dim, dim, **kw)
        self.proj_out.kernel[...] = jnp.zeros_like(self.proj_out.kernel[...])
        self.norm_out = LayerNorm(dim, **kw)

    def __call__(self, tokens: Float[Array, "b n d"], image: Float[Array, "b m image"]) -> Float[Array, "b n d"]:
        image = self.proj_in(image)  # [b, m, d]
        for layer in self.layers:
            tokens = layer(tokens, image)
        return self.norm_out(self.proj_out(tokens))


class PerceiverLayer(nnx.Module):
    """Attention, then a feed-forward network, each added to its input."""

    def __init__(self, dim: int, head_dim: int, **kw: Unpack[LayerKwargs]):
        self.attention = PerceiverAttention(dim, head_dim, **kw)
        self.feed_forward = FeedForward(dim, **kw)

    def __call__(self, tokens: Float[Array, "b n d"], image: Float[Array, "b m d"]) -> Float[Array, "b n d"]:
        tokens = tokens + self.attention(tokens, image)
        return tokens + self.feed_forward(tokens)


class PerceiverAttention(nnx.Module):
    """Queries from the face tokens; keys and values from the image tokens followed by the face tokens."""

    def __init__(self, dim: int, head_dim: int, **kw: Unpack[LayerKwargs]):
        self.head_dim = head_dim
        self.norm1 = LayerNorm(dim, **kw)
        self.norm2 = LayerNorm(dim, **kw)
        self.to_q = linear(dim, dim, bias=False, **kw)
        self.to_kv = linear(dim, 2 * dim, bias=False, **kw)
        self.to_out = linear(dim, dim, bias=False, **kw)

    def __call__(self, tokens: Float[Array, "b n d"], image: Float[Array, "b m d"]) -> Float[Array, "b n d"]:
        image, tokens = self.norm1(image), self.norm2(tokens)
        k, v = jnp.split(self.to_kv(jnp.concatenate([image, tokens], axis=1)), 2, axis=-1)
        z = attention(self._heads(self.to_q(tokens)), self._heads(k), self._heads(v))
        return self.to_out(z.reshape(tokens.shape))

    def _heads(self, x: Float[Array, "b t d"]) -> Float[Array, "b t heads head"]:
        return x.reshape(*x.shape[:-1], -1, self.head_dim)


class FeedForward(nnx.Module):
    """LayerNorm, four times wider, exact GELU, back; no biases."""

    def __init__(self, dim: int, **kw: Unpack[LayerKwargs]):
        self.norm = LayerNorm(dim, **kw)
        self.linear_1 = linear(dim, 4 * dim, bias=False, **kw)
        self.linear_2 = linear(4 * dim, dim, bias=False, **kw)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return self.linear_2(jax.nn.gelu(self.linear_1(self.norm(x)), approximate=False))
