"""SVD's schedule against the published code, and the EDM identities."""

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
