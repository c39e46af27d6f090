import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import ImageEncoderConfig, from_dict
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.rules import plan_import
from stableanimator_jax.weights.tables import IMAGE_ENCODER
from tests.golden_data import assert_close, load, load_reference_weights, manifest

run = nnx.jit(lambda model, *inputs: model(*inputs))


def make(config: ImageEncoderConfig, dtype: jnp.dtype | type = jnp.float32) -> ImageEncoder:
    return ImageEncoder(config, precision=Precision(dtype), rngs=nnx.Rngs(0))


def golden(config: ImageEncoderConfig, dtype: jnp.dtype | type = jnp.float32) -> ImageEncoder:
    return load_reference_weights(nnx.eval_shape(lambda: make(config, dtype)), IMAGE_ENCODER, "image_encoder.")


@pytest.fixture
def case():
    return load("image_encoder")


@pytest.fixture
def config(case):
    return from_dict(ImageEncoderConfig, json.loads(str(case["config"])))


@pytest.fixture
def pixels(case):
    return jnp.asarray(case["pixels"].transpose(0, 2, 3, 1))


def test_golden(case, config, pixels):
    model = golden(config)
    assert_close(run(model, pixels), case["image_embeds"], 1e-4)


def test_bf16_is_near_float32(case, config, pixels):
    model = golden(config, jnp.bfloat16)
    out = run(model, pixels)
    assert out.dtype == jnp.bfloat16
    expected = case["image_embeds"]
    assert np.linalg.norm(np.asarray(out, np.float32) - expected) / np.linalg.norm(expected) < 2e-2


def test_the_activation_is_the_configured_one(case, config, pixels):
    quick = dataclasses.replace(config, hidden_act="quick_gelu")
    out = run(golden(quick), pixels)
    difference = np.abs(np.asarray(out) - case["image_embeds"]).max()
    assert 1e-3 < difference < 1  # quick GELU approximates the exact one


def test_published_size():
    abstract = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(ImageEncoderConfig()))))
    plan = plan_import(IMAGE_ENCODER, manifest("svd_image_encoder"), abstract)
    assert sum(np.prod(a.source_shape) for a in plan) == 632_076_800
