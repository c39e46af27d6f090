"""The 3D ResNet-50 of FID-VID, trained on Kinetics-400: 16 frames to 2048 features.

Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?" (CVPR 2018). Layers have the
names that the published PyTorch file gives them.
"""

from dataclasses import dataclass
from typing import Unpack

import jax
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.evaluation.networks.layers import batch_norm, conv, max_pool, require_shape
from stableanimator_jax.models.layers import LayerKwargs

FRAMES, SIDE = 16, 112
FEATURES = 2048


@dataclass(frozen=True)
class ResNet3DConfig:
    """`blocks` has those of each stage; `eps` is what batch norms add to the variance."""

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    eps: float = 1e-5


class ResNet3D(nnx.Module):
    """As far as the features go; the file's classifier is left out. Padding is symmetric."""

    def __init__(self, config: ResNet3DConfig, **kw: Unpack[LayerKwargs]):
        def stage(features_in: int, width: int, blocks: int, stride: int) -> nnx.List:
            first = Bottleneck(features_in, width, stride, config.eps, **kw)
            return nnx.List([first, *(Bottleneck(4 * width, width, 1, config.eps, **kw) for _ in range(blocks - 1))])

        self.conv1 = conv(3, 64, (7, 7, 7), stride=(1, 2, 2), **kw)
        self.bn1 = batch_norm(64, config.eps, **kw)
        self.layer1 = stage(64, 64, config.blocks[0], 1)
        self.layer2 = stage(256, 128, config.blocks[1], 2)
        self.layer3 = stage(512, 256, config.blocks[2], 2)
        self.layer4 = stage(1024, 512, config.blocks[3], 2)

    def __call__(self, clips: Float[Array, "n 16 112 112 3"]) -> Float[Array, "n 2048"]:
        """Features of RGB clips in 0 to 255 less the mean colour of its data; they are divided by nothing.

        Raises:
            InputError: the clips are not of 16 frames of 112x112.
        """
        require_shape(clips, (FRAMES, SIDE, SIDE, 3), "the 3D ResNet")
        x = jax.nn.relu(self.bn1(self.conv1(clips)))
        x = max_pool(x, 3, 2, [(1, 1)] * 3)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        return x.mean((1, 2, 3))


class Bottleneck(nnx.Module):
    """1x1x1 to a quarter of the channels, 3x3x3, and 1x1x1 back, beside a shortcut."""

    def __init__(self, features_in: int, width: int, stride: int, eps: float, **kw: Unpack[LayerKwargs]):
        out = 4 * width
        self.conv1 = conv(features_in, width, (1, 1, 1), **kw)
        self.bn1 = batch_norm(width, eps, **kw)
        self.conv2 = conv(width, width, (3, 3, 3), stride=stride, **kw)
        self.bn2 = batch_norm(width, eps, **kw)
        self.conv3 = conv(width, out, (1, 1, 1), **kw)
        self.bn3 = batch_norm(out, eps, **kw)
        changes = stride > 1 or features_in != out
        self.downsample = Shortcut(features_in, out, stride, eps, **kw) if changes else None

    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t2 h2 w2 d"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        x = jax.nn.relu(self.bn2(self.conv2(x)))
        return jax.nn.relu(self.bn3(self.conv3(x)) + shortcut)


class Shortcut(nnx.Module):
    """Of a stage's first block, which changes the shape."""

    def __init__(self, features_in: int, features_out: int, stride: int, eps: float, **kw: Unpack[LayerKwargs]):
        self.conv = conv(features_in, features_out, (1, 1, 1), stride=stride, **kw)
        self.bn = batch_norm(features_out, eps, **kw)

    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t2 h2 w2 d"]:
        return self.bn(self.conv(x))
