"""SVD's spatio-temporal blocks: a spatial layer, a temporal layer, and a learned mix of the two.

Activations are `[b, f, h, w, c]` throughout: batch and frames stay apart, so that a mesh can shard either. Where it
shards frames, temporal convolutions take their neighbours' from other devices, and the temporal transformers run with
pixels sharded in the frames' place.
Hidden states are `Precision.hidden` from layer to layer; convolutions, linear layers and attention run in the compute
dtype.
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.config import IdInjection
from stableanimator_jax.models.attention import attention
from stableanimator_jax.models.id_adapter import IdCrossAttention
from stableanimator_jax.models.layers import (
    GEGLU,
    Conv,
    GroupNorm,
    LayerKwargs,
    LayerNorm,
    Precision,
    TimestepEmbedding,
    centred_conv,
    exact,
    linear,
    residual,
    sinusoidal_embedding,
)
from stableanimator_jax.parallel import spread, whole

Video = Float[Array, "b f h w c"]
Resized = Float[Array, "b f _ _ _"]  # a video of any other size and width

OVER_SPACE = (-3, -2)
OVER_SPACE_AND_TIME = (-4, -3, -2)


class Tokens(NamedTuple):
    """What cross-attention attends to, in the compute dtype."""

    image: Float[Array, "b d"]
    """The one image token. Zero: unconditional."""
    faces: Float[Array, "b n d"] | None
    """None leaves the ID adapters out."""
    face_strength: Float[Array, "b"] | None = None
    """What their part is multiplied by; None as it is."""


class TemporalConv(nnx.Module):
    """torch's 3-D convolution with a (3, 1, 1) kernel and one frame of zero padding on both sides.

    Run as a 2-D convolution over (frames, pixels), the case that convolution libraries tune for.
    """

    def __init__(self, features_in: int, features_out: int, *, precision: Precision, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (3, features_in, features_out), precision.params))
        self.bias = nnx.Param(jnp.zeros((features_out,), precision.params))
        self.dtype = precision.compute
        self.hidden = precision.hidden

    def __call__(self, x: Video) -> Float[Array, "b f h w d"]:
        b, f, h, w, c = x.shape
        x = spread(x.reshape(b, f, h * w, c).astype(self.dtype))
        y = spread(centred_conv(x, whole(self.kernel[...].astype(self.dtype))[:, None]))
        y = y.reshape(b, f, h, w, -1).astype(self.hidden)  # as in `Conv`
        return y + self.bias[...].astype(self.hidden).reshape(1, 1, 1, 1, -1)


class ResBlock(nnx.Module):
    """diffusers' `ResnetBlock2D`, on every frame by itself."""

    over = OVER_SPACE

    def __init__(
        self,
        features_in: int,
        features_out: int,
        time_features: int | None,
        *,
        eps: float,
        groups: int = 32,
        **kw: Unpack[LayerKwargs],
    ):
        self.norm1 = GroupNorm(features_in, eps=eps, groups=groups, **kw)
        self.conv1 = self._conv(features_in, features_out, **kw)
        if time_features is not None:
            self.time_emb_proj = linear(time_features, features_out, **exact(kw))
        self.norm2 = GroupNorm(features_out, eps=eps, groups=groups, **kw)
        self.conv2 = self._conv(features_out, features_out, **kw)
        if features_in != features_out:
            self.conv_shortcut = Conv(features_in, features_out, 1, **kw)

    def _conv(self, features_in: int, features_out: int, **kw: Unpack[LayerKwargs]) -> Conv | TemporalConv:
        return Conv(features_in, features_out, 3, **kw)

    def __call__(self, x: Video, time: Float[Array, "b e"] | None = None) -> Float[Array, "b f h w d"]:
        y = self.change(x, time)
        return residual(self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x, y)

    def change(self, x: Video, time: Float[Array, "b e"] | None = None) -> Float[Array, "b f h w d"]:
        """What the block adds to its input."""
        y = self.conv1(jax.nn.silu(self.norm1(x, self.over)))
        if time is not None:
            y = residual(y, self.time_emb_proj(jax.nn.silu(time))[:, None, None, None])
        return self.conv2(jax.nn.silu(self.norm2(y, self.over)))


