"""Building blocks shared by the models, with PyTorch's semantics written out.

Channels are last everywhere. Compute runs in `Precision.compute`; norms keep their parameters and
statistics in float32 whatever it is, and hidden states are `Precision.hidden` from layer to layer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from stableanimator_jax.parallel import on_each_image, whole

_FLOAT32 = jnp.dtype("float32")


@dataclass(frozen=True)
class Precision:
    """The dtype that layers compute in, and the dtype that kernels and biases are stored in."""

    compute: DTypeLike = _FLOAT32
    params: DTypeLike = _FLOAT32

    @property
    def hidden(self) -> DTypeLike:
        """The dtype of hidden states, to which a hundred layers' outputs are added one by one.

        float16 for float16, as published. For bfloat16 it is float32: its 8 bits would lose the small ones.
        """
        return jnp.float16 if self.compute == jnp.float16 else jnp.float32


class LayerKwargs(TypedDict):
    """What every layer takes beside its sizes."""

    precision: Precision
    rngs: nnx.Rngs


def kept(function: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """`function`; with `remat`, its arguments alone are kept for the backward pass."""
    return jax.checkpoint(function) if remat else function


def residual(x: Float[Array, "*shape"], y: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """The hidden state `x` with a layer's output added."""
    return x + y if x.dtype == y.dtype else (x.astype(jnp.float32) + y.astype(jnp.float32)).astype(x.dtype)


def linear(features_in: int, features_out: int, *, bias: bool = True, precision: Precision, rngs: nnx.Rngs):
    """torch's `Linear`. Kernel `[features_in, features_out]`."""
    return nnx.Linear(
        features_in,
        features_out,
        use_bias=bias,
        dtype=precision.compute,
        param_dtype=precision.params,
        dot_general=_with_whole_kernel,
        rngs=rngs,
    )


def exact(kw: LayerKwargs) -> LayerKwargs:
    """For layers whose float32 costs nothing, of a handful of vectors or channels: `kw`, computing in it."""
    return {**kw, "precision": replace(kw["precision"], compute=jnp.float32)}


def _with_whole_kernel(x: Array, kernel: Array, *arguments: Any, **options: Any) -> Array:
    return jax.lax.dot_general(x, whole(kernel), *arguments, **options)


@jax.custom_vjp
def centred_conv(x: Float[Array, "b h w c"], kernel: Float[Array, "k l c d"]) -> Float[Array, "b h w d"]:
    """A convolution of stride 1 with odd kernel sides, padded by half of them.

    Its gradient to `x` is written out as the convolution with the turned kernel that it is: JAX leaves the kernel in
    place and names its axes otherwise, and in a loop XLA's CPU backend runs that a hundred times slower.
    """
    return _conv(x, kernel)


