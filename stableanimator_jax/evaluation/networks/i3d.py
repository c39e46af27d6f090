"""I3D, the network of FVD: 16 frames to the logits of Kinetics' 400 actions.

Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017); the RGB stream. FVD takes its logits (Unterthiner
et al., 2018). Layers have the names that the published PyTorch files give them.
"""

from dataclasses import dataclass
from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from stableanimator_jax.evaluation.networks.layers import Unit, conv, max_pool, require_shape
from stableanimator_jax.models.layers import LayerKwargs

FRAMES, SIDE = 16, 224
CLASSES = 400


@dataclass(frozen=True)
class I3DConfig:
    """`eps` is what batch norms add to the variance: 1e-3 as published, 1e-5 in VideoGPT's and cd-fvd's copies.

    The same weights then give other logits, and FVDs of the two cannot be compared.
    """

    eps: float = 1e-3


class I3D(nnx.Module):
    """Padding is XLA's and TensorFlow's "SAME" throughout, which is not symmetric where a stride is 2."""

    def __init__(self, config: I3DConfig, **kw: Unpack[LayerKwargs]):
        def unit(features_in: int, features_out: int, side: int, stride: int = 1) -> Unit:
            return Unit(features_in, features_out, (side,) * 3, stride=stride, padding="SAME", eps=config.eps, **kw)

        def mixed(features_in: int, *widths: int) -> Mixed:
            return Mixed(features_in, widths, config, **kw)

        self.Conv3d_1a_7x7 = unit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = unit(64, 64, 1)
        self.Conv3d_2c_3x3 = unit(64, 192, 3)
        self.Mixed_3b = mixed(192, 64, 96, 128, 16, 32, 32)
        self.Mixed_3c = mixed(256, 128, 128, 192, 32, 96, 64)
        self.Mixed_4b = mixed(480, 192, 96, 208, 16, 48, 64)
        self.Mixed_4c = mixed(512, 160, 112, 224, 24, 64, 64)
        self.Mixed_4d = mixed(512, 128, 128, 256, 24, 64, 64)
        self.Mixed_4e = mixed(512, 112, 144, 288, 32, 64, 64)
        self.Mixed_4f = mixed(528, 256, 160, 320, 32, 128, 128)
        self.Mixed_5b = mixed(832, 256, 160, 320, 32, 128, 128)
        self.Mixed_5c = mixed(832, 384, 192, 384, 48, 128, 128)
        self.logits = conv(1024, CLASSES, (1, 1, 1), bias=True, **kw)

    def __call__(self, clips: Float[Array, "n 16 224 224 3"]) -> Float[Array, "n 400"]:
        """Logits of RGB clips in [-1, 1].

        Raises:
            InputError: the clips are not of 16 frames of 224x224. With others the last average takes in other frames
                in each of the published versions.
        """
        require_shape(clips, (FRAMES, SIDE, SIDE, 3), "I3D")
        x = self.Conv3d_1a_7x7(clips)
        x = max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        x = max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
        x = self.Mixed_3c(self.Mixed_3b(x))
        x = max_pool(x, 3, 2, "SAME")
        for block in (self.Mixed_4b, self.Mixed_4c, self.Mixed_4d, self.Mixed_4e, self.Mixed_4f):
            x = block(x)
        x = max_pool(x, 2, 2, "SAME")
        x = self.Mixed_5c(self.Mixed_5b(x))  # [n, 2, 7, 7, 1024]
        return self.logits(x.mean((1, 2, 3), keepdims=True))[:, 0, 0, 0]


class Mixed(nnx.Module):
    """Four branches side by side: 1x1x1; two times 3x3x3 after 1x1x1; 1x1x1 after a maximum over 3x3x3."""

    def __init__(self, features_in: int, widths: tuple[int, ...], config: I3DConfig, **kw: Unpack[LayerKwargs]):
        def unit(features_in: int, features_out: int, side: int) -> Unit:
            return Unit(features_in, features_out, (side,) * 3, padding="SAME", eps=config.eps, **kw)

        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = unit(features_in, b0, 1)
        self.b1a = unit(features_in, b1a, 1)
        self.b1b = unit(b1a, b1b, 3)
        self.b2a = unit(features_in, b2a, 1)
        self.b2b = unit(b2a, b2b, 3)
        self.b3b = unit(features_in, b3b, 1)

    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t h w d"]:
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(max_pool(x, 3, 1, "SAME"))
        return jnp.concatenate(branches, axis=-1)
