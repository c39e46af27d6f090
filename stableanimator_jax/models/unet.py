"""SVD's spatio-temporal UNet with StableAnimator's pose features and ID adapters (paper section 3)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.config import UNetConfig
from stableanimator_jax.models.layers import (
    Conv,
    Downsample,
    GroupNorm,
    LayerKwargs,
    Precision,
    TimestepEmbedding,
    Upsample,
    residual,
    sinusoidal_embedding,
)
from stableanimator_jax.models.spatio_temporal import (
    OVER_SPACE,
    SpatioTemporalResBlock,
    SpatioTemporalTransformer,
    Video,
)


class UNet(nnx.Module):
    """Predicts the v-parametrised noise of every frame of a window.

    Parameters are stored in `precision.params` (norms and mix factors in float32) and used in `precision.compute`.
    """

    def __init__(self, config: UNetConfig, *, precision: Precision, rngs: nnx.Rngs):
        kw: LayerKwargs = {"precision": precision, "rngs": rngs}
        channels = config.block_out_channels
        levels = len(channels)
        time_features = 4 * channels[0]
        self.config = config
        self.dtype = precision.compute

        def transformer(level: int) -> SpatioTemporalTransformer:
            return SpatioTemporalTransformer(
                channels[level],
                config.cross_attention_dim,
                config.num_attention_heads[level],
                id_injection=config.id_injection,
                **kw,
            )

        self.conv_in = Conv(config.in_channels, channels[0], 3, **kw)
        self.time_embedding = TimestepEmbedding(channels[0], time_features, **kw)
        self.add_embedding = TimestepEmbedding(config.projection_class_embeddings_input_dim, time_features, **kw)

        down_blocks = []
        for level in range(levels):
            last = level == levels - 1
            features_in = [channels[max(level - 1, 0)]] + [channels[level]] * (config.layers_per_block - 1)
            # diffusers gives blocks with and without attention different eps, and so are SVD's weights trained.
            eps = 1e-5 if last else 1e-6
            resnets = [SpatioTemporalResBlock(n, channels[level], time_features, eps=eps, **kw) for n in features_in]
            attentions = [] if last else [transformer(level) for _ in resnets]
            sampler = None if last else Downsample(channels[level], pad=(1, 1), **kw)
            down_blocks.append(DownBlock(resnets, attentions, sampler))
        self.down_blocks = nnx.List(down_blocks)

        self.mid_block = MidBlock(
            [SpatioTemporalResBlock(channels[-1], channels[-1], time_features, eps=1e-5, **kw) for _ in range(2)],
            [transformer(levels - 1)],
        )

        up_blocks = []
        for level in reversed(range(levels)):
            below, above = channels[min(level + 1, levels - 1)], channels[max(level - 1, 0)]
            layers = config.layers_per_block + 1
            hidden = [below] + [channels[level]] * (layers - 1)
            skips = [channels[level]] * (layers - 1) + [above]
            resnets = [
                SpatioTemporalResBlock(a + b, channels[level], time_features, eps=1e-6, **kw)
                for a, b in zip(hidden, skips, strict=True)
            ]
            attentions = [] if level == levels - 1 else [transformer(level) for _ in resnets]
            sampler = None if level == 0 else Upsample(channels[level], **kw)
            up_blocks.append(UpBlock(resnets, attentions, sampler))
        self.up_blocks = nnx.List(up_blocks)

        self.conv_norm_out = GroupNorm(channels[0], eps=1e-5, **kw)
        self.conv_out = Conv(channels[0], config.out_channels, 3, **kw)

    def __call__(
        self,
        sample: Float[Array, "b f h w c_in"],
        timestep: Float[Array, "b"],
        image_embedding: Float[Array, "b d"],
        face_tokens: Float[Array, "b n d"] | None,
        added_time_ids: Float[Array, "b 3"],
        pose_features: Float[Array, "b f h w c"] | None = None,
        *,
        remat: bool = False,
    ) -> Float[Array, "b f h w c_out"]:
        """Run the UNet.

        Args:
            sample: scaled noisy latents and the condition latents, on the channel axis. Height and width must be
                multiples of `config.downscale`.
            timestep: 0.25 * ln(sigma) of each video.
            image_embedding: CLIP's projected image embedding: the one image token. Zero: unconditional.
            face_tokens: the Face Encoder's tokens; None leaves the ID adapters out (plain SVD).
            added_time_ids: (fps - 1, motion bucket, noise augmentation strength).
            pose_features: PoseNet's output, added after the first convolution; None adds nothing.
            remat: keep for the backward pass only what enters the spatial and the temporal half of every block and
                compute the rest again, to train in less memory. Nothing else changes.

        Returns:
            The v-prediction, float32.
        """
        time = self._time_embedding(timestep, added_time_ids)
        image_embedding = image_embedding.astype(self.dtype)
        face_tokens = None if face_tokens is None else face_tokens.astype(self.dtype)

        x = self.conv_in(sample)
        if pose_features is not None:
            x = residual(x, pose_features)
        skips = [x.astype(self.dtype)]  # many are kept for long: in the compute dtype they take half the memory
        for block in self.down_blocks:
            x, outputs = block(x, time, image_embedding, face_tokens, remat)
            skips += [output.astype(self.dtype) for output in outputs]
        x = self.mid_block(x, time, image_embedding, face_tokens, remat)
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, taken = skips[:-count], skips[-count:]
            x = block(x, taken[::-1], time, image_embedding, face_tokens, remat)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x, OVER_SPACE)))

    def _time_embedding(self, timestep: Float[Array, "b"], added_time_ids: Float[Array, "b 3"]):
        sinusoid = sinusoidal_embedding(timestep, self.config.block_out_channels[0])
        added = sinusoidal_embedding(added_time_ids, self.config.addition_time_embed_dim)
        added = added.reshape(added.shape[0], -1)
        return self.time_embedding(sinusoid) + self.add_embedding(added)


def _residual_block(
    block: SpatioTemporalResBlock, x: Video, time: jax.Array, remat: bool, skip: Video | None = None
) -> Video:
    """`block`, on `x` and a skip beside it, if any: what they are joined to is large, and not kept with `remat`."""

    def over_space(x: Video, skip: Video | None, time: jax.Array) -> Video:
        joined = x if skip is None else jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
        return block.spatial_res_block(joined, time)

    return _kept(block.over_time, remat)(_kept(over_space, remat)(x, skip, time), time)


def _transformer(
    layer: SpatioTemporalTransformer,
    x: Video,
    image_embedding: jax.Array,
    face_tokens: jax.Array | None,
    remat: bool,
) -> Video:
    spatial = _kept(layer.over_space, remat)(x, image_embedding, face_tokens)
    return _kept(layer.over_time, remat)(x, spatial, image_embedding)


def _kept(function: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """`function`; with `remat`, its arguments alone are kept for the backward pass."""
    return jax.checkpoint(function) if remat else function


class DownBlock(nnx.Module):
    """The layers of one level on the way down, then halving, if any. Returns every output as a skip too."""

    def __init__(
        self,
        resnets: list[SpatioTemporalResBlock],
        attentions: list[SpatioTemporalTransformer],
        downsampler: Downsample | None,
    ):
        self.resnets = nnx.List(resnets)
        if attentions:
            self.attentions = nnx.List(attentions)
        if downsampler is not None:
            self.downsampler = downsampler

    def __call__(
        self, x: Video, time: jax.Array, image_embedding: jax.Array, face_tokens: jax.Array | None, remat: bool
    ) -> tuple[Video, list[Video]]:
        outputs = []
        for i, resnet in enumerate(self.resnets):
            x = _residual_block(resnet, x, time, remat)
            if hasattr(self, "attentions"):
                x = _transformer(self.attentions[i], x, image_embedding, face_tokens, remat)
            outputs.append(x)
        if hasattr(self, "downsampler"):
            x = self.downsampler(x)
            outputs.append(x)
        return x, outputs


class MidBlock(nnx.Module):
    """A residual block, a transformer, a residual block, at the lowest resolution."""

    def __init__(self, resnets: list[SpatioTemporalResBlock], attentions: list[SpatioTemporalTransformer]):
        self.resnets = nnx.List(resnets)
        self.attentions = nnx.List(attentions)

    def __call__(
        self, x: Video, time: jax.Array, image_embedding: jax.Array, face_tokens: jax.Array | None, remat: bool
    ) -> Video:
        x = _residual_block(self.resnets[0], x, time, remat)
        x = _transformer(self.attentions[0], x, image_embedding, face_tokens, remat)
        return _residual_block(self.resnets[1], x, time, remat)


class UpBlock(nnx.Module):
    """The layers of one level on the way up, each fed one skip, then doubling, if any."""

    def __init__(
        self,
        resnets: list[SpatioTemporalResBlock],
        attentions: list[SpatioTemporalTransformer],
        upsampler: Upsample | None,
    ):
        self.resnets = nnx.List(resnets)
        if attentions:
            self.attentions = nnx.List(attentions)
        if upsampler is not None:
            self.upsampler = upsampler

    def __call__(
        self,
        x: Video,
        skips: list[Video],
        time: jax.Array,
        image_embedding: jax.Array,
        face_tokens: jax.Array | None,
        remat: bool,
    ) -> Video:
        for i, (resnet, skip) in enumerate(zip(self.resnets, skips, strict=True)):
            x = _residual_block(resnet, x, time, remat, skip)
            if hasattr(self, "attentions"):
                x = _transformer(self.attentions[i], x, image_embedding, face_tokens, remat)
        return _kept(self.upsampler, remat)(x) if hasattr(self, "upsampler") else x
