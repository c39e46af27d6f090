"""SVD's temporal VAE: images to latents one by one, latents to video frames with temporal layers.

Gradients pass through the decoder in the face optimisation, where memory is what is short. It is checkpointed twice
over: between levels only what enters a level is kept, within a level what enters each half of its residual blocks.
That takes one more decoding's arithmetic than once over. Without gradients nothing is computed twice.
"""

import math
from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.config import VAEConfig
from stableanimator_jax.models.layers import Conv, Downsample, GroupNorm, LayerKwargs, Upsample, kept, residual
from stableanimator_jax.models.spatio_temporal import (
    OVER_SPACE,
    ResBlock,
    SelfAttention,
    SpatioTemporalResBlock,
    TemporalConv,
)

EPS = 1e-6

FRAME_BYTES = 64 * 2**20
"""From this much float32 activation a frame, the decoder's spatial layers take one frame at a time."""


class VAE(nnx.Module):
    """`encode` and `decode` work on unscaled latents: divide a diffusion latent by `config.scaling_factor` first.

    SVD asks for float32 (its `force_upcast`).
    """

    def __init__(self, config: VAEConfig, **kw: Unpack[LayerKwargs]):
        self.config = config
        self.encoder = Encoder(config, **kw)
        self.quant_conv = Conv(2 * config.latent_channels, 2 * config.latent_channels, 1, **kw)
        self.decoder = TemporalDecoder(config, **kw)

    def encode(
        self, images: Float[Array, "*batch H W 3"]
    ) -> tuple[Float[Array, "*batch h w 4"], Float[Array, "*batch h w 4"]]:
        """The posterior's mean (its mode) and log-variance, clamped to [-30, 20]. `images` are in [-1, 1]."""
        mean, logvar = jnp.split(self.quant_conv(self.encoder(images)).astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: Float[Array, "b f h w 4"], *, remat: bool = True) -> Float[Array, "b f H W 3"]:
        """Frames, about [-1, 1], unclamped, float32. The f frames see each other: a chunk is decoded in one call.

        Without `remat` gradients keep everything, which takes a third less time, for frames small enough.
        """
        return self.decoder(latents, remat=remat).astype(jnp.float32)


class Encoder(nnx.Module):
    """diffusers' `Encoder`: residual blocks, halving between levels, one attention at the bottom."""

    def __init__(self, config: VAEConfig, **kw: Unpack[LayerKwargs]):
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = Conv(config.in_channels, channels[0], 3, **kw)
        down_blocks = []
        for level, features in enumerate(channels):
            features_in = [channels[max(level - 1, 0)]] + [features] * (config.layers_per_block - 1)
            resnets = [ResBlock(n, features, None, eps=EPS, groups=groups, **kw) for n in features_in]
            last = level == len(channels) - 1
            down_blocks.append(EncoderBlock(resnets, None if last else Downsample(features, pad=(0, 1), **kw)))
        self.down_blocks = nnx.List(down_blocks)
        self.mid_block = MidBlock(
            [ResBlock(channels[-1], channels[-1], None, eps=EPS, groups=groups, **kw) for _ in range(2)],
            ImageAttention(channels[-1], groups=groups, **kw),
        )
        self.conv_norm_out = GroupNorm(channels[-1], eps=EPS, groups=groups, **kw)
        self.conv_out = Conv(channels[-1], 2 * config.latent_channels, 3, **kw)

    def __call__(self, images: Float[Array, "*batch H W 3"]) -> Float[Array, "*batch h w c"]:
        x = self.conv_in(images)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x, OVER_SPACE)))


