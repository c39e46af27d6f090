import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import ArcFaceConfig
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.rules import plan_import
from stableanimator_jax.weights.tables import ARCFACE
from tests.golden_data import assert_close, load, load_reference_weights, manifest

SMALL = ArcFaceConfig(layers=(1, 1, 1, 1), widths=(8, 8, 16, 16), embedding_dim=32)

run = nnx.jit(lambda model, *inputs: model(*inputs))


def make(config: ArcFaceConfig, dtype: jnp.dtype | type = jnp.float32) -> ArcFace:
    return ArcFace(config, precision=Precision(dtype), rngs=nnx.Rngs(0))


def golden(config: ArcFaceConfig, dtype: jnp.dtype | type = jnp.float32) -> ArcFace:
    return load_reference_weights(nnx.eval_shape(lambda: make(config, dtype)), ARCFACE, "arcface.")


@pytest.fixture
def case():
    return load("arcface")


@pytest.fixture
def config(case):
    return ArcFaceConfig(layers=tuple(case["layers"].tolist()))


@pytest.fixture
def faces(case):
    return jnp.asarray(case["face"].transpose(0, 2, 3, 1))


def test_golden(case, config, faces):
    model = golden(config)
    assert_close(run(model, faces), case["out"], 1e-4)


def test_bf16_is_near_float32(case, config, faces):
    model = golden(config, jnp.bfloat16)
    out = run(model, faces)
    assert out.dtype == jnp.bfloat16
    assert np.linalg.norm(np.asarray(out, np.float32) - case["out"]) / np.linalg.norm(case["out"]) < 2e-2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_statistics_move_in_training_only(faces, dtype):
    model = golden(SMALL, dtype)
    before = model.bn1.mean[...]
    run(model, faces)
    np.testing.assert_array_equal(model.bn1.mean[...], before)
    model.train()
    run(model, faces)
    moved = model.bn1.mean[...]
    assert moved.dtype == jnp.float32
    assert (moved != before).all()
    model.eval()
    run(model, faces)
    np.testing.assert_array_equal(model.bn1.mean[...], moved)


def test_statistics_are_not_parameters():
    model = nnx.eval_shape(lambda: make(SMALL))
    trainable = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert set(trainable["bn1"]) == {"scale", "bias"}
    assert set(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))["bn1"]) == {"mean", "var"}


@pytest.mark.parametrize(
    ("layers", "parameters"),
    [
        # counts without the running statistics
        ((2, 2, 2, 2), 24_025_600),
        ((3, 4, 6, 3), 34_139_328),
        ((3, 4, 14, 3), 43_590_848),
        ((3, 13, 30, 3), 65_156_160),
    ],
)
def test_published_depths(layers, parameters):
    model = nnx.eval_shape(lambda: make(ArcFaceConfig(layers)))
    leaves = nnx.to_flat_state(nnx.state(model, nnx.Param))
    assert sum(np.prod(leaf.shape) for _, leaf in leaves) == parameters


def test_published_size():
    abstract = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(ArcFaceConfig()))))
    plan = plan_import(ARCFACE, manifest("arcface_r100"), abstract)
    assert sum(np.prod(a.source_shape) for a in plan) == 65_225_792
