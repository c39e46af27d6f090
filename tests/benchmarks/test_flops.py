"""The benchmarks' operation count: against counts by hand and against XLA's own, where XLA can see."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks._flops import matmul_flops
from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.models.attention import attention, xla_attention
from stableanimator_jax.models.layers import Conv, Precision
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.sampling.models import Blueprint


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


def test_a_while_loop_is_refused():
    with pytest.raises(NotImplementedError, match="trip count"):
        matmul_flops(lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ y, x), shape(3, 3))


def test_the_count_agrees_with_xla_on_the_tiny_unet():
    """XLA's count leaves zero padding out and adds elementwise work, a few per cent each at this size."""
    blueprint = Blueprint(UNet, StableAnimatorConfig.tiny().unet, Precision())

    def forward(params, *inputs):
        return nnx.merge(blueprint.graphdef(), params)(*inputs)

    inputs = (shape(2, 3, 32, 32, 8), shape(2), shape(2, 64), shape(2, 4, 64), shape(2, 3), shape(2, 3, 32, 32, 32))
    arguments = (blueprint.abstract_params(), *inputs)
    xla = jax.jit(forward).lower(*arguments).cost_analysis()
    assert xla is not None
    assert 0.9 < matmul_flops(forward, *arguments) / xla["flops"] < 1.1
