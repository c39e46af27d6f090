"""SVD's schedule against the published code, and the EDM identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax import diffusion
from tests.golden_data import load


@pytest.mark.parametrize("steps", [25, 10, 4])
def test_golden_scheduler(steps):
    case = load("scheduler")
    sigmas = diffusion.karras_sigmas(steps)
    np.testing.assert_allclose(sigmas, case[f"sigmas_{steps}"], rtol=1e-6)
    np.testing.assert_allclose(diffusion.timestep(sigmas[:-1]), case[f"timesteps_{steps}"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(diffusion.init_noise_sigma(sigmas), case[f"init_noise_sigma_{steps}"], rtol=1e-6)


def test_one_step_goes_from_the_highest_level_to_zero():
    np.testing.assert_array_equal(diffusion.karras_sigmas(1), np.float32([700, 0]))


def test_aligned_levels_are_those_published():
    """Sabour et al. 2024, for Stable Video Diffusion."""
    np.testing.assert_array_equal(
        diffusion.aligned_sigmas(10),
        np.float32([700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0]),
    )
    np.testing.assert_array_equal(
        diffusion.aligned_sigmas(8), np.float32([700, 40.045, 11.257, 4.973, 1.789, 0.7854, 0.264, 0.0511, 0])
    )
    assert diffusion.aligned_sigmas(15)[[1, 7, 14]].tolist() == np.float32([127.63, 2.387, 0.0132]).tolist()


def test_aligned_levels_between_those_published():
    """Of 30 steps every second level is one of 15 steps', the nearest published, and the rest are halfway in log."""
    np.testing.assert_array_equal(diffusion.aligned_sigmas(1), np.float32([700, 0]))
    twice = diffusion.aligned_sigmas(30)
    np.testing.assert_allclose(twice[::2], diffusion.aligned_sigmas(15), rtol=1e-6)
    np.testing.assert_allclose(twice[1:28:2] ** 2, twice[0:27:2] * twice[2:29:2], rtol=1e-5)
    np.testing.assert_allclose(twice[-2], np.sqrt(0.0132 * 0.002), rtol=1e-5)  # towards the lowest level of training
    np.testing.assert_allclose(diffusion.aligned_sigmas(4)[:-1], diffusion.aligned_sigmas(8)[:-1:2], rtol=1e-6)
    for steps in range(1, 101):
        sigmas = diffusion.aligned_sigmas(steps)
        assert sigmas.shape == (steps + 1,)
        assert sigmas.dtype == np.float32
        assert (np.diff(sigmas) < 0).all()


@pytest.mark.parametrize("sigma", np.float32([0.002, 1.0, 700.0]))
def test_a_perfect_prediction_is_denoised_exactly(sigma):
    """For noisy = clean + sigma * noise, the perfect v is (noise - sigma * clean) / sqrt(1 + sigma^2)."""
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 64))
    v = (noise - sigma * clean) / np.sqrt(1 + np.float64(sigma) ** 2)
    noisy = clean + np.float64(sigma) * noise
    out = diffusion.denoised(jnp.float32(v), jnp.float32(noisy), sigma)
    np.testing.assert_allclose(out, clean, atol=2e-4)


def test_the_last_euler_step_lands_on_the_clean_sample():
    clean, noisy = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    out = diffusion.euler_step(clean, noisy, np.float32(0.002), np.float32(0))
    np.testing.assert_allclose(out, clean, atol=1e-5)


def test_golden_training_noise_levels():
    case = load("noise_levels")
    np.testing.assert_allclose(diffusion.training_sigmas(jnp.asarray(case["u"])), case["sigma"], rtol=2e-5)


def test_training_noise_levels_fall_with_the_draw():
    sigmas = np.asarray(diffusion.training_sigmas(jnp.linspace(0.001, 1, 100)))
    assert (np.diff(sigmas) < 0).all()


def test_stratified_draws_are_one_in_each_part():
    uniform = np.random.default_rng(0).random(7).astype(np.float32)
    draws = np.asarray(diffusion.stratified(jnp.asarray(uniform)))
    np.testing.assert_array_equal(np.floor(draws * 7), np.arange(7))
    np.testing.assert_allclose(draws * 7 - np.arange(7), uniform, atol=1e-5)


def test_loss_weight():
    np.testing.assert_allclose(diffusion.loss_weight(jnp.float32(0.5)), 5.0)


def test_noise_is_jaxs_own_of_that_shape():
    key = jax.random.key(3)
    found = jax.jit(diffusion.standard_noise, static_argnums=1)(key, (3, 4, 2, 5))
    np.testing.assert_array_equal(found, jax.random.normal(key, (3, 4, 2, 5)))
    assert found.dtype == jnp.float32
