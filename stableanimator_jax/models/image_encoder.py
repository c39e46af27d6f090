"""CLIP's vision tower with projection (ViT-H/14 in Stable Video Diffusion): an image to one embedding."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.config import ImageEncoderConfig
from stableanimator_jax.models.attention import attention
from stableanimator_jax.models.layers import Conv, LayerKwargs, LayerNorm, Precision, linear


class ImageEncoder(nnx.Module):
    """The class token's last state, normalised and projected."""

    def __init__(self, config: ImageEncoderConfig, **kw: Unpack[LayerKwargs]):
        eps = config.layer_norm_eps
        self.embeddings = Embeddings(config, **kw)
        self.pre_layernorm = LayerNorm(config.hidden_size, eps=eps, **kw)
        self.encoder = Encoder(config, **kw)
        self.post_layernorm = LayerNorm(config.hidden_size, eps=eps, **kw)
        self.visual_projection = linear(config.hidden_size, config.projection_dim, bias=False, **kw)

    def __call__(self, pixels: Float[Array, "b size size 3"]) -> Float[Array, "b projection"]:
        """Embedding of images already resized to `config.image_size` and normalised by CLIP's mean and std."""
        x = self.encoder(self.pre_layernorm(self.embeddings(pixels)))
        return self.visual_projection(self.post_layernorm(x[:, 0]))


class Embeddings(nnx.Module):
    """Non-overlapping patches behind one class token, with learnt positions."""

    def __init__(self, config: ImageEncoderConfig, *, precision: Precision, rngs: nnx.Rngs):
        width, patch = config.hidden_size, config.patch_size
        positions = (config.image_size // patch) ** 2 + 1
        start = nnx.initializers.normal(0.02)
        self.dtype = precision.compute
        self.class_embedding = nnx.Param(start(rngs.params(), (width,), precision.params))
        self.patch_embedding = Conv(
            3, width, patch, stride=patch, padding=(0, 0), bias=False, precision=precision, rngs=rngs
        )
        self.position_embedding = nnx.Param(start(rngs.params(), (positions, width), precision.params))

    def __call__(self, pixels: Float[Array, "b size size 3"]) -> Float[Array, "b t c"]:
        patches = self.patch_embedding(pixels).astype(self.dtype)  # [b, rows, columns, c]
        b, _, _, c = patches.shape
        first = jnp.broadcast_to(self.class_embedding[...].astype(self.dtype), (b, 1, c))
        x = jnp.concatenate([first, patches.reshape(b, -1, c)], axis=1)
        return x + self.position_embedding[...].astype(self.dtype)[None]


class Encoder(nnx.Module):
    """The transformer's layers."""

    def __init__(self, config: ImageEncoderConfig, **kw: Unpack[LayerKwargs]):
        self.layers = nnx.List(EncoderLayer(config, **kw) for _ in range(config.num_hidden_layers))

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        for layer in self.layers:
            x = layer(x)
        return x


class EncoderLayer(nnx.Module):
    """Pre-norm self-attention and MLP, each added to its input."""

    def __init__(self, config: ImageEncoderConfig, **kw: Unpack[LayerKwargs]):
        self.self_attn = SelfAttention(config.hidden_size, config.num_attention_heads, **kw)
        self.layer_norm1 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps, **kw)
        self.mlp = MLP(config, **kw)
        self.layer_norm2 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps, **kw)

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class SelfAttention(nnx.Module):
    """Multi-head self-attention with biases."""

    def __init__(self, width: int, heads: int, **kw: Unpack[LayerKwargs]):
        self.heads = heads
        self.q_proj = linear(width, width, **kw)
        self.k_proj = linear(width, width, **kw)
        self.v_proj = linear(width, width, **kw)
        self.out_proj = linear(width, width, **kw)

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        q, k, v = (p(x).reshape(*x.shape[:-1], self.heads, -1) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attention(q, k, v).reshape(x.shape))


class MLP(nnx.Module):
    """Two linear layers with CLIP's activation between."""

    def __init__(self, config: ImageEncoderConfig, **kw: Unpack[LayerKwargs]):
        self.fc1 = linear(config.hidden_size, config.intermediate_size, **kw)
        self.fc2 = linear(config.intermediate_size, config.hidden_size, **kw)
        self.quick = config.hidden_act == "quick_gelu"

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        x = self.fc1(x)
        return self.fc2(x * jax.nn.sigmoid(1.702 * x) if self.quick else jax.nn.gelu(x, approximate=False))
