"""PoseNet: skeleton images to features that are added to the output of the UNet's `conv_in`."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.config import PoseNetConfig
from stableanimator_jax.models.layers import Conv, LayerKwargs

_he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")

# (channels in, channels out, kernel, stride); each 4x4 halves height and width.
_CONVOLUTIONS = (
    (3, 3, 3, 1),
    (3, 16, 4, 2),
    (16, 16, 3, 1),
    (16, 32, 4, 2),
    (32, 32, 3, 1),
    (32, 64, 4, 2),
    (64, 64, 3, 1),
    (64, 128, 3, 1),
)


class PoseNet(nnx.Module):
    """Eight convolutions with SiLU, then a 1x1 projection times the learnt `scale`.

    The projection starts at zero, so that an untrained PoseNet leaves SVD as it is.
    """

    def __init__(self, config: PoseNetConfig, **kw: Unpack[LayerKwargs]):
        self.conv_layers = nnx.List(
            Conv(c_in, c_out, k, stride=s, padding=(1, 1), kernel_init=_he_normal, **kw)
            for c_in, c_out, k, s in _CONVOLUTIONS
        )
        self.final_proj = Conv(
            _CONVOLUTIONS[-1][1], config.out_channels, 1, kernel_init=nnx.initializers.zeros_init(), **kw
        )
        self.scale = nnx.Param(jnp.full((1,), 2.0, jnp.float32))

    def __call__(self, poses: Float[Array, "*batch h w 3"]) -> Float[Array, "*batch h//8 w//8 c"]:
        """Features of skeleton images in [-1, 1] whose height and width are multiples of 8."""
        x = poses
        for layer in self.conv_layers:
            x = jax.nn.silu(layer(x))
        x = self.final_proj(x) * self.scale[0]
        return x.astype(self.final_proj.dtype)
