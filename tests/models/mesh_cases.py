"""Models on every split of 8 devices against one device: forward, gradients, and what goes between devices.

For `run_on_virtual_devices`: the functions here need 8 devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from stableanimator_jax.config import PoseNetConfig, UNetConfig
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.layers import Downsample, LayerKwargs, Precision
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.spatio_temporal import SpatioTemporalResBlock, SpatioTemporalTransformer, Tokens
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.parallel import fsdp_shardings, make_mesh, replicated, shard_batch
from tests.hlo import Collective, collectives
from tests.random_params import random_params

ROWS = FRAMES = 8
RELATIVE = 1e-5
ZERO = 1e-6
"""Of the largest gradient's norm. What is smaller is a sum that cancels to nothing: a bias before a norm."""
SIDE, CHANNELS, CONTEXT = 8, 64, 16  # the UNet's lower level has half the side: still enough pixels for 8 devices
WHOLE_ACTIVATION = 4 * ROWS * FRAMES * SIDE**2 * CHANNELS
"""Bytes of what goes from layer to layer, on all devices together."""

Split = tuple[int, int, int]


class Level(nnx.Module):
    """PoseNet and one level of the UNet: every kind of layer there is."""

    def __init__(self):
        kw: LayerKwargs = {"precision": Precision(), "rngs": nnx.Rngs(0)}
        self.pose_net = PoseNet(PoseNetConfig(32), **kw)
        self.resnet = SpatioTemporalResBlock(32, CHANNELS, CONTEXT, eps=1e-5, **kw)
        self.transformer = SpatioTemporalTransformer(CHANNELS, CONTEXT, 2, id_injection="distribution_aware", **kw)
        self.downsampler = Downsample(CHANNELS, pad=(1, 1), **kw)

    def __call__(self, poses: jax.Array, time: jax.Array, image: jax.Array, faces: jax.Array) -> jax.Array:
        x = self.resnet(self.pose_net(poses), time)
        return self.downsampler(self.transformer(x, Tokens(image, faces)))


class SmallUNet(nnx.Module):
    """Two levels of one layer each, checkpointed where `remat` is set."""

    def __init__(self, remat: bool):
        config = UNetConfig(
            block_out_channels=(CHANNELS, CHANNELS),
            num_attention_heads=(2, 2),
            layers_per_block=1,
            cross_attention_dim=CONTEXT,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
        )
        self.unet = UNet(config, precision=Precision(), rngs=nnx.Rngs(0))
        self.remat = remat

    def __call__(self, sample: jax.Array, time: jax.Array, image: jax.Array, faces: jax.Array) -> jax.Array:
        conditioning = Conditioning(image, faces, jnp.abs(time[:, :3]), sample[..., 4:])
        return self.unet(sample[..., :4], time[:, 0], conditioning, remat=self.remat)


def level_batch() -> tuple[np.ndarray, ...]:
    return _batch((8 * SIDE, 8 * SIDE, 3), (SIDE // 2, SIDE // 2, CHANNELS))


def unet_batch() -> tuple[np.ndarray, ...]:
    return _batch((SIDE, SIDE, 8), (SIDE, SIDE, 4))


def _batch(image: tuple[int, ...], target: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """What enters first, time, image and face tokens; and a target."""
    shapes = ((FRAMES, *image), (CONTEXT,), (CONTEXT,), (4, CONTEXT), (FRAMES, *target))
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((ROWS, *shape), np.float32) for shape in shapes)


def compare(
    module: Callable[[], nnx.Module],
    batch: tuple[np.ndarray, ...],
    splits: list[Split],
    alone: Callable[[], nnx.Module] | None = None,
) -> None:
    """Require that on every split the output and the gradients to all parameters are one device's.

    A gradient's error is the norm of its difference, relative to its own norm.

    Args:
        module: makes what is split.
        alone: makes what it is compared with, if that is not the same.
    """
    params = random_params(nnx.to_pure_dict(nnx.state(nnx.eval_shape(module))), 0)
    (_, wanted), wanted_gradients = jax.device_get(jax.jit(_step(alone or module))(params, batch))
    negligible = ZERO * max(np.linalg.norm(x) for x in jax.tree.leaves(wanted_gradients))
    for split in splits:
        mesh = make_mesh(*split)
        shardings = fsdp_shardings(params, mesh, smallest=1024)
        arguments = jax.device_put(params, shardings), shard_batch(jax.tree.map(jnp.asarray, batch), mesh)
        with jax.set_mesh(mesh):
            step = jax.jit(_step(module), out_shardings=((replicated(mesh), None), shardings))
            compiled: Any = step.lower(*arguments).compile()
            (_, found), gradients = jax.device_get(compiled(*arguments))
        assert np.linalg.norm(found - wanted) <= RELATIVE * np.linalg.norm(wanted), split
        pairs = zip(jax.tree_util.tree_leaves_with_path(wanted_gradients), jax.tree.leaves(gradients), strict=True)
        for (path, x), y in pairs:
            error = np.linalg.norm(y - x)
            assert error <= max(RELATIVE * np.linalg.norm(x), negligible), (split, path, error, np.linalg.norm(x))
        _require_little_sent(split, collectives(compiled.as_text(), 8))


def _step(module: Callable[[], nnx.Module]) -> Callable[..., Any]:
    graphdef, _ = nnx.split(nnx.eval_shape(module))

    def loss(params: Any, batch: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        *inputs, target = batch
        out = nnx.merge(graphdef, params)(*inputs)
        return jnp.square(out - target).mean(), out

    return jax.value_and_grad(loss, has_aux=True)


def _require_little_sent(split: Split, found: list[Collective]) -> None:
    """Require that parameters are gathered, gradients summed, frames exchanged, and that is all."""
    kinds = {one.kind for one in found}
    _, fsdp, frame = split
    assert ("all-gather" in kinds) == (fsdp > 1), (split, kinds)
    assert ("all-to-all" in kinds) == ("collective-permute" in kinds) == (frame > 1), (split, kinds)
    largest = max(found, key=lambda one: one.bytes * (one.kind in ("all-to-all", "collective-permute")))
    assert largest.bytes <= WHOLE_ACTIVATION / 8 or frame == 1, (split, largest)
