"""Stage of the report: the production training step on clips that were encoded ahead, with random weights."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks._case import Case, Row, plan, timed
from benchmarks._device import random_model
from stableanimator_jax.config import StoredDtype
from stableanimator_jax.data.clips import Clips, Moments
from stableanimator_jax.models.flops import matmul_rate
from stableanimator_jax.parallel import batch_sharding, fsdp_shardings, make_mesh
from stableanimator_jax.runtime import training_dtype
from stableanimator_jax.training.config import ObjectiveConfig, OptimizerConfig, TrainableConfig
from stableanimator_jax.training.optimizer import make_optimizer
from stableanimator_jax.training.state import TrainState, begin, training_blueprints
from stableanimator_jax.training.step import Task, make_step
from stableanimator_jax.training.step_flops import step_flops
from stableanimator_jax.training.trainable import Params, split_abstract
from stableanimator_jax.weights.rules import dotted, flatten


def training_task(case: Case, dtype: StoredDtype) -> Task:
    """The UNet's attention layers are trained, which is the default."""
    blueprints = training_blueprints(case.config, dtype, arcface=False)
    return Task(blueprints, TrainableConfig(), ObjectiveConfig())


def random_parameters(task: Task, mesh: Mesh) -> tuple[Params, Params]:
    """Trained and frozen parameters that never were on the host."""
    abstract = split_abstract(task.blueprints, task.trainable)
    trained, frozen = parts = ({}, {})
    for model, blueprint in task.blueprints.items():
        leaves = {dotted(path): leaf for path, leaf in flatten(random_model(blueprint).params).items()}
        for part, shapes in zip(parts, abstract, strict=True):
            if wanted := shapes.get(model):
                part[model] = {name: jnp.asarray(leaves.pop(name), leaf.dtype) for name, leaf in wanted.items()}
    return jax.device_put((trained, frozen), (fsdp_shardings(trained, mesh), fsdp_shardings(frozen, mesh)))


def random_batch(case: Case) -> Clips[jax.Array]:
    """One clip: noise of its shapes, a face in the middle of every frame."""
    (h, w), f = case.latent_size, case.frames
    keys = iter(jax.random.split(jax.random.key(1), 5))

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), (1, *shape), jnp.float32)

    channels = 2 * case.config.vae.latent_channels
    images = Moments(
        normal(f, h, w, channels).astype(jnp.float16),
        normal(h, w, channels).astype(jnp.float16),
        normal(case.config.unet.cross_attention_dim),
    )
    poses = jax.random.randint(next(keys), (1, f, case.height, case.width, 3), 0, 256, jnp.uint8)
    masks = jnp.zeros((1, f, h, w), bool).at[:, :, h // 4 : h // 2, w // 4 : w // 2].set(True)
    identity = normal(case.config.face_encoder.id_embedding_dim)
    return Clips(images, poses, masks, identity)


def time_steps(
    step: Callable[..., Any], state: TrainState, frozen: Params, batch: Clips[jax.Array], steps: int
) -> list[float]:
    """Seconds from the end of each step to the end of the next, each handed over while the one before runs."""
    ends, losses = [], []
    for _ in range(steps + 3):
        state, metrics, _ = step(state, frozen, batch)
        losses.append(metrics.loss)
        if len(losses) > 1:
            jax.block_until_ready(losses[-2])
            ends.append(time.perf_counter())
    if not all(math.isfinite(loss) for loss in losses):
        raise FloatingPointError(f"the losses are {[float(loss) for loss in losses]}")
    return [after - before for before, after in itertools.pairwise(ends[1:])]


def measure(case: Case) -> Iterator[Row]:
    """What comes before the first step, part by part; the steps; and what the program plans to take of memory."""
    dtype, mesh = training_dtype("auto"), make_mesh(data=1)
    task, optimizer = training_task(case, dtype), make_optimizer(OptimizerConfig(), steps=100_000)
    start = time.perf_counter()
    trained, frozen = random_parameters(task, mesh)
    batch = jax.device_put(random_batch(case), batch_sharding(mesh))
    flop = step_flops(task, trained, frozen, batch)
    state = jax.block_until_ready(begin(trained, optimizer, mesh, ema=False, seed=0))
    del trained  # which the first step takes the memory of
    yield timed("making the training state, counting a step's arithmetic", time.perf_counter() - start)
    with jax.set_mesh(mesh):
        start = time.perf_counter()
        lowered = jax.jit(make_step(task, optimizer, mesh), donate_argnums=0).lower(state, frozen, batch)
        yield timed("tracing a training step", time.perf_counter() - start)
        start = time.perf_counter()
        step = lowered.compile()
        yield timed("compiling a training step", time.perf_counter() - start)
        yield plan("training step's program", step)
        seconds = time_steps(step, state, frozen, batch, case.steps)
    yield timed("training step, encoded clips", *seconds, flop=flop, rate=matmul_rate(dtype), dtype=dtype)
