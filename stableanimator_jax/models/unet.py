"""SVD's spatio-temporal UNet with StableAnimator's pose features and ID adapters (paper section 3)."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax import diffusion
from stableanimator_jax.config import UNetConfig
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.control_net import with_control
from stableanimator_jax.models.layers import (
    Conv,
    Downsample,
    GroupNorm,
    LayerKwargs,
    TimestepEmbedding,
    Upsample,
    exact,
    kept,
    residual,
    sinusoidal_embedding,
)
from stableanimator_jax.models.spatio_temporal import (
    OVER_SPACE,
    Resized,
    SpatioTemporalResBlock,
    SpatioTemporalTransformer,
    Tokens,
    Video,
)


class UNet(nnx.Module):
    """Predicts the v-parametrised noise of every frame of a window.

    Parameters are stored in `precision.params` (norms and mix factors in float32) and used in `precision.compute`.
    """

    def __init__(self, config: UNetConfig, **kw: Unpack[LayerKwargs]):
        channels = config.block_out_channels
        levels = len(channels)
        time_features = 4 * channels[0]
        self.config = config
        self.dtype = kw["precision"].compute

        def transformer(level: int) -> SpatioTemporalTransformer:
            return SpatioTemporalTransformer(
                channels[level],
                config.cross_attention_dim,
                config.num_attention_heads[level],
                id_injection=config.id_injection,
                **kw,
            )

        self.conv_in = Conv(config.in_channels, channels[0], 3, **exact(kw))
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
            down_blocks.append(DownBlock(resnets, attentions, downsampler=sampler))
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
            up_blocks.append(UpBlock(resnets, attentions, upsampler=sampler))
        self.up_blocks = nnx.List(up_blocks)

        self.conv_norm_out = GroupNorm(channels[0], eps=1e-5, **kw)
        self.conv_out = Conv(channels[0], config.out_channels, 3, **exact(kw))

    def __call__(
        self,
        latents: Float[Array, "b f h w c"],
        timestep: Float[Array, "b"],
        conditioning: Conditioning,
        *,
        remat: bool = False,
    ) -> Float[Array, "b f h w c"]:
        """Run the UNet.

        Args:
            latents: scaled noisy latents. Height and width must be multiples of `config.downscale`.
            timestep: 0.25 * ln(sigma) of each video.
            remat: keep for the backward pass only what enters the spatial and the temporal half of every block and
                compute the rest again, to train in less memory. Nothing else changes.

        Returns:
            The v-prediction, float32.
        """
        return self._run(latents, timestep, conditioning, remat=remat)[0]

    def keep_deep(
        self, latents: Float[Array, "b f h w c"], timestep: Float[Array, "b"], conditioning: Conditioning, branch: int
    ) -> tuple[Float[Array, "b f h w c"], Float[Array, "b f h2 w2 c2"]]:
        """Run all of it, and keep what came from below `branch` too, for `reuse_deep` at a noise level nearby.

        DeepCache (Ma et al. 2023): skip connection `branch` + 1, counted from the input, and those above it are
        computed in every step, and what they are joined to from below in some. From 0 to `config.skip_connections`
        - 2, where only the lowest block is left out.

        Returns:
            The v-prediction, float32, and the deep features, in the compute dtype.
        """
        return self._run(latents, timestep, conditioning, branch=branch)

    def reuse_deep(
        self,
        latents: Float[Array, "b f h w c"],
        timestep: Float[Array, "b"],
        conditioning: Conditioning,
        deep: Float[Array, "b f h2 w2 c2"],
        branch: int,
    ) -> Float[Array, "b f h w c"]:
        """The v-prediction, float32, from what `keep_deep` kept of the same video and the layers above it."""
        return self._run(latents, timestep, conditioning, branch=branch, deep=deep)[0]

    def _run(
        self,
        latents: Array,
        timestep: Array,
        conditioning: Conditioning,
        *,
        remat: bool = False,
        branch: int = 0,
        deep: Array | None = None,
    ) -> tuple[Array, Array]:
        """The v-prediction, and what enters the layer of the way up that takes skip connection `branch` + 1."""
        time = self._time_embedding(timestep, conditioning.added_time_ids)
        beside = conditioning.image_latents
        if beside.ndim < latents.ndim:
            beside = jnp.broadcast_to(beside[:, None], (*latents.shape[:2], *beside.shape[1:]))
        x = self.conv_in(jnp.concatenate([latents, beside], axis=-1))
        if conditioning.pose_features is not None:
            x = residual(x, conditioning.pose_features)

        faces = conditioning.face_tokens
        tokens = Tokens(
            conditioning.image_embedding.astype(self.dtype),
            None if faces is None else faces.astype(self.dtype),
            conditioning.face_strength,
        )
        above = branch + 2  # skip connections
        left = self.config.skip_connections
        most = left if deep is None else above
        skips = [x.astype(self.dtype)]  # many are kept for long: in the compute dtype they take half the memory
        for level, block in enumerate(self.down_blocks):
            x, outputs = block(x, time, tokens, remat, most - len(skips))
            skips += [output.astype(self.dtype) for output in outputs]
            if level == 0 and conditioning.control is not None and len(skips) < most:  # or nothing reads it
                x = kept(with_control, remat)(x, conditioning.control)
        if deep is None:
            x = self.mid_block(x, time, tokens, remat)
        for block in self.up_blocks:
            for layer in range(len(block.resnets)):
                if left == above:
                    x, deep = (x, x.astype(self.dtype)) if deep is None else (deep.astype(x.dtype), deep)
                if left <= len(skips):
                    x = block.layer(layer, x, skips.pop(), time, tokens, remat)
                left -= 1
            if left < most:
                x = block.resize(x, remat)
        assert deep is not None
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x, OVER_SPACE))).astype(jnp.float32), deep

    def _time_embedding(self, timestep: Float[Array, "b"], added_time_ids: Float[Array, "b 3"]):
        sinusoid = sinusoidal_embedding(timestep, self.config.block_out_channels[0])
        added = sinusoidal_embedding(added_time_ids, self.config.addition_time_embed_dim)
        added = added.reshape(added.shape[0], -1)
        return self.time_embedding(sinusoid) + self.add_embedding(added)


def predict_v(
    unet: UNet,
    noisy: Float[Array, "b f h w c"],
    sigma: Float[Array, "b"] | Float[Array, ""],
    conditioning: Conditioning,
    *,
    remat: bool = False,
) -> Float[Array, "b f h w c"]:
    """The UNet's v-prediction for noisy latents, preconditioned as EDM has it: in sampling and in training.

    `noisy` is latents plus `sigma`, the noise level of each video or of all, times noise.
    """
    return unet(*preconditioned(noisy, sigma), conditioning, remat=remat)


def preconditioned(
    noisy: Float[Array, "b f h w c"], sigma: Float[Array, "b"] | Float[Array, ""]
) -> tuple[Float[Array, "b f h w c"], Float[Array, "b"]]:
    """The UNet's first two arguments, for noisy latents as `predict_v` has them."""
    level = jax.lax.expand_dims(sigma, range(sigma.ndim, noisy.ndim)) if sigma.ndim else sigma
    return diffusion.scale_input(noisy, level), jnp.broadcast_to(diffusion.timestep(sigma), noisy.shape[:1])


