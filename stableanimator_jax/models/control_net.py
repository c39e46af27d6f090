"""ControlNeXt-SVD-v2's control net: skeleton images to features, and how these enter the UNet."""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from stableanimator_jax.config import ControlNetConfig
from stableanimator_jax.models.conditioning import Control
from stableanimator_jax.models.layers import (
    Conv,
    Downsample,
    GroupNorm,
    LayerKwargs,
    TimestepEmbedding,
    residual,
    sinusoidal_embedding,
)
from stableanimator_jax.models.spatio_temporal import OVER_SPACE, ResBlock, Resized, Video

_TIME_SINUSOIDS = 128
_TIME_FEATURES = 256

# (channels in, channels out, stride, padding). The published training code pads all three, its inference code does not.
_EMBEDDING = ((3, 64, 2, 1), (64, 64, 1, 0), (64, 128, 1, 0))
# (channels in, channels out, groups of the norms); each is followed by a halving.
_LEVELS = ((128, 128, 4), (128, 256, 8))
_WIDTH = _LEVELS[-1][1]


class ControlNet(nnx.Module):
    """Features of skeleton images that steer the UNet where its second level begins. Every frame stands by itself."""

    def __init__(self, config: ControlNetConfig, **kw: Unpack[LayerKwargs]):
        self.config = config
        self.dtype = kw["precision"].compute
        self.time_embedding = TimestepEmbedding(_TIME_SINUSOIDS, _TIME_FEATURES, **kw)
        self.embedding = nnx.List(
            ConvNormReLU(c_in, c_out, stride=stride, padding=padding, **kw)
            for c_in, c_out, stride, padding in _EMBEDDING
        )
        self.down_res = nnx.List(
            ResBlock(c_in, c_out, _TIME_FEATURES, eps=1e-6, groups=groups, **kw) for c_in, c_out, groups in _LEVELS
        )
        self.down_sample = nnx.List(Downsample(c_out, pad=(1, 1), **kw) for _, c_out, _ in _LEVELS)
        self.mid = NormedResBlock(_WIDTH, groups=8, **kw)
        self.proj_out = Conv(_WIDTH, config.out_channels, 1, **kw)

    def __call__(self, poses: Float[Array, "b f H W 3"], timestep: Float[Array, "b"]) -> Float[Array, "b f h w c"]:
        """Run the control net.

        Args:
            poses: skeleton images in [0, 1], of 9 or more pixels to a side.
            timestep: 0.25 * ln(sigma) of each video, as the UNet takes it.

        Returns:
            features in the compute dtype. An embedding of e = ceil(side / 2) - 4 pixels to a side is halved twice,
            rounding up: about twice the size that they are pooled to in the UNet.
        """
        time = self.time_embedding(sinusoidal_embedding(timestep, _TIME_SINUSOIDS))
        x = poses
        for layer in self.embedding:
            x = layer(x)
        for block, halve in zip(self.down_res, self.down_sample, strict=True):
            x = halve(block(x, time))
        return self.proj_out(self.mid(x)).astype(self.dtype)


class ConvNormReLU(nnx.Module):
    """A 3x3 convolution, a norm of 2 groups, and ReLU."""

    def __init__(self, features_in: int, features_out: int, *, stride: int, padding: int, **kw: Unpack[LayerKwargs]):
        self.conv = Conv(features_in, features_out, 3, stride=stride, padding=(padding, padding), **kw)
        self.norm = GroupNorm(features_out, eps=1e-5, groups=2, **kw)

    def __call__(self, x: Video) -> Resized:
        return jax.nn.relu(self.norm(self.conv(x), OVER_SPACE))


class NormedResBlock(nnx.Module):
    """Two 3x3 convolutions, each with its norm last, and ReLU before the first norm; added to their input."""

    def __init__(self, channels: int, *, groups: int, **kw: Unpack[LayerKwargs]):
        self.conv1 = Conv(channels, channels, 3, **kw)
        self.norm1 = GroupNorm(channels, eps=1e-5, groups=groups, **kw)
        self.conv2 = Conv(channels, channels, 3, **kw)
        self.norm2 = GroupNorm(channels, eps=1e-5, groups=groups, **kw)

    def __call__(self, x: Video) -> Video:
        y = self.norm1(jax.nn.relu(self.conv1(x)), OVER_SPACE)
        return residual(x, self.norm2(self.conv2(y), OVER_SPACE))


def with_control(hidden: Video, control: Control, eps: float = 1e-5) -> Video:
    """The hidden state with control features added, in float32.

    Each frame's features are given the mean and the (sample) standard deviation that the hidden state has over all of
    its channels and pixels, are then pooled to its size, and multiplied by `control.scale`.
    """
    whole_frame = {"axis": (2, 3, 4), "keepdims": True}
    wanted, features = hidden.astype(jnp.float32), control.features.astype(jnp.float32)
    gain = wanted.std(ddof=1, **whole_frame) / (features.std(ddof=1, **whole_frame) + eps)
    matched = (features - features.mean(**whole_frame)) * gain + wanted.mean(**whole_frame)
    scale = control.scale.astype(jnp.float32)
    scale = scale.reshape(*scale.shape, *(1,) * (hidden.ndim - scale.ndim))  # of each video, or of each frame
    return residual(hidden, adaptive_average_pool(matched, (hidden.shape[2], hidden.shape[3])) * scale)


def adaptive_average_pool(x: Float32[Array, "*batch h w c"], size: tuple[int, int]) -> Float32[Array, "*batch h2 w2 c"]:
    """torch's `adaptive_avg_pool2d` to `size` (height, width), either side smaller or larger."""
    rows, columns = _pooling_matrix(x.shape[-3], size[0]), _pooling_matrix(x.shape[-2], size[1])
    # Accelerators multiply float32 matrices in fewer bits unless told otherwise.
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("oh,...hwc->...owc", rows, x, precision=exact)
    return jnp.einsum("ow,...hwc->...hoc", columns, x, precision=exact)


def _pooling_matrix(n_in: int, n_out: int) -> Float32[np.ndarray, "n_out n_in"]:
    """Along one axis, cell i averages from floor(i n_in / n_out) to ceil((i + 1) n_in / n_out): cells may overlap."""
    cells, places = np.arange(n_out)[:, None], np.arange(n_in)[None]
    inside = (places >= cells * n_in // n_out) & (places < -(-(cells + 1) * n_in // n_out))
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
