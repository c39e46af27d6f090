"""The published UNet at its full size, 1.55 G parameters in float32, against the published code.

Prints how long it took and the most memory it held; run it with `-s` to see that:

    pytest -m slow -s tests/slow/test_full_size.py
"""

import resource
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.weights.rules import plan_import, stream, unflatten
from stableanimator_jax.weights.tables import UNET
from tests.golden_data import ReferenceWeights, assert_close, load, manifest
from tests.golden_models import FLOAT32, channels_last

pytestmark = pytest.mark.slow

GIB = 2**30


def peak_memory() -> float:
    """The most memory that this process has held so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB  # Linux counts in KiB


def streamed_model() -> Model[UNet]:
    """The published checkpoint's keys and shapes with reference weights, converted one tensor at a time."""
    blueprint = Blueprint(UNet, StableAnimatorConfig().unet, FLOAT32)
    shapes = manifest("stableanimator_unet")
    plan = plan_import(UNET, shapes, blueprint.abstract_params())
    tensors = stream(UNET, plan, ReferenceWeights(shapes, "unet."))
    return Model(unflatten({path: jnp.asarray(array) for path, array in tensors}), blueprint)


def predict(unet: Model[UNet], sample, timestep, context, added_time_ids, pose_features):
    """`context` as in the published code: the image token, then the face tokens."""
    conditioning = Conditioning(context[:, 0], context[:, 1:], added_time_ids, sample[..., 4:], pose_features)
    return unet.module()(sample[..., :4], timestep, conditioning)


def test_golden_unet_at_full_size():
    case = load("unet_full_size")
    inputs: dict[str, Any] = {
        "sample": channels_last(case["sample"]),
        "timestep": np.broadcast_to(case["t"], 1),
        "context": case["context"],
        "added_time_ids": case["added_time_ids"],
        "pose_features": channels_last(case["pose_latents"])[None],
    }
    expected = channels_last(case["out"])

    start = time.monotonic()
    unet = jax.block_until_ready(streamed_model())
    print(f"\nweights: {time.monotonic() - start:.0f} s, peak memory {peak_memory():.1f} GiB")

    start = time.monotonic()
    compiled = jax.jit(predict).lower(unet, **inputs).compile()
    print(f"compile: {time.monotonic() - start:.0f} s, peak memory {peak_memory():.1f} GiB")

    for attempt in ("first run", "second run"):
        start = time.monotonic()
        out = np.asarray(compiled(unet, **inputs))
        print(f"{attempt}: {time.monotonic() - start:.1f} s, peak memory {peak_memory():.1f} GiB")

    error = np.abs(out - expected).max() / expected.std()
    print(f"max |difference| {error:.2e} of the standard deviation")
    assert_close(out, expected, 1e-4)
