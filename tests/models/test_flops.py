"""The operation count: against counts by hand and against XLA's own, where XLA can see."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.models.attention import attention, xla_attention
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.flops import matmul_flops, peak_flops, without_rematerialisation
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.layers import Conv, Precision
from stableanimator_jax.models.unet import UNet


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_products_and_convolutions_count_as_by_hand():
    layer = Conv(6, 10, 3, precision=Precision(), rngs=nnx.Rngs(0))

    def program(a, b, images):
        return jnp.einsum("bij,bjk->bik", a, b), jax.checkpoint(layer)(images), a + 1

    wanted = 2 * (3 * 4 * 5 * 7) + 2 * (2 * 8 * 9 * 10) * (3 * 3 * 6)
    assert matmul_flops(jax.jit(program), shape(3, 4, 5), shape(3, 5, 7), shape(2, 8, 9, 6)) == wanted


def test_a_loop_counts_every_turn():
    q = shape(1, 64, 2, 8)
    whole = matmul_flops(attention, q, q, q)
    assert whole == 2 * 2 * (2 * 64 * 64 * 8)
    assert matmul_flops(lambda q: xla_attention(q, q, q, logits_bytes=16 * 64 * 2 * 4), q) == whole


def test_gradients_count_what_they_compute():
    def flops(layer, function=lambda f: f):
        gradient = jax.grad(lambda x: jnp.square(function(layer)(x)).sum())
        return matmul_flops(gradient, shape(2, 8, 8, 6)) / matmul_flops(layer, shape(2, 8, 8, 6))

    layer = Conv(6, 6, 3, precision=Precision(), rngs=nnx.Rngs(0))

    def two(x):
        return layer(jax.nn.silu(layer(x)))

    assert flops(layer) == 2
    assert flops(two, jax.checkpoint) == 2.5  # the first of the two convolutions runs once more
    # A strided convolution's gradient is as many products as the convolution, whatever is put between its inputs.
    assert flops(Conv(6, 10, 3, stride=2, precision=Precision(), rngs=nnx.Rngs(0))) == 2


def test_a_training_step_counts_what_its_trained_parameters_need():
    """A chain of three layers, one of them a loop's, one frozen: every product by hand."""
    conv = Conv(6, 6, 3, precision=Precision(), rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(conv)
    kernels = nnx.to_pure_dict(state)
    one = matmul_flops(conv, shape(2, 8, 8, 6))

    def loss(trained, frozen, x, turns=3):
        y = nnx.merge(graphdef, frozen)(x)
        y, _ = jax.lax.scan(lambda y, _: (jax.checkpoint(nnx.merge(graphdef, trained))(y), None), y, None, turns)
        y = jax.lax.map(nnx.merge(graphdef, frozen), y[:, None])
        return jnp.square(y).sum(), y

    def gradient(function):
        return matmul_flops(jax.grad(function, has_aux=True), kernels, kernels, shape(2, 8, 8, 6))

    # Forward 1 + 3 + 1. Backward: the last layer's input; three times kernel and input, the first turn's input for
    # nothing (a loop's turns are alike); nothing of the first layer.
    assert gradient(without_rematerialisation(loss)) == (5 + 1 + 3 * 2) * one
    assert gradient(loss) == (5 + 1 + 3 * 2) * one
    assert gradient(lambda *args: jax.checkpoint(loss)(*args)) > (5 + 1 + 3 * 2) * one
    assert gradient(without_rematerialisation(lambda *args: jax.checkpoint(loss)(*args))) == (5 + 1 + 3 * 2) * one


def test_without_rematerialisation_a_function_does_the_same():
    def function(x, scale):
        y = jax.checkpoint(lambda x: jnp.sin(jnp.sin(x @ x) @ x))(x)
        y = jax.lax.cond(scale > 0, jax.checkpoint(lambda y: jnp.sin(y @ y) @ y), lambda y: y, y)
        return {"sum": (y * scale).sum()}

    x, scale = jnp.linspace(0, 1, 9).reshape(3, 3), jnp.float32(2)
    kept = without_rematerialisation(function)
    assert kept(x, scale)["sum"] == function(x, scale)["sum"]
    gradients = [jax.grad(lambda x, f=f: f(x, scale)["sum"])(x) for f in (function, kept)]
    assert jnp.allclose(*gradients, rtol=1e-6)
    counts = [matmul_flops(jax.grad(lambda x, f=f: f(x, scale)["sum"]), x) for f in (function, kept)]
    assert counts[1] < counts[0]


def test_the_peak_is_known_by_the_device_and_not_guessed():
    def peak(kind):
        return peak_flops(SimpleNamespace(device_kind=kind))

    assert peak("TPU v5 lite") == 197e12
    assert peak("NVIDIA H200") == 989.5e12
    assert peak("NVIDIA H100 PCIe") == 756.5e12
    assert peak("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
    assert peak_flops(jax.devices()[0]) is None


def test_a_while_loop_is_refused():
    with pytest.raises(NotImplementedError, match="trip count"):
        matmul_flops(lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ y, x), shape(3, 3))


def test_the_count_agrees_with_xla_on_the_tiny_unet():
    """XLA's count leaves zero padding out and adds elementwise work, a few per cent each at this size."""
    blueprint = Blueprint(UNet, StableAnimatorConfig.tiny().unet, Precision())

    def forward(params, *inputs):
        return nnx.merge(blueprint.graphdef(), params)(*inputs)

    beside, features = shape(2, 32, 32, 4), shape(2, 3, 32, 32, 32)
    conditioning = Conditioning(shape(2, 64), shape(2, 4, 64), shape(2, 3), beside, features)
    arguments = (blueprint.abstract_params(), shape(2, 3, 32, 32, 4), shape(2), conditioning)
    xla = jax.jit(forward).lower(*arguments).cost_analysis()
    assert xla is not None
    assert 0.9 < matmul_flops(forward, *arguments) / xla["flops"] < 1.1