def _conv(x: Array, kernel: Array, stride: int = 1, padding: Sequence[tuple[int, int]] | None = None) -> Array:
    padding = padding or [(side // 2, side // 2) for side in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _conv_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel), (x, kernel)


def _conv_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (to_kernel,) = jax.vjp(lambda k: _conv(x, k), kernel)[1](gradient)
    return _conv(gradient, jnp.swapaxes(kernel[::-1, ::-1], 2, 3)), to_kernel


centred_conv.defvjp(_conv_forward, _conv_backward)


class Conv(nnx.Module):
    """torch's `Conv2d` with a square kernel, stored `[k, k, features_in, features_out]`; leading axes are all batch.

    The convolution runs in the compute dtype; the bias is added as to a hidden state. In float32 XLA fuses that into
    whatever reads the sum; in float16 cuDNN does it within the convolution, and the sum with a hidden state too.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: tuple[int, int] | None = None,
        bias: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),  # noqa: B008 (a pure function)
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        """`padding` is (before, after) along both axes, by default half the kernel (XLA's "SAME" is not torch's)."""
        shape = (kernel_size, kernel_size, features_in, features_out)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, precision.params))
        self.bias = nnx.Param(jnp.zeros((features_out,), precision.params)) if bias else None
        self.stride = stride
        self.padding = (kernel_size // 2, kernel_size // 2) if padding is None else padding
        self.dtype = precision.compute
        self.hidden = precision.hidden

    def __call__(self, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h2 w2 d"]:
        y = on_each_image(self._convolve, x.astype(self.dtype)).astype(self.hidden)
        return y if self.bias is None else y + _along_last(self.bias[...].astype(self.hidden), y.ndim)

    def _convolve(self, images: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        kernel = whole(self.kernel[...].astype(self.dtype))
        half = len(kernel) // 2
        if self.stride == 1 and len(kernel) % 2 and self.padding == (half, half):
            return centred_conv(images, kernel)
        return _conv(images, kernel, self.stride, (self.padding, self.padding))


class LayerNorm(nnx.Module):
    """torch's `LayerNorm` over the last axis: statistics and parameters in float32, output in the compute dtype."""

    def __init__(self, features: int, *, eps: float = 1e-5, precision: Precision, rngs: nnx.Rngs):
        del rngs  # nothing random; taken so that every layer is built alike
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.eps = eps
        self.dtype = precision.compute

    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        x = x.astype(jnp.float32)
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        y = (x - mean) * jax.lax.rsqrt(variance + self.eps)
        return (y * _along_last(self.scale[...], y.ndim) + _along_last(self.bias[...], y.ndim)).astype(self.dtype)


class GroupNorm(nnx.Module):
    """torch's `GroupNorm` over the last axis; all of SVD's have 32 groups.

    Statistics are taken over each group and `axes` (the axes that torch would call spatial), in one pass over memory:
    sums of what is left of every number, and of its square, when the group's mean at its first place is taken off. The
    plain one-pass form, with nothing taken off, cancels catastrophically where the mean is large against the spread.
    """

    def __init__(self, channels: int, *, eps: float, groups: int = 32, precision: Precision, rngs: nnx.Rngs):
        del rngs
        self.groups = groups
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.eps = eps
        self.dtype = precision.compute

    def __call__(self, x: Float[Array, "*batch c"], axes: tuple[int, ...]) -> Float[Array, "*batch c"]:
        """Normalise `x`; `axes` are negative numbers and do not include the channel axis, -1."""
        grouped = x.reshape(*x.shape[:-1], self.groups, -1).astype(jnp.float32)
        over = (*(a - 1 for a in axes), -1)  # the split put one more axis behind the spatial ones
        first = tuple(slice(1) if axis - grouped.ndim in over else slice(None) for axis in range(grouped.ndim - 1))
        shifted = grouped - jax.lax.stop_gradient(grouped[first].mean(-1, keepdims=True))
        mean = shifted.mean(over, keepdims=True)
        variance = jnp.maximum(jnp.square(shifted).mean(over, keepdims=True) - jnp.square(mean), 0)
        y = ((shifted - mean) * jax.lax.rsqrt(variance + self.eps)).reshape(x.shape)
        return (y * _along_last(self.scale[...], y.ndim) + _along_last(self.bias[...], y.ndim)).astype(self.dtype)


def _along_last(parameter: jax.Array, ndim: int) -> jax.Array:
    return parameter.reshape((1,) * (ndim - 1) + (-1,))


class TimestepEmbedding(nnx.Module):
    """Two linear layers with SiLU between, from a sinusoidal embedding to the UNet's time embedding.

    Computes in float32 always: it is a handful of vectors, and bfloat16 cannot tell close noise levels apart.
    """

    def __init__(
        self, features_in: int, hidden: int, features_out: int | None = None, *, precision: Precision, rngs: nnx.Rngs
    ):
        float32 = Precision(jnp.float32, precision.params)
        self.linear_1 = linear(features_in, hidden, precision=float32, rngs=rngs)
        self.linear_2 = linear(hidden, features_out or hidden, precision=float32, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch e"]:
        return self.linear_2(jax.nn.silu(self.linear_1(x)))


def sinusoidal_embedding(t: Float[Array, "*batch"], dim: int) -> Float[Array, "*batch dim"]:
    """diffusers' `Timesteps` as SVD uses it: cosines first, no frequency shift. Float32 in, float32 out."""
    half = dim // 2
    frequencies = jnp.exp(-math.log(10000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.expand_dims(t.astype(jnp.float32), -1) * frequencies.reshape((1,) * t.ndim + (half,))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class GEGLU(nnx.Module):
    """diffusers' gated feed-forward: 4x wide, exact GELU on the gate (the second half of the projection)."""

    def __init__(self, features: int, **kw: Unpack[LayerKwargs]):
        self.proj = linear(features, 8 * features, **kw)
        self.out = linear(4 * features, features, **kw)

    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        hidden, gate = jnp.split(self.proj(x).astype(jnp.float32), 2, axis=-1)  # one fusion: no float32 in memory
        return self.out(hidden * jax.nn.gelu(gate, approximate=False))


class Downsample(nnx.Module):
    """Stride-2 convolution over height and width. The VAE's encoder pads after only, the UNet on both sides."""

    def __init__(self, channels: int, *, pad: tuple[int, int], **kw: Unpack[LayerKwargs]):
        self.conv = Conv(channels, channels, 3, stride=2, padding=pad, **kw)

    def __call__(self, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h2 w2 c"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Nearest-neighbour doubling of height and width, then a 3x3 convolution."""

    def __init__(self, channels: int, **kw: Unpack[LayerKwargs]):
        self.conv = Conv(channels, channels, 3, **kw)

    def __call__(self, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h2 w2 c"]:
        return self.conv(jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2))