class Level(nnx.Module):
    """The residual blocks of one level, a transformer behind each where it has any, and its change of resolution."""

    def __init__(
        self,
        resnets: list[SpatioTemporalResBlock],
        attentions: list[SpatioTemporalTransformer],
        *,
        downsampler: Downsample | None = None,
        upsampler: Upsample | None = None,
    ):
        self.resnets = nnx.List(resnets)
        self.attentions = nnx.List(attentions)
        self.downsampler = downsampler
        self.upsampler = upsampler

    def residual_block(self, i: int, x: Video, time: jax.Array, remat: bool, skip: Resized | None = None) -> Resized:
        """On `x` and a skip beside it, if any: what they are joined to is large, and not kept with `remat`."""
        block = self.resnets[i]

        def over_space(x: Video, skip: Resized | None, time: jax.Array) -> Resized:
            joined = x if skip is None else jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
            return block.spatial_res_block(joined, time)

        return kept(block.over_time, remat)(kept(over_space, remat)(x, skip, time), time)

    def transformer(self, i: int, x: Video, tokens: Tokens, remat: bool) -> Video:
        """The i-th one, or `x` itself in a level that has none."""
        if not self.attentions:
            return x
        layer = self.attentions[i]
        return kept(layer.over_time, remat)(x, kept(layer.over_space, remat)(x, tokens), tokens)


class DownBlock(Level):
    """A level on the way down, then halving, if any. Returns every output, of at most so many, as a skip too."""

    def __call__(
        self, x: Video, time: jax.Array, tokens: Tokens, remat: bool, most: int
    ) -> tuple[Resized, list[Resized]]:
        outputs = []
        for i in range(min(len(self.resnets), most)):
            x = self.transformer(i, self.residual_block(i, x, time, remat), tokens, remat)
            outputs.append(x)
        if self.downsampler is not None and len(outputs) < most:
            x = self.downsampler(x)
            outputs.append(x)
        return x, outputs


class MidBlock(Level):
    """A residual block, a transformer, a residual block, at the lowest resolution."""

    def __call__(self, x: Video, time: jax.Array, tokens: Tokens, remat: bool) -> Video:
        x = self.transformer(0, self.residual_block(0, x, time, remat), tokens, remat)
        return self.residual_block(1, x, time, remat)


class UpBlock(Level):
    """A level on the way up, each of its layers fed one skip, then doubling, if any."""

    def layer(self, i: int, x: Video, skip: Resized, time: jax.Array, tokens: Tokens, remat: bool) -> Video:
        return self.transformer(i, self.residual_block(i, x, time, remat, skip), tokens, remat)

    def resize(self, x: Video, remat: bool) -> Resized:
        return x if self.upsampler is None else kept(self.upsampler, remat)(x)
