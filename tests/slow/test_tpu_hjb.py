"""The face optimisation's program at published size, compiled for a real TPU by the TPU compiler, without one.

One chunk's program serves videos of any length, so its memory is the optimisation's. Needs libtpu (the [tpu] extra).
Prints what the compiler says of the memory; run with `-s` to see it:

    pytest -m slow -s tests/slow/test_tpu_hjb.py
"""

import importlib.util
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies

from stableanimator_jax.config import ArcFaceConfig, VAEConfig
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.attention import compile_for
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.face_crop import BoxCrops
from stableanimator_jax.sampling.face_region import face_regions
from stableanimator_jax.sampling.hjb import lower_chunk
from tests.slow.test_tpu_compile import COMPILER_OPTIONS, GIB, TPU_ENVIRONMENT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: the [tpu] extra"),
]

CHUNK = 4
ITERATIONS = 3
FACE_SHARE = 0.1
MARGIN = 0.25
DTYPES = ("float32", "bfloat16")
LARGE_CHIP, SMALL_CHIP = "v5p:2x2x1", "v5e:2x2"  # of 95 and 15.75 GiB
LIMITS = {(512, 512): 12e9, (576, 1024): 16e9}
"""Most bytes in all by (height, width)."""

CASES = [
    *((LARGE_CHIP, size, dtype, region) for size in LIMITS for dtype in DTYPES for region in (False, True)),
    # This chip's memory is smaller than the limit, and the compiler refuses what does not fit into it.
    *((SMALL_CHIP, (576, 1024), dtype, False) for dtype in DTYPES),
]


def sharding_on(topology: str) -> jax.sharding.Sharding:
    """One chip that is described, not present."""
    os.environ.update(TPU_ENVIRONMENT)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    return jax.sharding.SingleDeviceSharding(devices[0])


def abstract(kind: type, config: Any, compute: Any) -> Model[Any]:
    blueprint = Blueprint(kind, config, Precision(compute, jnp.float32))
    return Model(blueprint.abstract_params(), blueprint)


def region_round_a_face(height: int, width: int) -> tuple[int, int]:
    """What the region mode decodes, in latent cells, round a square face in the middle of every frame."""
    side = round((FACE_SHARE * height * width) ** 0.5)
    y, x = (height - side) // 2, (width - side) // 2
    boxes = np.tile(np.array([x, y, x + side - 1, y + side - 1], np.float32), (CHUNK, 1))
    downscale = VAEConfig().downscale
    return face_regions(
        BoxCrops(boxes),
        np.ones(CHUNK, bool),
        chunk=CHUNK,
        frame=(height // downscale, width // downscale),
        downscale=downscale,
        margin=MARGIN,
    ).size


@pytest.mark.parametrize(("topology", "size", "compute", "region"), CASES)
def test_chunk_compiles_and_fits(topology, size, compute, region):
    (height, width), start = size, time.monotonic()
    decoded = region_round_a_face(height, width) if region else (height // 8, width // 8)
    with compile_for("tpu"):
        lowered = lower_chunk(
            abstract(VAE, VAEConfig(), jnp.dtype(compute)),
            abstract(ArcFace, ArcFaceConfig(), jnp.dtype(compute)),
            frames=CHUNK,
            latent_size=(height // 8, width // 8),
            iterations=ITERATIONS,
            region=decoded,
            sharding=sharding_on(topology),
        )
    memory: Any = lowered.compile(compiler_options=COMPILER_OPTIONS).memory_analysis()
    arguments, peak = memory.argument_size_in_bytes, memory.peak_memory_in_bytes
    total = arguments + peak
    print(
        f"\n{topology}, {CHUNK} frames of {width}x{height} in {compute}, decoding {8 * decoded[1]}x{8 * decoded[0]}: "
        f"arguments {arguments / GIB:.2f} GiB, peak {peak / GIB:.2f} GiB, {total / 1e9:.2f} GB in all (temporaries "
        f"{memory.temp_size_in_bytes / GIB:.2f} GiB as allotted); compiled in {time.monotonic() - start:.0f} s"
    )
    assert total < LIMITS[size]
