"""The VAE against the published code, and its own promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import VAEConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.layers import GroupNorm, Precision
from stableanimator_jax.models.vae import VAE
from tests.golden_data import assert_close, load
from tests.golden_models import BFLOAT16, FLOAT16, channels_last, reference_model


@jax.jit
def encode(vae, images):
    return vae.module().encode(images)


@jax.jit
def decode(vae, latents):
    return vae.module().decode(latents)


@pytest.fixture(scope="module")
def case():
    return {name: channels_last(x) if x.ndim == 4 else x for name, x in load("vae").items()}


@pytest.fixture(scope="module")
def vae():
    return reference_model("vae")


def test_golden_encode(case, vae):
    mean, logvar = encode(vae, case["image"])
    assert_close(mean, case["mean"], 1e-4)
    assert_close(logvar, case["logvar"], 1e-4)


def test_golden_decode(case, vae):
    assert case["num_frames"] == len(case["latent"])
    assert_close(decode(vae, case["latent"][None])[0], case["decoded"], 1e-4)


def test_frames_of_a_chunk_see_each_other(case, vae):
    latents = np.array(case["latent"][None])
    first = decode(vae, latents)
    latents[:, -1] = 0
    assert jnp.abs(decode(vae, latents)[:, 0] - first[:, 0]).max() > 1e-4


@pytest.mark.slow
def test_large_frames_go_one_by_one_to_the_same_end(case, vae, monkeypatch):
    """To what large ones take, small ones come to at this limit."""
    latents = np.stack([case["latent"], case["latent"][::-1]])

    def gradient_and_program():
        loss = jax.jit(jax.value_and_grad(lambda x: jnp.square(vae.module().decode(x)).mean()))
        return loss(latents), loss.lower(latents).as_text()

    (value, gradient), together = gradient_and_program()
    monkeypatch.setattr("stableanimator_jax.models.vae.FRAME_BYTES", 1)
    (same_value, same_gradient), one_by_one = gradient_and_program()
    assert "while" in one_by_one
    assert "while" not in together
    np.testing.assert_allclose(same_value, value, rtol=1e-5)
    assert_close(same_gradient, np.asarray(gradient), 1e-4)


def test_videos_of_a_batch_do_not_see_each_other(case, vae):
    latents = np.stack([case["latent"], case["latent"][::-1]])
    together = decode(vae, latents)
    for i in range(2):
        np.testing.assert_allclose(together[i], decode(vae, latents[i : i + 1])[0], atol=1e-4)


@pytest.mark.parametrize(("precision", "most"), [pytest.param(BFLOAT16, 3e-2, marks=pytest.mark.slow), (FLOAT16, 4e-3)])
def test_16_bits_are_close(case, vae, precision, most):
    half = decode(reference_model("vae", precision=precision), case["latent"][None])
    full = decode(vae, case["latent"][None])
    assert half.dtype == jnp.float32
    assert jnp.linalg.norm(half - full) / jnp.linalg.norm(full) < most


def test_logvar_is_clamped(vae):
    _, logvar = encode(vae, np.full((1, 64, 64, 3), 1e4, np.float32))
    assert jnp.abs(logvar).max() <= 30


@pytest.mark.slow
def test_gradients_are_the_same_without_rematerialisation(case, vae):
    latents = case["latent"][None]

    def gradient(remat: bool):
        def loss(x):
            return jnp.square(vae.module().decode(x, remat=remat)).mean()

        return jax.jit(jax.value_and_grad(loss))(latents), str(jax.make_jaxpr(jax.grad(loss))(latents))

    (value, kept), program = gradient(False)
    (same_value, computed_again), rematerialised = gradient(True)
    np.testing.assert_allclose(same_value, value, rtol=1e-5)
    assert_close(computed_again, np.asarray(kept), 1e-4)
    assert "remat" in rematerialised
    assert "remat" not in program


def test_groups_of_a_norm():
    norm = GroupNorm(12, eps=1e-5, groups=3, precision=Precision(), rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 5, 12)).astype(np.float32)
    grouped = x.reshape(2, 20, 3, 4)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    expected = (centred / np.sqrt(np.square(centred).mean((1, 3), keepdims=True) + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(norm(jnp.asarray(x), (-3, -2)), expected, atol=1e-5)


@pytest.mark.parametrize(("mean", "first"), [(0, 0), (100, 100), (100, 99), (0, 3), (-1e4, -1e4)])
@pytest.mark.parametrize("axes", [(-3, -2), (-4, -3, -2)])
def test_a_norm_of_numbers_far_from_zero_or_from_their_first(mean, first, axes):
    """Against float64: in one pass over memory, but without the cancellation of the plain one-pass form."""
    norm = GroupNorm(8, eps=1e-5, groups=2, precision=Precision(), rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(mean, 0.05, (2, 3, 8, 8, 8)).astype(np.float32)
    x[:, 0, 0, 0] = first
    grouped = x.astype(np.float64).reshape(2, 3, 8, 8, 2, 4)
    over = (*(axis - 1 for axis in axes), -1)
    centred = grouped - grouped.mean(over, keepdims=True)
    expected = (centred / np.sqrt(np.square(centred).mean(over, keepdims=True) + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(norm(jnp.asarray(x), axes), expected, atol=2e-4, rtol=1e-4)


def test_every_norm_has_the_configured_groups():
    config = VAEConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)
    vae = nnx.eval_shape(lambda: VAE(config, precision=Precision(), rngs=nnx.Rngs(0)))
    norms = [child for _, child in nnx.iter_modules(vae) if isinstance(child, GroupNorm)]
    assert len(norms) > 30
    assert {norm.groups for norm in norms} == {4}
    with pytest.raises(InputError, match="multiple of 3"):
        VAEConfig(block_out_channels=(8, 8, 16, 16), norm_num_groups=3)
