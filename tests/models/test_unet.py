"""The UNet against the published code, and its own promises."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.id_adapter import IdCrossAttention, align_distribution
from stableanimator_jax.models.layers import LayerKwargs, Upsample
from stableanimator_jax.models.spatio_temporal import SpatioTemporalResBlock, SpatioTemporalTransformer, Tokens
from stableanimator_jax.models.unet import UNet, UpBlock
from tests.golden_data import assert_close, load
from tests.golden_models import BFLOAT16, FLOAT16, FLOAT32, TINY, channels_last, reference_model


@jax.jit
def run(unet, sample, timestep, context, added_time_ids, pose_features):
    """`context` as in the published code: the image token, then the face tokens, if any."""
    timesteps = jnp.full(sample.shape[:1], timestep)
    faces = context[:, 1:] if context.shape[1] > 1 else None
    conditioning = Conditioning(context[:, 0], faces, added_time_ids, sample[..., 4:], pose_features)
    return unet.module()(sample[..., :4], timesteps, conditioning)


@pytest.fixture(scope="module")
def case():
    return load("unet")


@pytest.fixture(scope="module")
def inputs(case):
    b, f = case["sample"].shape[:2]
    pose_latents = channels_last(case["pose_latents"])
    return {
        "sample": channels_last(case["sample"]),
        "context": case["context"],
        "added_time_ids": case["added_time_ids"],
        "pose_features": pose_latents.reshape(b, f, *pose_latents.shape[1:]),
    }


@pytest.fixture(scope="module")
def unet():
    return reference_model("unet")


def test_golden_with_pose(case, inputs, unet):
    assert_close(run(unet, timestep=case["t_with_pose"], **inputs), channels_last(case["out_with_pose"]), 1e-4)


def test_golden_without_pose(case, inputs, unet):
    inputs = inputs | {"pose_features": None}
    assert_close(run(unet, timestep=case["t_no_pose"], **inputs), channels_last(case["out_no_pose"]), 1e-4)


def test_golden_id_attention():
    case = load("id_attention")
    unet = reference_model("unet").module()
    assert str(case["layer"]) == "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
    layer = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2
    assert isinstance(layer, IdCrossAttention)
    # The published layer sees frames in its batch axis, each with a context of its own.
    out = layer(case["hidden"][:, None], case["context"][:, 0], case["context"][:, 1:])
    assert_close(out[:, 0], case["out"], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "most"), [(BFLOAT16, 1.9e-2), (FLOAT16, 3e-3)])
def test_16_bits_are_close(case, inputs, unet, precision, most):
    half = run(reference_model("unet", precision=precision), timestep=case["t_with_pose"], **inputs)
    full = run(unet, timestep=case["t_with_pose"], **inputs)
    assert half.dtype == jnp.float32
    error = jnp.linalg.norm(half - full) / jnp.linalg.norm(full)
    assert error <= most


def test_zero_image_token_silences_the_face_tokens(case, inputs, unet):
    """The unconditional pass: whatever the face tokens, a zero image token leaves nothing of them."""
    context = np.array(inputs["context"])
    context[:, 0] = 0
    other = context.copy()
    other[:, 1:] *= -3
    outs = [run(unet, timestep=case["t_no_pose"], **(inputs | {"context": c})) for c in (context, other)]
    np.testing.assert_array_equal(*map(np.asarray, outs))


def test_face_tokens_matter(case, inputs, unet):
    other = np.array(inputs["context"])
    other[:, 1:] = other[:, :0:-1] * 2
    outs = [run(unet, timestep=case["t_no_pose"], **(inputs | {"context": c})) for c in (inputs["context"], other)]
    assert jnp.abs(outs[0] - outs[1]).max() > 1e-3


@pytest.mark.long
def test_id_injection_by_addition(case, inputs, unet):
    """The ablation is a switch on the same weights, and another function."""
    config = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, id_injection="addition"))
    added = reference_model("unet", config)
    out = run(added, timestep=case["t_no_pose"], **inputs)
    assert jnp.abs(out - run(unet, timestep=case["t_no_pose"], **inputs)).max() > 1e-3
    # By addition, face tokens enter even where the image token is zero.
    context = np.array(inputs["context"])
    context[:, 0] = 0
    silent = np.array(context)
    silent[:, 1:] = 0
    outs = [run(added, timestep=case["t_no_pose"], **(inputs | {"context": c})) for c in (context, silent)]
    assert jnp.abs(outs[0] - outs[1]).max() > 1e-3


def test_addition_adds():
    layer = IdCrossAttention(32, 16, 2, id_injection="addition", precision=FLOAT32, rngs=_rngs())
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 3, 5, 32))
    image, faces = jax.random.normal(keys[1], (2, 16)), jax.random.normal(keys[2], (2, 4, 16))
    expected = _attend(layer, x, image[:, None], layer.to_k, layer.to_v) + _attend(
        layer, x, faces, layer.id_to_k, layer.id_to_v
    )
    np.testing.assert_allclose(layer(x, image, faces), layer.to_out(expected), atol=1e-5)


def _rngs():
    from flax import nnx

    return nnx.Rngs(0)


def _attend(layer, x, context, to_k, to_v):
    """Cross-attention written out, softmax over one key included."""
    q, k, v = (y.reshape(*y.shape[:-1], layer.heads, -1) for y in (layer.to_q(x), to_k(context), to_v(context)))
    logits = jnp.einsum("bftnd,bsnd->bfnts", q, k) / np.sqrt(q.shape[-1])
    out = jnp.einsum("bfnts,bsnd->bftnd", jax.nn.softmax(logits, axis=-1), v)
    return out.reshape(x.shape)


def test_alignment_matches_a_float64_restatement():
    rng = np.random.default_rng(0)
    z_image = rng.standard_normal((2, 1, 1, 32))
    z_face = 3 + 5 * rng.standard_normal((2, 3, 7, 32))
    spread = np.broadcast_to(z_image, z_face.shape)
    axes = {"axis": (2, 3), "keepdims": True}
    expected = (
        spread
        + (z_face - z_face.mean(**axes)) * spread.std(ddof=1, **axes) / (z_face.std(ddof=1, **axes) + 1e-5)
        + spread.mean(**axes)
    )
    out = align_distribution(jnp.asarray(z_image, jnp.float32), jnp.asarray(z_face, jnp.float32))
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_alignment_has_finite_gradients_at_a_zero_image_token():
    z_face = jax.random.normal(jax.random.key(0), (1, 2, 3, 32))
    gradient = jax.grad(lambda z: align_distribution(z, z_face).sum())(jnp.zeros((1, 1, 1, 32)))
    assert jnp.isfinite(gradient).all()


@pytest.mark.long
@pytest.mark.parametrize("frames", [1, 3])
def test_any_number_of_frames_and_size(frames):
    unet = reference_model("unet")
    out = run(
        unet,
        np.ones((1, frames, 8, 16, 8), np.float32),
        np.float32(0.3),
        np.ones((1, 1, 64), np.float32),
        np.ones((1, 3), np.float32),
        None,
    )
    assert out.shape == (1, frames, 8, 16, 4)
    assert jnp.isfinite(out).all()


def test_unet_is_a_plain_module():
    assert isinstance(reference_model("unet").module(), UNet)


@pytest.mark.slow
def test_remat_keeps_little_and_changes_nothing():
    """One level on the way up: it takes skips, and doubles. What is kept for the backward pass, and the gradients."""
    kw: LayerKwargs = {"precision": FLOAT32, "rngs": _rngs()}
    block = UpBlock(
        [SpatioTemporalResBlock(96, 64, 16, eps=1e-5, **kw)],
        [SpatioTemporalTransformer(64, 16, 2, id_injection="distribution_aware", **kw)],
        upsampler=Upsample(64, **kw),
    )
    shapes = ((1, 16, 8, 8, 64), (1, 16, 8, 8, 32), (1, 16), (1, 16), (1, 4, 16))
    x, skip, time, *tokens = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))

    def loss(block, x, skip, remat):
        x = block.layer(0, x, skip, time, Tokens(*tokens), remat)
        return jnp.square(block.resize(x, remat)).sum()

    def kept(remat):
        """How many times the size of `x` the backward pass needs; parameters are smaller, and not counted."""
        pullback = jax.eval_shape(lambda *args: jax.vjp(partial(loss, remat=remat), *args)[1], block, x, skip)
        return sum(leaf.size for leaf in jax.tree.leaves(pullback) if leaf.size >= x.size) / x.size

    # What enters each of the four halves and the doubling; and for the square, the output, four times as large.
    assert kept(True) == 5 + 4
    assert kept(False) > 50
    plain, again = (
        jax.jit(jax.grad(partial(loss, remat=remat), argnums=(0, 1, 2)))(block, x, skip) for remat in (0, 1)
    )
    for p, q in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(q, p, atol=1e-5 * np.abs(p).max())
