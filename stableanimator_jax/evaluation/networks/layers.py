"""What the metrics' networks share: Flax's own convolutions and batch norms, told their sizes in PyTorch's order.

Channels are last. Batch norms always use the statistics that their file has; nothing here is trained.
"""

from collections.abc import Sequence
from typing import Any, Unpack, cast

import jax
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.errors import InputError
from stableanimator_jax.models.layers import LayerKwargs, Precision

Padding = str | Sequence[tuple[int, int]]


def conv(
    features_in: int,
    features_out: int,
    kernel: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding | None = None,
    bias: bool = False,
    precision: Precision,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution over as many axes as `kernel` has; `padding` is by default half the kernel on both sides."""
    return nnx.Conv(
        features_in,
        features_out,
        tuple(kernel),
        strides=stride,
        padding=[(side // 2, side // 2) for side in kernel] if padding is None else padding,
        use_bias=bias,
        dtype=precision.compute,
        param_dtype=precision.params,
        rngs=rngs,
    )


def batch_norm(width: int, eps: float, *, precision: Precision, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """torch's batch norm in evaluation. `eps` has no default: published networks differ in it, and by a lot."""
    return nnx.BatchNorm(
        width,
        use_running_average=True,
        epsilon=eps,
        dtype=precision.compute,
        param_dtype=precision.params,
        rngs=rngs,
    )


class Unit(nnx.Module):
    """A convolution without bias, a batch norm and ReLU: all that I3D and Inception are made of."""

    def __init__(
        self,
        features_in: int,
        features_out: int,
        kernel: Sequence[int],
        *,
        eps: float,
        stride: int | Sequence[int] = 1,
        padding: Padding | None = None,
        **kw: Unpack[LayerKwargs],
    ):
        self.conv = conv(features_in, features_out, kernel, stride=stride, padding=padding, **kw)
        self.bn = batch_norm(features_out, eps, **kw)

    def __call__(self, x: Float[Array, "n *size c"]) -> Float[Array, "n *size2 d"]:
        return jax.nn.relu(self.bn(self.conv(x)))


def max_pool(
    x: Float[Array, "n *size c"], kernel: int | Sequence[int], stride: int | Sequence[int], padding: Padding = "VALID"
) -> Float[Array, "n *size2 c"]:
    """The largest of each window, over all axes but the first and the last. Padding never is the largest."""
    axes = x.ndim - 2
    sides = (kernel,) * axes if isinstance(kernel, int) else tuple(kernel)
    steps = (stride,) * axes if isinstance(stride, int) else tuple(stride)
    return nnx.max_pool(x, sides, strides=steps, padding=cast(Any, padding))  # it takes pairs too


def require_shape(array: Float[Array, "..."], wanted: tuple[int, ...], what: str) -> None:
    """Raise `InputError` unless each row of `array` has the shape `wanted`, which cannot be seen from the result."""
    if array.shape[1:] != wanted:
        raise InputError(f"{what} takes rows of {_times(wanted)}, got {_times(array.shape[1:])}")


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "nothing"
