"""The published model's guided step, compiled for real TPUs by the TPU compiler, on a machine without one.

Needs libtpu (the [tpu] extra). Prints what the compiler says of the memory a device; run with `-s` to see it:

    pytest -m slow -s tests/slow/test_tpu_compile.py
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
from stableanimator_jax.models.attention import compile_for
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.parallel import batch_sharding, make_mesh, replicated
from stableanimator_jax.sampling.denoiser import Rows, predict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: the [tpu] extra"),
]

# Without these libtpu asks a metadata server, or a real TPU, where it runs.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}

# The same program and collectives in a tenth of the compile time; scheduling is not what is checked.
COMPILER_OPTIONS: Any = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}

GIB = 2**30
HBM_BYTES = {"v5e:2x2": 16 * GIB, "v5p:2x2x1": 95 * GIB}
FRAMES = 16


@pytest.fixture(scope="module", params=HBM_BYTES)
def tpu(request) -> tuple[str, Mesh]:
    """A mesh over four chips that are described, not present."""
    os.environ.update(TPU_ENVIRONMENT)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=request.param)
    return request.param, make_mesh(devices=topology.devices)


def abstract_step(mesh: Mesh, height: int, width: int) -> tuple[Any, ...]:
    """`predict`'s arguments for two guided windows at published size: four rows, one a device."""
    config = StableAnimatorConfig()
    bf16 = Precision(jnp.bfloat16, jnp.bfloat16)
    blueprint = Blueprint(UNet, config.unet, bf16)

    def everywhere(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))

    def by_row(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((4, *shape), dtype, sharding=batch_sharding(mesh))

    params = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=replicated(mesh)), blueprint.abstract_params()
    )
    context = config.unet.cross_attention_dim
    h, w, latent_channels = height // 8, width // 8, config.vae.latent_channels
    return (
        Model(params, blueprint),
        Rows(
            latents=by_row(FRAMES, h, w, latent_channels),
            conditioning=Conditioning(
                image_embedding=by_row(context),
                face_tokens=by_row(config.face_encoder.num_tokens, context),
                added_time_ids=by_row(3),
                image_latents=by_row(h, w, latent_channels),
                pose_features=by_row(FRAMES, h, w, config.pose_net.out_channels, dtype=jnp.bfloat16),
            ),
        ),
        everywhere(),
    )


@pytest.mark.parametrize(("height", "width"), [(512, 512), (576, 1024)])
def test_guided_step_compiles_and_fits(tpu, height, width):
    name, mesh = tpu
    start = time.monotonic()
    with jax.set_mesh(mesh), compile_for("tpu"):
        compiled: Any = predict.lower(*abstract_step(mesh, height, width)).compile(compiler_options=COMPILER_OPTIONS)
    seconds = time.monotonic() - start
    memory, program = compiled.memory_analysis(), compiled.as_text()
    arguments, temporaries, output = (
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.output_size_in_bytes,
    )
    print(
        f"\n{name}, {FRAMES} frames of {width}x{height}, a row a device: arguments {arguments / GIB:.2f} GiB, "
        f"temporaries {temporaries / GIB:.2f} GiB, output {output / GIB:.4f} GiB a device; compiled in {seconds:.0f} s"
    )
    assert arguments + temporaries + output < HBM_BYTES[name]
    assert "tpu_custom_call" in program  # splash attention
    # Rows do not see each other: nothing but what is replicated may cross between devices.
    assert not any(f" {collective}(" in program for collective in ("all-gather", "all-to-all", "all-reduce"))
