"""ControlNeXt's control net and its place in the UNet, against the published code."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import ControlNetConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.conditioning import Conditioning, Control
from stableanimator_jax.models.control_net import ControlNet, with_control
from stableanimator_jax.models.flops import matmul_flops
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.tables import CONTROL_NET
from tests.golden_data import assert_close, load, load_reference_weights
from tests.golden_models import BFLOAT16, FLOAT16, FLOAT32, channels_last, reference_model

STRENGTH = ControlNetConfig().strength
run = nnx.jit(lambda model, *inputs: model(*inputs))


def golden(precision: Precision = FLOAT32) -> ControlNet:
    model = nnx.eval_shape(lambda: ControlNet(ControlNetConfig(), precision=precision, rngs=nnx.Rngs(0)))
    return load_reference_weights(model, CONTROL_NET, "controlnext.")


@pytest.fixture(scope="module")
def net_case():
    return load("controlnext_net")


@pytest.fixture(scope="module")
def net():
    return golden()


def by_clip(features: np.ndarray, clips: int) -> np.ndarray:
    """The published `[b * f, c, h, w]` as `[b, f, h, w, c]`."""
    features = channels_last(features)
    return features.reshape(clips, -1, *features.shape[1:])


@pytest.mark.parametrize(("size", "tolerance"), [("", 5e-4), ("_odd", 1e-4)])
def test_golden_net(net_case, net, size, tolerance):
    """XLA's CPU backend sums a large image's statistics one number after another, in float32: hence 5e-4."""
    poses = jnp.asarray(net_case[f"poses{size}"], jnp.float32) / 255
    out = run(net, poses, jnp.asarray(net_case[f"t{size}"]))
    assert_close(out, by_clip(net_case[f"out{size}"], len(poses)), tolerance)


@pytest.mark.parametrize(("precision", "most"), [(BFLOAT16, 2e-2), (FLOAT16, 3e-3)])
def test_net_in_16_bits_is_close(net_case, precision, most):
    poses = jnp.asarray(net_case["poses_odd"], jnp.float32) / 255
    out = run(golden(precision), poses, jnp.asarray(net_case["t_odd"]))
    assert out.dtype == precision.compute
    expected = by_clip(net_case["out_odd"], 1)
    assert np.linalg.norm(np.asarray(out, np.float32) - expected) / np.linalg.norm(expected) < most


@pytest.fixture(scope="module")
def unet():
    return reference_model("unet")


@pytest.fixture(scope="module")
def case():
    return load("controlnext_unet")


def control(case, scale: np.ndarray) -> Control:
    return Control(jnp.asarray(by_clip(case["control"], 2)), jnp.asarray(STRENGTH * scale, jnp.float32))


@jax.jit
def run_unet(unet, sample, timestep, context, added_time_ids, control):
    conditioning = Conditioning(context[:, 0], None, added_time_ids, sample[..., 4:], control=control)
    return unet.module()(sample[..., :4], jnp.full(sample.shape[:1], timestep), conditioning)


def inputs(case):
    sample = channels_last(case["sample"])
    return jnp.asarray(sample), case["t"], jnp.asarray(case["context"]), jnp.asarray(case["added_time_ids"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("out", "scale"), [("out", (0, 1)), ("out_scale_one", (1, 1)), ("out_no_control", (0, 0)), ("out_no_control", None)]
)
def test_golden_unet(case, unet, out, scale):
    given = None if scale is None else control(case, np.array(scale))
    assert_close(run_unet(unet, *inputs(case), given), channels_last(case[out]), 1e-4)


def test_the_published_scale_is_that_of_the_branches(case):
    np.testing.assert_array_equal(case["scale"].ravel(), np.repeat([0, 1], 4))


def test_golden_input_of_the_second_level(case):
    """Where a standard deviation that is not a sample's would show: it would be off by 1e-4."""
    hidden = jnp.asarray(by_clip(case["down_block_0"], 2))
    out = with_control(hidden, control(case, np.array([0, 1])))
    assert_close(out, by_clip(case["down_block_0_with_control"], 2), 1e-5)
    np.testing.assert_array_equal(out[0], hidden[0])


@pytest.mark.parametrize("branch", [0, 2, 3])
def test_a_step_that_reuses_deep_features_takes_control_below_the_first_level_only(case, unet, branch):
    """Skip connections 0 to 3 are from before control; so the layers above branch 2 run as without it."""
    sample, t, context, ids = inputs(case)

    def reuse(unet, control, deep=None):
        conditioning = Conditioning(context[:, 0], None, ids, sample[..., 4:], control=control)
        arguments = sample[..., :4], jnp.full(2, t), conditioning
        if deep is None:
            return unet.module().keep_deep(*arguments, branch)
        return unet.module().reuse_deep(*arguments, deep, branch)

    given = control(case, np.array([0, 1]))
    _, deep = jax.eval_shape(reuse, unet, given)
    with_it, without = (matmul_flops(reuse, unet, control, deep) for control in (given, None))
    assert (with_it > without) == (branch == 3)


def test_gradients_to_the_features(case):
    """In training, a control net learns through the statistics that its features are given."""
    hidden = jnp.asarray(by_clip(case["down_block_0"], 2))
    given = control(case, np.array([1, 1]))

    @jax.jit
    def loss(features):
        return jnp.square(with_control(hidden, given._replace(features=features))).sum()

    gradient = jax.grad(loss)(given.features)
    direction = jax.random.normal(jax.random.key(0), gradient.shape)
    step = 1e-2
    ahead, behind = (loss(given.features + s * direction) for s in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=2e-2)


def test_features_of_nothing_add_the_mean_and_a_scale_of_zero_nothing():
    hidden = 3 + jax.random.normal(jax.random.key(0), (2, 1, 4, 4, 32))
    out = with_control(hidden, Control(jnp.zeros((2, 1, 9, 7, 32)), jnp.array([0.0, 0.5])))
    np.testing.assert_array_equal(out[0], hidden[0])
    np.testing.assert_allclose(out[1], hidden[1] + 0.5 * hidden[1].mean(), rtol=1e-5)


def test_published_sizes():
    net = nnx.eval_shape(lambda: ControlNet(ControlNetConfig(), precision=FLOAT16, rngs=nnx.Rngs(0)))
    poses, t = jax.ShapeDtypeStruct((1, 2, 1024, 576, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    assert nnx.eval_shape(lambda net, *x: net(*x), net, poses, t).shape == (1, 2, 127, 71, 320)


@pytest.mark.parametrize(
    ("made", "message"), [({"strength": 0}, "strength must be positive"), ({"out_channels": 0}, "must be from 1")]
)
def test_no_such_control_net(made, message):
    with pytest.raises(InputError, match=message):
        replace(ControlNetConfig(), **made)
