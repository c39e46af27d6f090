"""FID's Inception v3: the network of TensorFlow's 2015 graph, as pytorch-fid has it, to 2048 pooled features.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (CVPR 2016); FID is Heusel et al. (2017).
Two things set it apart from torchvision's: averages over 3x3 leave out what is padded, and the last block's pool is a
maximum. Layers have the names that pytorch-fid's file gives them.
"""

from dataclasses import dataclass
from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.evaluation.networks.layers import Padding, Unit, max_pool, require_shape
from stableanimator_jax.models.layers import LayerKwargs

SIDE = 299
FEATURES = 2048


@dataclass(frozen=True)
class InceptionConfig:
    """`eps` is what batch norms add to the variance."""

    eps: float = 1e-3


class Inception(nnx.Module):
    """As far as the features go; the file's classifier is left out."""

    def __init__(self, config: InceptionConfig, **kw: Unpack[LayerKwargs]):
        make = _Make(config, kw)
        self.Conv2d_1a_3x3 = make(3, 32, 3, stride=2, padding="VALID")
        self.Conv2d_2a_3x3 = make(32, 32, 3, padding="VALID")
        self.Conv2d_2b_3x3 = make(32, 64, 3)
        self.Conv2d_3b_1x1 = make(64, 80, 1)
        self.Conv2d_4a_3x3 = make(80, 192, 3, padding="VALID")
        self.Mixed_5b = Mixed35(192, 32, make)
        self.Mixed_5c = Mixed35(256, 64, make)
        self.Mixed_5d = Mixed35(288, 64, make)
        self.Mixed_6a = To17(make)
        self.Mixed_6b = Mixed17(128, make)
        self.Mixed_6c = Mixed17(160, make)
        self.Mixed_6d = Mixed17(160, make)
        self.Mixed_6e = Mixed17(192, make)
        self.Mixed_7a = To8(make)
        self.Mixed_7b = Mixed8(1280, "average", make)
        self.Mixed_7c = Mixed8(2048, "maximum", make)

    def __call__(self, images: Float[Array, "n 299 299 3"]) -> Float[Array, "n 2048"]:
        """Features of RGB images in [-1, 1].

        Raises:
            InputError: the images are not 299x299.
        """
        require_shape(images, (SIDE, SIDE, 3), "FID's Inception")
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = max_pool(x, 3, 2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = max_pool(x, 3, 2)
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b, self.Mixed_6c):
            x = block(x)
        for block in (self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c):
            x = block(x)
        return x.mean((1, 2))


class _Make:
    """Makes units of one network, so that each is one line of its widths; its kernel is square or (height, width)."""

    def __init__(self, config: InceptionConfig, kw: LayerKwargs):
        self.config, self.kw = config, kw

    def __call__(
        self, width: int, to: int, kernel: int | tuple[int, int], stride: int = 1, padding: Padding | None = None
    ) -> Unit:
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        return Unit(width, to, sides, stride=stride, padding=padding, eps=self.config.eps, **self.kw)


class Mixed35(nnx.Module):
    """At 35x35 places."""

    def __init__(self, width: int, pooled: int, make: _Make):
        self.branch1x1 = make(width, 64, 1)
        self.branch5x5_1 = make(width, 48, 1)
        self.branch5x5_2 = make(48, 64, 5)
        self.branch3x3dbl_1 = make(width, 64, 1)
        self.branch3x3dbl_2 = make(64, 96, 3)
        self.branch3x3dbl_3 = make(96, 96, 3)
        self.branch_pool = make(width, pooled, 1)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        branches = self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_average(x))
        return jnp.concatenate(branches, axis=-1)


class To17(nnx.Module):
    """From 35x35 places to 17x17."""

    def __init__(self, make: _Make):
        self.branch3x3 = make(288, 384, 3, stride=2, padding="VALID")
        self.branch3x3dbl_1 = make(288, 64, 1)
        self.branch3x3dbl_2 = make(64, 96, 3)
        self.branch3x3dbl_3 = make(96, 96, 3, stride=2, padding="VALID")

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch3x3(x), double, max_pool(x, 3, 2)], axis=-1)


class Mixed17(nnx.Module):
    """At 17x17 places; 7x7 as a row and a column."""

    def __init__(self, inner: int, make: _Make):
        self.branch1x1 = make(768, 192, 1)
        self.branch7x7_1 = make(768, inner, 1)
        self.branch7x7_2 = make(inner, inner, (1, 7))
        self.branch7x7_3 = make(inner, 192, (7, 1))
        self.branch7x7dbl_1 = make(768, inner, 1)
        self.branch7x7dbl_2 = make(inner, inner, (7, 1))
        self.branch7x7dbl_3 = make(inner, inner, (1, 7))
        self.branch7x7dbl_4 = make(inner, inner, (7, 1))
        self.branch7x7dbl_5 = make(inner, 192, (1, 7))
        self.branch_pool = make(768, 192, 1)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return jnp.concatenate([self.branch1x1(x), single, double, self.branch_pool(_average(x))], axis=-1)


class To8(nnx.Module):
    """From 17x17 places to 8x8."""

    def __init__(self, make: _Make):
        self.branch3x3_1 = make(768, 192, 1)
        self.branch3x3_2 = make(192, 320, 3, stride=2, padding="VALID")
        self.branch7x7x3_1 = make(768, 192, 1)
        self.branch7x7x3_2 = make(192, 192, (1, 7))
        self.branch7x7x3_3 = make(192, 192, (7, 1))
        self.branch7x7x3_4 = make(192, 192, 3, stride=2, padding="VALID")

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        deep = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        branches = self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(deep), max_pool(x, 3, 2)
        return jnp.concatenate(branches, axis=-1)


class Mixed8(nnx.Module):
    """At 8x8 places; 3x3 as a row beside a column."""

    def __init__(self, width: int, pool: str, make: _Make):
        self.pool = pool
        self.branch1x1 = make(width, 320, 1)
        self.branch3x3_1 = make(width, 384, 1)
        self.branch3x3_2a = make(384, 384, (1, 3))
        self.branch3x3_2b = make(384, 384, (3, 1))
        self.branch3x3dbl_1 = make(width, 448, 1)
        self.branch3x3dbl_2 = make(448, 384, 3)
        self.branch3x3dbl_3a = make(384, 384, (1, 3))
        self.branch3x3dbl_3b = make(384, 384, (3, 1))
        self.branch_pool = make(width, 192, 1)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = _average(x) if self.pool == "average" else max_pool(x, 3, 1, "SAME")
        branches = (
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        )
        return jnp.concatenate(branches, axis=-1)


def _average(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """The mean of those of 3x3 neighbours that there are."""
    return nnx.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