class TemporalResBlock(ResBlock):
    """diffusers' `TemporalResnetBlock`: convolutions along the frames, statistics over all of them."""

    over = OVER_SPACE_AND_TIME

    def _conv(self, features_in: int, features_out: int, **kw: Unpack[LayerKwargs]) -> TemporalConv:
        return TemporalConv(features_in, features_out, **kw)


class TimeMixer(nnx.Module):
    """diffusers' `AlphaBlender`: sigmoid(mix_factor) of one input, the rest of the other."""

    def __init__(self, start: float):
        self.mix_factor = nnx.Param(jnp.full((1,), start, jnp.float32))

    def share(self) -> Float[Array, ""]:
        """Of the first input."""
        return jax.nn.sigmoid(self.mix_factor[...]).reshape(())

    def __call__(self, first: Float[Array, "*shape"], second: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        alpha = self.share()
        mixed = alpha * first.astype(jnp.float32) + (1 - alpha) * second.astype(jnp.float32)
        return mixed.astype(first.dtype)


class SpatioTemporalResBlock(nnx.Module):
    """A spatial and a temporal residual block, mixed.

    The UNet's mix factor weighs the spatial branch; the VAE decoder's (`decoder=True`) the temporal one.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        time_features: int | None,
        *,
        eps: float,
        temporal_eps: float | None = None,
        groups: int = 32,
        decoder: bool = False,
        **kw: Unpack[LayerKwargs],
    ):
        self.spatial_res_block = ResBlock(features_in, features_out, time_features, eps=eps, groups=groups, **kw)
        self.temporal_res_block = TemporalResBlock(
            features_out, features_out, time_features, eps=temporal_eps or eps, groups=groups, **kw
        )
        self.time_mixer = TimeMixer(0.0 if decoder else 0.5)
        self.decoder = decoder

    def __call__(self, x: Video, time: Float[Array, "b e"] | None = None) -> Float[Array, "b f h w d"]:
        return self.over_time(self.spatial_res_block(x, time), time)

    def over_time(self, spatial: Video, time: Float[Array, "b e"] | None = None) -> Video:
        """The half of the block that comes after the spatial one."""
        change = self.temporal_res_block.change(spatial, time)
        # A mix of the input and of the input with a change is the input with a share of the change: a rounding less.
        share = self.time_mixer.share() if self.decoder else 1 - self.time_mixer.share()
        return (spatial.astype(jnp.float32) + share * change.astype(jnp.float32)).astype(spatial.dtype)


class SelfAttention(nnx.Module):
    """Multi-head self-attention over the second-last axis."""

    def __init__(self, channels: int, heads: int, *, bias: bool = False, **kw: Unpack[LayerKwargs]):
        self.heads = heads
        self.to_q = linear(channels, channels, bias=bias, **kw)
        self.to_k = linear(channels, channels, bias=bias, **kw)
        self.to_v = linear(channels, channels, bias=bias, **kw)
        self.to_out = linear(channels, channels, **kw)

    def __call__(self, x: Float[Array, "*batch t c"]) -> Float[Array, "*batch t c"]:
        q, k, v = (rearrange(to(x), "... (n d) -> ... n d", n=self.heads) for to in (self.to_q, self.to_k, self.to_v))
        return self.to_out(rearrange(attention(q, k, v), "... n d -> ... (n d)"))


class OneTokenCrossAttention(nnx.Module):
    """Cross-attention to a single token. The softmax over one key is 1: queries and keys have no say.

    `to_q` and `to_k` are in SVD's checkpoints, so they are kept, and never used.
    """

    def __init__(self, channels: int, context_dim: int, **kw: Unpack[LayerKwargs]):
        self.to_q = linear(channels, channels, bias=False, **kw)
        self.to_k = linear(context_dim, channels, bias=False, **kw)
        self.to_v = linear(context_dim, channels, bias=False, **exact(kw))
        self.to_out = linear(channels, channels, **exact(kw))

    def __call__(self, token: Float[Array, "b d"]) -> Float[Array, "b c"]:
        return self.to_out(self.to_v(token))


class SpatialTransformerBlock(nnx.Module):
    """Self-attention among the tokens of each frame, ID cross-attention, feed-forward."""

    def __init__(
        self, channels: int, context_dim: int, heads: int, *, id_injection: IdInjection, **kw: Unpack[LayerKwargs]
    ):
        self.norm1 = LayerNorm(channels, **kw)
        self.attn1 = SelfAttention(channels, heads, **kw)
        self.norm2 = LayerNorm(channels, **kw)
        self.attn2 = IdCrossAttention(channels, context_dim, heads, id_injection=id_injection, **kw)
        self.norm3 = LayerNorm(channels, **kw)
        self.ff = GEGLU(channels, **kw)

    def __call__(self, x: Float[Array, "b f t c"], tokens: Tokens) -> Float[Array, "b f t c"]:
        x = residual(x, self.attn1(self.norm1(x)))
        x = residual(x, self.attn2(self.norm2(x), tokens.image, tokens.faces, tokens.face_strength))
        return residual(x, self.ff(self.norm3(x)))


class TemporalTransformerBlock(nnx.Module):
    """Self-attention among the frames at each position; its cross-attention sees the image token only."""

    def __init__(self, channels: int, context_dim: int, heads: int, **kw: Unpack[LayerKwargs]):
        self.norm_in = LayerNorm(channels, **kw)
        self.ff_in = GEGLU(channels, **kw)
        self.norm1 = LayerNorm(channels, **kw)
        self.attn1 = SelfAttention(channels, heads, **kw)
        self.norm2 = LayerNorm(channels, **kw)  # only ever fed the unused queries; kept for the checkpoint's sake
        self.attn2 = OneTokenCrossAttention(channels, context_dim, **kw)
        self.norm3 = LayerNorm(channels, **kw)
        self.ff = GEGLU(channels, **kw)

    def __call__(self, x: Float[Array, "b t f c"], tokens: Tokens) -> Float[Array, "b t f c"]:
        x = residual(x, self.ff_in(self.norm_in(x)))
        attended = self.attn1(self.norm1(x)).astype(jnp.float32)
        x = residual(x, attended + self.attn2(tokens.image)[:, None, None])
        return residual(x, self.ff(self.norm3(x)))


class SpatioTemporalTransformer(nnx.Module):
    """diffusers' `TransformerSpatioTemporalModel` with one spatial and one temporal block."""

    def __init__(
        self, channels: int, context_dim: int, heads: int, *, id_injection: IdInjection, **kw: Unpack[LayerKwargs]
    ):
        self.norm = GroupNorm(channels, eps=1e-6, **kw)
        self.proj_in = linear(channels, channels, **kw)
        self.transformer_blocks = nnx.List(
            [SpatialTransformerBlock(channels, context_dim, heads, id_injection=id_injection, **kw)]
        )
        self.temporal_transformer_blocks = nnx.List([TemporalTransformerBlock(channels, context_dim, heads, **kw)])
        self.time_pos_embed = TimestepEmbedding(channels, 4 * channels, channels, **kw)
        self.time_mixer = TimeMixer(0.5)
        self.proj_out = linear(channels, channels, **kw)

    def __call__(self, x: Video, tokens: Tokens) -> Video:
        return self.over_time(x, self.over_space(x, tokens), tokens)

    def over_space(self, x: Video, tokens: Tokens) -> Float[Array, "b f t c"]:
        """The half of the layer in which no frame sees another."""
        y = self.proj_in(rearrange(self.norm(x, OVER_SPACE), "b f h w c -> b f (h w) c"))
        return self.transformer_blocks[0](y.astype(x.dtype), tokens)

    def over_time(self, x: Video, spatial: Float[Array, "b f t c"], tokens: Tokens) -> Video:
        """The rest of it, given the layer's input and the spatial half's output."""
        f, h, c = x.shape[1], x.shape[2], x.shape[-1]
        position = self.time_pos_embed(sinusoidal_embedding(jnp.arange(f, dtype=jnp.float32), c))  # [f, c]
        y = spread(residual(spatial, position[None, :, None]))
        y = spread(rearrange(y, "b f t c -> b t f c"))
        y = spread(self.temporal_transformer_blocks[0](y, tokens))
        y = self.time_mixer(spatial, spread(rearrange(y, "b t f c -> b f t c")))
        return residual(x, rearrange(self.proj_out(y), "b f (h w) c -> b f h w c", h=h))