class EncoderBlock(nnx.Module):
    """The residual blocks of one level, then halving, if any."""

    def __init__(self, resnets: list[ResBlock], downsampler: Downsample | None):
        self.resnets = nnx.List(resnets)
        self.downsampler = downsampler

    def __call__(self, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h2 w2 d"]:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.downsampler is None else self.downsampler(x)


class ImageAttention(SelfAttention):
    """Single-head self-attention among the pixels of each image, with a group norm and a residual."""

    def __init__(self, channels: int, *, groups: int, **kw: Unpack[LayerKwargs]):
        super().__init__(channels, 1, bias=True, **kw)
        self.group_norm = GroupNorm(channels, eps=EPS, groups=groups, **kw)

    def __call__(self, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h w c"]:
        tokens = rearrange(self.group_norm(x, OVER_SPACE), "... h w c -> ... (h w) c")
        return residual(x, super().__call__(tokens).reshape(x.shape))


class MidBlock(nnx.Module):
    """Residual blocks with one attention after the first of them.

    diffusers pairs its one attention with the second block: a block alone leaves it out, and a third never runs.
    Both keep their parameters, so both are kept here.
    """

    def __init__(self, resnets: list[ResBlock] | list[SpatioTemporalResBlock], attention: ImageAttention):
        self.resnets = nnx.List(resnets)
        self.attentions = nnx.List([attention])

    def __call__(self, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h w c"]:
        x = self.resnets[0](x)
        if len(self.resnets) > 1:
            x = self.resnets[1](self.attentions[0](x))
        return x


class TemporalDecoder(nnx.Module):
    """diffusers' `TemporalDecoder`: spatio-temporal residual blocks, doubling between levels."""

    def __init__(self, config: VAEConfig, **kw: Unpack[LayerKwargs]):
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups

        def resnet(features_in: int, features_out: int) -> SpatioTemporalResBlock:
            return SpatioTemporalResBlock(
                features_in, features_out, None, eps=EPS, temporal_eps=1e-5, groups=groups, decoder=True, **kw
            )

        self.conv_in = Conv(config.latent_channels, channels[0], 3, **kw)
        self.mid_block = MidBlock(
            [resnet(channels[0], channels[0]) for _ in range(config.layers_per_block)],
            ImageAttention(channels[0], groups=groups, **kw),
        )
        up_blocks = []
        for i, features in enumerate(channels):
            features_in = [channels[max(i - 1, 0)]] + [features] * config.layers_per_block
            last = i == len(channels) - 1
            resnets = [resnet(n, features) for n in features_in]
            up_blocks.append(DecoderBlock(resnets, None if last else Upsample(features, **kw)))
        self.up_blocks = nnx.List(up_blocks)
        self.conv_norm_out = GroupNorm(channels[-1], eps=EPS, groups=groups, **kw)
        self.conv_out = Conv(channels[-1], config.out_channels, 3, **kw)
        self.time_conv_out = TemporalConv(config.out_channels, config.out_channels, **kw)

    def __call__(self, latents: Float[Array, "b f h w 4"], *, remat: bool = True) -> Float[Array, "b f H W 3"]:
        x = kept(self.mid_block, remat)(self.conv_in(latents))
        double = None
        for block in self.up_blocks:

            def level(x: Array, block: DecoderBlock = block, double: Upsample | None = double) -> Array:
                return block(x if double is None else double(x), remat=remat)

            # The doubling before a level belongs to it: what is kept is a quarter as large.
            x = kept(level, remat)(x)
            double = block.upsampler
        x = self.conv_out(jax.nn.silu(self.conv_norm_out(x, OVER_SPACE)))
        return self.time_conv_out(x)


class DecoderBlock(nnx.Module):
    """The spatio-temporal residual blocks of one level; and the doubling that follows it, if any, as its parameters."""

    def __init__(self, resnets: list[SpatioTemporalResBlock], upsampler: Upsample | None):
        self.resnets = nnx.List(resnets)
        self.upsampler = upsampler

    def __call__(self, x: Float[Array, "b f h w c"], *, remat: bool = True) -> Float[Array, "b f h w d"]:
        for resnet in self.resnets:
            spatial = _frame_by_frame(kept(resnet.spatial_res_block, remat), x)
            x = kept(resnet.over_time, remat)(spatial)
        return x


def _frame_by_frame(layer: Callable[[Array], Array], x: Float[Array, "b f h w c"]) -> Float[Array, "b f h w d"]:
    """`layer(x)`, which does not mix frames. Large ones, which fill a device one by one, go so, to take less memory."""
    if x.shape[1] == 1 or 4 * math.prod(x.shape[2:]) < FRAME_BYTES:
        return layer(x)
    frames = jnp.moveaxis(x, 1, 0)[:, :, None]  # [f, b, 1, h, w, c]
    return jnp.moveaxis(jax.lax.map(layer, frames)[:, :, 0], 0, 1)
