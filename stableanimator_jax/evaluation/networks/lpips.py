"""LPIPS: how different two images look, by what a network trained on ImageNet makes of them.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018), version 0.1.
"""

from dataclasses import dataclass
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.networks.layers import conv, max_pool
from stableanimator_jax.models.layers import LayerKwargs

Backbone = Literal["vgg", "alex"]

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""Images in [-1, 1] less `SHIFT`, over `SCALE`, are as the backbones were trained on."""
_SMALLEST = 1e-10
_VGG_WIDTHS = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)
_ALEX_WIDTHS = 64, 192, 384, 256, 256
SMALLEST_SIDE: dict[Backbone, int] = {"vgg": 16, "alex": 31}
"""Of an image, in pixels, for every layer to have a place."""


@dataclass(frozen=True)
class LpipsConfig:
    """`backbone` is VGG-16 or AlexNet, both torchvision's."""

    backbone: Backbone = "vgg"


class Lpips(nnx.Module):
    """The distance is the weighted square difference of unit vectors, at every place of five layers."""

    def __init__(self, config: LpipsConfig, **kw: Unpack[LayerKwargs]):
        self.config = config
        self.backbone = Vgg(**kw) if config.backbone == "vgg" else Alex(**kw)
        self.heads = nnx.List(Head(width, **kw) for width in self.backbone.widths)

    def __call__(self, images: Float[Array, "n h w 3"], others: Float[Array, "n h w 3"]) -> Float[Array, " n"]:
        """Distances of RGB images in [-1, 1], a pair a row.

        Raises:
            InputError: the images are not of one shape, or too small for the network.
        """
        smallest = SMALLEST_SIDE[self.config.backbone]
        if images.shape != others.shape or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(f"LPIPS compares RGB images of one shape, got {images.shape} and {others.shape}")
        if min(images.shape[1:3]) < smallest:
            raise InputError(f"LPIPS with {self.config.backbone} takes images of {smallest} pixels a side and more")
        layers = zip(self.heads, self.backbone(_scaled(images)), self.backbone(_scaled(others)), strict=True)
        return sum((head(jnp.square(_unit(a) - _unit(b))) for head, a, b in layers), jnp.zeros(len(images)))


class Vgg(nnx.Module):
    """VGG-16's convolutions: the features of each of five resolutions, the last before each halving."""

    def __init__(self, **kw: Unpack[LayerKwargs]):
        self.widths = tuple(widths[-1] for widths in _VGG_WIDTHS)
        flat = [width for widths in _VGG_WIDTHS for width in widths]
        self.convs = nnx.List(conv(a, b, (3, 3), bias=True, **kw) for a, b in zip([3, *flat[:-1]], flat, strict=True))

    def __call__(self, x: Float[Array, "n h w 3"]) -> list[Float[Array, "n h2 w2 c"]]:
        convs, found = iter(self.convs), []
        for widths in _VGG_WIDTHS:
            x = max_pool(x, 2, 2) if found else x
            for _ in widths:
                x = jax.nn.relu(next(convs)(x))
            found.append(x)
        return found


class Alex(nnx.Module):
    """AlexNet's five convolutions."""

    def __init__(self, **kw: Unpack[LayerKwargs]):
        self.widths = _ALEX_WIDTHS
        first, second, third, fourth, fifth = _ALEX_WIDTHS
        self.convs = nnx.List(
            [
                conv(3, first, (11, 11), stride=4, padding=[(2, 2)] * 2, bias=True, **kw),
                conv(first, second, (5, 5), bias=True, **kw),
                conv(second, third, (3, 3), bias=True, **kw),
                conv(third, fourth, (3, 3), bias=True, **kw),
                conv(fourth, fifth, (3, 3), bias=True, **kw),
            ]
        )

    def __call__(self, x: Float[Array, "n h w 3"]) -> list[Float[Array, "n h2 w2 c"]]:
        found = []
        for n, layer in enumerate(self.convs):
            x = jax.nn.relu(layer(max_pool(x, 3, 2) if n in (1, 2) else x))
            found.append(x)
        return found


class Head(nnx.Module):
    """One weight a channel, which people's judgements taught; the mean over places."""

    def __init__(self, width: int, **kw: Unpack[LayerKwargs]):
        self.weight = nnx.Param(jnp.ones((width,), kw["precision"].params))

    def __call__(self, squares: Float[Array, "n h w c"]) -> Float[Array, " n"]:
        return (squares * self.weight[...].reshape(1, 1, 1, -1)).sum(-1).mean((1, 2))


def _scaled(images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    shift, scale = (jnp.asarray(values, images.dtype).reshape(1, 1, 1, 3) for values in (SHIFT, SCALE))
    return (images - shift) / scale


def _unit(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    return x / (jnp.sqrt(jnp.square(x).sum(-1, keepdims=True)) + _SMALLEST)
