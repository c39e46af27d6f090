import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import PoseNetConfig
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.weights.rules import plan_import
from stableanimator_jax.weights.tables import POSE_NET
from tests.golden_data import assert_close, load, load_reference_weights, manifest

run = nnx.jit(lambda model, *inputs: model(*inputs))


def make(channels: int = 32, dtype: jnp.dtype | type = jnp.float32) -> PoseNet:
    return PoseNet(PoseNetConfig(channels), precision=Precision(dtype), rngs=nnx.Rngs(0))


def golden(dtype: jnp.dtype | type = jnp.float32) -> PoseNet:
    return load_reference_weights(nnx.eval_shape(lambda: make(dtype=dtype)), POSE_NET, "pose_net.")


@pytest.fixture
def case():
    case = load("pose_net")
    return {name: np.moveaxis(array, 1, -1) for name, array in case.items()}


@pytest.fixture
def golden_model():
    return golden()


@pytest.fixture(scope="module")
def untrained():
    return make()


def test_golden(case, golden_model):
    assert_close(run(golden_model, jnp.asarray(case["pose"])), case["out"], 1e-4)


def test_any_leading_axes(case, golden_model):
    video = jnp.asarray(case["pose"]).reshape(2, 2, 64, 64, 3)
    assert_close(run(golden_model, video), case["out"].reshape(2, 2, 8, 8, 32), 1e-4)
    assert_close(run(golden_model, video[0, 0]), case["out"][0], 1e-4)


def test_bf16_is_near_float32(case):
    model = golden(jnp.bfloat16)
    out = run(model, jnp.asarray(case["pose"]))
    assert out.dtype == jnp.bfloat16
    error = np.linalg.norm(np.asarray(out, np.float32) - case["out"]) / np.linalg.norm(case["out"])
    assert error < 2e-2


def test_scale_multiplies_the_output(case, golden_model):
    golden_model.scale[...] = 2 * golden_model.scale[...]
    assert_close(run(golden_model, jnp.asarray(case["pose"])), 2 * case["out"], 1e-4)


def test_untrained_it_adds_nothing_but_can_learn(untrained):
    poses = jax.random.uniform(jax.random.key(1), (1, 16, 24, 3), minval=-1.0)
    assert untrained.scale[...].tolist() == [2.0]
    out = run(untrained, poses)
    assert out.shape == (1, 2, 3, 32)
    assert not out.any()
    gradients = jax.jit(jax.grad(lambda m: jnp.sum(m(poses))))(untrained)
    assert jnp.abs(gradients.final_proj.kernel[...]).max() > 0


def test_convolutions_start_he_normal(untrained):
    for layer in untrained.conv_layers:
        kernel = layer.kernel[...]
        if kernel.size > 4000:  # enough numbers to tell
            assert jnp.std(kernel) == pytest.approx((2 / np.prod(kernel.shape[:3])) ** 0.5, rel=0.05)
        assert jnp.abs(kernel).max() > 0
        assert not layer.bias[...].any()


def test_published_size():
    abstract = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(320))))
    plan = plan_import(POSE_NET, manifest("pose_net"), abstract)
    assert sum(np.prod(a.source_shape) for a in plan) == 205_557
