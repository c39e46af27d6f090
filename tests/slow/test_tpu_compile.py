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
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.parallel import batch_sharding, make_mesh, replicated, rows_apart
from stableanimator_jax.sampling.decode import decode_each
from stableanimator_jax.sampling.denoiser import Rows, predict
from tests.hlo import collectives, table

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

GIB, MIB = 2**30, 2**20
HBM_BYTES = {"v5e": 16 * GIB, "v5p": 95 * GIB, "v6e": 32 * GIB}
FRAMES = 16
SIZES = [(512, 512), (576, 1024)]


def described(topology: str) -> Any:
    """Chips that are described, not present."""
    os.environ.update(TPU_ENVIRONMENT)
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def abstract_step(mesh: Mesh, height: int, width: int) -> tuple[Any, ...]:
    """`predict`'s arguments at published size: a row for every place along "data"."""
    rows = rows_apart(mesh)
    config = StableAnimatorConfig()
    bf16 = Precision(jnp.bfloat16, jnp.bfloat16)
    blueprint = Blueprint(UNet, config.unet, bf16)

    def everywhere(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))

    def by_row(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=batch_sharding(mesh))

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


LAYOUTS = [
    *((topology, 4, 1) for topology in ("v5e:2x2", "v5p:2x2x1")),
    # Slices of eight: rows alone; a guided window's two rows; one row; and in between.
    *((topology, rows, 8 // rows) for topology in ("v5e:2x4", "v6e:2x4") for rows in (8, 4, 2, 1)),
]


@pytest.mark.parametrize(("height", "width"), SIZES, ids=str)
@pytest.mark.parametrize(("topology", "rows", "frames"), LAYOUTS)
def test_guided_step_compiles_and_fits(topology, rows, frames, height, width):
    mesh = make_mesh(rows, 1, frames, described(topology))
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
    found = collectives(program, mesh.size)
    sent = ", ".join(f"{count} {kind} {size / MIB:.0f} MiB" for kind, (count, size) in table(found).items())
    print(
        f"\n{topology}, {FRAMES} frames of {width}x{height}, {rows} rows, each one's frames on {frames}: "
        f"arguments {arguments / GIB:.2f} GiB, temporaries {temporaries / GIB:.2f} GiB, output {output / GIB:.4f} GiB, "
        f"sent {sent or 'nothing'} a device; compiled in {seconds:.0f} s"
    )
    assert arguments + temporaries + output < HBM_BYTES[topology[:3]]
    assert "tpu_custom_call" in program  # splash attention
    if frames == 1:  # rows do not see each other
        assert not found
    else:  # between the frames' own layers and the temporal ones; nobody gets what belongs to all
        assert any(one.kind == "all-to-all" for one in found)
        assert not [one for one in found if one.kind == "all-gather" and one.bytes > MIB]


@pytest.mark.parametrize("topology", ["v5e:2x4", "v6e:2x4"])
def test_chunks_are_decoded_apart(topology):
    mesh = make_mesh(8, 1, 1, described(topology))
    blueprint = Blueprint(VAE, StableAnimatorConfig().vae, Precision(jnp.float32, jnp.float32))
    whole = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh))  # noqa: E731
    vae = Model(jax.tree.map(whole, blueprint.abstract_params()), blueprint)
    latents = jax.ShapeDtypeStruct((8, 4, 64, 64, 4), jnp.float32, sharding=replicated(mesh))
    with compile_for("tpu"):
        compiled: Any = decode_each.lower(vae, latents, mesh=mesh).compile(compiler_options=COMPILER_OPTIONS)
    memory = compiled.memory_analysis()
    print(
        f"\n{topology}, 8 chunks of 4 frames of 512x512: arguments {memory.argument_size_in_bytes / GIB:.2f} GiB, "
        f"temporaries {memory.temp_size_in_bytes / GIB:.2f} GiB a device"
    )
    assert not collectives(compiled.as_text(), mesh.size)
