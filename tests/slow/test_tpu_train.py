"""The whole training step at published size, compiled for real TPU slices by the TPU compiler, without one.

Needs libtpu (the [tpu] extra). Prints memory, traffic and time as the compiler's figures predict them; run with `-s`:

    pytest -m slow -s tests/slow/test_tpu_train.py
"""

import importlib.util
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.clips import Clips, Moments, Pixels
from stableanimator_jax.models.attention import compile_for
from stableanimator_jax.models.flops import matmul_flops
from stableanimator_jax.parallel import batch_sharding, make_mesh
from stableanimator_jax.training.config import ObjectiveConfig, OptimizerConfig, TrainableConfig
from stableanimator_jax.training.optimizer import make_optimizer
from stableanimator_jax.training.state import abstract_state, training_blueprints, with_shardings
from stableanimator_jax.training.step import Task, make_step
from stableanimator_jax.training.trainable import split_abstract
from tests.slow.test_tpu_compile import COMPILER_OPTIONS, FRAMES, TPU_ENVIRONMENT
from tests.slow.tpu_report import CHIPS, report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: the [tpu] extra"),
]

CONFIG = StableAnimatorConfig()

# Topology, (height, width), (data, fsdp, frame), clips, whether they were encoded ahead.
CASES = [
    ("v5e:4x4", (512, 512), (1, 16, 1), 16, False),
    ("v5e:4x4", (512, 512), (1, 16, 1), 16, True),
    ("v5e:4x4", (576, 1024), (1, 4, 4), 4, True),
    ("v5p:2x2x2", (512, 512), (1, 8, 1), 8, False),
    ("v5p:2x2x2", (576, 1024), (1, 8, 1), 8, False),
]


def abstract_batch(mesh: Mesh, clips: int, size: tuple[int, int], encoded: bool) -> Clips[jax.Array]:
    height, width = size
    h, w = height // CONFIG.vae.downscale, width // CONFIG.vae.downscale

    def rows(*shape: int, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((clips, *shape), dtype, sharding=batch_sharding(mesh))

    poses = rows(FRAMES, height, width, 3, dtype=jnp.uint8)
    masks = rows(FRAMES, h, w, dtype=jnp.bool_)
    identity = rows(CONFIG.face_encoder.id_embedding_dim, dtype=jnp.float32)
    moments = 2 * CONFIG.vae.latent_channels
    if encoded:
        images = Moments(
            rows(FRAMES, h, w, moments, dtype=jnp.float16),
            rows(h, w, moments, dtype=jnp.float16),
            rows(CONFIG.unet.cross_attention_dim, dtype=jnp.float32),
        )
    else:
        images = Pixels(poses, rows(height, width, 3, dtype=jnp.uint8))
    return Clips(images, poses, masks, identity)


def name_of(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(("topology", "size", "split", "clips", "encoded"), CASES, ids=name_of)
def test_training_step_compiles_and_fits(monkeypatch, topology, size, split, clips, encoded):
    for name, value in TPU_ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    start = time.monotonic()
    mesh = make_mesh(*split, devices=topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    task = Task(training_blueprints(CONFIG, "bfloat16", arcface=False), TrainableConfig(), ObjectiveConfig())
    optimizer = make_optimizer(OptimizerConfig(), 100_000)
    trained, frozen = split_abstract(task.blueprints, task.trainable)
    state = abstract_state(trained, optimizer, mesh, ema=False)
    arguments = state, with_shardings(frozen, mesh), abstract_batch(mesh, clips, size, encoded)
    step = make_step(task, optimizer, mesh)
    with jax.set_mesh(mesh):
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        flops = matmul_flops(step, *arguments)
        with compile_for("tpu"):
            lowered = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None, None)).lower(*arguments)
    compiled: Any = lowered.compile(compiler_options=COMPILER_OPTIONS)
    chip = CHIPS[topology.split(":")[0]]
    found = report(compiled, chip, mesh.size, flops)
    print(
        f"\n{topology}, {clips} clips of {FRAMES} frames of {size[1]}x{size[0]}{' encoded ahead' * encoded}, "
        f"data x fsdp x frame {split}: {found}; compiled in {time.monotonic() - start:.0f} s"
    )
    assert "tpu_custom_call" in compiled.as_text()  # splash attention
    assert found.total < chip.memory_bytes
    # Parameters are gathered and gradients summed; beside them only frames cross, where they are spread.
    assert ("all-to-all" in found.sent) == (split[2] > 1)
