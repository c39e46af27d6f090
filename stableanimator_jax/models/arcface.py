"""ArcFace's face recogniser: an IResNet from an aligned 112x112 face to an identity embedding.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (CVPR 2019).
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.config import ArcFaceConfig
from stableanimator_jax.models.layers import Conv, LayerKwargs, Precision, linear

FACE_SIZE = 112
SMALLEST_NORM = 1e-8  # torch's cosine_similarity guards against zero vectors with it


class ArcFace(nnx.Module):
    """A stem without pooling, four stages that halve the face to 7x7, and a linear head.

    Batch norms use their running statistics unless `train()` is called on the model.
    """

    def __init__(self, config: ArcFaceConfig, **kw: Unpack[LayerKwargs]):
        first, *_, last = config.widths
        side = FACE_SIZE // 2**4
        self.conv1 = Conv(3, first, 3, bias=False, **kw)
        self.bn1 = BatchNorm(first, **kw)
        self.prelu = PReLU(first)
        widths_in = (first, *config.widths[:-1])
        stages = [_stage(*sizes, **kw) for sizes in zip(widths_in, config.widths, config.layers, strict=True)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2 = BatchNorm(last, **kw)
        self.fc = linear(side * side * last, config.embedding_dim, **kw)
        self.features = BatchNorm(config.embedding_dim, **kw)

    def __call__(self, faces: Float[Array, "b 112 112 3"]) -> Float[Array, "b d"]:
        """Raw (not normalised) embedding of RGB faces in [-1, 1]."""
        x = self.prelu(self.bn1(self.conv1(faces)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        x = self.bn2(x)
        return self.features(self.fc(x.reshape(x.shape[0], -1)))


def _stage(width_in: int, width: int, blocks: int, **kw: Unpack[LayerKwargs]) -> nnx.List:
    return nnx.List(Block(width if i else width_in, width, stride=1 if i else 2, **kw) for i in range(blocks))


class Block(nnx.Module):
    """IResNet's residual block. The stride sits in the second convolution; nothing follows the sum."""

    def __init__(self, width_in: int, width: int, *, stride: int, **kw: Unpack[LayerKwargs]):
        self.bn1 = BatchNorm(width_in, **kw)
        self.conv1 = Conv(width_in, width, 3, bias=False, **kw)
        self.bn2 = BatchNorm(width, **kw)
        self.prelu = PReLU(width)
        self.conv2 = Conv(width, width, 3, stride=stride, bias=False, **kw)
        self.bn3 = BatchNorm(width, **kw)
        # Only a stage's first block changes the shape, and it is the one with a stride.
        self.downsample = Shortcut(width_in, width, stride=stride, **kw) if stride > 1 else None

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class Shortcut(nnx.Module):
    """The residual path of a block that changes shape."""

    def __init__(self, width_in: int, width: int, *, stride: int, **kw: Unpack[LayerKwargs]):
        self.conv = Conv(width_in, width, 1, stride=stride, bias=False, **kw)
        self.bn = BatchNorm(width, **kw)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.bn(self.conv(x))


class PReLU(nnx.Module):
    """torch's `PReLU` with one slope a channel, kept in float32."""

    def __init__(self, width: int):
        self.slope = nnx.Param(jnp.full((width,), 0.25, jnp.float32))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return jnp.where(x > 0, x, x * self.slope[...].astype(x.dtype).reshape(1, 1, 1, -1))


class BatchNorm(nnx.BatchNorm):
    """torch's batch norm: parameters, statistics and arithmetic in float32, output in the compute dtype."""

    def __init__(self, width: int, *, precision: Precision, rngs: nnx.Rngs):
        super().__init__(
            width,
            use_running_average=True,
            momentum=0.9,  # torch's 0.1, which weighs the new value
            epsilon=1e-5,
            dtype=jnp.float32,
            use_fast_variance=False,
            rngs=rngs,
        )
        self.compute = precision.compute

    def __call__(
        self, x: Float[Array, "*batch c"], use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> Float[Array, "*batch c"]:
        return super().__call__(x, use_running_average, mask=mask).astype(self.compute)


def cosine(a: Float[Array, "*batch d"], b: Float[Array, "*#batch d"]) -> Float[Array, "*batch"]:
    """How alike faces are by their embeddings, in [-1, 1]; 0 for a zero vector, with a finite gradient there too."""
    return (_unit(a) * _unit(b)).sum(-1)  # no matrix product, which TPUs would take in bfloat16


def _unit(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Vectors of length 1. The gradient of `jnp.linalg.norm` would be NaN at a zero vector."""
    return x / jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), SMALLEST_NORM**2))
